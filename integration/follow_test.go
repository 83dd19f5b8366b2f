package integration

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// follow runs a follower alone until the test ends, and waits for its lists.
func follow(tb testing.TB, cfg upstreams.Config, opt upstreams.Options) *upstreams.Follower {
	tb.Helper()
	cfg.Defaults()
	f, err := upstreams.NewFollower(cfg, opt, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	await(tb, "lists", func() bool { return f.Health().Link != upstreams.LinkDown })
	return f
}

func await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatalf("waiting for %s: timed out", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// poolLen is the number of members of a route.
func poolLen(f *upstreams.Follower, name string, family steering.Family) int {
	wire, _ := upstreams.WireName(name)
	return f.Snapshot().Name([]byte(wire)).Pool(family).Len()
}

// SWAPDB is announced by nothing: the rescan finds it, and it is wholesale.
func TestSwapDB(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{Rescan: 100 * time.Millisecond})
	s.Do("SWAPDB 0 1")
	await(t, "hold", func() bool { return f.Health().Hold != "" })
	if poolLen(f, route(3), steering.IPv4) != 10 {
		t.Error("the snapshot was emptied")
	}
	s.Do("SWAPDB 0 1")
	await(t, "end of the hold", func() bool { return f.Health().Hold == "" })
}

// What SWAPDB brings back ends a hold soon, although nothing names it.
func TestSwapDBEndsAHold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{Rescan: time.Hour})
	s.Do("SWAPDB 0 1")
	s.Do("CLIENT KILL TYPE normal SKIPME yes")
	await(t, "hold", func() bool { return f.Health().Hold != "" })
	s.Do("SWAPDB 0 1")
	await(t, "end of the hold", func() bool { return f.Health().Hold == "" })
}

// Lists that may be old are said to be, and served: while the replica has lost its
// primary or hears nothing of it, and while Redis does not answer.
func TestStale(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t, "--repl-ping-replica-period", "1")
	fill(primary)
	link := redistest.NewProxy(t, primary.Addr)
	replica := redistest.Start(t, "--replicaof", fmt.Sprint("127.0.0.1 ", link.Port))
	replica.WaitReplica()
	n := startWith(t, upstreams.Config{Address: replica.Addr, StaleAfter: 4 * time.Second}, zones("z.example"))
	n.awaitReady()
	p := n.probe(route(0), route(1))
	for i, fault := range []struct {
		name      string
		do, undo  func()
		replicaUp float64 // the metric in the fault; -1 where redis does not tell
	}{
		{"the link to the primary is cut", link.Cut, link.Heal, 0},
		{"the primary is silent", primary.Stop, primary.Continue, 1},
		{"redis does not answer", replica.Stop, replica.Continue, -1},
	} {
		n.until("not stale before: "+fault.name, func() bool { return n.metric("razor_upstreams_stale") == 0 })
		fault.do()
		n.until("stale: "+fault.name, func() bool {
			ok, text := n.readiness()
			return ok && strings.Contains(text, "stale: as of") && n.metric("razor_upstreams_stale") == 1 &&
				n.metric("razor_upstreams_replica_link_up") == fault.replicaUp &&
				strings.Count(n.log.String(), "lists are stale") == i+1
		})
		if lag := n.metric("razor_upstreams_replica_lag_seconds"); fault.replicaUp >= 0 && lag < 4 {
			t.Errorf("%s: a lag of %v s", fault.name, lag)
		}
		fault.undo()
		n.until("no longer stale: "+fault.name, func() bool {
			ok, text := n.readiness()
			return ok && text == "ready" && n.metric("razor_upstreams_stale") == 0 && strings.Count(n.log.String(), "no longer stale") == i+1
		})
	}
	n.unharmed(p)
}

// A replica that was restarted without its primary does not know how old its lists
// are: they count as old as those that razor had on disk.
func TestStaleAfterRestarts(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	fill(primary)
	replica := primary.Replica()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	before, err := upstreams.NewFollower(upstreams.Config{Address: replica.Addr}, upstreams.Options{StateDir: dir}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- before.Run(ctx) }()
	file := filepath.Join(dir, upstreams.SnapshotFile)
	await(t, "the file", func() bool { _, err := os.Stat(file); return err == nil })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	hourAgo := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(file, hourAgo, hourAgo); err != nil {
		t.Fatal(err)
	}
	replica.Do("SAVE")
	primary.Kill()
	replica.Kill()
	replica.Restart()
	f := follow(t, upstreams.Config{Address: replica.Addr}, upstreams.Options{StateDir: dir})
	if h := f.Health(); h.Hold != "" || !h.AsOf().Equal(hourAgo) || !h.Stale {
		t.Errorf("%+v", h)
	}
}

// Removals while scans run all the time are edits, not losses.
func TestEditsDuringRescans(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	config(s, "z.example")
	const names = 2000
	pipe := s.Client.Pipeline()
	for i := range names {
		pipe.SAdd(t.Context(), route(i)+":A", redistest.Members(false, i, 3)...)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{Rescan: time.Millisecond})
	for i := range names {
		if err := s.Client.Del(t.Context(), route(i)+":A").Err(); err != nil {
			t.Fatal(err)
		}
		if h := f.Health().Hold; h != "" {
			t.Fatalf("held after %d removals: %s", i, h)
		}
	}
	await(t, "all removed", func() bool { return f.Snapshot().NameCount == 1 })
	if h := f.Health().Hold; h != "" {
		t.Fatalf("held: %s", h)
	}
}

// An account that must not read some keys, or not track: all else is there, and
// check says what is missing.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	s.Do("SADD other:A 192.0.2.1")
	s.Do("ACL SETUSER narrow on >secret ~*z.example* +@read +@connection +info +client|tracking")
	s.Do("ACL SETUSER blind on >secret ~* +@read +@connection -client|tracking +info")
	s.Do("ACL SETUSER deaf on >secret ~* +@read +@connection +client|tracking")
	for user, row := range map[string]struct {
		link upstreams.Link
		want string
	}{
		"narrow": {upstreams.LinkTracking, "other:A: the account must not read it"},
		"blind":  {upstreams.LinkPolling, "CLIENT TRACKING: "},
		"deaf":   {upstreams.LinkTracking, "INFO: NOPERM "},
	} {
		cfg := upstreams.Config{Address: s.Addr, User: user, Password: "secret"}
		f := follow(t, cfg, upstreams.Options{})
		if got := f.Health().Link; got != row.link || poolLen(f, route(3), steering.IPv4) != 10 {
			t.Errorf("%s: link %s, %d members of a route", user, got, poolLen(f, route(3), steering.IPv4))
		}
		defects, err := upstreams.CheckLive(t.Context(), cfg, nil)
		if err != nil || len(defects) != 1 || !strings.HasPrefix(defects[0].String(), row.want) {
			t.Errorf("%s: %v, %v; want %s", user, defects, err, row.want)
		}
	}
}

// One edit reads one key again.
func TestOneEditReadsOneKey(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{})
	s.Do("CONFIG RESETSTAT")
	s.Do("SADD n3.z.example:A 192.0.2.1")
	await(t, "the edit", func() bool { return poolLen(f, route(3), steering.IPv4) == 11 })
	stats := fmt.Sprint(s.Do("INFO commandstats"))
	for cmd, want := range map[string]int{"smembers": 1, "scan": 0, "hgetall": 0, "get": 0} {
		got := 0
		if m := regexp.MustCompile(`cmdstat_` + cmd + `:calls=(\d+)`).FindStringSubmatch(stats); m != nil {
			got, _ = strconv.Atoi(m[1])
		}
		if got != want {
			t.Errorf("%d calls of %s, want %d", got, cmd, want)
		}
	}
}

// A Unix socket, and a password alone.
func TestWaysToRedis(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	s := redistest.Start(t, "--unixsocket", socket)
	fill(s)
	s.Do("CONFIG SET requirepass other")
	for name, cfg := range map[string]upstreams.Config{
		"unix socket": {Address: "unix://" + socket, Password: "other"},
		"password":    {Address: s.Addr, Password: "other"},
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t, cfg, upstreams.Options{})
			if h := f.Health(); h.Link != upstreams.LinkTracking || f.Snapshot().NameCount != routes+1 {
				t.Errorf("link %s, %d names", h.Link, f.Snapshot().NameCount)
			}
		})
	}
}

// A key that was edited just before everything was lost is lost with it, and
// held: its absence is no edit.
func TestFlushRightAfterEdit(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	other := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { other.Close() })
	fill(s)
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{})
	for i := range rounds(6, 300) {
		ctx := t.Context()
		switch i % 3 {
		case 0: // in one transaction
			tx := s.Client.TxPipeline()
			tx.SAdd(ctx, "n0.z.example:A", "192.0.2.1")
			tx.FlushAll(ctx)
			if _, err := tx.Exec(ctx); err != nil {
				t.Fatal(err)
			}
		case 1: // in one turn of the server
			pipe := s.Client.Pipeline()
			pipe.SAdd(ctx, "n0.z.example:A", "192.0.2.1")
			pipe.FlushAll(ctx)
			if _, err := pipe.Exec(ctx); err != nil {
				t.Fatal(err)
			}
		default: // a moment later
			s.Do("SADD n0.z.example:A 192.0.2.1")
			time.Sleep(time.Duration(10*i) * time.Microsecond)
			if err := other.FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "hold", func() bool { return f.Health().Hold != "" })
		if n := poolLen(f, route(0), steering.IPv4); n < 10 {
			t.Fatalf("round %d: %d members are held", i, n)
		}
		fill(s)
		await(t, "end of the hold", func() bool { return f.Health().Hold == "" })
		await(t, "the lists", func() bool { return poolLen(f, route(0), steering.IPv4) == 10 })
	}
}

// An upstream list is followed, kept over a flush, and on disk.
func TestUpstreamLists(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	dir := t.TempDir()
	s.DoArgs("SADD", "shop:UPSTREAMS", "[2001:db8::1]:8080 weight=5 site=east", "[2001:db8::2]:8080")
	s.Do("HSET shop:UPSTREAMS:META source operator")
	config(s, "z.example")
	f := follow(t, upstreams.Config{Address: s.Addr}, upstreams.Options{StateDir: dir})
	app, _ := upstreams.WireName("shop")
	list := func() string {
		u := f.Snapshot().Upstream(app)
		if u == nil {
			return ""
		}
		return fmt.Sprint(u.Source, u.Endpoints)
	}
	await(t, "the list", func() bool {
		return list() == "operator[[2001:db8::1]:8080 weight=5 site=east [2001:db8::2]:8080]"
	})
	s.DoArgs("SREM", "shop:UPSTREAMS", "[2001:db8::2]:8080")
	await(t, "the edit", func() bool { return list() == "operator[[2001:db8::1]:8080 weight=5 site=east]" })
	await(t, "the file", func() bool {
		data, _ := os.ReadFile(filepath.Join(dir, upstreams.SnapshotFile))
		return strings.Contains(string(data), "weight=5 site=east") && !strings.Contains(string(data), "2001:db8::2")
	})
	s.Do("FLUSHALL")
	await(t, "hold", func() bool { return f.Health().Hold != "" })
	if list() != "operator[[2001:db8::1]:8080 weight=5 site=east]" {
		t.Errorf("held: %s", list())
	}
}
