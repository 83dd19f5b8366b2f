package steering

import "net/netip"

// The lengths of a client's subnet at most: what hashing tells apart, and the
// scope prefix-length of the answer (RFC 7871 section 7.2.1).
const (
	subnetBits4 = 24
	subnetBits6 = 48
)

// ClientSubnet returns the subnet that stands for the client a: its first bits,
// at most 24 for IPv4 and 48 for IPv6. Bits is the source prefix-length of EDNS
// client subnet (RFC 7871 section 6), or anything large for a plain address;
// less than 0 counts as 0. The zero Addr gives the zero Prefix.
//
// An IPv4-mapped IPv6 address is the IPv4 address in it; bits from 96 on then
// count from the start of the IPv6 address, as they do in an option of that
// family.
func ClientSubnet(a netip.Addr, bits int) netip.Prefix {
	limit := subnetBits6
	if a.Is4In6() && bits >= 96 {
		bits -= 96
	}
	if a = a.Unmap(); a.Is4() {
		limit = subnetBits4
	}
	p, _ := a.Prefix(min(max(bits, 0), limit)) // no error: the length fits, and zero gives zero
	return p
}
