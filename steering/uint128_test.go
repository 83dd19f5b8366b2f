package steering

import (
	"math"
	"math/big"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// bigOf is the model of a uint128.
func bigOf(a uint128) *big.Int {
	b := new(big.Int).SetUint64(a.hi)
	return b.Lsh(b, 64).Add(b, new(big.Int).SetUint64(a.lo))
}

// drawNumber draws numbers with many bits alike, so that carries happen.
func drawNumber(t *rapid.T, label string) uint128 {
	word := rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64}))
	return uint128{word.Draw(t, label+".hi"), word.Draw(t, label+".lo")}
}

func TestUint128(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawNumber(t, "a"), drawNumber(t, "b")
		n := rapid.IntRange(0, 128).Draw(t, "n")
		x, y := bigOf(a), bigOf(b)
		same := func(what string, got uint128, want *big.Int) {
			if want.Mod(want, modulus); bigOf(got).Cmp(want) != 0 {
				t.Fatalf("%s: %x, want %x", what, bigOf(got), want)
			}
		}
		same("add", a.add(b), new(big.Int).Add(x, y))
		same("sub", a.sub(b), new(big.Int).Sub(x, y))
		same("next", a.next(), new(big.Int).Add(x, big.NewInt(1)))
		same("previous", a.previous(), new(big.Int).Sub(x, big.NewInt(1)))
		same("or", a.or(b), new(big.Int).Or(x, y))
		same("and", a.and(b), new(big.Int).And(x, y))
		same("ones", ones(n), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(n)), big.NewInt(1)))
		scaled := new(big.Int).Mul(x, new(big.Int).Add(y, big.NewInt(1)))
		same("scale", a.scale(b), scaled.Rsh(scaled, 128))
		if a.compare(b) != x.Cmp(y) || a.less(b) != (x.Cmp(y) < 0) || a.bitLen() != x.BitLen() {
			t.Fatalf("%x against %x", x, y)
		}
		if numberOf(a.addr(IPv6)) != a || numberOf(uint128{0, a.lo & math.MaxUint32}.addr(IPv4)).lo != a.lo&math.MaxUint32 {
			t.Fatalf("%x does not survive as an address", x)
		}
	})
}

func TestWire(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":   "\xc0\x00\x02\x01",
		"2001:db8::1": "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01",
	} {
		a := netip.MustParseAddr(text)
		if got := string(numberOf(a).appendWire(nil, FamilyOf(a))); got != want {
			t.Errorf("%s: %x, want %x", text, got, want)
		}
	}
}
