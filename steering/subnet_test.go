package steering

import (
	"net/netip"
	"testing"
)

func TestClientSubnet(t *testing.T) {
	for _, c := range []struct {
		client string
		bits   int
		want   string
	}{
		{"192.0.2.77", 32, "192.0.2.0/24"},
		{"192.0.2.77", 128, "192.0.2.0/24"},
		{"192.0.2.77", 24, "192.0.2.0/24"},
		{"192.0.2.77", 23, "192.0.2.0/23"},
		{"192.0.3.77", 20, "192.0.0.0/20"},
		{"192.0.2.77", 0, "0.0.0.0/0"},
		{"192.0.2.77", -1, "0.0.0.0/0"},
		{"2001:db8:1:2::3", 128, "2001:db8:1::/48"},
		{"2001:db8:1:2::3", 56, "2001:db8:1::/48"},
		{"2001:db8:1:2::3", 32, "2001:db8::/32"},
		{"2001:db8:1:2::3", 0, "::/0"},
		{"fe80::1%eth0", 128, "fe80::/48"},
		{"::ffff:192.0.2.77", 32, "192.0.2.0/24"},
		{"::ffff:192.0.2.77", 48, "192.0.2.0/24"},
		{"::ffff:192.0.2.77", 128, "192.0.2.0/24"},
		{"::ffff:192.0.2.0", 116, "192.0.0.0/20"},
		{"::ffff:0.0.0.0", 96, "0.0.0.0/0"},
	} {
		if got := ClientSubnet(netip.MustParseAddr(c.client), c.bits).String(); got != c.want {
			t.Errorf("%s with %d bits: %s, want %s", c.client, c.bits, got, c.want)
		}
	}
	if got := ClientSubnet(netip.Addr{}, 24); got != (netip.Prefix{}) {
		t.Errorf("the zero address: %v", got)
	}
}
