package probe

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{`plain "text" \`, `plain "text" \`},
		{"a\r\nlevel=ERROR\x1b[31m\x00\x7fü", `a\013\010level=ERROR\027[31m\000\127\195\188`},
		{strings.Repeat("a", 128), strings.Repeat("a", 128)},
		{strings.Repeat("a", 129), strings.Repeat("a", 128) + "..."},
	} {
		if got := printable(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

// checkReason holds what is logged of others' octets to its form.
func checkReason(tb testing.TB, text string) {
	tb.Helper()
	got := printable(text)
	if len(got) > 4*maxReason+len("...") || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
		tb.Errorf("%q: %q", text, got)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("connection refused\n")
	f.Fuzz(func(t *testing.T, text string) { checkReason(t, text) })
}
