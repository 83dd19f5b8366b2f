package steering

import (
	"fmt"
	"time"
)

// PreviousFor is how long a backend stays previous before it moves to the history:
// most flows are over by then, and the packets of a slot without a previous
// backend need no segment list.
const PreviousFor = 10 * time.Minute

// Table is the rows and histories of a service: for each slot who has its flows,
// and up to five who had them, the last of which is previous in the row. No
// backend is in a slot twice. It takes 1 MiB.
//
// Each method that changes something appends the stores that do the same to the
// balancer's tables, in the order in which they are to be made. A packet may come
// between any two of them, so that what is added to a history is stored before the
// row that it left, and what is taken away from it after the row that it went to:
// in between it is in both, which costs a hunt one host more. There is one case
// without room for that: a backend becomes current out of a full history while
// another one is to go there. Then the oldest of the history is away from it until
// the last of three stores. It had the slot before its last four owner changes,
// and is beyond what is promised. Who reads both reads the row first: the history
// after it then has whoever left that row, but not the other way round.
//
// The methods' memory of what is in the balancer's tables is the only source of
// what they store, which is why a mark cannot undo a concurrent change: there is
// none. A table belongs to one goroutine, and the balancer's tables have no other
// writer.
type Table struct {
	rows      [TableSlots]Row
	histories [TableSlots]History
	since     [TableSlots]uint32 // seconds from start when previous became that
	start     time.Time
}

// NewTable makes a table without backends.
func NewTable(now time.Time) *Table { return &Table{start: now} }

// Row is the row of a slot, which is below TableSlots, as in all methods.
func (t *Table) Row(slot uint32) Row { return t.rows[slot] }

// History is who left the row of a slot.
func (t *Table) History(slot uint32) History { return t.histories[slot] }

// Assignment is who gets the new flows.
func (t *Table) Assignment() *Assignment {
	a := new(Assignment)
	for slot, r := range t.rows[:] {
		a[slot] = r.Current()
	}
	return a
}

// Backends are the backends in it, ascending. One that is not there may have its
// index released.
func (t *Table) Backends() []uint16 {
	var has backendSet
	for slot, r := range t.rows[:] {
		has[r.Current()], has[r.Previous()] = true, true
		for i := range Former {
			has[t.histories[slot].At(i)] = true
		}
	}
	var out []uint16
	for b := 1; b <= MaxBackend; b++ {
		if has[b] {
			out = append(out, uint16(b))
		}
	}
	return out
}

// urgencies are the kinds of slots that Apply changes one after another.
const (
	unserved   = iota // current is dead or none: all packets are lost
	obstructed        // a dead backend is tried before others: some flows are lost
	served
	urgencies
)

// Apply gives the slots to next, and takes dead backends out of the table:
//
//   - A new backend becomes current and the former one previous, whose predecessor
//     goes to the history, newest first. What is in the row leaves the history.
//   - A backend that is down or drained is one that next does not have: its slots
//     go to others, and it stays where its flows are looked for.
//   - A dead one leaves current, previous and histories, and nobody becomes previous
//     for it. It gets no slots even where next has it.
//   - Where next has none, or a dead one, current is 0, and the former ones stay as
//     previous and history.
//
// Slots that lose all their packets are stored first, then those that lose some.
// The error is of an index above MaxBackend; nothing is changed then.
func (t *Table) Apply(dst []Store, next *Assignment, dead []uint16, now time.Time) ([]Store, error) {
	for slot, b := range next {
		if b > MaxBackend {
			return dst, fmt.Errorf("slot %d: backend %d is above %d", slot, b, MaxBackend)
		}
	}
	var gone backendSet
	for _, b := range dead {
		gone[b] = b != 0
	}
	var due [urgencies][]int
	for slot, r := range t.rows[:] {
		obstacle := gone[r.Previous()] || t.histories[slot].hasAny(&gone)
		switch {
		case r.Current() == 0 && next[slot] != 0 || gone[r.Current()]:
			due[unserved] = append(due[unserved], slot)
		case obstacle:
			due[obstructed] = append(due[obstructed], slot)
		case r.Current() != next[slot]:
			due[served] = append(due[served], slot)
		}
	}
	for _, slots := range due {
		for _, slot := range slots {
			dst = t.assign(dst, slot, next[slot], &gone, now)
		}
	}
	return dst, nil
}

// assign makes a backend current in a slot, once the dead are out of it.
func (t *Table) assign(dst []Store, slot int, to uint16, gone *backendSet, now time.Time) []Store {
	alive := func(b uint16) uint16 {
		if gone[b] {
			return 0
		}
		return b
	}
	r := t.rows[slot]
	to = alive(to)
	current, previous := alive(r.Current()), alive(r.Previous())
	h := t.histories[slot].filter(func(b uint16) bool { return !gone[b] && b != to })
	switch {
	case current == to: // stays
	case current != 0:
		if previous != to {
			h = h.with(previous)
		}
		previous = current
	case previous == to: // is back after nobody
		previous = 0
	}
	return t.set(dst, slot, NewRow(to, previous), h, now)
}

// Become makes the table one that was copied from a mate and renumbered. Marks stay, as
// each gateway has pins of its own.
func (t *Table) Become(dst []Store, next *Table, now time.Time) []Store {
	for slot := range t.rows {
		dst = t.set(dst, slot, next.rows[slot]&^rowMark, next.histories[slot], now)
	}
	return dst
}

// Age moves those to the history that have been previous for PreviousFor. It may be
// called as seldom as once a minute.
func (t *Table) Age(dst []Store, now time.Time) []Store {
	at := t.seconds(now)
	for slot, r := range t.rows[:] {
		if r.Previous() != 0 && at >= t.since[slot]+uint32(PreviousFor/time.Second) {
			dst = t.set(dst, slot, NewRow(r.Current(), 0), t.histories[slot].with(r.Previous()), now)
		}
	}
	return dst
}

// Mark sets or clears the mark of a slot.
func (t *Table) Mark(dst []Store, slot uint32, marked bool) []Store {
	r := t.rows[slot] &^ rowMark
	if marked {
		r |= rowMark
	}
	if r == t.rows[slot] {
		return dst
	}
	t.rows[slot] = r
	return append(dst, Store{Slot: slot, Value: uint64(r)})
}

// All appends the stores that make an empty table of the balancer, or whatever is
// there, this one.
func (t *Table) All(dst []Store) []Store {
	for slot := range t.rows[:] {
		dst = append(dst,
			Store{Slot: uint32(slot), Value: uint64(t.histories[slot]), History: true},
			Store{Slot: uint32(slot), Value: uint64(t.rows[slot])})
	}
	return dst
}

// set changes a slot, whose mark stays, to a row and a history. Of the stores the
// one of the row is in the middle, where all three are needed.
func (t *Table) set(dst []Store, slot int, r Row, h History, now time.Time) []Store {
	was, had := t.rows[slot], t.histories[slot]
	r |= was & rowMark
	if p := r.Previous(); p != 0 && p != was.Previous() {
		t.since[slot] = t.seconds(now)
	}
	t.rows[slot], t.histories[slot] = r, h
	store := func(history bool, value uint64) {
		dst = append(dst, Store{Slot: uint32(slot), History: history, Value: value})
	}
	first := between(was, r, had, h)
	if first != had {
		store(true, uint64(first))
	}
	if r != was {
		store(false, uint64(r))
	}
	if h != first {
		store(true, uint64(h))
	}
	return dst
}

// between is the history for the time in which the row may be either: all of the new
// one, and the backend that leaves the old one for the row.
func between(was, r Row, had, h History) History {
	added := h.filter(func(b uint16) bool { return !had.Has(b) })
	if added == 0 {
		return had
	}
	if b := r.Current(); b != 0 && !was.has(b) && had.Has(b) {
		last := min(h.Len(), Former-1)
		h = h&^(0xffff<<(16*last)) | History(b)<<(16*last)
	}
	return h
}

// seconds is a time in seconds from the start of the table.
func (t *Table) seconds(now time.Time) uint32 {
	return uint32(max(0, now.Sub(t.start)) / time.Second)
}
