package segment

import (
	"bytes"
	"testing"

	"github.com/razor-steering/razor/integration/tshark"
)

// Wireshark finds nothing wrong in what the program lets out or up.
func TestWiresharkReadsWhatLeaves(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var frames []tshark.Frame
	for _, f := range fixtures() {
		verdict, out := h.run(f.in)
		if verdict == tx || verdict == redirect || verdict == pass && !bytes.Equal(f.in, out) {
			frames = append(frames, tshark.Frame{Name: f.name, Data: out})
		}
	}
	tshark.Judge(t, frames)
}
