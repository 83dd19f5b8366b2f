package upstreams

import (
	"testing"

	"github.com/razor-steering/razor/steering"
)

func TestParseMember(t *testing.T) {
	t.Parallel()
	const v4, v6 = steering.IPv4, steering.IPv6
	for _, tt := range []struct {
		family     steering.Family
		text       string
		want, fail string // the member by MemberText, or the reason
	}{
		{v4, "192.0.2.1", "192.0.2.1", ""},
		{v4, "0.0.0.0", "0.0.0.0", ""},
		{v4, "255.255.255.255", "255.255.255.255", ""},
		{v4, "192.0.2.1/32", "192.0.2.1", ""},
		{v4, "192.0.2.0/24", "192.0.2.0/24", ""},
		{v4, "192.0.2.77/24", "192.0.2.0/24", ""},
		{v4, "192.0.2.77/31", "192.0.2.76/31", ""},
		{v4, "192.0.2.77/0", "0.0.0.0/0", ""},
		{v4, "10.1.2.3/9", "10.0.0.0/9", ""},
		{v4, "::ffff:192.0.2.1", "192.0.2.1", ""},
		{v4, "::FFFF:c000:0201", "192.0.2.1", ""},
		{v4, "0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1", ""},
		{v4, "[::ffff:192.0.2.1]", "192.0.2.1", ""},
		{v4, "::ffff:192.0.2.1/120", "192.0.2.0/24", ""},
		{v4, "[::ffff:192.0.2.1]/128", "192.0.2.1", ""},
		{v4, "::ffff:0:0/96", "0.0.0.0/0", ""},
		{v6, "2001:db8::1", "2001:db8::1", ""},
		{v6, "[2001:db8::1]", "2001:db8::1", ""},
		{v6, "2001:DB8:0::1", "2001:db8::1", ""},
		{v6, "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:db8::1", ""},
		{v6, "2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", ""},
		{v6, "2001:db8::192.0.2.1", "2001:db8::c000:201", ""},
		{v6, "::", "::", ""},
		{v6, "::1", "::1", ""},
		{v6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
		{v6, "::192.0.2.1", "::c000:201", ""}, // IPv4-compatible is IPv6 as any other
		{v6, "64:ff9b::192.0.2.1", "64:ff9b::c000:201", ""},
		{v6, "2001:db8::1/128", "2001:db8::1", ""},
		{v6, "[2001:db8::1]/64", "2001:db8::/64", ""},
		{v6, "2001:DB8:0:12::a/48", "2001:db8::/48", ""},
		{v6, "2001:db8::3/127", "2001:db8::2/127", ""},
		{v6, "2001:db8::/61", "2001:db8::/61", ""},
		{v6, "2001:db8::/0", "::/0", ""},

		{v6, "2001::dead::beef::1", "", "multiple :: in address"},
		{v4, "192.0.2.01", "", "IPv4 field has octet with leading zero"},
		{v4, "192.000.2.1", "", "IPv4 field has octet with leading zero"},
		{v4, "::ffff:192.0.2.01", "", "IPv4 field has octet with leading zero"},
		{v4, "192.0.2.256", "", "IPv4 field has value >255"},
		{v4, "192.0.2", "", "IPv4 address too short"},
		{v4, "192.0.2.1.1", "", "IPv4 address too long"},
		{v4, "192.0.2.", "", "IPv4 field must have at least one digit"},
		{v4, "192.0.2.1:53", "", "unexpected character"},
		{v4, "0x7f.0.0.1", "", "unexpected character"},
		{v4, "3221225985", "", "unable to parse IP"},
		{v6, "fe80::1%eth0", "", "zone identifier"},
		{v6, "[fe80::1%eth0]", "", "zone identifier"},
		{v6, "fe80::1%eth0/64", "", "zone identifier"},
		{v4, "::ffff:192.0.2.1%eth0", "", "zone identifier"},
		{v6, "fe80::1%", "", "zone must be a non-empty string"},
		{v6, "2001:db8:::1", "", "each colon-separated field must have at least one digit"},
		{v6, "2001:db8:1", "", "address string too short"},
		{v6, "1:2:3:4:5:6:7:8:9", "", "trailing garbage after address"},
		{v6, "2001:0db80::1", "", "each group must have 4 or less digits"},
		{v6, "2001:dg8::1", "", "unexpected character, want colon"},
		{v6, "[2001:db8::1]:443", "", "bracket not closed"},
		{v6, "[2001:db8::1", "", "bracket not closed"},
		{v6, "[", "", "bracket not closed"},
		{v6, "[2001:db8::/64]", "", "bracket not closed"},
		{v6, "[]", "", "brackets around something that is not IPv6"},
		{v4, "[192.0.2.1]", "", "brackets around something that is not IPv6"},
		{v6, "2001:db8::1]", "", "unexpected character, want colon"},
		{v4, "node1.example.org", "", "unexpected character"},
		{v4, "localhost", "", "unable to parse IP"},
		{v4, "", "", "unable to parse IP"},
		{v4, "/24", "", "unable to parse IP"},
		{v4, " 192.0.2.1", "", "unexpected character"},
		{v4, "192.0.2.1 ", "", "unexpected character"},
		{v4, "192.0.2.1\n", "", "unexpected character"},
		{v4, `"):  (at "1.2.3.4`, "", "each colon-separated field must have at least one digit"},
		{v6, `::x"): y (at "z`, "", "each colon-separated field must have at least one digit"},
		{v6, `::/"): y (at "z`, "", `bad bits after slash: "\"): y (at \"z"`},
		{v4, "192.0.2.0/33", "", "prefix length out of range"},
		{v6, "2001:db8::/129", "", "prefix length out of range"},
		{v4, "192.0.2.0/-1", "", `bad bits after slash: "-1"`},
		{v4, "192.0.2.0/", "", `bad bits after slash: ""`},
		{v4, "192.0.2.0/024", "", `bad bits after slash: "024"`},
		{v4, "192.0.2.0/24/24", "", "more than one slash"},
		{v4, "192.0.2.0/255.255.255.0", "", `bad bits after slash: "255.255.255.0"`},
		{v6, "::ffff:192.0.2.1", "", "IPv4-mapped address among IPv6"},
		{v6, "::ffff:192.0.2.0/120", "", "IPv4-mapped address among IPv6"},
		{v6, "::ffff:c000:201", "", "IPv4-mapped address among IPv6"},
		{v4, "::ffff:192.0.2.1/95", "", "prefix wider than the IPv4-mapped addresses"},
		{v4, "::ffff:192.0.2.1/24", "", "prefix wider than the IPv4-mapped addresses"},
		{v4, "2001:db8::1", "", "IPv6 among IPv4"},
		{v6, "192.0.2.1", "", "IPv4 among IPv6"},
		{v6, "192.0.2.0/24", "", "IPv4 among IPv6"},
	} {
		t.Run(tt.family.String()+" "+tt.text, func(t *testing.T) {
			t.Parallel()
			m, err := ParseMember(tt.family, tt.text)
			if err != nil {
				if err.Error() != tt.fail {
					t.Errorf("reason %q; want %q", err, tt.fail)
				}
				return
			}
			if got := MemberText(m); tt.fail != "" || got != tt.want {
				t.Errorf("%q; want %q, error %q", got, tt.want, tt.fail)
			}
			if m != m.Masked() || steering.FamilyOf(m.Addr()) != tt.family {
				t.Errorf("%v has host bits or another family", m)
			}
		})
	}
}

func FuzzParseMember(f *testing.F) {
	for _, seed := range []string{
		"192.0.2.1", "192.0.2.77/24", "[2001:DB8::1]/64", "::ffff:192.0.2.1/120", "2001::dead::beef::1",
		"fe80::1%eth0", "192.0.2.01", "[", "[]", "/", "::/0", `"): `, "a): b (at c",
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, text string, six bool) {
		family := steering.IPv4
		if six {
			family = steering.IPv6
		}
		m, err := ParseMember(family, text)
		if err != nil {
			if err.Error() == "" {
				t.Fatalf("%q is refused without a reason", text)
			}
			return
		}
		if steering.FamilyOf(m.Addr()) != family || m != m.Masked() {
			t.Fatalf("%q became %v in %v", text, m, family)
		}
		again, err := ParseMember(family, MemberText(m))
		if err != nil || again != m {
			t.Fatalf("%q printed as %q reads %v, %v; want %v", text, MemberText(m), again, err, m)
		}
		if MemberText(again) != MemberText(m) {
			t.Fatalf("%q prints in two ways", text)
		}
	})
}
