package bfd

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// late is how much after its time a timer tells that this process did not run.
	late = 5 * time.Millisecond
	// grace is what a receiver gets then to hand on what has come meanwhile: else a
	// busy host would take its peers for gone.
	grace = 10 * time.Millisecond
	// farewells are sent when a session ends: a packet can be lost.
	farewells = 3
)

// worker is a session in being: its timer and its socket.
type worker struct {
	speaker       *Speaker
	log           *slog.Logger
	peer          netip.Addr
	to            netip.Addr // peer without its zone
	discriminator uint32
	poked         chan struct{} // there is something to do before the timer
	removed       chan struct{} // closed by Remove

	mu       sync.Mutex // for microseconds: receivers wait for it
	session  *session
	local    netip.Addr
	ifIndex  int       // of the zone; 0 without one
	due      time.Time // what the timer is set to
	excused  time.Time // the peer's silence is, until then
	changes  []Change  // not told yet
	counters counters

	socket *socket // of run alone
	mute   bool    // the last packet could not be sent; of run alone
}

// counters are what a session has counted.
type counters struct {
	since       time.Time
	lastFailure Diagnostic
	failures    uint64
	transitions [len(stateWords)]uint64
	received    uint64
	sent        uint64
	sendErrors  uint64
}

func newWorker(s *Speaker, c Config, discriminator uint32) *worker {
	w := &worker{
		speaker: s, log: s.log.With("peer", c.Peer), peer: c.Peer, to: c.Peer.WithZone(""),
		discriminator: discriminator, local: c.Local.WithZone(""),
		poked: make(chan struct{}, 1), removed: make(chan struct{}),
	}
	now := time.Now()
	w.counters.since = now
	if r := c.Resume; r != nil && r.usable() && r.LocalDiscriminator == discriminator {
		w.session = resumeSession(now, r, c.Interval, uint8(c.Multiplier), rand.Float64)
		w.changed(now, Down)
	} else {
		w.session = newSession(now, discriminator, c.Interval, uint8(c.Multiplier), rand.Float64)
	}
	w.findInterface()
	return w
}

// findInterface looks up the zone of the peer, whose interface may be made anew.
func (w *worker) findInterface() {
	zone := w.peer.Zone()
	if zone == "" {
		return
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		w.mu.Lock()
		w.ifIndex = i.Index
		w.mu.Unlock()
	}
}

// run keeps the session until ctx ends or it is removed.
func (w *worker) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer func() {
		if w.socket != nil {
			w.socket.close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			w.leave(w.speaker.leaving.Load())
			return nil
		case <-w.removed:
			w.leave(false)
			return nil
		case <-timer.C:
		case <-w.poked:
		}
		packets, changes, next := w.step()
		for _, p := range packets {
			w.send(p)
		}
		for _, c := range changes {
			w.tell(c)
		}
		timer.Reset(time.Until(next))
	}
}

// step is what is due now, and when to look again.
func (w *worker) step() (packets []packet, changes []Change, next time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch was := w.session.state; {
	case w.excused.IsZero() && !w.due.IsZero() && now.Sub(w.due) > late:
		w.excused = now.Add(grace)
	case now.Before(w.excused):
	case w.session.expire(now):
		w.changed(now, was)
		fallthrough
	default:
		w.excused = time.Time{}
	}
	for {
		p, ok := w.session.transmit(now)
		if !ok {
			break
		}
		packets = append(packets, p)
	}
	changes, w.changes = w.changes, nil
	w.due = w.session.wake()
	if w.due.Before(w.excused) {
		w.due = w.excused
	}
	return packets, changes, w.due
}

// receive takes a packet for this session; false where it is not from the peer's
// interface.
func (w *worker) receive(p packet, from origin) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.peer.Zone() != "" && w.ifIndex != from.ifIndex {
		return false
	}
	w.counters.received++
	was := w.session.state
	changed := w.session.receive(from.at, p)
	if changed {
		w.changed(from.at, was)
	}
	if changed || w.session.wake().Before(w.due) {
		w.poke()
	}
	return true
}

// configure changes the settings.
func (w *worker) configure(c Config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.local = c.Local.WithZone("")
	w.session.configure(time.Now(), c.Interval, uint8(c.Multiplier))
	w.poke()
}

// change applies what changes the state.
func (w *worker) change(do func(*session, time.Time) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if was := w.session.state; do(w.session, now) {
		w.changed(now, was)
		w.poke()
	}
}

// changed notes a change of the state. w.mu is held.
func (w *worker) changed(now time.Time, was State) {
	s := w.session
	c := Change{Peer: w.peer, At: now, Was: was, State: s.state, Diagnostic: s.diag, Remote: s.peer.state}
	w.changes = append(w.changes, c)
	w.counters.since = now
	w.counters.transitions[s.state]++
	if c.Failed() {
		w.counters.failures++
		w.counters.lastFailure = s.diag
	}
}

func (w *worker) poke() {
	select {
	case w.poked <- struct{}{}:
	default:
	}
}

// tell logs a change and hands it on.
func (w *worker) tell(c Change) {
	level := slog.LevelInfo
	if c.Failed() {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "bfd session changed",
		"was", c.Was.String(), "state", c.State.String(), "diagnostic", c.Diagnostic.String(), "remote", c.Remote.String())
	if w.speaker.options.Changed != nil {
		w.speaker.options.Changed(c)
	}
}

// leave is the end of the session: the peer is told that it is by will, or that
// we are there, once more, when another process goes on.
func (w *worker) leave(handover bool) {
	w.mu.Lock()
	n := 1
	if !handover {
		w.session.disable(time.Now())
		n = farewells
	}
	p := w.session.packet()
	w.mu.Unlock()
	for i := range n {
		if i > 0 {
			time.Sleep(least)
		}
		w.send(p)
	}
}

// send hands a packet to the kernel. That it cannot is logged once.
func (w *worker) send(p packet) {
	err := w.write(p)
	w.mu.Lock()
	if err != nil {
		w.counters.sendErrors++
	} else {
		w.counters.sent++
	}
	w.mu.Unlock()
	if err != nil && !w.mute {
		w.log.Warn("bfd packets cannot be sent", "err", err)
	}
	if err == nil && w.mute {
		w.log.Info("bfd packets can be sent again")
	}
	w.mute = err != nil
}

func (w *worker) write(p packet) error {
	if p.state != Up {
		w.findInterface()
	}
	if w.socket == nil {
		s, err := openSender(w.to)
		if err != nil {
			return err
		}
		w.socket = s
	}
	w.mu.Lock()
	local, ifIndex := w.local, w.ifIndex
	w.mu.Unlock()
	return w.socket.write(p.octets(), w.to, local, ifIndex)
}
