package segment

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

// XDP's verdicts.
const (
	aborted, drop, pass, tx, redirect = 0, 1, 2, 3, 4
)

// world is what the model knows beside the packet.
type world struct {
	targets map[uint16]Target
	vips    map[uint16][]netip.Addr
	// socket is what the kernel finds for a packet of the client's of a flow, in the
	// namespace of a target.
	socket func(target uint16, f flow) *socket
}

// socket is one of TCP, in one of the states that make a difference.
type socket struct {
	state  state
	isn    uint32          // of a request: of its SYN+ACK
	cookie map[flow]cookie // of a listener: what it gave
}

// cookie is what the acknowledgement of a SYN+ACK has to bring.
type cookie struct{ sequence, acked uint32 }

type state int

const (
	connected state = iota
	requested
	ended // TIME_WAIT
	listening
)

// outcome is what becomes of a frame.
type outcome struct {
	verdict uint32
	frame   []byte
	reasons []Reason // in order; none when it was not the endpoint's
}

// model is the endpoint's program, written anew and slowly: what DESIGN and the RFCs say
// of a frame. Slots hold the program itself.
func (w *world) model(in []byte) outcome {
	out := outcome{frame: slices.Clone(in)}
	for {
		again := w.step(&out)
		if !again {
			return out
		}
	}
}

func (o *outcome) end(verdict uint32, r Reason) bool {
	o.verdict, o.reasons = verdict, append(o.reasons, r)
	return false
}

// layers is a packet taken apart.
type layers struct {
	v6               bool
	from, to         netip.Addr
	fromPort, toPort uint16
	l3, l4, length   int
	protocol, flags  byte
	kind             byte // of ICMP
	ecn              byte
	whole            bool // no fragment
	routing          bool
	chain            bool // of extension headers was read to its end
}

// take reads a packet at l3 that has room bytes. What it found is right as far as it
// goes; ok is false when that is not all. Without valid addresses it is no IP packet.
func take(b []byte, l3, room int, v6 bool) (p layers, ok bool) {
	p = layers{l3: l3, v6: v6, whole: true}
	if v6 {
		return p.take6(b, room)
	}
	if len(b) < l3+20 {
		return p, false
	}
	h := b[l3:]
	header := int(h[0]&15) * 4
	p.length = int(binary.BigEndian.Uint16(h[2:]))
	if h[0]>>4 != 4 || header < 20 || p.length < header || p.length > room {
		return p, false
	}
	p.from, p.to = netip.AddrFrom4([4]byte(h[12:])), netip.AddrFrom4([4]byte(h[16:]))
	p.protocol, p.ecn, p.l4, p.chain = h[9], h[1]&3, l3+header, true
	offset := binary.BigEndian.Uint16(h[6:])
	p.whole = offset&0x3fff == 0
	if offset&0x1fff != 0 {
		return p, true
	}
	return p, p.transport(b)
}

func (p layers) take6(b []byte, room int) (layers, bool) {
	if len(b) < p.l3+40 {
		return p, false
	}
	h := b[p.l3:]
	p.length = 40 + int(binary.BigEndian.Uint16(h[4:]))
	if h[0]>>4 != 6 || p.length > room {
		return p, false
	}
	p.from, p.to = netip.AddrFrom16([16]byte(h[8:])), netip.AddrFrom16([16]byte(h[24:]))
	p.ecn = h[1] >> 4 & 3
	next, at := h[6], p.l3+40
	for range 4 {
		if next != hopByHop && next != dstOpts && next != routing && next != fragment {
			break
		}
		if len(b) < at+8 {
			return p, false
		}
		x := b[at:]
		if next == fragment {
			offset := binary.BigEndian.Uint16(x[2:])
			at += 8
			p.whole = p.whole && offset&0xfff9 == 0
			if offset&0xfff8 != 0 {
				p.protocol, p.l4, p.chain = x[0], at, true
				return p, true // the rest is somebody else's
			}
		} else {
			p.routing = p.routing || next == routing && x[2] == 4
			at += 8 * (1 + int(x[1]))
		}
		next = x[0]
	}
	if next == hopByHop || next == dstOpts || next == routing || next == fragment {
		return p, false
	}
	p.protocol, p.l4, p.chain = next, at, true
	return p, p.transport(b)
}

func (p *layers) transport(b []byte) bool {
	least := map[byte]int{tcp: 20, udp: 8, icmp4: 8, icmp6: 8}[p.protocol]
	if least == 0 {
		return true
	}
	if len(b) < p.l4+least || p.l4+least > p.l3+p.length {
		return false
	}
	l4 := b[p.l4:]
	switch p.protocol {
	case tcp:
		p.flags = l4[13]
		fallthrough
	case udp:
		p.fromPort, p.toPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	default:
		p.kind = l4[0]
	}
	return true
}

// function is the function of a SID of this host, else 0.
func function(a netip.Addr) (behaviour, target uint16) {
	b := a.As16()
	if !locator.Contains(a) {
		return 0, 0
	}
	return binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
}

func fromGateway(a netip.Addr) bool {
	b := a.As16()
	return block.Contains(a) && binary.BigEndian.Uint16(b[8:]) == source
}

// step does what one run of the program does. It tells whether the packet begins anew.
func (w *world) step(o *outcome) (again bool) {
	b := o.frame
	l3, kind := 14, binary.BigEndian.Uint16(b[12:])
	if kind == 0x8100 && len(b) >= 18 {
		l3, kind = 18, binary.BigEndian.Uint16(b[16:])
	}
	o.verdict = pass
	if kind != 0x86dd {
		return false
	}
	p, ok := take(b, l3, len(b)-l3, true)
	if !p.from.IsValid() {
		return false
	}
	behaviour, target := function(p.to)
	ours := behaviour == hunt || behaviour == final
	if !block.Contains(p.from) {
		if p.routing || ours {
			return o.end(drop, DroppedOutsider)
		}
		if !ok && !p.chain {
			return o.end(drop, DroppedMalformed)
		}
	}
	if !ours {
		return false
	}
	if !ok {
		return o.end(drop, DroppedMalformed)
	}
	return w.local(o, &p, behaviour, target)
}

// list is a segment list (RFC 8754 §2).
type list struct {
	srh, inner, left int
	segments         []byte
	next             byte
}

func segments(b []byte, p *layers) (l list, ok bool) {
	if len(b) < p.l3+48 {
		return l, false
	}
	l.next, l.inner = b[p.l3+6], p.l3+40
	if l.next == routing {
		srh := b[l.inner:]
		n := int(srh[4]) + 1
		if srh[2] != 4 || n > 6 || int(srh[1]) != 2*n || int(srh[3]) > n {
			return l, false
		}
		l.srh, l.left, l.next = l.inner, int(srh[3]), srh[0]
		l.inner += 8 + 16*n
		l.segments = b[l.srh+8:]
	}
	return l, l.next == ipv6 || l.next == ipip
}

// local is for a packet that is addressed to a hunting or final SID of this host.
func (w *world) local(o *outcome, p *layers, behaviour, target uint16) (again bool) {
	t, present := w.targets[target]
	if !present {
		return o.end(drop, DroppedTarget)
	}
	l, ok := segments(o.frame, p)
	if !ok {
		return o.end(drop, DroppedMalformed)
	}
	if behaviour == final && l.left > 0 {
		return o.end(drop, DroppedSegments)
	}
	room := p.l3 + p.length - l.inner
	if room < 0 {
		return o.end(drop, DroppedMalformed)
	}
	in, ok := take(o.frame, l.inner, room, l.next == ipv6)
	if !ok {
		return o.end(drop, DroppedMalformed)
	}
	if in.routing {
		return o.end(drop, DroppedOutsider)
	}
	if !slices.Contains(w.vips[target], in.to) {
		return o.end(drop, DroppedVIP)
	}
	why, taken := TakenFinal, true
	if behaviour == hunt {
		why, taken = w.hunted(o.frame, &in, target, l.left == 0)
	}
	switch {
	case taken:
		return o.decapsulate(p, &in, target, t, why)
	case l.left > 0:
		return o.handOn(p, &l)
	case !fromGateway(p.from):
		return o.decapsulate(p, &in, target, t, TakenStray)
	}
	return o.bounce(p)
}

// hunted tells whether, and why, a target takes a packet.
func (w *world) hunted(b []byte, in *layers, target uint16, last bool) (Reason, bool) {
	f := flow{netip.AddrPortFrom(in.from, in.fromPort), netip.AddrPortFrom(in.to, in.toPort)}
	if in.whole && in.protocol == tcp {
		s := w.socket(target, f)
		if in.flags&(syn|ack|rst|fin) == syn {
			if s != nil && s.state == ended {
				s = w.socket(target, flow{netip.AddrPortFrom(in.from, 0), f.vip})
			}
			switch {
			case s == nil:
				return 0, false
			case s.state == listening:
				return TakenSYN, last || w.targets[target].Level < Warning
			case s.state == requested:
				return TakenSYN, true
			}
			return TakenSocket, true
		}
		return s.takes(f, in.flags, cookie{binary.BigEndian.Uint32(b[in.l4+4:]), binary.BigEndian.Uint32(b[in.l4+8:])})
	}
	about, sequence, ok := in.quoted(b)
	if !ok {
		return TakenUnhunted, true
	}
	s := w.socket(target, about)
	return TakenError, s != nil && (s.state == connected || s.state == requested && s.isn == sequence)
}

// takes is for what is no SYN.
func (s *socket) takes(f flow, flags byte, has cookie) (Reason, bool) {
	if s == nil {
		return 0, false
	}
	switch s.state {
	case listening:
		// A cookie counts from the client's sequence number, and has the index of the
		// largest segment in its last two bits.
		gave, ok := s.cookie[f]
		return TakenCookie, flags&(syn|rst|ack) == ack && ok && has.acked-has.sequence-(gave.acked-gave.sequence) < 4
	case requested:
		return TakenRequest, flags&ack != 0 && has.acked == s.isn+1
	case ended:
		return TakenTimeWait, flags&(fin|rst) != 0
	}
	return TakenSocket, true
}

// quoted is the flow of TCP that an ICMP error is about.
func (p *layers) quoted(b []byte) (f flow, sequence uint32, ok bool) {
	errors := p.protocol == icmp4 && (p.kind == 3 || p.kind == 11 || p.kind == 12)
	if p.v6 {
		errors = p.protocol == icmp6 && p.kind < 128
	}
	if !errors || !p.whole {
		return f, 0, false
	}
	q := b[min(p.l4+8, len(b)):]
	var from, to netip.Addr
	if p.v6 {
		if len(q) < 48 || q[0]>>4 != 6 || q[6] != tcp {
			return f, 0, false
		}
		from, to = netip.AddrFrom16([16]byte(q[8:])), netip.AddrFrom16([16]byte(q[24:]))
		q = q[40:]
	} else {
		if len(q) < 20 || q[0]>>4 != 4 || q[0]&15 < 5 || q[9] != tcp ||
			binary.BigEndian.Uint16(q[6:])&0x1fff != 0 || len(q) < int(q[0]&15)*4+8 {
			return f, 0, false
		}
		from, to = netip.AddrFrom4([4]byte(q[12:])), netip.AddrFrom4([4]byte(q[16:]))
		q = q[q[0]&15*4:]
	}
	f = flow{
		client: netip.AddrPortFrom(to, binary.BigEndian.Uint16(q[2:])),
		vip:    netip.AddrPortFrom(from, binary.BigEndian.Uint16(q)),
	}
	return f, binary.BigEndian.Uint32(q[4:]), from == p.to
}

// decapsulate is RFC 8986 §4.8 with RFC 6040 §4.2.
func (o *outcome) decapsulate(p, in *layers, number uint16, t Target, why Reason) bool {
	// Rows are the inner codepoint, columns the outer one; -1 is a drop.
	mark := [4][4]int{{0, 0, 0, -1}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}}[in.ecn][p.ecn]
	if mark < 0 {
		return o.end(drop, DroppedCongested)
	}
	in.clamp(o.frame, t.Packet)
	inner := slices.Clone(o.frame[in.l3:])
	kind := []byte{0x86, 0xdd}
	if in.v6 {
		inner[1] = inner[1]&^0x30 | byte(mark)<<4
	} else {
		kind = []byte{8, 0}
		if byte(mark) != in.ecn {
			// Wrong checksums stay wrong by as much: RFC 1624, equation 3.
			was := binary.BigEndian.Uint16(inner)
			inner[1] = inner[1]&^3 | byte(mark)
			var words [6]byte
			binary.BigEndian.PutUint16(words[:], ^binary.BigEndian.Uint16(inner[10:]))
			binary.BigEndian.PutUint16(words[2:], ^was)
			copy(words[4:], inner[:2])
			binary.BigEndian.PutUint16(inner[10:], sum(words[:]))
		}
	}
	macs := o.frame[:12]
	o.verdict = pass
	if number != Host {
		o.verdict = redirect
		macs = slices.Concat(t.MAC, t.Source)
	}
	o.frame, o.reasons = slices.Concat(macs, kind, inner), append(o.reasons, why)
	return false
}

// clamp lowers the largest segment that a SYN tells of to what fits into a packet.
func (p *layers) clamp(b []byte, packet int) {
	most := packet - tcpLen - ip4Len
	if p.v6 {
		most = packet - tcpLen - ip6Len
	}
	if !p.whole || p.protocol != tcp || p.flags&syn == 0 || most <= 0 {
		return
	}
	end := p.l4 + int(b[p.l4+12]>>4)*4
	if end > p.l3+p.length {
		return
	}
	for at := p.l4 + tcpLen; at+4 <= end; {
		kind, size, value := b[at], int(b[at+1]), b[at+2:at+4]
		if kind == 2 && size == 4 {
			if int(binary.BigEndian.Uint16(value)) > most {
				p.setValue(b, at+2, uint16(most))
			}
			return
		}
		switch {
		case kind == 1:
			at++
		case kind == 0 || size < 2:
			return
		default:
			at += size
		}
	}
}

// setValue changes two bytes of TCP, and the checksum as RFC 1624 does, equation 3.
func (p *layers) setValue(b []byte, at int, value uint16) {
	words := []byte{^b[at], ^b[at+1], byte(value >> 8), byte(value)}
	if (at-p.l4)%2 == 1 {
		words[0], words[1], words[2], words[3] = words[1], words[0], words[3], words[2]
	}
	check := b[p.l4+16:]
	words = append(words, ^check[0], ^check[1])
	binary.BigEndian.PutUint16(check, sum(words))
	binary.BigEndian.PutUint16(b[at:], value)
}

// handOn is RFC 8986 §4.1.
func (o *outcome) handOn(p *layers, l *list) (again bool) {
	next := l.segments[16*(l.left-1):]
	if len(next) < 16 {
		return o.end(drop, DroppedMalformed)
	}
	to := netip.AddrFrom16([16]byte(next))
	switch {
	case o.frame[p.l3+7] <= 1:
		return o.end(drop, DroppedHops)
	case !block.Contains(to):
		return o.end(drop, DroppedSegments)
	}
	o.frame[p.l3+7]--
	o.frame[l.srh+3]--
	copy(o.frame[p.l3+24:], to.AsSlice())
	o.reasons = append(o.reasons, HandedOn)
	return o.sendBack(to)
}

// bounce returns a packet to its gateway as a miss.
func (o *outcome) bounce(p *layers) (again bool) {
	if o.frame[p.l3+7] <= 1 {
		return o.end(drop, DroppedHops)
	}
	to := p.from.As16()
	binary.BigEndian.PutUint16(to[8:], miss)
	o.frame[p.l3+7]--
	copy(o.frame[p.l3+8:], p.to.AsSlice())
	copy(o.frame[p.l3+24:], to[:])
	o.reasons = append(o.reasons, Bounced)
	return o.sendBack(netip.AddrFrom16(to))
}

func (o *outcome) sendBack(to netip.Addr) (again bool) {
	if locator.Contains(to) {
		return true
	}
	o.verdict = tx
	macs := slices.Concat(o.frame[6:12], o.frame[:6])
	copy(o.frame, macs)
	return false
}

// same tells whether two outcomes are the same.
func (o *outcome) same(verdict uint32, frame []byte) bool {
	if o.verdict != verdict {
		return false
	}
	return verdict == drop || bytes.Equal(o.frame, frame)
}
