package gateway

import (
	"strconv"
	"time"

	"github.com/razor-steering/razor/steering"
)

// PolicyConfig is `policy:` of a service, how its new flows are divided among sites.
type PolicyConfig struct {
	Kind string             `yaml:"kind"` // local-first, weighted or failover-only
	To   []PolicyPartConfig `yaml:"to"`   // without it all sites, the nearest first
}

// PolicyPartConfig is one of `to:` of a policy: a site, or several that divide what they
// get together.
type PolicyPartConfig struct {
	Site   string             `yaml:"site"`
	Weight *float64           `yaml:"weight"` // in a weighted policy
	Kind   string             `yaml:"kind"`
	To     []PolicySiteConfig `yaml:"to"`
}

// PolicySiteConfig is a site in such a part.
type PolicySiteConfig struct {
	Site   string   `yaml:"site"`
	Weight *float64 `yaml:"weight"`
}

const (
	leastHealthyOfSites = 0.25          // share of the backends, where there are other sites
	keepLast            = 1e-9          // a share that is only not reached by none
	leastStale          = 3 * tellEvery // two datagrams may be lost
	mostStale           = 10 * time.Minute
	mostSlowStart       = 24 * time.Hour
	mostPolicyWeight    = 1_000_000
)

// decides tells whether this gateway decides by itself who gets new flows, with what other
// sites say.
func (c *Config) decides() bool { return c.Site != "" && c.Dataplane.Follow == "" }

// minHealthy is the share of a service with what it is by default.
func (c *Config) minHealthy(s *ServiceConfig) float64 {
	switch {
	case s.MinHealthy != nil:
		return *s.MinHealthy
	case len(c.Sites) > 0:
		return leastHealthyOfSites
	}
	return leastHealthy
}

// settings are those of a service for decisions.
func (c *Config) settings(s *ServiceConfig) steering.ServiceSettings {
	out := steering.ServiceSettings{
		Limit: s.Limit, Accept: s.Accept, MinHealthy: max(keepLast, c.minHealthy(s)),
		SlowStart: steering.Seconds(s.SlowStart.Seconds()), StaleAfter: steering.Seconds(s.StaleAfter.Seconds()),
	}
	if s.Policy != nil {
		out.Policy = s.Policy.policy()
	}
	return out
}

// policy is the policy as it is decided by.
func (p *PolicyConfig) policy() steering.Policy {
	out := steering.Policy{Kind: steering.PolicyKind(p.Kind)}
	for _, part := range p.To {
		next := steering.Policy{Kind: steering.PolicyKind(part.Kind), Site: part.Site, Weight: weightOf(part.Weight)}
		for _, leaf := range part.To {
			next.To = append(next.To, steering.Policy{Site: leaf.Site, Weight: weightOf(leaf.Weight)})
		}
		out.To = append(out.To, next)
	}
	return out
}

func weightOf(w *float64) float64 {
	if w == nil {
		return 1
	}
	return *w
}

// decisions names what is wrong with who this site is, and with the settings of services
// that decisions go by.
func (d *defects) decisions(c *Config) {
	if (len(c.Sites) > 0 || c.ConsulSites != nil) && c.Site == "" {
		d.add("site", "", "missing, and there are other sites", "the name of this one, such as west")
	}
	for i := range c.Services {
		d.decision(c, &c.Services[i], "services["+strconv.Itoa(i)+"]")
	}
}

func (d *defects) decision(c *Config, s *ServiceConfig, key string) {
	share := func(name string, v, most float64, want string) {
		if !(v >= 0 && v <= most) {
			d.add(key+"."+name, number64(v), "not a share that it can be", want)
		}
	}
	share("limit", s.Limit, 1, "a number above 0, up to 1, such as 0.9")
	limit := steering.ServiceSettings{Limit: s.Limit}.WithDefaults().Limit
	share("accept", s.Accept, limit, "a number above 0, up to limit, such as 0.8")
	if s.SlowStart > mostSlowStart {
		d.add(key+".slow_start", s.SlowStart.String(), "too long", "up to "+mostSlowStart.String())
	}
	if s.StaleAfter != 0 && (s.StaleAfter < leastStale || s.StaleAfter > mostStale) {
		d.add(key+".stale_after", s.StaleAfter.String(), "out of range", leastStale.String()+" to "+mostStale.String())
	}
	for name, is := range map[string]bool{
		"limit": s.Limit != 0, "accept": s.Accept != 0, "slow_start": s.SlowStart != 0, "stale_after": s.StaleAfter != 0, "policy": s.Policy != nil,
	} {
		if is && c.Site == "" {
			d.add(key+"."+name, "", "nothing goes by it without gateway.site", "gateway.site, or no such key")
		}
	}
	if s.Policy == nil {
		return
	}
	if len(s.Spill) > 0 {
		d.add(key+".policy", "", "beside spill", "one of the two")
	}
	d.policy(key+".policy", s.Policy, c)
}

// policy names what is wrong with a policy.
func (d *defects) policy(key string, p *PolicyConfig, c *Config) {
	d.policyKind(key, p.Kind)
	seen := map[string]bool{}
	for i := range p.To {
		part, key := &p.To[i], key+".to["+strconv.Itoa(i)+"]"
		d.policyWeight(key, part.Weight)
		if len(part.To) == 0 {
			d.policySite(key, part.Site, c, seen)
			if part.Kind != "" {
				d.add(key+".kind", part.Kind, "of one site", "to, with the sites that divide, or no such key")
			}
			continue
		}
		if part.Site != "" {
			d.add(key+".site", part.Site, "beside to", "one of the two")
		}
		d.policyKind(key, part.Kind)
		for j, leaf := range part.To {
			key := key + ".to[" + strconv.Itoa(j) + "]"
			d.policyWeight(key, leaf.Weight)
			d.policySite(key, leaf.Site, c, seen)
		}
	}
}

func (d *defects) policyKind(key, kind string) {
	switch steering.PolicyKind(kind) {
	case "", steering.LocalFirst, steering.Weighted, steering.FailoverOnly:
	default:
		d.add(key+".kind", kind, "unknown", "local-first, weighted or failover-only")
	}
}

func (d *defects) policySite(key, site string, c *Config, seen map[string]bool) {
	switch {
	case site == "" || site != c.Site && !c.mayKnow(site):
		d.add(key+".site", site, "no such site", "gateway.site, or one of gateway.sites")
	case seen[site]:
		d.add(key+".site", site, "used twice", "each site once")
	}
	seen[site] = true
}

func (d *defects) policyWeight(key string, w *float64) {
	if w != nil && !(*w > 0 && *w <= mostPolicyWeight) {
		d.add(key+".weight", number64(*w), "not a weight", "a number above 0, up to "+strconv.Itoa(mostPolicyWeight))
	}
}

func number64(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
