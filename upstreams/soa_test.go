package upstreams

import (
	"strings"
	"testing"
)

const goodSOA = "ns1.example. hostmaster.example. 1 7200 900 1209600 30"

func TestSOARDATA(t *testing.T) {
	t.Parallel()
	const numbers = "\x00\x00\x00\x01\x00\x00\x1c\x20\x00\x00\x03\x84\x00\x12\x75\x00\x00\x00\x00\x1e"
	for _, tt := range []struct{ name, text, want, fail string }{
		{"final dots", goodSOA, "\x03ns1\x07example\x00\x0ahostmaster\x07example\x00" + numbers, ""},
		{"no final dots", "ns1.example hostmaster.example 1 7200 900 1209600 30", "\x03ns1\x07example\x00\x0ahostmaster\x07example\x00" + numbers, ""},
		{"spaces and tabs", "  NS1.Example \t hostmaster.example 1  7200 900\n1209600 30 ", "\x03ns1\x07example\x00\x0ahostmaster\x07example\x00" + numbers, ""},
		{"dot in the mailbox", `a. j\.doe.b. 0 0 0 0 4294967295`, "\x01a\x00\x05j.doe\x01b\x00" + strings.Repeat("\x00", 16) + "\xff\xff\xff\xff", ""},

		{"bad empty", "", "", "0 fields"},
		{"bad six fields", "a. b. 1 2 3 4", "", "6 fields"},
		{"bad eight fields", "a. b. 1 2 3 4 5 6", "", "8 fields"},
		{"bad MNAME", "a..b c 1 2 3 4 5", "", "a..b: empty label (a final dot, or two dots in a row)"},
		{"bad root as RNAME", "a. . 1 2 3 4 5", "", ".: empty name"},
		{"bad word as a number", "a. b. 1 2h 3 4 5", "", "2h is not a number of 32 bits"},
		{"bad negative number", "a. b. -1 2 3 4 5", "", "-1 is not a number of 32 bits"},
		{"bad 33 bits", "a. b. 1 2 3 4 4294967296", "", "4294967296 is not a number of 32 bits"},
		{"bad parentheses", "a. b. ( 1 2 3 4 5 )", "", "9 fields"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := soaRDATA(tt.text)
			if err != nil {
				if err.Error() != tt.fail {
					t.Errorf("reason %q; want %q", err, tt.fail)
				}
				return
			}
			if string(got) != tt.want || tt.fail != "" {
				t.Errorf("%q; want %q, error %q", got, tt.want, tt.fail)
			}
		})
	}
}

func TestNegativeTTL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ttl           uint32
		minimum       string
		want, wantSOA uint32
	}{
		{60, "30", 30, 30},
		{5, "30", 5, 30},
		{0, "30", 0, 30},
		{60, "0", 0, 0},
		{60, "4294967295", 60, 1<<32 - 1},
	} {
		rdata, err := soaRDATA("a. b. 1 2 3 4 " + tt.minimum)
		if err != nil {
			t.Fatal(err)
		}
		z := &Zone{SOA: rdata, TTL: tt.ttl}
		if got := soaMinimum(rdata); got != tt.wantSOA {
			t.Errorf("MINIMUM %s read as %d", tt.minimum, got)
		}
		if got := z.NegativeTTL(); got != tt.want {
			t.Errorf("TTL %d, MINIMUM %s: %d; want %d", tt.ttl, tt.minimum, got, tt.want)
		}
	}
}
