package upstreams

import (
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Skip lists, blackholes and states keep addresses from being answered. What else
// is lost comes back by and by during a hold, and what is there counts; of these
// nothing is given up before all of it is back, so that no order of putting lists
// back answers an attacked address.

// guarded are the prefixes that a skip list or blackhole keeps from being answered.
func (v *value) guarded() map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	if v == nil {
		return out
	}
	if v.skip != nil {
		for p := range v.skip.Entries() {
			out[p] = true
		}
	}
	for _, b := range v.blackholes {
		out[b.Prefix] = true
	}
	return out
}

// guardsMore tells whether a value keeps something from being answered that its
// successor, which may be nil, does not.
func (v *value) guardsMore(next *value, now time.Time) bool {
	switch {
	case v.skip != nil:
		there := next.guarded()
		for p := range v.skip.Entries() {
			if !there[p] {
				return true
			}
		}
		return false
	case v.blackholes != nil:
		there := next.guarded()
		return slices.ContainsFunc(v.blackholes, func(b blackholed) bool { return b.inForce(now) && !there[b.Prefix] })
	}
	return next == nil && v.state != Active
}

// withGuards is a skip list or blackhole together with what is there now, which
// counts where both have an entry.
func (v *value) withGuards(f steering.Family, now *value) *value {
	if v.skip != nil {
		return &value{skip: steering.NewSkipList(f, slices.AppendSeq(slices.Collect(v.skip.Entries()), now.skip.Entries()))}
	}
	there := now.guarded()
	kept := slices.DeleteFunc(slices.Clone(v.blackholes), func(b blackholed) bool { return there[b.Prefix] })
	return &value{blackholes: sortBlackholes(append(kept, now.blackholes...))}
}

// withoutGuards is a skip list or blackhole without what an edit removed: what was
// there, and is no longer.
func (v *value) withoutGuards(f steering.Family, was, is map[netip.Prefix]bool) *value {
	gone := func(p netip.Prefix) bool { return was[p] && !is[p] }
	if v.skip != nil {
		return &value{skip: steering.NewSkipList(f, slices.DeleteFunc(slices.Collect(v.skip.Entries()), gone))}
	}
	return &value{blackholes: slices.DeleteFunc(slices.Clone(v.blackholes), func(b blackholed) bool { return gone(b.Prefix) })}
}
