package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	datagrams "github.com/razor-steering/razor/steering/wire"
)

// reporters is a lab of hosts whose agents report, and probe whether a file is there.
type reporters struct {
	*hosts

	dir string // of the files, by the names of backends
}

// newReporters starts them; prepare may change what they have before.
func newReporters(t *testing.T, prepare ...func(*hosts)) *reporters {
	t.Helper()
	dir := t.TempDir()
	r := &reporters{newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{}
		for _, name := range []string{"web1", "web2"} {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			h.edit[name] = []string{"interfaces: [eth0]\n  sr_block:", fmt.Sprintf(`interfaces: [eth0]
  gateways: ["2001:db8:5e:1::/64"]
  drain_on_stop: 1s
  load: {measure: connections, capacity: 1000}
  probes:
    - vips: ["198.51.100.1:443/tcp", "2001:db8:ffff::1"]
      probe: {name: web, kind: exec, command: [/usr/bin/test, -e, %s], interval: 100ms, timeout: 10s, lease: 30s, rise: 1, fall: 1, hold_down: 1ms}
  sr_block:`, file)}
		}
		for _, do := range prepare {
			do(h)
		}
	}), dir}
	r.await()
	for i := range r.agents {
		r.heard(i, "up", "active")
	}
	return r
}

// well has the probe of a backend pass, or fail.
func (r *reporters) well(i int, pass bool) {
	r.t.Helper()
	file := filepath.Join(r.dir, r.agents[i].node.Name)
	err := os.Remove(file)
	if pass {
		err = os.WriteFile(file, nil, 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// backend is what the gateway says of one.
func (r *reporters) backend(i int) (out gateway.BackendStatus) {
	for _, b := range r.gateway.status().Backends {
		if b.Backend == r.agents[i].node.Name {
			out = b
		}
	}
	return out
}

// heard waits until the gateway knows of a health, or silence, and obeys it: only who is
// active gets new flows.
func (r *reporters) heard(i int, health, state string) {
	r.t.Helper()
	r.lab.Eventually(fmt.Sprintf("%s is %s and %s", r.agents[i].node.Name, health, state), func() bool {
		b := r.backend(i)
		silent := b.Agent != nil && b.Agent.Silent
		if (b.Share > 0) != (b.State == balancer.Active) {
			return false
		}
		return b.Agent != nil && (b.Agent.Health == health && !silent || health == "silent" && silent) && string(b.State) == state
	})
}

// forget closes the flows of a backend.
func (r *reporters) forget(i int) {
	var left []*liveFlow
	for _, f := range r.flows {
		if strings.TrimSpace(f.by) == r.agents[i].node.Name {
			_ = f.conn.Close()
			continue
		}
		left = append(left, f)
	}
	r.flows = left
}

// A backend that is down gets no new flows and keeps its own, one that is dead gets
// nothing, and each comes back.
func TestReportsSteer(t *testing.T) {
	t.Parallel()
	r := newReporters(t)
	r.begin(40, "web1", "web2")

	r.well(0, false)
	began := time.Now()
	r.heard(0, "down", "draining")
	t.Logf("down and obeyed after %v", time.Since(began)) // one measurement, and a datagram
	r.begin(20, "web2")
	r.goOn("web1 is down")
	r.well(1, false)
	r.heard(1, "down", "active")
	if got := r.gateway.status().Disbelieved; len(got) != 1 || got[0] != "service web: 0 of 2 active backends are up: health is not believed" {
		t.Errorf("disbelieved: %v", got)
	}
	r.begin(20, "web1", "web2")
	r.well(0, true)
	r.well(1, true)
	r.heard(0, "up", "active")
	r.heard(1, "up", "active")
	r.goOn("both are up")

	r.agents[0].Signal(syscall.SIGHUP)
	r.lab.Eventually("the agent starts again", func() bool { return strings.Count(r.agents[0].Log(), `msg="endpoint attached"`) == 2 })
	r.ready(r.agents[0], 2)
	r.heard(0, "up", "active")
	if strings.Contains(r.gateway.Log(), "to=dead") {
		t.Errorf("dead by a restart: %s", r.gateway.Log())
	}
	r.goOn("an agent started again")

	r.forget(0) // while web1 hears of it: a port may be another flow's before it is back
	r.agents[0].Kill()
	r.heard(0, "silent", "dead")
	r.begin(20, "web2")
	r.goOn("web1 is dead")
	r.gateway.Kill()
	r.gateway.start()
	r.gateway.awaitUp(1)
	r.heard(0, "silent", "dead")
	r.heard(1, "up", "active")
	r.begin(20, "web2")
	r.goOn("the gateway runs again")
	r.agents[0].start()
	r.heard(0, "up", "active")
	r.begin(40, "web1", "web2")
	r.goOn("web1 is back")
	for _, want := range []string{
		`razor_gateway_backend_health\{backend="2001:db8:5e:2:5201::",service="web"\} 1`, `razor_gateway_backend_capacity\{backend="2001:db8:5e:2:5201::"\} 1000`,
		`razor_gateway_backend_load\{backend="2001:db8:5e:2:5201::"\} [1-9]`, `razor_gateway_service_agents_disbelieved\{service="web"\} 0`,
	} {
		r.lab.Eventually(want, func() bool { return regexp.MustCompile(`(?m)^` + want).MatchString(r.gateway.metrics()) })
	}

	r.agents[0].Signal(syscall.SIGTERM)
	r.lab.Eventually("it drains before it stops", func() bool { b := r.backend(0); return b.Agent != nil && b.Agent.Draining && b.State == "draining" })
	r.goOn("web1 is about to stop")
	r.lab.Eventually("it stops", func() bool { return !r.agents[0].Alive() })
	r.heard(0, "silent", "dead")
	r.stop()
}

// An operator drains a backend through its agent, which stays drained over a restart.
func TestReportsDrain(t *testing.T) {
	t.Parallel()
	r := newReporters(t)
	r.begin(40, "web1", "web2")
	said, err := r.agents[0].razor("drain", "agent", "--reason", "new kernel")
	if err != nil || said != "drained: gateways are told to send no new flows, those that are here go on\n" {
		t.Errorf("drain: %v: %s", err, said)
	}
	r.heard(0, "up", "draining")
	r.begin(20, "web2")
	r.goOn("web1 is drained")
	r.agents[0].Signal(syscall.SIGHUP)
	r.lab.Eventually("the agent starts again", func() bool { return strings.Count(r.agents[0].Log(), `msg="endpoint attached"`) == 2 })
	r.ready(r.agents[0], 2)
	r.heard(0, "up", "draining")
	said, err = r.agents[0].razor("agent", "status")
	if err != nil || !strings.HasPrefix(said, "2001:db8:5e:2::/64: draining: new kernel\nevery 200ms told: 2001:db8:5e:1::/64\n") || !strings.Contains(said, "web    host    198.51.100.1:443/tcp 2001:db8:ffff::1  up") {
		t.Errorf("status: %v: %s", err, said)
	}
	s, err := agent.StatusLive(t.Context(), filepath.Join(r.agents[0].node.Dir, "agent"))
	if err != nil || s.Targets[0].Capacity != 1000 || s.Targets[0].Load < 1 {
		t.Errorf("status: %v: %+v", err, s)
	}
	r.begin(20, "web2")
	r.goOn("a drained agent started again")
	if said, err := r.agents[0].razor("undrain", "agent"); err != nil || said != "in service\n" {
		t.Errorf("undrain: %v: %s", err, said)
	}
	r.heard(0, "up", "active")
	r.begin(40, "web1", "web2")
	r.goOn("web1 is undrained")
	said, err = r.gateway.razor("status")
	if !regexp.MustCompile(`(?m)^web +web1 +active +[0-9.]+ % +up +[0-9]+ % +2001:db8:5e:2:5201::`).MatchString(said) || err != nil {
		t.Errorf("status: %v: %s", err, said)
	}
}

// What does not arrive makes its backend dead alone, and what somebody without the key
// says is nothing.
func TestReportsLost(t *testing.T) {
	t.Parallel()
	r := newReporters(t)
	r.begin(40, "web1", "web2")

	var forger *agent.Reporter
	var err error
	r.agents[0].node.Do(func() {
		forger, err = agent.NewReporter(nodePrefix(2), []netip.Prefix{nodePrefix(1)}, pinKeys(t, 1, 1), time.Second, func() []datagrams.Report {
			return []datagrams.Report{{Level: 1, Draining: true, Services: []datagrams.ServiceHealth{{VIP: netip.IPv6Unspecified(), Health: steering.HealthDown}}}}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	forger.Leave(time.Minute)
	if err := forger.Close(); err != nil {
		t.Fatal(err)
	}
	r.lab.Eventually("the forged report is refused", func() bool {
		return strings.Contains(r.gateway.metrics(), `razor_gateway_report_refusals_total{reason="forged"} 1`)
	})
	if b := r.backend(0); b.State != "active" || b.Agent.Draining || b.Agent.Health != "up" {
		t.Errorf("a forged report was believed: %+v", b)
	}

	web1 := r.agents[0].node
	r.forget(0)
	web1.Run("nft", "add table inet t { chain out { type filter hook output priority 0; udp dport 5205 drop; }; }")
	r.heard(0, "silent", "dead")
	r.begin(20, "web2")
	r.goOn("reports of web1 do not arrive")
	r.agents[1].node.Run("nft", "add table inet t { chain out { type filter hook output priority 0; udp dport 5205 drop; }; }")
	r.heard(0, "silent", "active")
	r.heard(1, "silent", "active")
	r.goOn("no report arrives")
	r.begin(20, "web1", "web2")
	r.forget(1)
	web1.Run("nft", "delete table inet t")
	r.heard(0, "up", "active")
	r.heard(1, "silent", "dead")
	r.begin(20, "web1")
	r.goOn("reports of web2 do not arrive")
	r.agents[1].node.Run("nft", "delete table inet t")
	r.heard(1, "up", "active")
	r.begin(40, "web1", "web2")
}
