package steering

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestHashLegacy checks indices computed by hand from the numbers beside them.
func TestHashLegacy(t *testing.T) {
	// In the order of their text, which is not that of their numbers.
	four := []string{"10.0.0.10", "10.0.0.2", "192.0.2.128/25", "9.0.0.1", "90.0.0.0"}
	six := []string{"2001:db8::", "2001:db8::10", "2001:db8::2", "2001:db8::a", "2001:db8:a::"}
	for _, c := range []struct {
		subnet string
		want   int // of 5
	}{
		{"0.0.0.0/0", 0},
		{"0.0.1.0/24", 1},   // 256
		{"0.0.2.0/24", 2},   // 512
		{"0.0.1.254/24", 1}, // host bits do not count
		{"0.0.1.254/32", 1},
		{"192.0.2.0/24", 4},     // 3221225984
		{"255.255.255.0/24", 0}, // 4294967040
		{"::/48", 0},
		{"0:0:1::/48", 1},          // 1
		{"0:0:7::/48", 2},          // 7
		{"0:0:7:ffff::/64", 2},     // behind the first 48 bits nothing counts
		{"2001:db8::/48", 0},       // 35188897218560
		{"ffff:ffff:ffff::/48", 0}, // 281474976710655
	} {
		subnet := netip.MustParsePrefix(c.subnet)
		for _, members := range [][]string{four, six} {
			shuffled := prefixes(members...)
			slices.Reverse(shuffled)
			f := FamilyOf(shuffled[0].Addr())
			p := NewPool(f, shuffled)
			s := NewSampler(rand.NewPCG(1, 2))
			got := addressesOf(f, p.HashLegacy(nil, 7, subnet, s))
			if f == IPv6 && len(got) != 5 || f == IPv4 && len(got) != 7 {
				t.Fatalf("%s: %d addresses", c.subnet, len(got))
			}
			for i, a := range got[:5] {
				if member := prefixes(members[(c.want+i)%5])[0]; !member.Contains(a) {
					t.Errorf("%s: %v comes at %d, want one of %v", c.subnet, a, i, member)
				}
			}
			for _, a := range got[5:] {
				if !prefixes("192.0.2.128/25")[0].Contains(a) {
					t.Errorf("%s: %v comes as one more", c.subnet, a)
				}
			}
		}
	}
}

// TestHashLegacyCountsWhatIsLeft checks that the skip list comes before the
// index.
func TestHashLegacyCountsWhatIsLeft(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	p := NewPool(IPv4, prefixes("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"))
	subnet := netip.MustParsePrefix("0.0.2.0/24")
	if got := texts(addressesOf(IPv4, p.HashLegacy(nil, 2, subnet, s))); got != "[192.0.2.1 192.0.2.2]" {
		t.Errorf("of 4: %s", got)
	}
	left := p.Without(NewSkipList(IPv4, prefixes("192.0.2.2")))
	if got := texts(addressesOf(IPv4, left.HashLegacy(nil, 2, subnet, s))); got != "[192.0.2.4 192.0.2.1]" {
		t.Errorf("of 3: %s", got)
	}
}

// TestHashLegacyDrawsFromPrefix checks that all addresses of a prefix are drawn.
func TestHashLegacyDrawsFromPrefix(t *testing.T) {
	s := NewSampler(rand.NewPCG(1, 2))
	p := NewPool(IPv4, prefixes("192.0.2.0/28", "198.51.100.1")).Without(NewSkipList(IPv4, prefixes("192.0.2.3")))
	seen := cells[string]{}
	for range 3000 {
		seen[string(p.HashLegacy(nil, 1, netip.MustParsePrefix("10.0.0.0/24"), s))]++
	}
	uniform(t, "addresses", seen.counts(15))
}
