package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
)

// liveSite is a site with two gateways, of which the second copies the tables of the first,
// and three backends that probe themselves, of which the gateways know two at first:
//
//	client eth0 ── swp9 tor ┬─ swp1 ── eth0 gateway
//	                        ├─ swp2, swp3, swp4 ── eth0 web1, web2, web3
//	                        └─ swp5 ── eth0 mate
type liveSite struct {
	*hosts

	mate    *announcer
	servers []*netlab.Process // of the backends
}

const (
	liveWeb2 = `        - {name: web2, locator: "2001:db8:5e:3::/64"}` + "\n"
	liveWeb3 = `        - {name: web3, locator: "2001:db8:5e:4::/64"}` + "\n"
)

func newLive(t *testing.T) *liveSite {
	t.Helper()
	port := "neighbor swp4 interface peer-group gateways\n"
	l := &liveSite{hosts: &hosts{front: newFront(t, "cumulus-tor.conf", port, port+" neighbor swp5 interface peer-group gateways\n"), pins: testhost.BPFFS(t)}}
	l.client.Run("ethtool", "-K", "eth0", "tx", "off")
	l.tor.Sysctl("net.ipv4.fib_multipath_hash_policy", "1") // ports as well
	l.tor.Sysctl("net.ipv6.fib_multipath_hash_policy", "1")
	const interfaces = "    interfaces: [eth0]\n    sr_block:"
	l.edit = map[string][]string{
		"gateway": {interfaces, `    tables_listen: "[::]:5206"` + "\n" + `    mates: ["[2001:db8:5e:5::1]:5206"]` + "\n" + interfaces},
		"mate":    {interfaces, `    tables_listen: "[::]:5206"` + "\n" + `    follow: "[2001:db8:5e:1::1]:5206"` + "\n" + interfaces},
	}
	l.gateway = l.process(l.host("gateway", 1, 1), "gateway", "gateway.yaml")
	l.mate = l.process(l.host("mate", 5, 5), "gateway", "gateway.yaml")
	for i := 2; i <= 4; i++ {
		node := l.host(fmt.Sprint("web", i-1), i, i)
		l.edit[node.Name] = []string{"interfaces: [eth0]\n  sr_block:", fmt.Sprintf(`interfaces: [eth0]
  gateways: ["2001:db8:5e:1::/64", "2001:db8:5e:5::/64"]
  probes: [{probe: {name: web, kind: exec, command: [/usr/bin/test, -e, %s], interval: 100ms, timeout: 10s, lease: 30s, rise: 1, fall: 1, hold_down: 1ms}}]
  sr_block:`, l.file(node))}
		l.well(node, true)
		l.servers = append(l.servers, answersApart(t, node, ":443"))
		l.ways = append(l.ways, l.process(node, "gateway", "backend.yaml"))
		l.agents = append(l.agents, l.process(node, "agent", "backend.yaml"))
	}
	for i, a := range l.agents {
		l.ready(a, i+2)
	}
	l.until([]string{"swp1", "swp5"}, vip4, vip6)
	for i := 1; i <= 5; i++ {
		l.until([]string{fmt.Sprint("swp", i)}, nodePrefix(i).String())
	}
	l.standing("web1", "up", "active")
	l.standing("web2", "up", "active")
	return l
}

// file is what the probe of a backend looks for.
func (l *liveSite) file(n *netlab.Node) string { return filepath.Join(n.Dir, "well") }

// well has the probe of a backend pass, or fail.
func (l *liveSite) well(n *netlab.Node, pass bool) {
	l.t.Helper()
	err := os.Remove(l.file(n))
	if pass {
		err = os.WriteFile(l.file(n), nil, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// standing waits until both gateways know of a health, or silence, and obey it.
func (l *liveSite) standing(backend, health, state string) {
	l.t.Helper()
	for _, g := range []*announcer{l.gateway, l.mate} {
		l.lab.Eventually(fmt.Sprintf("%s: %s is %s and %s", g.node.Name, backend, health, state), func() bool {
			for _, b := range g.status().Backends {
				if b.Backend == backend && b.Agent != nil && string(b.State) == state {
					return b.Agent.Silent && health == "silent" || !b.Agent.Silent && b.Agent.Health == health
				}
			}
			return false
		})
	}
}

// decided waits until the mate has what the first gateway makes of a change.
func (l *liveSite) decided(change func()) {
	l.t.Helper()
	copies := func() int { return strings.Count(l.mate.Log(), `msg="tables copied"`) }
	before := copies()
	change()
	l.lab.Eventually("the mate copies the tables", func() bool { return copies() > before })
}

// beginOn opens flows, once new ones go to these backends alone: the mate copies tables a
// moment later.
func (l *liveSite) beginOn(backends ...string) {
	l.t.Helper()
	l.lab.Eventually(fmt.Sprint("new flows go to ", backends), func() bool {
		for i := range 100 {
			f := beginFlow(l.t, l.client, i)
			_ = f.conn.Close()
			if !slices.Contains(backends, strings.TrimSpace(f.by)) {
				return false
			}
		}
		return true
	})
	l.begin(20, backends...)
}

// check asks on half of the flows whether they are as they were, but for those of a
// backend; at the end on all of them.
func (l *liveSite) check(when, but string) {
	l.t.Helper()
	broken := 0
	for i, f := range l.flows {
		if i/2%2 == 0 && when != atTheEnd || f.by == but+"\n" {
			continue
		}
		if by, err := f.ask(); err != nil || by != f.by {
			if broken++; broken <= 3 {
				l.t.Errorf("%s: flow %d of %q is of %q, %v", when, i, f.by, by, err)
			}
		}
	}
	if broken > 0 {
		l.t.Fatalf("%s: %d of %d flows broken", when, broken, len(l.flows))
	}
	l.t.Logf("%s: none of %d flows broken", when, len(l.flows))
}

// Flows, of which half are idle until the end, go on through all that befalls a site with
// two gateways.
func TestLiveFlows(t *testing.T) {
	t.Parallel()
	l := newLive(t)
	l.begin(rounds(120, 9800), "web1", "web2")

	for _, g := range []*announcer{l.mate, l.gateway} {
		g.replace(liveWeb2, liveWeb2+liveWeb3)
	}
	l.standing("web3", "up", "active")
	l.check("a backend joined", "")
	l.begin(rounds(40, 200), "web1", "web2", "web3")

	l.well(l.agents[1].node, false)
	l.standing("web2", "down", "draining")
	l.beginOn("web1", "web3")
	l.check("a backend fails its probe", "")
	l.well(l.agents[1].node, true)
	l.standing("web2", "up", "active")
	l.check("it is well again", "")

	drain := func(a *announcer, args ...string) {
		if said, err := a.razor(args...); err != nil {
			t.Fatalf("%v: %v: %s", args, err, said)
		}
	}
	drain(l.agents[0], "drain", "agent")
	l.standing("web1", "up", "draining")
	l.beginOn("web2", "web3")
	l.check("a backend is drained", "")
	losePins(t, filepath.Join(l.pins, "gateway"))
	losePins(t, filepath.Join(l.pins, "mate"))
	l.check("the pins are lost, after two changes", "")
	drain(l.agents[0], "undrain", "agent")
	l.standing("web1", "up", "active")
	l.check("it is undrained", "")

	weight := ""
	for i := range 20 {
		next := fmt.Sprintf(`"2001:db8:5e:2::/64", weight: %d}`, 2+i%3)
		l.decided(func() {
			if weight == "" {
				l.gateway.replace(`"2001:db8:5e:2::/64"}`, next)
			} else {
				l.gateway.replace(weight, next)
			}
		})
		weight = next
		l.check(fmt.Sprint("weights changed, ", i+1), "")
	}

	drain(l.gateway, "drain", "gateway")
	l.until([]string{"swp5"}, vip4, vip6)
	l.check("a gateway is drained", "")
	drain(l.gateway, "undrain", "gateway")
	l.until([]string{"swp1", "swp5"}, vip4, vip6)
	l.check("it is undrained", "")
	drain(l.mate, "drain", "gateway")
	l.until([]string{"swp1"}, vip4, vip6)
	for _, to := range []string{"2001:db8:5e:3::", "2001:db8:5e:4::", "2001:db8:5e:2::"} { // each leaves the slots that it had
		l.gateway.replace(`"`+to+`/64"`, `"`+to+`/64", state: draining`)
		l.beginOn(slices.DeleteFunc([]string{"web1", "web2", "web3"}, func(b string) bool { return to == nodePrefix(int(b[3]-'0')+1).Addr().String() })...)
		l.gateway.replace(", state: draining", "")
	}
	drain(l.mate, "undrain", "gateway")
	l.until([]string{"swp1", "swp5"}, vip4, vip6)
	l.check("the mate was drained, and tables are others", "")
	drain(l.gateway, "restart", "gateway")
	l.gateway.awaitUp(1)
	l.check("it was restarted", "")
	l.gateway.Kill()
	l.check("it was killed", "")
	l.rewrite(l.gateway, "    tables_listen:", "    max_services: 40\n    tables_listen:")
	l.gateway.start()
	l.gateway.awaitUp(1)
	l.lab.Eventually("its maps are others", func() bool {
		dirs, err := filepath.Glob(filepath.Join(l.pins, "gateway", "balancer-[0-9]*"))
		return err == nil && len(dirs) == 1 && strings.HasSuffix(dirs[0], "-40")
	})
	l.check("it has other maps", "")

	l.tor.Run("nft", "add table inet dead { chain o { type filter hook postrouting priority 0; oifname swp1 drop; }; chain i { type filter hook prerouting priority -300; iifname swp1 drop; }; }")
	l.gateway.Kill()
	l.until([]string{"swp5"}, vip4, vip6)
	l.check("its host is dead", "")
	l.begin(20, "web1", "web2", "web3")
	l.tor.Run("nft", "delete table inet dead")
	l.gateway.start()
	l.until([]string{"swp1", "swp5"}, vip4, vip6)
	l.check("its host is back", "")

	l.servers[2].Kill()
	l.agents[2].Kill()
	l.ways[2].Kill()
	l.standing("web3", "silent", "dead")
	l.check("a backend was killed", "web3")
	l.beginOn("web1", "web2")
	l.check(atTheEnd, "web3")
	for _, g := range []*announcer{l.gateway, l.mate} {
		g.until("the VIPs are announced", func(s gateway.Status) bool { return len(s.Announcements) == 3 })
	}
}

// rewrite edits the configuration of a process that does not run.
func (l *liveSite) rewrite(a *announcer, from, to string) {
	l.t.Helper()
	text, err := os.ReadFile(a.config)
	if err == nil {
		err = os.WriteFile(a.config, []byte(strings.Replace(string(text), from, to, 1)), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}
