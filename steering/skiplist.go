package steering

import (
	"iter"
	"net/netip"
	"slices"
)

// blackholed is the length of the IPv6 prefix that an attacked address takes
// with it: attacks are blackholed by /64.
const blackholed = 64

// SkipList is a set of addresses and prefixes that must not be answered now,
// because they are attacked or drained. It is immutable and safe for concurrent
// use; nil and the zero value skip nothing.
//
// An entry takes away the address members in it and its part of the prefix
// members. A plain IPv6 address takes away only itself from the address
// members, but its whole /64 from the prefix members.
type SkipList struct {
	family  Family
	entries []netip.Prefix

	// What is taken from address members and what from prefix members; the same
	// slice where no entry makes a difference.
	addresses, prefixes spans
}

// NewSkipList returns the skip list of the given entries, in any order; an entry
// of full length is a plain address. Host bits are masked and duplicates merged.
// Invalid entries and those of the other family are programming errors of the
// caller and ignored.
func NewSkipList(f Family, entries []netip.Prefix) *SkipList {
	s := &SkipList{family: f, entries: normalize(f, entries)}
	widened := false
	runs := make([]span, 0, len(s.entries))
	for _, e := range s.entries {
		runs = append(runs, spanOf(f, e.Addr(), e.Bits()))
		widened = widened || f == IPv6 && e.IsSingleIP()
	}
	s.addresses = newSpans(runs)
	s.prefixes = s.addresses
	if widened {
		wide := make([]span, 0, len(s.entries))
		for _, e := range s.entries {
			n := e.Bits()
			if e.IsSingleIP() {
				n = blackholed
			}
			wide = append(wide, spanOf(f, e.Addr(), n))
		}
		s.prefixes = newSpans(wide)
	}
	return s
}

// spanOf returns the addresses of the prefix of n bits around a.
func spanOf(f Family, a netip.Addr, n int) span {
	host := ones(f.bits() - n)
	last := numberOf(a).or(host)
	return span{first: last.sub(host), last: last}
}

// normalize returns the valid members of family f, masked, sorted by address,
// then length, each once.
func normalize(f Family, members []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(members))
	for _, m := range members {
		if m.IsValid() && FamilyOf(m.Addr()) == f {
			out = append(out, m.Masked())
		}
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Clip(slices.Compact(out))
}

// comparePrefixes orders prefixes by address, then length.
func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Len returns the number of distinct entries.
func (s *SkipList) Len() int {
	if s == nil {
		return 0
	}
	return len(s.entries)
}

// Entries yields the distinct entries, masked, sorted by address, then length.
func (s *SkipList) Entries() iter.Seq[netip.Prefix] {
	if s == nil {
		return func(func(netip.Prefix) bool) {}
	}
	return slices.Values(s.entries)
}

// Contains reports whether a is skipped as an address member.
func (s *SkipList) Contains(a netip.Addr) bool {
	return s != nil && a.IsValid() && FamilyOf(a) == s.family && s.addresses.contains(numberOf(a))
}
