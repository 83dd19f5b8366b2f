package steering

import (
	"encoding/binary"
	"slices"
	"sort"
)

// addresses is a sorted list of distinct addresses in one piece of memory, in
// the form that they have in RDATA: nothing is cheaper to keep or to answer.
type addresses struct {
	octets []byte
	family Family
}

// newAddresses returns the list of the given addresses. It changes the slice.
func newAddresses(f Family, numbers []uint128) addresses {
	slices.SortFunc(numbers, uint128.compare)
	numbers = slices.Compact(numbers)
	octets := make([]byte, 0, len(numbers)*f.Octets())
	for _, a := range numbers {
		octets = a.appendWire(octets, f)
	}
	return addresses{octets, f}
}

// The methods tell two fixed widths apart instead of computing with one that
// varies: the compiler turns each into a shift and one or two moves.

func (l addresses) len() int {
	if l.family == IPv4 {
		return len(l.octets) / 4
	}
	return len(l.octets) / 16
}

func (l addresses) at(i int) uint128 {
	if l.family == IPv4 {
		return uint128{0, uint64(binary.BigEndian.Uint32(l.octets[4*i:]))}
	}
	b := l.octets[16*i : 16*i+16]
	return uint128{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// slice returns the addresses from i to j-1, in the same memory.
func (l addresses) slice(i, j int) addresses {
	if l.family == IPv4 {
		return addresses{l.octets[4*i : 4*j], l.family}
	}
	return addresses{l.octets[16*i : 16*j], l.family}
}

// appendTo appends address i.
func (l addresses) appendTo(dst []byte, i int) []byte {
	if l.family == IPv4 {
		return append(dst, l.octets[4*i:4*i+4]...)
	}
	return append(dst, l.octets[16*i:16*i+16]...)
}

// reaching returns the index of the first address that is not before a.
func (l addresses) reaching(a uint128) int {
	return sort.Search(l.len(), func(i int) bool { return !l.at(i).less(a) })
}

// behind returns the index of the first address that is behind a.
func (l addresses) behind(a uint128) int {
	return sort.Search(l.len(), func(i int) bool { return a.less(l.at(i)) })
}

// contains reports whether a is in the list.
func (l addresses) contains(a uint128) bool {
	i := l.reaching(a)
	return i < l.len() && l.at(i) == a
}

// without returns the addresses that are not in s, and whether some are; the
// list itself if none is. It leaps from span to address and back over whatever
// lies between, and leaves at least one address behind with each step.
func (l addresses) without(s spans) (left addresses, fewer bool) {
	n := l.len()
	if n == 0 {
		return l, false
	}
	lo, hi := s.window(l.at(0), l.at(n-1))
	s = s[lo:hi]
	var octets []byte
	kept := 0 // the addresses before it are decided
	for i := 0; i < n; {
		s = s[s.reaching(l.at(i)):]
		if len(s) == 0 {
			break
		}
		i += l.slice(i, n).reaching(s[0].first)
		if i == n || s[0].last.less(l.at(i)) {
			continue
		}
		if octets == nil {
			octets = make([]byte, 0, len(l.octets))
		}
		octets = append(octets, l.slice(kept, i).octets...)
		i += l.slice(i, n).behind(s[0].last)
		kept = i
	}
	if octets == nil {
		return l, false
	}
	octets = append(octets, l.slice(kept, n).octets...)
	if len(octets) < cap(octets)/2 {
		octets = slices.Clone(octets) // most are gone, and so may their memory be
	}
	return addresses{octets, l.family}, true
}
