package balancer

import (
	"net/netip"
	"slices"
)

// Counted is what the balancer has counted since it was made.
type Counted struct {
	Reasons  map[string]Count        // by reason
	VIPs     map[string][]VIPCount   // by service
	Backends map[netip.Addr]Traffic  // by SID, also of other sites: of packets for which it was the first choice
	Pinned   map[string][]netip.Addr // backends of each other site that have pinned flows here
	Pins     int                     // that there are, some seconds ago
	Told     uint64                  // flows that agents told of, and that were pinned
	Sample   uint32                  // see [Balancer.Sample]
}

// VIPCount is what came in for a VIP.
type VIPCount struct {
	VIP VIP
	Traffic
}

// Counted reads all counters. What cannot be read is 0.
func (k *Keeper) Counted() Counted {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := Counted{
		Reasons: map[string]Count{}, VIPs: map[string][]VIPCount{}, Backends: map[netip.Addr]Traffic{},
		Pinned: map[string][]netip.Addr{}, Pins: k.pins.present, Told: k.pins.made, Sample: k.balancer.Sample(),
	}
	counts, _ := k.balancer.Counts()
	for _, c := range counts {
		out.Reasons[c.Reason] = c
	}
	for _, s := range k.plan.Services {
		for _, v := range s.VIPs {
			t, _ := k.balancer.VIPTraffic(k.services[s.Name].vips[v])
			out.VIPs[s.Name] = append(out.VIPs[s.Name], VIPCount{v, t})
		}
	}
	for sid, r := range k.backends {
		out.Backends[sid], _ = k.balancer.BackendTraffic(int(r.index))
		for _, s := range k.plan.Sites {
			if s.Locators.Contains(sid) && !slices.Contains(s.Gateways, sid) {
				out.Pinned[s.Name] = append(out.Pinned[s.Name], sid)
			}
		}
	}
	return out
}
