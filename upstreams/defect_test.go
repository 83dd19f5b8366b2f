package upstreams

import (
	"strings"
	"testing"
)

func TestDefectString(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		defect Defect
		want   string
	}{
		{"all", Defect{"r.example:A", "192.0.2.01", "leading zero", "an address"}, `r.example:A: "192.0.2.01": leading zero; want an address`},
		{"whole key", Defect{Key: "r.example:A", Reason: "wrong type", Want: "a set"}, "r.example:A: wrong type; want a set"},
		{"no want", Defect{Key: "x", Reason: "no such route in Redis"}, "x: no such route in Redis"},
		{"control characters", Defect{"a\x1b[31m:A", "b\nc", "d\x1be", "f"}, `a\027[31m:A: "b\010c": d\027e; want f`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.defect.String(); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			if got := tt.defect.Error(); got != tt.want {
				t.Errorf("as an error: %s", got)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxPrintable)
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"a ~", "a ~"},
		{"\x00\t\n\x1b\x7f\xff", `\000\009\010\027\127\255`},
		{"é", `\195\169`},
		{long, long},
		{long + "y", long + "…"},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("Printable(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}
