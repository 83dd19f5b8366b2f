package steering

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// agedTable is a table whose slots have a current and a previous backend and a
// history.
func agedTable(t fataler) *Table {
	t.Helper()
	now := time.Unix(1e9, 0)
	table := NewTable(now)
	backends := even(8)
	for i := range backends {
		backends[i].Weight = 0
		next := mustMaglev(t, table.Assignment(), backends)
		if _, err := table.Apply(nil, next, nil, now); err != nil {
			t.Fatalf("%v", err)
		}
		backends[i].Weight = uint32(i + 1)
	}
	return table
}

func TestUnmarshalTable(t *testing.T) {
	t.Parallel()
	table := agedTable(t)
	table.Mark(nil, 5, true)
	data, err := table.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	mate, err := UnmarshalTable(data, time.Unix(2e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if mate.Row(5).Marked() {
		t.Error("pins of a mate are marked")
	}
	table.Mark(nil, 5, false)
	if mate.rows != table.rows || mate.histories != table.histories {
		t.Error("the copy is another table")
	}
	memory := newBalancer()
	for _, s := range mate.All(nil) {
		s.Put(memory.rows, memory.histories)
	}
	stored, fixes, err := LoadTable(nil, memory.rows, memory.histories, time.Unix(2e9, 0))
	if err != nil || len(fixes) != 0 || stored.rows != mate.rows || stored.histories != mate.histories {
		t.Errorf("another table is stored (%v)", err)
	}
	if len(mate.Backends()) != 8 {
		t.Errorf("backends %v", mate.Backends())
	}
	// What is previous stays so for as long again.
	if stores := mate.Age(nil, time.Unix(2e9+599, 0)); len(stores) != 0 {
		t.Errorf("%d stores before 10 minutes", len(stores))
	}
	if stores := mate.Age(nil, time.Unix(2e9+600, 0)); len(stores) == 0 {
		t.Error("nothing ages")
	}
}

func TestUnmarshalTableErrors(t *testing.T) {
	t.Parallel()
	good, err := agedTable(t).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	const rows, histories = 12, 12 + 4*TableSlots
	put16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
	}
	slot := func(n int, r uint32, h uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[rows+4*n:], r)
			binary.BigEndian.PutUint64(b[histories+8*n:], h)
			return b
		}
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"empty", func([]byte) []byte { return nil }, "not a copy of a table"},
		{"bad start", put16(0, 0), "not a copy of a table"},
		{"bad version", put16(6, 2), "copy of version 2, not 1"},
		{"bad size", put16(10, 7), "copy of 65543 slots, not 65537"},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "copy of 786455 bytes, not 786456"},
		{"more behind", func(b []byte) []byte { return append(b, 0) }, "copy of 786457 bytes, not 786456"},
		{"header alone", func(b []byte) []byte { return b[:12] }, "copy of 12 bytes, not 786456"},
		{"spare bit", slot(7, 1<<31, 0), "slot 7: row 0x80000000 has the spare bit set"},
		{"mark", slot(7, 1<<30|1, 0), "slot 7: row 0x40000001 with history 0x0 is none that a table has"},
		{"twice in the row", slot(65536, 3<<15|3, 0), "slot 65536: row 0x18003 with history 0x0 is none that a table has"},
		{"row and history", slot(0, 3, 0x30002), "slot 0: row 0x3 with history 0x30002 is none that a table has"},
		{"twice in the history", slot(0, 3, 0x50005), "slot 0: row 0x3 with history 0x50005 is none that a table has"},
		{"gap in the history", slot(0, 3, 0x50000), "slot 0: row 0x3 with history 0x50000 is none that a table has"},
		{"large index", slot(0, 3, 0x80000002), "slot 0: backend 32768 of the history is above 32767"},
	} {
		if _, err := UnmarshalTable(tt.change(bytes.Clone(good)), time.Time{}); err == nil || err.Error() != tt.want {
			t.Errorf("%s: error %v, want %s", tt.name, err, tt.want)
		}
	}
}

// FuzzUnmarshalTable reads anything, and copies that were changed somewhere. What
// it takes is a table, which writes the same again.
func FuzzUnmarshalTable(f *testing.F) {
	good, err := agedTable(f).MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("rows\x00\x00\x00\x01"), uint32(len(good)), true)
	f.Add([]byte{0, 0, 0, 1}, uint32(12), false)
	f.Add([]byte{0, 2, 0, 0}, uint32(12+4*TableSlots+4), false)
	f.Add([]byte{0x80}, uint32(12), false)
	f.Fuzz(func(t *testing.T, patch []byte, at uint32, alone bool) {
		data := patch
		if !alone {
			data = bytes.Clone(good)
			copy(data[int(at)%len(data):], patch)
		}
		table, err := UnmarshalTable(data, time.Unix(1e9, 0))
		if err != nil {
			return
		}
		again, err := table.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, data) {
			t.Error("the table writes another copy")
		}
	})
}

func TestLoadTableErrors(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*balancer){
		"65536 rows and 65537 histories, not 65537":           func(m *balancer) { m.rows = m.rows[1:] },
		"65537 rows and 65538 histories, not 65537":           func(m *balancer) { m.histories = append(m.histories, 0) },
		"slot 9: row 0x80000001 has the spare bit set":        func(m *balancer) { m.rows[9] = 0x80000001 },
		"slot 9: backend 65535 of the history is above 32767": func(m *balancer) { m.histories[9] = 0xffff },
	} {
		m := newBalancer()
		change(m)
		if _, stores, err := LoadTable(nil, m.rows, m.histories, time.Time{}); err == nil || err.Error() != want || len(stores) != 0 {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// A gateway that loads what another process left gets a table without doubles,
// with all backends that were there, whatever was there.
func TestLoadTableTidies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newBalancer()
		index := rapid.Uint16Range(0, 4)
		r := NewRow(index.Draw(t, "current"), index.Draw(t, "previous"))
		var h History
		for i := range Former {
			h |= History(index.Draw(t, "former")) << (16 * i)
		}
		m.rows[3], m.histories[3] = uint32(r), uint64(h)
		want := []uint16{r.Current(), r.Previous(), h.At(0), h.At(1), h.At(2), h.At(3)}
		table, stores, err := LoadTable(nil, m.rows, m.histories, time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range stores {
			s.Put(m.rows, m.histories)
			for _, b := range want {
				if b != 0 && !m.finds(3, b) {
					t.Fatalf("backend %d is lost after %+v", b, s)
				}
			}
		}
		slices.Sort(want)
		want = slices.DeleteFunc(slices.Compact(want), func(b uint16) bool { return b == 0 })
		if got := table.Backends(); !slices.Equal(got, want) {
			t.Fatalf("backends %v, want %v", got, want)
		}
		if Row(m.rows[3]) != table.Row(3) || History(m.histories[3]) != table.History(3) || table.Row(3).Current() != r.Current() {
			t.Fatalf("%v %#x becomes %v %#x", r, uint64(h), table.Row(3), uint64(table.History(3)))
		}
		n := table.History(3).Len()
		for _, b := range []uint16{table.Row(3).Current(), table.Row(3).Previous()} {
			if b != 0 {
				n++
			}
		}
		if n != len(want) {
			t.Fatalf("%v %#x has %d places for %v", table.Row(3), uint64(table.History(3)), n, want)
		}
	})
}

func TestRenumber(t *testing.T) {
	t.Parallel()
	m := newBalancer()
	m.rows[0], m.histories[0] = uint32(NewRow(1, 2)|rowMark), 0x0006_0005_0004_0003
	m.rows[1], m.histories[1] = uint32(NewRow(0, 6)), 0x0001
	table, _, err := LoadTable(nil, m.rows, m.histories, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Renumber(map[uint16]uint16{1: 2, 2: 1, 3: 30, 5: 50, 6: 3}); err != nil {
		t.Fatal(err)
	}
	if r, h := table.Row(0), table.History(0); r != NewRow(2, 1)|rowMark || h != 0x0003_0032_001e {
		t.Errorf("row %v, history %#x", r, uint64(h))
	}
	if r, h := table.Row(1), table.History(1); r != NewRow(0, 3) || h != 2 {
		t.Errorf("row %v, history %#x", r, uint64(h))
	}
	for want, here := range map[string]map[uint16]uint16{
		"backends 2 and 3 cannot both be 7 here":                      {2: 7, 3: 7},
		"backend 2 cannot be 0 here: indices are from 1 to 32767":     {2: 0},
		"backend 2 cannot be 32768 here: indices are from 1 to 32767": {2: 32768},
		"backend 0 cannot be 1 here: indices are from 1 to 32767":     {0: 1},
		"backend 32768 cannot be 1 here: indices are from 1 to 32767": {32768: 1},
	} {
		if err := table.Renumber(here); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if table.Row(0).Current() != 2 {
		t.Error("an error changes the table")
	}
}
