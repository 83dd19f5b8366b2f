package gateway

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// SiteConfig is one of `gateway.sites:`, another site with the same services.
type SiteConfig struct {
	Name     string   `yaml:"name"`
	Locators string   `yaml:"locators"` // prefix of all its hosts' locators
	Gateways []string `yaml:"gateways"` // locators of those that take packets of this site
	Distance *float64 `yaml:"distance"` // in any unit; its place in the list without
}

// SpillConfig is one of `spill:` of a service.
type SpillConfig struct {
	Site  string  `yaml:"site"`
	Share float64 `yaml:"share"` // of new flows, 0 to 1
}

const (
	defaultMissBudget = 50_000      // packets a second
	leastMissBudget   = 100         // that comes in pieces
	mostMissBudget    = 100_000_000 // more than any host forwards
)

// sites names what is wrong with the other sites, and with what services spill to them.
func (d *defects) sites(c *Config, block netip.Prefix) {
	if n := *c.Dataplane.MissBudget; n != 0 {
		d.number("dataplane.miss_budget", n, leastMissBudget, mostMissBudget)
	}
	if n := len(c.Sites); n > balancer.MaxSites {
		d.add("sites", strconv.Itoa(n), "too many", fmt.Sprintf("at most %d", balancer.MaxSites))
	}
	names, taken := map[string]bool{}, map[netip.Prefix]string{}
	if own, err := netip.ParsePrefix(c.Dataplane.Locator); err == nil {
		taken[own] = "this one"
	}
	for i := range c.Services {
		for j := range c.Services[i].Backends {
			if p, err := netip.ParsePrefix(c.Services[i].Backends[j].Locator); err == nil {
				taken[p] = "this one"
			}
		}
	}
	for i := range c.Sites {
		s, key := &c.Sites[i], "sites["+strconv.Itoa(i)+"]"
		switch {
		case s.Name == "":
			d.add(key+".name", "", "missing", "the name of the other site")
		case names[s.Name]:
			d.add(key+".name", s.Name, "used twice", "each name once")
		}
		names[s.Name] = true
		d.locators(key, s, block, taken)
	}
	for i := range c.Services {
		d.spills("services["+strconv.Itoa(i)+"].spill", c.Services[i].Spill, names)
	}
}

// locators names what is wrong with the locators of a site.
func (d *defects) locators(key string, s *SiteConfig, block netip.Prefix, taken map[netip.Prefix]string) {
	p, err := netip.ParsePrefix(s.Locators)
	ok := err == nil && p.Addr().Is6() && p.Bits() <= 64 && p == p.Masked()
	switch {
	case !ok:
		d.add(key+".locators", s.Locators, "not a prefix of locators", "an IPv6 prefix such as 2001:db8:5e:e000::/56")
	case block.IsValid() && (!block.Overlaps(p) || p.Bits() <= block.Bits()):
		d.add(key+".locators", s.Locators, "not a part of gateway.dataplane.sr_block", "a longer prefix inside of it")
	}
	for other, name := range taken {
		if ok && other.Overlaps(p) {
			d.add(key+".locators", s.Locators, "has locators of site "+name+": "+other.String(), "each locator at one site")
			break
		}
	}
	if ok {
		taken[p] = s.Name
	}
	if n := len(s.Gateways); n == 0 || n > balancer.MaxSiteGateways {
		d.add(key+".gateways", strconv.Itoa(n), "so many", fmt.Sprintf("1 to %d", balancer.MaxSiteGateways))
	}
	seen := map[netip.Prefix]bool{}
	for i, text := range s.Gateways {
		key := key + ".gateways[" + strconv.Itoa(i) + "]"
		d.locator(key, text, block, "the /64 of the gateway")
		a, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			continue
		case ok && !p.Contains(a.Addr()):
			d.add(key, text, "outside of the site's locators", "one inside of "+s.Locators)
		case seen[a]:
			d.add(key, text, "used twice", "each gateway once")
		}
		seen[a] = true
	}
}

// spills names what is wrong with what a service spills.
func (d *defects) spills(key string, spills []SpillConfig, sites map[string]bool) {
	if len(spills) > balancer.MaxSpills {
		d.add(key, strconv.Itoa(len(spills)), "too many", fmt.Sprintf("at most %d", balancer.MaxSpills))
	}
	sum, seen := 0.0, map[string]bool{}
	for i, s := range spills {
		key := key + "[" + strconv.Itoa(i) + "]"
		switch {
		case !sites[s.Site]:
			d.add(key+".site", s.Site, "no such site", "one of gateway.sites")
		case seen[s.Site]:
			d.add(key+".site", s.Site, "used twice", "each site once")
		}
		seen[s.Site] = true
		share := strconv.FormatFloat(s.Share, 'g', -1, 64)
		if !(s.Share >= 0 && s.Share <= 1) {
			d.add(key+".share", share, "not a share", "0 to 1")
		} else if sum += s.Share; sum > 1+1e-9 {
			d.add(key+".share", share, "all shares are more than 1", "1 together at most")
		}
	}
}

// elsewhere is an error where this gateway's locator is one of another site.
func (c *Config) elsewhere(locator netip.Prefix) error {
	for i, s := range c.Sites {
		if s.plan().Locators.Contains(locator.Addr()) {
			return upstreams.Defect{
				Key: "gateway.sites[" + strconv.Itoa(i) + "].locators", Member: s.Locators,
				Reason: fmt.Sprintf("this gateway's locator %v is in it", locator), Want: "the locators of another site",
			}
		}
	}
	return nil
}

// plan is what the balancer has to know of other sites.
func (s *SiteConfig) plan() balancer.PlannedSite {
	p := balancer.PlannedSite{Name: s.Name}
	p.Locators, _ = netip.ParsePrefix(s.Locators) // as Check has seen it
	for _, text := range s.Gateways {
		if a, err := netip.ParsePrefix(text); err == nil && a.Addr().Is6() {
			p.Gateways = append(p.Gateways, balancer.Entry(a))
		}
	}
	return p
}

// spills are those of a service.
func (s *ServiceConfig) spills() (out steering.Spills) {
	for _, to := range s.Spill {
		out = append(out, steering.Spill{Site: to.Site, Slots: steering.SpillSlots(to.Share)})
	}
	return out
}
