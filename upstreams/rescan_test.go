package upstreams

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// stepped is a session whose steps the test takes itself, so that it says what
// happens between them.
type stepped struct {
	*following
	*session
	hook *afterScan
}

// afterScan runs a function once, behind the next SCAN of the session.
type afterScan struct {
	mu  sync.Mutex
	run func()
}

func (h *afterScan) do(run func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.run = run
}

func (h *afterScan) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *afterScan) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *afterScan) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		h.mu.Lock()
		run := h.run
		if cmd.Name() == "scan" {
			h.run = nil
		}
		h.mu.Unlock()
		if cmd.Name() == "scan" && run != nil {
			run()
		}
		return err
	}
}

func step(t *testing.T) *stepped {
	t.Helper()
	cfg := Config{Address: startEmbedded(t).Addr()}
	f, err := NewFollower(cfg, Options{}, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := track(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &stepped{
		following: &following{Follower: f, tb: t, log: &logLines{}, client: redis.NewClient(&redis.Options{Addr: cfg.Address, DisableIdentity: true})},
		session:   &session{Follower: f, reader: newReader(client), tracker: tr, saver: newSaver("", quiet(), f.metrics)},
		hook:      &afterScan{},
	}
	client.AddHook(s.hook)
	t.Cleanup(func() {
		tr.close()
		s.saver.stop(false, nil)
		_ = client.Close()
		_ = s.client.Close()
	})
	return s
}

// named waits until Redis has named a key, which stays untaken.
func (s *stepped) named(key string) {
	s.tb.Helper()
	s.wait(key+" is named", func() bool {
		s.tracker.mu.Lock()
		defer s.tracker.mu.Unlock()
		return s.tracker.keys[key]
	})
}

func (s *stepped) rescanned(cause string) {
	s.tb.Helper()
	if err := s.wholesale(s.tb.Context(), cause); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *stepped) notHeld() {
	s.tb.Helper()
	if h := s.session.Health().Hold; h != "" {
		s.tb.Fatalf("hold: %s", h)
	}
}

// TestEditsBeforeARescan checks that keys whose removal was named and not yet
// looked at when a rescan begins are not taken for lost.
func TestEditsBeforeARescan(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	s.waitFilled(10)
	args := []any{"DEL"}
	for i := range 9 {
		args = append(args, "n"+strconv.Itoa(i)+".r.example:A")
	}
	s.doArgs(args...)
	s.named("n8.r.example:A")
	s.rescanned("new zone")
	s.notHeld()
	if n := s.following.Snapshot().MemberCount; n != 2 {
		t.Errorf("%d members; want 2", n)
	}
}

// TestEditsDuringARescan checks that keys removed behind the listing of all keys
// are not taken for lost, and that new ones are there.
func TestEditsDuringARescan(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	s.hook.do(func() {
		args := []any{"DEL"}
		for i := range 9 {
			args = append(args, "n"+strconv.Itoa(i)+".r.example:A")
		}
		s.doArgs(args...)
		s.do("SADD new.r.example:A 192.0.2.200")
		s.do("SET shop.r.example new.r.example")
	})
	s.rescanned("rescan")
	s.notHeld()
	if n := s.following.Snapshot().MemberCount; n != 3 || s.sticky("shop.r.example") != "new.r.example" {
		t.Errorf("%d members, sticky %q", n, s.sticky("shop.r.example"))
	}
}

// TestFlushDuringARescan checks that a flush behind the listing of all keys is a
// flush, and none of what was named before it an edit.
func TestFlushDuringARescan(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	s.hook.do(func() {
		s.do("SADD n1.r.example:A 192.0.2.200")
		s.do("FLUSHALL")
	})
	s.rescanned("rescan")
	if h := s.session.Health().Hold; h != "flush or full resync: 1 zones, 11 of 11 names, 20 of 20 members missing" {
		t.Errorf("hold %q", h)
	}
	s.waitFilled(10)
}

// TestFlushBeforeARescan is the same for what came before the rescan.
func TestFlushBeforeARescan(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	s.do("SADD n1.r.example:A 192.0.2.200")
	s.do("FLUSHALL")
	s.wait("the flush is named", func() bool {
		s.tracker.mu.Lock()
		defer s.tracker.mu.Unlock()
		return s.tracker.flushed
	})
	s.rescanned("rescan")
	if s.session.Health().Hold == "" {
		t.Error("no hold")
	}
	s.waitFilled(10)
}

// TestZoneMadeDuringARescan checks that the sticky names of a zone are there at
// once, also of one that was made behind the listing of all keys.
func TestZoneMadeDuringARescan(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		s := step(t)
		s.zone("a.example")
		s.do("SET s.b.example a.example")
		if !first {
			s.rescanned("start")
		}
		s.hook.do(func() { s.zone("b.example") })
		s.rescanned("rescan")
		s.notHeld()
		if s.zoneOf("b.example") == nil || s.sticky("s.b.example") != "a.example" {
			t.Errorf("at the first rescan %v: sticky %q", first, s.sticky("s.b.example"))
		}
	}
}

// TestZoneRemovedDuringARescan checks that the sticky names of a zone that was
// removed behind the listing of all keys are never taken for lost.
func TestZoneRemovedDuringARescan(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.zone("a.example")
	s.zone("b.example")
	for i := range 10 {
		s.do("SET s" + strconv.Itoa(i) + ".a.example b.example")
	}
	s.rescanned("start")
	s.hook.do(func() { s.do("DEL a.example:CONFIG") })
	s.rescanned("rescan")
	s.notHeld()
	s.rescanned("rescan")
	s.notHeld()
	if n := s.following.Snapshot().NameCount; n != 1 {
		t.Errorf("%d names; want 1", n)
	}
}

// TestSilenceIsALostLink checks that a server that says nothing is given up.
func TestSilenceIsALostLink(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.rescanned("start")
	if err := s.alive(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.tracker.mu.Lock()
	s.tracker.asked, s.tracker.since = s.tracker.replied+1, time.Now().Add(-silenceLimit-time.Second)
	s.tracker.mu.Unlock()
	if err := s.alive(t.Context()); err == nil || err.Error() != "redis does not answer" {
		t.Errorf("%v", err)
	}
}

// TestFlushNamedWithAnEdit checks that the absence of a key which was edited in the
// same moment in which everything was lost is a loss and no edit, in whatever
// order Redis names the two.
func TestFlushNamedWithAnEdit(t *testing.T) {
	t.Parallel()
	const key = "n3.r.example:A"
	for name, happens := range map[string]func(s *stepped) error{
		"the key is named first": func(s *stepped) error {
			s.doArgs("SADD", key, "192.0.2.1")
			s.named(key)
			keys, _ := s.tracker.take()
			s.doArgs("FLUSHALL")
			return s.edit(s.tb.Context(), keys)
		},
		"the flush is named first": func(s *stepped) error {
			s.doArgs("FLUSHALL")
			s.rescanned(causeFlush)
			return s.edit(s.tb.Context(), []string{key})
		},
		"the key is named while it is read": func(s *stepped) error {
			s.doArgs("FLUSHALL")
			s.hook.do(func() {
				s.tracker.mu.Lock()
				defer s.tracker.mu.Unlock()
				s.tracker.keys[key] = true
			})
			s.wait("the flush is named", s.tracker.flushPending)
			return s.invalidated(s.tb.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := step(t)
			s.fill(10)
			s.rescanned("start")
			s.waitFilled(10)
			members := s.following.Snapshot().MemberCount
			if err := happens(s); err != nil {
				t.Fatal(err)
			}
			if s.session.Health().Hold == "" {
				t.Error("not held")
			}
			if n := s.following.Snapshot().MemberCount; n != members {
				t.Errorf("%d members are held, want %d", n, members)
			}
			// Once it is there again, its removal is an edit.
			s.doArgs("SADD", key, "192.0.2.1")
			s.named(key)
			if err := s.invalidated(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.doArgs("DEL", key)
			s.named(key)
			if err := s.invalidated(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.following.Snapshot().MemberCount; n >= members {
				t.Errorf("%d members after the removal, want fewer than %d", n, members)
			}
		})
	}
}

// edited has the session handle what a command changes in a key.
func (s *stepped) edited(key string, args ...any) {
	s.tb.Helper()
	s.doArgs(args...)
	s.named(key)
	if err := s.invalidated(s.tb.Context()); err != nil {
		s.tb.Fatal(err)
	}
}

// TestStickyNamesOfAHeldZone checks that sticky names which are in Redis stay
// when the hold of their zone's CONFIG ends, also where no zone is configured.
func TestStickyNamesOfAHeldZone(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.do("SET s1.r.example n1.r.example")
	s.rescanned("start")
	config := s.client.HGetAll(t.Context(), "r.example:CONFIG").Val()
	s.doArgs("DEL", "r.example:CONFIG")
	s.named("r.example:CONFIG")
	_, _ = s.tracker.take() // as if it had happened in a gap
	s.do("SET s1.r.example n2.r.example")
	s.rescanned("redis link was down")
	if s.session.Health().Hold == "" {
		t.Fatal("not held")
	}
	if got := s.sticky("s1.r.example"); got != "n2.r.example" {
		t.Errorf("during the hold the name is stuck to %q, want what is in Redis", got)
	}
	args := []any{"HSET", "r.example:CONFIG"}
	for f, text := range config {
		args = append(args, f, text)
	}
	s.edited("r.example:CONFIG", args...)
	s.evaluate()
	s.notHeld()
	if got := s.sticky("s1.r.example"); got != "n2.r.example" {
		t.Errorf("after the hold the name is stuck to %q", got)
	}
}

// TestConfigRefilledFieldByField checks that a zone stays while its CONFIG is put
// back one field after the other, and that one without its SOA is a lost zone.
func TestConfigRefilledFieldByField(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	soa := s.client.HGet(t.Context(), "r.example:CONFIG", "SOA").Val()
	s.do("FLUSHALL")
	s.rescanned(causeFlush)
	s.edited("r.example:CONFIG", "HSET", "r.example:CONFIG", "TTL", "7")
	z := s.following.Snapshot().Zone([]byte(mustWire("r.example")))
	if z == nil || z.TTL != 7 {
		t.Fatalf("zone %+v, want it with its new TTL", z)
	}
	s.fill(10)
	s.do("HDEL r.example:CONFIG SOA")
	s.rescanned("rescan")
	if s.session.Health().Hold == "" {
		t.Fatal("the hold ended without the SOA")
	}
	s.edited("r.example:CONFIG", "HSET", "r.example:CONFIG", "SOA", soa, "TTL", "9")
	s.rescanned("rescan")
	s.notHeld()
	if z := s.following.Snapshot().Zone([]byte(mustWire("r.example"))); z == nil || z.TTL != 9 {
		t.Errorf("zone %+v after the hold", z)
	}
	// The same in a gap is a loss.
	s.do("HDEL r.example:CONFIG SOA")
	s.named("r.example:CONFIG")
	_, _ = s.tracker.take()
	s.rescanned("redis link was down")
	if s.session.Health().Hold == "" || s.following.Snapshot().ZoneCount() != 1 {
		t.Error("a zone lost its SOA in a gap, and is not held")
	}
	// Outside of a hold it is an edit.
	s.edited("r.example:CONFIG", "HSET", "r.example:CONFIG", "SOA", soa)
	s.evaluate()
	s.notHeld()
	s.edited("r.example:CONFIG", "HDEL", "r.example:CONFIG", "SOA")
	if s.following.Snapshot().ZoneCount() != 0 {
		t.Error("the removal of an SOA is not obeyed")
	}
}

// TestHoldDoesNotWaitForRemovals checks that members which an operator removes
// during a hold are not missed.
func TestHoldDoesNotWaitForRemovals(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(1)
	members := func(from, n int) []any {
		out := []any{}
		for i := range n {
			out = append(out, "198.18.7."+strconv.Itoa(from+i))
		}
		return out
	}
	sadd := func(key string, from, n int) { s.doArgs(append([]any{"SADD", key}, members(from, n)...)...) }
	sadd("a.r.example:A", 0, 50)
	sadd("b.r.example:A", 50, 50)
	s.rescanned("start")
	s.do("DEL b.r.example:A")
	s.named("b.r.example:A")
	_, _ = s.tracker.take()
	inSync := s.session.Health().InSync
	s.rescanned("redis link was down")
	if h := s.session.Health(); h.Hold == "" || !h.InSync.Equal(inSync) {
		t.Fatalf("not held, or in sync with Redis: %+v", h)
	}
	s.edited("a.r.example:A", append([]any{"SREM", "a.r.example:A"}, members(0, 20)...)...)
	sadd("b.r.example:A", 50, 50)
	s.named("b.r.example:A")
	if err := s.invalidated(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.evaluate()
	s.notHeld()
	if s.sync(); !s.session.Health().InSync.After(inSync) {
		t.Error("not in sync after the hold")
	}
}

// TestBadFieldsKeepTheLastGood checks that a slip in a CONFIG changes nothing.
func TestBadFieldsKeepTheLastGood(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(1)
	s.do("HSET r.example:CONFIG ANSWER geoip TTL 7 NS ns1.example COUNT 3")
	s.rescanned("start")
	zone := func() Zone {
		z := *s.following.Snapshot().Zone([]byte(mustWire("r.example")))
		return z
	}
	before := zone()
	s.edited("r.example:CONFIG", "HSET", "r.example:CONFIG", "ANSWER", "geopi", "TTL", "soon", "NS", "a..b", "COUNT", "0", "SOA", "x")
	s.rescanned("rescan")
	if z := zone(); z.Answer != before.Answer || z.TTL != 7 || z.Count != 3 || len(z.NS) != 1 || !bytes.Equal(z.SOA, before.SOA) {
		t.Errorf("%+v, want %+v", z, before)
	}
	s.edited("r.example:CONFIG", "HSET", "r.example:CONFIG", "ANSWER", "random", "TTL", "8")
	if z := zone(); z.Answer != AnswerRandom || z.TTL != 8 || z.Count != 3 {
		t.Errorf("%+v: good values beside bad ones are not obeyed", z)
	}
	s.edited("r.example:CONFIG", "HDEL", "r.example:CONFIG", "COUNT")
	if z := zone(); z.Count != 1 {
		t.Errorf("%d addresses after COUNT was removed", z.Count)
	}
}

// TestSaveIsTriedAgain checks that what could not be written is written later.
func TestSaveIsTriedAgain(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(3)
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sv := newSaver(dir, quiet(), s.session.metrics)
	s.saver.stop(false, nil)
	s.saver = sv
	s.rescanned("start")
	s.wait("the save has failed", sv.failed.Load)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	s.sync()
	if !s.session.unsaved {
		t.Error("what is not on disk counts as saved")
	}
	sv.next.Store(0)
	s.wait("it is handed over again", func() bool { s.sync(); return !s.session.unsaved })
	s.wait("it is on disk", func() bool { _, err := load(dir); return err == nil })
}

// TestLongEditIsNoSilence checks that a link on which everything asked was
// answered is not given up, however long the session was busy.
func TestLongEditIsNoSilence(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.rescanned("start")
	if err := s.tracker.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.tracker.mu.Lock()
	s.tracker.since = time.Now().Add(-time.Hour)
	s.tracker.mu.Unlock()
	if err := s.alive(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAcceptWhilePolling checks that a hold which a regular rescan began can be
// accepted when the server names no changes any more.
func TestAcceptWhilePolling(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	s.rescanned("start")
	s.do("DEL r.example:CONFIG")
	s.named("r.example:CONFIG")
	_, _ = s.tracker.take()
	s.rescanned(causeNone)
	if s.session.Health().Hold == "" {
		t.Fatal("not held")
	}
	polling := &session{Follower: s.session.Follower, reader: s.reader, saver: s.saver}
	reply := make(chan error, 1)
	if err := polling.accept(t.Context(), reply); err != nil {
		t.Fatal(err)
	}
	if err := <-reply; err != nil || s.session.Health().Hold != "" {
		t.Errorf("accept: %v, hold %q", err, s.session.Health().Hold)
	}
}

// TestGuardsAreBackFirst checks that a hold lasts until skip lists, blackholes
// and states are back: no order of refilling answers an attacked or drained address.
func TestGuardsAreBackFirst(t *testing.T) {
	t.Parallel()
	s := step(t)
	lists := []string{
		"SADD west:A 192.0.2.1 192.0.2.2 192.0.2.4", "SADD east:A 192.0.2.3", "SADD all.r.example:EDGES west east",
	}
	guards := []string{"SADD r.example:A:SKIPLIST 192.0.2.1", "SADD r.example:A:BLACKHOLE 192.0.2.4", "SET east:STATE drained"}
	refill := func(lines ...string) {
		for _, l := range lines {
			s.do(l)
		}
	}
	s.fill(1)
	refill(append(lists, guards...)...)
	s.rescanned("start")
	want := "192.0.2.2"
	if got := answered(s.following.Snapshot(), "all.r.example"); got != want {
		t.Fatalf("answered from %q", got)
	}
	s.do("FLUSHALL")
	s.rescanned(causeFlush)
	s.fill(1)
	refill(lists...)
	s.rescanned("rescan")
	if got := answered(s.following.Snapshot(), "all.r.example"); got != want || s.session.Health().Hold == "" {
		t.Errorf("without skip list, blackhole and state answered from %q, hold %q", got, s.session.Health().Hold)
	}
	refill(guards...)
	s.rescanned("rescan")
	s.notHeld()
	if got := answered(s.following.Snapshot(), "all.r.example"); got != want {
		t.Errorf("after the hold answered from %q", got)
	}
}

// TestEndpointsDoNotDilute checks that many endpoints do not hide the loss of a
// zone's addresses.
func TestEndpointsDoNotDilute(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(1)
	for i := range 50 {
		s.do("SADD app" + strconv.Itoa(i) + ":UPSTREAMS 192.0.2.1:80 192.0.2.2:80")
	}
	s.rescanned("start")
	s.do("DEL n0.r.example:A n0.r.example:AAAA")
	s.named("n0.r.example:AAAA")
	_, _ = s.tracker.take()
	s.rescanned("redis link was down")
	if s.session.Health().Hold == "" {
		t.Error("the loss of all pools is not held")
	}
}
