package balancer

import "net/netip"

// Counted is what the balancer has counted since it was made.
type Counted struct {
	Reasons  map[string]Count       // by reason
	VIPs     map[string][]VIPCount  // by service
	Backends map[netip.Addr]Traffic // by SID, also entries of other sites: of packets for which it was the first choice
	Pins     int                    // that there are, some seconds ago
	Pinned   uint64                 // flows that agents told of
	Sample   uint32                 // see [Balancer.Sample]
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
		Pins: k.pins.present, Pinned: k.pins.made, Sample: k.balancer.Sample(),
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
	}
	return out
}
