package steering

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestDrawIsUniform draws from pools of all kinds and counts whole answers: each
// of the outcomes that ought to be equally likely must be, its order included.
func TestDrawIsUniform(t *testing.T) {
	seven := []string{
		"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7",
	}
	for _, c := range []struct {
		name     string
		members  []string
		skip     []string
		k        int
		outcomes int
	}{
		{"1 of 7", seven, nil, 1, 7},
		{"pairs of 7", seven, nil, 2, 7 * 6},
		{"3 of 7", seven, nil, 3, 7 * 6 * 5},
		{"4 of 7", seven, nil, 4, 7 * 6 * 5 * 4},
		{"4 of 8, two of them skipped", append(seven, "192.0.2.8"), []string{"192.0.2.1", "192.0.2.8"}, 4, 6 * 5 * 4 * 3},
		{"all of 5", seven[:5], nil, 5, 120},
		{"more than there are", seven[:5], nil, 9, 120},
		{"1 of a prefix", []string{"2001:db8::/121"}, nil, 1, 128},
		{"1 of a prefix with holes", []string{"192.0.2.0/25"}, []string{"192.0.2.0", "192.0.2.8/29", "192.0.2.96/27"}, 1, 87},
		{"2 of a prefix", []string{"192.0.2.0/28"}, nil, 2, 16 * 15},
		{"all of a prefix", []string{"192.0.2.0/30"}, nil, 4, 24},
		{"more than a prefix has", []string{"2001:db8::/126"}, nil, 100, 24},
		{"4 of a prefix with holes", []string{"192.0.2.0/29"}, []string{"192.0.2.0", "192.0.2.4/31"}, 4, 5 * 4 * 3 * 2},
		{"all of two prefixes", []string{"192.0.2.0/31", "192.0.2.8/31"}, nil, 4, 24},
		{"one each of two prefixes", []string{"192.0.2.0/29", "192.0.2.8/29"}, nil, 2, 2 * 8 * 8},
		{"two of one and one of another prefix", []string{"192.0.2.0/30", "192.0.2.8/30"}, nil, 3, 2 * 6 * 4 * 6},
		{"one each of eight prefixes", []string{
			"192.0.2.0/31", "192.0.2.2/31", "192.0.2.4/31", "192.0.2.6/31",
			"192.0.2.8/31", "192.0.2.10/31", "192.0.2.12/31", "192.0.2.14/31",
		}, nil, 2, 8 * 7 * 4},
		{"an address in a prefix: all", []string{"192.0.2.1", "192.0.2.0/30"}, nil, 4, 24},
		{"prefixes in prefixes: all", []string{"192.0.2.0/31", "192.0.2.0/30", "192.0.2.2/31", "192.0.2.3"}, nil, 4, 24},
		{"the same twice: all", []string{"192.0.2.0/31", "192.0.2.0", "192.0.2.1"}, nil, 2, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := FamilyOf(prefixes(c.members[0])[0].Addr())
			p := NewPool(f, prefixes(c.members...)).Without(NewSkipList(f, prefixes(c.skip...)))
			s := NewSampler(rand.NewPCG(3, 4))
			seen := cells[string]{}
			var dst []byte
			for range max(20_000, 40*c.outcomes) {
				dst = p.Draw(dst[:0], c.k, s)
				seen[string(dst)]++
			}
			if len(seen) != c.outcomes {
				t.Errorf("%d different answers, want %d", len(seen), c.outcomes)
			}
			uniform(t, "answers", seen.counts(c.outcomes))
		})
	}
}

// TestDrawOf512 is the common case: one or four addresses of 512.
func TestDrawOf512(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		p := NewPool(f, numbered(f, 512))
		s := NewSampler(rand.NewChaCha8([32]byte{1}))
		one := cells[netip.Addr]{}
		var four [4]cells[netip.Addr]
		for i := range four {
			four[i] = cells[netip.Addr]{}
		}
		for range 512 * 200 {
			one[addressesOf(f, p.Draw(nil, 1, s))[0]]++
			for i, a := range addressesOf(f, p.Draw(nil, 4, s)) {
				four[i][a]++
			}
		}
		uniform(t, f.String()+" 1 of 512", one.counts(512))
		for i, c := range four {
			uniform(t, fmt.Sprintf("%v 4 of 512, position %d", f, i), c.counts(512))
		}
	}
}

// TestDrawTreatsMembersAlike checks that a prefix is a member like any other,
// whatever its size and whatever is left of it, and that all of its addresses
// are alike.
func TestDrawTreatsMembersAlike(t *testing.T) {
	p := NewPool(IPv4, prefixes("192.0.2.1", "192.0.2.2", "10.0.0.0/8", "198.51.100.0/30")).
		Without(NewSkipList(IPv4, prefixes("198.51.100.1", "10.0.0.0/9", "10.255.0.0/16")))
	for _, k := range []int{1, 2, 3, 4} {
		s := NewSampler(rand.NewPCG(5, 6))
		members, small := make([]int, 4), make([]int, 3)
		for range 20_000 {
			for _, a := range addressesOf(IPv4, p.Draw(nil, k, s))[:1] {
				b := a.As4()
				switch b[0] {
				case 10:
					members[2]++
				case 198:
					members[3]++
					small[max(int(b[3])-1, 0)]++
				default:
					members[b[3]-1]++
				}
			}
		}
		uniform(t, fmt.Sprintf("members, first of %d", k), members)
		uniform(t, fmt.Sprintf("addresses of 198.51.100.0/30, first of %d", k), small)
	}
}

// TestDrawBoundedWork asks for far more than there is, of members that lie
// within each other as deep as they can.
func TestDrawBoundedWork(t *testing.T) {
	var nested []netip.Prefix
	for bits := 112; bits <= 128; bits++ {
		nested = append(nested, netip.PrefixFrom(netip.MustParseAddr("2001:db8::"), bits))
	}
	p := NewPool(IPv6, nested)
	draws := &counter{src: rand.NewPCG(1, 2)}
	answer := p.Draw(nil, 1<<20, NewSampler(draws))
	if got := len(answer) / 16; got != 1<<16 {
		t.Errorf("%d addresses, want %d", got, 1<<16)
	}
	// An address is tried once for each member that it is in, and then the answer
	// and the members of each round are shuffled.
	if limit := 4 << 16; draws.n > limit {
		t.Errorf("%d random numbers, want at most %d", draws.n, limit)
	}
}

// counter counts what is taken from a source.
type counter struct {
	src rand.Source
	n   int
}

func (c *counter) Uint64() uint64 {
	c.n++
	return c.src.Uint64()
}

// TestDrawDoesNotAllocate covers every path of Draw once its scratch has grown.
func TestDrawDoesNotAllocate(t *testing.T) {
	skips := NewSkipList(IPv6, scattered(1000))
	for name, p := range map[string]*Pool{
		"addresses":        NewPool(IPv6, numbered(IPv6, 512)),
		"prefixes":         NewPool(IPv6, wide()),
		"prefixes skipped": NewPool(IPv6, wide()).Without(skips),
		"one prefix":       NewPool(IPv6, wide()[:1]),
		"overlapping":      NewPool(IPv6, append(numbered(IPv6, 512), wide()...)),
	} {
		for _, k := range []int{1, 4, 16, 300} {
			s := NewSampler(rand.NewPCG(1, 2))
			dst := p.Draw(nil, k, s)
			draw := func() { dst = p.Draw(dst[:0], k, s) }
			draw()
			if n := testing.AllocsPerRun(100, draw); n != 0 {
				t.Errorf("%s, k = %d: %v allocations", name, k, n)
			}
			subnet := netip.MustParsePrefix("2001:db8:1::/48")
			legacy := func() { dst = p.HashLegacy(dst[:0], k, subnet, s) }
			legacy()
			if n := testing.AllocsPerRun(100, legacy); n != 0 {
				t.Errorf("%s, legacy, k = %d: %v allocations", name, k, n)
			}
		}
	}
	p := NewPool(IPv6, numbered(IPv6, 512))
	subnet := netip.MustParsePrefix("2001:db8:1::/48")
	dst := p.Hash(nil, 16, subnet)
	if n := testing.AllocsPerRun(100, func() { dst = p.Hash(dst[:0], 16, subnet) }); n != 0 {
		t.Errorf("hash: %v allocations", n)
	}
}
