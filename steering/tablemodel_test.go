package steering

import (
	"slices"
	"time"
)

// balancer is what packets see: memory that changes store by store.
type balancer struct {
	rows      []uint32
	histories []uint64
}

func newBalancer() *balancer {
	return &balancer{make([]uint32, TableSlots), make([]uint64, TableSlots)}
}

// finds tells whether a flow of a backend is found in a slot.
func (m *balancer) finds(slot uint32, b uint16) bool {
	return Row(m.rows[slot]).has(b) || History(m.histories[slot]).Has(b)
}

// slotModel is the slow and obvious twin of a slot: a list of who left it, and a
// diary of its owners that forgets nothing.
type slotModel struct {
	current uint16
	former  []uint16 // newest first; the first is previous if recent
	recent  bool
	since   time.Time
	diary   []uint16 // owners in order, the last is current; the dead become 0
}

func (m *slotModel) leave(dead []uint16) {
	isDead := func(b uint16) bool { return slices.Contains(dead, b) }
	if len(m.former) > 0 && m.recent && isDead(m.former[0]) {
		m.recent = false
	}
	m.former = slices.DeleteFunc(m.former, isDead)
	if isDead(m.current) {
		m.current = 0
	}
	for i, b := range m.diary {
		if isDead(b) {
			m.diary[i] = 0
		}
	}
}

func (m *slotModel) assign(to uint16, now time.Time) {
	if to == m.current {
		return
	}
	m.diary = append(m.diary, to)
	if i := slices.Index(m.former, to); i >= 0 {
		m.former = slices.Delete(m.former, i, i+1)
		m.recent = m.recent && i > 0
	}
	if m.current != 0 {
		m.former = slices.Insert(m.former, 0, m.current)
		m.recent, m.since = true, now
	}
	m.current = to
	m.forget()
}

func (m *slotModel) age(now time.Time) {
	if m.recent && now.Sub(m.since) >= 10*time.Minute {
		m.recent = false
		m.forget()
	}
}

func (m *slotModel) forget() {
	room := 4
	if m.recent {
		room++
	}
	m.former = m.former[:min(room, len(m.former))]
}

// promised are the backends that had the slot within its last four owner changes
// and did not die since.
func (m *slotModel) promised() []uint16 {
	last := m.diary[max(0, len(m.diary)-5):]
	return slices.DeleteFunc(slices.Clone(last), func(b uint16) bool { return b == 0 })
}

// check compares a slot of a table with its model.
func (m *slotModel) check(t fataler, slot uint32, table *Table) {
	t.Helper()
	previous, history := uint16(0), m.former
	if m.recent {
		previous, history = m.former[0], m.former[1:]
	}
	r, h := table.Row(slot), table.History(slot)
	if r.Current() != m.current || r.Previous() != previous {
		t.Fatalf("slot %d: row %v, want %d/%d", slot, r, m.current, previous)
	}
	var got []uint16
	for i := range h.Len() {
		got = append(got, h.At(i))
	}
	if !slices.Equal(got, history) || h>>(16*h.Len()) != 0 && h.Len() < Former {
		t.Fatalf("slot %d: history %#x, want %v", slot, uint64(h), history)
	}
}

// testBackends is how many backends the slots of a tableTest go round.
const testBackends = 9

// tableTest is a table, the balancer that its stores make, and the models of the
// few slots that a test uses.
type tableTest struct {
	table  *Table
	memory *balancer
	slots  []slotModel
	marked []bool
	now    time.Time
}

// finds tells whether a backend is in a slot of the table.
func (tt *tableTest) finds(slot uint32, b uint16) bool {
	return tt.table.Row(slot).has(b) || tt.table.History(slot).Has(b)
}

// do makes the stores of a transition one by one, and looks after each for
// whoever is in the slot before and after.
func (tt *tableTest) do(t fataler, stores []Store, dead []uint16) {
	t.Helper()
	had := make([][]uint16, len(tt.slots)) // in the slot before and after
	for i := range tt.slots {
		for b := range uint16(testBackends + 1) {
			if slot := uint32(i); b != 0 && tt.memory.finds(slot, b) && tt.finds(slot, b) {
				had[i] = append(had[i], b)
			}
		}
	}
	for _, s := range stores {
		s.Put(tt.memory.rows, tt.memory.histories)
		if int(s.Slot) >= len(tt.slots) {
			t.Fatalf("slot %d is none of those in use", s.Slot)
		}
		for _, b := range had[s.Slot] {
			// The one case without room: the oldest of a full history, beyond what is promised.
			oldest := tt.table.History(s.Slot).At(Former-1) == b && len(stores) >= 3 &&
				!slices.Contains(tt.slots[s.Slot].promised(), b)
			if !oldest && !tt.memory.finds(s.Slot, b) {
				t.Fatalf("flows of backend %d are lost in slot %d after %+v: row %v, history %#x", b, s.Slot, s,
					Row(tt.memory.rows[s.Slot]), tt.memory.histories[s.Slot])
			}
		}
	}
	for i := range tt.slots {
		slot := uint32(i)
		tt.slots[i].check(t, slot, tt.table)
		r, h := tt.table.Row(slot), tt.table.History(slot)
		if uint32(r) != tt.memory.rows[slot] || uint64(h) != tt.memory.histories[slot] {
			t.Fatalf("slot %d: the stores make %v, the table is %v", slot, Row(tt.memory.rows[slot]), r)
		}
		if r.Marked() != tt.marked[slot] {
			t.Fatalf("slot %d: marked is %v", slot, r.Marked())
		}
		for _, b := range tt.slots[i].promised() {
			if !tt.memory.finds(slot, b) {
				t.Fatalf("slot %d: flows of backend %d are lost", slot, b)
			}
		}
		for _, b := range dead {
			if tt.memory.finds(slot, b) {
				t.Fatalf("slot %d: backend %d is dead and there", slot, b)
			}
		}
		seen := map[uint16]bool{}
		for _, b := range []uint16{r.Current(), r.Previous(), h.At(0), h.At(1), h.At(2), h.At(3)} {
			if b != 0 && seen[b] {
				t.Fatalf("slot %d: backend %d is there twice: %v, %#x", slot, b, r, uint64(h))
			}
			seen[b] = true
		}
	}
}

// restart makes a table of what the balancer has.
func (tt *tableTest) restart(t fataler) {
	table, fixes, err := LoadTable(nil, tt.memory.rows, tt.memory.histories, tt.now)
	if err != nil || len(fixes) != 0 {
		t.Fatalf("a restart changes %+v (%v)", fixes, err)
	}
	tt.table = table
}

// copy goes on with a mate that copied the table.
func (tt *tableTest) copy(t fataler) {
	data, err := tt.table.MarshalBinary()
	if err != nil {
		t.Fatalf("%v", err)
	}
	if tt.table, err = UnmarshalTable(data, tt.now); err != nil {
		t.Fatalf("%v", err)
	}
	tt.memory, tt.marked = newBalancer(), make([]bool, len(tt.slots))
	for _, s := range tt.table.All(nil)[:2*len(tt.slots)] {
		s.Put(tt.memory.rows, tt.memory.histories)
	}
}
