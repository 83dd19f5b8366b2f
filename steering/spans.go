package steering

import (
	"slices"
	"sort"
)

// span is a run of skipped addresses from first to last. Rank is the number of
// addresses before it that are not skipped.
type span struct{ first, last, rank uint128 }

// through returns the number of addresses up to last that are skipped (2^128 of
// them wrap to 0).
func (s span) through() uint128 { return s.last.sub(s.rank).next() }

// spans is a set of addresses: runs in ascending order with a gap between any
// two. It is immutable.
type spans []span

// newSpans returns the union of the given runs. It keeps and changes the slice;
// ranks are filled in.
func newSpans(s []span) spans {
	if len(s) == 0 {
		return nil
	}
	slices.SortFunc(s, func(a, b span) int { return a.first.compare(b.first) })
	out := s[:1]
	for _, next := range s[1:] {
		top := &out[len(out)-1]
		// No run begins behind the very last address, so that next() cannot wrap
		// where it matters.
		if top.last.less(next.first) && top.last.next() != next.first {
			out = append(out, next)
		} else if top.last.less(next.last) {
			top.last = next.last
		}
	}
	var skipped uint128
	for i := range out {
		out[i].rank = out[i].first.sub(skipped)
		skipped = out[i].through()
	}
	return slices.Clip(out)
}

// contains reports whether a is in the set.
func (s spans) contains(a uint128) bool {
	i := s.reaching(a)
	return i < len(s) && !a.less(s[i].first)
}

// reaching returns the index of the first span that reaches a or lies behind it.
func (s spans) reaching(a uint128) int {
	return sort.Search(len(s), func(i int) bool { return !s[i].last.less(a) })
}

// window returns the indices from lo to hi-1 of the spans that have an address
// from first to last.
func (s spans) window(first, last uint128) (lo, hi int) {
	lo = s.reaching(first)
	hi = lo + sort.Search(len(s)-lo, func(i int) bool { return last.less(s[lo+i].first) })
	return lo, hi
}

// rankOf returns how many addresses before a are not in the set.
func (s spans) rankOf(a uint128) uint128 {
	i := sort.Search(len(s), func(i int) bool { return !s[i].first.less(a) })
	if i == 0 {
		return a
	}
	before := s[i-1]
	if !before.last.less(a) {
		return before.rank
	}
	return before.rank.add(a.sub(before.last).previous())
}

// outside returns the address of the given rank among those that are not in the
// set, given that the spans before lo lie before it and those from hi behind it.
func (s spans) outside(rank uint128, lo, hi int) uint128 {
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if rank.less(s[mid].rank) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return rank
	}
	return rank.add(s[lo-1].through())
}
