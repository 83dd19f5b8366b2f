package steering

import (
	"net/netip"
	"slices"
	"testing"
)

func TestGroups(t *testing.T) {
	given := []string{"west", "East", "north", "west", "a:b"}
	g := NewGroups(given)
	if got, want := g.Names(), []string{"East", "a:b", "north", "west"}; !slices.Equal(got, want) {
		t.Errorf("names %q, want %q", got, want)
	}
	if given[1] != "East" || given[0] != "west" {
		t.Errorf("the caller's names became %q", given)
	}
	none := func(int) bool { return false }
	subnet := netip.MustParsePrefix("192.0.2.0/24")
	for name, g := range map[string]*Groups{"nil": nil, "zero": {}, "none": NewGroups(nil)} {
		if len(g.Names()) != 0 || g.Pick(subnet, nil) != -1 || g.PickLegacy(subnet, nil) != -1 {
			t.Errorf("%s: not empty", name)
		}
	}
	if g.Pick(subnet, none) != -1 || g.PickLegacy(subnet, none) != -1 {
		t.Error("a group that is not eligible was picked")
	}
}

// TestGroupsPick checks that subnets spread evenly over groups, and that those of
// a group that is not eligible move, to all others evenly, and no others do.
func TestGroupsPick(t *testing.T) {
	g := NewGroups([]string{"east", "north", "south", "west", "centre"})
	counts, moved := make([]int, 5), make([]int, 5)
	for i := range 20_000 {
		subnet := subnetOf(IPv6, i)
		was := g.Pick(subnet, nil)
		counts[was]++
		now := g.Pick(subnet, func(i int) bool { return i != 2 })
		if was == 2 {
			moved[now]++
		} else if now != was {
			t.Fatalf("%v moves from %d to %d", subnet, was, now)
		}
	}
	uniform(t, "groups", counts)
	if moved[2] != 0 {
		t.Errorf("%d subnets were left where they may not be", moved[2])
	}
	uniform(t, "groups that took over", slices.Delete(moved, 2, 3))
}

func TestGroupsPickLegacy(t *testing.T) {
	g := NewGroups([]string{"c", "a", "b"})
	for _, c := range []struct {
		subnet   string
		eligible string
		want     int
	}{
		{"0.0.0.0/24", "abc", 0},
		{"0.0.1.0/24", "abc", 1}, // 256 mod 3
		{"0.0.2.0/24", "abc", 2}, // 512 mod 3
		{"0.0.2.0/24", "ab", 0},
		{"0.0.2.0/24", "b", 1},
		{"0.0.1.0/24", "ac", 2},
		{"0:0:5::/48", "abc", 2},
		{"0:0:4::/48", "a", 0},
		{"0:0:4::/48", "", -1},
	} {
		got := g.PickLegacy(netip.MustParsePrefix(c.subnet), func(i int) bool {
			return slices.Contains([]byte(c.eligible), g.Names()[i][0])
		})
		if got != c.want {
			t.Errorf("%s of %q: %d, want %d", c.subnet, c.eligible, got, c.want)
		}
	}
}
