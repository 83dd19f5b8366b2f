package steering

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
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

// tableTest is a table, the balancer that its stores make, and the models of the
// few slots that a test uses.
type tableTest struct {
	table  *Table
	memory *balancer
	slots  []slotModel
	marked []bool
	now    time.Time
}

// do makes the stores of a transition one by one, with all promises checked after
// each.
func (tt *tableTest) do(t fataler, stores []Store, dead []uint16) {
	t.Helper()
	had := make([][]uint16, len(tt.slots)) // promised, and there from the start
	for i, m := range tt.slots {
		had[i] = slices.DeleteFunc(m.promised(), func(b uint16) bool { return !tt.memory.finds(uint32(i), b) })
	}
	for _, s := range stores {
		s.Put(tt.memory.rows, tt.memory.histories)
		if int(s.Slot) >= len(tt.slots) {
			t.Fatalf("slot %d is none of those in use", s.Slot)
		}
		for _, b := range had[s.Slot] {
			if !tt.memory.finds(s.Slot, b) {
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

// TestTable runs random changes against the model.
func TestTable(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	rapid.Check(t, func(t *rapid.T) {
		const slots, backends = 3, 9
		tt := tableTest{NewTable(start), newBalancer(), make([]slotModel, slots), make([]bool, slots), start}
		next := new(Assignment)
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				for i := range slots {
					next[i] = rapid.Uint16Range(0, backends).Draw(t, "backend")
				}
				dead := rapid.SliceOfNDistinct(rapid.Uint16Range(1, backends), 0, 2, rapid.ID).Draw(t, "dead")
				if rapid.IntRange(0, 2).Draw(t, "deaths") > 0 {
					dead = nil
				}
				for i := range tt.slots {
					tt.slots[i].leave(dead)
					if to := next[i]; slices.Contains(dead, to) {
						tt.slots[i].assign(0, tt.now)
					} else {
						tt.slots[i].assign(to, tt.now)
					}
				}
				stores, err := tt.table.Apply(nil, next, dead, tt.now)
				if err != nil {
					t.Fatal(err)
				}
				tt.do(t, stores, dead)
			},
			"wait": func(t *rapid.T) {
				tt.now = tt.now.Add(time.Duration(rapid.IntRange(1, 11).Draw(t, "minutes")) * time.Minute)
				for i := range tt.slots {
					tt.slots[i].age(tt.now)
				}
				tt.do(t, tt.table.Age(nil, tt.now), nil)
			},
			"mark": func(t *rapid.T) {
				slot := rapid.Uint32Range(0, slots-1).Draw(t, "slot")
				tt.marked[slot] = rapid.Bool().Draw(t, "marked")
				tt.do(t, tt.table.Mark(nil, slot, tt.marked[slot]), nil)
			},
			"again": func(t *rapid.T) {
				if rapid.Bool().Draw(t, "copy") {
					tt.copy(t)
				} else {
					tt.restart(t)
				}
				for i := range tt.slots {
					tt.slots[i].since = tt.now
				}
				tt.do(t, nil, nil)
			},
		})
	})
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
	for _, s := range tt.table.All(nil) {
		s.Put(tt.memory.rows, tt.memory.histories)
	}
}

// TestTableRestartsBetweenStores ends the process after each store: what is
// promised is there again, once, and the next process goes on.
func TestTableRestartsBetweenStores(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	rapid.Check(t, func(t *rapid.T) {
		table, memory := NewTable(start), newBalancer()
		next, model := new(Assignment), slotModel{}
		for range rapid.IntRange(1, 10).Draw(t, "changes") {
			next[0] = rapid.Uint16Range(0, 7).Draw(t, "backend")
			model.assign(next[0], start)
			stores, _ := table.Apply(nil, next, nil, start)
			cut := rapid.IntRange(0, len(stores)).Draw(t, "stores")
			for _, s := range stores[:cut] {
				s.Put(memory.rows, memory.histories)
			}
			if cut == len(stores) {
				continue
			}
			var fixes []Store
			var err error
			if table, fixes, err = LoadTable(nil, memory.rows, memory.histories, start); err != nil {
				t.Fatal(err)
			}
			again, err := table.Apply(fixes, next, nil, start)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range again {
				s.Put(memory.rows, memory.histories)
				for _, b := range model.promised() {
					if b != next[0] && !memory.finds(0, b) {
						t.Fatalf("flows of %d are lost after %+v of %+v: row %v, history %#x", b, s, again,
							Row(memory.rows[0]), memory.histories[0])
					}
				}
			}
			if Row(memory.rows[0]).Current() != next[0] {
				t.Fatalf("row %v, want current %d", Row(memory.rows[0]), next[0])
			}
		}
	})
}

// TestTableOrder writes out the stores of each kind of change of one slot.
func TestTableOrder(t *testing.T) {
	t.Parallel()
	row := func(current, previous uint16) Store { return Store{Value: uint64(NewRow(current, previous))} }
	history := func(former ...uint16) Store {
		var h History
		for _, b := range slices.Backward(former) {
			h = h.with(b)
		}
		return Store{Value: uint64(h), History: true}
	}
	for _, tt := range []struct {
		name    string
		row     Store
		history Store
		to      uint16
		dead    []uint16
		want    []Store
	}{
		{"first", row(0, 0), history(), 1, nil, []Store{row(1, 0)}},
		{"the same", row(1, 2), history(3), 1, nil, nil},
		{"second", row(1, 0), history(), 2, nil, []Store{row(2, 1)}},
		{"previous leaves", row(2, 1), history(), 3, nil, []Store{history(1), row(3, 2)}},
		{"oldest is forgotten", row(2, 1), history(4, 5, 6, 7), 3, nil, []Store{history(1, 4, 5, 6), row(3, 2)}},
		{"previous is back", row(2, 1), history(4), 1, nil, []Store{row(1, 2)}},
		{"out of the history", row(2, 0), history(4, 3), 3, nil, []Store{row(3, 2), history(4)}},
		{"out of the history and into it", row(2, 1), history(4, 3), 3, nil, []Store{history(1, 4, 3), row(3, 2), history(1, 4)}},
		{"the same with a full one", row(2, 1), history(4, 3, 5, 6), 3, nil, []Store{history(1, 4, 5, 3), row(3, 2), history(1, 4, 5, 6)}},
		{"nobody", row(2, 1), history(4), 0, nil, []Store{history(1, 4), row(0, 2)}},
		{"after nobody", row(0, 2), history(1), 3, nil, []Store{row(3, 2)}},
		{"back after nobody", row(0, 2), history(1), 2, nil, []Store{row(2, 0)}},
		{"dead current", row(2, 1), history(4), 3, []uint16{2}, []Store{row(3, 1)}},
		{"dead current, previous is back", row(2, 1), history(4), 1, []uint16{2}, []Store{row(1, 0)}},
		{"dead current, former is back", row(2, 1), history(3, 4), 3, []uint16{2}, []Store{row(3, 1), history(4)}},
		{"dead current and nobody", row(2, 1), history(4), 0, []uint16{2}, []Store{row(0, 1)}},
		{"dead previous", row(2, 1), history(4), 2, []uint16{1}, []Store{row(2, 0)}},
		{"dead former", row(2, 1), history(5, 4, 6), 2, []uint16{4}, []Store{history(5, 6)}},
		{"dead and assigned", row(2, 1), history(4), 3, []uint16{3}, []Store{history(1, 4), row(0, 2)}},
		{"all dead", row(2, 1), history(3, 4), 2, []uint16{1, 2, 3, 4}, []Store{row(0, 0), history()}},
	} {
		memory := newBalancer()
		tt.row.Put(memory.rows, memory.histories)
		tt.history.Put(memory.rows, memory.histories)
		table, _, err := LoadTable(nil, memory.rows, memory.histories, time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, err := table.Apply(nil, &Assignment{tt.to}, tt.dead, time.Unix(1e9, 0))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: stores %v, want %v (%v)", tt.name, got, tt.want, err)
		}
	}
}

// Slots without service are stored first, then those with dead backends in the way.
func TestTableUrgency(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	table := NewTable(now)
	for _, a := range []*Assignment{{1, 2, 3, 1, 2}, {1, 1, 1, 1, 0}} {
		if _, err := table.Apply(nil, a, nil, now); err != nil {
			t.Fatal(err)
		}
	}
	stores, err := table.Apply(nil, &Assignment{4, 1, 4, 4, 4}, []uint16{2}, now)
	if err != nil {
		t.Fatal(err)
	}
	var order []uint32
	for _, s := range stores {
		if !s.History {
			order = append(order, s.Slot)
		}
	}
	if want := []uint32{4, 1, 0, 2, 3}; !slices.Equal(order, want) {
		t.Errorf("rows of slots %v are stored, want %v", order, want)
	}
	if got, want := table.Backends(), []uint16{1, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("backends %v, want %v", got, want)
	}
}

func TestTableRefusesIndices(t *testing.T) {
	t.Parallel()
	table := NewTable(time.Unix(1e9, 0))
	stores, err := table.Apply(nil, &Assignment{0: 1, 7: MaxBackend + 1}, nil, time.Unix(1e9, 0))
	if want := "slot 7: backend 32768 is above 32767"; err == nil || err.Error() != want || len(stores) != 0 {
		t.Errorf("error %v and %d stores, want %s", err, len(stores), want)
	}
	if table.Row(0) != 0 {
		t.Error("something was changed")
	}
}

// TestTableOfMaglev lets backends of a whole table go down, come back, die and
// change weight. No flow of one that lives is lost, as long as its slot had not
// more than four owner changes.
func TestTableOfMaglev(t *testing.T) {
	t.Parallel()
	const sample = 13 // one slot of so many is followed
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		backends := uneven(rapid.IntRange(2, 12).Draw(t, "backends"))
		table, memory := NewTable(now), newBalancer()
		models := make([]slotModel, TableSlots/sample)
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
			b := &backends[rapid.IntRange(0, len(backends)-1).Draw(t, "which")]
			var dead []uint16
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				b.Weight = 0
			case 1:
				b.Weight, dead = 0, []uint16{b.Index}
			case 2:
				b.Weight = rapid.Uint32Range(1, 100).Draw(t, "weight")
			}
			next := mustMaglev(t, table.Assignment(), backends)
			stores, err := table.Apply(nil, next, dead, now)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range table.Age(stores, now) {
				s.Put(memory.rows, memory.histories)
			}
			for i := range models {
				m, slot := &models[i], uint32(i*sample)
				m.leave(dead)
				m.assign(next[slot], now)
				m.age(now)
				m.check(t, slot, table)
				for _, b := range m.promised() {
					if !memory.finds(slot, b) {
						t.Fatalf("slot %d: flows of backend %d are lost", slot, b)
					}
				}
				for _, b := range dead {
					if memory.finds(slot, b) {
						t.Fatalf("slot %d: backend %d is dead and there", slot, b)
					}
				}
			}
		}
	})
}

func BenchmarkTable(b *testing.B) {
	now := time.Unix(1e9, 0)
	backends := uneven(1024)
	all, less := mustMaglev(b, nil, backends), mustMaglev(b, nil, backends[1:])
	table := NewTable(now)
	var stores []Store
	b.Run("apply", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			stores, _ = table.Apply(stores[:0], all, nil, now)
			stores, _ = table.Apply(stores[:0], less, nil, now)
		}
	})
	b.Run("age", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			stores = table.Age(stores[:0], now)
		}
	})
}
