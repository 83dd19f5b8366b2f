package integration

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams/consul"
)

// contender is a gateway's part in the lock, behind a link that can be cut.
type contender struct {
	*consul.Decider
	tb   testing.TB
	link *redistest.Proxy
	log  *syncBuffer
	end  func()
}

func contend(tb testing.TB, c *consultest.Server, value string) *contender {
	tb.Helper()
	o := &contender{tb: tb, link: redistest.NewProxy(tb, c.Addr), log: &syncBuffer{}}
	var err error
	if o.Decider, err = consul.NewDecider(consul.AgentConfig{Address: "http://" + o.link.Addr}, "gateway.consul", "razor/east/decider", value, slog.New(slog.NewTextHandler(o.log, nil))); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = o.Run(ctx) }()
	o.end = sync.OnceFunc(func() { cancel(); <-done })
	tb.Cleanup(func() {
		o.end()
		if tb.Failed() {
			tb.Logf("%s says:\n%s", value, o.log)
		}
	})
	return o
}

func (o *contender) until(what string, ok func() bool) {
	o.tb.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			o.tb.Fatalf("never: %s", what)
		}
	}
}

// finds waits until a contender knows who decides.
func (o *contender) finds(value string) {
	o.tb.Helper()
	o.until(value+" is found", func() bool { is, heard := o.Holder(); return is == value && heard })
}

// neverBoth watches two contenders until stop is called.
func neverBoth(t *testing.T, one, two *contender) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	go func() { // in an order that cannot see one leave and the other come
		defer close(watched)
		for ctx.Err() == nil {
			if one.Held() && two.Held() && one.Held() {
				t.Error("both decide")
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}()
	return func() { cancel(); <-watched }
}

// Servers of Consul that lose their leader, and a while of none at all, change nothing of
// who decides. When they are away for longer nobody does, until they are back.
func TestDeciderCluster(t *testing.T) {
	t.Parallel()
	servers := consultest.Cluster(t, 3)
	local := servers[0].Agent("edge")
	one := contend(t, local, "one")
	one.until("one decides", one.Held)
	two := contend(t, local, "two")
	two.finds("one")
	defer neverBoth(t, one, two)()
	taken := func() int {
		return strings.Count(one.log.String()+two.log.String(), `msg="lock taken"`)
	}

	leader := servers[0].Leader()
	killed := time.Now()
	leader.Kill()
	one.until("there is another leader", func() bool {
		now := local.Leader()
		return now != nil && now != leader
	})
	two.finds("one")
	one.until("it is heard", func() bool { _, heard := one.Holder(); return heard })
	if took := time.Since(killed); took > 10*time.Second {
		t.Logf("too slow to tell: another leader after %v", took) // as its lease may have ended
	} else if !one.Held() || taken() != 1 {
		t.Errorf("the leader was killed: %d times taken", taken())
	}
	leader.Restart()

	for _, s := range servers {
		s.Stop()
	}
	one.until("nobody decides", func() bool { return !one.Held() && !two.Held() })
	for _, s := range servers {
		s.Continue()
	}
	one.until("one of them decides", func() bool { return one.Held() != two.Held() })
	one.until("both know who", func() bool {
		a, heard := one.Holder()
		b, too := two.Holder()
		return heard && too && a == b && a != ""
	})
}

// Of two gateways one decides, whatever becomes of Consul, and never both do.
func TestDecider(t *testing.T) {
	t.Parallel()
	c := consultest.Start(t)
	one := contend(t, c, "one")
	one.until("one decides", one.Held)
	two := contend(t, c, "two")
	two.finds("one")

	defer neverBoth(t, one, two)()

	two.link.Cut()
	two.until("two hears of nobody", func() bool { _, heard := two.Holder(); return !heard })
	two.link.Heal()
	two.finds("one")

	cut := time.Now()
	one.link.Cut()
	one.until("one decides no longer", func() bool { return !one.Held() })
	if after := time.Since(cut); after < 10*time.Second {
		t.Errorf("it gave up after %v, when nobody else could decide", after)
	}
	two.until("two decides", two.Held)
	if after := time.Since(cut); after < 15*time.Second {
		t.Errorf("two decides after %v", after)
	}
	one.link.Heal()
	one.finds("two")

	began := time.Now()
	two.end() // in order
	one.until("one decides again", one.Held)
	if after := time.Since(began); after > 10*time.Second {
		t.Errorf("handed over after %v", after)
	}
	at, err := one.Look(t.Context())
	if err != nil || at != "one" {
		t.Errorf("the lock has %q, %v", at, err)
	}

	// A short absence of Consul is nothing.
	one.link.Cut()
	three := contend(t, c, "three")
	three.finds("one")
	one.link.Heal()
	one.until("one is heard again", func() bool { _, heard := one.Holder(); return heard && one.Held() })
	if n := strings.Count(one.log.String(), `msg="lock taken"`); n != 2 {
		t.Errorf("it came to decide %d times, want twice: %s", n, one.log)
	}
}

// Two gateways of a site: one decides, and when it is killed the other one does; without
// Consul both go on, and take dead backends out.
func TestDataplaneConsulDecider(t *testing.T) {
	t.Parallel()
	m := newConsulHosts(t, func(m *consulHosts) {
		common := m.edit["gateway"]
		for name, number := range map[string]int{"gateway": 1, "gateway2": 4} {
			const places = "    interfaces: [eth0]\n"
			lock := fmt.Sprintf("    tables_listen: \"[%v]:5206\"\n    consul_lock: razor/east/decider\n", nodePrefix(number).Addr().Next())
			m.edit[name] = slices.Concat(common, []string{places, places + lock})
		}
	})
	node := m.host("gateway2", 4, 4)
	two := &consulHosts{hosts: &hosts{front: m.front, pins: m.pins, edit: m.edit}, consul: m.consul}
	two.gateway = two.process(node, "gateway", "gateway.yaml")
	m.until([]string{"swp1", "swp4"}, vip4, vip6)
	m.heardOf(2)
	two.heardOf(2)
	decides := func(o *consulHosts) bool { s := o.decider(); return s.Decides && s.Heard }
	m.lab.Eventually("one decides", func() bool { return decides(m) != decides(two) && m.decider().Holder+two.decider().Holder != "" })
	first, second := m, two
	if decides(two) {
		first, second = two, m
	}
	m.begin(60, "web1", "web2")

	if said, err := m.agents[0].razor("drain", "agent"); err != nil {
		t.Fatal(said, err)
	}
	m.has("2 draining", "3 active")
	two.has("2 draining", "3 active")
	m.drained()
	m.goOn("web1 is drained")

	first.gateway.Kill()
	m.lab.Eventually("the other one decides", func() bool { return decides(second) })
	m.goOn("who decided was killed")
	if said, err := m.agents[0].razor("undrain", "agent"); err != nil {
		t.Fatal(said, err)
	}
	second.has("2 active", "3 active")
	first.gateway.start()
	first.gateway.awaitUp(1)
	m.lab.Eventually("it follows", func() bool { return !decides(first) && first.decider().Holder != "" })
	m.goOn("it is back")
	m.begin(60, "web1", "web2")

	m.consul.Kill()
	m.lab.Eventually("nobody decides", func() bool { return !first.decider().Decides && !second.decider().Decides })
	m.goOn("there is no consul")
	m.begin(20, "web1", "web2")
	m.agents[0].Kill()
	m.has("2 dead", "3 active")
	two.has("2 dead", "3 active")
	m.forget("web1")
	m.begin(20, "web2")
	m.goOn("web1 is dead")
	m.agents[0].start()
	m.consul.Restart()
	m.lab.Eventually("one decides again", func() bool { return decides(m) != decides(two) })
	m.has("2 active", "3 active")
	two.has("2 active", "3 active")
	m.begin(60, "web1", "web2")
	m.goOn("all is back")

	one := map[bool]*consulHosts{true: m, false: two}[decides(m)]
	other := map[bool]*consulHosts{true: two, false: m}[one == m]
	one.gateway.Signal(syscall.SIGTERM) // in order: at once
	m.lab.Eventually("the other one decides", func() bool { return decides(other) })
	m.goOn("who decided was stopped")
}

// decider is what a gateway says of who decides.
func (m *consulHosts) decider() gateway.ElectionStatus {
	if s := m.gateway.status().Decider; s != nil {
		return *s
	}
	return gateway.ElectionStatus{}
}

// drained waits until new flows go to web2 alone.
func (m *consulHosts) drained() {
	m.t.Helper()
	m.lab.Eventually("no new flows for web1", func() bool {
		for i := range 20 {
			f := beginFlow(m.t, m.client, i)
			_ = f.conn.Close()
			if strings.TrimSpace(f.by) != "web2" {
				return false
			}
		}
		return true
	})
}
