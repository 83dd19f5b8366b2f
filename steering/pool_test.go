package steering

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawPrefix draws addresses and small prefixes that are close to each other, so
// that they overlap: in 192.0.2.0/26, or at both ends of four neighbouring /64.
func drawPrefix(f Family) *rapid.Generator[netip.Prefix] {
	return rapid.Custom(func(t *rapid.T) netip.Prefix {
		short := rapid.IntRange(0, 6).Draw(t, "host bits")
		if rapid.Bool().Draw(t, "address") {
			short = 0
		}
		n := rapid.Uint64Range(0, 63).Draw(t, "host")
		return smallPrefix(f, n, rapid.Uint64Range(0, 7).Draw(t, "block"), short)
	})
}

// smallPrefix returns the prefix with the given number of host bits, 0 to 6,
// around one of 64 hosts. Of IPv6 there are 8 blocks of them: the first 64 and
// the last 64 of four neighbouring /64.
func smallPrefix(f Family, host, block uint64, hostBits int) netip.Prefix {
	if f == IPv4 {
		return netip.PrefixFrom(uint128{0, 0xc0000200 + host}.addr(IPv4), 32-hostBits).Masked()
	}
	if block&1 == 1 {
		host |= ^uint64(63)
	}
	return netip.PrefixFrom(uint128{0x20010db8_00000000 + block>>1, host}.addr(IPv6), 128-hostBits).Masked()
}

// drawEntry draws skip list entries: mostly such prefixes, some far wider.
func drawEntry(f Family) *rapid.Generator[netip.Prefix] {
	wide := rapid.Custom(func(t *rapid.T) netip.Prefix {
		p := drawPrefix(f).Draw(t, "prefix")
		return netip.PrefixFrom(p.Addr(), rapid.IntRange(f.bits()/2-2, p.Bits()).Draw(t, "length")).Masked()
	})
	small := drawPrefix(f)
	return rapid.OneOf(small, small, small, wide)
}

func drawFamily(t *rapid.T) Family {
	return rapid.SampledFrom([]Family{IPv4, IPv6}).Draw(t, "family")
}

// TestPool holds pools of small prefixes, their answers and all ways to get them
// to the model.
func TestPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFamily(t)
		members := rapid.SliceOfN(drawPrefix(f), 0, 12).Draw(t, "members")
		entries := rapid.SliceOfN(drawEntry(f), 0, 12).Draw(t, "entries")
		seed := rapid.Uint64().Draw(t, "seed")
		k := rapid.IntRange(1, 100).Draw(t, "k")
		checkPool(t, f, members, entries, k, seed)
	})
}

func checkPool(t fataler, f Family, members, entries []netip.Prefix, k int, seed uint64) {
	t.Helper()
	whole := NewPool(f, members)
	newModel(f, members, nil).check(t, whole)
	skips := NewSkipList(f, entries)
	p := whole.Without(skips)
	m := newModel(f, members, entries)
	m.check(t, p)
	if same := slices.Equal(m.sorted(), slices.Collect(whole.Members())) &&
		len(m.all) == len(newModel(f, members, nil).all); same != (p == whole) && !whole.overlaps {
		t.Fatalf("same pool %v, want %v", p == whole, same)
	}

	// Two skip lists one after the other, and the same one twice.
	half := len(entries) / 2
	first, second := NewSkipList(f, entries[:half]), NewSkipList(f, entries[half:])
	m.check(t, whole.Without(first).Without(second))
	if p.Without(skips) != p || p.Without(first) != p || p.Without(nil) != p {
		t.Fatalf("a second time takes something away")
	}

	s := NewSampler(rand.NewPCG(seed, 1))
	subnet := netip.PrefixFrom(uint128{seed, seed}.addr(IPv6), 48)
	for _, k := range []int{1, 2, k, 1000} {
		m.checkAnswer(t, f, k, p.Draw(nil, k, s))
		m.checkAnswer(t, f, k, p.Hash(nil, k, subnet))
		m.checkAnswer(t, f, k, p.HashLegacy(nil, k, subnet, s))
		// A shorter answer is the beginning of a longer one.
		if few, all := p.Hash(nil, k, subnet), p.Hash(nil, 1000, subnet); string(few) != string(all[:len(few)]) {
			t.Fatalf("hash of %d: %v, of all %v", k, addressesOf(f, few), addressesOf(f, all))
		}
	}
}

func FuzzPool(f *testing.F) {
	f.Add([]byte{}, []byte{}, uint16(1), false)
	f.Add([]byte{0, 0, 6, 1, 0, 0, 1, 0, 0}, []byte{3, 0, 2}, uint16(4), false)
	f.Add([]byte{0, 0, 6, 1, 0, 6, 1, 1, 0}, []byte{3, 0, 0, 7, 1, 1}, uint16(64), true)
	f.Add([]byte{0, 7, 6, 63, 7, 1}, []byte{63, 7, 70}, uint16(1000), true)
	f.Fuzz(func(t *testing.T, members, entries []byte, k uint16, six bool) {
		if len(members)+len(entries) > 120 {
			t.Skip("the model is slow")
		}
		family := IPv4
		if six {
			family = IPv6
		}
		checkPool(t, family, prefixesFrom(family, members, 6), prefixesFrom(family, entries, family.bits()), int(k)%1000+1, uint64(k))
	})
}

// prefixesFrom makes a prefix of every three octets: host, block, host bits.
func prefixesFrom(f Family, data []byte, most int) []netip.Prefix {
	var out []netip.Prefix
	for c := range slices.Chunk(data, 3) {
		if len(c) == 3 {
			p := smallPrefix(f, uint64(c[0])&63, uint64(c[1])&7, 0)
			out = append(out, netip.PrefixFrom(p.Addr(), f.bits()-int(c[2])%(most+1)))
		}
	}
	return out
}

// FuzzPoolOfAnything feeds prefixes of any length, for which there is no model,
// and checks what can be said without one.
func FuzzPoolOfAnything(f *testing.F) {
	f.Add(make([]byte, 17), []byte{}, uint16(4))
	f.Add(make([]byte, 34), append(make([]byte, 16), 1), uint16(7))
	f.Add([]byte("\x20\x01\x0d\xb8aaaaaaaaaaaa\x20\x20\x01\x0d\xb8aaaaaaaaaaaa\x80"), []byte("\x20\x01\x0d\xb8aaaaaaaaaaaa\x80"), uint16(2))
	f.Fuzz(func(t *testing.T, members, entries []byte, k uint16) {
		all := func(data []byte) (out []netip.Prefix) {
			for c := range slices.Chunk(data, 17) {
				if a, ok := netip.AddrFromSlice(c[:min(16, len(c))]); ok && len(c) == 17 {
					out = append(out, netip.PrefixFrom(a, int(c[16])), netip.PrefixFrom(a.Unmap(), int(c[16])%33))
				}
			}
			return out
		}
		for _, family := range []Family{IPv4, IPv6} {
			skips := NewSkipList(family, all(entries))
			p := NewPool(family, all(members)).Without(skips)
			s := NewSampler(rand.NewPCG(uint64(k), 2))
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(k)}), 24)
			for _, answer := range [][]byte{
				p.Draw(nil, int(k%512), s), p.Hash(nil, int(k%512), subnet), p.HashLegacy(nil, int(k%512), subnet, s),
			} {
				seen := map[netip.Addr]bool{}
				for _, a := range addressesOf(family, answer) {
					single := netip.PrefixFrom(a, a.BitLen())
					if seen[a] || skips.Contains(a) || !p.Contains(single) && skips.prefixes.contains(numberOf(a)) {
						t.Fatalf("%v among %v", a, addressesOf(family, answer))
					}
					seen[a] = true
				}
				if len(seen) < min(int(k%512), p.addresses.len()) {
					t.Fatalf("%d addresses of %d members", len(seen), p.Len())
				}
			}
		}
	})
}

func TestNewPoolTidiesUp(t *testing.T) {
	p := NewPool(IPv6, append(prefixes(
		"2001:db8::2", "2001:db8::1", "2001:db8::2", "2001:db8::ffff/64", "2001:db8::/64", "2001:db8::/48",
		"2001:db8::", "2001:db8::8/126", "192.0.2.1", "192.0.2.0/24",
	), netip.Prefix{}, netip.PrefixFrom(netip.MustParseAddr("2001:db8::"), 129)))
	want := "[2001:db8::/48 2001:db8::/64 2001:db8::/128 2001:db8::1/128 2001:db8::2/128 2001:db8::8/126]"
	if got := fmt.Sprint(slices.Collect(p.Members())); got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	if p.Len() != 6 || p.Family() != IPv6 {
		t.Errorf("%d members of %v", p.Len(), p.Family())
	}
	for text, want := range map[string]bool{
		"2001:db8::2": true, "2001:db8::3": false, "2001:db8::/48": true, "2001:db8::1/48": true,
		"2001:db8::/49": false, "2001:db8::/0": false, "192.0.2.1": false, "::": false, "ffff::/128": false,
	} {
		if got := p.Contains(prefixes(text)[0]); got != want {
			t.Errorf("contains %s: %v", text, got)
		}
	}
	if p.Contains(netip.Prefix{}) {
		t.Error("contains the zero prefix")
	}
	for n := range p.Len() { // loops that are left early
		var some []netip.Prefix
		for m := range p.Members() {
			if some = append(some, m); len(some) == n+1 {
				break
			}
		}
		if all := slices.Collect(p.Members()); !slices.Equal(some, all[:n+1]) {
			t.Errorf("the first %d are %v of %v", n+1, some, all)
		}
	}
}

func TestEmptyPools(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	subnet := netip.MustParsePrefix("192.0.2.0/24")
	everything := NewSkipList(IPv4, prefixes("0.0.0.0/0"))
	for name, p := range map[string]*Pool{
		"nil":        nil,
		"zero":       {},
		"no members": NewPool(IPv4, nil),
		"others":     NewPool(IPv4, prefixes("2001:db8::1", "::/0")),
		"all skipped": NewPool(IPv4, prefixes("192.0.2.1", "192.0.2.0/24", "0.0.0.0/0")).
			Without(everything),
		"skipped in parts": NewPool(IPv4, prefixes("192.0.2.0/24")).
			Without(NewSkipList(IPv4, prefixes("192.0.2.0/25", "192.0.2.128/25"))),
		"skipped one by one": NewPool(IPv4, prefixes("192.0.2.0/31")).
			Without(NewSkipList(IPv4, prefixes("192.0.2.0"))).Without(NewSkipList(IPv4, prefixes("192.0.2.1"))),
	} {
		dst := []byte("kept")
		if p.Len() != 0 || p.Family() != IPv4 || len(slices.Collect(p.Members())) != 0 ||
			p.Contains(prefixes("192.0.2.1")[0]) || p.Without(everything) != p || p.Without(nil) != p {
			t.Errorf("%s: not empty", name)
		}
		if string(p.Draw(dst, 4, s)) != "kept" || string(p.Hash(dst, 4, subnet)) != "kept" ||
			string(p.HashLegacy(dst, 4, subnet, s)) != "kept" {
			t.Errorf("%s: gave an address", name)
		}
	}
	p := NewPool(IPv4, prefixes("192.0.2.1"))
	for _, k := range []int{0, -1} {
		if len(p.Draw(nil, k, s))+len(p.Hash(nil, k, subnet))+len(p.HashLegacy(nil, k, subnet, s)) != 0 {
			t.Errorf("k = %d gave an address", k)
		}
	}
	if got := p.Draw([]byte("kept"), 1, s); string(got) != "kept\xc0\x00\x02\x01" {
		t.Errorf("appended to %q", got)
	}
}

// TestWithoutEverySmallSkipList tries every skip list of up to three of the 31
// prefixes in sixteen addresses on a pool of them all: entries that touch become
// one run, which may begin and end anywhere in a member.
func TestWithoutEverySmallSkipList(t *testing.T) {
	var every []netip.Prefix
	for bits := 28; bits <= 32; bits++ {
		for host := 0; host < 16; host += 1 << (32 - bits) {
			every = append(every, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 16 + byte(host)}), bits))
		}
	}
	whole := NewPool(IPv4, every)
	for i := range every {
		for j := range i + 1 {
			for k := range j + 1 {
				entries := []netip.Prefix{every[i], every[j], every[k]}
				newModel(IPv4, every, entries).check(t, whole.Without(NewSkipList(IPv4, entries)))
			}
		}
	}
}

// TestWithoutKeepsPointer checks when a pool is left as it is.
func TestWithoutKeepsPointer(t *testing.T) {
	p := NewPool(IPv6, prefixes("2001:db8::1", "2001:db8:0:1::/64", "2001:db8:1::/48"))
	for _, c := range []struct {
		entry string
		same  bool
	}{
		{"2001:db8::2", true},
		{"2001:db8::1", false},
		{"2001:db8::1:0/112", true},
		{"2001:db8:0:1::7", false},
		{"2001:db8:0:2::7", true},
		{"2001:db8:1:ffff:ffff:ffff:ffff:ffff", false},
		{"2001:db8:2::", true},
		{"::/0", false},
		{"0.0.0.0/0", true},
	} {
		if q := p.Without(NewSkipList(FamilyOf(prefixes(c.entry)[0].Addr()), prefixes(c.entry))); (q == p) != c.same {
			t.Errorf("%s: same pool %v, want %v", c.entry, q == p, c.same)
		}
	}
	if p.Without(NewSkipList(IPv4, prefixes("0.0.0.0/0"))) != p || p.Without(&SkipList{}) != p {
		t.Error("another family takes something away")
	}
}

// TestWholeFamilies draws out of 0.0.0.0/0 and ::/0, whole and with all kinds of
// holes.
func TestWholeFamilies(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	subnet := netip.MustParsePrefix("192.0.2.0/24")
	for _, c := range []struct {
		whole string
		skip  []string
		ok    func(netip.Addr) bool
		count int
	}{
		{"0.0.0.0/0", nil, netip.Addr.Is4, 512},
		{"::/0", nil, netip.Addr.Is6, 512},
		{"::/0", []string{"::/1"}, netip.MustParsePrefix("8000::/1").Contains, 512},
		{"::/0", []string{"8000::/1"}, netip.MustParsePrefix("::/1").Contains, 512},
		{"::/0", []string{"::/2", "c000::/2", "4000::/3", "a000::/3"}, func(a netip.Addr) bool {
			return netip.MustParsePrefix("6000::/3").Contains(a) || netip.MustParsePrefix("8000::/3").Contains(a)
		}, 512},
		{"::/0", []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"}, func(a netip.Addr) bool {
			return !netip.MustParsePrefix("ffff:ffff:ffff:ffff::/64").Contains(a) && !netip.MustParsePrefix("::/64").Contains(a)
		}, 512},
		{"0.0.0.0/0", complement("198.51.100.255"), func(a netip.Addr) bool { return a.String() == "198.51.100.255" }, 1},
		{"::/0", complement("2001:db8::/127"), netip.MustParsePrefix("2001:db8::/127").Contains, 2},
		{"::/0", complement("::/127"), netip.MustParsePrefix("::/127").Contains, 2},
		{
			"::/0", complement("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/127"),
			netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127").Contains, 2,
		},
		{"::/0", complement("2001:db8::/120"), netip.MustParsePrefix("2001:db8::/120").Contains, 256},
	} {
		f := FamilyOf(netip.MustParsePrefix(c.whole).Addr())
		p := NewPool(f, prefixes(c.whole)).Without(NewSkipList(f, prefixes(c.skip...)))
		for name, answer := range map[string][]byte{
			"Draw": p.Draw(nil, 512, s), "Hash": p.Hash(nil, 512, subnet), "HashLegacy": p.HashLegacy(nil, 512, subnet, s),
			"one": p.Draw(nil, 1, s), "hash of one": p.Hash(nil, 1, subnet),
		} {
			seen := map[netip.Addr]bool{}
			for _, a := range addressesOf(f, answer) {
				if seen[a] = true; !c.ok(a) {
					t.Errorf("%s without %d: %s gives %v", c.whole, len(c.skip), name, a)
				}
			}
			if want := min(c.count, len(answer)/f.Octets()); len(seen) != want || len(seen) == 0 {
				t.Errorf("%s without %d: %s gives %d, want %d", c.whole, len(c.skip), name, len(seen), want)
			}
		}
		if got := len(p.Draw(nil, 512, s)) / f.Octets(); got != c.count {
			t.Errorf("%s without %d: %d addresses, want %d", c.whole, len(c.skip), got, c.count)
		}
	}
}

// complement returns the prefixes that together are everything but the given
// one: its siblings on the way from the root.
func complement(text string) []string {
	p := prefixes(text)[0]
	f := FamilyOf(p.Addr())
	var out []string
	for length := p.Bits(); length > 0; length-- {
		n, bit := numberOf(p.Addr()), ones(f.bits()-length).next()
		if n.and(bit) == (uint128{}) {
			n = n.add(bit)
		} else {
			n = n.sub(bit)
		}
		out = append(out, netip.PrefixFrom(n.addr(f), length).Masked().String())
	}
	return out
}

// TestEveryAddressOfAPrefix checks that the first and the last address of a
// prefix are drawn as well.
func TestEveryAddressOfAPrefix(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	for _, text := range []string{"192.0.2.0/24", "2001:db8::/120"} {
		f := FamilyOf(prefixes(text)[0].Addr())
		counts := make([]int, 256)
		p := NewPool(f, prefixes(text))
		for range 256 * 100 {
			answer := p.Draw(nil, 1, s)
			counts[answer[len(answer)-1]]++
		}
		uniform(t, text, counts)
	}
}

// TestHugeSkipList holds a prefix of 2^19 addresses and the addresses in it
// under 50,000 entries to a bitmap.
func TestHugeSkipList(t *testing.T) {
	const size = 1 << 19
	for _, base := range []string{"10.0.0.0", "2001:db8::"} {
		first := netip.MustParseAddr(base)
		f := FamilyOf(first)
		r := rand.New(rand.NewPCG(1, 2))
		at := func(i int) netip.Addr { return numberOf(first).add(uint128{0, uint64(i)}).addr(f) }
		var skipped [size]bool
		entries := make([]netip.Prefix, 50_000)
		for i := range entries {
			host, bits := r.IntN(size), 1+r.IntN(4)
			entries[i] = netip.PrefixFrom(at(host), f.bits()-bits).Masked()
			for j := range 1 << bits {
				skipped[host&^(1<<bits-1)+j] = true
			}
		}
		members := []netip.Prefix{netip.PrefixFrom(first, f.bits()-19)}
		for i := range size / 16 {
			members = append(members, netip.PrefixFrom(at(16*i+i%16), f.bits()))
		}
		skips := NewSkipList(f, entries)
		p := NewPool(f, members).Without(skips)

		rank, addresses := uint128{}, 0
		for i, gone := range skipped {
			if skips.Contains(at(i)) != gone {
				t.Fatalf("%v: skipped %v, want %v", at(i), !gone, gone)
			}
			if i%16 == i/16%16 {
				if p.Contains(netip.PrefixFrom(at(i), f.bits())) == gone {
					t.Fatalf("%v: member %v, want %v", at(i), gone, !gone)
				}
				if !gone {
					addresses++
				}
			}
			if !gone {
				if got := p.free(0, rank).addr(f); got != at(i) {
					t.Fatalf("rank %d is %v, want %v", rank.lo, got, at(i))
				}
				rank = rank.next()
			}
		}
		if p.prefixes[0].lastFree != rank.previous() || p.Len() != addresses+1 {
			t.Errorf("%d addresses left and %d members, want %d and %d",
				p.prefixes[0].lastFree.lo+1, p.Len(), rank.lo, addresses+1)
		}
	}
}

// TestFamilies checks the small methods of Family.
func TestFamilies(t *testing.T) {
	for text, want := range map[string]Family{"192.0.2.1": IPv4, "2001:db8::1": IPv6, "::ffff:192.0.2.1": IPv6} {
		if got := FamilyOf(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %v, want %v", text, got, want)
		}
	}
	if fmt.Sprint(IPv4, IPv4.Octets(), IPv6, IPv6.Octets()) != "IPv4 4 IPv6 16" {
		t.Error(IPv4, IPv4.Octets(), IPv6, IPv6.Octets())
	}
}
