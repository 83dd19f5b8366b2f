package integration

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// prober asks for names all the time, and notes every query that is not answered
// with addresses.
type prober struct {
	stop   func()
	forbid []netip.Addr // answers with one of them are noted as well

	mu    sync.Mutex
	asked int
	bad   []string
}

func (n *nameserver) probe(names ...string) *prober { return n.probeFor(nil, names...) }

// probeFor is probe that also notes answers with addresses that must not be given.
func (n *nameserver) probeFor(forbid []netip.Addr, names ...string) *prober {
	p := &prober{forbid: forbid}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				p.one(n, name, []string{"A", "AAAA"}[i%2], []string{"udp", "udp", "tcp"}[i%3])
				time.Sleep(time.Millisecond)
			}
		})
	}
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.tb.Cleanup(p.stop)
	return p
}

func (p *prober) one(n *nameserver, name, qtype, network string) {
	m, err := n.exchange(network, question(name, qtype))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	switch {
	case err != nil:
		p.bad = append(p.bad, fmt.Sprintf("%s %s: %v", name, qtype, err))
	case m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 || slices.ContainsFunc(addresses(m), func(a netip.Addr) bool { return slices.Contains(p.forbid, a) }):
		p.bad = append(p.bad, fmt.Sprintf("%s %s: %s", name, qtype, outcome(m)))
	}
}

// unharmed ends the prober: all queries had addresses.
func (n *nameserver) unharmed(p *prober) {
	n.tb.Helper()
	n.until("enough is asked", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.asked >= 20 })
	p.stop()
	if len(p.bad) > 0 {
		n.tb.Errorf("%d of %d queries without a right answer, the first: %s", len(p.bad), p.asked, p.bad[0])
	}
}

const routes = 10

// fill writes a zone with ten routes of ten addresses each family.
func fill(s *redistest.Server) {
	config(s, "z.example")
	for i := range routes {
		fillRoute(s, i)
	}
}

func fillRoute(s *redistest.Server, i int) {
	s.DoArgs(append([]any{"SADD", route(i) + ":A"}, redistest.Members(false, 100*i, 10)...)...)
	s.DoArgs(append([]any{"SADD", route(i) + ":AAAA"}, redistest.Members(true, 100*i, 10)...)...)
}

// held tells whether the mass loss is on hold, seen in all three places.
func (n *nameserver) held() bool {
	ok, state := n.readiness()
	return ok && strings.Contains(state, "on hold") && n.metric("razor_upstreams_hold") == 1 && strings.Contains(n.log.String(), "not obeyed: hold")
}

func (n *nameserver) awaitHold() { n.tb.Helper(); n.until("on hold", n.held) }
func (n *nameserver) awaitNoHold() {
	n.tb.Helper()
	n.until("hold ended", func() bool { return n.metric("razor_upstreams_hold") == 0 })
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// redisCLI pipes a file into the server.
func redisCLI(t *testing.T, s *redistest.Server, file string) {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command("redis-cli", "-h", s.Host, "-p", strconv.Itoa(s.Port), "--pipe")
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "errors: 0") {
		t.Fatalf("redis-cli --pipe: %v\n%s", err, out)
	}
}

func route(i int) string { return fmt.Sprintf("n%d.z.example", i) }

func faultServer(t *testing.T, s *redistest.Server) *nameserver {
	t.Helper()
	return startReady(t, s.Addr, zones("z.example"))
}

// What happens to Redis, and what the hold makes of it. Queries are asked all
// the while, and every one must be answered with addresses.
func TestFaults(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name  string
		event func(t *testing.T, n *nameserver, s *redistest.Server)
	}{
		{"killed, started again empty, refilled", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Kill()
			n.until("the link is seen to be down", func() bool { _, text := n.readiness(); return strings.Contains(text, "does not answer") })
			s.Restart()
			n.awaitHold()
			fill(s)
			n.awaitNoHold()
		}},
		{"killed, started again with its data", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Do("SAVE")
			s.Kill()
			time.Sleep(300 * time.Millisecond)
			s.Restart()
			n.until("following again", func() bool { return strings.Count(n.log.String(), "following redis") == 2 })
			if n.held() {
				t.Error("held although nothing was lost")
			}
			s.Do("SADD n0.z.example:A 192.0.2.1")
			n.until("edits are obeyed", func() bool { return n.draws(1, "n0.z.example", "A")[addr("192.0.2.1")] == 1 })
		}},
		{"stalled by DEBUG SLEEP", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Do("DEBUG SLEEP 2")
			s.Do("SADD n0.z.example:A 192.0.2.1")
			n.until("edits are obeyed", func() bool { return n.draws(1, "n0.z.example", "A")[addr("192.0.2.1")] == 1 })
		}},
		{"stopped and continued", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Stop()
			n.until("the link is seen to be down", func() bool { _, text := n.readiness(); return strings.Contains(text, "does not answer") })
			s.Continue()
			s.Do("SADD n0.z.example:A 192.0.2.1")
			n.until("edits are obeyed", func() bool { return n.draws(1, "n0.z.example", "A")[addr("192.0.2.1")] == 1 })
			if n.held() {
				t.Error("held although nothing was lost")
			}
		}},
		{"emptied by FLUSHALL, half refilled, refilled", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Do("FLUSHALL")
			n.awaitHold()
			config(s, "z.example")
			for i := range routes / 2 {
				fillRoute(s, i)
			}
			time.Sleep(1500 * time.Millisecond)
			if !n.held() {
				t.Error("the hold ended with half of the lists back")
			}
			for i := range routes - 1 { // 90 %
				fillRoute(s, i)
			}
			n.awaitNoHold()
			n.eventually(route(9), "A", "NXDOMAIN (SOA)")
			fillRoute(s, 9)
			n.until("the last is back", func() bool { return len(addresses(n.ask(route(9), "A"))) == 1 })
		}},
		{"emptied by FLUSHDB, and keys there override", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Do("FLUSHDB")
			n.awaitHold()
			s.Do("SADD n0.z.example:A 192.0.2.1")
			n.eventually("n0.z.example", "A", "NOERROR 192.0.2.1")
			s.Do("SADD n0.z.example:A 192.0.2.2")
			s.Do("SREM n0.z.example:A 192.0.2.1")
			n.eventually("n0.z.example", "A", "NOERROR 192.0.2.2")
			if !n.held() {
				t.Error("an edit ended the hold")
			}
			fill(s)
			n.awaitNoHold()
		}},
		{"the zone's CONFIG lost over a restart", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Kill()
			s.Restart()
			for i := range routes {
				fillRoute(s, i)
			}
			n.awaitHold()
			time.Sleep(1500 * time.Millisecond)
			if !n.held() {
				t.Error("the hold ended without the zone")
			}
			config(s, "z.example")
			n.awaitNoHold()
		}},
		{"a tenth lost over a restart is obeyed", func(t *testing.T, n *nameserver, s *redistest.Server) {
			s.Kill()
			// Nothing of the old life is seen but what the snapshot says.
			s.Restart()
			refill := s.Client.TxPipeline()
			refill.HSet(context.Background(), "z.example:CONFIG", "SOA", soa)
			for i := range routes - 1 {
				refill.SAdd(context.Background(), route(i)+":A", redistest.Members(false, 100*i, 10)...)
				refill.SAdd(context.Background(), route(i)+":AAAA", redistest.Members(true, 100*i, 10)...)
			}
			if _, err := refill.Exec(context.Background()); err != nil {
				t.Fatal(err)
			}
			n.eventually(route(9), "A", "NXDOMAIN (SOA)")
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "--dbfilename", "dump.rdb")
			fill(s)
			n := faultServer(t, s)
			p := n.probe(route(0), route(1))
			row.event(t, n, s)
			n.unharmed(p)
		})
	}
}

// Edits are obeyed however many they are, also the removal of the last member.
func TestEditsAreNeverHeld(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	n := faultServer(t, s)
	s.Do("DEL n0.z.example:A n1.z.example:A n2.z.example:A n3.z.example:A n4.z.example:A")
	for i := range 5 {
		n.eventually(route(i), "A", "NOERROR (SOA)")
	}
	// SCAN and DEL of everything but the zone, as a script does it.
	for cursor := uint64(0); ; {
		keys, next, err := s.Client.Scan(t.Context(), cursor, "n*", 3).Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) > 0 {
			if err := s.Client.Del(t.Context(), keys...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for i := range routes {
		n.eventually(route(i), "AAAA", "NXDOMAIN (SOA)")
	}
	s.Do("DEL z.example:CONFIG")
	n.eventually("z.example", "SOA", "REFUSED")
	if strings.Contains(n.log.String(), "hold") {
		t.Errorf("an edit was held:\n%s", n.log)
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	n := faultServer(t, s)
	if _, err := upstreams.AcceptLive(t.Context(), n.stateDir); err == nil || !strings.Contains(err.Error(), "nothing is on hold") {
		t.Errorf("accept without a hold: %v", err)
	}
	s.Do("FLUSHALL")
	n.awaitHold()
	config(s, "z.example")
	fillRoute(s, 3)
	n.until("what is there is read", func() bool { _, text := n.readiness(); return strings.Contains(text, "9 of 11 names") })
	if len(addresses(n.ask(route(5), "A"))) != 1 {
		t.Error("the hold does not keep what is missing")
	}
	text, err := upstreams.AcceptLive(t.Context(), n.stateDir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "accepted: 1 zones") {
		t.Errorf("accept says %q", text)
	}
	n.eventually(route(5), "A", "NXDOMAIN (SOA)")
	n.awaitNoHold()
	if len(addresses(n.ask(route(3), "A"))) != 1 {
		t.Error("what is there was lost")
	}
}

// razor is started while Redis is away: the snapshot on disk serves.
func TestStartFromDisk(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	n := faultServer(t, s)
	s.Do("SADD n0.z.example:A 192.0.2.1")
	n.until("the edit is seen", func() bool { return n.metric("razor_upstreams_members") == routes*20+1 })
	n.stop()
	s.Kill()
	dir := n.stateDir
	again := func() *nameserver {
		return start(t, s.Addr, func(c *razor.Config) { c.Zones, c.StateDir = []string{"z.example"}, dir })
	}
	n = again()
	n.until("ready from disk", func() bool { ok, text := n.readiness(); return ok && strings.Contains(text, "from disk") })
	if got := n.draws(500, "n0.z.example", "A"); len(got) != 11 {
		t.Errorf("drawn of the snapshot on disk: %v", got)
	}
	// Redis comes back empty: what is on disk is held.
	s.Restart()
	n.awaitHold()
	if len(addresses(n.ask(route(5), "A"))) != 1 {
		t.Error("the snapshot from disk was emptied")
	}
	n.stop()

	// A hold survives a restart of razor.
	n = again()
	n.awaitHold()
	n.stop()

	// A broken file is said and not used.
	s.Kill()
	file := filepath.Join(dir, upstreams.SnapshotFile)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	n = again()
	if got := outcome(n.ask(route(5), "A")); got != "SERVFAIL" {
		t.Errorf("without any snapshot: %s, want SERVFAIL", got)
	}
	if ok, _ := n.readiness(); ok || !strings.Contains(n.log.String(), "cannot be read") {
		t.Errorf("ready %v with a broken snapshot and no Redis\n%s", ok, n.log)
	}
	s.Restart()
	fill(s)
	n.until("it recovers", func() bool { return len(addresses(n.ask(route(5), "A"))) == 1 })
}

// The snapshot on disk can be piped into Redis.
func TestSnapshotRefillsRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	n := faultServer(t, s)
	file := filepath.Join(n.stateDir, upstreams.SnapshotFile)
	n.until("the snapshot is on disk", func() bool { _, err := os.Stat(file); return err == nil })
	s.Do("FLUSHALL")
	n.awaitHold()
	redisCLI(t, s, file)
	n.awaitNoHold()
	if got := n.metric("razor_upstreams_members"); got != routes*20 {
		t.Errorf("%v members back, want %d", got, routes*20)
	}
}

// A state directory that cannot be written hinders no answer.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := startReady(t, s.Addr, func(c *razor.Config) { c.Zones, c.StateDir = []string{"z.example"}, filepath.Join(file, "below") })
	n.until("said once", func() bool { return n.metric("razor_upstreams_save_errors_total") >= 1 })
	s.Do("SADD n0.z.example:A 192.0.2.1")
	n.until("a second try fails", func() bool { return n.metric("razor_upstreams_save_errors_total") >= 2 })
	if c := strings.Count(n.log.String(), "cannot be written"); c != 1 {
		t.Errorf("said %d times, want once", c)
	}
	if len(addresses(n.ask(route(5), "A"))) != 1 {
		t.Error("no answer")
	}
}

// TestHoldAnswersNothingAttacked: half a skip list, put back first, does not answer
// what the other half keeps from being answered, nor ends the hold; an edit does.
func TestHoldAnswersNothingAttacked(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	fill(s)
	const pool = "attacked.z.example"
	s.Do("SADD " + pool + ":A 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4")
	skip := append(redistest.Members(false, 50_000, 1500), "192.0.2.1", "192.0.2.2")
	s.DoArgs(append([]any{"SADD", "z.example:A:SKIPLIST"}, skip...)...)
	s.Do("SADD z.example:A:BLACKHOLE 192.0.2.3 198.51.100.1")
	n := startReady(t, s.Addr, zones("z.example"))
	only := func(want ...string) {
		t.Helper()
		for range 200 {
			for _, a := range addresses(n.ask(pool, "A")) {
				if !slices.Contains(want, a.String()) {
					t.Fatalf("%v is answered", a)
				}
			}
		}
	}
	only("192.0.2.4")
	s.Do("FLUSHDB")
	n.awaitHold()
	s.DoArgs(append([]any{"SADD", "z.example:A:SKIPLIST"}, skip[:1000]...)...)
	s.Do("SADD z.example:A:BLACKHOLE 198.51.100.1")
	fill(s)
	s.Do("SADD " + pool + ":A 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4")
	n.until("the lists are back but for what guards", func() bool { _, state := n.readiness(); return strings.Contains(state, ": 0 zones, 0 of ") })
	only("192.0.2.4")
	s.DoArgs(append([]any{"SADD", "z.example:A:SKIPLIST"}, skip[1000:]...)...)
	n.until("the skip list is back", func() bool { _, state := n.readiness(); return strings.Contains(state, ", 1 skip lists") })
	s.Do("SREM z.example:A:SKIPLIST 192.0.2.2") // as an operator wants it
	n.eventually(pool, "A", "NOERROR 192.0.2.2")
	only("192.0.2.2", "192.0.2.4")
	if !n.held() {
		t.Error("the hold ended without the blackhole")
	}
	s.Do("SADD z.example:A:BLACKHOLE 192.0.2.3")
	n.awaitNoHold()
	only("192.0.2.2", "192.0.2.4")
}
