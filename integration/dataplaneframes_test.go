package integration

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Frames as the dataplane's judges and benchmarks make them, with right checksums.

// Offsets in a frame of the last 4 bytes of the source address, and of what IP carries.
const (
	etherHeader = 14
	source4, l4 = etherHeader + 12, etherHeader + 20
	source6, l6 = etherHeader + 8 + 12, etherHeader + 40
)

const (
	flagSYN = 2
	flagRST = 4
	flagACK = 16
)

// internetSum is the checksum of RFC 1071.
func internetSum(parts ...[]byte) uint16 {
	var sum uint32
	for i, b := range slices.Concat(parts...) {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// pseudoHeader is what checksums cover beside the packet (RFC 9293 §3.1, RFC 8200 §8.1).
func pseudoHeader(from, to netip.Addr, protocol byte, length int) []byte {
	b := slices.Concat(from.AsSlice(), to.AsSlice())
	return append(binary.BigEndian.AppendUint32(b, uint32(length)), 0, 0, 0, protocol)
}

// ipPacket is a packet of the family of its addresses.
func ipPacket(from, to netip.Addr, protocol, hops byte, payload []byte) []byte {
	var b []byte
	if from.Is4() {
		b = append(b, 0x45, 0x28)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
		b = append(b, 0, 7, 0x40, 0, hops, protocol, 0, 0)
		b = slices.Concat(b, from.AsSlice(), to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], internetSum(b))
		return append(b, payload...)
	}
	b = append(b, 0x62, 0x80, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, protocol, hops)
	return slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)
}

// tcpPacket is a packet of TCP from a client, with some bytes of data.
func tcpPacket(from, to netip.AddrPort, flags byte, data int) []byte {
	b := make([]byte, 20+data)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[12], b[13], b[14] = 5<<4, flags, 0x40
	for i := range data {
		b[20+i] = byte(i)
	}
	binary.BigEndian.PutUint16(b[16:], internetSum(pseudoHeader(from.Addr(), to.Addr(), unix.IPPROTO_TCP, len(b)), b))
	return ipPacket(from.Addr(), to.Addr(), unix.IPPROTO_TCP, 64, b)
}

// udpPacket is one of UDP.
func udpPacket(from, to netip.AddrPort, data int) []byte {
	b := make([]byte, 8+data)
	binary.BigEndian.PutUint16(b, from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], internetSum(pseudoHeader(from.Addr(), to.Addr(), unix.IPPROTO_UDP, len(b)), b))
	return ipPacket(from.Addr(), to.Addr(), unix.IPPROTO_UDP, 64, b)
}

// encapsulated is a packet behind an IPv6 header and an SRH with a list in the order of
// the path (RFC 8986 §5.1).
func encapsulated(from netip.Addr, left int, list []netip.Addr, inner []byte) []byte {
	next := byte(unix.IPPROTO_IPV6)
	if inner[0]>>4 == 4 {
		next = unix.IPPROTO_IPIP
	}
	n := byte(len(list))
	b := []byte{next, 2 * n, 4, byte(left), n - 1, 0, 0, 0}
	for _, sid := range slices.Backward(list) {
		b = append(b, sid.AsSlice()...)
	}
	return ipPacket(from, list[len(list)-1-left], unix.IPPROTO_ROUTING, 64, append(b, inner...))
}

// etherFrame is a packet on a wire.
func etherFrame(packet []byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd}
	if packet[0]>>4 == 4 {
		b[12], b[13] = 8, 0
	}
	return append(b, packet...)
}
