package razor

import (
	"net/netip"
	"strings"
	"testing"
)

// TestClientSubnetParse are the rules of RFC 7871 §6 and §7.2.1.
func TestClientSubnetParse(t *testing.T) {
	t.Parallel()
	v6 := "\x20\x01\x0d\xb8\x00\x42"
	rows := []struct {
		name string
		data string
		ok   bool
		addr string // "" where the family has none
	}{
		{"IPv4 /24", ecsData(1, 24, 0, "\xc0\x00\x02"), true, "192.0.2.0"},
		{"IPv4 /32", ecsData(1, 32, 0, "\xc0\x00\x02\x07"), true, "192.0.2.7"},
		{"IPv4 /25", ecsData(1, 25, 0, "\xc0\x00\x02\x80"), true, "192.0.2.128"},
		{"IPv4 /20", ecsData(1, 20, 0, "\xc0\x00\x10"), true, "192.0.16.0"},
		{"IPv4 /1", ecsData(1, 1, 0, "\x80"), true, "128.0.0.0"},
		{"IPv4 /0", ecsData(1, 0, 0, ""), true, "0.0.0.0"},
		{"IPv6 /48", ecsData(2, 48, 0, v6), true, "2001:db8:42::"},
		{"IPv6 /128", ecsData(2, 128, 0, v6+strings.Repeat("\x00", 9)+"\x01"), true, "2001:db8:42::1"},
		{"IPv6 /33", ecsData(2, 33, 0, "\x20\x01\x0d\xb8\x80"), true, "2001:db8:8000::"},
		{"IPv6 /0", ecsData(2, 0, 0, ""), true, "::"},
		{"no family, /0", ecsData(0, 0, 0, ""), true, ""},

		{"no family, /1", ecsData(0, 1, 0, "\x80"), false, ""},
		{"no family, octets", ecsData(0, 0, 0, "\x80"), false, ""},
		{"family 3", ecsData(3, 0, 0, ""), false, ""},
		{"family 65535", ecsData(65535, 8, 0, "\x01"), false, ""},
		{"IPv4 /33", ecsData(1, 33, 0, "\xc0\x00\x02\x01\x00"), false, ""},
		{"IPv4 /255", ecsData(1, 255, 0, strings.Repeat("\x00", 32)), false, ""},
		{"IPv6 /129", ecsData(2, 129, 0, strings.Repeat("\x00", 17)), false, ""},
		{"IPv6 /255", ecsData(2, 255, 0, strings.Repeat("\x00", 32)), false, ""},
		{"IPv4, an octet too few", ecsData(1, 24, 0, "\xc0\x00"), false, ""},
		{"IPv4, an octet too many", ecsData(1, 24, 0, "\xc0\x00\x02\x00"), false, ""},
		{"IPv4 /0, an octet too many", ecsData(1, 0, 0, "\x00"), false, ""},
		{"IPv4 /24, no octet", ecsData(1, 24, 0, ""), false, ""},
		{"IPv6, an octet too few", ecsData(2, 48, 0, v6[:5]), false, ""},
		{"IPv6, an octet too many", ecsData(2, 48, 0, v6+"\x00"), false, ""},
		{"IPv4 /20, host bit", ecsData(1, 20, 0, "\xc0\x00\x11"), false, ""},
		{"IPv4 /1, host bit", ecsData(1, 1, 0, "\x81"), false, ""},
		{"IPv6 /33, host bit", ecsData(2, 33, 0, "\x20\x01\x0d\xb8\xc0"), false, ""},
		{"IPv6 /47, host bit", ecsData(2, 47, 0, "\x20\x01\x0d\xb8\x00\x43"), false, ""},
		{"scope in a query", ecsData(1, 24, 24, "\xc0\x00\x02"), false, ""},
		{"scope in a query of /0", ecsData(1, 0, 1, ""), false, ""},
		{"empty", "", false, ""},
		{"3 octets", "\x00\x01\x00", false, ""},
	}
	for _, r := range rows {
		var s clientSubnet
		if got := s.parse([]byte(r.data)); got != r.ok {
			t.Errorf("%s: taken is %t, want %t", r.name, got, r.ok)
			continue
		}
		if !r.ok {
			continue
		}
		var want netip.Addr
		if r.addr != "" {
			want = netip.MustParseAddr(r.addr)
		}
		if s.addr != want || int(s.source) != int(r.data[2]) {
			t.Errorf("%s: %v/%d", r.name, s.addr, s.source)
		}
	}
}

// TestClientSubnetEcho holds the option of an answer to that of its query, with
// a scope no finer than what the client gave.
func TestClientSubnetEcho(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		family int
		source int
		octets string
		scope  int // what the answer depends on
		want   int
	}{
		{"IPv4 /24", 1, 24, "\xc0\x00\x02", 24, 24},
		{"IPv4 /32", 1, 32, "\xc0\x00\x02\x07", 24, 24},
		{"IPv4 /16", 1, 16, "\xc0\x00", 24, 16},
		{"IPv4 /24, whatever the client", 1, 24, "\xc0\x00\x02", 0, 0},
		{"IPv4 /0", 1, 0, "", 24, 0},
		{"IPv6 /48", 2, 48, "\x20\x01\x0d\xb8\x00\x42", 48, 48},
		{"IPv6 /56", 2, 56, "\x20\x01\x0d\xb8\x00\x42\x00", 48, 48},
		{"IPv6 /32", 2, 32, "\x20\x01\x0d\xb8", 48, 32},
		{"IPv6 /0", 2, 0, "", 48, 0},
		{"no family", 0, 0, "", 0, 0},
	}
	for _, r := range rows {
		var s clientSubnet
		if !s.parse([]byte(ecsData(r.family, r.source, 0, r.octets))) {
			t.Fatalf("%s is not taken", r.name)
		}
		want := ecs(r.family, r.source, r.want, r.octets)
		if got := string(s.appendOption(nil, r.scope)); got != want || len(got) != s.optionLen() {
			t.Errorf("%s: % x of %d octets, want % x", r.name, got, s.optionLen(), want)
		}
	}
}

func TestBlockOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.7":       "192.0.2.7/32",
		"2001:db8:1:2::7": "2001:db8:1:2::/64",
		"fe80::1%lo":      "fe80::/64",
	} {
		if got := blockOf(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s counts as %v, want %s", addr, got, want)
		}
	}
}
