package upstreams

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// TestEditsReachTheSnapshot sends every kind of writing command to the embedded
// store: each is in the snapshot long before a rescan.
func TestEditsReachTheSnapshot(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.zone("r.example")
	w.wait("zone", func() bool { return w.zoneOf("x.r.example") != nil })
	for _, step := range []struct{ command, key, want string }{
		{"SADD r.example:A 192.0.2.1 192.0.2.2", "r.example:A", "192.0.2.1 192.0.2.2"},
		{"SREM r.example:A 192.0.2.1", "r.example:A", "192.0.2.2"},
		{"SADD r.example:AAAA 2001:DB8:0::1", "r.example:AAAA", "2001:db8::1"},
		{"RENAME r.example:A n.r.example:A", "r.example:A", ""},
		{"EXISTS r.example:A", "n.r.example:A", "192.0.2.2"},
		{"RENAMENX n.r.example:A r.example:A", "r.example:A", "192.0.2.2"},
		{"SMOVE r.example:A n.r.example:A 192.0.2.2", "n.r.example:A", "192.0.2.2"},
		{"SMEMBERS r.example:A", "r.example:A", ""},
		{"COPY n.r.example:A m.r.example:A", "m.r.example:A", "192.0.2.2"},
		{"SPOP m.r.example:A", "m.r.example:A", ""},
		{"SUNIONSTORE u.r.example:A n.r.example:A", "u.r.example:A", "192.0.2.2"},
		{"DEL u.r.example:A n.r.example:A", "u.r.example:A", ""},
		{"UNLINK r.example:AAAA", "r.example:AAAA", ""},
		{"sadd r.example:A 192.0.2.3", "r.example:A", "192.0.2.3"}, // commands in lower case
		{"EXPIRE r.example:A 0", "r.example:A", ""},
	} {
		w.do(step.command)
		w.waitMembers(step.key, step.want)
	}
	w.do("SET shop.r.example n.r.example")
	w.wait("sticky", func() bool { return w.sticky("shop.r.example") == "n.r.example" })
	w.do("APPEND shop.r.example .example")
	w.wait("appended", func() bool { return w.sticky("shop.r.example") == "n.r.example.example" })
	w.do("GETDEL shop.r.example")
	w.wait("no sticky", func() bool { return w.sticky("shop.r.example") == "" })
	w.do("HSET r.example:CONFIG TTL 7 COUNT 2")
	w.wait("TTL", func() bool { z := w.zoneOf("r.example"); return z.TTL == 7 && z.Count == 2 })
	w.do("HDEL r.example:CONFIG TTL")
	w.wait("default TTL", func() bool { return w.zoneOf("r.example").TTL == defaultTTL })
	w.do("HINCRBY r.example:CONFIG COUNT 3")
	w.wait("COUNT", func() bool { return w.zoneOf("r.example").Count == 5 })
	w.do("SET geoip:eu node1")
	w.wait("place", func() bool { route, _ := w.Snapshot().Place("eu"); return NameText(route) == "node1" })
	w.do("HDEL r.example:CONFIG SOA")
	w.wait("no zone", func() bool { return w.zoneOf("r.example") == nil })
	if n := w.log.count("level=ERROR"); n > 0 || w.Health().Hold != "" {
		t.Errorf("%d errors, hold %q", n, w.Health().Hold)
	}
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	ctx := t.Context()
	// All or nothing, in one snapshot: whoever sees the pool sees the zone.
	_, err := w.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, "r.example:CONFIG", "SOA", goodSOA)
		p.SAdd(ctx, "r.example:A", "192.0.2.1")
		p.SAdd(ctx, "n.r.example:A", "192.0.2.2")
		p.Set(ctx, "shop.r.example", "n.r.example", 0)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.waitMembers("n.r.example:A", "192.0.2.2")
	if w.zoneOf("r.example") == nil || w.members("r.example:A") != "192.0.2.1" {
		t.Error("a part of a transaction")
	}
	w.wait("sticky name of the new zone", func() bool { return w.sticky("shop.r.example") == "n.r.example" })

	conn := w.client.Conn()
	defer conn.Close()
	for _, command := range []string{"MULTI", "SADD r.example:A 192.0.2.66", "DISCARD", "MULTI", "SADD r.example:A 192.0.2.3", "EXEC"} {
		var args []any
		for word := range strings.FieldsSeq(command) {
			args = append(args, word)
		}
		if err := conn.Do(ctx, args...).Err(); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	w.waitMembers("r.example:A", "192.0.2.1 192.0.2.3")

	// Transactions cannot be nested: the second MULTI is an error within the first.
	for _, command := range []string{"EXEC", "MULTI", "SADD r.example:A 192.0.2.4", "MULTI", "EXEC"} {
		var args []any
		for word := range strings.FieldsSeq(command) {
			args = append(args, word)
		}
		_ = conn.Do(ctx, args...).Err()
	}
	if n := w.client.SIsMember(ctx, "r.example:A", "192.0.2.4").Val(); n {
		w.waitMembers("r.example:A", "192.0.2.1 192.0.2.3 192.0.2.4")
	}
}

func TestScripts(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.doArgs("EVAL", `return redis.call("SADD", KEYS[1], ARGV[1])`, 1, "r.example:A", "192.0.2.1")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.doArgs("EVAL", `redis.call("SADD", "n.r.example:A", "192.0.2.2") return redis.call("DEL", "r.example:A")`, 0)
	w.waitMembers("n.r.example:A", "192.0.2.2")
	w.waitMembers("r.example:A", "")
}

// fill makes a zone and n names with two members each.
func (w *following) fill(n int) {
	w.tb.Helper()
	w.zone("r.example")
	_, err := w.client.Pipelined(w.tb.Context(), func(p redis.Pipeliner) error {
		for i := range n {
			key := "n" + strconv.Itoa(i) + ".r.example:A"
			p.SAdd(w.tb.Context(), key, "192.0.2."+strconv.Itoa(i), "198.51.100."+strconv.Itoa(i))
		}
		return nil
	})
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *following) waitFilled(n int) {
	w.tb.Helper()
	w.wait("lists", func() bool { s := w.Snapshot(); return s != nil && s.MemberCount == 2*n && s.NameCount == n+1 })
}

func TestFlushIsHeldUntilTheListsAreBack(t *testing.T) {
	t.Parallel()
	const n = 20
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.fill(n)
	w.waitFilled(n)
	w.do("FLUSHALL")
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	const held = "flush or full resync: 1 zones, 21 of 21 names, 40 of 40 members missing"
	if h := w.Health(); h.Hold != held || !h.Loaded {
		t.Errorf("%+v; want the hold %q", h, held)
	}
	if w.gauge(metricHold) != 1 || w.log.count("level=ERROR", "mass loss", "razor upstreams accept") != 1 {
		t.Error("the hold is not told")
	}
	w.waitFilled(n) // still there
	// What is written now is obeyed at once.
	w.do("SADD n3.r.example:A 192.0.2.99")
	w.waitMembers("n3.r.example:A", "192.0.2.99")
	if w.members("n4.r.example:A") != "192.0.2.4 198.51.100.4" {
		t.Error("what is missing is lost")
	}
	w.do("DEL n3.r.example:A")
	w.waitMembers("n3.r.example:A", "")
	if w.Health().Hold == "" {
		t.Error("the hold ended early")
	}
	w.fill(n)
	w.wait("end of the hold", func() bool { return w.Health().Hold == "" })
	w.waitFilled(n)
	if w.gauge(metricHold) != 0 || w.log.count("level=INFO", "hold ended", "the lists are back") != 1 {
		t.Error("the end is not told")
	}
	if err := w.Accept(t.Context()); err == nil || err.Error() != "nothing is on hold" {
		t.Errorf("Accept without a hold: %v", err)
	}
}

func TestAcceptEndsHold(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.fill(10)
	w.waitFilled(10)
	w.do("FLUSHDB")
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	w.do("SADD n1.r.example:A 192.0.2.7")
	w.waitMembers("n1.r.example:A", "192.0.2.7")
	if err := w.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := w.Snapshot()
	if s.ZoneCount() != 0 || s.NameCount != 1 || s.MemberCount != 1 || w.Health().Hold != "" {
		t.Errorf("%d zones, %d names, %d members, hold %q", s.ZoneCount(), s.NameCount, s.MemberCount, w.Health().Hold)
	}
	if w.log.count("hold ended", "accepted by the operator") != 1 {
		t.Error("the end is not told")
	}
}

// TestSwapIsHeld checks SWAPDB with an empty database.
func TestSwapIsHeld(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.fill(10)
	w.waitFilled(10)
	w.do("SWAPDB 0 1")
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	w.waitFilled(10)
	w.do("SWAPDB 0 1")
	w.wait("end of the hold", func() bool { return w.Health().Hold == "" })
	w.waitFilled(10)
}

// TestEditsAreNeverHeld removes everything, key by key and at once.
func TestEditsAreNeverHeld(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Rescan: 50 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.fill(10)
	w.waitFilled(10)
	keys := []any{"DEL"}
	for i := range 10 {
		keys = append(keys, "n"+strconv.Itoa(i)+".r.example:A")
	}
	w.doArgs(keys...)
	w.wait("no pools", func() bool { return w.Snapshot().MemberCount == 0 })
	w.do("DEL r.example:CONFIG")
	w.wait("no zone", func() bool { return w.Snapshot().ZoneCount() == 0 && w.Snapshot().NameCount == 0 })
	time.Sleep(150 * time.Millisecond) // some rescans
	if w.log.count("mass loss") > 0 || w.Health().Hold != "" {
		t.Errorf("hold %q", w.Health().Hold)
	}
}

// TestZoneRemovedWithItsStickyNames checks that the sticky names of a zone whose
// CONFIG an operator removed are not taken for lost by the next rescan, and that
// they are there again with the zone.
func TestZoneRemovedWithItsStickyNames(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Rescan: 50 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.zone("a.example")
	w.zone("b.example")
	for i := range 10 {
		w.do("SET s" + strconv.Itoa(i) + ".a.example b.example")
	}
	w.wait("sticky names", func() bool { return w.sticky("s9.a.example") == "b.example" })
	w.do("DEL a.example:CONFIG")
	w.wait("sticky names gone", func() bool { return w.sticky("s9.a.example") == "" && w.Snapshot().NameCount == 1 })
	time.Sleep(150 * time.Millisecond)
	if w.log.count("mass loss") > 0 {
		t.Fatal("the removal of a zone is held")
	}
	w.zone("a.example")
	w.wait("sticky names again", func() bool { return w.sticky("s0.a.example") == "b.example" && w.sticky("s9.a.example") == "b.example" })
}

// TestRenamedZone checks that a zone that takes another one's place in one step has
// its sticky names at once.
func TestRenamedZone(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.zone("a.example")
	w.do("SET s.b.example r.example")
	w.do("SET s.a.example r.example")
	w.wait("sticky name", func() bool { return w.sticky("s.a.example") == "r.example" })
	w.do("RENAME a.example:CONFIG b.example:CONFIG")
	w.wait("sticky name of the other zone", func() bool { return w.sticky("s.b.example") == "r.example" })
	w.wait("the first zone's gone", func() bool { return w.sticky("s.a.example") == "" })
}

// TestExpiry checks that a key whose time has come goes, at the latest with a rescan.
func TestExpiry(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	w := follow(t, e.Addr(), Options{Rescan: 50 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.fill(10)
	w.do("SADD r.example:AAAA 2001:db8::1")
	w.waitMembers("r.example:AAAA", "2001:db8::1")
	w.do("EXPIRE r.example:AAAA 30")
	e.store.FastForward(31 * time.Second)
	w.waitMembers("r.example:AAAA", "")
}

// TestServerWithoutTracking follows a server that cannot name what changes.
func TestServerWithoutTracking(t *testing.T) {
	t.Parallel()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	w := follow(t, m.Addr(), Options{Rescan: time.Hour})
	defer w.stop()
	w.waitLink(LinkPolling)
	w.zone("r.example")
	w.wait("zone", func() bool { return w.zoneOf("r.example") != nil })
	w.do("SADD r.example:A 192.0.2.1")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.do("SET s.r.example x")
	w.wait("sticky name", func() bool { return w.sticky("s.r.example") == "x" })
	m.FlushAll()
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	if w.members("r.example:A") != "192.0.2.1" {
		t.Error("a flush is obeyed")
	}
	if err := w.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := w.Snapshot(); s.NameCount != 0 {
		t.Errorf("%d names after the acceptance", s.NameCount)
	}
}

// TestUnchangedListsMakeNoSnapshot checks that rescans leave a snapshot alone that
// still is what Redis says.
func TestUnchangedListsMakeNoSnapshot(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Rescan: 10 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.fill(3)
	w.do("HSET broken.example:CONFIG SOA x TTL 5")
	w.zone("spoilt.example")
	w.wait("zones", func() bool { return w.zoneOf("spoilt.example") != nil })
	w.do("HSET spoilt.example:CONFIG SOA x TTL 5")
	w.wait("TTL", func() bool { z := w.zoneOf("spoilt.example"); return z != nil && z.TTL == 5 })
	w.wait("lists", func() bool { return w.Snapshot().MemberCount == 6 })
	in := w.Health().InSync
	w.wait("rescans", func() bool { return w.Health().InSync.Sub(in) > 50*time.Millisecond })
	s, in := w.Snapshot(), w.Health().InSync
	w.wait("further rescans", func() bool { return w.Health().InSync.Sub(in) > 100*time.Millisecond })
	if w.Snapshot() != s {
		t.Error("a new snapshot although nothing changed")
	}
}

func TestStoreAwayAndBack(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	addr := e.Addr()
	w := follow(t, addr, Options{StateDir: t.TempDir()})
	w.waitLink(LinkTracking)
	w.fill(5)
	w.waitFilled(5)
	e.Close()
	w.waitLink(LinkDown)
	w.waitFilled(5)
	if err := w.Accept(t.Context()); err == nil || err.Error() != "redis is away: nothing to accept now" {
		t.Errorf("Accept: %v", err)
	}
	// It comes back empty: everything is held.
	again, err := StartEmbedded(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	w.waitLink(LinkTracking)
	w.wait("hold", func() bool { return strings.HasPrefix(w.Health().Hold, "redis link was down: ") })
	w.waitFilled(5)
	w.fill(5)
	w.wait("end of the hold", func() bool { return w.Health().Hold == "" })
	w.waitFilled(5)
	if n := w.log.count("redis link lost"); n != 1 {
		t.Errorf("the loss of the link is told %d times", n)
	}
	w.stop()
}

// TestStartFromDisk checks that the lists outlive a restart without any Redis.
func TestStartFromDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := startEmbedded(t)
	addr := e.Addr()
	w := follow(t, addr, Options{StateDir: dir})
	w.waitLink(LinkTracking)
	w.fill(5)
	w.do("SET shop.r.example n1.r.example")
	w.wait("sticky", func() bool { return w.sticky("shop.r.example") == "n1.r.example" })
	w.stop()
	e.Close()

	w = follow(t, addr, Options{StateDir: dir})
	h := w.Health()
	if !h.FromDisk || !h.Loaded || h.Link != LinkDown || time.Since(h.InSync) > time.Minute {
		t.Errorf("%+v", h)
	}
	if s := w.Snapshot(); s.ZoneCount() != 1 || s.MemberCount != 10 || w.sticky("shop.r.example") != "n1.r.example" {
		t.Errorf("%d zones, %d members, sticky %q", s.ZoneCount(), s.MemberCount, w.sticky("shop.r.example"))
	}
	again, err := StartEmbedded(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	if held := w.Health(); !held.FromDisk || !held.InSync.Equal(h.InSync) {
		t.Errorf("%+v", held)
	}
	w.stop()
}

func TestStartFromADamagedDisk(t *testing.T) {
	t.Parallel()
	dir, data := saved(t, parsedValues(t, everyKind))
	writeFile(t, dir, SnapshotFile, data[:len(data)/2])
	w := follow(t, startEmbedded(t).Addr(), Options{StateDir: dir})
	w.waitLink(LinkTracking)
	if w.log.count("level=ERROR", "cannot be read", "truncated") != 1 {
		t.Error("not told")
	}
	w.fill(2)
	w.waitFilled(2)
	w.stop()
	if _, err := load(dir); err != nil {
		t.Errorf("not written anew: %v", err)
	}
}

// TestDiskThatCannotBeWritten checks that it is said once, and serving goes on.
func TestDiskThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "file", nil)
	w := follow(t, startEmbedded(t).Addr(), Options{StateDir: dir + "/file"})
	w.waitLink(LinkTracking)
	w.fill(2)
	w.waitFilled(2)
	w.wait("told", func() bool { return w.log.count("level=ERROR", "cannot be written") == 1 })
	w.do("SADD r.example:A 192.0.2.1")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.stop()
	if n := w.log.count("cannot be written"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// TestConfiguredZones checks that the configuration says which names are zones,
// and that sticky names are followed below them alone, also before the CONFIG.
func TestConfiguredZones(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Zones: []string{"A.example.", "b.example"}})
	w.waitLink(LinkTracking)
	w.zone("c.example")
	w.do("SET s.c.example x")
	w.do("SET s.a.example x")
	w.wait("sticky name", func() bool { return w.sticky("s.a.example") == "x" })
	if w.Snapshot().ZoneCount() != 0 || w.sticky("s.c.example") != "" {
		t.Errorf("%d zones, sticky %q", w.Snapshot().ZoneCount(), w.sticky("s.c.example"))
	}
	w.zone("a.example")
	w.zone("r.a.example")
	w.do("SADD r.a.example:A 192.0.2.1")
	w.waitMembers("r.a.example:A", "192.0.2.1")
	if z := w.zoneOf("r.a.example"); w.Snapshot().ZoneCount() != 1 || z == nil || z.Text != "a.example" {
		t.Errorf("%d zones, %+v", w.Snapshot().ZoneCount(), z)
	}
	if _, err := NewFollower(Config{}, Options{Zones: []string{"a..b"}}, quiet(), nil); err == nil {
		t.Error("a zone that is no name")
	}
}

// TestEmbeddedTracking checks what the store says to other ways of tracking, and
// that it forgets who has gone.
func TestEmbeddedTracking(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	if other, err := StartEmbedded(e.Addr()); err == nil {
		other.Close()
		t.Error("two stores on one port")
	}
	for _, tt := range []struct {
		protocol int
		args     []any
		good     bool
	}{
		{3, []any{"CLIENT", "TRACKING", "ON", "BCAST"}, true},
		{3, []any{"client", "tracking", "on", "bcast"}, true},
		{2, []any{"CLIENT", "TRACKING", "ON", "BCAST"}, false},
		{3, []any{"CLIENT", "TRACKING", "ON"}, false},
		{3, []any{"CLIENT", "TRACKING", "OFF"}, false},
		{3, []any{"CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "a"}, false},
	} {
		client := redis.NewClient(&redis.Options{Addr: e.Addr(), Protocol: tt.protocol, DisableIdentity: true, PoolSize: 1})
		if err := client.Do(t.Context(), tt.args...).Err(); (err == nil) != tt.good {
			t.Errorf("%v by RESP%d: %v", tt.args, tt.protocol, err)
		}
		_ = client.Close()
	}
	eventually(t, "nobody is told any more", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.trackers) == 0 && len(e.inside) == 0 && len(e.queued) == 0
	})
	// A client that goes within a transaction.
	client := redis.NewClient(&redis.Options{Addr: e.Addr(), DisableIdentity: true, PoolSize: 1})
	for _, command := range []string{"MULTI", "PING"} {
		if err := client.Do(t.Context(), command).Err(); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close()
	eventually(t, "its transaction is forgotten", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.queued) == 0
	})
}
