package balancer

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Frames that are too long for one piece of memory, and such that are cut off, are what
// they are to the model.
func TestFramesInPieces(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	for slot := range uint32(Slots) {
		m.rows[[2]uint32{0, slot}] = 5 // whose path takes 9,000 bytes
	}
	b := m.load(t)
	for _, to := range [][2]string{{client6, vip6}, {client4, vip4}} {
		for _, data := range []int{3000, 5000, 8000, 8900, 9000} {
			whole := ethernet(0, ip(to[0], to[1], unix.IPPROTO_TCP, tcp(31000, 443, ack, data)))
			for _, cut := range []int{0, 1, 2000} {
				frame := whole[:len(whole)-cut]
				name := fmt.Sprintf("%d bytes of data to %s, %d cut off", data, to[1], cut)
				compare(t, name, frame, b.try(t, frame), m.run(bytes.Clone(frame)), true)
			}
		}
	}
}
