package steering

import "slices"

// Without returns the pool of what may be answered while s is in force. It is p
// itself, the same pointer, when s takes nothing away, and has no members when
// everything is skipped. A skip list of the other family takes nothing away.
//
// It takes O(n log m) for n members and m entries, less where they lie apart.
// Skip lists add up: p.Without(s).Without(t) leaves what neither takes away.
// One SkipList of all entries does the same with less work and memory.
func (p *Pool) Without(s *SkipList) *Pool {
	if p.Len() == 0 || s.Len() == 0 || s.family != p.addresses.family {
		return p
	}
	left, fewer := p.addresses.without(s.addresses)
	prefixes, skipped, smaller := p.prefixesWithout(s.prefixes)
	if !fewer && !smaller {
		return p
	}
	q := &Pool{addresses: left, prefixes: prefixes, skipped: skipped}
	q.overlaps = p.overlaps && q.overlapping()
	return q
}

// prefixesWithout returns the prefix members with what s and the skip lists
// before it leave of them, and whether s took something away.
func (p *Pool) prefixesWithout(s spans) (members []prefixMember, skipped spans, smaller bool) {
	f := p.addresses.family
	if !slices.ContainsFunc(p.prefixes, func(m prefixMember) bool {
		lo, hi := s.window(m.first, m.last(f))
		return lo < hi
	}) {
		return p.prefixes, p.skipped, false
	}
	s = p.union(s)
	members = make([]prefixMember, 0, len(p.prefixes))
	for _, m := range p.prefixes {
		left, ok := m.without(s, f)
		if ok {
			members = append(members, left)
		}
		smaller = smaller || !ok || left.lastFree != m.lastFree
	}
	if !smaller {
		return p.prefixes, p.skipped, false
	}
	return members, s, true
}

// union returns what s and the skip lists before it take away from the prefix
// members: s itself, which many pools share, if it is the first one; otherwise
// no more of both than these prefixes have to do with.
func (p *Pool) union(s spans) spans {
	if p.skipped == nil {
		return s
	}
	var all []span
	for i := range p.prefixes {
		m := &p.prefixes[i]
		all = append(all, p.skipped[m.lo:m.hi]...)
		lo, hi := s.window(m.first, m.last(p.addresses.family))
		all = append(all, s[lo:hi]...)
	}
	return newSpans(all)
}

// without returns m with what s leaves of it, false if that is nothing.
func (m prefixMember) without(s spans, f Family) (prefixMember, bool) {
	last := m.last(f)
	lo, hi := s.window(m.first, last)
	m.lo, m.hi = uint32(lo), uint32(hi)
	m.rank = s.rankOf(m.first)
	if lo == hi {
		m.lastFree = last.sub(m.first)
		return m, true
	}
	if !m.first.less(s[lo].first) && !s[lo].last.less(last) {
		return m, false
	}
	// Addresses up to the last one that are not skipped, less those before the
	// prefix: at least one, and not all of ::/0, so that nothing wraps.
	end := s[hi-1].rank
	if s[hi-1].last.less(last) {
		end = end.add(last.sub(s[hi-1].last))
	}
	m.lastFree = end.sub(m.rank).previous()
	return m, true
}
