package balancer

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What frames are made of, from the inside out.

func tcp(source, destination uint16, flags byte, payload int) []byte {
	b := make([]byte, 20+payload)
	binary.BigEndian.PutUint16(b, source)
	binary.BigEndian.PutUint16(b[2:], destination)
	b[12], b[13] = 5<<4, flags
	return b
}

func udp(source, destination uint16, payload int) []byte {
	b := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(b, source)
	binary.BigEndian.PutUint16(b[2:], destination)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	b[6] = 1 // no right checksum, but 0 would be none, which IPv6 does not have
	return b
}

// icmp is a message with a right checksum.
func icmp(source, destination string, typ, code byte, rest uint32, payload []byte) []byte {
	b := append(binary.BigEndian.AppendUint32([]byte{typ, code, 0, 0}, rest), payload...)
	var pseudo []byte
	if a := netip.MustParseAddr(source); a.Is6() {
		pseudo = append(a.AsSlice(), netip.MustParseAddr(destination).AsSlice()...)
		pseudo = append(binary.BigEndian.AppendUint32(pseudo, uint32(len(b))), 0, 0, 0, unix.IPPROTO_ICMPV6)
	}
	binary.BigEndian.PutUint16(b[2:], checksum(pseudo, b))
	return b
}

// ip is a packet of the family of its addresses, with a hop limit of 64.
func ip(source, destination string, protocol byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	if s.Is4() {
		h := binary.BigEndian.AppendUint16([]byte{0x45, 0x28}, uint16(20+len(payload)))
		h = append(h, 0, 7, 0x40, 0, 64, protocol, 0, 0)
		h = append(append(h, s.AsSlice()...), d.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, payload...)
	}
	h := binary.BigEndian.AppendUint16([]byte{0x62, 0x80, 0, 0}, uint16(len(payload)))
	h = append(append(append(h, protocol, 64), s.AsSlice()...), d.AsSlice()...)
	return append(h, payload...)
}

// srh is a segment routing header with segments in the order of the path.
func srh(next byte, left int, segments ...string) []byte {
	n := byte(len(segments))
	b := []byte{next, 2 * n, 4, byte(left), n - 1, 0, 0, 0}
	for i := range segments {
		b = append(b, netip.MustParseAddr(segments[len(segments)-1-i]).AsSlice()...)
	}
	return b
}

// ethernet is a frame, with a VLAN tag unless that is 0.
func ethernet(vlan uint16, packet []byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	if vlan != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), vlan)
	}
	kind := []byte{0x86, 0xdd}
	if packet[0]>>4 == 4 {
		kind = []byte{8, 0}
	}
	return append(append(b, kind...), packet...)
}

// with changes a byte of a packet.
func with(b []byte, at int, value byte) []byte {
	b[at] = value
	return b
}
