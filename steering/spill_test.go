package steering

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Every rank is that of one slot.
func TestRankIsAPermutation(t *testing.T) {
	t.Parallel()
	seen := make([]bool, TableSlots)
	for slot := range uint32(TableSlots) {
		r := Rank(slot)
		if r >= TableSlots || seen[r] {
			t.Fatalf("slot %d has rank %d, as another one", slot, r)
		}
		seen[r] = true
	}
}

// Gateways of different versions must spill the same slots.
func TestRankIsFrozen(t *testing.T) {
	t.Parallel()
	got := []uint32{Rank(0), Rank(1), Rank(2), Rank(1000), Rank(TableSlots - 1)}
	if want := []uint32{0, 40507, 15477, 5134, 25030}; !slices.Equal(got, want) {
		t.Errorf("ranks %v, want %v", got, want)
	}
}

// TestRankSpreads adds the slots in the order of their ranks and looks at the gaps
// between neighbours each time.
func TestRankSpreads(t *testing.T) {
	t.Parallel()
	slots := make([]uint32, TableSlots)
	for slot := range uint32(TableSlots) {
		slots[Rank(slot)] = slot
	}
	// From the last to the first, as taking one out of a chain is simple.
	after, before := make([]uint32, TableSlots), make([]uint32, TableSlots)
	gaps := map[uint32]int{1: TableSlots}
	for slot := range uint32(TableSlots) {
		after[slot], before[(slot+1)%TableSlots] = (slot+1)%TableSlots, slot
	}
	gap := func(from, to uint32) uint32 { return (to-from+TableSlots-1)%TableSlots + 1 }
	for n := TableSlots - 1; n >= 1; n-- {
		slot := slots[n]
		left, right := before[slot], after[slot]
		after[left], before[right] = right, left
		for _, g := range []uint32{gap(left, slot), gap(slot, right)} {
			if gaps[g]--; gaps[g] == 0 {
				delete(gaps, g)
			}
		}
		gaps[gap(left, right)]++
		shortest, longest := uint32(math.MaxUint32), uint32(0)
		for g := range gaps {
			shortest, longest = min(shortest, g), max(longest, g)
		}
		if len(gaps) > 3 || longest > 5*shortest {
			t.Fatalf("%d slots: gaps %v", n, gaps)
		}
	}
}

// Each backend of a table spills about the share of the whole.
func TestRankSpreadsBackends(t *testing.T) {
	t.Parallel()
	a := mustMaglev(t, nil, even(20))
	all := slotsOf(a)
	for _, share := range []float64{0.1, 0.5, 0.9} {
		spilled := map[uint16]float64{}
		for slot, b := range a {
			if Rank(uint32(slot)) < SpillSlots(share) {
				spilled[b]++
			}
		}
		for b, n := range all {
			// Six standard deviations of a draw by chance.
			if d := math.Abs(spilled[b] - share*float64(n)); d > 6*math.Sqrt(float64(n)*share*(1-share)) {
				t.Errorf("backend %d spills %.0f of %d slots for a share of %.1f", b, spilled[b], n, share)
			}
		}
	}
}

// TestSpills holds the sites of slots to what shares mean: as many slots as asked
// for, none twice, those of a lower share within those of a higher one.
func TestSpills(t *testing.T) {
	t.Parallel()
	count := func(s Spills) map[string][]uint32 {
		out := map[string][]uint32{}
		for slot := range uint32(TableSlots) {
			site, ok := s.Site(slot)
			if ok == (site == "") {
				panic("a site has no name")
			}
			out[site] = append(out[site], slot)
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.Uint32Range(0, TableSlots)
		first, second := slots.Draw(t, "first"), slots.Draw(t, "second")
		sites := count(Spills{{"a", first}, {"b", second}})
		second = min(second, TableSlots-first)
		if len(sites["a"]) != int(first) || len(sites["b"]) != int(second) {
			t.Fatalf("%d and %d slots spill, want %d and %d", len(sites["a"]), len(sites["b"]), first, second)
		}
		less := count(Spills{{"a", first}, {"b", rapid.Uint32Range(0, second).Draw(t, "less")}})
		if !slices.Equal(less["a"], sites["a"]) {
			t.Fatal("the first site's slots are others when the second site's share falls")
		}
		for _, slot := range less["b"] {
			if _, ok := slices.BinarySearch(sites["b"], slot); !ok {
				t.Fatalf("slot %d spills with a lower share alone", slot)
			}
		}
	})
}

func TestSpillsAtTheEnds(t *testing.T) {
	t.Parallel()
	for slot := range uint32(TableSlots) {
		if site, ok := (Spills{}).Site(slot); ok {
			t.Fatalf("slot %d spills to %q", slot, site)
		}
		if site, ok := (Spills{{"a", 0}, {"b", math.MaxUint32}, {"c", math.MaxUint32}}).Site(slot); !ok || site != "b" {
			t.Fatalf("slot %d spills to %q, want b", slot, site)
		}
	}
	for share, want := range map[float64]uint32{
		0: 0, -1: 0, math.NaN(): 0, math.Inf(-1): 0,
		1: TableSlots, 2: TableSlots, math.Inf(1): TableSlots,
		0.5: 32769, 0.1: 6554, 1e-9: 0,
	} {
		if got := SpillSlots(share); got != want {
			t.Errorf("share %v is %d slots, want %d", share, got, want)
		}
	}
}
