package bgp

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/razor-steering/razor/steering"
)

// hear reads what the peer says.
func (s *session) hear() error {
	r := reader(s.conn)
	s.within(s.conn.SetReadDeadline, s.peer.openWait)
	if err := s.hearOpen(r); err != nil {
		return err
	}
	for {
		m, err := readMessage(r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.within(s.conn.SetReadDeadline, lateTime)
			m, err = readMessage(r)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			n := &notification{code: codeHoldTimer}
			return &end{reason: endedHold, text: n.Error(), notify: n}
		}
		if err != nil {
			return err
		}
		s.peer.count(m.typ(), "in")
		if err := s.heard(m); err != nil {
			return err
		}
	}
}

// hearOpen judges the peer's OPEN and lets the speaker have what was understood.
func (s *session) hearOpen(r *bufio.Reader) error {
	m, err := readMessage(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n := &notification{code: codeHoldTimer}
		return &end{reason: endedOpen, text: "no OPEN within " + s.peer.openWait.String(), notify: n}
	}
	if err != nil {
		return err
	}
	s.peer.count(m.typ(), "in")
	switch m.typ() {
	case typeOpen:
	case typeNotification:
		return notified(m)
	default:
		return &notification{code: codeFSM, subcode: fsmOpenSent}
	}
	o, err := parseOpen(m.body())
	// Routes whose next hop the peer would not take are not for it (RFC 8950 §4).
	passed := o
	passed.families[steering.IPv4] = s.takesIPv4(o)
	if s.local().Is4() {
		passed.families[steering.IPv6] = false
	}
	if err == nil {
		err = s.peer.acceptable(passed)
	}
	if n, ok := errors.AsType[*notification](err); ok {
		return &end{reason: endedOpen, text: "OPEN refused: " + n.name() + s.peer.hint(n, o), notify: n, fault: true}
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.open = o
	s.mu.Unlock()
	if why := s.peer.openReceived(s); why != nil {
		return why
	}
	s.mu.Lock()
	s.state, s.since = OpenConfirm, time.Now()
	s.hold = min(s.peer.config.Hold, time.Duration(o.hold)*time.Second)
	s.mu.Unlock()
	return s.tell(passed.encode())
}

// takesIPv4 tells whether the peer takes IPv4 routes with our end as the next hop.
func (s *session) takesIPv4(o open) bool {
	return o.families[steering.IPv4] && (s.local().Is4() || o.nextHop6)
}

// heard judges a message that came after the OPEN.
func (s *session) heard(m message) error {
	s.mu.Lock()
	state, hold := s.state, s.hold
	s.mu.Unlock()
	s.within(s.conn.SetReadDeadline, hold)
	switch m.typ() {
	case typeKeepalive:
		s.confirmed()
		return s.tell(m)
	case typeNotification:
		return notified(m)
	}
	if state != Established {
		return &notification{code: codeFSM, subcode: fsmOpenConfirm}
	}
	switch m.typ() {
	case typeUpdate:
		if err := s.learnt(m); err != nil {
			return err
		}
		return s.tell(keepalive) // nothing is imported, but it lives
	case typeRefresh:
		if family, ok := parseRefresh(m.body()); ok {
			s.refresh(family)
		}
		return s.tell(keepalive)
	}
	return &notification{code: codeFSM, subcode: fsmEstablished} // a second OPEN
}

// refresh has the routes of a family sent again, once a second at most: the speaker
// queues all of them each time.
func (s *session) refresh(f steering.Family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refreshing[f] {
		return // they are about to be
	}
	wait := max(0, time.Until(s.refreshed[f].Add(refreshGap)))
	s.refreshing[f], s.refreshed[f] = true, time.Now().Add(wait)
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		s.refreshing[f] = false
		s.mu.Unlock()
		_ = s.fail(s.tell(newRefresh(f)))
	})
}

// notified is the end that the peer asked for.
func notified(m message) error {
	n := parseNotification(m.body())
	reason := endedNotified
	if n.code == codeCease && n.subcode == ceaseCollision {
		reason = endedCollision
	}
	return &end{reason: reason, text: "the peer says: " + n.Error(), fault: n.refusal()}
}

// learnt counts the prefixes of the peer. An UPDATE that is malformed in a way
// that leaves the session alone is ignored, as all of them are (RFC 7606 §2).
func (s *session) learnt(m message) error {
	o := s.openNow()
	u, err := surveyUpdate(m.body(), o.families, o.fourOctet)
	if err != nil {
		return err
	}
	if u.malformed != "" {
		s.peer.malformed(u.malformed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range u.withdrawn {
		delete(s.received, p)
	}
	for _, p := range u.announced {
		s.received[p] = struct{}{}
	}
	if most := s.peer.config.MaxPrefixes; len(s.received) > most {
		n := &notification{code: codeCease, subcode: ceaseMaxPrefixes}
		return &end{reason: endedMax, text: fmt.Sprintf("more than %d prefixes", most), notify: n, fault: true}
	}
	return nil
}

// confirmed notes a KEEPALIVE; the first makes the session established.
func (s *session) confirmed() {
	s.mu.Lock()
	first := s.state == OpenConfirm
	if first {
		s.state, s.since = Established, time.Now()
	}
	s.mu.Unlock()
	if first {
		s.peer.established(s)
	}
}
