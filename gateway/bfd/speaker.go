package bfd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/upstreams"
)

// Options are what all sessions share.
type Options struct {
	// Listen are the addresses to receive on: all when empty.
	Listen []netip.Addr
	// Changed is told every change of a session, in order. It is called between two
	// packets of that session, so it must not block. May be nil.
	Changed func(Change)
}

// Change is a change of a session's state.
type Change struct {
	Peer       netip.Addr
	At         time.Time // with a monotonic part
	Was, State State
	Diagnostic Diagnostic
	Remote     State // what the peer says of itself; Down where it is silent
}

// Failed is whether the path to the peer has failed, so that what is known by it
// is void. A peer that goes down by will has not failed, nor have we (RFC 5882
// §4.2).
func (c Change) Failed() bool {
	return c.Was == Up && c.State == Down && c.Remote != AdminDown
}

// Speaker is the BFD of this host: the sessions with all peers. For any
// goroutine.
type Speaker struct {
	options Options
	log     *slog.Logger
	dropped [drops]prometheus.Counter
	table   atomic.Pointer[table]
	leaving atomic.Bool // without a word, as another process goes on

	mu      sync.Mutex // never held while a packet waits
	workers map[netip.Addr]*worker
	spawn   func(*worker) // nil while Run is not running
}

// table finds the session of a packet. It is never changed, but replaced.
type table struct {
	discriminators map[uint32]*worker
	addrs          map[netip.Addr][]*worker // without a zone
}

// New is a speaker without sessions.
func New(o Options, log *slog.Logger, reg prometheus.Registerer) *Speaker {
	if len(o.Listen) == 0 {
		o.Listen = []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()}
	}
	s := &Speaker{options: o, log: log, workers: map[netip.Addr]*worker{}}
	s.table.Store(&table{})
	register(reg, s)
	return s
}

// Run is the speaker's work until ctx ends. Then peers are told that the sessions
// are down by will, unless Handover was called. A port in use is an
// upstreams.Defect.
func (s *Speaker) Run(ctx context.Context) error {
	receivers, err := s.listen()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range receivers {
		g.Go(func() error { return s.receive(ctx, r) })
	}
	s.begin(func(w *worker) { g.Go(func() error { return w.run(ctx) }) })
	g.Go(func() error {
		<-ctx.Done()
		s.begin(nil)
		return nil
	})
	return g.Wait()
}

// begin has the sessions run by spawn, those that are there and those to come.
func (s *Speaker) begin(spawn func(*worker)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spawn = spawn
	if spawn == nil {
		return
	}
	for _, w := range s.workers {
		spawn(w)
	}
}

func (s *Speaker) listen() ([]*socket, error) {
	var out []*socket
	for _, addr := range s.options.Listen {
		r, err := openReceiver(addr)
		if errors.Is(err, syscall.EAFNOSUPPORT) && addr.IsUnspecified() {
			continue // a host without IPv4 or IPv6
		}
		if err != nil {
			for _, r := range out {
				r.close()
			}
			return nil, upstreams.BindDefect("gateway.bfd", netip.AddrPortFrom(addr, port).String(), err)
		}
		out = append(out, r)
	}
	return out, nil
}

// Add begins a session. With a peer that has one it changes its settings, and the
// peer is asked for new intervals without an interruption; Resume is then of no
// meaning. What cannot be is an upstreams.Defect.
func (s *Speaker) Add(c Config) error {
	if d := c.Check(); len(d) > 0 {
		return d[0]
	}
	c.Peer, c.Local = c.Peer.Unmap(), c.Local.Unmap()
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.workers[c.Peer]; w != nil {
		w.configure(c)
		return nil
	}
	w := newWorker(s, c, s.discriminator(c.Resume))
	s.workers[c.Peer] = w
	s.index()
	if s.spawn != nil {
		s.spawn(w)
	}
	return nil
}

// Remove ends a session; the peer is told that it is down by will.
func (s *Speaker) Remove(peer netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.workers[peer.Unmap()]
	if w == nil {
		return
	}
	delete(s.workers, peer.Unmap())
	s.index()
	close(w.removed)
}

// AdminDown takes a session down by will, and keeps it there until AdminUp.
func (s *Speaker) AdminDown(peer netip.Addr) {
	s.with(peer, func(w *worker) { w.change((*session).disable) })
}

// AdminUp ends AdminDown.
func (s *Speaker) AdminUp(peer netip.Addr) {
	s.with(peer, func(w *worker) { w.change((*session).enable) })
}

func (s *Speaker) with(peer netip.Addr, do func(*worker)) {
	s.mu.Lock()
	w := s.workers[peer.Unmap()]
	s.mu.Unlock()
	if w != nil {
		do(w)
	}
}

// Sessions are all sessions as they are now, by peer.
func (s *Speaker) Sessions() []Status {
	var out []Status
	for _, w := range s.all() {
		out = append(out, w.status())
	}
	return out
}

// all are the sessions in the order of their peers.
func (s *Speaker) all() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*worker, 0, len(s.workers))
	for _, w := range s.workers {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b *worker) int { return a.peer.Compare(b.peer) })
	return out
}

// discriminator is a number that no session has, that of the session to be
// resumed where it can be. s.mu is held.
func (s *Speaker) discriminator(r *Resume) uint32 {
	taken := s.table.Load().discriminators
	if r != nil && r.usable() && taken[r.LocalDiscriminator] == nil {
		return r.LocalDiscriminator
	}
	for {
		if d := rand.Uint32(); d != 0 && taken[d] == nil {
			return d
		}
	}
}

// index makes the table anew. s.mu is held.
func (s *Speaker) index() {
	t := &table{map[uint32]*worker{}, map[netip.Addr][]*worker{}}
	for _, w := range s.workers {
		t.discriminators[w.discriminator] = w
		t.addrs[w.to] = append(t.addrs[w.to], w)
	}
	s.table.Store(t)
}

// receive hands on what comes to one socket until ctx ends.
func (s *Speaker) receive(ctx context.Context, r *socket) error {
	defer r.close()
	stop := context.AfterFunc(ctx, func() { _ = r.conn.SetReadDeadline(time.Now()) })
	defer stop()
	b := make([]byte, maxPayload)
	for {
		n, from, err := r.read(b)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.log.Debug("read error on a BFD socket", "err", err)
			time.Sleep(time.Millisecond) // one that stays must not take the core
			continue
		}
		if why := s.deliver(b[:n], from); why != dropNone {
			s.dropped[why].Inc()
		}
	}
}

// deliver gives a packet to its session. The discriminator names the session, and
// the packet has to come from its peer all the same: on one hop nobody else
// speaks for it.
func (s *Speaker) deliver(b []byte, from origin) drop {
	if from.hopLimit != hopLimit {
		return dropHopLimit
	}
	p, err := parse(b)
	if err != nil {
		return dropMalformed
	}
	t := s.table.Load()
	for _, w := range t.addrs[from.addr] {
		if p.your != 0 && t.discriminators[p.your] != w {
			continue
		}
		if w.receive(p, from) {
			return dropNone
		}
	}
	return dropNoSession
}
