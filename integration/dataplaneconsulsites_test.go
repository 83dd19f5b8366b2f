package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/consultest"
)

// keyedSites are two sites, of which west has the other ones from Consul.
type keyedSites struct {
	*hosts

	consul *consultest.Server
}

const sitePrefix = "razor/sites/"

func newKeyedSites(t *testing.T) *keyedSites {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "consul.sock")
	k := &keyedSites{consul: socketTo(t, socket, consultest.Start(t))}
	var east *announcer
	k.hosts, east = newSiteHosts(t, func(h *hosts) {
		h.edit["gateway"] = []string{"        - {name: web2, locator: \"2001:db8:5e:3::/64\"}\n", fmt.Sprintf(
			"      slow_start: 1ms\n  site: west\n  consul: {address: \"unix://%s\"}\n  consul_sites: {prefix: %s}\n", socket, sitePrefix)}
		h.edit["east"] = []string{announced, ""} // clients' packets come in at west
	})
	k.ready(k.agents[0], 2)
	k.ready(k.agents[1], 102)
	k.until([]string{"swp1"}, vip4, vip6)
	for port, number := range map[string]int{"swp1": 1, "swp2": 2, "swp3": 101, "swp4": 102} {
		k.until([]string{port}, nodePrefix(number).String())
	}
	east.awaitUp(1)
	// One that is in keys, and that nobody is.
	k.gateway.node.Run("ip", "-6", "route", "add", "unreachable", nodePrefix(110).String())
	return k
}

// put has a site be in Consul, with gateways.
func (k *keyedSites) put(name string, gateways ...int) {
	k.t.Helper()
	var list []string
	for _, n := range gateways {
		list = append(list, fmt.Sprintf("%q", nodePrefix(n)))
	}
	putKey(k.t, k.consul, sitePrefix+name, fmt.Sprintf("locators: \"2001:db8:5e:100::/56\"\ngateways: [%s]\n", strings.Join(list, ", ")))
}

// site waits until the gateway has a site with gateways, each with a way or "no way".
func (k *keyedSites) site(when string, want ...string) {
	k.t.Helper()
	var got []string
	k.lab.Eventually(fmt.Sprintf("%s: %q", when, want), func() bool {
		got = nil
		for _, s := range k.gateway.status().Sites {
			for _, g := range s.Gateways {
				word := s.Site + " " + strings.TrimSuffix(strings.TrimPrefix(g.SID, "2001:db8:5e:"), ":5203::")
				if g.Why != "" {
					word += " no way"
				}
				got = append(got, word)
			}
		}
		return slices.Equal(got, want)
	})
}

// is waits until the gateway says something of Consul.
func (k *keyedSites) is(what string, ok func(gateway.ConsulSitesStatus) bool) {
	k.t.Helper()
	k.lab.Eventually(what, func() bool {
		s := k.gateway.status().ConsulSites
		return s != nil && ok(*s)
	})
}

func (k *keyedSites) delete(name string) {
	k.t.Helper()
	if _, err := k.consul.Client.KV().DeleteTree(sitePrefix+name, nil); err != nil {
		k.t.Fatal(err)
	}
}

// A site comes, changes and goes as its key in Consul does, and flows go on. A value that
// cannot be used, a Consul that has lost all, is away or empty take no site away, nor does a
// restart of the gateway meanwhile.
func TestSitesInConsul(t *testing.T) {
	t.Parallel()
	k := newKeyedSites(t)
	k.is("there are none", func(s gateway.ConsulSitesStatus) bool { return s.Answered && s.Sites == 0 })
	k.begin(20, "web1")
	said, err := k.gateway.razor("check")
	if err == nil || !strings.Contains(said, "consul: razor/sites/: there is no such key; want one for each site: consul kv put razor/sites/east @east.yaml\n") {
		t.Errorf("check of nothing: %v: %s", err, said)
	}

	putKey(t, k.consul, sitePrefix+"west", "for others")
	k.put("east", 101)
	k.site("it comes", "east 101")
	if said, err := k.gateway.razor("check"); err != nil {
		t.Errorf("check: %v: %s", err, said)
	}
	k.lab.Eventually("west hears of east", func() bool {
		return strings.Contains(k.gateway.metrics(), `razor_gateway_site_age_seconds{from_site="east"}`)
	})
	const web1 = `locator: "2001:db8:5e:2::/64"`
	k.gateway.replace(web1, web1+", state: draining")
	k.begin(20, "web2")
	k.goOn("web1 drains")

	k.put("east", 101, 110)
	k.site("another gateway", "east 101", "east 110 no way")
	k.goOn("another gateway")
	k.put("east", 101, 3)
	const bad = `razor/sites/east: gateways[1]: "2001:db8:5e:3::/64": outside of the site's locators; want one inside of 2001:db8:5e:100::/56`
	k.is("a bad value", func(s gateway.ConsulSitesStatus) bool { return slices.Equal(s.Refused, []string{bad}) && s.Sites == 1 })
	k.site("a bad value", "east 101", "east 110 no way")
	if said, err := k.gateway.razor("check"); err == nil || !strings.Contains(said, "consul: "+bad+"\n") {
		t.Errorf("check: %v: %s", err, said)
	}
	if said, err := k.gateway.razor("status"); err != nil || !strings.Contains(said, "other sites: 1 by keys in consul, razor/sites/; not obeyed: "+bad+"\n") {
		t.Errorf("status: %v: %s", err, said)
	}
	if k.gateway.counter("razor_gateway_consul_sites_refused") != 1 || strings.Count(k.gateway.Log(), `msg="key in consul is not obeyed, its site is as it was" key=razor/sites/east`) != 1 {
		t.Errorf("metrics or log: %s", k.gateway.Log())
	}
	k.put("east", 101)
	k.site("a good one", "east 101")

	k.delete("")
	k.is("all keys are gone", func(s gateway.ConsulSitesStatus) bool { return slices.Equal(s.Held, []string{"east"}) })
	k.site("all keys are gone", "east 101")
	k.begin(20, "web2")
	k.goOn("all keys are gone")
	putKey(t, k.consul, sitePrefix+"west", "for others")
	k.put("east", 101)
	k.is("they are back", func(s gateway.ConsulSitesStatus) bool { return len(s.Held) == 0 && s.Sites == 1 })

	k.consul.Kill()
	k.is("consul is away", func(s gateway.ConsulSitesStatus) bool { return s.Failed != "" })
	k.gateway.Kill()
	k.goOn("the gateway was killed")
	k.gateway.start()
	k.gateway.awaitUp(1)
	k.site("without consul", "east 101")
	k.begin(20, "web2")
	k.goOn("the gateway runs again, without consul")
	k.consul.Restart() // and it is empty
	k.is("an empty consul", func(s gateway.ConsulSitesStatus) bool { return s.Answered && s.Failed == "" && len(s.Held) == 1 })
	k.begin(20, "web2")
	k.goOn("an empty consul")
	putKey(t, k.consul, sitePrefix+"west", "for others")
	k.put("east", 101)
	k.is("the keys are there", func(s gateway.ConsulSitesStatus) bool { return len(s.Held) == 0 })
	k.gateway.Kill()
	if err := os.Remove(filepath.Join(k.gateway.stateDir(), "sites.json")); err != nil {
		t.Fatal(err)
	}
	k.gateway.start() // as the first one that has its sites in Consul
	k.gateway.awaitUp(1)
	k.site("nothing was kept", "east 101")
	k.begin(20, "web2")
	k.goOn("nothing was kept")

	k.gateway.replace(", state: draining", "")
	k.begin(20, "web1")
	k.goOn("web1 is back")
	k.forget("web2")
	k.delete("east")
	k.site("it is taken away")
	k.begin(20, "web1")
	k.goOn("it is taken away")
	k.lab.Eventually("nothing to be kept", func() bool {
		left, err := os.ReadFile(filepath.Join(k.gateway.stateDir(), "sites.json"))
		return err == nil && string(left) == "{}"
	})
	k.stop()
}
