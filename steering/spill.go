package steering

import "math"

// spillStep is the constant of Rank. Both it and its inverse (25,301) are to
// TableSlots in a ratio whose continued fraction has no part above 3, near the
// golden one: that is what spreads the ranks.
const spillStep = 40507

// Rank is the place of a slot in the order in which the slots of a table spill: a
// permutation, as a multiplication by anything but 0 modulo a prime is one. The
// slots below a rank are multiples of one number modulo TableSlots, which lie
// as evenly as can be: the gaps between neighbours have at most three lengths (the
// three-distance theorem, Sós 1958), of which the longest is at most five times
// the shortest as long as the parts of the continued fraction are 3 and less. So
// whatever backends slots belong to, each gives up about the same share. The
// order never changes: gateways that spill the same share spill the same slots.
func Rank(slot uint32) uint32 {
	return uint32(uint64(slot) * spillStep % TableSlots)
}

// Spill is how many slots of a service send their new flows to another site.
type Spill struct {
	Site  string
	Slots uint32
}

// SpillSlots is a share from 0 to 1 in slots, to the nearest. What is below or not
// a number is 0, what is above is all.
func SpillSlots(share float64) uint32 {
	if !(share > 0) {
		return 0
	}
	return uint32(math.Round(min(share, 1) * TableSlots))
}

// Spills are the sites that a service spills to, which share the ranks one behind
// the other: the first has those from 0, the next one those from where it ends. A
// site whose share rises takes slots, and gives them back in reverse order when it
// falls. It moves the sites behind it along, so that the one whose share changes
// most often is best the last. What is above TableSlots together is not heeded.
type Spills []Spill

// Site is the site that gets the new flows of a slot; false is this one.
func (s Spills) Site(slot uint32) (string, bool) {
	rank := uint64(Rank(slot))
	end := uint64(0)
	for _, to := range s {
		end += uint64(to.Slots)
		if rank < end {
			return to.Site, true
		}
	}
	return "", false
}
