package balancer

import (
	"fmt"
	"net/netip"
)

// Limits of what concerns other sites (gateway/bpf/maps.h).
const (
	MaxSites        = 64 // others
	MaxSpills       = 4  // sites that a service spills to at a time
	MaxSiteGateways = 8  // of a site
)

// budgetIntervals are in a second.
const budgetIntervals = 10

// Spill is how many slots of a service send their new flows to another site: the ones
// with the lowest ranks that the spills before it leave ([steering.Spills]).
type Spill struct {
	Site  int // number of the site
	Slots uint32
}

// Entry is the SID at which a gateway with a locator takes packets from other sites'
// gateways.
func Entry(locator netip.Prefix) netip.Addr { return netip.AddrFrom16(sid(locator, behaviourEntry)) }

// SetSites says by which entries other sites are reached: indices of backends, for each
// site those that there is a way to. A flow that nobody here has is looked for in the
// order of the sites. An entry has the same share of flows as the others of its site.
func (b *Balancer) SetSites(sites [][]int) error {
	if len(sites) > MaxSites {
		return fmt.Errorf("%d other sites, want at most %d", len(sites), MaxSites)
	}
	// Sites that are new are there before one says that it goes on with them, and those
	// that are gone as long.
	b.host.Sites = max(b.host.Sites, uint32(len(sites)))
	b.setHost()
	next := uint32(MaxSites)
	for number := MaxSites - 1; number >= 0; number-- {
		if number < len(sites) && len(sites[number]) > 0 {
			next = uint32(number)
		}
		v := bpfSite{Next: next}
		if number < len(sites) {
			for i := range v.Entries {
				if n := len(sites[number]); n > 0 {
					v.Entries[i] = uint32(sites[number][i%n])
				}
			}
		}
		if err := b.objects.Sites.Put(uint32(number), v); err != nil {
			return fmt.Errorf("site %d: %w", number, err)
		}
	}
	b.host.Sites = uint32(len(sites))
	b.setHost()
	return nil
}

// SetPatience has packets be dropped that nobody has, until a second of the monotonic
// clock, where otherwise a backend would answer them; 0 is not at all.
func (b *Balancer) SetPatience(until uint32) {
	b.host.Patient = until
	b.setHost()
}

// SetMissBudget bounds how many packets that nobody here has go to other sites, a
// second. Half of it is for flows that missed in the last 4 s already.
func (b *Balancer) SetMissBudget(packets uint64) error {
	var v bpfBudget
	if err := b.objects.Budgets.Lookup(uint32(0), &v); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	v.Most = packets / budgetIntervals
	if err := b.objects.Budgets.Put(uint32(0), v); err != nil {
		return fmt.Errorf("budget: %w", err)
	}
	return nil
}

// setSpills fills the spills of a service.
func (v *bpfService) setSpills(spills []Spill) error {
	if len(spills) > MaxSpills {
		return fmt.Errorf("spills to %d sites, want at most %d", len(spills), MaxSpills)
	}
	for i, s := range spills {
		if s.Site < 0 || s.Site >= MaxSites {
			return fmt.Errorf("spills to site %d, want 0 to %d", s.Site, MaxSites-1)
		}
		v.Spilled = min(v.Spilled+s.Slots, Slots)
		v.Spills[i] = bpfSpill{End: v.Spilled, Site: uint32(s.Site)}
	}
	return nil
}
