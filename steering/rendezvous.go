package steering

import (
	"cmp"
	"net/netip"
	"slices"
)

// Hash appends up to k distinct addresses to dst, chosen by the client's subnet,
// and returns the longer slice; the form is that of Draw. The same subnet gets
// the same answer from the same pool on every machine and in every version.
//
// Every pair of a subnet and a member has a weight, and the members with the
// highest weights answer, the highest first (rendezvous hashing: Thaler and
// Ravishankar, Using Name-Based Mappings to Increase Hit Rates, IEEE/ACM
// Transactions on Networking 6, 1998). So subnets spread evenly over members, a
// new member takes its share evenly from all others, and only the subnets of a
// member that goes are moved. The address out of a prefix is fixed by subnet and
// prefix; until the skip list takes most of the prefix it changes only when that
// very address is taken, or one that it stood in for is brought back.
//
// The family of the subnet need not be that of the pool. Its address and family
// count, its length does not; make it with [ClientSubnet]. An invalid subnet is
// one like any other.
//
// It takes about a nanosecond a member, and allocates only for k above 16 and
// for pools whose members overlap.
func (p *Pool) Hash(dst []byte, k int, subnet netip.Prefix) []byte {
	return p.hash(dst, k, hashSubnet(subnet))
}

// hash is Hash for the hash of a subnet, or of whatever else stands for a client.
func (p *Pool) hash(dst []byte, k int, key uint64) []byte {
	n := p.Len()
	if k <= 0 || n == 0 {
		return dst
	}
	hashes := p.memberHashes()
	switch {
	case k == 1:
		return p.appendHashed(dst, heaviest(hashes, key), key)
	case k <= n && k <= fewRanked && !p.overlaps:
		var few [fewRanked]ranked
		for _, r := range rankFew(few[:k], hashes, key) {
			dst = p.appendHashed(dst, r.member, key)
		}
		return dst
	default:
		return p.hashMany(dst, k, key)
	}
}

// fewRanked is the number of addresses up to which the best members are kept by
// insertion.
const fewRanked = 16

// ranked is a member and its weight for some subnet.
type ranked struct {
	weight uint64
	member int
}

// heaviest returns the index of the highest weight, the first of equals.
func heaviest(hashes []uint64, key uint64) int {
	best, top := 0, uint64(0)
	for i, h := range hashes {
		if w := weight(h, key); w > top {
			best, top = i, w
		}
	}
	return best
}

// rankFew fills best with the highest weights in descending order, the first
// of equals before the others. There are at least as many hashes.
func rankFew(best []ranked, hashes []uint64, key uint64) []ranked {
	n := 0
	for i, h := range hashes {
		w := weight(h, key)
		if n < len(best) {
			n++
		} else if w <= best[n-1].weight {
			continue
		}
		j := n - 1
		for ; j > 0 && best[j-1].weight < w; j-- {
			best[j] = best[j-1]
		}
		best[j] = ranked{w, i}
	}
	return best
}

// rankAll returns all members by descending weight, the first of equals before
// the others.
func rankAll(hashes []uint64, key uint64) []ranked {
	all := make([]ranked, len(hashes))
	for i, h := range hashes {
		all[i] = ranked{weight(h, key), i}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		if c := cmp.Compare(b.weight, a.weight); c != 0 {
			return c
		}
		return a.member - b.member
	})
	return all
}

// memberHashes returns the hashes of the members, computed when first needed.
func (p *Pool) memberHashes() []uint64 {
	p.hashesOnce.Do(func() {
		f := p.addresses.family
		p.hashes = make([]uint64, 0, p.Len())
		for i := range p.addresses.len() {
			p.hashes = append(p.hashes, hashMember(f, p.addresses.at(i), f.bits()))
		}
		for _, m := range p.prefixes {
			p.hashes = append(p.hashes, hashMember(f, m.first, int(m.bits)))
		}
	})
	return p.hashes
}

// appendHashed appends the address of a member.
func (p *Pool) appendHashed(dst []byte, member int, key uint64) []byte {
	i := member - p.addresses.len()
	if i < 0 {
		return p.addresses.appendTo(dst, member)
	}
	a, _ := p.hashedAddress(i, key, 0, nil)
	return a.appendWire(dst, p.addresses.family)
}

// hashMany is Hash where an address might come twice or every member is needed.
// Like Draw it goes through all members once, and then through the prefixes
// again and again until they have no more.
func (p *Pool) hashMany(dst []byte, k int, key uint64) []byte {
	live := rankAll(p.memberHashes(), key)
	used := make(map[uint128]struct{})
	for round := uint64(0); len(live) > 0 && len(used) < k; round++ {
		live = slices.DeleteFunc(live, func(r ranked) bool {
			if len(used) == k {
				return false
			}
			var a uint128
			found := round == 0
			if i := r.member - p.addresses.len(); i >= 0 {
				a, found = p.hashedAddress(i, key, round, used)
			} else if found {
				a = p.addresses.at(r.member)
				_, double := used[a]
				found = !double
			}
			if found {
				used[a] = struct{}{}
				dst = a.appendWire(dst, p.addresses.family)
			}
			return !found
		})
	}
	return dst
}

// candidates is the number of addresses of a prefix that are tried in a round
// before the choice is made among those that are left. Until then an address
// that comes or goes elsewhere in the prefix moves nothing.
const candidates = 16

// hashedAddress returns the address that prefix i has for a subnet in a round,
// one that is left and not used yet, and false if there is none.
func (p *Pool) hashedAddress(i int, key, round uint64, used map[uint128]struct{}) (uint128, bool) {
	m := &p.prefixes[i]
	host := m.last(p.addresses.family).sub(m.first)
	skipped := p.skipped[m.lo:m.hi]
	// Not from the weight: it is high, for else the member had not been chosen.
	seed := fold(p.hashes[p.addresses.len()+i]^mixB, key^mixE)
	var h uint128
	for c := round * candidates; c < (round+1)*candidates; c++ {
		h = uint128{fold(fold(seed^c, mixA), mixC), fold(fold(seed^c, mixB), mixD)}
		a := m.first.or(h.and(host))
		if _, double := used[a]; !double && !skipped.contains(a) {
			return a, true
		}
	}
	// Most of the prefix is skipped or used. Of the next few that are left one
	// more than are used at least one is not.
	rank := h.scale(m.lastFree)
	for range len(used) + 1 {
		a := p.free(i, rank)
		if _, double := used[a]; !double {
			return a, true
		}
		if rank == m.lastFree {
			rank = uint128{}
		} else {
			rank = rank.next()
		}
	}
	return uint128{}, false
}
