package balancer

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// icmp is an echo to a VIP or an error that speaks of one of its flows.
func (m *model) icmp(frame []byte, p *parsed) verdict {
	six := p.family == 6
	_, ours := m.find(p.destination, 0, p.protocol, true)
	switch {
	case !ours:
		return passed(frame)
	case p.fragment != 0:
		return drop(frame, "fragment")
	case six != (p.protocol == unix.IPPROTO_ICMPV6):
		return passed(frame)
	case p.source == p.destination, six && p.source.IsMulticast(), !six && p.source.As4()[0] >= 224:
		return drop(frame, "malformed")
	case p.typ == 8 && !six || p.typ == 128 && six:
		return m.echo(frame, p)
	case !p.isError():
		return passed(frame)
	case p.hops <= 1:
		return drop(frame, "hop_limit")
	}
	return m.steerError(frame, p)
}

func (m *model) echo(frame []byte, p *parsed) verdict {
	if p.l4 != p.l3+map[int]int{4: 20, 6: 40}[p.family] {
		return drop(frame, "malformed")
	}
	out := append(turned(frame, p.l3), frame[p.l3:]...)
	ip, icmp := out[p.l3:], out[p.l4:]
	reply := byte(0)
	if p.family == 6 {
		reply = 129
		copy(ip[8:], p.destination.AsSlice())
		copy(ip[24:], p.source.AsSlice())
		ip[7] = 64
	} else {
		copy(ip[12:], p.destination.AsSlice())
		copy(ip[16:], p.source.AsSlice())
		setSum(ip[10:], binary.BigEndian.Uint16(ip[10:]), ip[8], 64)
		ip[8] = 64
	}
	setSum(icmp[2:], binary.BigEndian.Uint16(icmp[2:]), icmp[0], reply)
	icmp[0] = reply
	return verdict{xdpTX, out, []string{"echo"}}
}

// subject is the flow that a packet is of, or that the error in it speaks of.
type subject struct {
	client, vip      netip.Addr
	clientPort, port uint16
	protocol         byte
}

func (s subject) flow() Flow {
	return Flow{Client: netip.AddrPortFrom(s.client, s.clientPort), VIP: netip.AddrPortFrom(s.vip, s.port), Protocol: s.protocol}
}

func (m *model) hashOf(service int, s subject) uint64 {
	return m.hash(service, s.client, s.clientPort, s.port, s.protocol)
}

// isError tells whether a message of ICMP speaks of another packet.
func (p *parsed) isError() bool {
	if p.family == 6 {
		return p.typ >= 1 && p.typ <= 4
	}
	return p.typ == 3 || p.typ == 11 || p.typ == 12
}

// embedded is the flow that an error speaks of, if it can be one of ours.
func embedded(frame []byte, p *parsed) (s subject, ok bool) {
	b := frame[p.l4:]
	header := 20
	if p.family == 6 {
		header = 40
	}
	forged := p.family == 6 && p.typ == 2 && binary.BigEndian.Uint32(b[4:]) < 1280
	if forged || len(b) < 8+header+8 {
		return s, false
	}
	in := b[8:]
	protocol, vip, client := in[9], in[12:16], in[16:20]
	if p.family == 6 {
		protocol, vip, client = in[6], in[8:24], in[24:40]
	}
	if p.family == 6 && in[0]>>4 != 6 || p.family == 4 && in[0] != 0x45 ||
		protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_UDP || !bytes.Equal(vip, p.destination.AsSlice()) {
		return s, false
	}
	s.client, _ = netip.AddrFromSlice(client)
	s.vip, s.protocol = p.destination, protocol
	s.port, s.clientPort = binary.BigEndian.Uint16(in[header:]), binary.BigEndian.Uint16(in[header+2:])
	return s, true
}

func (m *model) steerError(frame []byte, p *parsed) verdict {
	s, ok := embedded(frame, p)
	if !ok {
		return drop(frame, "malformed")
	}
	a, ok := m.find(s.vip, s.port, s.protocol, false)
	if !ok {
		return passed(frame)
	}
	hash, tcp := m.hashOf(a.Service, s), s.protocol == unix.IPPROTO_TCP
	current, other := m.choose(a.Service, hash, tcp, false)
	if owner := m.owner(s.flow(), a.Service, hash); owner != 0 && owner != current {
		return m.sendPinned(frame, p, hash, owner, current, other, "icmp_error")
	}
	if site, ok := m.spills(a.Service, hash); ok && !tcp && current == 0 {
		return m.sendSpilled(frame, p, hash, current, other, site, "icmp_error")
	}
	return m.send(frame, p, hash, current, other, tcp, "icmp_error")
}
