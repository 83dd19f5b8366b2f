package steering

import (
	"fmt"
	"sync/atomic"
)

// Row is a slot of a service's table as the balancer reads it: who has its flows
// now and who had them, with a mark that pins have some of them (the bits of
// gateway/bpf/include/flow.h; bit 31 is spare).
type Row uint32

const (
	rowPrevious = 15      // the lowest bit of previous
	rowMark     = 1 << 30 // pins have flows of the slot
	rowSpare    = 1 << 31
)

// NewRow is a row without a mark; 0 is no backend.
func NewRow(current, previous uint16) Row {
	return Row(current&MaxBackend) | Row(previous&MaxBackend)<<rowPrevious
}

// Current is the backend that gets the new flows, or 0.
func (r Row) Current() uint16 { return uint16(r & MaxBackend) }

// Previous is the backend that was current last, or 0 after a while.
func (r Row) Previous() uint16 { return uint16(r >> rowPrevious & MaxBackend) }

// Marked tells whether pins have flows of the slot.
func (r Row) Marked() bool { return r&rowMark != 0 }

// String is "current/previous", with a star if it is marked.
func (r Row) String() string {
	mark := ""
	if r.Marked() {
		mark = "*"
	}
	return fmt.Sprintf("%d/%d%s", r.Current(), r.Previous(), mark)
}

func (r Row) has(b uint16) bool { return r.Current() == b || r.Previous() == b }

// History is who left a row, each once: Former backends of 16 bits, newest lowest,
// 0 behind the oldest.
type History uint64

// Former is how many backends a history holds.
const Former = 4

// At is the backend that left i backends ago, or 0; i is below Former.
func (h History) At(i int) uint16 { return uint16(h >> (16 * i)) }

// Has tells whether a backend, which is not 0, is in it.
func (h History) Has(b uint16) bool {
	for i := range Former {
		if h.At(i) == b {
			return true
		}
	}
	return false
}

// Len is how many backends are in it.
func (h History) Len() int {
	for i := range Former {
		if h.At(i) == 0 {
			return i
		}
	}
	return Former
}

// with is h after a backend left; the oldest one is forgotten if h is full.
func (h History) with(b uint16) History {
	if b == 0 {
		return h
	}
	return h.without(b)<<16 | History(b)
}

// without is h without a backend.
func (h History) without(b uint16) History {
	return h.filter(func(x uint16) bool { return x != b })
}

// filter is what of h is to be kept.
func (h History) filter(keep func(uint16) bool) History {
	var out History
	n := 0
	for i := range Former {
		if b := h.At(i); b != 0 && keep(b) {
			out |= History(b) << (16 * n)
			n++
		}
	}
	return out
}

// hasAny tells whether one of h is in a set, in which 0 is not.
func (h History) hasAny(set *backendSet) bool {
	return h != 0 && (set[h.At(0)] || set[h.At(1)] || set[h.At(2)] || set[h.At(3)])
}

// backendSet is a set of backends; it has room for whatever 16 bits are.
type backendSet [1 << 16]bool

// Store is one store to the balancer's tables: it changes the row of a slot, or
// its history, at once.
type Store struct {
	Value   uint64 // a Row or a History
	Slot    uint32
	History bool
}

// Put makes the store in the memory of a table, TableSlots long, that others read.
func (s Store) Put(rows []uint32, histories []uint64) {
	if s.History {
		atomic.StoreUint64(&histories[s.Slot], s.Value)
	} else {
		atomic.StoreUint32(&rows[s.Slot], uint32(s.Value))
	}
}
