package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A gateway is out when it is silent and another one is not.
func TestTalking(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParsePrefix("2001:db8:5e:1::/64"), netip.MustParsePrefix("2001:db8:5e:2::/64")
	for _, tt := range []struct {
		name   string
		silent [2]time.Duration
		want   []netip.Prefix
	}{
		{"both talk", [2]time.Duration{0, time.Second}, []netip.Prefix{a, b}},
		{"one paused", [2]time.Duration{0, 4 * time.Second}, []netip.Prefix{a, b}},
		{"one is out", [2]time.Duration{time.Second, 6 * time.Second}, []netip.Prefix{a}},
		{"the other is out", [2]time.Duration{time.Hour, 2 * time.Second}, []netip.Prefix{b}},
		{"as nobody asks", [2]time.Duration{time.Hour, time.Hour + time.Second}, []netip.Prefix{a, b}},
		{"still out, as nobody asks", [2]time.Duration{time.Hour, time.Hour + time.Minute}, []netip.Prefix{a}},
	} {
		if got := talking([]netip.Prefix{a, b}, tt.silent[:]); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := talking(nil, nil); got != nil {
		t.Error("none: ", got)
	}
}
