package integration

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/razor-steering/razor/integration/testhost"
)

// newSiteHosts is deploy/dataplane at two sites, behind one router: gateway and web1 are
// at the one, east and web2 at the other. It returns the gateway of east. prepare may set
// edits of the examples.
func newSiteHosts(t *testing.T, prepare func(*hosts)) (*hosts, *announcer) {
	t.Helper()
	const last = " neighbor swp4 interface peer-group gateways\n"
	h := &hosts{front: newFront(t, "cumulus-tor.conf", last, last+strings.ReplaceAll(last, "swp4", "swp5")), pins: testhost.BPFFS(t), edit: map[string][]string{}}
	prepare(h)
	h.client.Run("ethtool", "-K", "eth0", "tx", "off")
	h.tor.Sysctl("net.ipv4.fib_multipath_hash_policy", "1") // ports as well
	h.tor.Sysctl("net.ipv6.fib_multipath_hash_policy", "1")
	const (
		web1 = "        - {name: web1, locator: \"2001:db8:5e:2::/64\"}\n"
		web2 = "        - {name: web2, locator: \"2001:db8:5e:3::/64\"}\n"
		site = "      slow_start: 1ms\n  site: %s\n  sites:\n    - {name: %s, locators: \"%s\", gateways: [\"%s\"]}\n"
	)
	for name, edit := range map[string][]string{
		"gateway": {web2, fmt.Sprintf(site, "west", "east", "2001:db8:5e:100::/56", nodePrefix(101))},
		"east": {
			web1, "", web2, strings.ReplaceAll(web2, ":3::", ":102::") +
				fmt.Sprintf(site, "east", "west", "2001:db8:5e::/56", nodePrefix(1)),
		},
	} {
		h.edit[name] = append(h.edit[name], edit...)
	}
	h.gateway = h.process(h.host("gateway", 1, 1), "gateway", "gateway.yaml")
	h.backend(h.host("web1", 2, 2))
	east := h.process(h.host("east", 3, 101), "gateway", "gateway.yaml")
	h.backend(h.host("web2", 4, 102))
	return h, east
}

// counter is the value of a series of a gateway, -1 where it is not there.
func (a *announcer) counter(series string) int {
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\d+)$`).FindStringSubmatch(a.metrics())
	if found == nil {
		return -1
	}
	n, _ := strconv.Atoi(found[1])
	return n
}

// rewrite edits the configuration.
func (a *announcer) rewrite(from, to string) {
	a.tb.Helper()
	text, err := os.ReadFile(a.config)
	if err != nil {
		a.tb.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		a.tb.Fatalf("%s is without %q", a.config, from)
	}
	if err := os.WriteFile(a.config, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		a.tb.Fatal(err)
	}
}

// replace edits the configuration of a gateway, which takes it.
func (a *announcer) replace(from, to string) {
	a.tb.Helper()
	a.rewrite(from, to)
	before := strings.Count(a.Log(), "configuration reloaded")
	a.Signal(syscall.SIGHUP)
	a.eventually("configuration reloaded", func() bool { return strings.Count(a.Log(), "configuration reloaded") > before })
}

// The processes of users at two sites: flows go on when all packets come to the other
// site, which pins them, and when its gateway is killed. A site without active backends
// has its new flows at the other one.
func TestSitesOfProcesses(t *testing.T) {
	t.Parallel()
	h, east := newSiteHosts(t, func(*hosts) {})
	h.ready(h.agents[0], 2)
	h.ready(h.agents[1], 102)
	h.until([]string{"swp1", "swp3"}, vip4, vip6)
	for port, number := range map[string]int{"swp1": 1, "swp2": 2, "swp3": 101, "swp4": 102} {
		h.until([]string{port}, nodePrefix(number).String())
	}
	h.begin(60, "web1", "web2")
	old := 0
	for _, f := range h.flows {
		if f.by == "web1\n" {
			old++
		}
	}

	const web = `    - {set: web, prefixes: [198.51.100.1, "2001:db8:ffff::1"]}` + "\n"
	h.gateway.replace(web, "")
	h.until([]string{"swp3"}, vip4, vip6)
	h.goOn("all packets come to east")
	h.lab.Eventually("they are pinned", func() bool {
		return east.counter(`razor_gateway_pins_told_total{result="pinned"}`) == old
	})
	const away = `razor_gateway_packets_total{dropped="false",result="away"}`
	asked := east.counter(away)
	if asked < old {
		t.Errorf("%d packets of %d flows were asked about", asked, old)
	}
	h.goOn("pinned")
	if n := east.counter(away); n != asked {
		t.Errorf("%d packets of flows with pins were asked about", n-asked)
	}
	east.Kill()
	h.goOn("the gateway of east was killed")
	east.start()
	east.awaitUp(1)
	h.goOn("the gateway of east runs again")
	if n := east.counter("razor_gateway_pins"); n != old {
		t.Errorf("%d pins, want %d", n, old)
	}

	const web2 = `locator: "2001:db8:5e:102::/64"`
	east.replace(web2, web2+", state: draining")
	h.begin(20, "web1")
	h.goOn("web2 drains")
	east.replace(", state: draining", "")
	h.begin(20, "web2")
	h.gateway.replace("  announce:\n", "  announce:\n"+web)
	h.until([]string{"swp1", "swp3"}, vip4, vip6)
	h.goOn("all are where they began")
	for _, g := range []*announcer{h.gateway, east} {
		if said, err := g.razor("check"); err != nil {
			t.Errorf("check: %v: %s", err, said)
		}
	}
	east.Terminate()
	h.stop()
}
