package gateway

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// ofSites is balanced with other sites.
func ofSites(t *testing.T) Config {
	t.Helper()
	c := balanced(t)
	c.Site = "west"
	c.Sites = []SiteConfig{
		{Name: "east", Locators: "2001:db8:5e:e000::/56", Gateways: []string{"2001:db8:5e:e001::/64", "2001:db8:5e:e002::/64"}},
		{Name: "north", Locators: "2001:db8:5e:e100::/56", Gateways: []string{"2001:db8:5e:e101::/64"}},
	}
	c.Services[0].Spill = []SpillConfig{{"north", 0.25}, {"east", 0.5}}
	return c
}

func TestSites(t *testing.T) {
	t.Parallel()
	c := ofSites(t)
	if d := c.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	p := c.balance(make([]byte, 16))
	entries := []netip.Addr{netip.MustParseAddr("2001:db8:5e:e001:5203::"), netip.MustParseAddr("2001:db8:5e:e002:5203::")}
	if len(p.Sites) != 2 || !slices.Equal(p.Sites[0].Gateways, entries) || p.Sites[0].Locators != netip.MustParsePrefix("2001:db8:5e:e000::/56") {
		t.Errorf("%+v", p.Sites)
	}
	want := steering.Spills{{Site: "north", Slots: 16384}, {Site: "east", Slots: 32769}}
	if !slices.Equal(p.Services[0].Spills, want) || p.MissBudget != 50_000 {
		t.Errorf("%+v, budget %d, want %+v", p.Services[0].Spills, p.MissBudget, want)
	}
}

// policy has the service decided by a policy.
func policy(p PolicyConfig) func(*Config) {
	return func(c *Config) { c.Services[0].Spill, c.Services[0].Policy = nil, &p }
}

// inConsul has the other sites in Consul.
func inConsul(prefix string) func(*Config) {
	return func(c *Config) { c.Sites, c.ConsulSites = nil, &ConsulSitesConfig{Prefix: prefix} }
}

// The settings of a service are those that are decided by.
func TestSettings(t *testing.T) {
	t.Parallel()
	c := ofSites(t)
	s := &c.Services[0]
	if got := c.settings(s); !reflect.DeepEqual(got, steering.ServiceSettings{MinHealthy: 0.25}) {
		t.Errorf("by default %+v", got)
	}
	s.Spill, s.Limit, s.Accept, s.SlowStart, s.StaleAfter, s.MinHealthy = nil, 0.7, 0.6, time.Minute, 5*time.Second, new(0.0)
	s.Policy = &PolicyConfig{Kind: "weighted", To: []PolicyPartConfig{
		{Site: "west", Weight: new(3.0)}, {Kind: "failover-only", To: []PolicySiteConfig{{Site: "east"}, {Site: "north", Weight: new(2.0)}}},
	}}
	if d := c.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	want := steering.ServiceSettings{
		Limit: 0.7, Accept: 0.6, MinHealthy: keepLast, SlowStart: 60, StaleAfter: 5,
		Policy: steering.Policy{Kind: steering.Weighted, To: []steering.Policy{
			{Site: "west", Weight: 3}, {Kind: steering.FailoverOnly, Weight: 1, To: []steering.Policy{{Site: "east", Weight: 1}, {Site: "north", Weight: 2}}},
		}},
	}
	if got := c.settings(s); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if c.Sites, c.Site = nil, ""; c.minHealthy(&c.Services[0]) != 0 || c.decides() {
		t.Error("without a site")
	}
}

func TestSiteDefects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want   string
		change func(c *Config)
	}{
		{"gateway.dataplane.miss_budget", func(c *Config) { c.Dataplane.MissBudget = new(99) }},
		{"gateway.sites[0].name", func(c *Config) { c.Sites[0].Name, c.Services[0].Spill = "", nil }},
		{"gateway.sites[1].name", func(c *Config) { c.Sites[1].Name, c.Services[0].Spill = "east", nil }},
		{"gateway.site", func(c *Config) { c.Site = "" }},
		{"gateway.sites[1].name", func(c *Config) { c.Site = "north" }},
		{"gateway.sites[0].distance", func(c *Config) { c.Sites[0].Distance = new(-1.0) }},
		{"gateway.sites[0].capacity[0].service", func(c *Config) { c.Sites[0].Capacity = []SiteCapacityConfig{{"mail", new(1.0)}} }},
		{"gateway.sites[0].capacity[1].service", func(c *Config) { c.Sites[0].Capacity = []SiteCapacityConfig{{"web", new(1.0)}, {"web", new(1.0)}} }},
		{"gateway.sites[0].capacity[0].most", func(c *Config) { c.Sites[0].Capacity = []SiteCapacityConfig{{"web", nil}} }},
		{"gateway.sites[0].capacity[0].most", func(c *Config) { c.Sites[0].Capacity = []SiteCapacityConfig{{"web", new(-1.0)}} }},
		{"gateway.sites", func(c *Config) { c.ConsulSites = &ConsulSitesConfig{Prefix: "razor/sites/"} }},
		{"gateway.consul_sites.prefix", inConsul("")},
		{"gateway.consul_sites.prefix", inConsul("razor/sites")},
		{"gateway.consul_sites.prefix", inConsul("/razor/sites/")},
		{"gateway.site", func(c *Config) { inConsul("razor/sites/")(c); c.Site = "" }},
		{"gateway.services[0].spill[0].site", func(c *Config) { inConsul("razor/sites/")(c); c.Services[0].Spill[0].Site = "west" }},
		{"gateway.services[0].policy.to[0].site", func(c *Config) {
			policy(PolicyConfig{To: []PolicyPartConfig{{}, {Site: "south"}}})(c)
			inConsul("razor/sites/")(c)
		}},
		{"gateway.services[0].limit", func(c *Config) { c.Services[0].Limit = 1.5 }},
		{"gateway.services[0].accept", func(c *Config) { c.Services[0].Accept = 0.95 }},
		{"gateway.services[0].slow_start", func(c *Config) { c.Services[0].SlowStart = 25 * time.Hour }},
		{"gateway.services[0].stale_after", func(c *Config) { c.Services[0].StaleAfter = time.Second }},
		{"gateway.services[0].policy", func(c *Config) { c.Services[0].Policy = &PolicyConfig{} }},
		{"gateway.services[0].policy.kind", policy(PolicyConfig{Kind: "nearest"})},
		{"gateway.services[0].policy.to[0].site", policy(PolicyConfig{To: []PolicyPartConfig{{Site: "south"}}})},
		{"gateway.services[0].policy.to[1].site", policy(PolicyConfig{To: []PolicyPartConfig{{Site: "east"}, {Site: "east"}}})},
		{"gateway.services[0].policy.to[0].weight", policy(PolicyConfig{To: []PolicyPartConfig{{Site: "east", Weight: new(0.0)}}})},
		{"gateway.services[0].policy.to[0].kind", policy(PolicyConfig{To: []PolicyPartConfig{{Site: "east", Kind: "weighted"}}})},
		{"gateway.services[0].policy.to[0].site", policy(PolicyConfig{To: []PolicyPartConfig{{Site: "east", To: []PolicySiteConfig{{Site: "north"}}}}})},
		{"gateway.services[0].policy.to[0].to[1].site", policy(PolicyConfig{To: []PolicyPartConfig{{To: []PolicySiteConfig{{Site: "north"}, {}}}}})},
		{"gateway.services[0].policy", func(c *Config) {
			c.Site, c.Sites, c.Services[0].Spill, c.Services[0].Policy = "", nil, nil, &PolicyConfig{}
		}},
		{"gateway.services[0].limit", func(c *Config) { c.Site, c.Sites, c.Services[0].Spill, c.Services[0].Limit = "", nil, nil, 0.5 }},
		{"gateway.sites[0].locators", func(c *Config) { c.Sites[0].Locators = "2001:db8:5e:e000::/65" }},
		{"gateway.sites[1].locators", func(c *Config) {
			c.Sites[1].Locators, c.Sites[1].Gateways = "2001:db8:5e:e000::/57", []string{"2001:db8:5e:e003::/64"}
		}},
		{"gateway.sites[0].gateways", func(c *Config) { c.Sites[0].Gateways = nil }},
		{"gateway.sites[0].gateways[1]", func(c *Config) { c.Sites[0].Gateways[1] = "2001:db8:5e:e101::/64" }},
		{"gateway.sites[0].gateways[1]", func(c *Config) { c.Sites[0].Gateways[1] = c.Sites[0].Gateways[0] }},
		{"gateway.sites[0].gateways[0]", func(c *Config) { c.Sites[0].Gateways[0] = "2001:db8:5e:e001::1" }},
		{"gateway.services[0].spill[0].site", func(c *Config) { c.Services[0].Spill[0].Site = "south" }},
		{"gateway.services[0].spill[1].site", func(c *Config) { c.Services[0].Spill[1].Site = "north" }},
		{"gateway.services[0].spill[0].share", func(c *Config) { c.Services[0].Spill[0].Share = -0.1 }},
		{"gateway.services[0].spill[1].share", func(c *Config) { c.Services[0].Spill[1].Share = 0.76 }},
		{"gateway.services[0].spill", func(c *Config) {
			c.Sites, c.Services[0].Spill = nil, nil
			for _, name := range []string{"a", "b", "c", "d", "e"} {
				start := "2001:db8:5e:" + name + "000::"
				c.Sites = append(c.Sites, SiteConfig{Name: name, Locators: start + "/60", Gateways: []string{start + "/64"}})
				c.Services[0].Spill = append(c.Services[0].Spill, SpillConfig{Site: name, Share: 0.1})
			}
		}},
		{"gateway.sites", func(c *Config) {
			c.Services[0].Spill = nil
			c.Sites = make([]SiteConfig, balancer.MaxSites+1)
		}},
	} {
		cfg := ofSites(t)
		c.change(&cfg)
		var keys []string
		for _, d := range cfg.Check() {
			keys = append(keys, d.Key)
		}
		if !slices.Contains(keys, c.want) || c.want != "gateway.sites" && len(keys) != 1 {
			t.Errorf("%s: defects of %v", c.want, keys)
		}
	}
}
