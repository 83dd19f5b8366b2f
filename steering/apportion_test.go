package steering

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawWeights draws weights that are alike, or of all sizes.
func drawWeights(most int) *rapid.Generator[[]uint32] {
	return rapid.Custom(func(t *rapid.T) []uint32 {
		weight := rapid.SampledFrom([]*rapid.Generator[uint32]{
			rapid.Just(uint32(1)),
			rapid.Uint32Range(1, 3),
			rapid.Uint32Range(1, 1000),
			rapid.Uint32Min(1),
		}).Draw(t, "kind")
		return rapid.SliceOfN(weight, 1, most).Draw(t, "weights")
	})
}

func sum(slots []uint32) int {
	n := 0
	for _, s := range slots {
		n += int(s)
	}
	return n
}

// TestApportionIsWebsters holds it to what defines the method: all slots are given,
// everyone has one, and no weight has more claim to a slot than one that has it.
func TestApportionIsWebsters(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := drawWeights(40).Draw(t, "weights")
		slots := apportion(weights)
		if sum(slots) != TableSlots || slices.Min(slots) == 0 {
			t.Fatalf("%d slots for %v: %v", sum(slots), weights, slots)
		}
		for i, w := range weights {
			for j, other := range weights {
				// The last slot of i against the next one of j.
				if slots[i] > 1 && uint64(w)*(2*uint64(slots[j])+1) < uint64(other)*(2*uint64(slots[i])-1) {
					t.Fatalf("weight %d has %d slots, %d has %d: one more is due to the latter", w, slots[i], other, slots[j])
				}
			}
		}
	})
}

// No weight loses a slot when another one leaves or falls.
func TestApportionMovesOneWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		weights := drawWeights(40).Draw(t, "weights")
		before := apportion(weights)
		i := rapid.IntRange(0, len(weights)-1).Draw(t, "which")
		less := slices.Clone(weights)
		less[i] = rapid.Uint32Range(1, weights[i]).Draw(t, "weight")
		after := apportion(less)
		for j := range weights {
			if j != i && after[j] < before[j] || j == i && after[j] > before[j] {
				t.Fatalf("%v to %v: slots %v to %v", weights, less, before, after)
			}
		}
		if len(weights) == 1 {
			return
		}
		left := apportion(slices.Delete(less, i, i+1))
		for j, n := range slices.Delete(before, i, i+1) {
			if left[j] < n {
				t.Fatalf("without weight %d of %v: slots %v to %v", i, weights, before, left)
			}
		}
	})
}

func TestApportionOfMany(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 655, 1024, MaxBackend} {
		slots := apportion(slices.Repeat([]uint32{7}, n))
		if sum(slots) != TableSlots || slices.Max(slots)-slices.Min(slots) > 1 {
			t.Errorf("%d equal weights: %d slots, from %d to %d", n, sum(slots), slices.Min(slots), slices.Max(slots))
		}
	}
	// Half of a slot, for which one is due, and all but nothing.
	many := append(slices.Repeat([]uint32{1}, MaxBackend-1), 1<<32-1)
	slots := apportion(many)
	if sum(slots) != TableSlots || slots[0] != 1 || slots[MaxBackend-1] != TableSlots-MaxBackend+1 {
		t.Errorf("a giant has %d slots, others %d, together %d", slots[MaxBackend-1], slots[0], sum(slots))
	}
	if len(apportion(nil)) != 0 {
		t.Error("slots for nobody")
	}
}
