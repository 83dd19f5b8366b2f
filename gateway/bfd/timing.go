package bfd

import "time"

// slow is the least interval between packets while a session is not Up (RFC 5880
// §6.8.3).
const slow = time.Second

// least is the shortest interval that can be wanted, and the time between a
// packet and one that tells of a change. Without it doubled and late packets make
// two sessions answer each change of the other with one of their own, for ever
// and in ever greater numbers.
const least = 10 * time.Millisecond

// agreed is an interval as the peer is told, and as it is in force: what could
// let the peer's detection time or ours run out waits until the peer has
// answered (RFC 5880 §6.8.3).
type agreed struct {
	told, inForce time.Duration
}

// set says whether the peer has to be told; with wait the interval is in force
// only when confirmed.
func (a *agreed) set(d time.Duration, wait bool) bool {
	if !wait {
		a.inForce = d
	}
	changed := a.told != d
	a.told = d
	return changed
}

// negotiate brings the intervals to what state and configuration want, asks the
// peer about a change by a poll sequence, and has it told soon. Without a peer
// there is nobody to ask: it learns from our first packet.
func (s *session) negotiate(now time.Time) {
	up := s.state == Up
	desired := s.interval
	if !up {
		desired = max(slow, s.interval)
	}
	sending := s.tx.set(desired, up && desired > s.tx.inForce)
	receiving := s.rx.set(s.interval, up && s.interval < s.rx.inForce)
	if (sending || receiving) && s.peer.my != 0 {
		s.again = s.polling
		s.polling = true
	}
	s.reschedule()
	if s.every == 0 {
		return
	}
	s.urgent = true
	s.next = now
	if soonest := s.sent.Add(least); now.Before(soonest) {
		s.next = soonest
	}
}

// answered ends a poll sequence. A change that was made during it is in force
// only after one more.
func (s *session) answered() {
	if !s.polling {
		return
	}
	if s.again {
		s.again = false
		return
	}
	s.polling = false
	s.tx.inForce, s.rx.inForce = s.tx.told, s.rx.told
}

// configure changes what is wanted, by a poll sequence where the session is in
// being.
func (s *session) configure(now time.Time, interval time.Duration, multiplier uint8) {
	s.interval, s.multiplier = interval, multiplier
	s.negotiate(now)
}

// detection is how long the peer may be silent (RFC 5880 §6.8.4); 0 when nothing
// is known of it.
func (s *session) detection() time.Duration {
	return time.Duration(s.peer.multiplier) * max(s.rx.inForce, s.peer.every)
}

// deadline is when the detection time is over, counted from the last packet.
func (s *session) deadline() time.Time { return s.heard.Add(s.detection()) }

// sendEvery is the interval of our packets before jitter (RFC 5880 §6.8.7); 0
// while there are none: the peer takes none, or only answers to a poll.
func (s *session) sendEvery() time.Duration {
	demanded := s.peer.demand && s.state == Up && s.peer.state == Up
	if s.peer.minRx == 0 || demanded && !s.polling {
		return 0
	}
	return max(s.tx.inForce, s.peer.minRx)
}

// reschedule makes a change of the interval hold for the packet that is due
// next: the detection time of a peer that was promised a higher rate runs already.
func (s *session) reschedule() {
	every := s.sendEvery()
	if every == s.every {
		return
	}
	s.every = every
	switch {
	case every == 0:
		s.next, s.urgent = time.Time{}, false
	case !s.urgent:
		s.next = s.sent.Add(s.jittered(every))
	}
}

// jittered is an interval less up to a quarter, and less a tenth at least where
// one lost packet is the detection time (RFC 5880 §6.8.7).
func (s *session) jittered(d time.Duration) time.Duration {
	spread := 0.25
	if s.multiplier == 1 {
		spread = 0.15
	}
	return time.Duration(float64(d) * (0.75 + spread*s.random()))
}
