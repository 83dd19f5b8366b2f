package steering

import "net/netip"

// Family is the address family of a pool: IPv4 for A records, IPv6 for AAAA.
// The zero value is IPv4.
type Family uint8

// The two families.
const (
	IPv4 Family = iota
	IPv6
)

// FamilyOf returns the family of a. An IPv4-mapped IPv6 address counts as IPv6:
// unmap it first where it stands for an IPv4 address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Octets returns the length of an address in RDATA: 4 (RFC 1035 section 3.4.1)
// or 16 (RFC 3596 section 2.2).
func (f Family) Octets() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// bits returns the prefix length of a single address.
func (f Family) bits() int { return f.Octets() * 8 }
