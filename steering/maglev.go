package steering

import (
	"cmp"
	"fmt"
	"slices"
)

const (
	// TableSlots is the number of slots of a service's table: a prime (Maglev,
	// NSDI 2016, section 3.4).
	TableSlots = 65537
	// MaxBackend is the largest index of a backend; 0 is none.
	MaxBackend = 1<<15 - 1
)

// Backend is a backend of a service that may get new flows.
type Backend struct {
	Index  uint16 // of this gateway, 1 to MaxBackend
	Key    string // the same on all gateways
	Weight uint32 // its share of new flows; 0 is none
}

// Assignment is the backend that gets the new flows of each slot, 0 for none.
type Assignment [TableSlots]uint16

// Maglev assigns the slots of a service to its backends by their weights, as near
// as it can to the current assignment (nil is none). It depends on what the slots
// and backends are, by their keys, but neither on indices nor on the order of
// backends: gateways that have the same assignment and hear of the same backends
// have the same one afterwards. All slots are none without a backend whose weight
// is above 0.
//
// How many slots a backend gets is a matter of the weights alone ([Backend.Weight]
// over their sum, rounded, one at least). It is off by about half a slot, which is
// within 1 % of a share of 50 slots or more. A slot is no part of a share: of 1,024
// backends with the same weight one has 65 slots, which are 1.6 % too many, and
// the others 64.
//
// Which slots it gets is as in Maglev (Eisenbud et al., NSDI 2016, section 3.4):
// each backend has an order of preference of its own, a permutation of the slots
// made of its key, and backends take turns, as often as they lack slots. But a
// slot may only be taken that has no backend, or one with too many. So the fewest
// slots move that can: when a backend leaves, its own and no others; when one
// comes or its weight grows, as many as it gets. The table of the paper, made anew
// each time, moves slots among the others on the side: when one of 1,024 backends
// with 64 slots leaves, some 370 of them.
//
// The price is that the table depends on the past: gateways that start without
// one agree with each other, but not with those that run. They copy the rows from a
// mate. If they cannot, the table of the paper is the one that is nearest.
func Maglev(current *Assignment, backends []Backend) (*Assignment, error) {
	takers, err := serving(backends)
	if err != nil {
		return nil, err
	}
	next := new(Assignment)
	if len(takers) == 0 {
		return next, nil
	}
	spare := lacks(current, next, takers)
	open := openings(next, spare)
	for _, i := range order(takers) {
		t := &takers[i]
		for !open.has(t.at) || !free(next[t.at], spare) {
			open.remove(t.at)
			t.step()
		}
		if owner := next[t.at]; owner != 0 {
			spare[owner]--
		}
		next[t.at] = t.index
		open.remove(t.at)
	}
	return next, nil
}

// free tells whether a slot of a backend may be taken from it.
func free(owner uint16, spare *[MaxBackend + 1]uint32) bool {
	return owner == 0 || spare[owner] > 0
}

// slotSet is a set of slots. It fits into the first cache of a processor, where
// rows do not: most steps of the walk along a permutation end at a slot that is
// not in it.
type slotSet [TableSlots/64 + 1]uint64

func (s *slotSet) has(slot uint32) bool { return s[slot/64]>>(slot%64)&1 != 0 }
func (s *slotSet) add(slot uint32)      { s[slot/64] |= 1 << (slot % 64) }
func (s *slotSet) remove(slot uint32)   { s[slot/64] &^= 1 << (slot % 64) }

// openings are the slots that are free at first; none becomes free later.
func openings(a *Assignment, spare *[MaxBackend + 1]uint32) *slotSet {
	open := new(slotSet)
	for slot, owner := range a {
		if free(owner, spare) {
			open.add(uint32(slot))
		}
	}
	return open
}

// taker is a backend with its permutation of the slots: an arithmetic progression
// modulo their number, which reaches each once as that is a prime.
type taker struct {
	key    string
	index  uint16
	weight uint32
	lacks  uint32 // slots
	at     uint32 // the next slot in its order of preference
	skip   uint32
}

func (t *taker) step() {
	t.at += t.skip
	if t.at >= TableSlots {
		t.at -= TableSlots
	}
}

// serving are the backends with a weight, by key.
func serving(backends []Backend) ([]taker, error) {
	takers := make([]taker, 0, len(backends))
	indices := make(map[uint16]string, len(backends))
	for _, b := range backends {
		if b.Index == 0 || b.Index > MaxBackend {
			return nil, fmt.Errorf("backend %q: index %d is not within 1 and %d", b.Key, b.Index, MaxBackend)
		}
		if other, ok := indices[b.Index]; ok {
			return nil, fmt.Errorf("backend %q: index %d is that of %q too", b.Key, b.Index, other)
		}
		indices[b.Index] = b.Key
		takers = append(takers, newTaker(b))
	}
	slices.SortFunc(takers, func(a, b taker) int { return cmp.Compare(a.key, b.key) })
	for i := 1; i < len(takers); i++ {
		if takers[i].key == takers[i-1].key {
			return nil, fmt.Errorf("backend %q is there twice", takers[i].key)
		}
	}
	return slices.DeleteFunc(takers, func(t taker) bool { return t.weight == 0 }), nil
}

func newTaker(b Backend) taker {
	h := hashString(b.Key)
	return taker{
		key:    b.Key,
		index:  b.Index,
		weight: b.Weight,
		at:     uint32(fold(h^mixB, mixC) % TableSlots),
		skip:   uint32(fold(h^mixD, mixE)%(TableSlots-1)) + 1,
	}
}

// lacks fills in how many slots each taker lacks, and next with the slots of
// current that are a taker's. It returns how many a backend has too many.
func lacks(current, next *Assignment, takers []taker) *[MaxBackend + 1]uint32 {
	weights := make([]uint32, len(takers))
	known := new([MaxBackend + 1]bool)
	for i, t := range takers {
		weights[i] = t.weight
		known[t.index] = true
	}
	has := new([MaxBackend + 1]uint32)
	if current != nil {
		for slot, b := range current {
			if b <= MaxBackend && known[b] {
				next[slot] = b
				has[b]++
			}
		}
	}
	for i, want := range apportion(weights) {
		t := &takers[i]
		t.lacks = want - min(want, has[t.index])
		has[t.index] -= min(want, has[t.index])
	}
	return has
}

// order is the order in which takers take their slots: evenly, so that the turn k
// of a taker that lacks n slots comes when (k + ½) / n of all turns are over. It is
// that of the paper where all lack as many.
func order(takers []taker) []uint16 {
	// Sorted by counting: there are as many moments as slots.
	starts := make([]uint32, TableSlots+1)
	for _, t := range takers {
		for m := range t.moments {
			starts[m+1]++
		}
	}
	for i := range TableSlots {
		starts[i+1] += starts[i]
	}
	turns := make([]uint16, starts[TableSlots])
	for i, t := range takers {
		for m := range t.moments {
			turns[starts[m]] = uint16(i)
			starts[m]++
		}
	}
	return turns
}

// moments yields when the turns of a taker come: (2k + 1) × TableSlots / 2n,
// rounded down, in steps.
func (t *taker) moments(yield func(uint32) bool) {
	n := t.lacks
	if n == 0 {
		return
	}
	m, rest := TableSlots/(2*n), TableSlots%(2*n)
	for range n {
		if !yield(m) {
			return
		}
		m += TableSlots / n
		rest += 2 * (TableSlots % n)
		if rest >= 2*n {
			rest -= 2 * n
			m++
		}
	}
}
