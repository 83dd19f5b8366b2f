package upstreams

import (
	"fmt"
	"strings"
	"testing"
)

// policy is what a CONFIG says of health and of HTTPS records.
func (c *config) policy() string {
	out := fmt.Sprintf("%s %q %d", c.empty, c.alpn, c.port)
	if c.floor != nil {
		out = fmt.Sprintf("%g ", *c.floor) + out
	}
	return out
}

func TestPolicyFields(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 255)
	for _, tt := range []struct {
		field, text string
		want        string // "" where it is a defect
	}{
		{"FLOOR", "0", `0  [] 0`},
		{"FLOOR", "0.5", `0.5  [] 0`},
		{"FLOOR", ".25", `0.25  [] 0`},
		{"FLOOR", "1", `1  [] 0`},
		{"FLOOR", "1.0", `1  [] 0`},
		{"FLOOR", "1.01", ""},
		{"FLOOR", "-0.1", ""},
		{"FLOOR", "+0.1", ""},
		{"FLOOR", "1e-1", ""},
		{"FLOOR", "0x1p-1", ""},
		{"FLOOR", "NaN", ""},
		{"FLOOR", "inf", ""},
		{"FLOOR", "50%", ""},
		{"FLOOR", "0,5", ""},
		{"FLOOR", ".", ""},
		{"FLOOR", "", ""},
		{"ON_EMPTY", "open", `open [] 0`},
		{"ON_EMPTY", "closed", `closed [] 0`},
		{"ON_EMPTY", "Closed", ""},
		{"ON_EMPTY", "", ""},
		{"ALPN", "h2", ` ["h2"] 0`},
		{"ALPN", "h3, h2,http/1.1,h3", ` ["h3" "h2" "http/1.1"] 0`},
		{"ALPN", long, ` ["` + long + `"] 0`},
		{"ALPN", long + "x", ""},
		{"ALPN", "h2,,h3", ""},
		{"ALPN", "h2,", ""},
		{"ALPN", "", ""},
		{"ALPN", "h2 h3", ""},
		{"ALPN", `a\,b`, ""},
		{"ALPN", "h2\x00", ""},
		{"PORT", "1", ` [] 1`},
		{"PORT", "65535", ` [] 65535`},
		{"PORT", "65536", ""},
		{"PORT", "0", ""},
		{"PORT", "https", ""},
	} {
		p := parser{key: "r:CONFIG"}
		c := p.config(map[string]string{tt.field: tt.text, "TTL": "5"})
		switch {
		case tt.want == "":
			if len(p.defects) != 1 || p.defects[0].Member != tt.field+" "+tt.text || len(c.bad) != 1 || c.ttl != 5 {
				t.Errorf("%s %q: defects %v, bad fields %q", tt.field, tt.text, p.defects, c.bad)
			}
		case len(p.defects) > 0 || c.policy() != tt.want:
			t.Errorf("%s %q: %s, %v; want %s", tt.field, tt.text, c.policy(), p.defects, tt.want)
		}
	}
}

// A bad value keeps the last good one, as of every field.
func TestPolicyKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	config := func(pairs ...string) *config {
		v, _ := parseValue(keyID{kind: kindConfig}, "r:CONFIG", rawHash(pairs...))
		return v.config
	}
	old := config("FLOOR", "0", "ON_EMPTY", "closed", "ALPN", "h2", "PORT", "443")
	is := config("FLOOR", "none", "ON_EMPTY", "", "ALPN", ",", "PORT", "8443")
	if got, want := is.keeping(old, is.bad...).policy(), `0 closed ["h2"] 8443`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// A zone has the defaults, a name only what its own CONFIG says.
func TestPolicyIsOffered(t *testing.T) {
	t.Parallel()
	m := newModel([]string{wire(t, "z.example"), wire(t, "y.example")})
	s := m.apply([]change{
		parsed(t, "y.example:CONFIG", rawHash("SOA", goodSOA)),
		parsed(t, "z.example:CONFIG", rawHash("SOA", goodSOA, "FLOOR", "0", "ON_EMPTY", "closed", "ALPN", "h2", "PORT", "443")),
		parsed(t, "r.z.example:CONFIG", rawHash("FLOOR", "0", "ALPN", "h3,h2")),
		parsed(t, "q.z.example:CONFIG", rawHash("ON_EMPTY", "open", "PORT", "8443")),
	})
	for name, want := range map[string]string{"y.example": `0.5 open [] 0`, "z.example": `0 closed ["h2"] 443`} {
		z := s.Zone([]byte(wire(t, name)))
		if got := fmt.Sprintf("%g %s %q %d", z.Floor, z.OnEmpty, z.ALPN, z.Port); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"r.z.example": `0  ["h3" "h2"] 0`, "q.z.example": `open [] 8443`} {
		n := s.Route(wire(t, name))
		if got := (&config{floor: n.Floor, empty: n.OnEmpty, alpn: n.ALPN, port: n.Port}).policy(); got != want {
			t.Errorf("%s: %s; want %s", name, got, want)
		}
	}
}
