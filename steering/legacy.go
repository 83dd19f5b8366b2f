package steering

import (
	"cmp"
	"net/netip"
	"slices"
)

// HashLegacy appends up to k distinct addresses to dst, chosen by the client's
// subnet as pdns-razor 0.5 does, and returns the longer slice; the form is that
// of Draw. The first is the member whose index among all n is (address &
// 0xffffff00) mod n for an IPv4 subnet and (address >> 80) mod n for an IPv6 one,
// when they are sorted bytewise by their text: addresses as in RFC 5952,
// prefixes with their length. The others follow it, from the last to the first.
// Of a prefix a random address is drawn with s.
//
// Like Draw it draws further addresses from the prefixes when k exceeds the
// members. Most subnets move when a member comes or goes, and with 4 members
// every IPv4 client gets the first; [Pool.Hash] has neither fault.
func (p *Pool) HashLegacy(dst []byte, k int, subnet netip.Prefix, s *Sampler) []byte {
	n := p.Len()
	if k <= 0 || n == 0 {
		return dst
	}
	order := p.textOrder()
	first := legacyIndex(subnet, n)
	a := newAnswer(p, dst, k, s)
	for i := 0; i < n && a.missing > 0; i++ {
		a.take(order[(first+i)%n])
	}
	if a.missing > 0 {
		live := s.live[:0]
		for i := range n {
			if m := order[(first+i)%n]; int(m) >= p.addresses.len() {
				live = append(live, m)
			}
		}
		a.refill(live, false)
	}
	return a.dst
}

// legacyIndex returns the index of pdns-razor for a client's subnet among n.
func legacyIndex(subnet netip.Prefix, n int) int {
	a := subnet.Addr()
	number := numberOf(a)
	if FamilyOf(a) == IPv4 {
		return int((number.lo & 0xffffff00) % uint64(n))
	}
	return int((number.hi >> 16) % uint64(n))
}

// textOrder returns the members sorted bytewise by their text, computed when
// first needed.
func (p *Pool) textOrder() []uint32 {
	p.textOnce.Do(func() {
		type named struct {
			text   string
			member uint32
		}
		all := make([]named, p.Len())
		for i := range all {
			m := p.member(i)
			all[i] = named{m.String(), uint32(i)}
			if m.IsSingleIP() {
				all[i].text = m.Addr().String()
			}
		}
		slices.SortFunc(all, func(a, b named) int { return cmp.Compare(a.text, b.text) })
		p.text = make([]uint32, len(all))
		for i, m := range all {
			p.text[i] = m.member
		}
	})
	return p.text
}
