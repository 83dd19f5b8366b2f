package steering

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// uint128 is an address of either family as a number (an IPv4 address in the
// low 32 bits), a rank among addresses, or a count of addresses. It wraps like
// Go's own unsigned integers.
//
// The number of addresses in ::/0 is one too large for it. Code that needs the
// size of a set therefore carries the index of the set's last address instead.
type uint128 struct{ hi, lo uint64 }

func (a uint128) add(b uint128) uint128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return uint128{hi, lo}
}

func (a uint128) sub(b uint128) uint128 {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return uint128{hi, lo}
}

func (a uint128) next() uint128     { return a.add(uint128{0, 1}) }
func (a uint128) previous() uint128 { return a.sub(uint128{0, 1}) }

func (a uint128) or(b uint128) uint128  { return uint128{a.hi | b.hi, a.lo | b.lo} }
func (a uint128) and(b uint128) uint128 { return uint128{a.hi & b.hi, a.lo & b.lo} }

func (a uint128) less(b uint128) bool {
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

func (a uint128) compare(b uint128) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

// ones returns the number whose lowest n bits are set; n is 0 to 128.
func ones(n int) uint128 {
	if n > 64 {
		return uint128{math.MaxUint64 >> (128 - n), math.MaxUint64}
	}
	return uint128{0, math.MaxUint64 >> (64 - n)}
}

// bitLen returns the number of bits that a needs, 0 for zero.
func (a uint128) bitLen() int {
	if a.hi != 0 {
		return 64 + bits.Len64(a.hi)
	}
	return bits.Len64(a.lo)
}

// scale maps a, taken as a fraction of 2^128, to the same fraction of the
// numbers from 0 to last: floor(a * (last+1) / 2^128).
func (a uint128) scale(last uint128) uint128 {
	if last == ones(128) {
		return a
	}
	n := last.next()
	hh, hl := bits.Mul64(a.hi, n.hi)
	m1h, m1l := bits.Mul64(a.hi, n.lo)
	m2h, m2l := bits.Mul64(a.lo, n.hi)
	low, _ := bits.Mul64(a.lo, n.lo)
	mid, c1 := bits.Add64(m1l, m2l, 0)
	_, c2 := bits.Add64(mid, low, 0)
	return uint128{hh, hl}.
		add(uint128{0, m1h}).
		add(uint128{0, m2h}).
		add(uint128{0, c1 + c2})
}

// numberOf returns a as a number.
func numberOf(a netip.Addr) uint128 {
	if a.Is4() {
		b := a.As4()
		return uint128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr returns the address of family f with the number a.
func (a uint128) addr(f Family) netip.Addr {
	if f == IPv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

// appendWire appends the address with the number a as it stands in RDATA.
func (a uint128) appendWire(dst []byte, f Family) []byte {
	if f == IPv4 {
		return binary.BigEndian.AppendUint32(dst, uint32(a.lo))
	}
	dst = binary.BigEndian.AppendUint64(dst, a.hi)
	return binary.BigEndian.AppendUint64(dst, a.lo)
}
