package segment

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Protocol numbers and flags, as they are on the wire.
const (
	hopByHop = 0
	icmp4    = 1
	ipip     = 4
	tcp      = 6
	udp      = 17
	ipv6     = 41
	routing  = 43
	fragment = 44
	icmp6    = 58
	dstOpts  = 60

	fin = 1
	syn = 2
	rst = 4
	ack = 16
)

// SIDs and the places of things in frames.
const (
	hunt, final, entry, miss, source = 0x5201, 0x5202, 0x5203, 0x5204, 0x5205

	etherLen, ip6Len, ip4Len, tcpLen = 14, 40, 20, 20
)

var (
	block    = netip.MustParsePrefix("2001:db8:5200::/40")
	locator  = netip.MustParsePrefix("2001:db8:5200:1::/64") // of the host
	neighbor = netip.MustParsePrefix("2001:db8:5200:2::/64") // of another host
	gateway  = netip.MustParsePrefix("2001:db8:5200:9::/64")

	mac    = []byte{2, 0, 0, 0, 0, 1} // of the host
	router = []byte{2, 0, 0, 0, 0, 2}
)

// sid is a SID of a host.
func sid(host netip.Prefix, behaviour, target uint16, argument ...byte) netip.Addr {
	a := host.Addr().As16()
	binary.BigEndian.PutUint16(a[8:], behaviour)
	binary.BigEndian.PutUint16(a[10:], target)
	copy(a[12:], argument)
	return netip.AddrFrom16(a)
}

// sum is the Internet checksum (RFC 1071) of all parts, each of even length but the last.
func sum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			s += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			s += uint32(b[len(b)-1]) << 8
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

// ip is a packet of IPv4 or IPv6, by the addresses.
func ip(from, to netip.Addr, protocol byte, class byte, payload []byte) []byte {
	if from.Is4() {
		b := make([]byte, ip4Len)
		b[0], b[1], b[8], b[9] = 0x45, class, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(ip4Len+len(payload)))
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], sum(b))
		return append(b, payload...)
	}
	b := make([]byte, ip6Len)
	binary.BigEndian.PutUint32(b, 6<<28|uint32(class)<<20|0x12345)
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	b[6], b[7] = protocol, 64
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, payload...)
}

// pseudo is the pseudo-header of checksums (RFC 9293 §3.1, RFC 8200 §8.1).
func pseudo(from, to netip.Addr, protocol byte, length int) []byte {
	b := slices.Concat(from.AsSlice(), to.AsSlice())
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, 0, 0, 0, protocol)
}

// flow is a connection as the client sees it.
type flow struct{ client, vip netip.AddrPort }

// segment is a packet of TCP from the client.
func (f flow) segment(flags byte, seq, acked uint32, data ...byte) []byte {
	b := make([]byte, tcpLen)
	binary.BigEndian.PutUint16(b, f.client.Port())
	binary.BigEndian.PutUint16(b[2:], f.vip.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], acked)
	b[12], b[13], b[14] = 5<<4, flags, 0x40
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[16:], sum(pseudo(f.client.Addr(), f.vip.Addr(), tcp, len(b)), b))
	return ip(f.client.Addr(), f.vip.Addr(), tcp, 0, b)
}

// optioned is a packet of TCP with options, a multiple of four bytes.
func (f flow) optioned(flags byte, options []byte) []byte {
	b := f.segment(flags, 1, 0, options...)
	l4 := len(b) - tcpLen - len(options)
	b[l4+12] += byte(len(options)) << 2
	copy(b[l4+16:], []byte{0, 0})
	binary.BigEndian.PutUint16(b[l4+16:], sum(pseudo(f.client.Addr(), f.vip.Addr(), tcp, len(b)-l4), b[l4:]))
	return b
}

// datagram is a packet of UDP from the client.
func (f flow) datagram(class byte) []byte {
	b := make([]byte, 8, 16)
	binary.BigEndian.PutUint16(b, f.client.Port())
	binary.BigEndian.PutUint16(b[2:], f.vip.Port())
	binary.BigEndian.PutUint16(b[4:], 16)
	b = append(b, "question"...)
	binary.BigEndian.PutUint16(b[6:], sum(pseudo(f.client.Addr(), f.vip.Addr(), udp, len(b)), b))
	return ip(f.client.Addr(), f.vip.Addr(), udp, class, b)
}

// back is the flow in the other direction.
func (f flow) back() flow { return flow{f.vip, f.client} }

// unreachable is an ICMP error of a router about the first bytes of a packet that went
// from the VIP to the client.
func (f flow) unreachable(router netip.Addr, sequence uint32, bytes int) []byte {
	about := f.back().segment(ack, sequence, 0, make([]byte, 40)...)
	protocol, header := byte(icmp4), []byte{3, 1, 0, 0, 0, 0, 0, 0}
	start := ip4Len
	if router.Is6() {
		protocol, header, start = icmp6, []byte{1, 3, 0, 0, 0, 0, 0, 0}, ip6Len
	}
	b := append(header, about[:start+bytes]...)
	if router.Is6() {
		binary.BigEndian.PutUint16(b[2:], sum(pseudo(router, f.vip.Addr(), icmp6, len(b)), b))
	} else {
		binary.BigEndian.PutUint16(b[2:], sum(b))
	}
	return ip(router, f.vip.Addr(), protocol, 0, b)
}

// outer is an encapsulation: see wrap.
type outer struct {
	source   netip.Addr
	segments []netip.Addr // in the order of the path
	left     int
	red      bool // the first segment is not in the list (RFC 8754 §4.1.1)
	hops     byte // 0 for 64
	class    byte
	vlan     bool
}

// wrap encapsulates a packet (RFC 8986 §5.1, §5.2). The segment that is now addressed
// follows from Segments Left. One segment, when reduced, needs no SRH.
func (o outer) wrap(inner []byte) []byte {
	next := byte(ipv6)
	if inner[0]>>4 == 4 {
		next = ipip
	}
	payload, n := inner, len(o.segments)
	if !o.red || n > 1 {
		list := slices.Clone(o.segments)
		if o.red {
			list = list[1:]
		}
		slices.Reverse(list)
		srh := []byte{next, byte(2 * len(list)), 4, byte(o.left), byte(len(list) - 1), 0, 0, 0}
		for _, s := range list {
			srh = append(srh, s.AsSlice()...)
		}
		payload, next = append(srh, inner...), routing
	}
	b := ip(o.source, o.segments[n-1-o.left], next, o.class, payload)
	if o.hops != 0 {
		b[7] = o.hops
	}
	return frame(b, o.vlan)
}

// frame is an IP packet on the wire, from the router to the host.
func frame(packet []byte, vlan bool) []byte {
	b := slices.Concat(mac, router)
	if vlan {
		b = append(b, 0x81, 0, 0, 7)
	}
	if packet[0]>>4 == 4 {
		return append(append(b, 8, 0), packet...)
	}
	return append(append(b, 0x86, 0xdd), packet...)
}
