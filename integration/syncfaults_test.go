package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

func active(s *syncer) func() bool {
	return func() bool { return strings.HasPrefix(s.says(), "ready, active") }
}

// TestSyncOldView: a sync that was cut off from Consul and takes over does not
// write what it knew then.
func TestSyncOldView(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	link := redistest.NewProxy(t, c.Addr)
	for i := range 4 {
		c.Register("web", fmt.Sprint("old-", i), addrPort(i+1))
	}
	first := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	first.until("the first is active", active(first))
	first.until("the list is full", func() bool { return len(members(r, "web.example")) == 4 })
	second := startSync(t, syncConfig(link.Addr, "web.example=web"), r.Addr)
	second.until("the second stands by and knows the list", func() bool {
		return strings.HasPrefix(second.says(), "ready, standby: ") && second.metric(`razor_sync_consul_age_seconds{app="web.example"}`) != ""
	})
	link.Cut()
	second.until("the second tries more and more seldom", func() bool {
		n := second.metric("razor_sync_consul_errors_total")
		return n != "" && n >= "6" && len(n) == 1
	})
	for i := range 4 {
		c.Register("web", fmt.Sprint("new-", i), addrPort(i+11))
	}
	for i := range 4 {
		c.Deregister(fmt.Sprint("old-", i))
	}
	want := []string{"[2001:db8::b]:80", "[2001:db8::c]:80", "[2001:db8::d]:80", "[2001:db8::e]:80"}
	first.has(r, "web.example", want...)
	first.stop()
	link.Heal()
	second.until("the second is active", active(second))
	for deadline := time.Now().Add(7 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got := members(r, "web.example"); !slices.Equal(got, want) {
			t.Fatalf("after the take-over: %q", got)
		}
	}
}

// TestSyncDemotedPrimary: the primary becomes a replica under a sync.
func TestSyncDemotedPrimary(t *testing.T) {
	t.Parallel()
	c, r, other := consultest.Start(t), redistest.Start(t), redistest.Start(t)
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	c.Register("web", "web-1", addrPort(1))
	s.has(r, "web.example", "[2001:db8::1]:80")
	host, port, _ := net.SplitHostPort(other.Addr)
	r.Do("REPLICAOF " + host + " " + port)
	c.Register("web", "web-2", addrPort(2))
	s.has(other, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
}

// TestSyncSentinel: the primary dies, and Sentinel makes a replica the next one.
func TestSyncSentinel(t *testing.T) {
	t.Parallel()
	c, primary := consultest.Start(t), redistest.Start(t)
	replica := primary.Replica()
	sentinel := redistest.Sentinel(t, "lists", primary)
	c.Register("web", "web-1", addrPort(1))
	s := startSyncAs(t, syncConfig(c.Addr, "web.example=web"), upstreams.Config{Address: primary.Addr, Sentinel: sentinelAt(sentinel.Addr)})
	s.has(primary, "web.example", "[2001:db8::1]:80")
	s.has(replica, "web.example", "[2001:db8::1]:80")
	primary.Kill()
	c.Register("web", "web-2", addrPort(2))
	s.has(replica, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
}

// TestSyncRedisRestarts: a quiet list is back soon after Redis came back without it.
func TestSyncRedisRestarts(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	c.Register("web", "web-1", addrPort(1))
	s.has(r, "web.example", "[2001:db8::1]:80")
	base, asked := infoCalls(t, r), 0
	s.until("it has asked who the primary is", func() bool { asked++; return infoCalls(t, r) > base+asked })
	r.Kill()
	r.Restart()
	s.has(r, "web.example", "[2001:db8::1]:80")
}

// infoCalls is how often a server was asked for INFO before.
func infoCalls(t *testing.T, r *redistest.Server) int {
	t.Helper()
	text, err := r.Client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, "cmdstat_info:calls=")
	calls, _, _ := strings.Cut(rest, ",")
	n, _ := strconv.Atoi(calls)
	return n
}

// lossy passes connections on to Redis. While it is on, those that change a set in
// a transaction are cut when that was sent: it is made, and its answer is lost.
type lossy struct {
	addr string
	on   atomic.Bool
}

func newLossy(t *testing.T, target string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &lossy{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go func() { _, _ = io.Copy(client, server); client.Close() }()
			go p.pass(client, server)
		}
	}()
	return p
}

func (p *lossy) pass(client, server net.Conn) {
	defer server.Close()
	defer client.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		text := strings.ToLower(string(b[:n]))
		lose := p.on.Load() && strings.Contains(text, "exec") && strings.Contains(text, "srem")
		if lose {
			client.Close()
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
		if lose {
			time.Sleep(20 * time.Millisecond) // it has to be done
			return
		}
	}
}

// TestSyncLostReply: what may have been done counts for the churn limit, and is in
// the log.
func TestSyncLostReply(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	link := newLossy(t, r.Addr)
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Churn, cfg.Floor = "2", "1"
	c.RegisterMany("web", addrPorts(20))
	s := startSync(t, cfg, link.addr)
	count := func() int { return len(members(r, "web.example")) }
	s.until("the list is full", func() bool { return count() == 20 })
	link.on.Store(true)
	for i := range 12 {
		id := fmt.Sprint("web-", i)
		if _, err := c.Client.Catalog().Deregister(&api.CatalogDeregistration{Node: nodeOf(t, c, id), ServiceID: id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.until("what may be lost is said", func() bool {
		return strings.Count(s.log.String(), "endpoint removed") == 2 && strings.Contains(s.log.String(), "perhaps=")
	})
	link.on.Store(false)
	s.until("the churn limit holds", func() bool { return s.metric(`razor_sync_held{app="web.example",reason="churn"}`) == "1" })
	if n := count(); n != 18 {
		t.Errorf("%d endpoints, 2 of 20 may go in a minute", n)
	}
}

// TestSyncRefused: what Redis refuses was not done, and is said once.
func TestSyncRefused(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	r.Do("ACL SETUSER sync on >secret ~* +@read +@connection +info +@hash +@transaction")
	c.Register("web", "web-1", addrPort(1))
	s := startSyncAs(t, syncConfig(c.Addr, "web.example=web"), upstreams.Config{Address: r.Addr, User: "sync", Password: "secret"})
	s.until("it has tried again", func() bool { return s.metric("razor_sync_redis_errors_total") >= "3" })
	if log := s.log.String(); strings.Count(log, "list not kept") != 1 || !strings.Contains(log, "NOPERM") || strings.Contains(log, "endpoint added") {
		t.Errorf("log:\n%s", log)
	}
	r.Do("ACL SETUSER sync +@set")
	s.has(r, "web.example", "[2001:db8::1]:80")
	s.until("it is in the log", func() bool {
		return strings.Contains(s.log.String(), "endpoint added") && strings.Contains(s.log.String(), "list kept again")
	})
}

// TestSyncOnceRemembersChurn: what one sync took within the minute, the next one
// knows.
func TestSyncOnceRemembersChurn(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	r.Do("HSET web.example:UPSTREAMS:META source consul")
	for i := range 20 {
		r.Do("SADD web.example:UPSTREAMS " + addrPort(i+1).String())
	}
	c.RegisterMany("web", addrPorts(11))
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Churn = "3"
	for range 3 {
		var out bytes.Buffer
		complete, err := newSync(t, cfg, upstreams.Config{Address: r.Addr}).Once(t.Context(), false, &out)
		if err != nil || complete {
			t.Fatalf("complete %v, %v\n%s", complete, err, out.String())
		}
		if n := len(members(r, "web.example")); n != 17 {
			t.Fatalf("%d endpoints, 3 of 20 may go in a minute\n%s", n, out.String())
		}
	}
}

// TestSyncStaleAccept: an operator's word for what is held no longer is no word for
// what comes later.
func TestSyncStaleAccept(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	w := writer(t, upstreams.Config{Address: r.Addr})
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	c.Register("web", "web-1", addrPort(1))
	s.has(r, "web.example", "[2001:db8::1]:80")
	c.Deregister("web-1")
	s.until("held", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	s.stop()
	// The keeper looks, the operator speaks, and the keeper writes, in this order.
	list, err := w.Published(t.Context(), "web.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.AcceptHeld(t.Context(), "web.example"); err != nil {
		t.Fatal(err)
	}
	meta := list.Meta
	meta.Held, meta.Updated = nil, time.Now()
	if err := w.Publish(t.Context(), "web.example", list.Meta, nil, meta); err != nil {
		t.Fatal(err)
	}
	if r.Client.HExists(t.Context(), "web.example:UPSTREAMS:META", "accept").Val() {
		t.Error("the word is still there, and nothing is held")
	}
	r.Do("HSET web.example:UPSTREAMS:META accept 0") // as by hand
	s = startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	s.until("held again", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	s.has(r, "web.example", "[2001:db8::1]:80")
	if r.Client.HExists(t.Context(), "web.example:UPSTREAMS:META", "accept").Val() {
		t.Error("the word that was not obeyed is still there")
	}
}

// TestSyncHeldListTaken: an operator takes a list that is held.
func TestSyncHeldListTaken(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	c.Register("web", "web-1", addrPort(1))
	s.has(r, "web.example", "[2001:db8::1]:80")
	c.Deregister("web-1")
	s.until("held", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	r.Do("HSET web.example:UPSTREAMS:META source operator")
	s.until("it lets go", func() bool { return strings.HasSuffix(s.says(), "1 lists, not kept: web.example") })
	if got := s.metric(`razor_sync_held{app="web.example",reason="empty"}`); got != "" {
		t.Errorf("held metric: %q", got)
	}
	w := writer(t, upstreams.Config{Address: r.Addr})
	if _, err := w.AcceptHeld(t.Context(), "web.example"); err == nil {
		t.Error("an operator's list takes the word of accept")
	}
}

// TestSyncOddMeta: a META that does not say whose the list is.
func TestSyncOddMeta(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	r.Do("HSET web.example:UPSTREAMS:META source Operator")
	c.Register("web", "web-1", addrPort(1))
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	s.until("it says so", func() bool { return strings.HasSuffix(s.says(), "not kept: web.example") })
	if got := members(r, "web.example"); len(got) != 0 {
		t.Errorf("written: %q", got)
	}
}

// TestSyncWithoutConsul: what is said while nobody knows who has the lock.
func TestSyncWithoutConsul(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	cfg := syncConfig(freeAddr(t), "web.example=web")
	_, err := newSync(t, cfg, upstreams.Config{Address: r.Addr}).Once(t.Context(), false, &bytes.Buffer{})
	if err == nil || err.Error() != "no word from consul of the lock razor/sync" {
		t.Errorf("once: %v", err)
	}
	var out bytes.Buffer
	complete, err := newSync(t, cfg, upstreams.Config{Address: r.Addr}).Once(t.Context(), true, &out)
	if err != nil || complete || !strings.Contains(out.String(), "web.example: Get ") || !strings.Contains(out.String(), "1 not read") {
		t.Errorf("dry run: complete %v, %v\n%s", complete, err, out.String())
	}
	s := startSync(t, cfg, r.Addr)
	s.until("it says so", func() bool { return s.says() == "not ready: no word from consul of the lock razor/sync" })
}

// TestSyncStopsAnyTime: whenever a sync is stopped, nothing of it stays in Consul.
func TestSyncStopsAnyTime(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	for d := time.Millisecond; d < 60*time.Millisecond; d += 3 * time.Millisecond {
		s := newSync(t, syncConfig(c.Addr, "web.example=web"), upstreams.Config{Address: r.Addr})
		ctx, cancel := context.WithTimeout(t.Context(), d)
		if err := s.Run(ctx, s.report); err != nil {
			t.Error(err)
		}
		cancel()
	}
	await(t, "nothing of them in Consul", func() bool {
		services, err := c.Client.Agent().Services()
		sessions, _, err2 := c.Client.Session().List(nil)
		return err == nil && err2 == nil && len(services) == 0 && len(sessions) == 0
	})
}
