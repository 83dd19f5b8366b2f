package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// hosts are routes of n single addresses.
func hosts(n int) []Route {
	out := make([]Route, n)
	for i := range out {
		out[i].Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)
	}
	return out
}

func withRoutes(routes []Route) func(*Announcer) {
	return func(a *Announcer) { a.Announce(routes) }
}

// fault is what was counted of one reason.
func (s *side) fault(reason string) float64 {
	return s.metric(fmt.Sprintf("peer_errors_total{peer=%q,reason=%q}", s.Status()[0].Name, reason))
}

// The session is back at once, with the same routes; the peer was told nothing, so
// that it has kept them.
func TestSpeakerKilled(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{}, withRoutes(hosts(3)))
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV} {
		h, own := establish(t, s, handOpen())
		if want := i == 0; own.restart.restarting != want || !own.restart.present || own.restart.forwarding != (families{true, true}) {
			t.Errorf("OPEN says %+v of restarts, the first one alone is one", own.restart)
		}
		until(t, "established with routes", func() bool { return s.Status()[0].Announced["IPv4"] == 3 })
		if err := s.child().cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		h.endsWithoutAWord()
		until(t, "counted", func() bool { return s.metric(`speaker_crashes_total{peer="hand"}`) == float64(i+1) })
	}
	h, _ := establish(t, s, handOpen())
	defer h.live()
	until(t, "established with routes", func() bool { return s.Status()[0].Announced["IPv4"] == 3 })
	if !s.log.has("level=ERROR", "speaker died, routes are kept", "signal: killed") || !s.log.has("level=ERROR", "speaker died", "SIGSEGV: segmentation violation") {
		t.Error("the log does not say how the speaker died")
	}
	if got := s.fault(endedCrash); got != 2 {
		t.Errorf("%v crashes are counted as ends of sessions", got)
	}
}

// A speaker that hangs is replaced before the peer's hold timer expires.
func TestSpeakerHangs(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{Hold: 3 * time.Second})
	h, _ := establish(t, s, handOpen())
	until(t, "established", func() bool { return s.state() == Established })
	if err := s.child().cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := <-h.live(); !closed(err) {
		t.Errorf("session ended with %v, want no word", err)
	}
	establish(t, s, handOpen())
	until(t, "counted", func() bool { return s.metric(`speaker_crashes_total{peer="hand"}`) == 1 })
	if !s.log.has("peer is down", "speaker: silent") {
		t.Error("the log does not say that it was silent")
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	s := &session{peer: &peer{openWait: openTimeout}, state: OpenSent}
	if got := s.silence(); got <= openTimeout {
		t.Errorf("before the OPEN: %v", got)
	}
	s.state = Established
	for hold, want := range map[time.Duration]time.Duration{3 * time.Second: 2250 * time.Millisecond, 9 * time.Second: 6750 * time.Millisecond} {
		if s.hold = hold; s.silence() != want {
			t.Errorf("with a hold time of %v: %v, want %v", hold, s.silence(), want)
		}
	}
}

// Who keeps causing faults waits for longer each time, and has an alarm.
func TestHeldOff(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{AS: "64998"})
	refused := 0
	for !s.log.has("level=ERROR", "peer is held off", "for=4s") {
		h := dial(t, s, "::1")
		if _, err := h.begin(handOpen()); err != nil && err.Error() == "OPEN message error: bad peer AS" {
			refused++
		}
		_ = h.conn.Close()
		if refused > 10 {
			t.Fatal("never held off")
		}
		until(t, "the end of the session", func() bool { _, _, open := s.Sessions(); return open == 0 })
		time.Sleep(2 * callGap)
	}
	if refused != 4 || s.fault(endedOpen) != 4 {
		t.Errorf("held off after %d refused OPENs, %v counted", refused, s.fault(endedOpen))
	}
	st := s.Status()[0]
	if st.State != Idle || !st.HeldUntil.After(time.Now()) || !strings.Contains(st.LastError, "bad peer AS") {
		t.Errorf("%+v", st)
	}
	if n := s.log.count("level=WARN", "peer is down"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if s.metric(`peer_held_off{peer="hand"}`) != 1 {
		t.Error("no alarm in the metrics")
	}
	h := dial(t, s, "::1")
	h.endsWithoutAWord()
	p := s.peers["hand"]
	p.mu.Lock()
	p.held = time.Now() // nobody has the time
	p.mu.Unlock()
	until(t, "it may call again", func() bool { return s.metric(`peer_held_off{peer="hand"}`) == 0 })
	until(t, "it is listened to again", func() bool { _, err := dial(t, s, "::1").next(typeOpen); return err == nil })
}

// The pauses double up to two minutes, and are forgotten after a good session.
func TestPauses(t *testing.T) {
	t.Parallel()
	s := start(t, 65001, freePorts(t, 1)[0], PeerConfig{Name: "a", Address: "::1", Passive: true})
	p := s.peers["a"]
	now := time.Now()
	for i, want := range []int{0, 1, 2, 4, 8, 16, 32, 64, 120, 120} {
		p.mu.Lock()
		p.holdOff(now, &end{})
		if got := p.held.Sub(now); got != time.Duration(want)*time.Second || p.alarm != (want >= 4) {
			t.Errorf("fault %d costs %v, alarm %v", i+1, got, p.alarm)
		}
		p.mu.Unlock()
	}
	for _, lived := range []time.Duration{goodTime / 2, 2 * goodTime} {
		good := &session{peer: p, state: Established, since: time.Now().Add(-lived)}
		p.over(good, &end{reason: endedByPeer})
		if forgotten := p.pause == 0; forgotten != (lived > goodTime) {
			t.Errorf("after %v: the next fault costs %v", lived, p.pause)
		}
	}
	// What holds off is not shortened by anything else.
	p.bfd(true)
	p.moved(p.address)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.held.Equal(now.Add(lastPause)) {
		t.Errorf("held until %v", p.held)
	}
}

// A peer whose faults are over is listened to, although it cannot be called.
func TestCallsInAfterFault(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 2)
	s := start(t, 65001, ports[0], PeerConfig{Name: "hand", Address: "::1", Port: ports[1]})
	for range 2 { // the first is forgiven
		h := dial(t, s, "::1")
		h.say(newMessage(typeUpdate, make([]byte, 4)))
		h.ends(codeFSM, fsmOpenSent)
		time.Sleep(2 * callGap)
	}
	establish(t, s, handOpen())
}

func TestSaysNothing(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{}, func(a *Announcer) { a.peers["hand"].openWait = time.Second })
	h := dial(t, s, "::1")
	h.ends(codeHoldTimer, 0)
	until(t, "counted", func() bool { return s.fault(endedOpen) == 1 })
	if got := s.lastError(); got != "no OPEN within 1s" {
		t.Error(got)
	}
}

func TestHoldTimer(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{Hold: 30 * time.Second})
	o := handOpen()
	o.hold = 3
	h, _ := establish(t, s, o)
	until(t, "established", func() bool { return s.state() == Established })
	if got := s.Status()[0].Hold; got != 3 {
		t.Errorf("hold time %v", got)
	}
	h.ends(codeHoldTimer, 0)
	until(t, "counted", func() bool { return s.fault(endedHold) == 1 })
	if len(s.Status()[0].HeldUntil.String()) == 0 || !s.Status()[0].HeldUntil.IsZero() {
		t.Error("it is held off")
	}
}

// deaf has a session whose peer reads nothing, with hardly any room on the way.
func deaf(t *testing.T, changes ...func(*Announcer)) (*side, *hand) {
	t.Helper()
	s := byHand(t, PeerConfig{}, changes...)
	dial(t, s, "::1").conn.Close() // it listens
	time.Sleep(2 * callGap)
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { // before there is a window
		return onSocket(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<13) })
	}}
	conn, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("[::1]:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	h := onHand(t, conn.(*net.TCPConn))
	if _, err := h.begin(handOpen()); err != nil {
		t.Fatal(err)
	}
	until(t, "established", func() bool { return s.state() == Established })
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for h.alive(stop) {
			h.say(keepalive)
		}
	}()
	p := s.peers["hand"]
	p.mu.Lock()
	at := p.foremost()
	p.mu.Unlock()
	if err := at.conn.SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	s.Announce(hosts(20_000))
	until(t, "nothing more is taken", func() bool {
		if at.writing.TryLock() {
			at.writing.Unlock()
			return false
		}
		was := s.Status()[0].Announced["IPv4"]
		time.Sleep(100 * time.Millisecond)
		return was > 0 && was == s.Status()[0].Announced["IPv4"]
	})
	return s, h
}

// A peer that lives and reads nothing is gone after the send hold time (RFC 9687).
func TestSendHoldTimer(t *testing.T) {
	t.Parallel()
	s, _ := deaf(t, func(a *Announcer) { a.peers["hand"].sendHold = time.Second })
	until(t, "counted", func() bool { return s.fault(endedSend) == 1 })
	if got := s.lastError(); got != "the peer takes nothing" {
		t.Error(got)
	}
}

// Nobody has to wait for a peer that reads nothing.
func TestShutdownOfDeafPeer(t *testing.T) {
	t.Parallel()
	s, _ := deaf(t)
	s.Shutdown("bye")
	until(t, "the end", func() bool { _, _, open := s.Sessions(); return open == 0 })
	s.stop()
}

// While two connections compete, each of the four ways to decide leaves the one
// that the higher identifier has called (RFC 4271 §6.8).
func TestCollision(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		id          string // of the peer
		callFirst   bool   // the peer's OPEN comes first on its own call
		staysCalled bool   // the peer's call stays
	}{
		{"higher, its call first", "192.0.2.99", true, true},
		{"higher, its call last", "192.0.2.99", false, true},
		{"lower, its call first", "1.0.0.1", true, false},
		{"lower, its call last", "1.0.0.1", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			s := start(t, 65001, freePorts(t, 1)[0], PeerConfig{Name: "hand", Address: "::1", Port: l.Addr().(*net.TCPAddr).Port})
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			answered, called := onHand(t, conn.(*net.TCPConn)), dial(t, s, "::1")
			for _, h := range []*hand{answered, called} {
				if _, err := h.next(typeOpen); err != nil {
					t.Fatal(err)
				}
			}
			o := handOpen()
			o.id = netip.MustParseAddr(c.id)
			first, second := answered, called
			if c.callFirst {
				first, second = called, answered
			}
			stays, goes := answered, called
			if c.staysCalled {
				stays, goes = called, answered
			}
			first.say(o.encode())
			if first == stays {
				if _, err := first.next(typeKeepalive); err != nil {
					t.Fatal(err)
				}
			}
			second.say(o.encode())
			goes.ends(codeCease, ceaseCollision)
			stays.say(keepalive)
			until(t, "established", func() bool { return s.state() == Established })
			until(t, "counted", func() bool { return s.fault(endedCollision) == 1 })
			stays.live()
		})
	}
}

// A second connection beside a session that is established ends, unless that is old
// and the peer restarted and kept the routes meanwhile (RFC 4724 §5).
func TestCallsTwice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ graceful, old bool }{{false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			t.Parallel()
			graceful := tt.graceful && tt.old
			s := byHand(t, PeerConfig{})
			o := handOpen()
			o.restart.present = tt.graceful
			h, _ := establish(t, s, o)
			until(t, "established", func() bool { return s.state() == Established })
			if tt.old {
				s.peers["hand"].sessions[0].mu.Lock()
				s.peers["hand"].sessions[0].since = time.Now().Add(-openTimeout)
				s.peers["hand"].sessions[0].mu.Unlock()
			}
			ended := h.live()
			time.Sleep(2 * callGap)
			again := dial(t, s, "::1")
			if _, err := again.next(typeOpen); err != nil {
				t.Fatal(err)
			}
			if s.state() != Established || s.metric(`peer_up{peer="hand"}`) != 1 {
				t.Error("a connection alone takes the session away")
			}
			again.say(o.encode())
			if !graceful {
				again.ends(codeCease, ceaseCollision)
				if s.state() != Established {
					t.Error(s.lastError())
				}
				return
			}
			if err := <-ended; !closed(err) {
				t.Errorf("the first session ended with %v, want no word", err)
			}
			again.say(keepalive)
			again.live()
			until(t, "established", func() bool { return s.state() == Established && s.metric(`peer_sessions_total{peer="hand"}`) == 2 })
		})
	}
}

// Of calls without an OPEN the last one counts.
func TestCallsManyTimes(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{})
	for range 30 {
		dial(t, s, "::1")
		time.Sleep(callGap / 5)
	}
	_, _, open := s.Sessions()
	t.Logf("%d sessions", open)
	if open > 12 {
		t.Errorf("%d sessions with one peer", open)
	}
	establish(t, s, handOpen())
}

func TestStranger(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{Address: "127.0.0.1"})
	for i := range 3 {
		h := dial(t, s, "127.0.0.9")
		h.say(handOpen().encode())
		h.endsWithoutAWord()
		if got := s.metric("unknown_calls_total"); got != float64(i+1) {
			t.Errorf("%v counted", got)
		}
	}
}

// judged has one session with an OPEN, and returns how it ends; nil if it is
// established.
func judged(t *testing.T, as string, o open, address string) (*side, *notification) {
	t.Helper()
	s := byHand(t, PeerConfig{AS: as, Address: address})
	h := dial(t, s, address)
	if _, err := h.next(typeOpen); err != nil {
		t.Fatal(err)
	}
	h.say(o.encode())
	if _, err := h.next(typeKeepalive); err != nil {
		n, _ := errors.AsType[*notification](err)
		return s, n
	}
	h.say(keepalive)
	h.live()
	until(t, "established", func() bool { return s.state() == Established })
	return s, nil
}

func TestWho(t *testing.T) {
	t.Parallel()
	with := func(change func(*open)) open { o := handOpen(); change(&o); return o }
	short := with(func(o *open) { o.fourOctet = false })
	ours := with(func(o *open) { o.as = 65001 })
	ourID := func(s *side) bool { return s.fault(sameID) == 1 && s.log.has("level=WARN", "peer has our router ID") }
	for _, c := range []struct {
		name, as, address string
		open              open
		subcode           uint8 // 0 is established
	}{
		{"external", "external", "::1", handOpen(), 0},
		{"number", "64999", "::1", handOpen(), 0},
		{"another number", "64998", "::1", handOpen(), openBadAS},
		{"internal", "internal", "::1", ours, 0},
		{"external and ours", "external", "::1", ours, openBadAS},
		{"internal and not ours", "internal", "::1", handOpen(), openBadAS},
		{"large number", "4200000001", "::1", with(func(o *open) { o.as = 4200000001 }), 0},
		{"two octets", "64999", "::1", short, 0},
		{"two octets, IPv4", "64999", "127.0.0.1", short, 0},
		{"no capability for the large", "4200000001", "::1", with(func(o *open) { o.as, o.fourOctet = asTrans, false }), openBadAS},
		{"IPv4 alone over IPv4", "external", "127.0.0.1", with(func(o *open) { o.families = families{true, false} }), 0},
		{"IPv6 alone over IPv4", "external", "127.0.0.1", with(func(o *open) { o.families = families{false, true} }), openBadCapability},
		{"IPv4 alone over IPv6", "external", "::1", with(func(o *open) { o.families = families{true, false} }), 0},
		{"IPv4 alone without the next hop", "external", "::1", with(func(o *open) { o.families, o.nextHop6 = families{true, false}, false }), openBadCapability},
		{"no hold timer", "external", "::1", with(func(o *open) { o.hold = 0 }), openBadHoldTime},
		{"no family", "external", "::1", with(func(o *open) { o.families = families{} }), openBadCapability},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, n := judged(t, c.as, c.open, c.address)
			if got := n; (got == nil) != (c.subcode == 0) || got != nil && (got.code != codeOpen || got.subcode != c.subcode) {
				t.Fatalf("%v", got)
			}
			if c.subcode != 0 {
				until(t, "counted", func() bool { return s.fault(endedOpen) == 1 })
				return
			}
			if st := s.Status()[0]; st.AS != c.open.as {
				t.Errorf("%+v", st)
			}
		})
	}
	// One identifier for two speakers is a mistake; of other ASes it is borne
	// (RFC 6286 §2.1), within one it is not.
	for _, as := range []uint32{handAS, 65001} {
		t.Run(fmt.Sprint("our router ID, AS ", as), func(t *testing.T) {
			t.Parallel()
			s := byHand(t, PeerConfig{AS: fmt.Sprint(as)})
			o := handOpen()
			o.as, o.id = as, s.routerID
			h := dial(t, s, "::1")
			_, err := h.begin(o)
			if as == handAS {
				h.live()
				until(t, "established", func() bool { return s.state() == Established })
			} else if fmt.Sprint(err) != "OPEN message error: bad BGP identifier" {
				t.Error(err)
			}
			until(t, "said and counted", func() bool { return ourID(s) })
		})
	}
}

// Over IPv6 a peer without extended next hops gets no IPv4, and that is said.
func TestNoExtendedNextHop(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{}, withRoutes(append(hosts(2), Route{Prefix: netip.MustParsePrefix("2001:db8::1/128")})))
	o := handOpen()
	o.nextHop6 = false
	h, _ := establish(t, s, o)
	h.live()
	until(t, "IPv6 is announced", func() bool { return s.Status()[0].Announced["IPv6"] == 1 })
	if st := s.Status()[0]; st.IPv4 || st.Announced["IPv4"] != 0 || !s.log.has("level=WARN", "takes no IPv4 routes", "RFC 8950") {
		t.Errorf("%+v", st)
	}
}

func TestMaxPrefixes(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{MaxPrefixes: 2})
	h, _ := establish(t, s, handOpen())
	until(t, "established", func() bool { return s.state() == Established })
	tell := func(withdrawn, announced string) { h.say(routesOf(withdrawn, announced)) }
	tell("", "192.0.2.1/32")
	tell("", "192.0.2.2/32")
	tell("192.0.2.1/32", "192.0.2.3/32")
	until(t, "two", func() bool { return s.metric(`peer_prefixes{peer="hand"}`) == 2 })
	tell("", "192.0.2.4/32")
	h.ends(codeCease, ceaseMaxPrefixes)
	until(t, "counted", func() bool { return s.fault(endedMax) == 1 })
	if got := s.lastError(); got != "more than 2 prefixes" {
		t.Error(got)
	}
}

// routesOf is an UPDATE of IPv4 prefixes; "" is none.
func routesOf(withdrawn, announced string) message {
	nlri := func(text string) []byte {
		if text == "" {
			return nil
		}
		p := netip.MustParsePrefix(text)
		return append([]byte{byte(p.Bits())}, p.Addr().AsSlice()...)
	}
	attributes := []byte{}
	if announced != "" {
		attributes = []byte{flagTransitive, attrOrigin, 1, 0, flagTransitive, attrASPath, 0, flagTransitive, attrNextHop, 4, 192, 0, 2, 99}
	}
	w := nlri(withdrawn)
	body := slices.Concat([]byte{0, byte(len(w))}, w, []byte{0, byte(len(attributes))}, attributes, nlri(announced))
	return newMessage(typeUpdate, body)
}

// What is announced follows every change, also those that come while the speaker
// is being replaced.
func TestManyRoutes(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{})
	routes := hosts(1024)
	s.Announce(routes)
	at := map[netip.Prefix]bool{}
	var h *hand
	follow := func(want int) {
		t.Helper()
		for len(at) != want {
			m, err := h.next(typeUpdate)
			if err != nil {
				t.Fatalf("%d of %d routes: %v", len(at), want, err)
			}
			u, err := surveyUpdate(m.body(), families{true, true}, true)
			if err != nil || u.malformed != "" {
				t.Fatal(err, u.malformed)
			}
			for _, p := range u.withdrawn {
				delete(at, p)
			}
			for _, p := range u.announced {
				at[p] = true
			}
			h.say(keepalive)
		}
	}
	h, _ = establish(t, s, handOpen())
	follow(1024)
	s.Announce(routes[512:])
	follow(512)
	s.Announce(append(slices.Clone(routes[:100]), routes[600:]...))
	follow(524)
	for i := range 20 { // of many changes the last one counts
		s.Announce(routes[i*10:])
	}
	s.Announce(routes[:700])
	follow(700)
	_ = s.child().cmd.Process.Kill()
	s.Announce(routes[:300])
	h.endsWithoutAWord()
	s.Announce(routes[200:])
	clear(at)
	h, _ = establish(t, s, handOpen())
	s.Announce(routes[100:])
	follow(924)
	until(t, "status", func() bool { return s.Status()[0].Announced[steering.IPv4.String()] == 924 })
}

// The series are an interface.
func TestSeries(t *testing.T) {
	t.Parallel()
	s := byHand(t, PeerConfig{Address: "::1"}, withRoutes(hosts(2)))
	fresh := `razor_gateway_announced_routes{family="IPv4",peer="hand"} 0
razor_gateway_announced_routes{family="IPv6",peer="hand"} 0
razor_gateway_peer_held_off{peer="hand"} 0
razor_gateway_peer_prefixes{peer="hand"} 0
razor_gateway_peer_up{peer="hand"} 0
razor_gateway_unknown_calls_total 0
`
	if got := s.series(); got != fresh {
		t.Errorf("at first:\n%s", got)
	}
	dial(t, s, "127.0.0.9").endsWithoutAWord()
	h, _ := establish(t, s, handOpen())
	h.say(routesOf("", "192.0.2.1/32"))
	h.say(newMessage(typeUpdate, []byte{0, 0, 0, 4, flagTransitive, attrOrigin, 1, 9, 32, 192, 0, 2, 2})) // no such origin
	until(t, "all is told", func() bool {
		st := s.Status()[0]
		return st.Announced["IPv4"] == 2 && st.Received == 1
	})
	h.say(newMessage(typeRefresh, []byte{0, 1, 0, 1}))
	until(t, "all is counted", func() bool {
		return s.metric(`peer_messages_total{direction="in",peer="hand",type="route_refresh"}`) == 1
	})
	h.say((&notification{code: codeCease, subcode: ceaseReset}).encode())
	h.endsWithoutAWord()
	until(t, "the end is counted", func() bool { return s.fault(endedNotified) == 1 })
	var got strings.Builder
	for line := range strings.Lines(s.series()) {
		// How many are sent depends on the time that the test takes.
		if name, _, _ := strings.Cut(line, " "); strings.Contains(name, `direction="out"`) || strings.Contains(name, "keepalive") {
			line = name + " some\n"
		}
		got.WriteString(line)
	}
	want := `razor_gateway_announced_routes{family="IPv4",peer="hand"} 0
razor_gateway_announced_routes{family="IPv6",peer="hand"} 0
razor_gateway_peer_errors_total{peer="hand",reason="notification"} 1
razor_gateway_peer_held_off{peer="hand"} 0
razor_gateway_peer_malformed_updates_total{peer="hand"} 1
razor_gateway_peer_messages_total{direction="in",peer="hand",type="keepalive"} some
razor_gateway_peer_messages_total{direction="in",peer="hand",type="notification"} 1
razor_gateway_peer_messages_total{direction="in",peer="hand",type="open"} 1
razor_gateway_peer_messages_total{direction="in",peer="hand",type="route_refresh"} 1
razor_gateway_peer_messages_total{direction="in",peer="hand",type="update"} 2
razor_gateway_peer_messages_total{direction="out",peer="hand",type="keepalive"} some
razor_gateway_peer_messages_total{direction="out",peer="hand",type="open"} some
razor_gateway_peer_messages_total{direction="out",peer="hand",type="update"} some
razor_gateway_peer_prefixes{peer="hand"} 0
razor_gateway_peer_sessions_total{peer="hand"} 1
razor_gateway_peer_up{peer="hand"} 0
razor_gateway_unknown_calls_total 1
`
	if got.String() != want {
		t.Errorf("at the end:\n%s", got.String())
	}
}
