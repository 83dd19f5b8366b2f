package upstreams

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	pingEvery     = time.Second
	silenceLimit  = 3 * time.Second // a link that says nothing for so long is down
	rescanEvery   = 30 * time.Second
	rescanPolling = 250 * time.Millisecond // of servers without tracking
	retryFirst    = 50 * time.Millisecond
	retryLast     = 2 * time.Second
	saveAfter     = time.Second
)

// Options are a follower's settings beside the server's address.
type Options struct {
	Zones    []string      // zones of the configuration, presentation form
	StateDir string        // where the last good snapshot is kept; nowhere when empty
	Rescan   time.Duration // how often all keys are read although nothing was announced; 30 s when 0
}

// Follower keeps a snapshot in step with one Redis server. Readers take the
// snapshot from an atomic pointer; Redis is never in their way.
type Follower struct {
	cfg     Config
	opt     Options
	log     *slog.Logger
	metrics *metrics

	snapshot atomic.Pointer[Snapshot]
	health   atomic.Pointer[Health]
	accepts  chan chan error

	// The rest belongs to the goroutine in Run.
	model   *model
	hold    *hold
	defects map[string][]Defect
	replid  string
	unsaved bool
	newZone bool // an edit made a zone: what is below it has to be read
}

// Health is the state of a follower.
type Health struct {
	Link     Link
	Loaded   bool      // there is a snapshot with a zone in it
	FromDisk bool      // the snapshot is the one from disk, Redis was not read yet
	InSync   time.Time // when the snapshot was last known to be what Redis says; zero if never
	Hold     string    // why a mass loss is not obeyed; "" when nothing is held
	Replica  Replica
}

// Link is how changes reach the follower.
type Link string

// The states of a link.
const (
	LinkDown     Link = "down"     // Redis does not answer
	LinkTracking Link = "tracking" // Redis names the keys that change
	LinkPolling  Link = "polling"  // the server cannot; all keys are read again and again
)

// NewFollower makes a follower and gives it the last good snapshot from disk, if
// there is one: Snapshot may be used before Run.
func NewFollower(cfg Config, opt Options, log *slog.Logger, reg prometheus.Registerer) (*Follower, error) {
	zones := make([]string, len(opt.Zones))
	for i, z := range opt.Zones {
		wire, err := WireName(trimDot(z))
		if err != nil {
			return nil, err
		}
		zones[i] = wire
	}
	if opt.Rescan == 0 {
		opt.Rescan = rescanEvery
	}
	f := &Follower{
		cfg: cfg, opt: opt, log: log, model: newModel(zones),
		defects: map[string][]Defect{}, accepts: make(chan chan error),
	}
	f.health.Store(&Health{Link: LinkDown})
	f.metrics = newMetrics(reg, f)
	f.loadDisk()
	return f, nil
}

// Snapshot is the newest snapshot, nil before the first.
func (f *Follower) Snapshot() *Snapshot { return f.snapshot.Load() }

// Health is the present state.
func (f *Follower) Health() Health { return *f.health.Load() }

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
		return
	}
	changes := make([]change, 0, len(values))
	for id, v := range values {
		changes = append(changes, change{id, v})
	}
	f.publish(changes)
	f.setHealth(func(h *Health) { h.FromDisk = true })
	s := f.Snapshot()
	f.log.Info("last good snapshot read from disk", "zones", s.ZoneCount(), "names", s.NameCount, "members", s.MemberCount)
}

// Run follows the server until ctx ends, and keeps the snapshot on disk.
func (f *Follower) Run(ctx context.Context) error {
	saver := newSaver(f.opt.StateDir, f.log, f.metrics)
	defer func() { saver.stop(f.unsaved, f.model.values) }()
	retry := retryFirst
	for down := false; ctx.Err() == nil; {
		s := &session{Follower: f, saver: saver}
		err := s.run(ctx)
		if ctx.Err() != nil {
			break
		}
		if s.reached {
			retry, down = retryFirst, false
		}
		if !down {
			f.log.Warn("redis link lost, serving the last good snapshot", "address", f.cfg.Address, "err", err)
		}
		down = true
		f.setHealth(func(h *Health) { h.Link, h.Replica = LinkDown, Replica{} })
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
		h.Loaded = s.ZoneCount() > 0
	}
	f.health.Store(&h)
}

// publish makes and swaps the snapshot.
func (f *Follower) publish(changes []change) {
	if len(changes) == 0 && f.snapshot.Load() != nil {
		return
	}
	zones := f.model.snapshot.ZoneCount()
	s := f.model.apply(changes)
	f.newZone = f.newZone || s.ZoneCount() > zones
	f.snapshot.Store(s)
	f.unsaved = true
	for _, pool := range f.model.emptied {
		f.log.Warn("skip list leaves nothing of a pool, answering no data", "key", Printable(pool))
	}
}

// isZone tells whether a name is a zone of the current snapshot.
func (f *Follower) isZone(name string) bool { return f.model.snapshot.zones[name] != nil }

// session is one connection to Redis, from connecting to its loss.
type session struct {
	*Follower
	reader  *reader
	tracker *tracker // nil where the server cannot track
	saver   *saver
	reached bool // the lists were read
}

func (s *session) run(ctx context.Context) error {
	client, err := newClient(s.cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	s.reader = newReader(client)
	s.tracker, err = track(ctx, s.cfg)
	link := LinkTracking
	switch {
	case errors.Is(err, errNoTracking):
		link = LinkPolling
	case err != nil:
		return err
	default:
		defer s.tracker.close()
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	// A gap in what we saw of this server ends with a rescan.
	if err := s.wholesale(ctx, "redis link was down"); err != nil {
		return err
	}
	s.reached = true
	s.setHealth(func(h *Health) { h.Link = link })
	snap := s.Snapshot()
	s.log.Info("following redis", "address", s.cfg.Address, "link", string(link), "zones", snap.ZoneCount(), "names", snap.NameCount, "members", snap.MemberCount)
	if link == LinkPolling {
		return s.poll(ctx)
	}
	return s.follow(ctx)
}

// follow obeys the tracking connection.
func (s *session) follow(ctx context.Context) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	rescan := time.NewTicker(s.opt.Rescan)
	defer rescan.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.tracker.done:
			return s.tracker.failure()
		case <-s.tracker.wake:
			err = s.invalidated(ctx)
		case <-ping.C:
			err = s.alive(ctx)
		case <-rescan.C:
			err = s.tidy(ctx)
		case reply := <-s.accepts:
			err = s.accept(ctx, reply)
		}
		if err != nil {
			return err
		}
	}
}

// poll reads everything again and again.
func (s *session) poll(ctx context.Context) error {
	wait := rescanPolling
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case reply := <-s.accepts:
			err = s.accept(ctx, reply)
		case <-time.After(wait):
			start := time.Now()
			err = s.rescan(ctx, "rescan")
			// Large lists shall not keep the server busy.
			wait = max(rescanPolling, 10*time.Since(start))
		}
		if err != nil {
			return err
		}
		s.sync()
	}
}

// alive checks the link once a second.
func (s *session) alive(ctx context.Context) error {
	if s.tracker.silence() > silenceLimit {
		return errors.New("redis does not answer")
	}
	if err := s.tracker.ping(); err != nil {
		return err
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	s.evaluate()
	s.sync()
	return nil
}

// sync notes that the snapshot is what Redis says, and has it saved.
func (s *session) sync() {
	s.setHealth(func(h *Health) { h.InSync, h.FromDisk = time.Now(), false })
	if s.unsaved && s.saver.offer(s.model.values) {
		s.unsaved = false
	}
}

// invalidated handles what the tracking connection named.
func (s *session) invalidated(ctx context.Context) error {
	start := time.Now()
	keys, flushed := s.tracker.take()
	if flushed {
		return s.wholesale(ctx, "flush or full resync")
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.edit(ctx, keys); err != nil {
		return err
	}
	s.metrics.edit.Observe(time.Since(start).Seconds())
	if s.newZone {
		return s.wholesale(ctx, "new zone")
	}
	return nil
}

// errFlushed is a scan during which everything changed.
var errFlushed = errors.New("flushed while it was read")

// wholesale rescans, once more where the database is flushed meanwhile.
func (s *session) wholesale(ctx context.Context, cause string) error {
	for {
		err := s.rescan(ctx, cause)
		if !errors.Is(err, errFlushed) {
			return err
		}
		cause = "flush or full resync"
	}
}

// tidy rescans without a cause: SWAPDB is not announced.
func (s *session) tidy(ctx context.Context) error {
	if err := s.tracker.barrier(ctx); err != nil {
		return err
	}
	if err := s.invalidated(ctx); err != nil { // edits first, that the scan finds no loss in them
		return err
	}
	return s.wholesale(ctx, "rescan")
}

// edit obeys the named keys at once.
func (s *session) edit(ctx context.Context, keys []string) error {
	changes, err := s.reread(ctx, keys)
	if err != nil {
		return err
	}
	s.publish(changes)
	s.sync()
	return nil
}

// reread reads the named keys again, each as a whole.
func (s *session) reread(ctx context.Context, keys []string) ([]change, error) {
	var ids []keyID
	seen := map[keyID]bool{}
	for _, key := range keys {
		id, defect := parseKey(key)
		if id.kind == kindForeign || id.kind == kindSticky {
			id, defect = inZone(key, s.isApex)
		}
		if defect != nil {
			if err := s.checkSlip(ctx, key, *defect); err != nil {
				return nil, err
			}
		}
		if id.kind == kindForeign || id.kind == kindKnown {
			continue
		}
		s.reader.note(id, key)
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	var changes []change
	err := s.reader.read(ctx, ids, func(f found) {
		c := change{f.id, s.keepGood(f)}
		s.report(f.key, f.defects)
		if s.hold != nil {
			s.hold.edit(c)
		}
		changes = append(changes, c)
	})
	return changes, err
}

func (s *session) isApex(name string) bool {
	return slices.Contains(s.model.configured, name) ||
		len(s.model.configured) == 0 && s.model.values[keyID{kind: kindConfig, name: name}] != nil
}

// checkSlip reports a key that only looks like one of ours, as long as it is there.
func (s *session) checkSlip(ctx context.Context, key string, d Defect) error {
	n, err := s.reader.client.Exists(ctx, key).Result()
	if err != nil {
		return err
	}
	if n == 0 {
		s.report(key, nil)
	} else {
		s.report(key, []Defect{d})
	}
	return nil
}

// keepGood is the value to serve of a key: a key that is there and has nothing
// usable keeps its last good value, and so does an SOA that cannot be used.
func (s *session) keepGood(f found) *value {
	old := s.model.values[f.id]
	switch {
	case !f.exists || old == nil:
		return f.value
	case f.value == nil:
		return old
	case f.id.kind == kindConfig && f.value.config.badSOA && old.config.soa != nil:
		c := *f.value.config
		c.soa = old.config.soa
		c.fields["SOA"] = old.config.fields["SOA"]
		return &value{config: &c}
	case f.value.equal(old):
		return old
	}
	return f.value
}

// rescan reads everything. A loss that it finds and no edit explains is
// wholesale, and may be held.
func (s *session) rescan(ctx context.Context, cause string) error {
	start := time.Now()
	if s.tracker != nil {
		_, _ = s.tracker.take() // what was named before is read now
	}
	got, err := s.reader.scan(ctx, s.model.configured)
	if err != nil {
		return err
	}
	for id := range got.exists {
		if v := s.keepGood(found{id: id, exists: true, value: got.values[id]}); v != nil {
			got.values[id] = v
		}
	}
	s.reportAll(got.defects)
	if err := s.editsDuring(ctx, got); err != nil {
		return err
	}
	held := s.hold != nil
	var changes []change
	changes, s.hold = merge(s.hold, s.model.values, got.values, cause, time.Now(), s.isZone)
	s.publish(changes)
	s.newZone = false
	if s.hold != nil && !held {
		s.log.Error("mass loss in redis is not obeyed: hold", "cause", cause, "loss", s.hold.loss.String(),
			"ends", "when 90% are back, or by: razor upstreams accept")
	}
	s.evaluate()
	s.sync()
	s.metrics.rescan.Observe(time.Since(start).Seconds())
	return nil
}

// editsDuring obeys what was edited while a scan ran, and corrects the scan: a
// key that an operator removed is not lost.
func (s *session) editsDuring(ctx context.Context, got *scanned) error {
	if s.tracker == nil {
		return nil
	}
	if err := s.tracker.barrier(ctx); err != nil {
		return err
	}
	keys, flushed := s.tracker.take()
	if flushed {
		return errFlushed
	}
	changes, err := s.reread(ctx, keys)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.value != nil {
			got.values[c.id] = c.value
		} else {
			delete(got.values, c.id)
		}
	}
	// A first snapshot has to be whole: it is made of the scan alone.
	if s.Snapshot() != nil {
		s.publish(changes)
	}
	return nil
}

// evaluate ends the hold when enough is back.
func (s *session) evaluate() {
	if s.hold == nil {
		return
	}
	s.hold.loss = lossOf(s.hold.before, s.hold.present, func(name string) bool {
		v := s.hold.before[keyID{kind: kindConfig, name: name}]
		return v != nil && v.config.soa != nil
	})
	if s.hold.loss.healed() {
		s.release("the lists are back")
	}
}

func (s *session) release(why string) {
	changes := s.hold.release(s.model.values)
	s.log.Info("hold ended", "why", why, "loss", s.hold.loss.String(), "held", time.Since(s.hold.since).Round(time.Second).String())
	s.hold = nil
	s.publish(changes)
	s.setHealth(func(*Health) {})
}

// accept ends the hold by the operator's will.
func (s *session) accept(ctx context.Context, reply chan<- error) error {
	if s.hold == nil {
		reply <- errors.New("nothing is on hold")
		return nil
	}
	err := s.wholesale(ctx, s.hold.cause) // what Redis has at this moment is accepted
	if err == nil && s.hold != nil {
		s.release("accepted by the operator")
	}
	s.sync()
	reply <- err
	return err
}
