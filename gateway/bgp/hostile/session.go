package hostile

import (
	"bytes"
	"fmt"
	"slices"
)

// headers are messages with a broken header, in every state.
func (c *cases) headers() {
	for state := Connected; state <= Established; state++ {
		for _, i := range []int{0, 1, 7, 15} {
			b := keepalive()
			b[i] = 0
			c.add(state, fmt.Sprintf("marker, octet %d", i), b)
		}
		c.add(state, "marker of zeros", slices.Concat(zeros(16), u16(headerLen), []byte{typeKeepalive}))
		for _, n := range []int{0, 1, 16, 18} {
			for typ := range byte(7) {
				c.add(state, fmt.Sprintf("length %d, type %d", n, typ), raw(n, typ, nil))
			}
		}
		for typ := range 256 {
			rare := state != Established && typ > 7 && typ != 128 && typ != 255
			if typ == 0 || typ > typeRefresh && !rare {
				c.add(state, fmt.Sprintf("type %d", typ), raw(headerLen, byte(typ), nil))
			}
		}
		for _, n := range []int{4097, 65535} {
			for typ := range byte(7) {
				c.add(state, fmt.Sprintf("length %d, type %d", n, typ), raw(n, typ, zeros(n-headerLen)))
			}
		}
		c.add(state, "unknown type, 4096 octets", message(6, zeros(maxMessage-headerLen)))
		c.add(state, "zeros", zeros(maxMessage))
		c.add(state, "ones", bytes.Repeat([]byte{0xff}, maxMessage))
		c.add(state, "another protocol", []byte("GET / HTTP/1.1\r\nHost: speaker\r\n\r\n"))
		shortest := map[byte]int{typeOpen: 29, typeUpdate: 23, typeNotification: 21, typeRefresh: 23}
		for typ := byte(typeOpen); typ <= typeRefresh; typ++ {
			for n := headerLen; n < shortest[typ]; n++ {
				c.add(state, fmt.Sprintf("type %d of %d octets", typ, n), raw(n, typ, zeros(n-headerLen)))
			}
		}
		c.add(state, "KEEPALIVE of 20 octets", message(typeKeepalive, zeros(1)))
		c.add(state, "KEEPALIVE of 4096 octets", message(typeKeepalive, zeros(maxMessage-headerLen)))
	}
}

// unexpected are sound messages in states in which they do not belong, and
// NOTIFICATIONs that are odd.
func (c *cases) unexpected() {
	sound := map[string][]byte{
		"UPDATE": update(nil, mandatory, host4), "end of RIB": update(nil, nil, nil),
		"ROUTE-REFRESH": message(typeRefresh, []byte{0, 2, 0, 1}),
	}
	for _, name := range []string{"UPDATE", "end of RIB", "ROUTE-REFRESH"} {
		for _, state := range []State{Connected, OpenSent, OpenConfirm} {
			c.add(state, name+" too early", sound[name])
		}
	}
	for _, state := range []State{Connected, OpenSent} {
		c.add(state, "KEEPALIVE too early", keepalive())
	}
	for _, state := range []State{OpenConfirm, Established} {
		c.add(state, "second OPEN", open(Hold, parameter(2, capabilities())))
		c.add(state, "second OPEN, another AS", message(typeOpen, openBody(4, 1, Hold, ID, 0, nil)))
	}
	for state := Connected; state <= Established; state++ {
		c.add(state, "NOTIFICATION of code 0", message(typeNotification, zeros(2)))
		c.add(state, "NOTIFICATION of code 255", message(typeNotification, []byte{255, 255}))
		c.add(state, "NOTIFICATION of 4096 octets", message(typeNotification, []byte{6, 2}, zeros(maxMessage-headerLen-2)))
		c.add(state, "shutdown, text beyond the end", message(typeNotification, []byte{6, 2, 255, 'x'}))
		c.add(state, "shutdown, text that is no text", message(typeNotification, []byte{6, 2, 5, 0x1b, '[', 0xff, 0xfe, '\n'}))
		c.add(state, "hard reset around nothing", message(typeNotification, []byte{6, 9}))
	}
}

// refreshes are ROUTE-REFRESHs for what was never negotiated. RFC 2918 §4 ignores
// them.
func (c *cases) refreshes() {
	for _, f := range families {
		c.survivor(Established, fmt.Sprintf("refresh of family %d/%d", f.afi, f.safi),
			message(typeRefresh, u16(f.afi), []byte{0, f.safi}))
	}
	for _, subtype := range []byte{1, 2, 3, 255} {
		c.add(Established, fmt.Sprintf("refresh of subtype %d", subtype), message(typeRefresh, []byte{0, 2, subtype, 1}))
	}
	for n := 1; n <= 12; n++ {
		c.add(Established, fmt.Sprintf("refresh with %d octets behind it", n), message(typeRefresh, []byte{0, 2, 0, 1}, zeros(n)))
	}
	c.add(Established, "refresh with a filter beyond the end", message(typeRefresh, []byte{0, 2, 0, 1, 1, 64, 255, 255, 0}))
}
