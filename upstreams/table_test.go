package upstreams

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	var empty table[int]
	if v, ok := empty.get([]byte("a")); ok || v != 0 {
		t.Errorf("get: %d, %v", v, ok)
	}
	if v, ok := empty.getString("a"); ok || v != 0 {
		t.Errorf("getString: %d, %v", v, ok)
	}
	for name := range empty.all() {
		t.Errorf("visited %q", name)
	}
	if _, ok := empty.edit().done().getString("a"); ok {
		t.Error("an edit without a change has a name")
	}
}

func TestTableStopsVisiting(t *testing.T) {
	t.Parallel()
	e := table[int]{}.edit()
	for i := range 100 {
		e.set(fmt.Sprint(i), i)
	}
	n := 0
	for range e.done().all() {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d visits", n)
	}
}

// TestTableIsMap compares tables with maps: every edit makes a table that has
// what the map has, and leaves all earlier tables as they were.
func TestTableIsMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "name")) })
		model := map[string]int{}
		var tables []table[int]
		var models []map[string]int
		tab := table[int]{}
		for range rapid.IntRange(1, 8).Draw(t, "edits") {
			e := tab.edit()
			for range rapid.IntRange(0, 20).Draw(t, "changes") {
				name := names.Draw(t, "which")
				if rapid.Bool().Draw(t, "remove") {
					e.remove(name)
					delete(model, name)
				} else {
					v := rapid.Int().Draw(t, "value")
					e.set(name, v)
					model[name] = v
				}
				if v, ok := e.getString(name); v != model[name] || ok != hasKey(model, name) {
					t.Fatalf("in the edit %s is %d, %v", name, v, ok)
				}
			}
			tab = e.done()
			tables, models = append(tables, tab), append(models, maps.Clone(model))
		}
		for i, tab := range tables {
			if got := maps.Collect(tab.all()); !maps.Equal(got, models[i]) {
				t.Fatalf("table %d of %d has %v; want %v", i+1, len(tables), got, models[i])
			}
			for n := range 31 {
				name := fmt.Sprint(n)
				v, ok := tab.get([]byte(name))
				w, also := tab.getString(name)
				if v != models[i][name] || ok != hasKey(models[i], name) || w != v || also != ok {
					t.Fatalf("table %d: %s is %d, %v and %d, %v", i+1, name, v, ok, w, also)
				}
			}
		}
	})
}

func hasKey(m map[string]int, name string) bool {
	_, ok := m[name]
	return ok
}

func TestTableLookupDoesNotAllocate(t *testing.T) { // not parallel: it counts allocations
	e := table[int]{}.edit()
	e.set("\x07example\x00", 1)
	tab, name := e.done(), []byte("\x07example\x00")
	if n := testing.AllocsPerRun(100, func() { tab.get(name) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
