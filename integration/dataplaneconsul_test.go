package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/consultest"
)

// consulHosts is a lab of hosts whose backends are in Consul alone, behind a socket that all
// hosts reach.
type consulHosts struct {
	*hosts

	consul *consultest.Server
	dir    string // of the files that are there while a backend is well, by the names of backends
}

// newConsulHosts starts all; prepare may change edit before.
func newConsulHosts(t *testing.T, prepare ...func(*consulHosts)) *consulHosts {
	t.Helper()
	dir := t.TempDir()
	c := consultest.Start(t)
	socket := filepath.Join(dir, "consul.sock")
	socketTo(t, socket, c)
	m := &consulHosts{consul: c, dir: dir}
	m.hosts = newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{"gateway": {
			`      backends:
        - {name: web1, locator: "2001:db8:5e:2::/64"}
        - {name: web2, locator: "2001:db8:5e:3::/64"}
`, "      consul: {service: web}\n",
			"  services:\n", "  consul: {address: \"unix://" + socket + "\"}\n  services:\n",
		}}
		for _, name := range []string{"web1", "web2"} {
			writeFile(t, filepath.Join(dir, name), "")
			h.edit[name] = []string{"interfaces: [eth0]\n  sr_block:", fmt.Sprintf(`interfaces: [eth0]
  gateways: ["2001:db8:5e:1::/64", "2001:db8:5e:4::/64"]
  consul: {address: "unix://%s", ttl: 1500ms, services: [{service: web}]}
  probes:
    - probe: {name: web, kind: exec, command: [/usr/bin/test, -e, %s], interval: 100ms, timeout: 10s, lease: 30s, rise: 1, fall: 1, hold_down: 1ms}
  sr_block:`, socket, filepath.Join(dir, name))}
		}
		m.hosts = h
		for _, f := range prepare {
			f(m)
		}
	})
	m.await()
	m.heardOf(2)
	return m
}

// heardOf waits until the gateway has backends whose agents all say that they are up, and
// which get new flows.
func (m *consulHosts) heardOf(n int) {
	m.t.Helper()
	m.lab.Eventually("the gateway hears of all agents", func() bool {
		all := m.gateway.status().Backends
		return len(all) == n && !slices.ContainsFunc(all, func(b gateway.BackendStatus) bool { return b.Agent == nil || b.Agent.Health != "up" || b.Share == 0 })
	})
}

// registered waits until Consul has healths, by the hosts' numbers.
func (m *consulHosts) registered(want ...string) {
	m.t.Helper()
	m.lab.Eventually(fmt.Sprintf("consul has %q", want), func() bool {
		entries, _, err := m.consul.Client.Health().Service("web", "", false, nil)
		var got []string
		for _, e := range entries {
			if sid, ours := strings.CutSuffix(e.Service.Address, ":5201::"); ours {
				got = append(got, strings.TrimPrefix(sid, "2001:db8:5e:")+" "+e.Checks.AggregatedStatus())
			}
		}
		slices.Sort(got)
		return err == nil && slices.Equal(got, want)
	})
}

// has waits until the gateway has backends in states, by the hosts' numbers, and those get
// new flows that are to.
func (h *hosts) has(want ...string) {
	h.t.Helper()
	h.lab.Eventually(fmt.Sprintf("the gateway has %q", want), func() bool {
		var got []string
		for _, b := range h.gateway.status().Backends {
			if (b.Share > 0) != (b.State == balancer.Active && b.Weight > 0) {
				return false
			}
			number := strings.TrimSuffix(strings.TrimPrefix(b.SID, "2001:db8:5e:"), ":5201::")
			got = append(got, number+" "+string(b.State))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
}

// membership is what the gateway says of where it has the backends from.
func (h *hosts) membership() gateway.MembershipStatus {
	if all := h.gateway.status().Membership; len(all) == 1 {
		return all[0]
	}
	return gateway.MembershipStatus{}
}

func (h *hosts) forget(backend string) {
	h.flows = slices.DeleteFunc(h.flows, func(f *liveFlow) bool {
		gone := strings.TrimSpace(f.by) == backend
		if gone {
			_ = f.conn.Close()
		}
		return gone
	})
}

// Backends join and leave by what their agents have in Consul, and stay whatever happens to
// Consul, as agents say themselves how they are.
func TestDataplaneConsul(t *testing.T) {
	t.Parallel()
	m := newConsulHosts(t)
	m.registered("2 passing", "3 passing")
	m.has("2 active", "3 active")
	m.begin(40, "web1", "web2")

	if said, err := m.agents[0].razor("drain", "agent", "--reason", "new kernel"); err != nil {
		t.Fatal(said, err)
	}
	m.registered("3 passing")
	m.has("2 draining", "3 active")
	m.begin(20, "web2")
	m.goOn("web1 is drained")
	if said, err := m.agents[0].razor("agent", "status"); err != nil || !strings.Contains(said, "web     host    no          passing  drained: new kernel") {
		t.Errorf("status: %v: %s", err, said)
	}
	if said, err := m.agents[0].razor("undrain", "agent"); err != nil {
		t.Fatal(said, err)
	}
	m.registered("2 passing", "3 passing")
	m.has("2 active", "3 active")

	m.consul.Kill()
	m.lab.Eventually("the gateway misses consul", func() bool { return m.membership().Failed != "" })
	m.gateway.Kill()
	m.gateway.start()
	m.gateway.awaitUp(1)
	m.has("2 active", "3 active")
	m.goOn("the gateway starts without consul")
	m.begin(20, "web1", "web2")
	m.agents[0].Kill()
	m.has("2 dead", "3 active")
	m.forget("web1")
	m.begin(20, "web2")
	m.agents[0].start()
	m.has("2 active", "3 active")
	m.goOn("all without consul")

	m.consul.Restart() // and it is empty
	m.registered("2 passing", "3 passing")
	m.lab.Eventually("the gateway has consul again", func() bool { s := m.membership(); return s.Failed == "" && s.Gone == 0 && s.Answered })
	m.has("2 active", "3 active")
	m.goOn("consul has lost all, and agents have registered again")
	m.begin(20, "web1", "web2")

	m.consul.Stop() // behind a partition: connections stay, and nothing is answered
	if said, err := m.agents[0].razor("drain", "agent"); err != nil {
		t.Fatal(said, err)
	}
	m.has("2 draining", "3 active")
	m.begin(20, "web2")
	if said, err := m.agents[0].razor("undrain", "agent"); err != nil {
		t.Fatal(said, err)
	}
	m.has("2 active", "3 active")
	m.agents[1].Signal(syscall.SIGHUP)
	m.lab.Eventually("the agent starts again", func() bool { return strings.Count(m.agents[1].Log(), `msg="endpoint attached"`) == 2 })
	m.ready(m.agents[1], 3)
	m.goOn("consul hangs")
	m.consul.Continue()
	m.registered("2 passing", "3 passing")
	m.has("2 active", "3 active")
	m.goOn("consul answers again")

	m.agents[0].Kill() // its check ends
	m.registered("2 critical", "3 passing")
	m.has("2 dead", "3 active")
	m.forget("web1")
	m.agents[0].start()
	m.registered("2 passing", "3 passing")
	m.has("2 active", "3 active")
	m.agents[0].Signal(syscall.SIGTERM) // it leaves in order
	m.registered("3 passing")
	m.has("3 active")
	m.begin(20, "web2")
	m.goOn("web1 is stopped")
	m.agents[0].start()
	m.has("2 active", "3 active")
	m.begin(40, "web1", "web2")
	m.stop()
	m.registered()
}

// Somebody takes all instances out of Consul, again and again: agents speak, and nothing
// is lost. An instance that cannot be used is left out, and said once.
func TestDataplaneConsulMassLoss(t *testing.T) {
	t.Parallel()
	m := newConsulHosts(t)
	m.has("2 active", "3 active")
	m.begin(40, "web1", "web2")
	if err := m.consul.Client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "odd", Name: "web", Meta: map[string]string{"locator": "web9"}}); err != nil {
		t.Fatal(err)
	}
	m.lab.Eventually("it is left out", func() bool { return len(m.membership().LeftOut) == 1 })
	for range 20 {
		services, err := m.consul.Client.Agent().Services()
		if err != nil {
			t.Fatal(err)
		}
		for id := range services {
			if id == "odd" {
				continue
			}
			if err := m.consul.Client.Agent().ServiceDeregister(id); err != nil {
				t.Fatal(err)
			}
		}
		m.goOn("all are deregistered")
		for _, b := range m.gateway.status().Backends {
			if b.State != "active" {
				t.Fatalf("%s is %s", b.SID, b.State)
			}
		}
	}
	m.registered("2 passing", "3 passing")
	m.begin(20, "web1", "web2")
	if n := strings.Count(m.gateway.Log(), `msg="instance in consul left out" service=web instance=dc1/dc1-server-1/odd reason="meta locator \"web9\": want an IPv6 /64"`); n != 1 {
		t.Errorf("said %d times", n)
	}
	m.lab.Eventually("its metric", func() bool {
		return strings.Contains(m.gateway.metrics(), `razor_gateway_membership_left_out{service="web"} 1`)
	})
}
