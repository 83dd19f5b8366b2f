package bfd

import (
	"fmt"
	"testing"
	"time"
)

var start = time.Unix(1e9, 0)

const (
	fast     = 50 * time.Millisecond
	ourDiscr = 9
)

// steady takes the jitter out: packets come at the longest interval.
func steady() float64 { return 1 }

func downSession() *session {
	s := newSession(start, ourDiscr, fast, 3, steady)
	s.transmit(start)
	return s
}

// upSession is up since a moment ago, with a peer that wants the same. Its last
// packet is 20 ms old at the start.
func upSession(tb testing.TB) *session {
	tb.Helper()
	before := start.Add(-30 * time.Millisecond)
	s := newSession(before, ourDiscr, fast, 3, steady)
	drain(s, before)
	s.receive(before, packet{state: Init, multiplier: 3, my: 7, your: ourDiscr, minTx: slow, minRx: fast})
	drain(s, before.Add(least))
	s.receive(start, packet{state: Up, final: true, multiplier: 3, my: 7, your: ourDiscr, minTx: fast, minRx: fast})
	s.receive(start, wellFormed)
	if len(drain(s, start)) > 0 || s.state != Up || s.polling || s.detection() != 3*fast {
		tb.Fatalf("not up: %+v", s)
	}
	return s
}

// drain is what a session sends at a moment.
func drain(s *session, now time.Time) []packet {
	var out []packet
	for {
		p, ok := s.transmit(now)
		if !ok {
			return out
		}
		out = append(out, p)
	}
}

// TestStateMachine is the table of RFC 5880 §6.2 and §6.8.6: every state meets
// every state of the peer.
func TestStateMachine(t *testing.T) {
	t.Parallel()
	states := []State{AdminDown, Down, Init, Up}
	next := map[State][4]State{
		//          the peer: AdminDown  Down       Init       Up
		AdminDown: {AdminDown, AdminDown, AdminDown, AdminDown},
		Down:      {Down, Init, Up, Down},
		Init:      {Down, Init, Up, Up},
		Up:        {Down, Down, Up, Up},
	}
	for _, state := range states {
		for _, remote := range states {
			t.Run(fmt.Sprintf("%v meets %v", state, remote), func(t *testing.T) {
				t.Parallel()
				s := downSession()
				s.state = state
				changed := s.receive(start.Add(time.Second), packet{state: remote, multiplier: 3, my: 7, your: ourDiscr, minTx: slow, minRx: fast})
				want := next[state][remote]
				if s.state != want || changed != (want != state) {
					t.Errorf("%v (changed %v), want %v", s.state, changed, want)
				}
				if fell := want == Down && state != Down; fell != (s.diag == DiagSignaled) {
					t.Errorf("diagnostic %v", s.diag)
				}
				if changed && len(drain(s, start.Add(time.Second))) == 0 {
					t.Error("the change is not told at once")
				}
			})
		}
	}
}

func TestFirstPacket(t *testing.T) {
	t.Parallel()
	s := newSession(start, ourDiscr, fast, 3, steady)
	got := drain(s, start)
	want := packet{state: Down, multiplier: 3, my: ourDiscr, minTx: slow, minRx: fast}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if s.wake() != start.Add(slow) {
		t.Errorf("the next one after %v", s.wake().Sub(start))
	}
}

// TestUp: what we say on the way up, and that the fast rate begins with Up.
func TestUp(t *testing.T) {
	t.Parallel()
	s := downSession()
	now := start.Add(100 * time.Millisecond)
	s.receive(now, packet{state: Down, multiplier: 3, my: 7, minTx: slow, minRx: fast})
	if got := drain(s, now); len(got) != 1 || got[0].state != Init || got[0].your != 7 || got[0].minTx != slow {
		t.Fatalf("told on init: %+v", got)
	}
	now = now.Add(least)
	s.receive(now, packet{state: Init, multiplier: 3, my: 7, your: ourDiscr, minTx: slow, minRx: fast})
	if got := drain(s, now); len(got) != 1 || got[0].state != Up || !got[0].poll || got[0].minTx != fast {
		t.Fatalf("told on up: %+v", got)
	}
	if s.wake() != now.Add(fast) {
		t.Errorf("the next packet after %v", s.wake().Sub(now))
	}
	if s.detection() != 3*slow {
		t.Errorf("a peer on its slow rate has %v", s.detection())
	}
}

// TestChangesAreNotEchoed: a change is told at once, but not the next one in the
// same breath, or late packets could keep two sessions chasing each other.
func TestChangesAreNotEchoed(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	p := wellFormed
	for i, state := range []State{Down, Init, Down, Init, Down} {
		p.state = state
		s.receive(start, p)
		if got := drain(s, start); len(got) > 0 != (i == 0) {
			t.Fatalf("change %d: sent %+v", i, got)
		}
	}
	if s.wake() != start.Add(least) {
		t.Errorf("the last one is told after %v", s.wake().Sub(start))
	}
	if got := drain(s, start.Add(least)); len(got) != 1 || got[0].state != Down {
		t.Errorf("sent %+v", got)
	}
}

// TestTwoPacketsAtOnce: what is due stays due, whatever the next packet says.
func TestTwoPacketsAtOnce(t *testing.T) {
	t.Parallel()
	s := downSession()
	p := packet{state: Init, multiplier: 3, my: 7, your: ourDiscr, minTx: slow, minRx: slow}
	s.receive(start, p)
	p.state, p.minRx = Up, fast
	s.receive(start, p)
	if got := drain(s, start.Add(least)); len(got) != 1 || got[0].state != Up {
		t.Errorf("sent %+v", got)
	}
}

// TestPeerStaysSlow: a peer that waits for the answer to its poll before it sends
// faster is not taken for gone, though that answer is lost.
func TestPeerStaysSlow(t *testing.T) {
	t.Parallel()
	s := downSession()
	said := packet{state: Init, multiplier: 3, my: 7, your: ourDiscr, minTx: slow, minRx: slow}
	s.receive(start, said)
	drain(s, start)
	now := start.Add(10 * time.Millisecond)
	said.state, said.minTx, said.minRx = Up, fast, fast
	asks, answers := said, said
	asks.poll, answers.final = true, true
	s.receive(now, asks)
	s.receive(now, answers)
	if got := drain(s, now); len(got) != 2 || !got[0].final || got[0].poll {
		t.Fatalf("sent %+v, want an answer to the poll", got)
	}
	if s.detection() != 3*slow {
		t.Fatalf("detection after its poll: %v", s.detection())
	}
	now = now.Add(900 * time.Millisecond)
	if s.expire(now) {
		t.Fatal("down within its old interval")
	}
	s.receive(now, asks)
	s.receive(now, said)
	if s.detection() != 3*fast {
		t.Fatalf("detection after the poll: %v", s.detection())
	}
}

func TestDetectionTime(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		multiplier     uint8
		minTx, want    time.Duration
		ours           time.Duration
		ourMultipliers uint8
	}{
		{"the slower of both decides: the peer", 3, 200 * time.Millisecond, 600 * time.Millisecond, fast, 9},
		{"the slower of both decides: we", 3, 10 * time.Millisecond, 150 * time.Millisecond, fast, 9},
		{"the multiplier is the peer's", 5, fast, 250 * time.Millisecond, fast, 2},
		{"one", 1, fast, fast, fast, 3},
		{"the longest there is does not overflow", 255, (1<<32 - 1) * time.Microsecond, 255 * (1<<32 - 1) * time.Microsecond, fast, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSession(start, ourDiscr, tt.ours, tt.ourMultipliers, steady)
			p := packet{state: Init, multiplier: tt.multiplier, my: 7, your: ourDiscr, minTx: tt.minTx, minRx: fast}
			s.receive(start, p)
			if got := s.detection(); got != tt.want {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
			if s.expire(start.Add(tt.want - 1)); s.state != Up {
				t.Error("down too early")
			}
			if !s.expire(start.Add(tt.want)) || s.state != Down || s.diag != DiagExpired {
				t.Errorf("%v, %v", s.state, s.diag)
			}
		})
	}
}

// TestSilence: after the detection time the peer is a stranger again (RFC 5880
// §6.8.1), and we are slow.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	now := start.Add(3 * fast)
	if !s.expire(now) {
		t.Fatal("still up")
	}
	got := drain(s, now)
	want := packet{state: Down, diag: DiagExpired, multiplier: 3, my: ourDiscr, minTx: slow, minRx: fast}
	if len(got) != 1 || got[0] != want {
		t.Errorf("told %+v, want %+v", got, want)
	}
	if s.wake() != now.Add(slow) {
		t.Errorf("the next packet after %v", s.wake().Sub(now))
	}
	if s.expire(now.Add(time.Hour)) {
		t.Error("down twice")
	}
}

func TestInitExpires(t *testing.T) {
	t.Parallel()
	s := downSession()
	s.receive(start, packet{state: Down, multiplier: 3, my: 7, minTx: slow, minRx: fast})
	if s.state != Init || !s.expire(start.Add(3*slow)) || s.state != Down {
		t.Errorf("%v", s.state)
	}
}

// TestPollAnswered: every P is answered at once by one F, besides the periodic
// packets.
func TestPollAnswered(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	next := s.next
	asks := wellFormed
	asks.poll = true
	now := start.Add(10 * time.Millisecond)
	s.receive(now, asks)
	got := drain(s, now)
	if len(got) != 1 || !got[0].final || got[0].poll {
		t.Fatalf("sent %+v", got)
	}
	if s.next != next {
		t.Error("the periodic packet is put off")
	}
}

// TestPeerAsksForMore: with its poll a peer lowers what it takes, and gets it at
// once, not after what is left of the long interval.
func TestPeerAsksForMore(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	p := wellFormed
	p.minRx = 10 * time.Second
	now := start.Add(fast)
	drain(s, now)
	s.receive(now, p)
	if s.wake() != s.deadline() || s.next != now.Add(10*time.Second) {
		t.Fatalf("slowed down to %v", s.next.Sub(now))
	}
	p.minRx, p.poll = 100*time.Millisecond, true
	s.receive(now.Add(20*time.Millisecond), p)
	if want := now.Add(100 * time.Millisecond); s.next != want {
		t.Errorf("next after %v", s.next.Sub(now))
	}
}

// TestSilenced: a peer that takes no packets gets none but answers.
func TestSilenced(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	p := wellFormed
	p.minRx, p.poll = 0, true
	now := start.Add(time.Millisecond)
	s.receive(now, p)
	if got := drain(s, now.Add(time.Hour)); len(got) != 1 || !got[0].final {
		t.Errorf("sent %+v", got)
	}
	if s.wake() != s.deadline() {
		t.Errorf("wakes at %v", s.wake())
	}
	p.minRx, p.poll = fast, false
	s.receive(now, p)
	if got := drain(s, now.Add(fast)); len(got) != 1 {
		t.Errorf("sent %+v, want to go on", got)
	}
}

// TestDemand: a peer in demand mode gets no periodic packets while both are up,
// but for our own polls (RFC 5880 §6.6).
func TestDemand(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	p := wellFormed
	p.demand = true
	s.receive(start, p)
	if got := drain(s, start.Add(time.Hour)); len(got) != 0 {
		t.Errorf("sent %+v", got)
	}
	s.configure(start, 2*fast, 3)
	if got := drain(s, start); len(got) != 1 || !got[0].poll {
		t.Errorf("sent %+v, want a poll", got)
	}
	p.final = true
	s.receive(start, p)
	if got := drain(s, start.Add(time.Hour)); len(got) != 0 {
		t.Errorf("sent %+v", got)
	}
}

// TestSlower: a longer interval is told at once and used once the peer has
// answered; what we take is loosened at once.
func TestSlower(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	now := start.Add(time.Millisecond)
	s.configure(now, slow, 3)
	got := drain(s, now)
	if len(got) != 1 || !got[0].poll || got[0].minTx != slow || got[0].minRx != slow {
		t.Fatalf("sent %+v", got)
	}
	if s.next != now.Add(fast) {
		t.Errorf("slower before the answer: %v", s.next.Sub(now))
	}
	if s.detection() != 3*slow {
		t.Errorf("detection %v", s.detection())
	}
	now = now.Add(fast)
	if got := drain(s, now); len(got) != 1 || !got[0].poll {
		t.Fatalf("sent %+v, want to ask again", got)
	}
	answer := wellFormed
	answer.final = true
	s.receive(now, answer)
	if s.polling || s.next != now.Add(slow) {
		t.Errorf("after the answer: %v", s.next.Sub(now))
	}
}

// TestFaster: a shorter interval is used at once; our detection time shrinks only
// when the peer has answered.
func TestFaster(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	s.configure(start, 10*time.Millisecond, 3)
	drain(s, start)
	if s.next != start.Add(fast) { // what the peer takes at the moment
		t.Errorf("next after %v", s.next.Sub(start))
	}
	p := wellFormed
	p.minTx, p.minRx = 10*time.Millisecond, 10*time.Millisecond
	s.receive(start, p)
	if s.next != start.Add(10*time.Millisecond) || s.detection() != 3*fast {
		t.Errorf("next after %v, detection %v", s.next.Sub(start), s.detection())
	}
	p.final = true
	s.receive(start, p)
	if s.detection() != 30*time.Millisecond {
		t.Errorf("detection %v after the answer", s.detection())
	}
}

// TestChangeDuringPoll: the answer to an older poll does not confirm a newer change.
func TestChangeDuringPoll(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	s.configure(start, 2*fast, 3)
	s.configure(start, 4*fast, 3)
	answer := wellFormed
	answer.final = true
	s.receive(start, answer)
	if !s.polling || s.tx.inForce != fast {
		t.Fatalf("polling %v, %v in force", s.polling, s.tx.inForce)
	}
	s.receive(start, answer)
	if s.polling || s.tx.inForce != 4*fast {
		t.Errorf("polling %v, %v in force", s.polling, s.tx.inForce)
	}
}

func TestAdminDown(t *testing.T) {
	t.Parallel()
	s := upSession(t)
	if !s.disable(start) || s.disable(start) {
		t.Fatal("not taken down once")
	}
	if got := drain(s, start); len(got) != 1 || got[0].state != AdminDown || got[0].diag != DiagAdmin || got[0].minTx != slow {
		t.Errorf("told %+v", got)
	}
	if s.receive(start, wellFormed); s.state != AdminDown {
		t.Error("up by a packet")
	}
	if s.expire(start.Add(time.Hour)); s.state != AdminDown {
		t.Error("down by silence")
	}
	if !s.enable(start) || s.enable(start) || s.state != Down {
		t.Errorf("%v after it was enabled", s.state)
	}
}

// TestJitter: RFC 5880 §6.8.7, at both ends of the draw.
func TestJitter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		multiplier uint8
		draw       float64
		want       time.Duration
	}{{3, 0, 75}, {3, 1, 100}, {1, 0, 75}, {1, 1, 90}} {
		s := newSession(start, ourDiscr, fast, tt.multiplier, func() float64 { return tt.draw })
		if got := s.jittered(100); got != tt.want {
			t.Errorf("multiplier %d, draw %v: %d, want %d", tt.multiplier, tt.draw, got, tt.want)
		}
	}
}

// TestResume: the next process goes on where the last one was, and brings the
// peer back to the wanted rate.
func TestResume(t *testing.T) {
	t.Parallel()
	old := upSession(t)
	if _, ok := downSession().resume(); ok {
		t.Error("a session that is down can be resumed")
	}
	old.configure(start, time.Second, 3)
	answer := wellFormed
	answer.final = true
	old.receive(start, answer)
	r, ok := old.resume()
	if !ok || !r.usable() {
		t.Fatalf("%+v", r)
	}
	now := start.Add(2 * time.Second)
	s := resumeSession(now, &r, fast, 3, steady)
	want := packet{state: Up, poll: true, multiplier: 3, my: ourDiscr, your: 7, minTx: fast, minRx: fast}
	if got := drain(s, now); len(got) != 1 || got[0] != want {
		t.Errorf("sent %+v, want %+v", got, want)
	}
	if s.next != now.Add(fast) {
		t.Errorf("next after %v", s.next.Sub(now))
	}
	if s.detection() != 3*time.Second { // the peer may send at the rate of old until it answers
		t.Errorf("detection %v", s.detection())
	}
	s.receive(now, answer)
	if s.detection() != 3*fast {
		t.Errorf("detection %v after the answer", s.detection())
	}
	if s.expire(now.Add(3 * fast)); s.state != Down {
		t.Error("a peer that is gone meanwhile is not found out")
	}
}

func TestResumeUsable(t *testing.T) {
	t.Parallel()
	good, _ := upSession(t).resume()
	for name, spoil := range map[string]func(r *Resume){
		"no discriminator of ours":  func(r *Resume) { r.LocalDiscriminator = 0 },
		"none of the peer":          func(r *Resume) { r.RemoteDiscriminator = 0 },
		"multiplier 0":              func(r *Resume) { r.PeerMultiplier = 0 },
		"nothing told":              func(r *Resume) { r.Transmit = 0 },
		"a negative interval":       func(r *Resume) { r.PeerReceive = -1 },
		"another negative interval": func(r *Resume) { r.Receive = -1 },
	} {
		r := good
		if spoil(&r); r.usable() {
			t.Errorf("%s: usable", name)
		}
	}
}
