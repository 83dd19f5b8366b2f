package balancer

import (
	"fmt"
	"testing"

	"github.com/razor-steering/razor/integration/tshark"
)

// Wireshark finds nothing wrong in what leaves, errors of our own among it.
func TestWiresharkReadsWhatLeaves(t *testing.T) {
	t.Parallel()
	b := newModel(false).load(t)
	var frames []tshark.Frame
	for _, f := range fixtures() {
		for _, vlan := range []uint16{0, 12} {
			if v := b.run(t, ethernet(vlan, f.packet)); v.action == xdpTX || v.action == xdpRedirect {
				frames = append(frames, tshark.Frame{Name: fmt.Sprintf("%s, VLAN %d", f.name, vlan), Data: v.frame})
			}
		}
	}
	tshark.Judge(t, frames)
}
