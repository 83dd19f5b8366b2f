package consul

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"
)

const (
	beatEvery  = time.Second
	beatTTL    = 3 * time.Second  // without a beat for so long, the lock goes to another
	slowTTL    = 10 * time.Second // where only sessions have one; the least that Consul takes
	lockWait   = time.Second      // of the query that proves the lock
	leaveTime  = 5 * time.Second
	answerTime = time.Second // that a request in flight is given when we stop
	service    = "razor-sync"
)

// lock is the key in Consul that one of several processes holds: the active sync, or the
// gateway that decides.
//
// A session ends with a check that we beat every second: Consul's own TTL of
// sessions is 10 seconds at least, and twice that until it is noticed. The check
// belongs to a service of our own; one of the node would take all the services
// there out with us.
type lock struct {
	client *api.Client
	key    string
	who    string // host and process, in META and the log
	value  string // of the key while it is ours
	kind   lockKind
	log    *slog.Logger
	turned func() // called when the lock was taken or lost

	mu     sync.Mutex
	mine   bool      // it was, when Consul spoke of it last
	until  time.Time // it is ours until then if nothing more is heard
	term   term      // the last one, if it was ever ours
	holder string    // who has it, "" when nobody is known to
	heard  bool      // Consul tells who has it
}

// lockKind is what differs between locks.
type lockKind struct {
	service string        // that the session's check is of
	lease   time.Duration // it is ours for so long after Consul said so
	// delay is how long after our session has ended Consul gives it to nobody. One that is
	// no shorter than the lease makes the lease sure: the lock is ours until its end, even
	// when Consul does not answer, or has ended the session.
	delay   time.Duration
	leave   time.Duration // to give it back at the end; without an answer it is free after the delay
	taken   string        // for the log
	lost    string
	unknown string
	standby string
}

// sure tells whether nobody else has the lock before our lease ends.
func (k *lockKind) sure() bool { return k.delay >= k.lease }

// syncLock is that of syncs. Its writes are fenced by epochs: no delay is needed.
var syncLock = lockKind{
	service: service, lease: beatTTL, delay: time.Millisecond, leave: leaveTime,
	taken:   "active: this sync keeps the lists",
	lost:    "this sync keeps nothing now",
	unknown: "this sync keeps nothing now",
	standby: "standby: another sync keeps the lists",
}

// term is one time that the lock was ours.
type term struct {
	number uint64 // of ours; 0 is none
	since  time.Time
}

// newLock makes a lock that does nothing yet. Without a value the key has who.
func newLock(client *api.Client, key, value string, kind lockKind, log *slog.Logger, turned func()) *lock {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	who := fmt.Sprintf("%s:%d:%s", host, os.Getpid(), rand.Text()[:6]) // of this process alone
	return &lock{client: client, key: key, who: who, value: cmp.Or(value, who), kind: kind, log: log, turned: turned}
}

// held tells whether we are the active one now, and which term of ours it is.
func (l *lock) held() (t term, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term, l.mine && time.Now().Before(l.until)
}

// state is who holds the lock as far as is known.
func (l *lock) state() (holder string, heard bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holder, l.heard
}

// run contends for the lock until ctx ends, and lets go of it then.
func (l *lock) run(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		err := l.session(ctx, func() { failing = false })
		if ctx.Err() != nil {
			break
		}
		if l.silent(); !l.kind.sure() {
			l.unknown()
		}
		if !failing {
			l.log.Warn("no session in consul, waiting for one", "err", err)
		}
		failing = true
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// session is one session in Consul, from its beginning to its loss.
func (l *lock) session(ctx context.Context, opened func()) error {
	s, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			l.leave() // before it can be another's
		}
		s.close(ctx.Err() != nil)
	}()
	opened()
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return s.beat(inner) })
	g.Go(func() error { return l.contend(inner, s.id) })
	return g.Wait()
}

// contend takes the lock when it is free, and proves it again and again. Consul
// may be without a leader for a while; the session lives on.
func (l *lock) contend(ctx context.Context, session string) error {
	var index uint64
	for ctx.Err() == nil {
		start := time.Now()
		pair, meta, err := l.read(ctx, index)
		wait := time.Duration(0)
		switch {
		case err != nil:
			index, wait = 0, 100*time.Millisecond
			l.silent()
		case pair != nil && pair.Session == session:
			index = meta.LastIndex
			l.prove(start)
		case pair != nil && pair.Session != "":
			index = meta.LastIndex
			l.lose(string(pair.Value))
		default:
			index = 0
			l.lose("")
			ok, err := l.acquire(ctx, session)
			if err != nil {
				return err
			}
			if !ok { // another one was faster, or the lock's delay is not over
				wait = max(10*time.Millisecond, l.kind.delay/64)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return ctx.Err()
}

func (l *lock) acquire(ctx context.Context, session string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	pair := &api.KVPair{Key: l.key, Value: []byte(l.value), Session: session}
	ok, _, err := l.client.KV().Acquire(pair, (&api.WriteOptions{}).WithContext(ctx))
	return ok, err
}

// read waits a moment for a change of the lock.
func (l *lock) read(ctx context.Context, index uint64) (*api.KVPair, *api.QueryMeta, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait+dialTimeout)
	defer cancel()
	return l.client.KV().Get(l.key, (&api.QueryOptions{WaitIndex: index, WaitTime: lockWait}).WithContext(ctx))
}

// prove notes that the lock was ours at a time. A lease that had run out is a new
// term: nobody knows who wrote meanwhile.
func (l *lock) prove(at time.Time) {
	l.mu.Lock()
	now := time.Now()
	taken := !l.mine || now.After(l.until)
	if taken {
		l.term = term{l.term.number + 1, now}
	}
	l.mine, l.until, l.holder, l.heard = true, at.Add(l.kind.lease), l.value, true
	l.mu.Unlock()
	if taken {
		l.log.Info("lock taken", "means", l.kind.taken, "lock", l.key, "who", l.who)
		l.turned()
	}
}

// lose is lost, unless the lock is surely ours until its lease ends: nobody's, or that of a
// session of ours that has ended.
func (l *lock) lose(holder string) {
	if _, held := l.held(); held && l.kind.sure() && (holder == "" || holder == l.value) {
		return
	}
	l.lost(holder)
}

// lost notes that the lock is another's, or nobody's ("").
func (l *lock) lost(holder string) {
	l.mu.Lock()
	had, news := l.mine, l.holder != holder
	l.mine, l.holder, l.heard = false, holder, true
	l.mu.Unlock()
	switch {
	case had:
		l.log.Warn("lock lost", "means", l.kind.lost, "lock", l.key, "holder", holder)
		l.turned()
	case news && holder != "":
		l.log.Info("lock is held by another process", "means", l.kind.standby, "lock", l.key, "holder", holder)
	}
}

// silent gives the lock up when nothing was heard of it for too long.
func (l *lock) silent() {
	l.mu.Lock()
	over := !l.mine || time.Now().After(l.until)
	l.mu.Unlock()
	if over {
		l.unknown()
	}
}

// leave notes that the lock is ours no longer, by will.
func (l *lock) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mine, l.holder, l.heard = false, "", false
}

// unknown notes that Consul does not tell who has the lock.
func (l *lock) unknown() {
	l.mu.Lock()
	had := l.mine
	l.mine, l.holder, l.heard = false, "", false
	l.mu.Unlock()
	if had {
		l.log.Warn("no word from consul of the lock", "means", l.kind.unknown, "lock", l.key)
		l.turned()
	}
}

// session is what Consul knows us by.
type session struct {
	lock  *lock
	id    string
	check string // "" where the session has a TTL of its own
}

// open makes a session that ends with our check, or one with a TTL where we must
// not register a check.
func (l *lock) open(ctx context.Context) (*session, error) {
	s := &session{lock: l}
	err := s.register(ctx)
	if e, ok := errors.AsType[api.StatusError](err); ok && e.Code == http.StatusForbidden {
		l.log.Warn("must not register a check, the lock of a process that crashes is free 10 to 20 s later", "want", "an ACL token with service:write of "+l.kind.service, "err", err)
		err = s.create(ctx, &api.SessionEntry{Name: l.kind.service, TTL: slowTTL.String(), LockDelay: l.kind.delay, Behavior: api.SessionBehaviorRelease})
	} else if err == nil {
		err = s.createChecked(ctx)
	}
	if err != nil {
		s.close(false)
		return nil, err
	}
	return s, nil
}

// createChecked makes a session that ends with our check. The agent tells the
// servers of the check a moment after it has it.
func (s *session) createChecked(ctx context.Context) error {
	entry := &api.SessionEntry{
		Name: s.lock.kind.service, LockDelay: s.lock.kind.delay, Behavior: api.SessionBehaviorRelease,
		NodeChecks: []string{"serfHealth"}, ServiceChecks: []api.ServiceCheck{{ID: s.check}},
	}
	for start := time.Now(); ; {
		err := s.create(ctx, entry)
		if err == nil || time.Since(start) > beatTTL-beatEvery {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// register makes the service and its check, whose name is ours alone.
func (s *session) register(ctx context.Context) error {
	id := s.lock.kind.service + ":" + s.lock.who
	reg := &api.AgentServiceRegistration{
		ID: id, Name: s.lock.kind.service,
		Check: &api.AgentServiceCheck{
			CheckID: id, Name: strings.ReplaceAll(s.lock.kind.service, "-", " ") + " " + s.lock.who, TTL: beatTTL.String(), Status: api.HealthPassing,
			DeregisterCriticalServiceAfter: time.Minute.String(),
		},
	}
	ctx, cancel := answered(ctx)
	defer cancel()
	err := s.lock.client.Agent().ServiceRegisterOpts(reg, (&api.ServiceRegisterOpts{}).WithContext(ctx))
	if _, refused := errors.AsType[api.StatusError](err); !refused {
		s.check = id // also where the answer was lost
	}
	return err
}

// answered is a context that lets a request end for a moment after ctx did: one
// that is cut off may reach Consul after what undoes it.
func answered(ctx context.Context) (context.Context, context.CancelFunc) {
	request, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(answerTime, cancel) })
	return request, func() { stop(); cancel() }
}

func (s *session) create(ctx context.Context, entry *api.SessionEntry) error {
	ctx, cancel := answered(ctx)
	defer cancel()
	id, _, err := s.lock.client.Session().Create(entry, (&api.WriteOptions{}).WithContext(ctx))
	s.id = id
	return err
}

// beat keeps the session until it fails for as long as it may.
func (s *session) beat(ctx context.Context) error {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		start := time.Now()
		err := s.renew(ctx)
		if err == nil {
			last = start
		} else if time.Since(last) > beatTTL {
			return err
		}
	}
}

func (s *session) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	if s.check == "" {
		entry, _, err := s.lock.client.Session().Renew(s.id, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil && entry == nil {
			err = errors.New("session is gone")
		}
		return err
	}
	q := (&api.QueryOptions{}).WithContext(ctx)
	return s.lock.client.Agent().UpdateTTLOpts(s.check, "", api.HealthPassing, q)
}

// close ends the session, and frees the lock: after its delay, or, where it is given back,
// at once.
func (s *session) close(giveBack bool) {
	ctx, cancel := context.WithTimeout(context.Background(), s.lock.kind.leave)
	defer cancel()
	if s.id != "" && giveBack {
		pair := &api.KVPair{Key: s.lock.key, Session: s.id}
		_, _, _ = s.lock.client.KV().Release(pair, (&api.WriteOptions{}).WithContext(ctx))
	}
	if s.id != "" {
		_, _ = s.lock.client.Session().Destroy(s.id, (&api.WriteOptions{}).WithContext(ctx))
	}
	if s.check != "" {
		_ = s.lock.client.Agent().ServiceDeregisterOpts(s.check, (&api.QueryOptions{}).WithContext(ctx))
	}
}
