package steering

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// script is a source that says what it was told.
type script []uint64

func (s *script) Uint64() uint64 {
	n := (*s)[0]
	*s = (*s)[1:]
	return n
}

func TestBelowRejects(t *testing.T) {
	for _, c := range []struct {
		name   string
		n      uint64
		source script
		want   uint64
	}{
		{"one", 1, script{12345}, 0},
		{"power of two: the top bits", 8, script{5 << 61}, 5},
		{"power of two: never again", 8, script{0}, 0},
		{"2^64 mod 3 = 1: zero is one too many", 3, script{0, math.MaxUint64}, 2},
		{"2^64 mod 3 = 1: one is not", 3, script{1}, 0},
		{"just above half: every second", 1<<63 + 1, script{0, 2, 3}, 1},
		{"largest", math.MaxUint64, script{0, math.MaxUint64}, math.MaxUint64 - 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := c.source
			if got := NewSampler(&source).below(c.n); got != c.want || len(source) != 0 {
				t.Errorf("%d with %d numbers left, want %d with none", got, len(source), c.want)
			}
		})
	}
}

func TestUpTo(t *testing.T) {
	for _, c := range []struct {
		name   string
		last   uint128
		source script
		want   uint128
	}{
		{"nothing to choose", uint128{}, script{7}, uint128{}},
		{"all of 64 bits", uint128{0, math.MaxUint64}, script{7}, uint128{0, 7}},
		{"65 bits", uint128{1, math.MaxUint64}, script{7, 9}, uint128{1, 7}},
		{"one more than 64 bits", uint128{1, 0}, script{7, 1, 8, 2}, uint128{0, 8}},
		{"all", ones(128), script{math.MaxUint64, math.MaxUint64}, ones(128)},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := c.source
			if got := NewSampler(&source).upTo(c.last); got != c.want || len(source) != 0 {
				t.Errorf("%v with %d numbers left, want %v with none", got, len(source), c.want)
			}
		})
	}
}

func TestUpToIsUniform(t *testing.T) {
	for _, c := range []struct {
		name  string
		last  uint128
		cells int
		cell  func(uint128) int
	}{
		{"0 to 6", uint128{0, 6}, 7, func(n uint128) int { return int(n.lo) }},
		{"high words 0 to 2", uint128{2, math.MaxUint64}, 3, func(n uint128) int { return int(n.hi) }},
		{"thirds of 3 * 2^120", uint128{3 << 56, 0}.previous(), 3, func(n uint128) int { return int(n.hi >> 56) }},
		{"low bits of ::/0", ones(128), 64, func(n uint128) int { return int(n.lo % 64) }},
		{"high bits of ::/0", ones(128), 64, func(n uint128) int { return int(n.hi >> 58) }},
	} {
		s := NewSampler(rand.NewPCG(1, 2))
		counts := make([]int, c.cells)
		for range 1000 * c.cells {
			counts[c.cell(s.upTo(c.last))]++
		}
		uniform(t, c.name, counts)
	}
}

// TestScratch holds the scratch table to a map, over many generations.
func TestScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var table scratch
		for range rapid.IntRange(1, 3).Draw(t, "generations") {
			if table.reset(); rapid.Bool().Draw(t, "wrap") {
				table.generation = math.MaxUint32
				table.reset()
			}
			type key struct {
				owner uint32
				key   uint128
			}
			want := map[key]uint128{}
			for range rapid.IntRange(0, 100).Draw(t, "steps") {
				k := key{rapid.Uint32Range(0, 3).Draw(t, "owner"), uint128{
					rapid.Uint64Range(0, 1).Draw(t, "hi"), rapid.Uint64Range(0, 40).Draw(t, "lo"),
				}}
				value, known := table.get(k.owner, k.key)
				if was, ok := want[k]; ok != known || ok && was != value {
					t.Fatalf("%v: %v %v, want %v %v", k, value, known, was, ok)
				}
				slot, fresh := table.slot(k.owner, k.key)
				if fresh == known || fresh && *slot != (uint128{}) {
					t.Fatalf("%v: fresh %v with %v", k, fresh, *slot)
				}
				*slot = drawNumber(t, "value")
				want[k] = *slot
			}
		}
	})
}

// TestPermuted draws whole permutations of 4, each of which must be equally
// likely.
func TestPermuted(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	seen := cells[[4]uint64]{}
	for range 24 * 500 {
		s.scratch.reset()
		var order [4]uint64
		for i := range order {
			order[i] = s.permuted(ownMembers, uint128{0, uint64(i)}, uint128{0, 3}).lo
		}
		seen[order]++
	}
	if len(seen) != 24 {
		t.Errorf("%d different results, want the 24 permutations", len(seen))
	}
	uniform(t, "permutations", seen.counts(24))
}
