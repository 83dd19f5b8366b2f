package balancer

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/razor-steering/razor/steering"
)

// PlannedSite is another site of a plan.
type PlannedSite struct {
	Name     string
	Locators netip.Prefix // of its hosts: who of them has a flow may be told of by a pin
	Gateways []netip.Addr // SIDs: their entries
}

// MaxOwners is how many backends of other sites may have flows by pins.
const MaxOwners = 4096

// checkSites refuses sites that contradict themselves or do not fit.
func (p Plan) checkSites() error {
	if len(p.Sites) > MaxSites {
		return fmt.Errorf("%d other sites, want at most %d", len(p.Sites), MaxSites)
	}
	names, sids := map[string]bool{}, map[netip.Addr]string{}
	for _, s := range p.Sites {
		if s.Name == "" || names[s.Name] {
			return fmt.Errorf("site %q: want a name that no other has", s.Name)
		}
		names[s.Name] = true
		if len(s.Gateways) > MaxSiteGateways {
			return fmt.Errorf("site %s: %d gateways, want at most %d", s.Name, len(s.Gateways), MaxSiteGateways)
		}
		for _, a := range s.Gateways {
			if other, ok := sids[a]; ok {
				return fmt.Errorf("site %s: the gateway %s is of site %s", s.Name, a, other)
			}
			sids[a] = s.Name
		}
	}
	for _, s := range p.Services {
		if len(s.Spills) > MaxSpills {
			return fmt.Errorf("service %s: spills to %d sites, want at most %d", s.Name, len(s.Spills), MaxSpills)
		}
		for _, to := range s.Spills {
			if !names[to.Site] {
				return fmt.Errorf("service %s: spills to site %q, which is none", s.Name, to.Site)
			}
		}
	}
	return nil
}

// reachable are the indices of a site's entries that there is a way to, and whose gateways
// answer.
func (k *Keeper) reachable(s PlannedSite) []int {
	var out []int
	for _, a := range s.Gateways {
		if r := k.backends[a]; r != nil && r.hop.Index != 0 && !k.away[a] {
			out = append(out, int(r.index))
		}
	}
	return out
}

// patience is for how long a packet that nobody has is dropped, and not answered, after
// the way to a site was lost: its flow may be there.
const patience = 60 // seconds

// applySites has the balancer reach the sites of a plan.
func (k *Keeper) applySites(p Plan) error {
	sites := make([][]int, len(p.Sites))
	ways, all := map[string]bool{}, true
	for i, s := range p.Sites {
		sites[i] = k.reachable(s)
		ways[s.Name] = len(sites[i]) > 0
		all = all && ways[s.Name]
		if had, known := k.ways[s.Name]; !ways[s.Name] && (had || !known) {
			k.balancer.SetPatience(uptime() + patience)
		}
	}
	if all {
		k.balancer.SetPatience(0)
	}
	k.ways = ways
	return errors.Join(k.balancer.SetMissBudget(p.MissBudget), k.balancer.SetSites(sites))
}

// serves tells whether a plan has a backend for new flows of a service.
func (s PlannedService) serves() bool {
	return slices.ContainsFunc(s.Backends, func(b PlannedBackend) bool { return b.State == Active && b.Weight > 0 })
}

// number is the place of another site in a plan.
func (p Plan) number(site string) int {
	return slices.IndexFunc(p.Sites, func(to PlannedSite) bool { return to.Name == site })
}

// spills are those of a service, and whether they stand where nobody here takes new flows:
// those of the mate that decides, or else of the plan.
func (k *Keeper) spills(p Plan, s PlannedService) (out steering.Spills, stand bool) {
	all, stand := s.Spills, s.Decided
	if own := k.services[s.Name]; k.follows && own != nil && own.copied != nil {
		all, stand = own.copied.Spills, own.copied.Decided && !own.copied.Serves
	}
	for _, to := range all {
		i := p.number(to.Site)
		if i < 0 {
			continue // a site that the mate alone has
		}
		stand = stand && len(k.reachable(p.Sites[i])) > 0
		out = append(out, to)
	}
	return out, stand && len(out) > 0
}

// spilled is a service with its spills by numbers of sites. Without backends for new
// flows here it fails over, if that was not decided about: all go to the first site that
// can be reached, of those that it spills to, or else of all.
func (k *Keeper) spilled(p Plan, s PlannedService) Service {
	out := s.Service
	spills, stand := k.spills(p, s)
	if !s.serves() && !stand {
		var order []int
		for _, to := range spills {
			order = append(order, p.number(to.Site))
		}
		for i := range p.Sites {
			order = append(order, i)
		}
		for _, i := range order {
			if len(k.reachable(p.Sites[i])) > 0 {
				out.Spills = []Spill{{Site: i, Slots: Slots}}
				return out
			}
		}
	}
	for _, to := range spills {
		out.Spills = append(out.Spills, Spill{Site: p.number(to.Site), Slots: to.Slots})
	}
	return out
}

// Ways tells of sites, by name, whether there is a way to one of their gateways.
func (k *Keeper) Ways(sites []PlannedSite) map[string]bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]bool{}
	for _, s := range sites {
		out[s.Name] = len(k.reachable(s)) > 0
	}
	return out
}

// Elsewhere tells whether there is a way to another site.
func (k *Keeper) Elsewhere() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.plan.Sites, func(s PlannedSite) bool { return len(k.reachable(s)) > 0 })
}

// failsOver tells whether the new flows of a service go to other sites, as nobody here
// takes them.
func (k *Keeper) failsOver(s PlannedService) bool {
	return !s.serves() && slices.ContainsFunc(k.spilled(k.plan, s).Spills, func(to Spill) bool {
		return to.Slots > 0 && len(k.reachable(k.plan.Sites[to.Site])) > 0
	})
}

// SetAway says which gateways of other sites do not answer, by their entries: flows go to
// the others of their sites.
func (k *Keeper) SetAway(entries map[netip.Addr]bool) {
	defer k.changed()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = entries
	k.sitesChanged()
}

// loseEntries has the balancer use other entries before the ways to some are taken away.
func (k *Keeper) loseEntries(changes []HopChange) {
	lost, entries := false, k.plan.entries()
	for _, c := range changes {
		if c.Hop.Index == 0 && slices.Contains(entries, c.Address) {
			lost = lost || k.backends[c.Address].hop.Index != 0
			k.backends[c.Address].hop.Index = 0
		}
	}
	if lost {
		k.sitesChanged()
	}
}

// has tells whether a plan has a backend.
func (p Plan) has(sid netip.Addr) bool {
	return slices.ContainsFunc(p.Services, func(s PlannedService) bool {
		return slices.ContainsFunc(s.Backends, func(b PlannedBackend) bool { return b.SID == sid })
	})
}

// sitesChanged follows a change of the ways to entries.
func (k *Keeper) sitesChanged() {
	if err := k.applySites(k.plan); err != nil {
		k.log.Error("other sites not set", "err", err)
	}
	for _, s := range k.plan.Services {
		if err := k.balancer.SetService(k.services[s.Name].number, k.spilled(k.plan, s)); err != nil {
			k.log.Error("spills not set", "service", s.Name, "err", err)
		}
	}
}

// entries are the SIDs of a plan's other sites.
func (p Plan) entries() []netip.Addr {
	var out []netip.Addr
	for _, s := range p.Sites {
		out = append(out, s.Gateways...)
	}
	return out
}

// elsewhere tells whether a SID is one of a host of another site.
func (p Plan) elsewhere(sid netip.Addr) bool {
	return slices.ContainsFunc(p.Sites, func(s PlannedSite) bool { return s.Locators.Contains(sid) })
}

// SiteStatus is another site.
type SiteStatus struct {
	Site     string          `json:"site"`
	Gateways []GatewayStatus `json:"gateways"`
}

// GatewayStatus is the entry of a gateway of another site.
type GatewayStatus struct {
	SID string `json:"sid"`
	Why string `json:"why,omitempty"` // it cannot be reached
}

// Sites is the other sites of the plan.
func (k *Keeper) Sites() []SiteStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []SiteStatus
	for _, s := range k.plan.Sites {
		status := SiteStatus{Site: s.Name}
		for _, a := range s.Gateways {
			g := GatewayStatus{SID: a.String()}
			switch r := k.backends[a]; {
			case r.hop.Index == 0:
				g.Why = cmp.Or(r.why, "no way to it")
			case k.away[a]:
				g.Why = "does not answer"
			}
			status.Gateways = append(status.Gateways, g)
		}
		out = append(out, status)
	}
	return out
}
