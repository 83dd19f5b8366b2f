package upstreams

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func writeFile(tb testing.TB, dir, name string, data []byte) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// TestDefectsAreToldOnce checks that a bad member is left out alone, told when it
// appears, counted as long as it is there, and not told again by rescans.
func TestDefectsAreToldOnce(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Rescan: 20 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.fill(5)
	w.do("SADD r.example:A 192.0.2.1 192.0.2.02 localhost")
	w.waitMembers("r.example:A", "192.0.2.1")
	rejected := func(n float64) {
		t.Helper()
		w.wait(strconv.Itoa(int(n))+" rejected", func() bool { return w.gauge(metricRejected) == n })
	}
	rejected(2)
	time.Sleep(100 * time.Millisecond) // some rescans
	w.do("SADD r.example:A 192.0.2.3")
	w.waitMembers("r.example:A", "192.0.2.1 192.0.2.3")
	for _, member := range []string{"192.0.2.02", "localhost"} {
		if n := w.log.count("left out", "key=r.example:A", "member="+member); n != 1 {
			t.Errorf("%s is told %d times", member, n)
		}
	}
	w.do("SADD r.example:A 192.0.2.x")
	rejected(3)
	if n := w.log.count("left out"); n != 3 {
		t.Errorf("%d lines; want one for each defect", n)
	}
	w.do("SREM r.example:A 192.0.2.02")
	rejected(2)
	w.do("SADD r.example:A 192.0.2.02")
	rejected(3)
	if n := w.log.count("left out", "member=192.0.2.02"); n != 2 {
		t.Errorf("told %d times; want again when it comes again", n)
	}
	w.do("DEL r.example:A")
	rejected(0)
}

// TestManyDefectsOfAKey checks that one key does not fill the log.
func TestManyDefectsOfAKey(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	args := []any{"SADD", "r.example:A", "192.0.2.1"}
	for i := range 100 {
		args = append(args, "bad"+strconv.Itoa(i))
	}
	w.doArgs(args...)
	w.waitMembers("r.example:A", "192.0.2.1")
	w.wait("rejected", func() bool { return w.gauge(metricRejected) == 100 })
	if n := w.log.count("msg=\"left out\""); n != maxReports {
		t.Errorf("%d lines; want %d", n, maxReports)
	}
	if n := w.log.count("more is left out of this key", "defects=100"); n != 1 {
		t.Errorf("the rest is told %d times", n)
	}
}

// TestGoodValuesAreKept checks what a key that cannot be used any more leaves.
func TestGoodValuesAreKept(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{Rescan: 50 * time.Millisecond})
	w.waitLink(LinkTracking)
	w.zone("r.example", "TTL", "5", "NS", "ns1.example")
	w.fill(5)
	w.do("SADD r.example:A 192.0.2.1")
	w.do("SADD r.example:A:SKIPLIST 192.0.2.1")
	w.do("SADD r.example:GROUPS g1")
	w.do("SET geoip:eu node1")
	w.do("SET s.r.example node1")
	w.wait("all", func() bool { return w.sticky("s.r.example") == "node1" })
	still := func(what string) {
		t.Helper()
		time.Sleep(120 * time.Millisecond) // some rescans
		if w.members("r.example:A") != "192.0.2.1" {
			t.Errorf("%s: pool %q", what, w.members("r.example:A"))
		}
		z := w.zoneOf("r.example")
		if z == nil {
			t.Fatalf("%s: no zone", what)
		}
		n := w.Snapshot().Name([]byte(wire(t, "r.example")))
		if w.Snapshot().Emptied != 1 || n.Groups == nil || n.Groups.Names()[0] != "g1" {
			t.Errorf("%s: %d emptied, groups %v", what, w.Snapshot().Emptied, n.Groups)
		}
		if route, _ := w.Snapshot().Place("eu"); NameText(route) != "node1" || w.sticky("s.r.example") != "node1" {
			t.Errorf("%s: place %q, sticky %q", what, route, w.sticky("s.r.example"))
		}
		if w.Health().Hold != "" {
			t.Errorf("%s: hold %q", what, w.Health().Hold)
		}
	}
	rejected := func(n float64) {
		t.Helper()
		w.wait(strconv.Itoa(int(n))+" rejected", func() bool { return w.gauge(metricRejected) == n })
	}

	// Only rubbish in every key.
	for _, key := range []string{"r.example:A", "r.example:A:SKIPLIST"} {
		w.do("SADD " + key + " rubbish")
	}
	rejected(2)
	w.do("SREM r.example:A 192.0.2.1")
	w.do("SREM r.example:A:SKIPLIST 192.0.2.1")
	w.do("SADD r.example:GROUPS .")
	w.do("SREM r.example:GROUPS g1")
	w.do("SET geoip:eu a..b")
	w.do("SET s.r.example a..b")
	rejected(5)
	still("rubbish")

	// Another type under every key.
	for _, key := range []string{"r.example:A", "r.example:A:SKIPLIST", "r.example:GROUPS", "geoip:eu", "s.r.example", "r.example:CONFIG"} {
		w.do("DEL x")
		w.do("LPUSH x y")
		w.do("RENAME x " + key)
	}
	rejected(6)
	still("another type")
	if z := w.zoneOf("r.example"); z.TTL != 5 || len(z.NS) != 1 {
		t.Errorf("%+v", z)
	}

	// A broken SOA beside fields that are obeyed.
	w.do("DEL r.example:CONFIG")
	w.wait("no zone", func() bool { return w.zoneOf("r.example") == nil })
	w.zone("r.example", "TTL", "5")
	w.wait("zone", func() bool { return w.zoneOf("r.example") != nil })
	w.do("HSET r.example:CONFIG SOA broken TTL 6")
	w.wait("TTL", func() bool { z := w.zoneOf("r.example"); return z != nil && z.TTL == 6 })
	soa, _ := soaRDATA(goodSOA)
	time.Sleep(120 * time.Millisecond)
	if z := w.zoneOf("r.example"); string(z.SOA) != string(soa) || z.TTL != 6 {
		t.Errorf("%+v", z)
	}
	if n := w.log.count("left out", "SOA broken"); n != 1 {
		t.Errorf("the SOA is told %d times", n)
	}
	// Good values end all that.
	w.do("HSET r.example:CONFIG SOA " + "x") // as broken as before
	w.doArgs("HSET", "r.example:CONFIG", "SOA", "ns9.example. hostmaster.example. 1 2 3 4 5")
	w.wait("the new SOA", func() bool { return soaMinimum(w.zoneOf("r.example").SOA) == 5 })
	w.do("DEL r.example:A")
	w.waitMembers("r.example:A", "")
	w.do("SADD r.example:A 192.0.2.8")
	w.waitMembers("r.example:A", "192.0.2.8")
}

// TestTwoSpellingsOfAKey checks that the spelling by the book wins, and that the
// other one is told and takes its place when it goes.
func TestTwoSpellingsOfAKey(t *testing.T) {
	t.Parallel()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.zone("R.Example")
	w.wait("zone", func() bool { return w.zoneOf("r.example") != nil })
	w.do("SADD R.example:A 192.0.2.1 bad")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.wait("rejected", func() bool { return w.gauge(metricRejected) == 1 })
	w.do("SADD r.example:A 192.0.2.2")
	w.waitMembers("r.example:A", "192.0.2.2")
	w.wait("told", func() bool {
		return w.log.count("key=R.example:A", "another spelling of r.example:A, which is used") == 1
	})
	w.wait("only that is rejected", func() bool { return w.gauge(metricRejected) == 1 })
	w.do("DEL r.example:A")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.do("SREM R.example:A bad")
	w.wait("nothing rejected", func() bool { return w.gauge(metricRejected) == 0 })
	w.do("SADD R.EXAMPLE:A 192.0.2.3 bad")
	w.wait("the third", func() bool { return w.gauge(metricRejected) > 0 })
	w.do("DEL R.EXAMPLE:A")
	w.waitMembers("r.example:A", "192.0.2.1")
	w.do("DEL R.example:A")
	w.waitMembers("r.example:A", "")
	w.wait("nothing rejected at the end", func() bool { return w.gauge(metricRejected) == 0 })
}

// TestKeysThatOnlyLookLikeOurs checks that they are told by an edit as by a scan,
// and forgotten when they go.
func TestKeysThatOnlyLookLikeOurs(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t)
	keys := []string{"n.r.example:a", "n.r.example:SKIPLIST", "n..r.example:A", "r.example.:CONFIG", "geoip:eu:lt:vl:x"}
	w := follow(t, e.Addr(), Options{})
	w.waitLink(LinkTracking)
	w.zone("r.example")
	w.wait("zone", func() bool { return w.zoneOf("r.example") != nil })
	for i, key := range keys {
		w.do("SET " + key + " x")
		w.wait(key+" is told", func() bool { return w.gauge(metricRejected) == float64(i+1) })
		if w.log.count("left out", "key="+key) != 1 {
			t.Errorf("%s is not told", key)
		}
	}
	scan := follow(t, e.Addr(), Options{})
	scan.waitLink(LinkTracking)
	if n := scan.gauge(metricRejected); n != float64(len(keys)) {
		t.Errorf("a scan finds %v of %d", n, len(keys))
	}
	for i, key := range keys {
		w.do("DEL " + key)
		w.wait(key+" is forgotten", func() bool { return w.gauge(metricRejected) == float64(len(keys)-1-i) })
	}
	w.do("SET session:17 x")
	w.do("SET two.words.elsewhere x")
	w.do("SADD r.example:EDGES e1")
	w.do("SADD r.example:A 192.0.2.1")
	w.waitMembers("r.example:A", "192.0.2.1")
	if n := w.gauge(metricRejected); n != 0 {
		t.Errorf("%v of others' keys are rejected", n)
	}
}
