package steering

import (
	"math/bits"
	"math/rand/v2"
)

// Sampler couples a source of randomness with the scratch memory of a draw, so
// that drawing allocates nothing once the scratch has grown to the largest
// answer. It is not safe for concurrent use: one per goroutine. The zero value
// has no source and cannot draw.
//
// How hard its numbers are to predict is the source's affair: answers that
// nobody should guess want a rand.ChaCha8 with a secret seed.
type Sampler struct {
	src     rand.Source
	scratch scratch
	live    []uint32
}

// NewSampler returns a Sampler that draws from src. Src must give 64 random
// bits at a time: bounded numbers are made by rejection, which never ends on a
// source that is stuck.
func NewSampler(src rand.Source) *Sampler {
	return &Sampler{src: src}
}

// below returns a number from 0 to n-1, each exactly as likely; n is not 0.
// Lemire, Fast Random Integer Generation in an Interval, ACM TOMACS 29 (2019).
func (s *Sampler) below(n uint64) uint64 {
	hi, lo := bits.Mul64(s.src.Uint64(), n)
	if lo < n {
		// 2^64 mod n of the products are one too many for an even share.
		for surplus := -n % n; lo < surplus; {
			hi, lo = bits.Mul64(s.src.Uint64(), n)
		}
	}
	return hi
}

// upTo returns a number from 0 to last, each exactly as likely.
func (s *Sampler) upTo(last uint128) uint128 {
	if n := last.lo + 1; last.hi == 0 && n != 0 {
		return uint128{0, s.below(n)}
	}
	// Prefixes hold a power of two of addresses, so the mask alone is exact and
	// the first number fits, unless the skip list took some away.
	mask := ones(last.bitLen())
	for {
		r := uint128{0, s.src.Uint64()}
		if mask.hi != 0 {
			r.hi = s.src.Uint64() & mask.hi
		}
		if !last.less(r) {
			return r
		}
	}
}

// The keys of the scratch memory beside the ranks of a prefix member, whose
// owner is the number of that member.
const (
	ownMembers   = ^uint32(0) - iota // the order of the members: position to member
	ownCounts                        // prefix member to how many were drawn from it
	ownAddresses                     // the addresses that are in the answer
)

// permuted returns the value at position i of a random permutation of the
// numbers from 0 to last that belongs to owner, given that it was asked for the
// positions before i already. It is a Fisher-Yates shuffle that remembers only
// the positions that differ from where they began.
func (s *Sampler) permuted(owner uint32, i, last uint128) uint128 {
	j := i.add(s.upTo(last.sub(i)))
	moved := i
	if e, ok := s.scratch.get(owner, i); ok {
		moved = e
	}
	slot, fresh := s.scratch.slot(owner, j)
	chosen := *slot
	if fresh {
		chosen = j
	}
	*slot = moved
	return chosen
}

// shuffle puts n things into random order by swapping them.
func (s *Sampler) shuffle(n int, swap func(i, j int)) {
	for ; n > 1; n-- {
		swap(n-1, int(s.below(uint64(n))))
	}
}

// shuffleOctets puts the records of width octets, at most 16, into random order.
func (s *Sampler) shuffleOctets(b []byte, width int) {
	s.shuffle(len(b)/width, func(i, j int) {
		var tmp [16]byte
		copy(tmp[:width], b[i*width:])
		copy(b[i*width:(i+1)*width], b[j*width:])
		copy(b[j*width:(j+1)*width], tmp[:width])
	})
}
