package steering

import "slices"

// Draw appends up to k distinct addresses to dst, drawn at random with s, and
// returns the longer slice. Each takes 4 or 16 octets in network order, as in
// RDATA.
//
// Every member is equally likely, a prefix counting as one, and is drawn once
// before any is drawn again; of a prefix every address that the skip list leaves
// is equally likely. When k exceeds the members, further rounds draw more
// addresses from the prefixes. There are fewer than k only when fewer exist. The
// order within an answer is random too, since many clients take the first.
//
// It takes O(k), whatever the size of the pool, times the logarithm of the skip
// list where that bites into prefixes, and allocates nothing once dst and s have
// grown to what k needs. Members that lie within others cost a little more: an
// address that several members can give is tried once for each of them.
func (p *Pool) Draw(dst []byte, k int, s *Sampler) []byte {
	n := p.Len()
	if k <= 0 || n == 0 {
		return dst
	}
	if k == 1 || k <= fewDrawn && k <= n/2 && !p.overlaps {
		return p.drawFew(dst, k, n, s)
	}
	start := len(dst)
	a := newAnswer(p, dst, k, s)
	for i, last := uint64(0), uint64(n-1); i <= last && a.missing > 0; i++ {
		a.take(uint32(s.permuted(ownMembers, uint128{0, i}, uint128{0, last}).lo))
	}
	if a.missing > 0 {
		a.refill(p.appendPrefixes(s.live[:0]), true)
	}
	if p.overlaps || k > n {
		// The members come in random order, but what is left to draw from one
		// depends on those before it.
		s.shuffleOctets(a.dst[start:], p.addresses.family.Octets())
	}
	return a.dst
}

// fewDrawn is the number of addresses up to which it is faster to compare with
// the members that were drawn already than to look them up.
const fewDrawn = 8

// drawFew is Draw of k members out of n, at most half of them and none of which
// can give the address of another. A member that was drawn before is drawn again
// by a new number, which is exact, and for most pools a branch that the processor
// predicts.
func (p *Pool) drawFew(dst []byte, k, n int, s *Sampler) []byte {
	var buffer [fewDrawn]int
	for drawn := buffer[:0]; len(drawn) < k; {
		member := int(s.below(uint64(n)))
		if slices.Contains(drawn, member) {
			continue
		}
		drawn = append(drawn, member)
		if i := member - p.addresses.len(); i < 0 {
			dst = p.addresses.appendTo(dst, member)
		} else {
			dst = p.free(i, s.upTo(p.prefixes[i].lastFree)).appendWire(dst, p.addresses.family)
		}
	}
	return dst
}

// appendPrefixes appends the numbers of the prefix members.
func (p *Pool) appendPrefixes(dst []uint32) []uint32 {
	for i := range p.prefixes {
		dst = append(dst, uint32(p.addresses.len()+i))
	}
	return dst
}

// answer is an answer in the making with random addresses out of prefixes.
type answer struct {
	pool    *Pool
	sampler *Sampler
	dst     []byte
	missing int
	again   bool // a prefix may be drawn from more than once
}

func newAnswer(p *Pool, dst []byte, k int, s *Sampler) answer {
	s.scratch.reset()
	return answer{pool: p, sampler: s, dst: dst, missing: k, again: p.overlaps || k > p.Len()}
}

// take adds an address of the given member, and reports whether it had one that
// was not in the answer yet.
func (a *answer) take(member uint32) bool {
	p := a.pool
	i := int(member) - p.addresses.len()
	if i < 0 {
		if p.overlaps && a.has(p.addresses.at(int(member))) {
			return false
		}
		a.dst = p.addresses.appendTo(a.dst, int(member))
		a.missing--
		return true
	}
	last := p.prefixes[i].lastFree
	if !a.again {
		a.add(p.free(i, a.sampler.upTo(last)))
		return true
	}
	// What is drawn from a prefix is a random permutation of its addresses, so
	// that none comes twice, and one that another member gave already is passed
	// over once and for all.
	for {
		count, _ := a.sampler.scratch.slot(ownCounts, uint128{0, uint64(i)})
		drawn := *count
		if last.less(drawn) {
			return false
		}
		*count = drawn.next()
		address := p.free(i, a.sampler.permuted(uint32(i), drawn, last))
		if !p.overlaps || !a.has(address) {
			a.add(address)
			return true
		}
	}
}

// has reports whether an address is in the answer, and remembers it from now
// on.
func (a *answer) has(address uint128) bool {
	_, fresh := a.sampler.scratch.slot(ownAddresses, address)
	return !fresh
}

func (a *answer) add(address uint128) {
	a.dst = address.appendWire(a.dst, a.pool.addresses.family)
	a.missing--
}

// refill fills the answer up from the given members, an address of each in turn
// until they have no more; each turn in a new random order, if so wished. It
// uses up live, which becomes the sampler's.
func (a *answer) refill(live []uint32, random bool) {
	a.sampler.live = live
	for len(live) > 0 && a.missing > 0 {
		if random {
			a.sampler.shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
		}
		live = slices.DeleteFunc(live, func(m uint32) bool {
			return a.missing > 0 && !a.take(m)
		})
	}
}
