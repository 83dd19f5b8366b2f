package balancer

import (
	"strings"
	"testing"
)

func TestParseVIP(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"198.51.100.1:443/tcp":            "198.51.100.1:443/tcp",
		"198.51.100.0/24:443/udp":         "198.51.100.0/24:443/udp",
		"198.51.100.1":                    "198.51.100.1",
		"198.51.100.1:*/tcp":              "198.51.100.1:*/tcp",
		"[2001:DB8:0::1]:443/tcp":         "[2001:db8::1]:443/tcp",
		"2001:db8::1":                     "2001:db8::1",
		"[2001:db8::1]":                   "2001:db8::1",
		"[2001:db8::/64]:*/udp":           "[2001:db8::/64]:*/udp",
		"2001:db8::/64":                   "2001:db8::/64",
		"[::ffff:198.51.100.1]:443/tcp":   "198.51.100.1:443/tcp",
		"[::ffff:198.51.100.0/120]:1/udp": "198.51.100.0/24:1/udp",
	} {
		v, err := ParseVIP(text)
		if err != nil || v.String() != want {
			t.Errorf("%s: %s, %v; want %s", text, v, err, want)
		}
	}
	for text, want := range map[string]string{
		"":                        "neither an address",
		"2001::dead::beef::1":     "neither an address",
		"198.51.100.1:443":        "want tcp or udp",
		"198.51.100.1:443/sctp":   "want tcp or udp",
		"198.51.100.1:0/tcp":      "want 1 to 65535",
		"198.51.100.1:65536/tcp":  "want 1 to 65535",
		"[2001:db8::1:443/tcp":    "no ]",
		"[fe80::1%eth0]:443/tcp":  "neither an address",
		"198.51.100.1/24:443/tcp": "198.51.100.0/24 is the prefix",
		"www.example.org:443/tcp": "neither an address",
	} {
		if v, err := ParseVIP(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v; want %q", text, v, err, want)
		}
	}
}

func TestDisputedFragments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		vip, other        string
		takes, otherTakes bool
		want              bool
	}{
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:123/udp", true, true, true},
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:123/udp", true, false, false},
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:123/udp", false, false, false},
		{"[2001:db8::1]:53/udp", "[2001:db8::2]:123/udp", true, true, false},
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:123/tcp", true, true, false},
		{"[2001:db8::1]:53/udp", "2001:db8::1", true, true, true},
		{"[2001:db8::1]:53/udp", "2001:db8::1", true, false, false},
		{"[2001:db8::1]:53/udp", "2001:db8::1", false, true, false},
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:*/udp", true, false, true},
		{"[2001:db8::1]:53/udp", "[2001:db8::1]:*/udp", false, true, false},
		{"2001:db8::1", "[2001:db8::1]:*/udp", true, false, false},
	} {
		v, err := ParseVIP(c.vip)
		other, err2 := ParseVIP(c.other)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if a, b := Disputed(v, other, c.takes, c.otherTakes), Disputed(other, v, c.otherTakes, c.takes); a != c.want || b != c.want {
			t.Errorf("%+v: %v, %v the other way round", c, a, b)
		}
	}
}

// FuzzParseVIP: what is read is written in a form that is read as the same.
func FuzzParseVIP(f *testing.F) {
	for _, s := range []string{"198.51.100.1:443/tcp", "[2001:db8::/64]:*/udp", "::ffff:1.2.3.4", "[::]:1/tcp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVIP(text)
		if err != nil {
			return
		}
		if again, err := ParseVIP(v.String()); err != nil || again != v {
			t.Errorf("%q is %s, which is %s, %v", text, v, again, err)
		}
	})
}
