package bgp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

// State is how far a session has come (RFC 4271 §8.2.2).
type State string

// The states of a peer.
const (
	Idle        State = "idle"        // nothing is tried now
	Connecting  State = "connect"     // called, or waited for
	OpenSent    State = "opensent"    // connected, its OPEN has not come
	OpenConfirm State = "openconfirm" // its OPEN is good
	Established State = "established"
)

const (
	openTimeout = 10 * time.Second
	refreshGap  = time.Second
	byeTimeout  = 300 * time.Millisecond
	// The least of RFC 9687 §4.
	sendHold = 8 * time.Minute
	// What came while this process did not run is there within lateTime.
	lateTime = 100 * time.Millisecond
)

// An end is why a session ended.
type end struct {
	reason string        // a label: one of the words below
	text   string        // for people
	notify *notification // what the peer is told; nothing when nil, as after a restart
	fault  bool          // the peer's doing: it is held off for longer each time
}

func (e *end) Error() string { return e.text }

// The reasons of ends, which are metric labels.
const (
	endedByPeer     = "closed"       // the connection ended
	endedNotified   = "notification" // the peer said why
	endedHold       = "hold_timer"
	endedMalformed  = "malformed"
	endedOpen       = "open" // the OPEN was refused
	endedMax        = "max_prefixes"
	endedCollision  = "collision"
	endedCrash      = "speaker"
	endedBFD        = "bfd"
	endedAdmin      = "administrative" // drained, stopped, no longer configured
	endedSend       = "send_hold_timer"
	endedByRestart  = "restart"   // without a word, so that the peer keeps the routes
	endedConnection = "connect"   // not even connected
	sameID          = "router_id" // of the peer is ours, which ends nothing by itself
)

// A session is one connection with the peer, from TCP to its end.
type session struct {
	peer     *peer
	conn     *net.TCPConn
	outbound bool // we called
	child    *child

	ending  sync.Once
	ended   chan struct{} // closed by finish
	why     *end
	writing sync.Mutex // of whole messages to the peer

	mu         sync.Mutex
	state      State
	since      time.Time
	closing    bool // the connection has its last deadline
	open       open // the peer's
	hold       time.Duration
	refreshed  [2]time.Time              // when routes were sent again last, or will be
	refreshing [2]bool                   // they will be
	sent       map[netip.Prefix]struct{} // announced, as the wire has it
	received   map[netip.Prefix]struct{} // by the peer
}

func newSession(p *peer, conn *net.TCPConn, outbound bool) *session {
	return &session{
		peer: p, conn: conn, outbound: outbound, ended: make(chan struct{}), state: OpenSent, since: time.Now(),
		sent: map[netip.Prefix]struct{}{}, received: map[netip.Prefix]struct{}{},
	}
}

// run is the whole session. It returns why it ended.
func (s *session) run(ctx context.Context) *end {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	child, err := startChild(ctx, s.peer.command, s.setup())
	if err != nil {
		s.finish(&end{reason: endedCrash, text: err.Error()})
		s.bye()
		return s.why
	}
	s.child = child
	var g errgroup.Group
	g.Go(func() error { return s.fail(s.hear()) })
	g.Go(func() error { return s.fail(s.speak()) })
	g.Go(func() error { return s.fail(s.feed()) })
	<-s.ended
	s.bye()
	crash, crashed := "", false
	if s.why.reason == endedCrash {
		crash, crashed = child.crash()
	}
	child.stop()
	_ = g.Wait()
	if crashed {
		s.peer.crashed(crash)
	}
	return s.why
}

// setup is what the speaker has to know.
func (s *session) setup() setup {
	c := &s.peer.config
	routes, _ := s.peer.routes.get()
	return setup{
		AS: s.peer.as, RouterID: s.peer.routerID, NextHop: s.local(),
		Hold: seconds(c.Hold), Keepalive: seconds(c.Keepalive), Restart: seconds(c.restartTime()),
		Routes: s.peer.choose(routes),
	}
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// local is our end of the connection, and the next hop of what we announce.
func (s *session) local() netip.Addr { return addrOf(s.conn.LocalAddr()) }

// addrOf is an address of a connection; of IPv4 not the mapped form.
func addrOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// finish ends the session; only the first reason counts.
func (s *session) finish(why *end) {
	s.ending.Do(func() {
		s.why = why
		close(s.ended)
	})
}

// fail ends the session by what a part of it met.
func (s *session) fail(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*end](err); ok {
		s.finish(e)
		return err
	}
	if n, ok := errors.AsType[*notification](err); ok {
		s.finish(&end{reason: endedMalformed, text: "refused: " + n.Error(), notify: n, fault: true})
		return err
	}
	s.finish(&end{reason: endedByPeer, text: plainError(err)})
	return err
}

func plainError(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "connection closed by the peer"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed within a message"
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// speakerError says what is wrong with the speaker.
func speakerError(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "the speaker ended"
	}
	return "speaker: " + plainError(err)
}

// bye tells the peer why, if it is to be told, and closes the connection.
func (s *session) bye() {
	if s.why.notify != nil {
		// Before the lock: who has it may be writing to a peer that never reads.
		s.mu.Lock()
		s.closing = true
		_ = s.conn.SetDeadline(time.Now().Add(byeTimeout))
		s.mu.Unlock()
		s.writing.Lock()
		_, err := s.conn.Write(s.why.notify.encode())
		s.writing.Unlock()
		// What the peer sent meanwhile would turn the end into a reset, and that
		// would take the word with it.
		if err == nil && s.conn.CloseWrite() == nil {
			s.peer.count(typeNotification, "out")
			_, _ = io.Copy(io.Discard, io.LimitReader(s.conn, 1<<20))
		}
	}
	_ = s.conn.Close()
}

// within sets a deadline of a connection. When the session has ended, the last one
// stays.
func (s *session) within(set func(time.Time) error, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		_ = set(time.Now().Add(d))
	}
}

// feed gives the speaker what changes of the routes.
func (s *session) feed() error {
	given := s.child.routes
	for {
		routes, changed := s.peer.routes.get()
		wanted := s.peer.choose(routes)
		if c := changeOf(given, wanted); !c.empty() {
			if err := s.child.change(c); err != nil {
				return &end{reason: endedCrash, text: speakerError(err)}
			}
			given = wanted
		}
		select {
		case <-changed:
		case <-s.ended:
			return nil
		}
	}
}

// speak passes on what the speaker says.
func (s *session) speak() error {
	r := reader(s.child.conn)
	for {
		s.within(s.child.conn.SetReadDeadline, s.silence())
		m, err := readMessage(r)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.within(s.child.conn.SetReadDeadline, lateTime)
			m, err = readMessage(r)
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errSilent
				s.child.kill() // it hangs
			}
			return &end{reason: endedCrash, text: speakerError(err)}
		}
		switch m.typ() {
		case typeOpen:
			if err := setRestart(m, s.peer.restarting()); err != nil {
				return &end{reason: endedCrash, text: speakerError(err)}
			}
		case typeUpdate:
			if err := s.announced(m); err != nil {
				return err
			}
		case typeNotification:
			n := parseNotification(m.body())
			return &end{reason: reasonOf(n), text: "refused: " + n.Error(), notify: n, fault: n.code != codeHoldTimer}
		}
		if err := s.send(m); err != nil {
			return err
		}
		s.peer.count(m.typ(), "out")
	}
}

func reasonOf(n *notification) string {
	switch n.code {
	case codeHoldTimer:
		return endedHold
	case codeOpen:
		return endedOpen
	}
	return endedMalformed
}

// silence is for how long the speaker may say nothing. One that hangs has to be
// gone before the peer's hold timer ends the session, as that would lose the routes.
func (s *session) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == OpenSent {
		return 2 * s.peer.openWait // it waits for the peer's OPEN
	}
	return s.hold * 3 / 4
}

// send writes one message to the peer.
func (s *session) send(m message) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.within(s.conn.SetWriteDeadline, s.peer.sendHold)
	_, err := s.conn.Write(m)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &end{reason: endedSend, text: "the peer takes nothing", notify: &notification{code: codeSendHoldTimer}}
	}
	return err
}

// announced notes what an UPDATE of ours says.
func (s *session) announced(m message) error {
	u, err := surveyUpdate(m.body(), families{true, true}, s.openNow().fourOctet)
	if err != nil {
		return &end{reason: endedCrash, text: speakerError(err)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range u.withdrawn {
		delete(s.sent, p)
	}
	for _, p := range u.announced {
		s.sent[p] = struct{}{}
	}
	return nil
}

func (s *session) openNow() open {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// tell passes a message on to the speaker.
func (s *session) tell(m message) error {
	_ = s.child.conn.SetWriteDeadline(time.Now().Add(setupTimeout))
	if _, err := s.child.conn.Write(m); err != nil {
		return &end{reason: endedCrash, text: speakerError(err)}
	}
	return nil
}

// counts are the prefixes announced and received, of both families each.
func (s *session) counts() (sent, received map[steering.Family]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return byFamily(s.sent), byFamily(s.received)
}

func byFamily(set map[netip.Prefix]struct{}) map[steering.Family]int {
	out := map[steering.Family]int{}
	for p := range set {
		if p.Addr().Is4() {
			out[steering.IPv4]++
		} else {
			out[steering.IPv6]++
		}
	}
	return out
}
