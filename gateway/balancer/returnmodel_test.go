package balancer

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// answer is what a backend answers to a client.
func (m *model) answer(frame []byte, outer *parsed) verdict {
	at, kind := inside(frame, outer)
	if kind == 0 {
		return drop(nil, "malformed")
	}
	frame, in := decapsulated(frame, outer, at, kind)
	if in.malformed {
		return drop(nil, "malformed")
	}
	protocol := byte(unix.IPPROTO_ICMP)
	if in.family == 6 {
		protocol = unix.IPPROTO_ICMPV6
	}
	_, ours := m.find(in.source, 0, protocol, true)
	switch {
	case !ours, in.routing, in.source.Is4In6(), m.host.Block.Contains(in.destination):
		return drop(nil, "relay")
	case in.hops <= 1:
		return drop(nil, "hop_limit")
	}
	ip := frame[14:]
	inner := ip[1] & 3
	if in.family == 6 {
		inner = ip[1] >> 4 & 3
	}
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	merged := inner
	switch outer := outer.class & 3; {
	case outer == ce && inner == notECT:
		return drop(nil, "congested")
	case outer == ce, outer == ect1 && inner == ect0:
		merged = outer
	}
	if in.family == 6 {
		ip[1] = ip[1]&^0x30 | merged<<4
	} else if merged != inner {
		class := ip[1]&^3 | merged
		sum := uint32(^binary.BigEndian.Uint16(ip[10:])) + uint32(^binary.BigEndian.Uint16(ip)) + uint32(ip[0])<<8 + uint32(class)
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		ip[1] = class
		binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	}
	return verdict{xdpPass, frame, []string{"returned"}}
}
