package balancer

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// model is what the program does, written for reading: the whole of its maps, and run.
type model struct {
	host     Host
	ingress  int
	vips     map[VIP]Assignment
	services []Service
	backends map[uint32]Backend
	sites    [][]int              // entries of each
	patient  bool                 // the way to a site was lost
	rows     map[[2]uint32]uint32 // by service and slot
	former   map[[2]uint32]uint64
	servers  map[Server]int
	pins     map[Flow]*bpfPin // without slots
	hits     int              // packets that went by a pin
	tally    *tally           // of the packet before; nil is none
}

// verdict is what becomes of a frame: the reasons that are counted, the last one of
// what it ends with.
type verdict struct {
	action  uint32
	frame   []byte // as it leaves, or as it came
	reasons []string
}

// parsed is a packet that the program understands.
type parsed struct {
	l3, l4      int // offsets
	l3bytes     []byte
	family      int
	source      netip.Addr
	destination netip.Addr
	ports       [2]uint16
	protocol    byte
	class, hops byte
	flags, typ  byte
	fragment    int // 1 the first, 2 a later one
	routing     bool
	malformed   bool
	hides       bool // the end of a chain, where an SRH may be
}

func passed(frame []byte) verdict { return verdict{xdpPass, frame, nil} }

func drop(frame []byte, reasons ...string) verdict { return verdict{xdpDrop, frame, reasons} }

// read parses a frame; nil is not IP.
func read(frame []byte) *parsed {
	if len(frame) < 14 {
		return nil
	}
	l3, kind := 14, binary.BigEndian.Uint16(frame[12:])
	if kind == unix.ETH_P_8021Q {
		if len(frame) < 18 {
			return nil
		}
		l3, kind = 18, binary.BigEndian.Uint16(frame[16:])
	}
	return readIP(frame, l3, kind)
}

func readIP(frame []byte, l3 int, kind uint16) *parsed {
	p := &parsed{l3: l3}
	b := frame[l3:]
	switch kind {
	case unix.ETH_P_IP:
		p.read4(b)
	case unix.ETH_P_IPV6:
		p.read6(b)
	default:
		return nil
	}
	p.l4 += l3
	if !p.malformed && p.fragment != 2 {
		end := l3 + len(p.l3bytes)
		p.read4th(frame[min(p.l4, end):end])
	}
	return p
}

func (p *parsed) read4(b []byte) {
	p.malformed = true
	if len(b) < 20 {
		return
	}
	header, length := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || length < header || length > len(b) {
		return
	}
	p.malformed = false
	p.family, p.l3bytes, p.l4 = 4, b[:length], header
	p.source, _ = netip.AddrFromSlice(b[12:16])
	p.destination, _ = netip.AddrFromSlice(b[16:20])
	p.protocol, p.class, p.hops = b[9], b[1], b[8]
	if f := binary.BigEndian.Uint16(b[6:]); f&0x1fff != 0 {
		p.fragment = 2
	} else if f&0x2000 != 0 {
		p.fragment = 1
	}
}

func (p *parsed) read6(b []byte) {
	p.malformed = true
	if len(b) < 40 {
		return
	}
	length := int(binary.BigEndian.Uint16(b[4:])) + 40
	if b[0]>>4 != 6 || length > len(b) {
		return
	}
	p.family, p.l3bytes = 6, b[:length]
	p.source, _ = netip.AddrFromSlice(b[8:24])
	p.destination, _ = netip.AddrFromSlice(b[24:40])
	p.class, p.hops = b[0]<<4|b[1]>>4, b[7]
	next, at := b[6], 40
	for i := range 5 {
		chained := next == unix.IPPROTO_HOPOPTS || next == unix.IPPROTO_DSTOPTS ||
			next == unix.IPPROTO_ROUTING || next == unix.IPPROTO_FRAGMENT
		if !chained || p.fragment == 2 {
			break
		}
		if i == 4 || at+8 > len(b) {
			p.hides = true
			return
		}
		x := b[at:]
		if next == unix.IPPROTO_FRAGMENT {
			if f := binary.BigEndian.Uint16(x[2:]); f&0xfff8 != 0 {
				p.fragment = 2
			} else if f&1 != 0 {
				p.fragment = 1
			}
			at += 8
		} else {
			p.routing = p.routing || next == unix.IPPROTO_ROUTING && x[2] == 4
			at += 8 * (int(x[1]) + 1)
		}
		next = x[0]
	}
	p.protocol, p.l4, p.malformed = next, at, false
}

// read4th reads what IP carries.
func (p *parsed) read4th(b []byte) {
	need := map[byte]int{unix.IPPROTO_TCP: 20, unix.IPPROTO_UDP: 8, unix.IPPROTO_ICMP: 8, unix.IPPROTO_ICMPV6: 8}[p.protocol]
	if len(b) < need {
		p.malformed = true
		return
	}
	switch p.protocol {
	case unix.IPPROTO_TCP:
		p.flags = b[13]
		fallthrough
	case unix.IPPROTO_UDP:
		p.ports = [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.typ = b[0]
	}
}

// behaviour is the function of ours that an address asks for.
func (m *model) behaviour(a netip.Addr) uint16 {
	b := a.As16()
	f := binary.BigEndian.Uint16(b[8:])
	if !m.host.Locator.Contains(a) || f < behaviourHunt || f > behaviourReturn {
		return 0
	}
	return f
}

// find is the VIP of a packet. What has no ports is of the VIP of any port, or aside.
func (m *model) find(a netip.Addr, port uint16, protocol byte, without bool) (Assignment, bool) {
	for _, exact := range []bool{true, false} {
		var longest netip.Prefix
		for v := range m.vips {
			if v.Prefix.Contains(a) && v.Prefix.IsSingleIP() == exact && (!longest.IsValid() || v.Prefix.Bits() > longest.Bits()) {
				longest = v.Prefix
			}
		}
		for _, kind := range []VIP{{longest, port, protocol}, {longest, 0, protocol}, {longest, 0, 0}} {
			if got, ok := m.vips[kind]; ok {
				return got, true
			}
			if without && kind.Protocol != 0 {
				if got, ok := m.aside(longest, protocol); ok {
					return got, true
				}
			}
		}
	}
	return Assignment{}, false
}

// aside is whose the fragments of a protocol are, and ICMP to the address: the VIP's whose
// service takes fragments, else that with the lowest number.
func (m *model) aside(prefix netip.Prefix, protocol byte) (got Assignment, ok bool) {
	for v, a := range m.vips {
		icmp := protocol == unix.IPPROTO_ICMP && prefix.Addr().Is4() || protocol == unix.IPPROTO_ICMPV6 && prefix.Addr().Is6()
		takes := m.services[a.Service].Fragments
		if v.Prefix != prefix || v.Protocol != protocol && !icmp && (v.Protocol != 0 || !takes || protocol != unix.IPPROTO_UDP) {
			continue
		}
		better := takes && !m.services[got.Service].Fragments || takes == m.services[got.Service].Fragments && a.Number < got.Number
		if !ok || better {
			got, ok = a, true
		}
	}
	return got, ok
}

func (m *model) hash(service int, client netip.Addr, clientPort, port uint16, protocol byte) uint64 {
	f := steering.Flow{Client: client}
	if !m.services[service].Fragments {
		f.SourcePort, f.DestinationPort, f.Protocol = clientPort, port, protocol
	}
	return steering.FlowHash(m.services[service].Key, f)
}

func (m *model) run(frame []byte) verdict {
	m.tally = nil
	p := read(frame)
	if p == nil {
		return passed(frame)
	}
	if p.family == 6 {
		b := m.behaviour(p.destination)
		if b == behaviourSource && p.protocol == unix.IPPROTO_ICMPV6 && p.typ == 2 && !p.malformed && !p.routing && p.fragment == 0 {
			return m.smaller(frame, p)
		}
		if (b != 0 || p.routing) && !m.host.Block.Contains(p.source) {
			return drop(frame, "outsider")
		}
		switch b {
		case behaviourMiss:
			return m.miss(frame, p)
		case behaviourEntry:
			return m.enter(frame, p)
		case behaviourReturn:
			return m.answer(frame, p)
		}
	}
	if p.hides && !m.host.Block.Contains(p.source) {
		return drop(frame, "outsider")
	}
	if p.malformed || p.family == 6 && p.destination.Is4In6() {
		return passed(frame)
	}
	if p.protocol == unix.IPPROTO_ICMP || p.protocol == unix.IPPROTO_ICMPV6 {
		return m.icmp(frame, p)
	}
	port := p.ports[1]
	if p.fragment != 0 {
		port = 0
	}
	a, ok := m.find(p.destination, port, p.protocol, p.fragment != 0)
	if !ok {
		return passed(frame)
	}
	return m.steer(frame, p, a)
}

// smaller is a router's word of a packet of ours.
func (m *model) smaller(frame []byte, p *parsed) verdict {
	b := frame[p.l4:]
	switch {
	case len(b) < 8+40 || b[8]>>4 != 6 || !bytes.Equal(b[16:32], p.destination.AsSlice()), binary.BigEndian.Uint32(b[4:]) < 1280:
		return drop(frame, "malformed")
	case len(b) < 8+256:
		return drop(frame, "smaller_path_unheard")
	}
	return drop(frame, "smaller_path")
}

// choice is the row's answer for a packet.
func (m *model) choose(service int, hash uint64, tcp, syn bool) (current, other uint32) {
	slot := steering.FlowSlot(hash)
	row := func(slot uint32) uint32 { return m.rows[[2]uint32{uint32(service), slot % Slots}] }
	current = row(slot) & 0x7fff
	switch {
	case tcp && syn:
		other = m.second(service, slot, current)
	case tcp:
		other = row(slot) >> 15 & 0x7fff
	}
	if current == 0 {
		if other == 0 {
			other = m.second(service, slot, 0)
		}
		return other, 0
	}
	if current == other {
		other = 0
	}
	return current, other
}

func (m *model) second(service int, slot, current uint32) uint32 {
	for i := uint32(1); i <= 8; i++ {
		other := m.rows[[2]uint32{uint32(service), (slot + i) % Slots}] & 0x7fff
		if other != 0 && other != current {
			return other
		}
	}
	return 0
}

// refuses is why a packet that no client may send is dropped, "" if it is not.
func (m *model) refuses(p *parsed, service int) string {
	tcp := p.protocol == unix.IPPROTO_TCP
	fin, syn, rst, ack := p.flags&1 != 0, p.flags&2 != 0, p.flags&4 != 0, p.flags&16 != 0
	switch {
	case p.fragment != 0 && (tcp || !m.services[service].Fragments):
		return "fragment"
	case tcp && (syn && (ack || rst || fin) || !syn && !ack && !rst):
		return "flags"
	case p.hops <= 1:
		return "hop_limit"
	}
	return ""
}

func (m *model) steer(frame []byte, p *parsed, to Assignment) verdict {
	tcp, service := p.protocol == unix.IPPROTO_TCP, to.Service
	if reason := m.refuses(p, service); reason != "" {
		return drop(frame, reason)
	}
	hash := m.hash(service, p.source, p.ports[0], p.ports[1], p.protocol)
	current, other := m.choose(service, hash, tcp, p.flags&syn != 0)
	m.tally = &tally{hash: hash, vip: to.Number, backend: current, fresh: tcp && p.flags&syn != 0}
	if owner := m.prefer(p.flow(), service, hash, p.flags); tcp && owner != 0 && owner != current {
		m.tally.backend = owner
		return m.sendPinned(frame, p, hash, owner, current, other)
	}
	if named := m.named(p, service); named != 0 {
		m.tally.backend = named
		return m.send(frame, p, hash, named, 0, false)
	}
	if site, ok := m.spills(service, hash); ok && (tcp || current == 0) {
		m.tally.backend = 0
		return m.sendSpilled(frame, p, hash, current, other, site)
	}
	return m.send(frame, p, hash, current, other, tcp)
}

// send sends a packet to its candidates.
func (m *model) send(frame []byte, p *parsed, hash uint64, current, other uint32, hunted bool, counted ...string) verdict {
	if current == 0 {
		if hunted && p.flags&syn == 0 {
			return m.lost(frame, p, hash, counted...)
		}
		return drop(frame, append(counted, "no_backend")...)
	}
	first := m.backend(current)
	if other != 0 && first.Hop.Index == 0 {
		first, other = m.backend(other), 0
	}
	list := [][16]byte{first.SID.As16()}
	if !hunted {
		binary.BigEndian.PutUint16(list[0][8:], behaviourFinal)
	}
	if other != 0 {
		list = append(list, m.backend(other).SID.As16())
	}
	return m.encapsulate(frame, p, m.source(hash, 0), hash, list, first.Hop, counted...)
}

// source is the outer source of a packet of ours.
func (m *model) source(hash uint64, round byte) [16]byte {
	source := sid(m.host.Locator, behaviourSource)
	copy(source[12:], []byte{round, byte(hash >> 20), byte(hash >> 28), byte(hash >> 36)})
	return source
}

// backend is one of the map, where what is not there is zero.
func (m *model) backend(i uint32) Backend {
	b := m.backends[i]
	if !b.SID.IsValid() {
		b.SID = netip.IPv6Unspecified()
	}
	return b
}

// encapsulate is H.Encaps of RFC 8986 §5.1, reduced where the list is one segment.
func (m *model) encapsulate(frame []byte, p *parsed, source [16]byte, hash uint64, list [][16]byte, hop Hop, counted ...string) verdict {
	header := make([]byte, 40)
	next := map[int]byte{4: unix.IPPROTO_IPIP, 6: unix.IPPROTO_IPV6}[p.family]
	if len(list) > 1 {
		n := byte(len(list))
		header = append(header, next, 2*n, 4, n-1, n-1, 0, 0, 0)
		next = unix.IPPROTO_ROUTING
		for i := range list {
			header = append(header, list[len(list)-1-i][:]...)
		}
	}
	switch {
	case hop.Index == 0:
		return drop(frame, append(counted, "no_neighbour")...)
	case len(p.l3bytes)+len(header) > int(hop.MTU):
		return m.tooBig(frame, p, int(hop.MTU), counted...)
	}
	binary.BigEndian.PutUint32(header, 6<<28|uint32(p.class)<<20|steering.FlowLabel(hash))
	binary.BigEndian.PutUint16(header[4:], uint16(len(header)-40+len(p.l3bytes)))
	header[6], header[7] = next, 64
	copy(header[8:], source[:])
	copy(header[24:], list[0][:])
	out := append(append([]byte{}, hop.Destination[:]...), hop.Source[:]...)
	if hop.VLAN != 0 {
		out = binary.BigEndian.AppendUint16(append(out, 0x81, 0), hop.VLAN)
	}
	out = append(append(out, 0x86, 0xdd), header...)
	inner := bytes.Clone(frame[p.l3:])
	lowerHops(inner, p.family)
	action := uint32(xdpRedirect)
	if hop.Index == m.ingress {
		action = xdpTX
	}
	return verdict{action, append(out, inner...), append(counted, "sent")}
}

func lowerHops(ip []byte, family int) {
	if family == 6 {
		ip[7]--
		return
	}
	ip[8]--
	setSum(ip[10:], binary.BigEndian.Uint16(ip[10:]), ip[8]+1, ip[8])
}

// setSum changes a checksum whose high byte of a word went from one value to another
// (RFC 1624 §3).
func setSum(at []byte, was uint16, from, to byte) {
	s := uint32(^was) + uint32(^(uint16(from) << 8)) + uint32(to)<<8
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	binary.BigEndian.PutUint16(at, ^uint16(s))
}

func checksum(parts ...[]byte) uint16 {
	var s uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			s += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// turned is an Ethernet header, with a tag, that goes back to where it came from.
func turned(frame []byte, l3 int) []byte {
	return append(append(bytes.Clone(frame[6:12]), frame[:6]...), frame[12:l3]...)
}

func (m *model) tooBig(frame []byte, p *parsed, mtu int, counted ...string) verdict {
	ip := frame[p.l3:]
	if p.protocol == unix.IPPROTO_ICMP || p.protocol == unix.IPPROTO_ICMPV6 || p.family == 4 && p.fragment == 2 {
		return drop(frame, append(counted, "too_big_untold")...)
	}
	told := max(1280, mtu-144)
	quote := ip[:128]
	src, dst := p.destination.AsSlice(), p.source.AsSlice()
	out := turned(frame, p.l3)
	icmp := append([]byte{3, 4, 0, 0, 0, 0, byte(told >> 8), byte(told)}, quote...)
	if p.family == 6 {
		icmp[0], icmp[1] = 2, 0
		pseudo := []byte{0, 0, 0, 136, 0, 0, 0, unix.IPPROTO_ICMPV6}
		binary.BigEndian.PutUint16(icmp[2:], checksum(src, dst, pseudo, icmp))
		out = append(out, 0x60, 0, 0, 0, 0, 136, unix.IPPROTO_ICMPV6, 64)
		out = append(append(out, src...), dst...)
	} else {
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		h := append([]byte{0x45, 0, 0, 156, 0, 0, 0x40, 0, 64, unix.IPPROTO_ICMP, 0, 0}, append(src, dst...)...)
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		out = append(out, h...)
	}
	return verdict{xdpTX, append(out, icmp...), append(counted, "too_big")}
}
