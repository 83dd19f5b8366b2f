package integration

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

// The name that an event changes, and what it is answered before and after.
const (
	mark       = "mark.z.example"
	oldAddress = "198.51.100.1"
	newAddress = "192.0.2.1"
)

// stage is where an event happens: razor follows a replica, and the links from it
// to the replica, and from the replica to its primary, can be cut.
type stage struct {
	*nameserver
	t                *testing.T
	primary, replica *redistest.Server
	near, far        *redistest.Proxy
	lists            *upstreams.Follower // of its own, where razor follows
}

// event is something that happens to Redis, after which the lists say something
// new.
type event struct {
	name   string
	seen   string        // what the log says of it: "link lost|hold" is both, at the least
	since  string        // what the time to the truth counts from
	within time.Duration // generous: what machines of tests need that do much else; 10 s when 0
	args   []string      // further arguments of the replica
	way    string        // how razor is let in: "", "TLS", or an account of the replica
	held   held
	both   bool // the new truth has the old address as well
	before func(s *stage)
	run    func(s *stage) time.Time // returns when the counting begins
	after  func(s *stage)           // looks whether the event was what its name says
}

// held is whether an event is to be held.
type held int

const (
	neverHeld held = iota
	isHeld
	maybeHeld // where razor may find the replica before its data
)

var events = []event{
	{name: "edits in MULTI", seen: "the keys, by name", since: "the edit", run: func(s *stage) time.Time { return s.edit(s.primary) }},
	{name: "edits by Lua", seen: "the keys, by name", since: "the edit", run: func(s *stage) time.Time {
		from := time.Now()
		s.primary.DoArgs("EVAL", "redis.call('DEL', KEYS[1]) redis.call('SADD', KEYS[1], ARGV[1])", 1, mark+":A", newAddress)
		return from
	}},
	{name: "RENAME over a pool", seen: "the keys, by name", since: "the edit", before: func(s *stage) { s.primary.Do("SADD spare.z.example:A " + newAddress) }, run: func(s *stage) time.Time {
		from := time.Now()
		s.primary.Do("RENAME spare.z.example:A " + mark + ":A")
		return from
	}},
	{name: "a skip list expires", seen: "the keys, by name", since: "its end", both: true, before: func(s *stage) {
		s.primary.Do("SADD z.example:A:SKIPLIST " + newAddress)
		s.primary.Do("SADD z.example:A:BLACKHOLE 203.0.113.1") // which the end of the skip list would let be answered
		s.primary.Do("SADD " + mark + ":A " + newAddress)
	}, run: func(s *stage) time.Time {
		const life = 100 * time.Millisecond
		from := time.Now().Add(life)
		s.primary.Do(fmt.Sprint("PEXPIRE z.example:A:SKIPLIST ", life.Milliseconds()))
		return from
	}},
	{name: "FLUSHDB, refilled", seen: "flush or full resync|hold", since: "the refill", held: isHeld, run: func(s *stage) time.Time {
		s.primary.Do("FLUSHDB")
		return s.refill(s.primary)
	}, after: (*stage).noHold},
	{name: "FLUSHALL, refilled", seen: "flush or full resync|hold", since: "the refill", held: isHeld, run: func(s *stage) time.Time {
		s.primary.Do("FLUSHALL")
		return s.refill(s.primary)
	}, after: (*stage).noHold},
	{name: "SWAPDB", seen: "reread: rescan", within: 60 * time.Second, since: "the event", before: func(s *stage) {
		s.primary.Do("SADD spare.z.example:A " + newAddress)
		for _, key := range s.primary.DoArgs("KEYS", "*").([]any) {
			s.primary.DoArgs("COPY", key, key, "DB", 1)
		}
		s.primary.Do("COPY spare.z.example:A " + mark + ":A DB 1 REPLACE")
	}, run: func(s *stage) time.Time {
		from := time.Now()
		s.primary.Do("SWAPDB 0 1")
		return from
	}},
	{name: "link to redis cut, healed", seen: "link lost|redis link was down", since: "the healing", run: func(s *stage) time.Time {
		s.near.Cut()
		s.sees("does not answer")
		s.edit(s.primary)
		return s.heal(s.near)
	}},
	{name: "partial resync", seen: "the keys, by name", within: 30 * time.Second, since: "the healing", run: func(s *stage) time.Time {
		s.cutFar()
		s.edit(s.primary)
		return s.heal(s.far)
	}, after: func(s *stage) { s.resyncs("1", "1") }},
	{name: "full resync", seen: "flush or full resync", within: 30 * time.Second, since: "the healing", run: func(s *stage) time.Time {
		s.primary.Do("CONFIG SET repl-backlog-size 16384")
		s.cutFar()
		for range 20 { // more than the primary keeps for a replica that returns
			s.primary.Do("SET junk " + strings.Repeat("x", 100_000))
		}
		s.edit(s.primary)
		return s.heal(s.far)
	}, after: func(s *stage) { s.resyncs("2", "0") }},
	{name: "other replication id: another, empty primary, refilled", seen: "hold", within: 30 * time.Second, since: "the refill", held: isHeld, run: func(s *stage) time.Time {
		other := redistest.Start(s.t)
		s.replica.Do(fmt.Sprintf("REPLICAOF %s %d", other.Host, other.Port))
		return s.refill(other)
	}, after: (*stage).noHold},
	{name: "primary comes back empty, refilled", seen: "hold", within: 30 * time.Second, since: "the refill", held: isHeld, run: func(s *stage) time.Time {
		s.primary.Kill()
		s.primary.Restart()
		return s.refill(s.primary)
	}, after: (*stage).noHold},
	{name: "primary comes back half filled, refilled", seen: "hold", within: 30 * time.Second, since: "the refill", held: isHeld, run: func(s *stage) time.Time {
		s.primary.Kill()
		s.replica.Stop() // so that it finds the half at once
		s.primary.Restart()
		for i := range routes / 2 {
			fillRoute(s.primary, i)
		}
		s.replica.Continue()
		return s.refill(s.primary)
	}, after: (*stage).noHold},
	{name: "replica killed, started again", seen: "link lost|redis link was down", within: 30 * time.Second, since: "its start", held: maybeHeld, run: func(s *stage) time.Time {
		s.replica.Kill()
		s.edit(s.primary)
		from := time.Now()
		s.replica.Restart()
		return from
	}, after: (*stage).noHold},
	{name: "replica promoted", seen: "other replication id", within: 30 * time.Second, since: "the edit", run: func(s *stage) time.Time {
		s.replica.Do("REPLICAOF NO ONE")
		return s.edit(s.replica)
	}, after: func(s *stage) { s.logs("other replication id") }},
	{
		name: "Sentinel failover", seen: "link lost", within: 60 * time.Second, since: "SIGKILL", args: []string{"--replica-priority", "0"},
		run: func(s *stage) time.Time {
			standby := s.primary.Replica()
			sentinel := redistest.Sentinel(s.t, "lists", s.primary)
			s.primary.Kill()
			from := time.Now()
			s.until("failover", func() bool { return sentinel.PrimaryOf("lists") == standby.Addr })
			s.edit(standby)
			return from
		},
		after: func(s *stage) {
			s.primary.Restart()
			s.until("the old primary is a replica", func() bool { return s.primary.Info("role") == "slave" })
			s.primary.WaitReplica()
			s.until("the old primary has the edit", func() bool {
				n, _ := s.primary.Client.SIsMember(s.t.Context(), mark+":A", newAddress).Result()
				return n
			})
		},
	},
	{name: "primary lost, replica-serve-stale-data no", seen: "reads refused", within: 30 * time.Second, since: "the healing", args: []string{"--replica-serve-stale-data", "no"}, run: func(s *stage) time.Time {
		s.cutFar()
		s.sees("lost its primary")
		s.replica.Do("CLIENT KILL TYPE normal SKIPME yes") // so that razor has to read
		s.logs("MASTERDOWN")
		s.sees("lost its primary")
		s.until("link down", func() bool { return s.metric("razor_upstreams_link_up", "link=tracking") == 0 })
		s.edit(s.primary)
		return s.heal(s.far)
	}},
	{name: "ACL account off, on again", seen: "redis link was down", since: "on", way: "reader +client|tracking", run: func(s *stage) time.Time {
		s.replica.Do("ACL SETUSER reader off")
		s.replica.Do("CLIENT KILL USER reader")
		s.sees("redis refuses: WRONGPASS ")
		s.edit(s.primary)
		from := time.Now()
		s.replica.Do("ACL SETUSER reader on")
		return from
	}},
	{name: "an account that may not track", seen: "missing at the next reading", since: "the edit", way: "reader -client|tracking", run: func(s *stage) time.Time { return s.edit(s.primary) }},
	{name: "over TLS, cut, healed", seen: "link lost|redis link was down", since: "the healing", way: "TLS", run: func(s *stage) time.Time {
		s.near.Cut()
		s.sees("does not answer")
		s.edit(s.primary)
		return s.heal(s.near)
	}},
}

// Whatever happens to Redis, the old truth is answered until the new one is, and
// nothing else: what razor saw of it is what the row says, and the truth comes within
// a generous bound. The table at the end says how long it took.
func TestEvents(t *testing.T) {
	t.Parallel()
	rows := make([]string, len(events))
	t.Cleanup(func() {
		rows = slices.DeleteFunc(rows, func(row string) bool { return row == "" }) // not run, or failed
		t.Log("\n| event | what razor saw | answers, all of them right | time to the truth, from |\n|---|---|---|---|\n" + strings.Join(rows, "\n"))
	})
	for i, e := range events {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			s := e.stage(t)
			begin := len(s.log.String())
			apps, safe := s.subscribe(), s.probeFor(guarded, guardedRoute)
			routes, w := s.probe(route(0), route(1)), s.witness(e.both)
			from := e.run(s)
			s.until("the truth is answered", w.isNew)
			if e.after != nil {
				e.after(s)
			}
			s.unharmed(routes)
			s.unharmed(safe)
			apps()
			asked, took := w.done(from)
			seen := s.seen(begin)
			if got := strings.Contains(seen, "hold"); got != (e.held == isHeld) && e.held != maybeHeld {
				t.Errorf("held: %t\n%s", got, s.log)
			}
			if !e.wasSeen(seen) {
				t.Errorf("seen: %s; want %s\n%s", seen, e.seen, s.log)
			}
			if limit := cmp.Or(e.within, 10*time.Second); took > limit {
				t.Errorf("the truth took %s, more than %s", took, limit)
			}
			rows[i] = fmt.Sprintf("| %s | %s | %d | %s, %s |", e.name, seen, asked+routes.asked, took, e.since)
		})
	}
}

// wasSeen compares what the log says with what it should.
func (e event) wasSeen(seen string) bool {
	for word := range strings.SplitSeq(e.seen, "|") {
		if !strings.Contains(seen, word) {
			return false
		}
	}
	return true
}

// stage sets up the servers, with the old truth in them.
func (e event) stage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, primary: redistest.Start(t)}
	s.far = redistest.NewProxy(t, s.primary.Addr)
	s.replica = redistest.Start(t, append([]string{"--replicaof", fmt.Sprint("127.0.0.1 ", s.far.Port)}, e.args...)...)
	s.near = redistest.NewProxy(t, s.replica.Addr)
	cfg := upstreams.Config{}
	if e.way == "TLS" {
		cert, key := certificate(t, "127.0.0.1")
		s.near = redistest.NewProxy(t, s.replica.ListenTLS(cert, key))
		cfg.TLS = &upstreams.TLSConfig{CA: cert, Cert: cert, Key: key}
	}
	cfg.Address = s.near.Addr
	if user, right, ok := strings.Cut(e.way, " "); ok {
		s.replica.Do("ACL SETUSER " + user + " on >secret ~* +@read +@connection +info " + right)
		cfg.User, cfg.Password = user, "secret"
	}
	fillAll(s.primary)
	s.primary.Do("SADD " + mark + ":A " + oldAddress)
	if e.before != nil {
		e.before(s)
	}
	s.replica.WaitReplica()
	await(t, "the replica has the lists", func() bool {
		return s.replica.Client.DBSize(t.Context()).Val() == s.primary.Client.DBSize(t.Context()).Val()
	})
	s.nameserver = startWith(t, cfg, zones("z.example"))
	s.awaitReady()
	s.eventually(mark, "A", "NOERROR "+oldAddress)
	s.lists = follow(t, cfg, upstreams.Options{})
	return s
}

// edit writes the new truth, and returns when.
func (s *stage) edit(server *redistest.Server) time.Time {
	s.t.Helper()
	from := time.Now()
	tx := server.Client.TxPipeline()
	tx.Del(s.t.Context(), mark+":A")
	tx.SAdd(s.t.Context(), mark+":A", newAddress)
	if _, err := tx.Exec(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return from
}

// refill waits for the hold, and writes all lists again, the new truth last.
func (s *stage) refill(server *redistest.Server) time.Time {
	s.t.Helper()
	s.awaitHold()
	fillAll(server)
	return s.edit(server)
}

func (s *stage) heal(p *redistest.Proxy) time.Time {
	from := time.Now()
	p.Heal()
	return from
}

// cutFar takes the primary from the replica.
func (s *stage) cutFar() {
	s.t.Helper()
	s.far.Cut()
	s.until("the link is seen to be down", func() bool { return s.metric("razor_upstreams_replica_link_up") == 0 })
}

// sees waits for words in /readyz, and holds that it stays ready.
func (s *stage) sees(words string) {
	s.t.Helper()
	s.until("it says "+words, func() bool { ok, text := s.readiness(); return ok && strings.Contains(text, words) })
}

func (s *stage) logs(words string) {
	s.t.Helper()
	s.until("it logs "+words, func() bool { return strings.Contains(s.log.String(), words) })
}

func (s *stage) noHold() { s.awaitNoHold() }

// resyncs holds how many full and partial resyncs the primary has made.
func (s *stage) resyncs(full, partial string) {
	s.t.Helper()
	if f, p := s.primary.Info("sync_full"), s.primary.Info("sync_partial_ok"); f != full || p != partial {
		s.t.Errorf("%s full and %s partial resyncs; want %s and %s", f, p, full, partial)
	}
}

// seen is what the log says of an event, in few words.
func (s *stage) seen(begin int) string {
	var out []string
	for line := range strings.Lines(s.log.String()[begin:]) {
		_, cause, _ := strings.Cut(line, "cause=")
		if strings.HasPrefix(cause, `"`) {
			cause, _, _ = strings.Cut(cause[1:], `"`)
		}
		cause, _, _ = strings.Cut(strings.TrimSpace(cause), "\n")
		word := ""
		switch {
		case strings.Contains(line, "link lost"), strings.Contains(line, "does not answer"):
			word = "link lost"
		case strings.Contains(line, "refuses to be read"):
			word = "reads refused"
		case strings.Contains(line, "not obeyed: hold"):
			word = "hold"
		case strings.Contains(line, "reading all lists"):
			word = "reread: " + cause
		}
		if word != "" && !slices.Contains(out, word) {
			out = append(out, word)
		}
	}
	if len(out) == 0 {
		return "the keys, by name"
	}
	return strings.Join(out, ", ")
}

// witness asks for the name that an event changes, and records every answer.
type witness struct {
	tb   testing.TB
	both bool // the old address stays right
	stop func()

	mu    sync.Mutex
	asked int
	first time.Time // of the new truth
	bad   []string
}

func (s *stage) witness(both bool) *witness {
	w := &witness{tb: s.t, both: both}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			m, err := s.exchange([]string{"udp", "tcp"}[i%2], question(mark, "A"))
			w.record(m, err)
			time.Sleep(time.Millisecond)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(w.stop)
	return w
}

func (w *witness) record(m *dns.Msg, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if err != nil {
		w.bad = append(w.bad, err.Error())
		return
	}
	switch got := addresses(m); {
	case m.Rcode != dns.RcodeSuccess || len(got) != 1:
		w.bad = append(w.bad, outcome(m))
	case got[0] == netip.MustParseAddr(newAddress):
		if w.first.IsZero() {
			w.first = time.Now()
		}
	case got[0] != netip.MustParseAddr(oldAddress), !w.first.IsZero() && !w.both:
		w.bad = append(w.bad, outcome(m))
	}
}

func (w *witness) isNew() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.first.IsZero()
}

// done ends the witness: every answer was the old truth and then the new one. It
// returns how many there were, and how long the new one took.
func (w *witness) done(from time.Time) (asked int, took time.Duration) {
	w.tb.Helper()
	w.stop()
	if len(w.bad) > 0 {
		w.tb.Errorf("%d of %d answers were neither the old truth nor, after it, the new, the first: %s", len(w.bad), w.asked, w.bad[0])
	}
	took = w.first.Sub(from)
	if took < 10*time.Millisecond {
		return w.asked, took.Round(100 * time.Microsecond)
	}
	return w.asked, took.Round(10 * time.Millisecond)
}

// guardedRoute has a pool of addresses that must not be answered, and of two that
// may.
const guardedRoute = "guarded.z.example"

// guarded are the addresses that must not be answered: on the skip list, blackholed,
// and of a drained edge.
var guarded = []netip.Addr{
	addr("203.0.113.1"), addr("203.0.113.2"), addr("203.0.113.3"),
	addr("2001:db8:bad::1"), addr("2001:db8:bad:1::1"), addr("2001:db8:bad:2::1"),
}

const appEndpoints = 20

// fillAll is fill with lists of all other kinds: first what keeps addresses from
// being answered.
func fillAll(s *redistest.Server) {
	s.Do("SADD z.example:A:SKIPLIST 203.0.113.1")
	s.Do("SADD z.example:AAAA:SKIPLIST 2001:db8:bad::1")
	s.Do("SADD z.example:A:BLACKHOLE 203.0.113.2")
	s.Do("SADD z.example:AAAA:BLACKHOLE 2001:db8:bad:1::1")
	s.Do("SET west:STATE drained")
	fill(s)
	s.Do("HSET " + guardedRoute + ":CONFIG COUNT 2")
	s.Do("SADD " + guardedRoute + ":EDGES east west")
	s.Do("SADD " + guardedRoute + ":A 203.0.113.1 203.0.113.2 203.0.113.4")
	s.Do("SADD " + guardedRoute + ":AAAA 2001:db8:bad::1 2001:db8:bad:1::1 2001:db8:900d::1")
	s.Do("SADD east:A 203.0.113.5")
	s.Do("SADD east:AAAA 2001:db8:900d::2")
	s.Do("SADD west:A 203.0.113.3")
	s.Do("SADD west:AAAA 2001:db8:bad:2::1")
	for _, app := range []string{"shop", "mail"} {
		args := []any{"SADD", app + ":UPSTREAMS"}
		for i := range appEndpoints {
			args = append(args, fmt.Sprintf("[2001:db8:1::%x]:8080 weight=5", i+1))
		}
		s.DoArgs(args...)
		s.Do("HSET " + app + ":UPSTREAMS:META source operator")
	}
}

// subscribe looks at every change of the upstream lists; the function that it
// returns ends that, and holds that no application was gone or had lost an endpoint.
func (s *stage) subscribe() (end func()) {
	s.t.Helper()
	var bad []string
	look := func(now, old *upstreams.Snapshot) {
		for app, u := range now.UpstreamsSince(old) {
			if u == nil || len(u.Endpoints) < appEndpoints {
				bad = append(bad, upstreams.NameText(app))
			}
		}
	}
	last := s.lists.Snapshot()
	n := 0
	for range last.Upstreams() {
		n++
	}
	if n != 2 {
		s.t.Errorf("%d applications before the event", n)
	}
	look(last, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.lists.Changed(last):
				now := s.lists.Snapshot()
				look(now, last)
				last = now
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	s.t.Cleanup(stop)
	return func() {
		s.t.Helper()
		stop()
		if len(bad) > 0 {
			s.t.Errorf("applications gone or with fewer endpoints: %v", bad)
		}
	}
}
