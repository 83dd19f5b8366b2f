package steering

import (
	"math"
	"testing"
)

// uniform fails the test when counts could come from equally likely cells with a
// probability of less than one in a million. The critical value of chi-square is
// that of Wilson and Hilferty, The Distribution of Chi-Square, PNAS 17 (1931).
func uniform(t *testing.T, what string, counts []int) {
	t.Helper()
	const z = 4.753424 // the normal distribution leaves 1e-6 behind it
	total := 0
	for _, n := range counts {
		total += n
	}
	mean := float64(total) / float64(len(counts))
	if mean < 20 {
		t.Fatalf("%s: %.1f a cell say nothing", what, mean)
	}
	square := 0.0
	for _, n := range counts {
		square += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	freedom := float64(len(counts) - 1)
	v := 2 / (9 * freedom)
	if critical := freedom * math.Pow(1-v+z*math.Sqrt(v), 3); square > critical {
		t.Errorf("%s: chi-square %.1f exceeds %.1f of %d cells with mean %.1f", what, square, critical, len(counts), mean)
	}
}

// cells counts how often each thing came.
type cells[K comparable] map[K]int

// counts returns the counts, with a zero for each of n cells that never came.
func (c cells[K]) counts(n int) []int {
	out := make([]int, 0, n)
	for _, count := range c {
		out = append(out, count)
	}
	for len(out) < n {
		out = append(out, 0)
	}
	return out
}
