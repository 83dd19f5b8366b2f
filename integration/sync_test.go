package integration

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

func TestSyncFollowsConsul(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	follower := follow(t, upstreams.Config{Address: r.Addr}, upstreams.Options{})

	c.Register("web", "web-1", addrPort(1), func(r *api.AgentServiceRegistration) {
		r.Meta = map[string]string{"site": "east", "sid": "2001:db8:1::100"}
		r.Weights = &api.AgentWeights{Passing: 10, Warning: 2}
	})
	c.Register("web", "web-2", addrPort(2))
	s.has(r, "web.example", "[2001:db8::1]:80 weight=10 sid=2001:db8:1::100 site=east", "[2001:db8::2]:80")
	c.Warn("web-1")
	s.has(r, "web.example", "[2001:db8::1]:80 weight=2 sid=2001:db8:1::100 site=east", "[2001:db8::2]:80")
	c.Fail("web-1")
	s.has(r, "web.example", "[2001:db8::2]:80")
	c.Pass("web-1")
	s.has(r, "web.example", "[2001:db8::1]:80 weight=10 sid=2001:db8:1::100 site=east", "[2001:db8::2]:80")
	c.Deregister("web-2")
	s.has(r, "web.example", "[2001:db8::1]:80 weight=10 sid=2001:db8:1::100 site=east")

	wire, _ := upstreams.WireName("web.example")
	s.until("the follower has it", func() bool {
		snap := follower.Snapshot()
		u := snap.Upstream(wire)
		return u != nil && len(u.Endpoints) == 1 && u.Source == upstreams.SourceConsul && u.Endpoints[0].Site == "east"
	})
	for _, line := range []string{
		`msg="endpoint added" app=web.example who=`,
		`msg="endpoint changed"`, `was="[2001:db8::1]:80 weight=10 sid=2001:db8:1::100 site=east" why="warning: Service 'web' check"`,
		`msg="endpoint removed"`, `why="critical: Service 'web' check"`, `endpoint=[2001:db8::2]:80 why=deregistered`,
	} {
		s.until(line+" is in the log", func() bool { return strings.Contains(s.log.String(), line) })
	}
	for series, want := range map[string]string{
		"razor_sync_active":                              "1",
		`razor_sync_endpoints{app="web.example"}`:        "1",
		`razor_sync_wanted_endpoints{app="web.example"}`: "1",
		`razor_sync_list_kept{app="web.example"}`:        "1",
	} {
		if got := s.metric(series); got != want {
			t.Errorf("%s: %q, want %q", series, got, want)
		}
	}
	s.until("it says so", func() bool { return s.says() == "ready, active: 1 lists" })
}

// TestSyncHoldsMassDeregistration: 90 of 100 vanish from Consul at once.
func TestSyncHoldsMassDeregistration(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Churn = "100%"
	c.RegisterMany("web", addrPorts(100))
	s := startSync(t, cfg, r.Addr)
	count := func(n int) func() bool { return func() bool { return len(members(r, "web.example")) == n } }
	s.until("the list is full", count(100))

	entries, _, err := c.Client.Health().Service("web", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ops api.TxnOps
	for _, e := range entries[:90] {
		ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceDelete, Node: e.Node.Node, Service: api.AgentService{ID: e.Service.ID, Service: "web"}}})
	}
	if ok, answer, _, err := c.Client.Txn().Txn(ops, nil); err != nil || !ok {
		t.Fatal(err, answer.Errors[0].What)
	}
	s.until("the list is held", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	for range 300 {
		if n := len(members(r, "web.example")); n < 50 {
			t.Fatalf("%d endpoints left", n)
		}
		time.Sleep(time.Millisecond)
	}
	s.until("the floor is reached", count(50))
	s.until("the metric says so", func() bool { return s.metric(`razor_sync_held{app="web.example",reason="floor"}`) == "1" })
	if !strings.Contains(s.log.String(), `level=ERROR msg="list held: consul takes out more than its floor lets through" app=web.example reason=floor consul=10`) {
		t.Errorf("no alarm in the log:\n%s", s.log)
	}
	held := r.Client.HGet(t.Context(), "web.example:UPSTREAMS:META", "held").Val()
	if !strings.HasPrefix(held, "floor wanted=10 since=") {
		t.Errorf("META says held %q", held)
	}

	// What comes from Consul is taken meanwhile.
	c.Register("web", "more", addrPort(1000))
	s.until("a new one is in, an old one out", func() bool {
		m := members(r, "web.example")
		return len(m) == 50 && slices.Contains(m, addrPort(1000).String())
	})

	// Another sync takes over, and knows what the list was.
	s.stop()
	s = startSync(t, cfg, r.Addr)
	s.until("the next one holds it too", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	if !count(50)() {
		t.Errorf("%d endpoints after a take-over", len(members(r, "web.example")))
	}

	operator := newSync(t, cfg, upstreams.Config{Address: r.Addr})
	accept := func(apps ...string) ([]string, error) {
		var said []string
		err := operator.Accept(t.Context(), apps, func(app string, h upstreams.Held) {
			said = append(said, fmt.Sprintf("%s %s %d", app, h.Reason, h.Wanted))
		})
		return said, err
	}
	if said, err := accept("web.example"); err != nil || !slices.Equal(said, []string{"web.example floor 11"}) {
		t.Errorf("accept: %q, %v", said, err)
	}
	s.until("only Consul's are left", count(11))
	s.until("nothing is held", func() bool { return s.says() == "ready, active: 1 lists" })
	if _, err := accept("web.example"); err == nil || err.Error() != "web.example:UPSTREAMS: nothing of it is held" {
		t.Errorf("accept of what is not held: %v", err)
	}
	if _, err := accept("other.example"); err == nil || !strings.Contains(err.Error(), "no such list in the configuration") {
		t.Errorf("accept of what is not ours: %v", err)
	}
}

// TestSyncEmptyConsul: a Consul that comes back without its data, and with an
// index that begins anew, takes nothing away, and is followed again.
func TestSyncEmptyConsul(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Churn = "1000"
	s := startSync(t, cfg, r.Addr)
	for i := range 4 {
		c.Register("web", fmt.Sprint("web-", i), addrPort(i))
	}
	all := []string{"[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "[2001:db8::]:80"}
	s.has(r, "web.example", all...)
	for range 30 { // a higher index than the next Consul has for long
		c.Fail("web-0")
		c.Pass("web-0")
	}
	c.Register("web", "last", addrPort(4))
	all = []string{"[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80", "[2001:db8::4]:80", "[2001:db8::]:80"}
	s.has(r, "web.example", all...)

	c.Kill()
	s.until("the sync notices", func() bool {
		return strings.Contains(s.log.String(), "consul does not answer, the list stays as it is")
	})
	if got := members(r, "web.example"); !slices.Equal(got, all) {
		t.Errorf("without Consul: %q", got)
	}
	c.Restart()
	s.until("the empty Consul is not believed", func() bool { return strings.HasSuffix(s.says(), "held: web.example") })
	if got := members(r, "web.example"); !slices.Equal(got, all) {
		t.Errorf("with an empty Consul: %q", got)
	}
	for i := range 4 {
		c.Register("web", fmt.Sprint("web-", i), addrPort(i))
	}
	s.until("nothing is held", func() bool { return s.says() == "ready, active: 1 lists" })
	s.has(r, "web.example", append(all[:3:3], all[4])...) // "last" is no more
	c.Deregister("web-0")
	s.has(r, "web.example", all[:3]...)
}

// TestSyncLeavesOperatorsLists: only lists that are Consul's, or nobody's and
// empty, are written to.
func TestSyncLeavesOperatorsLists(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	r.Do("SADD mine.example:UPSTREAMS 192.0.2.1:80")
	r.Do("HSET mine.example:UPSTREAMS:META source operator")
	r.Do("SADD old.example:UPSTREAMS 192.0.2.2:80")
	c.Register("web", "web-1", addrPort(1))
	s := startSync(t, syncConfig(c.Addr, "mine.example=web", "old.example=web", "new.example=web"), r.Addr)
	s.has(r, "new.example", "[2001:db8::1]:80")
	s.until("it says so", func() bool { return strings.HasSuffix(s.says(), "not kept: mine.example old.example") })
	s.has(r, "mine.example", "192.0.2.1:80")
	s.has(r, "old.example", "192.0.2.2:80")
	if n := r.Client.HLen(t.Context(), "mine.example:UPSTREAMS:META").Val(); n != 1 {
		t.Error("META of an operator's list was written to")
	}
	for _, line := range []string{"META says that an operator owns it", "HSET old.example:UPSTREAMS:META source consul hands it over"} {
		if !strings.Contains(s.log.String(), line) {
			t.Errorf("no %q in the log:\n%s", line, s.log)
		}
	}
	if got := s.metric(`razor_sync_list_kept{app="mine.example"}`); got != "0" {
		t.Errorf("metric: %q", got)
	}

	// Handed over, and taken back.
	r.Do("HSET old.example:UPSTREAMS:META source consul")
	c.Register("web", "web-2", addrPort(2)) // so that the list is looked at
	s.has(r, "old.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
	s.has(r, "new.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
	r.Do("HSET new.example:UPSTREAMS:META source operator")
	c.Register("web", "web-3", addrPort(3))
	s.has(r, "old.example", "[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80")
	s.until("it lets go", func() bool { return strings.HasSuffix(s.says(), "not kept: mine.example new.example") })
	s.has(r, "new.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
}

// TestSyncChurn: what goes beyond the limit of a minute waits.
func TestSyncChurn(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	cfg := syncConfig(c.Addr, "web.example=web")
	cfg.Churn = "2"
	c.RegisterMany("web", addrPorts(10))
	s := startSync(t, cfg, r.Addr)
	s.until("the list is full", func() bool { return len(members(r, "web.example")) == 10 })
	if _, err := c.Client.Catalog().Deregister(&api.CatalogDeregistration{Node: nodeOf(t, c, "web-0"), ServiceID: "web-0"}, nil); err != nil {
		t.Fatal(err)
	}
	s.until("one is out", func() bool { return len(members(r, "web.example")) == 9 })
	for _, id := range []string{"web-1", "web-2", "web-3"} {
		if _, err := c.Client.Catalog().Deregister(&api.CatalogDeregistration{Node: nodeOf(t, c, id), ServiceID: id}, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.until("the rest waits", func() bool { return s.metric(`razor_sync_held{app="web.example",reason="churn"}`) == "1" })
	s.until("two are out", func() bool { return len(members(r, "web.example")) == 8 })
}

func nodeOf(tb testing.TB, c *consultest.Server, id string) string {
	tb.Helper()
	entries, _, err := c.Client.Health().Service("web", "", false, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if e.Service.ID == id {
			return e.Node.Node
		}
	}
	tb.Fatalf("%s is not registered", id)
	return ""
}

// TestSyncOneIsActive: of two syncs one writes; the other takes over at once.
func TestSyncOneIsActive(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	cfg := syncConfig(c.Addr, "web.example=web")
	first := startSync(t, cfg, r.Addr)
	first.until("the first is active", func() bool { return first.says() == "ready, active: 1 lists" })
	second := startSync(t, cfg, r.Addr)
	second.until("the second stands by", func() bool { return strings.HasPrefix(second.says(), "ready, standby: ") })
	if got := second.metric("razor_sync_active"); got != "0" {
		t.Errorf("metric of the standby: %q", got)
	}
	// --once does not come between.
	once := newSync(t, cfg, upstreams.Config{Address: r.Addr})
	if _, err := once.Once(t.Context(), false, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "keeps the lists already") {
		t.Errorf("once beside an active sync: %v", err)
	}
	c.Register("web", "web-1", addrPort(1))
	first.has(r, "web.example", "[2001:db8::1]:80")
	epoch := r.Client.HGet(t.Context(), "web.example:UPSTREAMS:META", "epoch").Val()

	start := time.Now()
	first.stop()
	second.until("the second is active", func() bool { return second.says() == "ready, active: 1 lists" })
	t.Logf("taken over %v after the first began to stop", time.Since(start))
	c.Register("web", "web-2", addrPort(2))
	second.has(r, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
	if now := r.Client.HGet(t.Context(), "web.example:UPSTREAMS:META", "epoch").Val(); now == epoch {
		t.Errorf("epoch %s as before", now)
	}
	second.stop()
	services, err := c.Client.Agent().Services()
	if err != nil || len(services) != 2 {
		t.Errorf("what is registered when all have stopped: %v, %v", services, err)
	}
}

// TestSyncCutOff: an active sync that loses Consul loses the lock, and does not
// write what it knew when it is back.
func TestSyncCutOff(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	link := redistest.NewProxy(t, c.Addr)
	first := startSync(t, syncConfig(link.Addr, "web.example=web"), r.Addr)
	first.until("the first is active", func() bool { return first.says() == "ready, active: 1 lists" })
	second := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	second.until("the second stands by", func() bool { return strings.HasPrefix(second.says(), "ready, standby: ") })

	start := time.Now()
	link.Cut()
	second.until("the second is active", func() bool { return second.says() == "ready, active: 1 lists" })
	t.Logf("taken over %v after the first was cut off", time.Since(start))
	c.Register("web", "web-1", addrPort(1))
	second.has(r, "web.example", "[2001:db8::1]:80")
	first.until("the first knows", func() bool { return !strings.HasPrefix(first.says(), "ready, active") })
	link.Heal()
	first.until("the first stands by", func() bool { return strings.HasPrefix(first.says(), "ready, standby: ") })
	second.stop()
	first.until("the first is active again", func() bool { return first.says() == "ready, active: 1 lists" })
	c.Deregister("web-1")
	c.Register("web", "web-2", addrPort(2))
	first.has(r, "web.example", "[2001:db8::2]:80")
}

// TestSyncRefillsRedis: lists that somebody wiped or edited by hand are made right,
// also over a restart of Redis.
func TestSyncRefillsRedis(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	for i := range 3 {
		c.Register("web", fmt.Sprint("web-", i), addrPort(i+1))
	}
	all := []string{"[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80"}
	s.has(r, "web.example", all...)
	r.Do("SADD web.example:UPSTREAMS rubbish")
	r.Do("SREM web.example:UPSTREAMS [2001:db8::1]:80")
	c.Register("web", "web-3", addrPort(4)) // so that the list is looked at
	all = append(all, "[2001:db8::4]:80")
	s.has(r, "web.example", all...)
	r.Kill()
	c.Register("web", "web-4", addrPort(5))
	s.until("it says so", func() bool { return strings.HasSuffix(s.says(), "not kept: web.example") })
	r.Restart() // empty
	s.has(r, "web.example", append(all, "[2001:db8::5]:80")...)
}

// TestSyncCluster: the leader of a Consul cluster dies.
func TestSyncCluster(t *testing.T) {
	t.Parallel()
	cluster, r := consultest.Cluster(t, 3), redistest.Start(t)
	leader := cluster[0].Leader()
	i := slices.IndexFunc(cluster, func(c *consultest.Server) bool { return c != leader })
	c := cluster[i]
	c.RegisterMany("web", addrPorts(2))
	s := startSync(t, syncConfig(c.Addr, "web.example=web"), r.Addr)
	all := []string{"[2001:db8::1]:80", "[2001:db8::2]:80"}
	s.has(r, "web.example", all...)
	node := nodeOf(t, c, "web-0")
	leader.Kill()
	start := time.Now()
	for time.Since(start) < time.Second {
		if got := members(r, "web.example"); !slices.Equal(got, all) {
			t.Fatalf("without a leader: %q", got)
		}
		time.Sleep(time.Millisecond)
	}
	// Not by an agent, which may take half a minute to tell the next leader.
	s.until("the next leader knows of a failure", func() bool { return setStatus(c, node, "web-0", api.HealthCritical) == nil })
	s.has(r, "web.example", "[2001:db8::2]:80")
	t.Logf("a change after the leader died is in Redis after %v", time.Since(start))
}

// setStatus writes the status of an instance's check into the catalogue.
func setStatus(c *consultest.Server, node, id, status string) error {
	check := api.HealthCheck{Node: node, CheckID: "service:" + id, Name: "Service check", ServiceID: id, ServiceName: "web", Status: status}
	ok, answer, _, err := c.Client.Txn().Txn(api.TxnOps{{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: check}}}, nil)
	if err == nil && !ok {
		err = errors.New(answer.Errors[0].What)
	}
	return err
}

// TestSyncDatacenters: a list of two datacenters, of which one goes away.
func TestSyncDatacenters(t *testing.T) {
	t.Parallel()
	wan, r := consultest.WAN(t, 1, 1), redistest.Start(t)
	east, west := wan[0][0], wan[1][0]
	cfg := syncConfig(east.Addr, "web.example=web", "west.example=web")
	cfg.Lists[0].Datacenters = []string{"dc1", "dc2"}
	cfg.Lists[1].Datacenters = []string{"dc2"}
	s := startSync(t, cfg, r.Addr)
	east.Register("web", "web-1", addrPort(1))
	west.Register("web", "web-2", addrPort(2))
	s.has(r, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80")
	s.has(r, "west.example", "[2001:db8::2]:80")
	west.Kill() // of which Consul may tell at once, or not within a minute
	for start := time.Now(); time.Since(start) < 3*time.Second; time.Sleep(time.Millisecond) {
		if got := members(r, "west.example"); !slices.Equal(got, []string{"[2001:db8::2]:80"}) {
			t.Fatalf("without the datacenter: %q", got)
		}
	}
	east.Register("web", "web-3", addrPort(3))
	s.has(r, "web.example", "[2001:db8::1]:80", "[2001:db8::2]:80", "[2001:db8::3]:80")
	s.has(r, "west.example", "[2001:db8::2]:80")
}

func TestSyncOnce(t *testing.T) {
	t.Parallel()
	c, r := consultest.Start(t), redistest.Start(t)
	r.Do("HSET web.example:UPSTREAMS:META source consul")
	r.Do("SADD web.example:UPSTREAMS [2001:db8::1]:80 [2001:db8::2]:80 [2001:db8::3]:80 [2001:db8::4]:80")
	r.Do("SADD mine.example:UPSTREAMS 192.0.2.1:80")
	c.Register("web", "web-1", addrPort(1))
	c.Register("web", "web-9", addrPort(9))
	cfg := syncConfig(c.Addr, "web.example=web", "mine.example=web", "none.example=none")
	cfg.Churn = "100%"
	want := `web.example: 4 -> 2 endpoints, consul has 2
  + [2001:db8::9]:80  (passing)
  - [2001:db8::2]:80  (deregistered)
  - [2001:db8::3]:80  (deregistered)
  - [2001:db8::4]:80  (deregistered)
mine.example: not a list of the sync: it has no META that says whose it is; HSET mine.example:UPSTREAMS:META source consul hands it over
blast radius: 1 of 2 lists; 1 endpoints added; 3 of 4 taken out or changed (75.0 %), most of web.example (75.0 %); 1 not read
`
	for _, dry := range []bool{true, false} {
		var out bytes.Buffer
		complete, err := newSync(t, cfg, upstreams.Config{Address: r.Addr}).Once(t.Context(), dry, &out)
		lines := strings.Split(out.String(), "\n")
		slices.Sort(lines[2:5]) // an order of no meaning
		if got := strings.Join(lines, "\n"); err != nil || complete || got != want {
			t.Errorf("dry %v: complete %v, %v\ngot:\n%s\nwant:\n%s", dry, complete, err, got, want)
		}
		if n := len(members(r, "web.example")); dry && n != 4 || !dry && n != 2 {
			t.Errorf("dry %v: %d members", dry, n)
		}
	}
	var out bytes.Buffer
	cfg.Lists = cfg.Lists[:1]
	complete, err := newSync(t, cfg, upstreams.Config{Address: r.Addr}).Once(t.Context(), false, &out)
	if want := "blast radius: 0 of 1 lists; 0 endpoints added; 0 of 2 taken out or changed (0.0 %)\n"; err != nil || !complete || out.String() != want {
		t.Errorf("again: complete %v, %v\n%s", complete, err, out.String())
	}
}

// TestSyncPublish: a keeper of a list that another one has taken over writes
// nothing more.
func TestSyncPublish(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	// With the rights that the reference configuration names, and no more.
	r.Do("ACL SETUSER sync on >secret ~* +@read +@connection +info +@set +@hash +@transaction")
	w := writer(t, upstreams.Config{Address: r.Addr, User: "sync", Password: "secret"})
	meta := func(keeper string, epoch uint64) upstreams.Meta {
		m := upstreams.Meta{Source: upstreams.SourceConsul, Keeper: keeper, Epoch: epoch, Updated: time.Now()}
		if epoch == 0 {
			m.Source = ""
		}
		return m
	}
	publish := func(was, now upstreams.Meta, members int) error {
		var edits []upstreams.MemberEdit
		for i := range members {
			edits = append(edits, upstreams.MemberEdit{New: fmt.Sprintf("[2001:db8::%x:%x]:80", now.Epoch, i)})
		}
		return w.Publish(t.Context(), "web.example", was, edits, now)
	}
	if err := publish(meta("", 0), meta("a", 1), upstreams.PublishMost); err != nil {
		t.Fatal(err)
	}
	if err := publish(meta("a", 1), meta("b", 2), 1); err != nil {
		t.Fatal(err)
	}
	for _, old := range []upstreams.Meta{meta("a", 1), meta("a", 2), meta("b", 1)} {
		err := publish(old, old, 10)
		want := fmt.Sprintf(`web.example:UPSTREAMS: kept by "b" in epoch 2 now, no longer by %q in %d`, old.Keeper, old.Epoch)
		if err == nil || err.Error() != want {
			t.Errorf("an old writer: %v\nwant %s", err, want)
		}
	}
	r.Do("HSET web.example:UPSTREAMS:META source operator")
	err := publish(meta("b", 2), meta("b", 2), 10)
	if err == nil || err.Error() != `web.example:UPSTREAMS: owned by "operator" now` {
		t.Errorf("an operator's: %v", err)
	}
	if n := len(members(r, "web.example")); n != upstreams.PublishMost+1 {
		t.Errorf("%d members", n)
	}
	r.Do("SET other.example:UPSTREAMS x")
	err = w.Publish(t.Context(), "other.example", upstreams.Meta{}, []upstreams.MemberEdit{{New: "x"}}, meta("b", 1))
	if err == nil || !strings.HasPrefix(err.Error(), "other.example:UPSTREAMS:META: WRONGTYPE") {
		t.Errorf("a key of another type: %v", err)
	}
}
