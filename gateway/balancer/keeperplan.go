package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/razor-steering/razor/steering"
)

// check refuses a plan that contradicts itself or does not fit.
func (k *Keeper) check(p Plan) error {
	if len(p.Services) > k.balancer.services {
		return fmt.Errorf("%d services, want at most %d", len(p.Services), k.balancer.services)
	}
	names, vips, takers := map[string]bool{}, map[VIP]string{}, map[string]bool{}
	for _, s := range p.Services {
		if s.Name == "" || len(s.Name) > MaxServiceName {
			return fmt.Errorf("service %q: the name has %d bytes, want 1 to %d", s.Name, len(s.Name), MaxServiceName)
		}
		if names[s.Name] {
			return fmt.Errorf("service %s is there twice", s.Name)
		}
		names[s.Name], takers[s.Name] = true, s.Fragments
		for _, v := range s.VIPs {
			if err := v.check(); err != nil {
				return fmt.Errorf("service %s: %w", s.Name, err)
			}
			if other, ok := vips[v]; ok {
				return fmt.Errorf("service %s: vip %s is of service %s", s.Name, v, other)
			}
			for other, of := range vips {
				if v.Nested(other) {
					return fmt.Errorf("service %s: vip %s is nested with %s, which prefixes must not be", s.Name, v, other)
				}
				if of != s.Name && Disputed(v, other, s.Fragments, takers[of]) {
					return fmt.Errorf("service %s: fragments to vip %s may be of vip %s of service %s", s.Name, v, other, of)
				}
			}
			vips[v] = s.Name
		}
		sids := map[netip.Addr]string{}
		for _, b := range s.Backends {
			if !b.SID.Is6() || b.SID.Is4In6() {
				return fmt.Errorf("service %s: backend %s: SID %s is not an IPv6 address", s.Name, b.Name, b.SID)
			}
			if other, ok := sids[b.SID]; ok {
				return fmt.Errorf("service %s: backends %s and %s have the SID %s", s.Name, other, b.Name, b.SID)
			}
			sids[b.SID] = b.Name
		}
		if err := s.checkServers(); err != nil {
			return err
		}
	}
	if len(vips) > MaxVIPs {
		return fmt.Errorf("%d vips, want at most %d", len(vips), MaxVIPs)
	}
	return p.checkSites()
}

// admit gives indices to the backends that are new.
func (k *Keeper) admit(p Plan, now time.Time) error {
	for _, s := range p.Services {
		for _, b := range s.Backends {
			if _, err := k.known(b.SID, now); err != nil {
				return fmt.Errorf("service %s: backend %s: %w", s.Name, b.Name, err)
			}
			k.backends[b.SID].name = b.Name
		}
	}
	for _, s := range p.Sites {
		for _, a := range s.Gateways {
			if _, err := k.known(a, now); err != nil {
				return fmt.Errorf("site %s: %w", s.Name, err)
			}
			k.backends[a].name = "entry of " + s.Name
		}
	}
	return nil
}

// assignServices gives tables to the services, and numbers to the counters of VIPs:
// what was there before keeps its own.
func (k *Keeper) assignServices(p Plan, now time.Time) (map[string]*kept, error) {
	services := map[string]*kept{}
	tables, numbers := map[int]bool{}, map[int]bool{}
	for _, s := range k.services {
		tables[s.number] = true
		for _, n := range s.vips {
			numbers[n] = true
		}
	}
	for _, s := range p.Services {
		next := &kept{vips: map[VIP]int{}}
		was := k.services[s.Name]
		if was != nil {
			next.number, next.table, next.marked = was.number, was.table, was.marked
			next.emptied, next.whole, next.copied = was.emptied, was.whole, was.copied
		} else {
			next.number, next.table = free(tables, k.balancer.services), steering.NewTable(now)
		}
		for _, v := range s.VIPs {
			n, ok := 0, false
			if was != nil {
				n, ok = was.vips[v]
			}
			if !ok {
				n = free(numbers, MaxVIPs)
			}
			if n < 0 || next.number < 0 {
				return nil, errors.New("too many services or vips change at once: apply half of the change first")
			}
			next.vips[v] = n
		}
		services[s.Name] = next
	}
	return services, nil
}

// free takes the lowest number below n that is not taken, -1 for none.
func free(taken map[int]bool, n int) int {
	for i := range n {
		if !taken[i] {
			taken[i] = true
			return i
		}
	}
	return -1
}

func vipsOf(p Plan, services map[string]*kept) map[VIP]Assignment {
	vips := map[VIP]Assignment{}
	for _, s := range p.Services {
		for v, n := range services[s.Name].vips {
			vips[v] = Assignment{Service: services[s.Name].number, Number: n, Fragments: s.Fragments}
		}
	}
	return vips
}
