package steering

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
)

func poolOf(f Family, n int) (*Pool, []netip.Prefix) {
	members := make([]netip.Prefix, n)
	for i := range members {
		a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		if f == IPv6 {
			a = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 14: byte(i >> 8), 15: byte(i)})
		}
		members[i] = netip.PrefixFrom(a, f.bits())
	}
	return NewPool(f, members), members
}

// A name has n addresses of the pool, always the same ones.
func TestShard(t *testing.T) {
	t.Parallel()
	for _, f := range []Family{IPv4, IPv6} {
		p, _ := poolOf(f, 512)
		for i := range 200 {
			name := fmt.Sprintf("shop%d.example", i)
			shard := p.Shard(4, name)
			if shard.Len() != 4 || shard.Family() != f {
				t.Fatalf("%s: %d members of %v", name, shard.Len(), shard.Family())
			}
			for m := range shard.Members() {
				if !p.Contains(m) {
					t.Errorf("%s: %v is not of the pool", name, m)
				}
			}
			if again := slices.Collect(p.Shard(4, name).Members()); !slices.Equal(again, slices.Collect(shard.Members())) {
				t.Errorf("%s: another shard the second time", name)
			}
		}
		if p.Shard(0, "x") != p || p.Shard(1000, "x").Len() != 512 {
			t.Error("without a size all of the pool, and never more than it has")
		}
	}
	var none *Pool
	if none.Shard(4, "x").Len() != 0 {
		t.Error("a shard of nothing")
	}
}

// An address that goes moves only the names that had it, and each gets one new.
func TestShardMovesFew(t *testing.T) {
	t.Parallel()
	p, members := poolOf(IPv6, 512)
	gone := members[77]
	less := NewPool(IPv6, slices.Delete(slices.Clone(members), 77, 78))
	moved := 0
	const names = 20000
	for i := range names {
		name := fmt.Sprintf("shop%d.example", i)
		before, after := p.Shard(4, name), less.Shard(4, name)
		kept := 0
		for m := range before.Members() {
			if after.Contains(m) {
				kept++
			}
		}
		want := 4
		if before.Contains(gone) {
			want = 3
			moved++
		}
		if kept != want {
			t.Fatalf("%s keeps %d of its addresses, want %d", name, kept, want)
		}
	}
	// 4 of 512 names have a given address, give or take six standard deviations.
	mean := names * 4.0 / 512
	if math.Abs(float64(moved)-mean) > 6*math.Sqrt(mean) {
		t.Errorf("%d of %d names had the address, want about %.0f", moved, names, mean)
	}
}

// A prefix gives a name one address, which is its own.
func TestShardOfPrefixes(t *testing.T) {
	t.Parallel()
	p := NewPool(IPv6, []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/64"), netip.MustParsePrefix("2001:db8:2::/64")})
	seen := map[netip.Prefix]bool{}
	for i := range 100 {
		for m := range p.Shard(2, fmt.Sprint("shop", i)).Members() {
			if !m.IsSingleIP() || seen[m] {
				t.Errorf("%v: no address, or one of another name", m)
			}
			seen[m] = true
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d addresses for 100 names of 2", len(seen))
	}
}
