package upstreams

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	pingEvery        = time.Second
	silenceLimit     = 3 * time.Second // a link that says nothing for so long is down
	rescanEvery      = 30 * time.Second
	rescanHeld       = 2 * time.Second        // while a hold is on
	rescanShare      = 20                     // and no more often than so many times its length
	rescanPolling    = 250 * time.Millisecond // of servers without tracking
	rescanPollingMax = 5 * time.Second
	retryFirst       = 50 * time.Millisecond
	retryLast        = 2 * time.Second
	saveAfter        = time.Second
)

// Options are a follower's settings beside the server's address.
type Options struct {
	Zones    []string      // zones of the configuration, presentation form
	StateDir string        // where the last good snapshot is kept; nowhere when empty
	Rescan   time.Duration // how often all keys are read although nothing was announced; 30 s when 0
	Health   HealthRules   // of edges; what is 0 has its default
}

// Follower keeps a snapshot in step with one Redis server. Readers take the
// snapshot from an atomic pointer; Redis is never in their way.
type Follower struct {
	cfg     Config
	opt     Options
	log     *slog.Logger
	metrics *metrics

	snapshot atomic.Pointer[Snapshot]
	first    <-chan struct{} // closed when there is a snapshot
	health   atomic.Pointer[Health]
	accepts  chan chan error

	// The rest belongs to the goroutine in Run.
	model   *model
	hold    *hold
	defects map[string][]Defect
	emptied map[string]bool // keys of pools that were said to be emptied
	replid  string
	unsaved bool
	newZone bool                          // an edit made a zone: what is below it has to be read
	changed func(id keyID, old, v *value) // told of every change before it is published, may be nil
}

// Health is the state of a follower. The lists are older than they seem in three
// ways, which AsOf and Stale put together: Redis does not answer, is a replica that
// does not hear its primary, or has lost what is held.
type Health struct {
	Link      Link
	Loaded    bool      // there is a snapshot with a zone in it
	Upstreams bool      // and one with an upstream list
	FromDisk  bool      // the snapshot is the one from disk, Redis was not read yet or not obeyed
	Refused   string    // the reply with which Redis does not let itself be read; "" where it is read or does not answer
	InSync    time.Time // when the snapshot was last known to be what Redis says, or was written to disk; zero if never
	Hold      string    // why a mass loss is not obeyed; "" when nothing is held
	Stale     bool      // AsOf is longer ago than redis.stale_after; false before the first snapshot
	Replica   Replica
}

// AsOf is when the lists were last known to be what the primary says; zero if
// never.
func (h Health) AsOf() time.Time {
	if r := h.Replica.Heard; !r.IsZero() && r.Before(h.InSync) {
		return r
	}
	return h.InSync
}

// Link is how changes reach the follower.
type Link string

// The states of a link.
const (
	LinkDown     Link = "down"     // Redis does not answer, or refuses
	LinkTracking Link = "tracking" // Redis names the keys that change
	LinkPolling  Link = "polling"  // the server cannot; all keys are read again and again
)

// NewFollower makes a follower and gives it the last good snapshot from disk, if
// there is one: Snapshot may be used before Run.
func NewFollower(cfg Config, opt Options, log *slog.Logger, reg prometheus.Registerer) (*Follower, error) {
	zones, err := wireNames(opt.Zones)
	if err != nil {
		return nil, err
	}
	if opt.Rescan == 0 {
		opt.Rescan = rescanEvery
	}
	cfg.Defaults()
	f := &Follower{
		cfg: cfg, opt: opt, log: log, model: newModel(zones),
		defects: map[string][]Defect{}, emptied: map[string]bool{}, accepts: make(chan chan error),
	}
	f.model.pulse = newPulse(opt.Health)
	f.first = f.model.snapshot.superseded
	f.health.Store(&Health{Link: LinkDown})
	f.metrics = newMetrics(reg, f)
	f.loadDisk()
	return f, nil
}

// Snapshot is the newest snapshot, nil before the first.
func (f *Follower) Snapshot() *Snapshot { return f.snapshot.Load() }

// Health is the present state.
func (f *Follower) Health() Health {
	h := *f.health.Load()
	h.Stale = !h.AsOf().IsZero() && time.Since(h.AsOf()) > f.cfg.StaleAfter
	return h
}

// Accept ends a hold: what Redis has now is right, also what is missing.
func (f *Follower) Accept(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case f.accepts <- reply:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *Follower) loadDisk() {
	if f.opt.StateDir == "" {
		return
	}
	values, err := load(f.opt.StateDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		f.log.Error("last good snapshot cannot be read, starting without", "err", err)
		// Whoever looks into it shall find it.
		file := filepath.Join(f.opt.StateDir, SnapshotFile)
		_ = os.Rename(file, file+".damaged")
		return
	}
	changes := make([]change, 0, len(values))
	for id, v := range values {
		changes = append(changes, change{id, v})
	}
	f.publish(changes)
	f.publish(f.model.strays())
	f.unsaved = false
	f.setHealth(func(h *Health) {
		h.FromDisk = true
		if info, err := os.Stat(filepath.Join(f.opt.StateDir, SnapshotFile)); err == nil {
			h.InSync = info.ModTime()
		}
	})
	s := f.Snapshot()
	f.log.Info("last good snapshot read from disk", "zones", s.ZoneCount(), "names", s.NameCount, "members", s.MemberCount)
}

// Run follows the server until ctx ends, and keeps the snapshot on disk.
func (f *Follower) Run(ctx context.Context) error {
	saver := newSaver(f.opt.StateDir, f.log, f.metrics)
	defer func() { saver.stop(f.unsaved, f.model.values) }()
	var wg sync.WaitGroup
	wg.Go(func() { f.sayStale(ctx) })
	defer wg.Wait()
	retry := retryFirst
	for down, refused := false, false; ctx.Err() == nil; {
		f.expire()
		s := &session{Follower: f, saver: saver}
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if s.reached {
			retry, down = retryFirst, false
		}
		if !down || refused != isReply(err) {
			switch {
			case isReply(err): // it does not know us, is loading, has lost its primary, or has other rights for us
				f.log.Warn("redis refuses to be read, serving the last good snapshot", "address", f.cfg.Address, "err", err)
			case s.reached:
				f.log.Warn("redis link lost, serving the last good snapshot", "address", f.cfg.Address, "err", err)
			default:
				f.log.Warn("redis does not answer", "address", f.cfg.Address, "err", err)
			}
		}
		down, refused = true, isReply(err)
		f.setHealth(func(h *Health) {
			h.Link = LinkDown
			if h.Refused = ""; refused {
				h.Refused = Printable(replyOf(err))
			} else {
				h.Replica = Replica{Heard: h.Replica.Heard}
			}
		})
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		case reply := <-f.accepts:
			reply <- errors.New("redis is away: nothing to accept now")
		}
		retry = min(2*retry, retryLast)
	}
	return nil
}

// setHealth changes a copy of the health and publishes it.
func (f *Follower) setHealth(change func(*Health)) {
	h := *f.health.Load()
	change(&h)
	h.Hold = ""
	if f.hold != nil {
		h.Hold = f.hold.cause + ": " + f.hold.loss.String()
	}
	if s := f.snapshot.Load(); s != nil {
		h.Loaded, h.Upstreams = s.ZoneCount() > 0, s.EndpointCount > 0
	}
	f.health.Store(&h)
}

// publish makes and swaps the snapshot.
func (f *Follower) publish(changes []change) {
	changes = f.model.beats(changes)
	if len(changes) == 0 && f.snapshot.Load() != nil && len(f.model.outdated()) == 0 && len(f.model.pulse.turned) == 0 {
		return
	}
	before := f.model.snapshot
	if f.changed != nil {
		for _, c := range changes {
			f.changed(c.id, f.model.values[c.id], c.value)
		}
	}
	s := f.model.apply(changes)
	for name := range s.zones {
		f.newZone = f.newZone || before.zones[name] == nil
	}
	f.snapshot.Store(s)
	close(before.superseded)
	// That there is nothing from the start is not worth keeping.
	f.unsaved = f.unsaved || !s.Empty() || !before.Empty()
	f.sayEmptied(s)
	f.sayHealth(before, s)
}

// sayStale logs that the lists have become stale, and that they no longer are,
// until ctx ends. It is on its own, as a Redis that hangs keeps the rest waiting.
func (f *Follower) sayStale(ctx context.Context) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for said := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h := f.Health()
		switch {
		case h.Stale && !said:
			f.log.Error("lists are stale, serving them all the same", "age", time.Since(h.AsOf()).Round(time.Second).String(), "link", string(h.Link))
		case !h.Stale && said:
			f.log.Info("lists are no longer stale")
		}
		said = h.Stale
	}
}

// sayEmptied logs the pools of which skip lists leave nothing, each once.
func (f *Follower) sayEmptied(s *Snapshot) {
	for key := range f.emptied {
		if id, _ := parseKey(key); !s.leavesNothing(id) {
			delete(f.emptied, key)
		}
	}
	for _, key := range f.model.emptied {
		if !f.emptied[key] {
			f.emptied[key] = true
			f.log.Warn("skip list and blackhole leave nothing of a pool, answering no data", "key", Printable(key))
		}
	}
	for _, route := range f.model.drained {
		f.log.Warn("every edge of a route is drained, answering no data", "route", Printable(route))
	}
}

// sayHealth logs the edges whose health is another, and the routes that it leaves too
// little of.
func (f *Follower) sayHealth(before, s *Snapshot) {
	for edge, t := range f.model.turned {
		is, level := f.model.pulse.of(edge), slog.LevelInfo
		switch {
		case is == EdgeDown:
			level = slog.LevelWarn
		case t.was == EdgeUnknown:
			level = slog.LevelDebug // the first word, as of all at the start
		}
		f.log.Log(context.Background(), level, "health of an edge", "edge", Printable(NameText(edge)), "is", string(is), "was", string(t.was), "reason", Printable(t.reason))
	}
	for _, route := range s.BelowFloor {
		if !slices.Contains(before.BelowFloor, route) {
			f.log.Error("less of a route is healthy than FLOOR, ON_EMPTY says what is answered", "route", Printable(route))
		}
	}
	for _, route := range before.BelowFloor {
		if !slices.Contains(s.BelowFloor, route) {
			f.log.Info("enough of a route is healthy again", "route", Printable(route))
		}
	}
}
