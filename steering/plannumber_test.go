package steering

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPlanNumber(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		at, to  PlanNumber
		follows bool
		err     string
	}{
		{PlanNumber{}, PlanNumber{0, 1}, true, ""},
		{PlanNumber{}, PlanNumber{}, false, "plan 0.0 is not after plan 0.0"},
		{PlanNumber{7, 1}, PlanNumber{7, 2}, true, ""},
		{PlanNumber{7, 1}, PlanNumber{7, 3}, false, ""},
		{PlanNumber{7, 3}, PlanNumber{7, 3}, false, "plan 7.3 is not after plan 7.3"},
		{PlanNumber{7, 3}, PlanNumber{7, 2}, false, "plan 7.2 is not after plan 7.3"},
		{PlanNumber{7, 3}, PlanNumber{8, 1}, false, ""},
		{PlanNumber{8, 1}, PlanNumber{7, 4}, false, "plan 7.4 is not after plan 8.1"},
		{PlanNumber{8, 1}, PlanNumber{7, 2}, false, "plan 7.2 is not after plan 8.1"},
		{PlanNumber{8, ^uint64(0)}, PlanNumber{8, 0}, false, "plan 8.0 is not after plan 8.18446744073709551615"},
	} {
		if got := tt.to.Follows(tt.at); got != tt.follows {
			t.Errorf("%v follows %v: %v", tt.to, tt.at, got)
		}
		at, want := tt.at, tt.to
		err := at.Advance(tt.to)
		if tt.err == "" && (err != nil || at != want) {
			t.Errorf("%v to %v: at %v, %v", tt.at, tt.to, at, err)
		}
		if tt.err != "" && (err == nil || err.Error() != tt.err || at != tt.at) {
			t.Errorf("%v to %v: at %v, %v", tt.at, tt.to, at, err)
		}
	}
}

// In whatever order plans come, the last one applied is the latest of them.
func TestPlanNumberEndsAtTheLatest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var at, latest PlanNumber
		for range rapid.IntRange(1, 20).Draw(t, "plans") {
			n := PlanNumber{rapid.Uint64Range(0, 3).Draw(t, "term"), rapid.Uint64Range(0, 3).Draw(t, "sequence")}
			if n.Term > latest.Term || n.Term == latest.Term && n.Sequence > latest.Sequence {
				latest = n
			}
			before := at
			if err := at.Advance(n); (err == nil) != (at != before) {
				t.Fatalf("%v to %v: %v", before, at, err)
			}
			if at != latest {
				t.Fatalf("at %v, want %v", at, latest)
			}
		}
	})
}
