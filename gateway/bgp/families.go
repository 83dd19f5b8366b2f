package bgp

import "github.com/razor-steering/razor/steering"

// Address families and the subsequent one that is spoken here (RFC 4760 §6).
const (
	afiIPv4     = 1
	afiIPv6     = 2
	safiUnicast = 1
)

// families says for each steering.Family whether it is meant: unicast routes of
// it, always.
type families [2]bool

// any tells whether there is a family at all.
func (f families) any() bool { return f != families{} }

// both are the families of f that o has too.
func (f families) both(o families) families {
	return families{f[steering.IPv4] && o[steering.IPv4], f[steering.IPv6] && o[steering.IPv6]}
}

// familyOf is the family that a pair of numbers in a message stands for, if it is
// one of ours.
func familyOf(afi uint16, safi uint8) (steering.Family, bool) {
	if safi != safiUnicast || afi != afiIPv4 && afi != afiIPv6 {
		return 0, false
	}
	return steering.Family(afi - afiIPv4), true
}

// afiOf is the number of a family in messages.
func afiOf(f steering.Family) uint16 { return uint16(f) + afiIPv4 }
