package bfd

import "time"

// session is one side of a BFD session (RFC 5880 §6.8). It is pure: packets and
// the time go in, packets and the next moment to look come out. Whoever owns it
// calls receive for a packet, expire when wake has come, and transmit after both
// and every change, until there is nothing to send. It is not safe for
// concurrent use.
type session struct {
	interval   time.Duration // wanted in both directions while Up
	multiplier uint8
	random     func() float64 // in [0, 1)

	state State
	diag  Diagnostic
	my    uint32
	peer  peer

	tx, rx  agreed
	polling bool // our packets ask, until one with F answers
	again   bool // what was changed meanwhile is asked for after it
	final   bool // an answer is owed

	heard time.Time     // the last packet; zero: none within the detection time
	sent  time.Time     // the last periodic packet
	next  time.Time     // the next one; zero: none
	every time.Duration // that next goes by

	urgent bool // next tells of a change
}

// peer is what the other side said last.
type peer struct {
	state      State
	diag       Diagnostic
	my         uint32 // its discriminator; 0: not known
	minTx      time.Duration
	minRx      time.Duration
	multiplier uint8
	demand     bool
	every      time.Duration // interval in which its packets may still come
}

// unheard is all that is known of a silent peer (RFC 5880 §6.8.1).
var unheard = peer{state: Down, minRx: time.Microsecond}

// newSession is a session that begins Down and speaks at once.
func newSession(now time.Time, my uint32, interval time.Duration, multiplier uint8, random func() float64) *session {
	s := &session{interval: interval, multiplier: multiplier, random: random, my: my, peer: unheard}
	s.enter(now, Down, DiagNone)
	return s
}

// receive takes a packet that is meant for this session (RFC 5880 §6.8.6). It
// says whether the state changed.
func (s *session) receive(now time.Time, p packet) bool {
	s.learn(p)
	if p.final {
		s.answered()
	}
	s.heard = now
	s.reschedule()
	if s.state == AdminDown {
		return false
	}
	was := s.state
	switch {
	case p.state == AdminDown || p.state == Down && s.state == Up:
		if s.state != Down {
			s.enter(now, Down, DiagSignaled)
		}
	case s.state == Down && p.state == Down:
		s.enter(now, Init, DiagNone)
	case s.state == Down && p.state == Init, s.state == Init && p.state >= Init:
		s.enter(now, Up, DiagNone)
	}
	s.final = s.final || p.poll
	return s.state != was
}

// learn keeps what a packet says of its sender. During a poll sequence of the
// peer its packets may come as slowly as before: it may wait for our answer with
// a higher rate (FRR does). So the detection time shrinks only with a packet
// outside of one; an answer is not such a packet, as it never has P set.
func (s *session) learn(p packet) {
	every := p.minTx
	if p.poll || p.final {
		every = max(every, s.peer.every)
	}
	s.peer = peer{
		state: p.state, diag: p.diag, my: p.my,
		minTx: p.minTx, minRx: p.minRx, multiplier: p.multiplier, demand: p.demand, every: every,
	}
}

// expire ends what the peer left without a packet for the detection time (RFC
// 5880 §6.8.4). It says whether the state changed.
func (s *session) expire(now time.Time) bool {
	if s.heard.IsZero() || now.Before(s.deadline()) {
		return false
	}
	s.heard, s.peer = time.Time{}, unheard
	s.polling, s.again, s.final = false, false, false
	changed := s.state == Init || s.state == Up
	if changed {
		s.enter(now, Down, DiagExpired)
	}
	s.reschedule()
	return changed
}

// disable takes the session down by will (RFC 5880 §6.8.16); it goes on telling
// the peer so. It says whether the state changed, as enable does.
func (s *session) disable(now time.Time) bool {
	if s.state == AdminDown {
		return false
	}
	s.enter(now, AdminDown, DiagAdmin)
	return true
}

// enable ends disable.
func (s *session) enable(now time.Time) bool {
	if s.state != AdminDown {
		return false
	}
	s.enter(now, Down, DiagNone)
	return true
}

// enter changes the state, and lets the peer know before the next periodic packet
// (RFC 5880 §6.8.7).
func (s *session) enter(now time.Time, state State, diag Diagnostic) {
	s.state, s.diag = state, diag
	s.negotiate(now)
}

// transmit is a packet to be sent now, if there is one: an answer to a poll, or
// the periodic one (RFC 5880 §6.8.7).
func (s *session) transmit(now time.Time) (packet, bool) {
	p := s.packet()
	switch {
	case s.final:
		s.final = false
		p.final = true
		return p, true
	case s.next.IsZero() || now.Before(s.next):
		return packet{}, false
	}
	p.poll = s.polling
	s.sent, s.urgent = now, false
	s.next = now.Add(s.jittered(s.every))
	return p, true
}

// packet says how the session is.
func (s *session) packet() packet {
	return packet{
		diag: s.diag, state: s.state, multiplier: s.multiplier,
		my: s.my, your: s.peer.my, minTx: s.tx.told, minRx: s.rx.told,
	}
}

// wake is when to call expire and transmit next.
func (s *session) wake() time.Time {
	switch {
	case s.final:
		return s.heard
	case s.heard.IsZero():
		return s.next
	case s.next.IsZero():
		return s.deadline()
	}
	if d := s.deadline(); d.Before(s.next) {
		return d
	}
	return s.next
}
