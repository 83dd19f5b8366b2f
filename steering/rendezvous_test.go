package steering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

// subnetOf returns the i-th subnet of a family: neighbours, as clients' are.
func subnetOf(f Family, i int) netip.Prefix {
	if f == IPv4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i)<<8+0x01000000)
		return netip.PrefixFrom(netip.AddrFrom4(b), 24)
	}
	b := [16]byte{0x20, 0x01}
	binary.BigEndian.PutUint32(b[2:], uint32(i))
	return netip.PrefixFrom(netip.AddrFrom16(b), 48)
}

// TestHashIsFrozen holds the answers to those that every edge gives, in every
// version. If it fails, then the code is wrong, not the test: a fleet is upgraded
// one edge at a time.
func TestHashIsFrozen(t *testing.T) {
	four := NewPool(IPv4, prefixes("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.0/24", "203.0.113.0/25")).
		Without(NewSkipList(IPv4, prefixes("198.51.100.0/26")))
	six := NewPool(IPv6, prefixes("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:1::/48", "2001:db8:2::/64")).
		Without(NewSkipList(IPv6, prefixes("2001:db8:1:2::3")))
	groups := NewGroups([]string{"east.example.net", "north.example.net", "south.example.net", "west.example.net"})
	for _, c := range []struct {
		subnet string
		four   string
		six    string
		group  int
	}{
		{
			"192.0.2.0/24",
			"[203.0.113.66 192.0.2.2 192.0.2.3]",
			"[2001:db8:2:0:e6ec:f2e5:430e:e0ed 2001:db8::1 2001:db8::3]", 0,
		},
		{
			"192.0.3.0/24",
			"[192.0.2.3 192.0.2.1 198.51.100.133]",
			"[2001:db8:1:1b17:832d:43ab:6e76:4d96 2001:db8::3 2001:db8::1]", 1,
		},
		{
			"0.0.0.0/0",
			"[192.0.2.2 203.0.113.56 192.0.2.3]",
			"[2001:db8::2 2001:db8:1:2da6:2f8c:866d:c227:7b0c 2001:db8::3]", 0,
		},
		{
			"2001:db8::/48",
			"[192.0.2.3 192.0.2.2 192.0.2.1]",
			"[2001:db8::3 2001:db8::2 2001:db8::1]", 3,
		},
		{
			"2001:db8:1::/48",
			"[192.0.2.1 192.0.2.3 192.0.2.2]",
			"[2001:db8::3 2001:db8::2 2001:db8::1]", 2,
		},
		{
			"2001:db8:ffff::/48",
			"[192.0.2.3 192.0.2.2 203.0.113.58]",
			"[2001:db8::1 2001:db8::2 2001:db8::3]", 1,
		},
		{
			"::/0",
			"[192.0.2.1 192.0.2.2 198.51.100.164]",
			"[2001:db8:1:ca1e:8b75:c652:33f3:4a9 2001:db8:2:0:4bdf:24a5:773b:8217 2001:db8::1]", 2,
		},
	} {
		subnet := netip.MustParsePrefix(c.subnet)
		if got := texts(addressesOf(IPv4, four.Hash(nil, 3, subnet))); got != c.four {
			t.Errorf("%s: %s, want %s", c.subnet, got, c.four)
		}
		if got := texts(addressesOf(IPv6, six.Hash(nil, 3, subnet))); got != c.six {
			t.Errorf("%s: %s, want %s", c.subnet, got, c.six)
		}
		if got := groups.Pick(subnet, nil); got != c.group {
			t.Errorf("%s: group %d, want %d", c.subnet, got, c.group)
		}
	}
}

// TestHashOfAllIsFrozen is the same for answers of more addresses than there are
// members, out of prefixes of which little is left.
func TestHashOfAllIsFrozen(t *testing.T) {
	p := NewPool(IPv4, prefixes("192.0.2.1", "198.51.100.0/29", "203.0.113.0/24")).
		Without(NewSkipList(IPv4, prefixes("203.0.113.0/25", "203.0.113.128/26", "203.0.113.192/27",
			"203.0.113.224/28", "203.0.113.240/29", "203.0.113.248/30")))
	for subnet, want := range map[string]string{
		"192.0.2.0/24": "[198.51.100.0 203.0.113.252 192.0.2.1 198.51.100.6 203.0.113.253 198.51.100.7 " +
			"203.0.113.254 198.51.100.5 203.0.113.255 198.51.100.3 198.51.100.2 198.51.100.4 198.51.100.1]",
		"2001:db8::/48": "[198.51.100.4 203.0.113.253 192.0.2.1 198.51.100.7 203.0.113.254 198.51.100.0 " +
			"203.0.113.255 198.51.100.3 203.0.113.252 198.51.100.2 198.51.100.1 198.51.100.5 198.51.100.6]",
	} {
		if got := texts(addressesOf(IPv4, p.Hash(nil, 20, netip.MustParsePrefix(subnet)))); got != want {
			t.Errorf("%s: %s, want %s", subnet, got, want)
		}
	}
}

// TestHashKey checks what of a subnet counts.
func TestHashKey(t *testing.T) {
	same := [][2]string{
		{"192.0.2.0/24", "192.0.2.255/24"},
		{"192.0.2.0/24", "192.0.2.0/25"},
		{"2001:db8::/48", "2001:db8:0:ffff::/48"},
		{"2001:db8::/48", "2001:db8::/32"},
	}
	for _, c := range same {
		if hashSubnet(netip.MustParsePrefix(c[0])) != hashSubnet(netip.MustParsePrefix(c[1])) {
			t.Errorf("%s and %s differ", c[0], c[1])
		}
	}
	seen := map[uint64]string{}
	for _, text := range []string{"0.0.0.0/0", "::/0", "192.0.2.0/24", "192.0.3.0/24", "::192.0.2.0/120", "192.0.2.1/32"} {
		h := hashSubnet(netip.MustParsePrefix(text))
		if other, ok := seen[h]; ok {
			t.Errorf("%s is like %s", text, other)
		}
		seen[h] = text
	}
	if hashMember(IPv4, uint128{0, 1}, 32) == hashMember(IPv4, uint128{0, 1}, 31) ||
		hashMember(IPv4, uint128{0, 1}, 32) == hashMember(IPv6, uint128{0, 1}, 32) {
		t.Error("length or family of a member does not count")
	}
	names := map[uint64]string{}
	for _, name := range []string{"", "\x00", "\x00\x00", "a", "b", "aaaaaaaa", "aaaaaaaab", "aaaaaaaa\x00", "baaaaaaaa"} {
		if other, ok := names[hashString(name)]; ok {
			t.Errorf("%q is like %q", name, other)
		}
		names[hashString(name)] = name
	}
}

// TestHashIsBalanced spreads more than a million neighbouring subnets over 512
// members. Every member must be within a tenth of the mean, and all of them
// together as close to it as by chance.
func TestHashIsBalanced(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			const subnets = 1 << 20
			hashes := NewPool(f, numbered(f, 512)).memberHashes()
			counts := make([]int, len(hashes))
			for i := range subnets {
				counts[heaviest(hashes, hashSubnet(subnetOf(f, i)))]++
			}
			mean := float64(subnets) / float64(len(counts))
			for i, n := range counts {
				if math.Abs(float64(n)-mean) > mean/10 {
					t.Errorf("member %d has %d subnets, mean %.0f", i, n, mean)
				}
			}
			uniform(t, "subnets of members", counts)
		})
	}
}

// TestHashOrderIsBalanced does the same for whole answers from a small pool, and
// for the addresses of a prefix.
func TestHashOrderIsBalanced(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		p := NewPool(IPv4, numbered(IPv4, 5))
		whole := NewPool(IPv6, prefixes("2001:db8::/121"))
		holes := NewPool(IPv6, prefixes("2001:db8::/121")).Without(NewSkipList(IPv6, prefixes("2001:db8::8/125", "2001:db8::40/122")))
		orders, addresses, left := cells[string]{}, cells[string]{}, cells[string]{}
		for i := range 120 * 200 {
			orders[string(p.Hash(nil, 5, subnetOf(f, i)))]++
			addresses[string(whole.Hash(nil, 1, subnetOf(f, i)))]++
			left[string(holes.Hash(nil, 1, subnetOf(f, i)))]++
		}
		uniform(t, "orders of members", orders.counts(120))
		uniform(t, "addresses of a prefix", addresses.counts(128))
		uniform(t, "addresses of a prefix with holes", left.counts(56))
	}
}

// TestHashMovesFew adds the n-th member and takes it away again: about one in n
// subnets moves, all of them to it, and back to where they were.
func TestHashMovesFew(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		for _, n := range []int{2, 8, 512} {
			members := numbered(f, n)
			fresh := members[n/2]
			after := NewPool(f, members)
			before := NewPool(f, slices.Delete(slices.Clone(members), n/2, n/2+1))
			if skipped := after.Without(NewSkipList(f, []netip.Prefix{fresh})); skipped.Len() != before.Len() {
				t.Fatalf("%d members, want %d", skipped.Len(), before.Len())
			}
			const subnets = 100_000
			moved := 0
			for i := range subnets {
				subnet := subnetOf(f, i)
				a, b := addressesOf(f, before.Hash(nil, 1, subnet))[0], addressesOf(f, after.Hash(nil, 1, subnet))[0]
				if a == b {
					continue
				}
				if moved++; b != fresh.Addr() {
					t.Fatalf("%v moves from %v to %v, not to the new %v", subnet, a, b, fresh)
				}
			}
			want := float64(subnets) / float64(n)
			if noise := 5 * math.Sqrt(want); math.Abs(float64(moved)-want) > 0.15*want+noise {
				t.Errorf("%v: member %d moved %d of %d subnets, want about %.0f", f, n, moved, subnets, want)
			}
		}
	}
}

// TestHashOfPrefixStays checks that the address out of a prefix stays put while
// the skip list changes elsewhere, also when it stands in for one that is
// skipped, and that this one is back when it no longer is.
func TestHashOfPrefixStays(t *testing.T) {
	p := NewPool(IPv4, prefixes("192.0.2.0/24"))
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		subnet := subnetOf(IPv6, i)
		hash := func(entries []netip.Prefix) netip.Addr {
			return addressesOf(IPv4, p.Without(NewSkipList(IPv4, entries)).Hash(nil, 1, subnet))[0]
		}
		var gone []netip.Prefix
		for range 3 {
			want := hash(gone)
			var elsewhere []netip.Prefix
			for range 20 {
				e := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())}), 30).Masked()
				if !e.Contains(want) {
					elsewhere = append(elsewhere, e)
				}
			}
			if got := hash(append(elsewhere, gone...)); got != want {
				t.Fatalf("%v without %v moves from %v to %v", subnet, gone, want, got)
			}
			gone = append(gone, netip.PrefixFrom(want, 32))
		}
	}
}

// TestHashOfMostlySkipped leaves three addresses of a prefix, among which no
// candidate is to be expected.
func TestHashOfMostlySkipped(t *testing.T) {
	p := NewPool(IPv4, prefixes("10.0.0.0/8")).Without(NewSkipList(IPv4, prefixes(
		"10.0.0.0/9", "10.128.0.0/10", "10.192.0.0/11", "10.224.0.0/12", "10.240.0.0/13", "10.248.0.0/14",
		"10.252.0.0/15", "10.254.0.0/16", "10.255.0.0/17", "10.255.128.0/18", "10.255.192.0/19", "10.255.224.0/20",
		"10.255.240.0/21", "10.255.248.0/22", "10.255.252.0/23", "10.255.254.0/24", "10.255.255.0/25",
		"10.255.255.128/26", "10.255.255.192/27", "10.255.255.224/28", "10.255.255.240/29", "10.255.255.248/30",
		"10.255.255.253",
	)))
	first := cells[string]{}
	for i := range 6000 {
		got := addressesOf(IPv4, p.Hash(nil, 5, subnetOf(IPv4, i)))
		first[got[0].String()]++
		slices.SortFunc(got, netip.Addr.Compare)
		if texts(got) != "[10.255.255.252 10.255.255.254 10.255.255.255]" {
			t.Fatalf("%v", got)
		}
	}
	uniform(t, "addresses that are left", first.counts(3))
}

// TestHashOrders holds the two ways to rank members to each other.
func TestHashOrders(t *testing.T) {
	hashes := NewPool(IPv6, numbered(IPv6, 200)).memberHashes()
	hashes = append(hashes, hashes...) // equals
	for i := range 200 {
		key := hashSubnet(subnetOf(IPv6, i))
		all := rankAll(hashes, key)
		for k := 1; k <= fewRanked; k++ {
			if few := rankFew(make([]ranked, k), hashes, key); !slices.Equal(few, all[:k]) {
				t.Fatalf("best %d are %v, want %v", k, few, all[:k])
			}
		}
		if got := heaviest(hashes, key); got != all[0].member {
			t.Fatalf("best is %d, want %d", got, all[0].member)
		}
	}
}

// TestPoolIsSafeForConcurrentUse is for the race detector.
func TestPoolIsSafeForConcurrentUse(t *testing.T) {
	p := NewPool(IPv6, append(numbered(IPv6, 100), wide()...))
	skips := NewSkipList(IPv6, scattered(100))
	want := p.Hash(nil, 4, subnetOf(IPv6, 1))
	p = NewPool(IPv6, slices.Collect(p.Members()))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			s := NewSampler(rand.NewPCG(uint64(i), 2))
			p.Draw(nil, 4, s)
			p.HashLegacy(nil, 4, subnetOf(IPv6, 1), s)
			p.Without(skips).Draw(nil, 4, s)
			if got := p.Hash(nil, 4, subnetOf(IPv6, 1)); !bytes.Equal(got, want) {
				t.Errorf("%x, want %x", got, want)
			}
		})
	}
	all.Wait()
}

// FuzzHash adds and takes away a member and a skip list, of anything: no other
// members may change places, and no subnet may get an answer twice.
func FuzzHash(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0}, []byte{2, 0, 0}, []byte{192, 0, 2}, uint8(2), false)
	f.Add([]byte{0, 0, 6, 1, 0, 6, 1, 1, 0}, []byte{63, 7, 3}, []byte{0x20, 1, 0xd, 0xb8}, uint8(9), true)
	f.Fuzz(func(t *testing.T, members, added, client []byte, k uint8, six bool) {
		if len(members) > 90 || len(added) < 3 {
			t.Skip("the model is slow")
		}
		family, a := IPv4, [16]byte{}
		if six {
			family = IPv6
		}
		copy(a[:], client)
		subnet := ClientSubnet(netip.AddrFrom16(a), 128)
		old := prefixesFrom(family, members, 6)
		extra := prefixesFrom(family, added[:3], 6)
		before, after := NewPool(family, old), NewPool(family, append(old, extra...))
		n := int(k)%20 + 1
		answer := after.Hash(nil, n, subnet)
		newModel(family, append(old, extra...), nil).checkAnswer(t, family, n, answer)
		if again := NewPool(family, append(extra, old...)).Hash(nil, n, subnet); !bytes.Equal(answer, again) {
			t.Fatalf("%x, in other order %x", answer, again)
		}
		// Where nothing overlaps the old members keep their order and addresses.
		if after.overlaps || before.Contains(extra[0]) {
			return
		}
		n = after.Len()
		rest := slices.DeleteFunc(addressesOf(family, after.Hash(nil, n, subnet)), extra[0].Masked().Contains)
		if want := addressesOf(family, before.Hash(nil, n-1, subnet)); !slices.Equal(rest, want) {
			t.Fatalf("%v, with %v %v", want, extra, rest)
		}
	})
}

func ExamplePool_Hash() {
	pool := NewPool(IPv6, []netip.Prefix{
		netip.MustParsePrefix("2001:db8:1::1/128"),
		netip.MustParsePrefix("2001:db8:2::1/128"),
		netip.MustParsePrefix("2001:db8:3::/48"),
	})
	client := netip.MustParseAddr("192.0.2.77")
	for record := range slices.Chunk(pool.Hash(nil, 2, ClientSubnet(client, 32)), 16) {
		a, _ := netip.AddrFromSlice(record)
		fmt.Println(a)
	}
	// Output:
	// 2001:db8:3:a6bb:7995:24fc:12ce:2948
	// 2001:db8:2::1
}
