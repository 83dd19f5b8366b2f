package tshark

import (
	"bytes"
	"strings"
	"testing"
)

// What is wrong is found, and nothing else is.
func TestWhatIsWrongIsFound(t *testing.T) {
	t.Parallel()
	ethernet := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd}
	ip := append([]byte{0x60, 0, 0, 0, 0, 24, 43, 64}, bytes.Repeat([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0}, 4)...)
	srh := append([]byte{59, 2, 4, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0}, 2)...)
	good := bytes.Join([][]byte{ethernet, ip, srh}, nil)
	short := bytes.Clone(good)
	short[14+40+1] = 9 // the list goes on behind the frame
	said := judge(t, []Frame{{"good", good}, {"short", short}, {"good again", good}})
	if len(said) != 1 || !strings.HasPrefix(said[0], "short: ") {
		t.Errorf("%q", said)
	}
}
