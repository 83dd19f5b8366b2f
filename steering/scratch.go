package steering

import "math/bits"

// scratch is an open-addressing hash table from (owner, key) to a number, which
// is emptied in constant time: every entry carries the generation that wrote
// it, and reset starts another one. The zero value must be reset before use.
//
// Its keys are random numbers and positions, which nobody outside can choose,
// so that its hash need not be keyed.
type scratch struct {
	entries    []scratchEntry // a power of two
	used       int            // entries of this generation
	generation uint32
}

type scratchEntry struct {
	key        uint128
	value      uint128
	owner      uint32
	generation uint32
}

const minScratch = 32

func (t *scratch) reset() {
	if t.entries == nil {
		t.entries = make([]scratchEntry, minScratch)
	}
	t.used = 0
	t.generation++
	if t.generation == 0 {
		clear(t.entries) // the generations of 2^32 draws ago would be valid again
		t.generation = 1
	}
}

// find returns the index of the entry of key, or of the free one for it.
func (t *scratch) find(owner uint32, key uint128) int {
	mask := uint64(len(t.entries) - 1)
	h := (key.lo^bits.RotateLeft64(key.hi, 29)^uint64(owner)<<32)*mixC ^ key.lo
	i := (h ^ h>>32) & mask
	for {
		e := &t.entries[i]
		if e.generation != t.generation ||
			e.key.lo == key.lo && e.key.hi == key.hi && e.owner == owner {
			return int(i)
		}
		i = (i + 1) & mask
	}
}

// get returns the value of key, if it has one.
func (t *scratch) get(owner uint32, key uint128) (uint128, bool) {
	e := &t.entries[t.find(owner, key)]
	return e.value, e.generation == t.generation
}

// slot returns where the value of key is, and whether the key is new, in which
// case the value is zero. The pointer holds until the next call.
func (t *scratch) slot(owner uint32, key uint128) (value *uint128, fresh bool) {
	e := &t.entries[t.find(owner, key)]
	if e.generation == t.generation {
		return &e.value, false
	}
	if 2*t.used >= len(t.entries) {
		t.grow()
		e = &t.entries[t.find(owner, key)]
	}
	t.used++
	*e = scratchEntry{key: key, owner: owner, generation: t.generation}
	return &e.value, true
}

func (t *scratch) grow() {
	old := t.entries
	t.entries = make([]scratchEntry, 2*len(old))
	for _, e := range old {
		if e.generation == t.generation {
			t.entries[t.find(e.owner, e.key)] = e
		}
	}
}
