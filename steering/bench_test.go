package steering

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// numbered returns n addresses that are spread over a block of f, as those of
// many edges are.
func numbered(f Family, n int) []netip.Prefix {
	out := make([]netip.Prefix, n)
	for i := range out {
		if f == IPv4 {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], 0x0a000000+uint32(i)*37)
			out[i] = netip.PrefixFrom(netip.AddrFrom4(b), 32)
			continue
		}
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(b[4:], uint32(i)*7919)
		binary.BigEndian.PutUint32(b[12:], uint32(i)*2654435761)
		out[i] = netip.PrefixFrom(netip.AddrFrom16(b), 128)
	}
	return out
}

// scattered returns n entries within 2001:db8::/32, half of them addresses and
// half of them prefixes of 64 to 127 bits.
func scattered(n int) []netip.Prefix {
	src := rand.NewPCG(1, 2)
	out := make([]netip.Prefix, n)
	for i := range out {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(b[4:], uint32(src.Uint64()))
		binary.BigEndian.PutUint64(b[8:], src.Uint64())
		length := 128
		if i%2 == 0 {
			length = 64 + int(src.Uint64()%64)
		}
		out[i] = netip.PrefixFrom(netip.AddrFrom16(b), length).Masked()
	}
	return out
}

// wide returns the 256 prefixes of 40 bits in 2001:db8::/32.
func wide() []netip.Prefix {
	out := make([]netip.Prefix, 256)
	for i := range out {
		out[i] = netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(i)}), 40)
	}
	return out
}

func BenchmarkDraw(b *testing.B) {
	skips := NewSkipList(IPv6, scattered(50_000))
	for _, c := range []struct {
		name string
		pool *Pool
		k    int
	}{
		{"IPv4/1of512", NewPool(IPv4, numbered(IPv4, 512)), 1},
		{"IPv4/4of512", NewPool(IPv4, numbered(IPv4, 512)), 4},
		{"IPv6/1of512", NewPool(IPv6, numbered(IPv6, 512)), 1},
		{"IPv6/4of512", NewPool(IPv6, numbered(IPv6, 512)), 4},
		{"IPv6/4of256prefixes", NewPool(IPv6, wide()), 4},
		{"IPv6/4of256prefixes/50000skipped", NewPool(IPv6, wide()).Without(skips), 4},
		{"IPv6/4of1prefix", NewPool(IPv6, wide()[:1]), 4},
		{"IPv6/4of513overlapping", NewPool(IPv6, append(numbered(IPv6, 512), netip.MustParsePrefix("2001:db8::/32"))), 4},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := NewSampler(rand.NewChaCha8([32]byte{1}))
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst = c.pool.Draw(dst[:0], c.k, s)
			}
		})
	}
}

func BenchmarkHash(b *testing.B) {
	pool := NewPool(IPv6, numbered(IPv6, 512))
	subnet := netip.MustParsePrefix("2001:db8:42::/48")
	s := NewSampler(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		hash func(dst []byte) []byte
	}{
		{"even/1of512", func(dst []byte) []byte { return pool.Hash(dst, 1, subnet) }},
		{"even/4of512", func(dst []byte) []byte { return pool.Hash(dst, 4, subnet) }},
		{"legacy/1of512", func(dst []byte) []byte { return pool.HashLegacy(dst, 1, subnet, s) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst = c.hash(dst[:0])
			}
		})
	}
}

func BenchmarkNewPool(b *testing.B) {
	for _, f := range []Family{IPv4, IPv6} {
		members := numbered(f, 1000)
		rand.New(rand.NewPCG(1, 2)).Shuffle(len(members), func(i, j int) {
			members[i], members[j] = members[j], members[i]
		})
		b.Run(f.String()+"/1000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewPool(f, members)
			}
		})
	}
}

func BenchmarkNewSkipList(b *testing.B) {
	entries := scattered(50_000)
	b.ReportAllocs()
	for b.Loop() {
		NewSkipList(IPv6, entries)
	}
}

func BenchmarkWithout(b *testing.B) {
	entries := scattered(50_000)
	members := numbered(IPv6, 1000)
	untouched := NewSkipList(IPv6, entries)
	for i := range 10 {
		entries[i] = members[97*i]
	}
	touched := NewSkipList(IPv6, entries)
	for _, c := range []struct {
		name string
		pool *Pool
		skip *SkipList
	}{
		{"1000addresses/none", NewPool(IPv6, members), untouched},
		{"1000addresses/10skipped", NewPool(IPv6, members), touched},
		{"256prefixes", NewPool(IPv6, wide()), untouched},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.pool.Without(c.skip)
			}
		})
	}
}
