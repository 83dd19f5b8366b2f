package bfd

import (
	"context"
	"net/netip"
	"time"
)

// Resume is a session that is Up, as the next process needs it to go on with: it
// keeps its discriminators, so that the peer notices nothing. It can be written
// as JSON.
type Resume struct {
	Peer                netip.Addr    `json:"peer"`
	LocalDiscriminator  uint32        `json:"local_discriminator"`
	RemoteDiscriminator uint32        `json:"remote_discriminator"`
	Transmit            time.Duration `json:"transmit"` // told to the peer, in nanoseconds
	Receive             time.Duration `json:"receive"`
	PeerTransmit        time.Duration `json:"peer_transmit"` // told by the peer
	PeerReceive         time.Duration `json:"peer_receive"`
	PeerMultiplier      uint8         `json:"peer_multiplier"`
}

// usable is whether there is a session in r at all.
func (r *Resume) usable() bool {
	return r.LocalDiscriminator != 0 && r.RemoteDiscriminator != 0 && r.PeerMultiplier != 0 && r.Transmit > 0 && r.Receive > 0 &&
		r.PeerTransmit >= 0 && r.PeerReceive >= 0
}

// resume is what the next process needs; false where there is nothing to go on with.
func (s *session) resume() (Resume, bool) {
	if s.state != Up {
		return Resume{}, false
	}
	return Resume{
		LocalDiscriminator: s.my, RemoteDiscriminator: s.peer.my,
		Transmit: s.tx.told, Receive: s.rx.told,
		PeerTransmit: s.peer.every, PeerReceive: s.peer.minRx, PeerMultiplier: s.peer.multiplier,
	}, true
}

// resumeSession goes on with a session of another process, from the intervals
// that the peer was told last to those wanted now.
func resumeSession(now time.Time, r *Resume, interval time.Duration, multiplier uint8, random func() float64) *session {
	s := &session{
		interval: interval, multiplier: multiplier, random: random,
		state: Up, my: r.LocalDiscriminator, heard: now,
		peer: peer{
			state: Up, my: r.RemoteDiscriminator, minTx: r.PeerTransmit, minRx: r.PeerReceive,
			multiplier: r.PeerMultiplier, every: r.PeerTransmit,
		},
		tx: agreed{r.Transmit, r.Transmit},
		rx: agreed{r.Receive, r.Receive},
	}
	s.negotiate(now)
	return s
}

// Handover ends this process's part in all sessions that are Up, and returns what
// the next one needs to go on with them, by Config.Resume. Peers are first asked to
// bear silence for gap, within which the next process has to speak; when ctx ends
// before a peer has agreed, its detection time is as it was. Then Run, which the
// caller ends, tells them nothing.
func (s *Speaker) Handover(ctx context.Context, gap time.Duration) []Resume {
	workers := s.all()
	for _, w := range workers {
		w.slowDown(gap)
	}
	for _, w := range workers {
		w.settle(ctx)
	}
	s.leaving.Store(true)
	var out []Resume
	for _, w := range workers {
		if r, ok := w.resume(); ok {
			out = append(out, r)
		}
	}
	return out
}

// slowDown asks the peer to bear silence for gap.
func (w *worker) slowDown(gap time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.session
	s.configure(time.Now(), max(s.interval, slowed(gap, s.multiplier)), s.multiplier)
	w.poke()
}

// slowed is the interval at which a peer bears silence for gap after a packet.
func slowed(gap time.Duration, multiplier uint8) time.Duration {
	d := (gap / time.Duration(multiplier)).Truncate(time.Microsecond) + time.Microsecond
	return min(d, MostInterval)
}

// settle waits until the peer has answered.
func (w *worker) settle(ctx context.Context) {
	tick := time.NewTicker(least / 2)
	defer tick.Stop()
	for w.asking() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *worker) asking() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.session.polling && w.session.state == Up
}

func (w *worker) resume() (Resume, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.session.resume()
	r.Peer = w.peer
	return r, ok
}
