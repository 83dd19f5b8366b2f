package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestSkipList(t *testing.T) {
	s := NewSkipList(IPv6, append(prefixes(
		"2001:db8:1::/48", "2001:db8::2", "2001:db8::2", "2001:db8:1:2::3", "2001:db8:1::9/48", "192.0.2.1",
	), netip.Prefix{}))
	if got, want := fmt.Sprint(slices.Collect(s.Entries())), "[2001:db8::2/128 2001:db8:1::/48 2001:db8:1:2::3/128]"; got != want {
		t.Errorf("entries %s, want %s", got, want)
	}
	if s.Len() != 3 {
		t.Errorf("%d entries, want 3", s.Len())
	}
	for text, want := range map[string]bool{
		"2001:db8::2":                         true,
		"2001:db8::1":                         false, // the /64 is for prefix members
		"2001:db8::3":                         false,
		"2001:db8:1::":                        true,
		"2001:db8:1:ffff:ffff:ffff:ffff:ffff": true,
		"2001:db8:2::":                        false,
		"2001:db8:0:ffff:ffff:ffff:ffff:ffff": false,
		"192.0.2.1":                           false,
		"::":                                  false,
	} {
		if got := s.Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is skipped: %v", text, got)
		}
	}
	if s.Contains(netip.Addr{}) {
		t.Error("the zero address is skipped")
	}
	for name, s := range map[string]*SkipList{"nil": nil, "zero": {}, "none": NewSkipList(IPv4, nil)} {
		if s.Len() != 0 || len(slices.Collect(s.Entries())) != 0 || s.Contains(netip.MustParseAddr("192.0.2.1")) {
			t.Errorf("%s: not empty", name)
		}
	}
}

// TestSkipListOfAddresses is what an attacked address takes away.
func TestSkipListOfAddresses(t *testing.T) {
	six := NewPool(IPv6, prefixes("2001:db8::1", "2001:db8::2", "2001:db8::/64", "2001:db8::/63", "2001:db8::/112")).
		Without(NewSkipList(IPv6, prefixes("2001:db8::1")))
	if got, want := fmt.Sprint(slices.Collect(six.Members())), "[2001:db8::/63 2001:db8::2/128]"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	if m := six.prefixes[0]; m.lastFree != ones(64) || six.free(0, uint128{}) != numberOf(netip.MustParseAddr("2001:db8:0:1::")) {
		t.Errorf("of the /63 is left %v from %v on", m.lastFree, six.free(0, uint128{}).addr(IPv6))
	}
	four := NewPool(IPv4, prefixes("192.0.2.1", "192.0.2.2", "192.0.2.0/30")).
		Without(NewSkipList(IPv4, prefixes("192.0.2.1")))
	if got, want := fmt.Sprint(slices.Collect(four.Members())), "[192.0.2.0/30 192.0.2.2/32]"; got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
	if m := four.prefixes[0]; m.lastFree.lo != 2 {
		t.Errorf("of the /30 are left %d addresses, want 3", m.lastFree.lo+1)
	}
}
