package balancer

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// longest is how many segments a list may have.
const longest = 6

// spills is the site that gets the new flows of a slot.
func (m *model) spills(service int, hash uint64) (site int, ok bool) {
	rank := steering.Rank(steering.FlowSlot(hash))
	end := uint32(0)
	for _, s := range m.services[service].Spills {
		if end += s.Slots; rank < end {
			return s.Site, true
		}
	}
	return 0, false
}

// entry is the entry of a site for a flow, 0 if there is no way to it.
func (m *model) entry(site int, hash uint64) uint32 {
	if site >= len(m.sites) || len(m.sites[site]) == 0 {
		return 0
	}
	for place := range uint64(2) {
		i := uint32(m.sites[site][int((hash>>61+place)%8)%len(m.sites[site])])
		if m.backends[i].Hop.Index != 0 {
			return i
		}
	}
	return 0
}

// next is the first site from one on that there is a way to, and its entry: of the first
// two that user space has ways to.
func (m *model) next(from int, hash uint64) (site int, entry uint32) {
	tried := 0
	for site = from; site < len(m.sites) && tried < 2; site++ {
		if len(m.sites[site]) == 0 {
			continue
		}
		if entry = m.entry(site, hash); entry != 0 {
			return site, entry
		}
		tried++
	}
	return 0, 0
}

// asked is a list in the making.
type asked struct {
	m     *model
	list  []uint32
	most  int
	known []uint32 // who need not be asked
}

// ask puts a backend at the end that can be reached, and need not be left out.
func (a *asked) ask(i uint32) {
	if i == 0 || slices.Contains(a.known, i) || len(a.list) == a.most || a.m.backends[i].Hop.Index == 0 {
		return
	}
	a.list = append(a.list, i)
}

// askOnce asks a backend now and not again.
func (a *asked) askOnce(i uint32) {
	a.ask(i)
	a.known = append(a.known, i)
}

func (a *asked) askFormer(service int, hash uint64) {
	former := a.m.former[[2]uint32{uint32(service), steering.FlowSlot(hash)}]
	for i := range 4 {
		a.ask(uint32(former >> (16 * i) & 0xffff))
	}
}

// send sends a packet along the list.
func (a *asked) send(frame []byte, p *parsed, source [16]byte, hash uint64, counted ...string) verdict {
	var list [][16]byte
	for _, i := range a.list {
		list = append(list, a.m.backend(i).SID.As16())
	}
	return a.m.encapsulate(frame, p, source, hash, list, a.m.backend(a.list[0]).Hop, counted...)
}

// sendSpilled sends a packet of a slot that spills.
func (m *model) sendSpilled(frame []byte, p *parsed, hash uint64, current, other uint32, site int, counted ...string) verdict {
	entry, a := m.entry(site, hash), &asked{m: m, most: longest}
	tcp := p.protocol == unix.IPPROTO_TCP
	fresh := !tcp || p.flags&syn != 0
	if !fresh || tcp && entry == 0 {
		a.ask(current)
		a.ask(other)
	}
	a.ask(entry)
	if len(a.list) > 0 && m.tally != nil { // nil is an error, of no flow
		m.tally.backend = a.list[0]
	}
	switch {
	case len(a.list) == 0 && !fresh:
		return m.lost(frame, p, hash, counted...)
	case len(a.list) == 0:
		return drop(frame, append(counted, "no_backend")...)
	case fresh && entry != 0 && current == 0:
		return a.send(frame, p, m.source(hash, byte(site+2)), hash, append(counted, "spilled")...)
	case fresh && entry != 0:
		return a.send(frame, p, m.source(hash, 0), hash, append(counted, "spilled")...)
	}
	return a.send(frame, p, m.source(hash, 0), hash, counted...)
}

// inside is where the packet in an encapsulated one begins, and its Ethernet type; 0 is
// none, or one with segments left.
func inside(frame []byte, p *parsed) (at int, kind uint16) {
	at, next := p.l3+40, frame[p.l3+6]
	if len(frame) < at+8 {
		return 0, 0
	}
	if next == unix.IPPROTO_ROUTING {
		srh := frame[at:]
		if srh[2] != 4 || srh[4] >= longest || srh[1] != 2*(srh[4]+1) || srh[3] != 0 {
			return 0, 0
		}
		at, next = at+8+8*int(srh[1]), srh[0]
	}
	kind = map[byte]uint16{unix.IPPROTO_IPV6: unix.ETH_P_IPV6, unix.IPPROTO_IPIP: unix.ETH_P_IP}[next]
	if at > len(frame) {
		return 0, 0
	}
	return at, kind
}

// decapsulated is the packet in another one, with congestion on the way kept.
func decapsulated(frame []byte, outer *parsed, at int, kind uint16) ([]byte, *parsed) {
	frame = slices.Concat(frame[:12], []byte{byte(kind >> 8), byte(kind)}, frame[at:])
	p := readIP(frame, 14, kind)
	if outer.class&3 == 3 && p.class&3 != 0 {
		p.class |= 3
	}
	return frame, p
}

// subject is the flow that a packet is of, or that the error in it speaks of.
func (p *parsed) subject(frame []byte) (s subject, ok bool) {
	if p.protocol == map[int]byte{4: unix.IPPROTO_ICMP, 6: unix.IPPROTO_ICMPV6}[p.family] {
		if p.fragment != 0 || !p.isError() {
			return s, false
		}
		return embedded(frame, p)
	}
	s = subject{p.source, p.destination, p.ports[0], p.ports[1], p.protocol}
	if p.fragment != 0 {
		s.port = 0
	}
	return s, true
}

// miss is what nobody in its list owned.
func (m *model) miss(frame []byte, p *parsed) verdict {
	at, kind := inside(frame, p)
	if kind == 0 {
		return drop(frame, "malformed")
	}
	frame, in := decapsulated(frame, p, at, kind)
	if in.malformed {
		return drop(nil, "malformed")
	}
	s, ok := in.subject(frame)
	if !ok {
		return drop(nil, "malformed")
	}
	if in.hops <= 1 {
		return drop(nil, "hop_limit")
	}
	a, ok := m.find(s.vip, s.port, s.protocol, false)
	if !ok || in.fragment != 0 || s.protocol != unix.IPPROTO_TCP {
		return drop(nil, "stray")
	}
	v := m.again(frame, in, a.Service, m.hashOf(a.Service, s), p.destination.As16()[12]&0x7f)
	if v.action == xdpDrop {
		v.frame = nil
	}
	return v
}

// lost is a packet of TCP whose row has nobody.
func (m *model) lost(frame []byte, p *parsed, hash uint64, counted ...string) verdict {
	subject, ok := p.subject(frame)
	if !ok {
		return drop(frame, append(counted, "malformed")...)
	}
	a, _ := m.find(subject.vip, subject.port, subject.protocol, false)
	v := m.again(frame, p, a.Service, hash, 0)
	v.reasons = append(counted, v.reasons...)
	return v
}

// again is the list of a miss.
func (m *model) again(frame []byte, p *parsed, service int, hash uint64, round byte) verdict {
	current, other := m.choose(service, hash, true, p.flags&syn != 0)
	home := p.flags&(syn|rst) != 0
	a := &asked{m: m, most: longest - 1}
	if round == 0 && p.flags&syn == 0 {
		a.known = []uint32{current, other}
		a.askOnce(m.second(service, steering.FlowSlot(hash), current))
		a.askFormer(service, hash)
	}
	if len(a.list) > 0 && len(m.sites) > 0 && !home {
		return a.send(frame, p, m.source(hash, 1), hash, "miss")
	}
	if p.flags&syn != 0 && round != 0 && current == 0 {
		home = false
	}
	if site, entry := m.next(int(max(round, 1))-1, hash); entry != 0 && !home {
		a.ask(entry)
		return a.send(frame, p, m.source(hash, byte(site+2)), hash, "away")
	}
	if !home && len(m.sites) > 0 && m.patient {
		return drop(nil, "no_neighbour")
	}
	if current != 0 {
		a.list = append(a.list, current)
	}
	if len(a.list) == 0 {
		return drop(nil, "stray")
	}
	var list [][16]byte
	for _, i := range a.list {
		list = append(list, m.backend(i).SID.As16())
	}
	if current != 0 {
		binary.BigEndian.PutUint16(list[len(list)-1][8:], behaviourFinal)
	}
	return m.encapsulate(frame, p, m.source(hash, 1), hash, list, m.backend(a.list[0]).Hop, "miss")
}

// enter is what another site's gateway sent.
func (m *model) enter(frame []byte, p *parsed) verdict {
	at, kind := inside(frame, p)
	if kind == 0 || !m.host.Block.Contains(p.source) || m.host.Locator.Contains(p.source) ||
		binary.BigEndian.Uint16(p.source.AsSlice()[8:]) != behaviourSource || at > p.l3+len(p.l3bytes) {
		return drop(frame, "malformed")
	}
	in := readIP(frame[:p.l3+len(p.l3bytes)], at, kind)
	if in.malformed || in.routing {
		return drop(frame, "malformed")
	}
	s, ok := in.subject(frame)
	if !ok {
		return drop(frame, "malformed")
	}
	to, ok := m.find(s.vip, s.port, s.protocol, in.fragment != 0)
	if !ok {
		return givenBack(frame, p)
	}
	if reason := m.refuses(in, to.Service); reason != "" {
		return drop(frame, reason)
	}
	hash := m.hashOf(to.Service, s)
	source := p.source.As16()
	a := m.here(to.Service, in, s, hash, source[12]&0x7f != 0)
	if len(a.list) == 0 {
		return givenBack(frame, p)
	}
	if in.protocol == s.protocol { // no error
		m.tally = &tally{hash: hash, vip: to.Number, backend: a.list[0], fresh: s.protocol == unix.IPPROTO_TCP && in.flags&syn != 0}
	}
	frame, in = decapsulated(frame, p, at, kind)
	source[12] |= 0x80
	if s.protocol == unix.IPPROTO_TCP {
		return a.send(frame, in, source, hash, "entered")
	}
	first := m.backend(a.list[0])
	last := first.SID.As16()
	binary.BigEndian.PutUint16(last[8:], behaviourFinal)
	return m.encapsulate(frame, in, source, hash, [][16]byte{last}, first.Hop, "entered")
}

// here are the backends of a packet from another site.
func (m *model) here(service int, p *parsed, s subject, hash uint64, missed bool) *asked {
	tcp := s.protocol == unix.IPPROTO_TCP
	fresh := p.protocol == unix.IPPROTO_TCP && p.flags&syn != 0
	current, other := m.choose(service, hash, tcp, fresh)
	a := &asked{m: m, most: longest}
	if !tcp {
		if named := m.named(p, service); named != 0 {
			current = named
		}
		a.ask(current)
		return a
	}
	if owner := m.owner(s.flow(), service, hash); !fresh && owner != current {
		a.askOnce(owner)
	}
	a.askOnce(current)
	a.askOnce(other)
	if missed && !fresh {
		a.askFormer(service, hash)
		if second := m.second(service, steering.FlowSlot(hash), current); !slices.Contains(a.list, second) {
			a.ask(second)
		}
	}
	return a
}

// givenBack is a packet that goes back to the gateway that it comes from.
func givenBack(frame []byte, p *parsed) verdict {
	if p.hops <= 1 {
		return drop(frame, "hop_limit")
	}
	out := append(turned(frame, p.l3), bytes.Clone(frame[p.l3:])...)
	ip := out[p.l3:]
	ip[7]--
	copy(ip[24:], ip[8:24])
	binary.BigEndian.PutUint16(ip[32:], behaviourMiss)
	copy(ip[8:24], p.destination.AsSlice())
	return verdict{xdpTX, out, []string{"given_back"}}
}

// otherGateway is an outer source of another site's gateway.
func otherGateway(round byte) string {
	a := netip.MustParseAddr("2001:db8:5e:a1:5205::12:3456").As16()
	a[12] = round
	return netip.AddrFrom16(a).String()
}
