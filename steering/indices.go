package steering

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// ReuseAfter is how long the index of a backend that left is not given to another:
// packets under way and pins have it.
const ReuseAfter = 60 * time.Second

// Indices gives the backends of a gateway, by key, the numbers that its tables
// name them by: 1 to MaxBackend, the same one in the tables of all services. They
// are a gateway's own; its mates have others for the same keys. The zero value is
// ready and has given none. It is not safe for concurrent use.
//
// New numbers come first, then those that were released longest ago.
type Indices struct {
	used     map[string]uint16
	keys     map[uint16]string
	highest  uint16 // that was ever given
	released []release
}

// release is an index that has nobody since a time; the earlier come first.
type release struct {
	index uint16
	at    time.Time
}

// Get is the index of a key, which it has until it is released.
func (x *Indices) Get(key string, now time.Time) (uint16, error) {
	if index, ok := x.used[key]; ok {
		return index, nil
	}
	var index uint16
	switch {
	case x.highest < MaxBackend:
		x.highest++
		index = x.highest
	case len(x.released) > 0 && now.Sub(x.released[0].at) >= ReuseAfter:
		index = x.released[0].index
		x.released = x.released[1:]
	default:
		return 0, fmt.Errorf("backend %q: all %d indices are in use or were until %v ago", key, MaxBackend, ReuseAfter)
	}
	x.give(key, index)
	return index, nil
}

// RestoreIndices is the indices after a restart, by key as they were before. Those
// that left within ReuseAfter before it are to be among them, and released again,
// or their indices are given to others too early.
func RestoreIndices(used map[string]uint16, now time.Time) (*Indices, error) {
	x := new(Indices)
	for _, key := range slices.Sorted(maps.Keys(used)) {
		index := used[key]
		if index == 0 || index > MaxBackend {
			return nil, fmt.Errorf("backend %q: index %d is not within 1 and %d", key, index, MaxBackend)
		}
		if other, ok := x.keys[index]; ok {
			return nil, fmt.Errorf("backend %q: index %d is that of %q too", key, index, other)
		}
		x.give(key, index)
		x.highest = max(x.highest, index)
	}
	for index := uint16(1); index < x.highest; index++ {
		if _, ok := x.keys[index]; !ok {
			x.released = append(x.released, release{index, now})
		}
	}
	return x, nil
}

// Release takes the index from a key, if it has one. No table may have it any more
// ([Table.Backends]), as it will be another's.
func (x *Indices) Release(key string, now time.Time) {
	index, ok := x.used[key]
	if !ok {
		return
	}
	delete(x.used, key)
	delete(x.keys, index)
	x.released = append(x.released, release{index, now})
}

// Key is the key that has an index.
func (x *Indices) Key(index uint16) (string, bool) {
	key, ok := x.keys[index]
	return key, ok
}

// Len is how many indices are in use.
func (x *Indices) Len() int { return len(x.used) }

func (x *Indices) give(key string, index uint16) {
	if x.used == nil {
		x.used, x.keys = map[string]uint16{}, map[uint16]string{}
	}
	x.used[key] = index
	x.keys[index] = key
}
