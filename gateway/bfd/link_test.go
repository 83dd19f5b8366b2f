package bfd

import (
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// link is two sessions and the wire between them, in a time of its own: packets
// are lost, late, doubled and overtaken.
type link struct {
	now     time.Time
	side    [2]*session
	loss    float64
	delay   time.Duration // at most
	rand    *rand.Rand
	flying  []flight
	changes [2][]State
	sent    [2][]time.Time // periodic packets
	gone    [2]bool        // its process is not there
}

type flight struct {
	to int
	at time.Time
	b  []byte
}

func newLink(seed uint64, a, b func(now time.Time, random func() float64) *session) *link {
	l := &link{now: start, rand: rand.New(rand.NewPCG(seed, 1))}
	l.side = [2]*session{a(start, l.rand.Float64), b(start, l.rand.Float64)}
	return l
}

func side(my uint32, interval time.Duration, multiplier uint8) func(now time.Time, random func() float64) *session {
	return func(now time.Time, random func() float64) *session {
		return newSession(now, my, interval, multiplier, random)
	}
}

// run lets d pass.
func (l *link) run(d time.Duration) {
	end := l.now.Add(d)
	for {
		l.send(0)
		l.send(1)
		at := end
		for i := range l.side {
			if w := l.side[i].wake(); !l.gone[i] && !w.IsZero() && w.Before(at) {
				at = w
			}
		}
		for _, f := range l.flying {
			if f.at.Before(at) {
				at = f.at
			}
		}
		if !at.Before(end) {
			l.now = end
			return
		}
		if at.After(l.now) {
			l.now = at
		}
		l.deliver()
		for i, s := range l.side {
			l.note(i, !l.gone[i] && s.expire(l.now))
		}
	}
}

func (l *link) send(from int) {
	s := l.side[from]
	if l.gone[from] {
		return
	}
	for {
		p, ok := s.transmit(l.now)
		if !ok {
			return
		}
		if !p.final {
			l.sent[from] = append(l.sent[from], l.now)
		}
		for l.rand.Float64() >= l.loss {
			late := time.Duration(l.rand.Float64() * float64(l.delay))
			l.flying = append(l.flying, flight{1 - from, l.now.Add(late), p.octets()})
			if l.loss == 0 || l.rand.IntN(10) > 0 {
				break
			}
		}
	}
}

func (l *link) deliver() {
	var rest []flight
	for _, f := range l.flying {
		if f.at.After(l.now) {
			rest = append(rest, f)
			continue
		}
		p, err := parse(f.b)
		s := l.side[f.to]
		if err != nil || l.gone[f.to] || p.your != 0 && p.your != s.my {
			continue
		}
		l.note(f.to, s.receive(l.now, p))
	}
	l.flying = rest
}

func (l *link) note(i int, changed bool) {
	if changed {
		l.changes[i] = append(l.changes[i], l.side[i].state)
	}
}

func (l *link) up() bool { return l.side[0].state == Up && l.side[1].state == Up }

// drawSide draws what an operator could configure.
func drawSide(t *rapid.T, my uint32) (func(now time.Time, random func() float64) *session, time.Duration) {
	interval := time.Duration(rapid.IntRange(10, 2000).Draw(t, "interval")) * time.Millisecond
	multiplier := rapid.Uint8Range(2, 10).Draw(t, "multiplier")
	return side(my, interval, multiplier), interval
}

// TestLink: whatever was lost, two machines come up once the link is good, stay
// up, say that to each other at the rate that both take, and know within the
// detection time when it is cut.
func TestLink(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, intervalA := drawSide(t, 7)
		b, intervalB := drawSide(t, 9)
		l := newLink(rapid.Uint64().Draw(t, "seed"), a, b)
		l.delay = time.Duration(rapid.IntRange(0, 3).Draw(t, "delay")) * time.Millisecond
		l.loss = rapid.Float64Range(0, 0.9).Draw(t, "loss")
		l.run(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second)

		// A stale half of the old session may have to expire first.
		l.loss = 0
		l.run(30 * time.Second)
		if !l.up() {
			t.Fatalf("%v and %v on a good link", l.side[0].state, l.side[1].state)
		}
		l.changes, l.sent = [2][]State{}, [2][]time.Time{}
		l.run(20 * time.Second)
		if len(l.changes[0])+len(l.changes[1]) > 0 {
			t.Fatalf("changes on a good link: %v", l.changes)
		}
		every := max(intervalA, intervalB)
		for i := range l.sent {
			for j := 1; j < len(l.sent[i]); j++ {
				if gap := l.sent[i][j].Sub(l.sent[i][j-1]); gap < every*3/4-1 || gap > every {
					t.Fatalf("side %d: %v between packets, %v agreed", i, gap, every)
				}
			}
		}
		l.loss = 1
		l.flying = nil
		cut := l.now
		for i := range l.side {
			if left := l.side[i].deadline().Sub(cut); left > l.side[i].detection() || l.side[i].detection() != time.Duration(l.side[1-i].multiplier)*every {
				t.Fatalf("side %d waits for %v, detection time %v", i, left, l.side[i].detection())
			}
		}
		l.run(max(l.side[0].detection(), l.side[1].detection()) + 1)
		for i := range l.side {
			if s := l.side[i]; s.state != Down || len(l.changes[i]) != 1 {
				t.Fatalf("side %d is %v after the detection time: %v", i, s.state, l.changes[i])
			}
		}
	})
}

// TestLinkChanges: no change of intervals takes a session down, up to a third of
// the packets may be lost, and the wanted rate is reached.
func TestLinkChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLink(rapid.Uint64().Draw(t, "seed"), side(7, fast, 20), side(9, fast, 20))
		l.loss = rapid.Float64Range(0, 0.3).Draw(t, "loss")
		l.delay = time.Millisecond
		l.run(30 * time.Second)
		if !l.up() {
			t.Fatalf("%v and %v", l.side[0].state, l.side[1].state)
		}
		l.changes = [2][]State{}
		var wanted [2]time.Duration
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			i := rapid.IntRange(0, 1).Draw(t, "side")
			wanted[i] = time.Duration(rapid.IntRange(10, 2000).Draw(t, "interval")) * time.Millisecond
			l.side[i].configure(l.now, wanted[i], 20)
			l.run(time.Duration(rapid.IntRange(0, 5000).Draw(t, "wait")) * time.Millisecond)
		}
		l.loss = 0
		l.run(20 * time.Second)
		if len(l.changes[0])+len(l.changes[1]) > 0 {
			t.Fatalf("changes: %v", l.changes)
		}
		for i, s := range l.side {
			if s.polling || wanted[i] != 0 && s.tx.inForce != wanted[i] {
				t.Fatalf("side %d: polling %v, %v in force, %v wanted", i, s.polling, s.tx.inForce, wanted[i])
			}
		}
	})
}

// TestLinkHandover: the peer does not notice that a session goes on in another
// process, when it was told of the gap.
func TestLinkHandover(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLink(rapid.Uint64().Draw(t, "seed"), side(7, fast, 3), side(9, fast, 3))
		l.delay = time.Millisecond
		l.run(10 * time.Second)
		gap := time.Duration(rapid.IntRange(0, 9990).Draw(t, "gap")) * time.Millisecond
		l.side[0].configure(l.now, slowed(10*time.Second, 3), 3)
		l.run(time.Second)
		r, ok := l.side[0].resume()
		if !ok || l.side[0].polling {
			t.Fatalf("nothing to go on with: %+v", l.side[0])
		}
		l.changes = [2][]State{}
		// The last word of the old process.
		last := l.side[0].packet()
		l.flying = append(l.flying, flight{1, l.now, last.octets()})
		l.gone[0] = true
		l.run(gap)
		l.gone[0] = false
		l.side[0] = resumeSession(l.now, &r, fast, 3, l.rand.Float64)
		l.run(10 * time.Second)
		if len(l.changes[0])+len(l.changes[1]) > 0 || !l.up() {
			t.Fatalf("changes: %v", l.changes)
		}
		for i, s := range l.side {
			if s.detection() != 3*fast {
				t.Fatalf("side %d: detection %v", i, s.detection())
			}
		}
	})
}
