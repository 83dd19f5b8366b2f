package steering

import (
	"cmp"
	"fmt"
)

// PlanNumber is the place of a plan in the order of all plans of a site. Term is
// that of the gateway that decided, larger for each one that comes to decide (an
// index of the lock that makes it the decider), and Sequence counts its plans.
// The zero value is before all plans.
type PlanNumber struct {
	Term     uint64 `json:"term"`
	Sequence uint64 `json:"sequence"`
}

// Compare is negative if n is before m, positive if it is after, 0 if it is the same.
func (n PlanNumber) Compare(m PlanNumber) int {
	return cmp.Or(cmp.Compare(n.Term, m.Term), cmp.Compare(n.Sequence, m.Sequence))
}

// Follows tells whether n is the next plan after m, with none missed. A plan that
// is made of the table before it is the same on mates only if it follows: who
// missed one copies the decider's rows instead.
func (n PlanNumber) Follows(m PlanNumber) bool {
	return n.Term == m.Term && n.Sequence == m.Sequence+1 && n.Sequence != 0
}

// String is "term.sequence".
func (n PlanNumber) String() string { return fmt.Sprintf("%d.%d", n.Term, n.Sequence) }

// Advance makes n the number of a plan that is to be applied, unless it is not after
// n: an old plan that comes late, or one of a decider that has a successor, undoes
// what was decided since.
func (n *PlanNumber) Advance(to PlanNumber) error {
	if to.Compare(*n) <= 0 {
		return fmt.Errorf("plan %v is not after plan %v", to, *n)
	}
	*n = to
	return nil
}
