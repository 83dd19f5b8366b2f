package upstreams

import (
	"net/netip"
	"slices"

	"github.com/razor-steering/razor/steering"
)

// subnets finds the route of the longest prefix around a client. It is
// immutable; nil has none.
type subnets struct {
	routes  map[netip.Prefix]string
	lengths [2][]int // lengths that occur, the longest first, by family
	// deeper has, for what steering takes for a client's subnet, the length of the
	// longest prefix inside of it.
	deeper map[netip.Prefix]int
}

func newSubnets(routes map[netip.Prefix]string) *subnets {
	s := &subnets{routes: routes, deeper: map[netip.Prefix]int{}}
	for p := range routes {
		f := steering.FamilyOf(p.Addr())
		if !slices.Contains(s.lengths[f], p.Bits()) {
			s.lengths[f] = append(s.lengths[f], p.Bits())
		}
		if around := steering.ClientSubnet(p.Addr(), p.Bits()); around.Bits() < p.Bits() {
			s.deeper[around] = max(s.deeper[around], p.Bits())
		}
	}
	for f := range s.lengths {
		slices.Sort(s.lengths[f])
		slices.Reverse(s.lengths[f])
	}
	return s
}

// lookup is the route of a client of whose address the first known bits are
// given. bits tells how many of them the outcome depends on beyond what steering
// takes for a client's subnet; 0 where that is enough.
func (s *subnets) lookup(client netip.Addr, known int) (route string, bits int, ok bool) {
	if s == nil || !client.IsValid() {
		return "", 0, false
	}
	if client.Is4In6() {
		client, known = client.Unmap(), known-96
	}
	bits = s.deeper[steering.ClientSubnet(client, known)]
	for _, n := range s.lengths[steering.FamilyOf(client)] {
		if n > known {
			continue
		}
		p, _ := client.Prefix(n)
		if route, ok = s.routes[p]; ok {
			return route, bits, true
		}
	}
	return "", bits, false
}
