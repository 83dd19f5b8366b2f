package gateway

import (
	"fmt"
	"net/netip"
	"slices"
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
	// Capacity is what it takes at most, whatever it says itself.
	Capacity []SiteCapacityConfig `yaml:"capacity"`
}

// SiteCapacityConfig is one of `capacity:` of another site.
type SiteCapacityConfig struct {
	Service string   `yaml:"service"` // "" is each that has none of its own
	Most    *float64 `yaml:"most"`    // in the unit of its load; 0 sends it nothing
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
	mostCapacity      = 1e15        // that decisions take
)

// sites names what is wrong with the other sites, and with what services spill to them.
func (d *defects) sites(c *Config, block netip.Prefix) {
	if n := *c.Dataplane.MissBudget; n != 0 {
		d.number("dataplane.miss_budget", n, leastMissBudget, mostMissBudget)
	}
	if n := len(c.Sites); n > balancer.MaxSites {
		d.add("sites", strconv.Itoa(n), "too many", fmt.Sprintf("at most %d", balancer.MaxSites))
	}
	rules := newSiteRules(d, c, block)
	for i := range c.Sites {
		rules.check("sites["+strconv.Itoa(i)+"]", &c.Sites[i])
	}
	for i := range c.Services {
		d.spills("services["+strconv.Itoa(i)+"].spill", c.Services[i].Spill, c)
	}
}

// siteRules are what other sites are held to, each beside those before it.
type siteRules struct {
	*defects

	own      string
	block    netip.Prefix
	services map[string]bool
	names    map[string]bool
	taken    map[netip.Prefix]string // locators, and the sites that have them
}

func newSiteRules(d *defects, c *Config, block netip.Prefix) *siteRules {
	r := &siteRules{defects: d, own: c.Site, block: block, services: map[string]bool{}, names: map[string]bool{}, taken: map[netip.Prefix]string{}}
	if own, err := netip.ParsePrefix(c.Dataplane.Locator); err == nil {
		r.taken[own] = "this one"
	}
	for i := range c.Services {
		r.services[c.Services[i].Name] = true
		for j := range c.Services[i].Backends {
			if p, err := netip.ParsePrefix(c.Services[i].Backends[j].Locator); err == nil {
				r.taken[p] = "this one"
			}
		}
	}
	return r
}

// check names what is wrong with a site.
func (r *siteRules) check(key string, s *SiteConfig) {
	switch {
	case s.Name == "":
		r.add(key+".name", "", "missing", "the name of the other site")
	case s.Name == r.own:
		r.add(key+".name", s.Name, "this site", "others; gateway.site is not among them")
	case r.names[s.Name]:
		r.add(key+".name", s.Name, "used twice", "each name once")
	}
	r.names[s.Name] = true
	r.locators(key, s)
	if s.Distance != nil && !(*s.Distance >= 0 && *s.Distance <= mostPolicyWeight) {
		r.add(key+".distance", number64(*s.Distance), "not a distance", "a number from 0 to "+strconv.Itoa(mostPolicyWeight))
	}
	seen := map[string]bool{}
	for i, of := range s.Capacity {
		key := key + ".capacity[" + strconv.Itoa(i) + "]"
		switch {
		case of.Service != "" && !r.services[of.Service]:
			r.add(key+".service", of.Service, "no such service", "one of gateway.services, or no such key for all others")
		case seen[of.Service]:
			r.add(key+".service", of.Service, "used twice", "each service once, and once none")
		}
		seen[of.Service] = true
		if of.Most == nil {
			r.add(key+".most", "", "missing", "a load in the unit of the service's agents, or 0 for nothing")
		} else if !(*of.Most >= 0 && *of.Most <= mostCapacity) {
			r.add(key+".most", number64(*of.Most), "not a load", "a number of 0 or more")
		}
	}
}

// locators names what is wrong with the locators of a site.
func (r *siteRules) locators(key string, s *SiteConfig) {
	p, err := netip.ParsePrefix(s.Locators)
	ok := err == nil && p.Addr().Is6() && p.Bits() <= 64 && p == p.Masked()
	switch {
	case !ok:
		r.add(key+".locators", s.Locators, "not a prefix of locators", "an IPv6 prefix such as 2001:db8:5e:e000::/56")
	case r.block.IsValid() && (!r.block.Overlaps(p) || p.Bits() <= r.block.Bits()):
		r.add(key+".locators", s.Locators, "not a part of gateway.dataplane.sr_block", "a longer prefix inside of it")
	}
	for other, name := range r.taken {
		if ok && other.Overlaps(p) {
			r.add(key+".locators", s.Locators, "has locators of site "+name+": "+other.String(), "each locator at one site")
			break
		}
	}
	if ok {
		r.taken[p] = s.Name
	}
	if n := len(s.Gateways); n == 0 || n > balancer.MaxSiteGateways {
		r.add(key+".gateways", strconv.Itoa(n), "so many", fmt.Sprintf("1 to %d", balancer.MaxSiteGateways))
	}
	seen := map[netip.Prefix]bool{}
	for i, text := range s.Gateways {
		key := key + ".gateways[" + strconv.Itoa(i) + "]"
		r.locator(key, text, r.block, "the /64 of the gateway")
		a, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			continue
		case ok && !p.Contains(a.Addr()):
			r.add(key, text, "outside of the site's locators", "one inside of "+s.Locators)
		case seen[a]:
			r.add(key, text, "used twice", "each gateway once")
		}
		seen[a] = true
	}
}

// spills names what is wrong with what a service spills.
func (d *defects) spills(key string, spills []SpillConfig, c *Config) {
	if len(spills) > balancer.MaxSpills {
		d.add(key, strconv.Itoa(len(spills)), "too many", fmt.Sprintf("at most %d", balancer.MaxSpills))
	}
	sum, seen := 0.0, map[string]bool{}
	for i, s := range spills {
		key := key + "[" + strconv.Itoa(i) + "]"
		switch {
		case !c.mayKnow(s.Site):
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

// mayKnow tells whether there may be another site of a name: those of Consul have any.
func (c *Config) mayKnow(site string) bool {
	return c.ConsulSites != nil && site != "" && site != c.Site || slices.ContainsFunc(c.Sites, func(s SiteConfig) bool { return s.Name == site })
}

// siteKey is where a site is configured.
func (c *Config) siteKey(i int) string {
	if c.ConsulSites != nil {
		return "gateway.consul_sites[" + c.Sites[i].Name + "]"
	}
	return "gateway.sites[" + strconv.Itoa(i) + "]"
}

// elsewhere is an error where this gateway's locator is one of another site.
func (c *Config) elsewhere(locator netip.Prefix) error {
	for i, s := range c.Sites {
		if s.plan().Locators.Contains(locator.Addr()) {
			return upstreams.Defect{
				Key: c.siteKey(i) + ".locators", Member: s.Locators,
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

// spills are those of a service, to sites that there are.
func (c *Config) spills(s *ServiceConfig) (out steering.Spills) {
	for _, to := range s.Spill {
		if slices.ContainsFunc(c.Sites, func(o SiteConfig) bool { return o.Name == to.Site }) {
			out = append(out, steering.Spill{Site: to.Site, Slots: steering.SpillSlots(to.Share)})
		}
	}
	return out
}
