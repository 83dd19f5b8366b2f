package steering

import "net/netip"

// Shard returns the pool of n addresses that name has of p: fewer where there are
// no more, and p itself where n is not positive. The choice is that of [Pool.Hash]
// with the name in the place of the client's subnet, an address out of every
// prefix that is chosen. So a name keeps its addresses as long as they are there,
// and an address that goes moves only the names that had it (shuffle sharding:
// names that share all n addresses are few, so an attack on one name's addresses
// takes few others with it).
func (p *Pool) Shard(n int, name string) *Pool {
	if n <= 0 || p.Len() == 0 {
		return p
	}
	f := p.Family()
	rdata := p.hash(nil, n, hashString(name))
	members := make([]netip.Prefix, 0, n)
	for ; len(rdata) > 0; rdata = rdata[f.Octets():] {
		a, _ := netip.AddrFromSlice(rdata[:f.Octets()])
		members = append(members, netip.PrefixFrom(a, f.bits()))
	}
	return NewPool(f, members)
}
