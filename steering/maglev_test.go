package steering

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// even returns n backends of weight 1.
func even(n int) []Backend {
	out := make([]Backend, n)
	for i := range out {
		out[i] = Backend{uint16(i + 1), fmt.Sprintf("backend%d.example", i), 1}
	}
	return out
}

// uneven returns n backends with weights from 1 to 100.
func uneven(n int) []Backend {
	out := even(n)
	src := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range out {
		out[i].Weight = 1 + src.Uint32N(100)
	}
	return out
}

func mustMaglev(t fataler, current *Assignment, backends []Backend) *Assignment {
	t.Helper()
	next, err := Maglev(current, backends)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return next
}

func slotsOf(a *Assignment) map[uint16]int {
	var counts [1 << 16]int
	for _, b := range a {
		counts[b]++
	}
	out := map[uint16]int{}
	for b, n := range counts {
		if n > 0 {
			out[uint16(b)] = n
		}
	}
	return out
}

// moved counts the slots that change hands.
func moved(before, after *Assignment) int {
	n := 0
	for slot := range before {
		if before[slot] != after[slot] {
			n++
		}
	}
	return n
}

// keys is an assignment in terms of keys.
func keys(a *Assignment, backends []Backend) []string {
	var names [MaxBackend + 1]string
	for _, b := range backends {
		names[b.Index] = b.Key
	}
	out := make([]string, TableSlots)
	for slot, b := range a {
		out[slot] = names[b]
	}
	return out
}

// off is how far the slots of backends are from their weights: the most of all in
// slots, and in parts of a share for those that have 50 slots and more to get.
func off(a *Assignment, backends []Backend) (slots, part float64) {
	has := slotsOf(a)
	total := 0.0
	for _, b := range backends {
		total += float64(b.Weight)
	}
	for _, b := range backends {
		share := TableSlots * float64(b.Weight) / total
		d := math.Abs(float64(has[b.Index]) - share)
		slots = max(slots, d)
		if share >= 50 {
			part = max(part, d/share)
		}
	}
	return slots, part
}

// TestMaglevBalance is that slots follow weights within 1 %. Where no whole
// number of slots is as near, they follow it within one slot.
func TestMaglevBalance(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 10, 100, 500, 1024, 10000, MaxBackend} {
		for kind, backends := range map[string][]Backend{"even": even(n), "uneven": uneven(n)} {
			a := mustMaglev(t, nil, backends)
			slots, part := off(a, backends)
			t.Logf("%d %s: off by %.2f slots, %.3f %% of a share", n, kind, slots, 100*part)
			if slots >= 1 {
				t.Errorf("%d %s: off by %.2f slots", n, kind, slots)
			}
			if n <= 500 && part > 0.01 {
				t.Errorf("%d %s: off by %.2f %%", n, kind, 100*part)
			}
			if has := slotsOf(a); has[0] != 0 || len(has) != n {
				t.Errorf("%d %s: %d have slots, %d slots have nobody", n, kind, len(has), has[0])
			}
		}
	}
}

// Of 1,024 equal backends one has a slot too many, as there is one to spare.
func TestMaglevBalanceOf1024(t *testing.T) {
	t.Parallel()
	counts := map[int]int{}
	for _, n := range slotsOf(mustMaglev(t, nil, even(1024))) {
		counts[n]++
	}
	if counts[64] != 1023 || counts[65] != 1 {
		t.Errorf("slots: %v", counts)
	}
}

// TestMaglevDisruption removes and returns a backend. Its slots move, and no other.
func TestMaglevDisruption(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 10, 100, 1024} {
		for kind, backends := range map[string][]Backend{"even": even(n), "uneven": uneven(n)} {
			all := mustMaglev(t, nil, backends)
			gone := backends[n/2]
			rest := slices.Delete(slices.Clone(backends), n/2, n/2+1)
			less := mustMaglev(t, all, rest)
			for slot, b := range all {
				if b != gone.Index && less[slot] != b {
					t.Fatalf("%d %s: slot %d moves from %d to %d", n, kind, slot, b, less[slot])
				}
			}
			if slots, _ := off(less, rest); slots >= 1 {
				t.Errorf("%d %s: off by %.2f slots", n, kind, slots)
			}
			back := mustMaglev(t, less, backends)
			had := slotsOf(all)[gone.Index]
			if n := moved(less, back); n != had {
				t.Errorf("%d slots move for %d", n, had)
			}
			same := 0
			for slot, b := range all {
				if b == gone.Index && back[slot] == b {
					same++
				}
			}
			fresh := mustMaglev(t, nil, rest)
			t.Logf("%d %s: %d slots move, %d come back; a table made anew moves %d more (%.1f %% of the others')", n, kind,
				had, same, moved(all, fresh)-had, 100*float64(moved(all, fresh)-had)/float64(TableSlots-had))
			if same < had/3 {
				t.Errorf("%d %s: of %d slots only %d come back", n, kind, had, same)
			}
		}
	}
}

// TestMaglevMovesTheFewest changes weights, takes and adds backends at random, and
// compares the slots that move with the least that can: those that each backend
// has too many.
func TestMaglevMovesTheFewest(t *testing.T) {
	t.Parallel()
	checkFew(t, func(t *rapid.T) {
		backends := uneven(rapid.IntRange(1, 30).Draw(t, "backends"))
		a := mustMaglev(t, nil, backends)
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				i := rapid.IntRange(0, len(backends)-1).Draw(t, "which")
				backends[i].Weight = rapid.Uint32Range(0, 100).Draw(t, "weight")
			}
			next := mustMaglev(t, a, backends)
			before, after := slotsOf(a), slotsOf(next)
			least := before[0]
			for b, n := range before {
				if b != 0 {
					least += max(0, n-after[b])
				}
			}
			if after[0] == TableSlots {
				least = TableSlots - before[0]
			}
			if n := moved(a, next); n != least {
				t.Fatalf("%d slots move, %d have to", n, least)
			}
			a = next
		}
	})
}

// TestMaglevAgrees gives two gateways the same past and the same backends, under
// other indices and in another order.
func TestMaglevAgrees(t *testing.T) {
	t.Parallel()
	checkFew(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "backends")
		here := uneven(n)
		there := slices.Clone(here)
		numbers := rapid.Permutation(func() []uint16 {
			out := make([]uint16, n)
			for i := range out {
				out[i] = uint16(MaxBackend - 3*i)
			}
			return out
		}()).Draw(t, "numbers")
		for i := range there {
			there[i].Index = numbers[i]
		}
		var a, b *Assignment
		for range 3 {
			i := rapid.IntRange(0, n-1).Draw(t, "which")
			here[i].Weight = rapid.Uint32Range(0, 100).Draw(t, "weight")
			there[i].Weight = here[i].Weight
			a = mustMaglev(t, a, here)
			b = mustMaglev(t, b, rapid.Permutation(there).Draw(t, "order"))
			if !slices.Equal(keys(a, here), keys(b, there)) {
				t.Fatal("gateways disagree")
			}
		}
	})
}

// TestMaglevIsFrozen holds fresh tables to what they were when this was written:
// gateways of different versions must agree.
func TestMaglevIsFrozen(t *testing.T) {
	t.Parallel()
	a := mustMaglev(t, nil, []Backend{{1, "a", 3}, {2, "b", 1}, {3, "c", 0}, {4, "d", 2}})
	h := uint64(0)
	for _, b := range a {
		h = fold(h^uint64(b)^mixA, mixB)
	}
	got := fmt.Sprintf("%v %v %016x", a[:32], slotsOf(a), h)
	want := "[1 2 1 1 4 1 1 1 4 1 4 1 1 4 4 2 4 1 2 4 4 1 1 2 4 1 4 1 4 2 4 1]" +
		" map[1:32768 2:10923 4:21846] 56aa3cb58ad9dd0b"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestMaglevErrors(t *testing.T) {
	t.Parallel()
	for want, backends := range map[string][]Backend{
		`backend "a": index 0 is not within 1 and 32767`:     {{0, "a", 1}},
		`backend "a": index 32768 is not within 1 and 32767`: {{32768, "a", 1}},
		`backend "b": index 7 is that of "a" too`:            {{7, "a", 1}, {7, "b", 0}},
		`backend "a" is there twice`:                         {{7, "a", 1}, {8, "b", 1}, {9, "a", 1}},
	} {
		if _, err := Maglev(nil, backends); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// A slot that is due to several goes to the first by key.
func TestMaglevTies(t *testing.T) {
	t.Parallel()
	has := slotsOf(mustMaglev(t, nil, []Backend{{1, "b", 5}, {2, "a", 5}}))
	if has[2] != 32769 || has[1] != 32768 {
		t.Errorf("slots: %v", has)
	}
}

// Without a backend that may serve, slots have nobody; what is not known counts as
// nobody as well.
func TestMaglevOfNobody(t *testing.T) {
	t.Parallel()
	all := mustMaglev(t, nil, even(3))
	for _, backends := range [][]Backend{nil, {{1, "backend0.example", 0}}} {
		if has := slotsOf(mustMaglev(t, all, backends)); has[0] != TableSlots {
			t.Errorf("%v have slots: %v", backends, has)
		}
	}
	strange := Assignment{0: 77, 1: MaxBackend + 1, 2: 1<<16 - 1}
	if has := slotsOf(mustMaglev(t, &strange, even(2))); len(has) != 2 || has[1]+has[2] != TableSlots {
		t.Errorf("slots of strangers: %v", has)
	}
}

func BenchmarkMaglev(b *testing.B) {
	for _, n := range []int{10, 1024, MaxBackend} {
		backends := uneven(n)
		all, err := Maglev(nil, backends)
		if err != nil {
			b.Fatal(err)
		}
		for _, c := range []struct {
			name     string
			current  *Assignment
			backends []Backend
		}{
			{"anew", nil, backends},
			{"one leaves", all, backends[1:]},
			{"half leave", all, backends[n/2:]},
		} {
			b.Run(fmt.Sprintf("%d/%s", n, c.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Maglev(c.current, c.backends); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
