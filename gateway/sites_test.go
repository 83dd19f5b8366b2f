package gateway

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// ofSites is balanced with other sites.
func ofSites(t *testing.T) Config {
	t.Helper()
	c := balanced(t)
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

func TestSiteDefects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want   string
		change func(c *Config)
	}{
		{"gateway.dataplane.miss_budget", func(c *Config) { c.Dataplane.MissBudget = new(99) }},
		{"gateway.sites[0].name", func(c *Config) { c.Sites[0].Name, c.Services[0].Spill = "", nil }},
		{"gateway.sites[1].name", func(c *Config) { c.Sites[1].Name, c.Services[0].Spill = "east", nil }},
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
				c.Sites = append(c.Sites, SiteConfig{name, start + "/60", []string{start + "/64"}})
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
