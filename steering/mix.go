package steering

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// The constants of the hash: the first 64 bits of the fractional parts of the
// square roots of 3, 5, 7, 11, 13 and 17 (as in FIPS 180-4 section 5.3.5), that
// is, numbers that hide nothing. Every edge must give the same answer to the
// same client, so that neither they nor the functions of this file ever change.
const (
	mixA = 0xbb67ae8584caa73b
	mixB = 0x3c6ef372fe94f82b
	mixC = 0xa54ff53a5f1d36f1
	mixD = 0x510e527fade682d1
	mixE = 0x9b05688c2b3e6c1f
)

// fold multiplies two words and folds the product of 128 bits into one word,
// which mixes every bit of either into all others at the price of one multiply.
func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hashNumber hashes a number of 128 bits under a tag that keeps different kinds
// of numbers apart.
func hashNumber(n uint128, tag uint64) uint64 {
	h := fold(tag^mixA, mixB)
	h = fold(h^n.hi, mixC)
	h = fold(h^n.lo, mixD)
	return fold(h^mixE, mixA)
}

// hashString hashes s.
func hashString(s string) uint64 {
	h := fold(uint64(len(s))^mixA, mixE)
	for len(s) > 0 {
		var word [8]byte
		n := copy(word[:], s)
		h = fold(h^binary.LittleEndian.Uint64(word[:]), mixC)
		s = s[n:]
	}
	return fold(fold(h^mixB, mixD)^mixE, mixA)
}

// hashMember hashes a member of a pool.
func hashMember(f Family, first uint128, bits int) uint64 {
	return hashNumber(first, uint64(f)<<8|uint64(bits))
}

// hashSubnet hashes the address and the family of a client's subnet. The length
// has no part in it.
func hashSubnet(subnet netip.Prefix) uint64 {
	a := subnet.Masked().Addr()
	return hashNumber(numberOf(a), 0x10000|uint64(FamilyOf(a)))
}

// weight is the weight of a candidate with hash h for a client's subnet with
// hash key: as good as independent of the weights of all other pairs. The key
// goes in twice, so that candidates and keys with a common difference do not
// meet in a common pattern.
func weight(h, key uint64) uint64 {
	return fold(fold(h^key, mixC)^key, mixD)
}
