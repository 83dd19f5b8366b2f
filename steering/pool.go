package steering

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
)

// Pool is the set of members behind a route for one family: addresses, and
// prefixes of any length out of which an address is chosen. It is immutable and
// safe for concurrent use; nil and the zero value are an empty pool of IPv4.
//
// An address member costs the 4 or 16 octets that it has in an answer, and
// another 8 once the pool was hashed (12 with the legacy hash). Members are
// numbered: the addresses in ascending order, then the prefixes.
type Pool struct {
	addresses addresses
	prefixes  []prefixMember
	skipped   spans // what was taken away from the prefixes

	// overlaps says that an address may be reached by more than one member, so
	// that answers have to be kept free of duplicates.
	overlaps bool

	hashesOnce sync.Once
	hashes     []uint64 // by member

	textOnce sync.Once
	text     []uint32 // members in the order of their text
}

// prefixMember is a prefix in a pool with what the skip list leaves of it, which
// is at least one address.
type prefixMember struct {
	first    uint128
	lastFree uint128 // the number of addresses left, less one
	rank     uint128 // of the first address left, as in spans.outside
	lo, hi   uint32  // the spans that take something from this prefix
	bits     uint8
}

// last returns the last address of m.
func (m *prefixMember) last(f Family) uint128 {
	return m.first.or(ones(f.bits() - int(m.bits)))
}

// NewPool returns the pool of the given members, in any order; a member of full
// length is an address. Host bits are masked and duplicates merged. Invalid
// members and those of the other family are programming errors of the caller
// and ignored.
func NewPool(f Family, members []netip.Prefix) *Pool {
	numbers := make([]uint128, 0, len(members))
	var prefixes []netip.Prefix
	for _, m := range members {
		switch {
		case !m.IsValid() || FamilyOf(m.Addr()) != f:
		case m.IsSingleIP():
			numbers = append(numbers, numberOf(m.Addr()))
		default:
			prefixes = append(prefixes, m)
		}
	}
	p := &Pool{addresses: newAddresses(f, numbers)}
	prefixes = normalize(f, prefixes)
	p.prefixes = make([]prefixMember, len(prefixes))
	for i, m := range prefixes {
		first := numberOf(m.Addr())
		p.prefixes[i] = prefixMember{
			first: first, rank: first, lastFree: ones(f.bits() - m.Bits()), bits: uint8(m.Bits()),
		}
	}
	p.overlaps = p.overlapping()
	return p
}

// overlapping reports whether a member lies within another one.
func (p *Pool) overlapping() bool {
	for i := range p.prefixes {
		m := &p.prefixes[i]
		last := m.last(p.addresses.family)
		// Prefixes nest or are apart, and the wider of two that begin at the same
		// address comes first: if any lies in this one, then the next does.
		if i+1 < len(p.prefixes) && !last.less(p.prefixes[i+1].first) {
			return true
		}
		j := p.addresses.reaching(m.first)
		if j < p.addresses.len() && !last.less(p.addresses.at(j)) {
			return true
		}
	}
	return false
}

// Family returns the family of the members.
func (p *Pool) Family() Family {
	if p == nil {
		return IPv4
	}
	return p.addresses.family
}

// Len returns the number of members that can be drawn, a prefix counting as
// one.
func (p *Pool) Len() int {
	if p == nil {
		return 0
	}
	return p.addresses.len() + len(p.prefixes)
}

// Members yields the members sorted by address, then length. A prefix of which
// the skip list took a part is yielded whole.
func (p *Pool) Members() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		if p == nil {
			return
		}
		i, n := 0, p.addresses.len()
		for j := range p.prefixes {
			for ; i < n && p.addresses.at(i).less(p.prefixes[j].first); i++ {
				if !yield(p.member(i)) {
					return
				}
			}
			if !yield(p.member(n + j)) {
				return
			}
		}
		for ; i < n; i++ {
			if !yield(p.member(i)) {
				return
			}
		}
	}
}

// Contains reports whether m, its host bits masked, is a member: that very
// address or prefix, not merely a part of one. It takes O(log n).
func (p *Pool) Contains(m netip.Prefix) bool {
	if p == nil || !m.IsValid() || FamilyOf(m.Addr()) != p.addresses.family {
		return false
	}
	first := numberOf(m.Masked().Addr())
	if m.IsSingleIP() {
		return p.addresses.contains(first)
	}
	_, found := slices.BinarySearchFunc(p.prefixes, first, func(e prefixMember, first uint128) int {
		if c := e.first.compare(first); c != 0 {
			return c
		}
		return int(e.bits) - m.Bits()
	})
	return found
}

// member returns member i.
func (p *Pool) member(i int) netip.Prefix {
	f := p.addresses.family
	if n := p.addresses.len(); i >= n {
		m := &p.prefixes[i-n]
		return netip.PrefixFrom(m.first.addr(f), int(m.bits))
	}
	return netip.PrefixFrom(p.addresses.at(i).addr(f), f.bits())
}

// free returns the address of the given rank among those that are left of
// prefix i.
func (p *Pool) free(i int, rank uint128) uint128 {
	m := &p.prefixes[i]
	return p.skipped.outside(m.rank.add(rank), int(m.lo), int(m.hi))
}
