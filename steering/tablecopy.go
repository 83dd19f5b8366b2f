package steering

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The layout of a copy: magic, version, number of slots, rows, histories, all in
// network order.
const (
	copyMagic   = "rows"
	copyVersion = 1
	copyHeader  = 12
)

// TableCopySize is how many bytes MarshalBinary writes.
const TableCopySize = copyHeader + (4+8)*TableSlots

// MarshalBinary writes a table for a mate: rows without marks, as each gateway has
// pins of its own, and histories. Indices are those of this gateway, so that the
// mate needs their keys as well. It never fails.
func (t *Table) MarshalBinary() ([]byte, error) {
	out := make([]byte, 0, TableCopySize)
	out = append(out, copyMagic...)
	out = binary.BigEndian.AppendUint32(out, copyVersion)
	out = binary.BigEndian.AppendUint32(out, TableSlots)
	for _, r := range t.rows[:] {
		out = binary.BigEndian.AppendUint32(out, uint32(r&^rowMark))
	}
	for _, h := range t.histories[:] {
		out = binary.BigEndian.AppendUint64(out, uint64(h))
	}
	return out, nil
}

// UnmarshalTable reads what MarshalBinary of a mate wrote. Since when a backend has
// been previous is not in it and counts from now: it stays there for longer than
// with the mate, which costs a segment and no flow.
func UnmarshalTable(data []byte, now time.Time) (*Table, error) {
	switch {
	case len(data) < copyHeader || string(data[:4]) != copyMagic:
		return nil, errors.New("not a copy of a table")
	case binary.BigEndian.Uint32(data[4:]) != copyVersion:
		return nil, fmt.Errorf("copy of version %d, not %d", binary.BigEndian.Uint32(data[4:]), copyVersion)
	case binary.BigEndian.Uint32(data[8:]) != TableSlots:
		return nil, fmt.Errorf("copy of %d slots, not %d", binary.BigEndian.Uint32(data[8:]), TableSlots)
	case len(data) != TableCopySize:
		return nil, fmt.Errorf("copy of %d bytes, not %d", len(data), TableCopySize)
	}
	t := NewTable(now)
	rows, histories := data[copyHeader:copyHeader+4*TableSlots], data[copyHeader+4*TableSlots:]
	for slot := range TableSlots {
		r, h := Row(binary.BigEndian.Uint32(rows[4*slot:])), History(binary.BigEndian.Uint64(histories[8*slot:]))
		clean, kept, err := tidy(r, h)
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", slot, err)
		}
		if r.Marked() || clean != r || kept != h {
			return nil, fmt.Errorf("slot %d: row %#x with history %#x is none that a table has", slot, uint32(r), uint64(h))
		}
		t.rows[slot], t.histories[slot] = r, h
	}
	return t, nil
}

// LoadTable makes a table of what is in the balancer's, TableSlots rows and
// histories each, after a restart. Since when a backend has been previous counts
// from now. A process that ended between two stores left a backend in a slot twice:
// LoadTable appends the stores that clear that up.
func LoadTable(dst []Store, rows []uint32, histories []uint64, now time.Time) (*Table, []Store, error) {
	if len(rows) != TableSlots || len(histories) != TableSlots {
		return nil, dst, fmt.Errorf("%d rows and %d histories, not %d", len(rows), len(histories), TableSlots)
	}
	t := NewTable(now)
	fixes := dst
	for slot := range TableSlots {
		r, h, err := tidy(Row(rows[slot]), History(histories[slot]))
		if err != nil {
			return nil, dst, fmt.Errorf("slot %d: %w", slot, err)
		}
		t.rows[slot], t.histories[slot] = Row(rows[slot]), History(histories[slot])
		fixes = t.set(fixes, slot, r, h, now)
	}
	return t, fixes, nil
}

// tidy is a row and a history in which no backend is twice.
func tidy(r Row, h History) (Row, History, error) {
	if r&rowSpare != 0 {
		return 0, 0, fmt.Errorf("row %#x has the spare bit set", uint32(r))
	}
	if r.Previous() == r.Current() {
		r &^= MaxBackend << rowPrevious
	}
	var out History
	for i := Former - 1; i >= 0; i-- {
		b := h.At(i)
		if b > MaxBackend {
			return 0, 0, fmt.Errorf("backend %d of the history is above %d", b, MaxBackend)
		}
		if b != 0 && !r.has(b) {
			out = out.with(b)
		}
	}
	return r, out, nil
}

// Renumber gives the backends of a table that was copied the indices they have
// here. Those that have none here leave the table. It is for a table that the
// balancer does not have yet: [Table.All] stores it.
func (t *Table) Renumber(here map[uint16]uint16) error {
	var to [1 << 16]uint16
	from := make(map[uint16]uint16, len(here))
	for mate, own := range here {
		if mate == 0 || mate > MaxBackend || own == 0 || own > MaxBackend {
			return fmt.Errorf("backend %d cannot be %d here: indices are from 1 to %d", mate, own, MaxBackend)
		}
		if other, ok := from[own]; ok {
			return fmt.Errorf("backends %d and %d cannot both be %d here", min(mate, other), max(mate, other), own)
		}
		from[own] = mate
		to[mate] = own
	}
	for slot, r := range t.rows[:] {
		var h History
		for i := Former - 1; i >= 0; i-- {
			h = h.with(to[t.histories[slot].At(i)])
		}
		t.rows[slot] = NewRow(to[r.Current()], to[r.Previous()]) | r&rowMark
		t.histories[slot] = h
	}
	return nil
}
