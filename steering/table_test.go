package steering

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTable runs random changes against the model.
func TestTable(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	checkFew(t, func(t *rapid.T) {
		const slots = 3
		tt := tableTest{NewTable(start), newBalancer(), make([]slotModel, slots), make([]bool, slots), start}
		next := new(Assignment)
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				for i := range slots {
					next[i] = rapid.Uint16Range(0, testBackends).Draw(t, "backend")
				}
				dead := rapid.SliceOfNDistinct(rapid.Uint16Range(1, testBackends), 0, 2, rapid.ID).Draw(t, "dead")
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
				if rapid.IntRange(0, 5).Draw(t, "copy") == 5 {
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
	checkFew(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		backends := uneven(rapid.IntRange(2, 12).Draw(t, "backends"))
		table, memory := NewTable(now), newBalancer()
		models := make([]slotModel, TableSlots/sample)
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
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
