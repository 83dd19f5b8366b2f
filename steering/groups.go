package steering

import (
	"net/netip"
	"slices"
)

// Groups is the set of named groups of a route that answers by
// group_consistent_hash: the client's subnet chooses the group, whose pools then
// answer at random. It is immutable and safe for concurrent use; nil and the
// zero value have no group.
type Groups struct {
	names  []string
	hashes []uint64
}

// NewGroups returns the groups of the given names, in any order. The text of a
// name is kept as it is, duplicates are merged.
func NewGroups(names []string) *Groups {
	names = slices.Clone(names)
	slices.Sort(names)
	g := &Groups{names: slices.Clip(slices.Compact(names))}
	for _, name := range g.names {
		g.hashes = append(g.hashes, hashString(name))
	}
	return g
}

// Names returns the names, sorted bytewise. The caller must not change them.
func (g *Groups) Names() []string {
	if g == nil {
		return nil
	}
	return g.names
}

// Pick returns the index of the group for a client's subnet among those that
// are eligible, -1 if none is; with a nil function all are. A group that becomes
// ineligible hands its subnets to the others evenly, and no others move. The
// choice is that of [Pool.Hash], with the same promises.
func (g *Groups) Pick(subnet netip.Prefix, eligible func(i int) bool) int {
	best, top := -1, uint64(0)
	if g == nil {
		return best
	}
	key := hashSubnet(subnet)
	for i, h := range g.hashes {
		w := weight(h, key)
		if (best < 0 || w > top) && (eligible == nil || eligible(i)) {
			best, top = i, w
		}
	}
	return best
}

// PickLegacy is Pick with the formula of pdns-razor 0.5, that of
// [Pool.HashLegacy]: an index into all groups. If that group is not eligible, the
// next one in order is taken, from the last to the first.
func (g *Groups) PickLegacy(subnet netip.Prefix, eligible func(i int) bool) int {
	n := len(g.Names())
	if n == 0 {
		return -1
	}
	first := legacyIndex(subnet, n)
	for i := range n {
		if j := (first + i) % n; eligible == nil || eligible(j) {
			return j
		}
	}
	return -1
}
