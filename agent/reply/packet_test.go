package reply

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

const (
	tcp, udp, ipip, ipv6 = 6, 17, 4, 41
	syn, ack             = 0x02, 0x10

	etherLen, ip4Len, ip6Len, tcpLen = 14, 20, 40, 20
)

var (
	vip4, vip6       = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:f::10")
	client4, client6 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:c::1")
)

// sum is the Internet checksum (RFC 1071) of bytes.
func sum(b []byte) uint16 {
	var s uint32
	for i := range b {
		s += uint32(b[i]) << (8 * (1 - i%2))
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// pseudo is the pseudo-header of checksums (RFC 9293 §3.1, RFC 8200 §8.1).
func pseudo(from, to netip.Addr, protocol byte, length int) []byte {
	b := slices.Concat(from.AsSlice(), to.AsSlice())
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, protocol)
}

// frame is one of IPv4 or IPv6, by the addresses.
func frame(from, to netip.Addr, protocol, class byte, payload []byte) []byte {
	eth := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd}
	if from.Is4() {
		b := make([]byte, ip4Len)
		b[0], b[1], b[8], b[9] = 0x45, class, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(ip4Len+len(payload)))
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], sum(b))
		eth[12], eth[13] = 8, 0
		return slices.Concat(eth, b, payload)
	}
	b := make([]byte, ip6Len)
	binary.BigEndian.PutUint32(b, 6<<28|uint32(class)<<20|0x12345)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, 64
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return slices.Concat(eth, b, payload)
}

// segment is a frame of TCP whose options are a multiple of four bytes.
func segment(from, to netip.Addr, flags byte, options []byte) []byte {
	b := make([]byte, tcpLen, tcpLen+len(options))
	binary.BigEndian.PutUint16(b, 443)
	binary.BigEndian.PutUint16(b[2:], 50000)
	b[12], b[13], b[14] = byte(tcpLen+len(options))<<2, flags, 0x40
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[16:], sum(append(pseudo(from, to, tcp, len(b)), b...)))
	return frame(from, to, tcp, 0, b)
}

// clamped is what the program makes of a frame that segment made, written anew.
func clamped(in []byte, from, to netip.Addr, flags byte, options []byte, most uint16) []byte {
	if flags&syn == 0 || from != vip4 && from != vip6 {
		return in
	}
	changed := slices.Clone(options)
	for i := 0; i+4 <= len(options); {
		switch kind, size := options[i], int(options[i+1]); {
		case kind == 1:
			i++
			continue
		case kind == 2 && size == 4:
			if binary.BigEndian.Uint16(options[i+2:]) > most {
				binary.BigEndian.PutUint16(changed[i+2:], most)
			}
			return segment(from, to, flags, changed)
		case kind == 0 || size < 2:
			return in
		default:
			i += size
		}
	}
	return in
}
