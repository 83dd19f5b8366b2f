package balancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Servable tells whether the packets of a prefix have a backend that can be reached,
// and why not: of several services one is enough. What has no VIP is not the
// balancer's, and is served for all that it knows.
func (k *Keeper) Servable(p netip.Prefix) (bool, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var reasons []string
	for _, s := range k.plan.Services {
		if !slices.ContainsFunc(s.VIPs, func(v VIP) bool { return v.Prefix.Overlaps(p) }) {
			continue
		}
		why := cmp.Or(k.awaited, k.unserved(s))
		if why == "" {
			return true, ""
		}
		reasons = append(reasons, fmt.Sprintf("service %s: %s", s.Name, why))
	}
	return len(reasons) == 0, strings.Join(reasons, "; ")
}

// unserved is why a service takes no new flows, "" if it does.
func (k *Keeper) unserved(s PlannedService) string {
	if k.failsOver(s) {
		return ""
	}
	why := "no active backend"
	if s := k.services[s.Name]; !s.serves {
		why = "no slot has a backend"
	}
	for _, b := range s.Backends {
		if b.State != Active || b.Weight == 0 {
			continue
		}
		r := k.backends[b.SID]
		if r.hop.Index != 0 && k.services[s.Name].serves {
			return ""
		}
		if r.hop.Index != 0 {
			continue
		}
		why = fmt.Sprintf("backend %s: %s", b.Name, cmp.Or(r.why, "no way to it"))
	}
	return why
}
