package upstreams

import (
	"errors"
	"strings"
	"testing"
)

// wire is the wire form of a name that the test knows to be good.
func wire(tb testing.TB, text string) string {
	tb.Helper()
	w, err := WireName(text)
	if err != nil {
		tb.Fatalf("WireName(%q): %v", text, err)
	}
	return w
}

func TestWireName(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("a", 63)
	// 3 × 64 + 62 + 1 = 255 octets.
	name255 := strings.Repeat(label63+".", 3) + strings.Repeat("a", 61)
	for _, tt := range []struct {
		name, text, want string
		err              error
	}{
		{"one label", "example", "\x07example\x00", nil},
		{"labels", "a.bc.def", "\x01a\x02bc\x03def\x00", nil},
		{"case", "Node1.ROUTE.Example", "\x05node1\x05route\x07example\x00", nil},
		{"underscore, hyphen, digit", "_a-1", "\x04_a-1\x00", nil},
		{"escaped dot", `a\.b.c`, "\x03a.b\x01c\x00", nil},
		{"escaped backslash", `a\\b`, "\x03a\\b\x00", nil},
		{"decimal escape", `a\046b`, "\x03a.b\x00", nil},
		{"decimal escape of a capital is folded", `\065`, "\x01a\x00", nil},
		{"NUL by escape", `a\000b`, "\x03a\x00b\x00", nil},
		{"space by escape", `a\032b`, "\x03a b\x00", nil},
		{"escaped space", `a\ b`, "\x03a b\x00", nil},
		{"255 by escape", `\255`, "\x01\xff\x00", nil},
		{"octets above ASCII are not folded", "\xc3\x84", "\x02\xc3\x84\x00", nil},
		{"label of 63", label63, "\x3f" + label63 + "\x00", nil},
		{"name of 255", name255, strings.Repeat("\x3f"+label63, 3) + "\x3d" + strings.Repeat("a", 61) + "\x00", nil},
		{"127 labels", strings.Repeat("a.", 126) + "a", strings.Repeat("\x01a", 127) + "\x00", nil},

		{"bad empty", "", "", errEmptyName},
		{"bad root", ".", "", errEmptyLabel},
		{"bad final dot", "a.", "", errEmptyLabel},
		{"bad first dot", ".a", "", errEmptyLabel},
		{"bad two dots", "a..b", "", errEmptyLabel},
		{"bad label of 64", label63 + "a", "", errLongLabel},
		{"bad label of 256, whose low octet is 0", strings.Repeat("a", 256), "", errLongLabel},
		{"bad name of 256", name255 + "a", "", errLongName},
		{"bad 128 labels", strings.Repeat("a.", 127) + "a", "", errLongName},
		{"bad escape at the end", `a\`, "", errEscape},
		{"bad escape of two digits", `a\04`, "", errEscape},
		{"bad escape with a letter", `a\04b`, "", errEscape},
		{"bad escape above 255", `a\256`, "", errEscape},
		{"bad space", "a b", "", errNameOctet},
		{"bad space in front", " a", "", errNameOctet},
		{"bad tab", "a\tb", "", errNameOctet},
		{"bad NUL", "a\x00b", "", errNameOctet},
		{"bad DEL", "a\x7fb", "", errNameOctet},
		{"bad newline at the end", "a\n", "", errNameOctet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := WireName(tt.text)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("WireName(%q) = %q, %v; want %q, %v", tt.text, got, err, tt.want, tt.err)
			}
		})
	}
}

func TestNameText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, wire, want string }{
		{"labels", "\x01a\x02bc\x00", "a.bc"},
		{"root", "\x00", ""},
		{"nothing", "", ""},
		{"dot in a label", "\x03a.b\x01c\x00", `a\.b.c`},
		{"backslash", "\x01\\\x00", `\\`},
		{"NUL, space, DEL, 255", "\x04\x00 \x7f\xff\x00", `\000\032\127\255`},
		{"punctuation", "\x03_-*\x00", "_-*"},
		{"cut off", "\x05ab", ""},
		{"cut off behind a label", "\x01a\x05b", "a"},
		{"no root label", "\x01a", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := NameText(tt.wire); got != tt.want {
				t.Errorf("NameText(%q) = %q; want %q", tt.wire, got, tt.want)
			}
		})
	}
}

func TestParentAndLabels(t *testing.T) {
	t.Parallel()
	name := wire(t, "a.bc.def")
	for i, want := range []string{"bc.def", "def", "", ""} {
		if n := labels(name); n != max(3-i, 0) {
			t.Errorf("labels(%q) = %d", name, n)
		}
		name = parent(name)
		if got := NameText(name); got != want {
			t.Errorf("parent %d is %q; want %q", i, got, want)
		}
	}
}

func TestTrimDot(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"a.example.", "a.example"},
		{"a.example", "a.example"},
		{".", ""},
		{"", ""},
		{"a..", "a."},
		{`a\.`, `a\.`},     // the dot belongs to the label
		{`a\\.`, `a\\`},    // the backslash does
		{`a\\\.`, `a\\\.`}, // both do
		{`a\..`, `a\.`},
	} {
		if got := trimDot(tt.text); got != tt.want {
			t.Errorf("trimDot(%q) = %q; want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzWireName(f *testing.F) {
	for _, seed := range []string{
		"", ".", "example.org", `a\.b\\c\000\255`, `a\`, "A.B", "a..b", "\x07example\x00", "\xff\x00",
		strings.Repeat("a", 64), strings.Repeat("a.", 130), `x\058y`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_ = NameText(s) // of anything: no panic, and it ends
		w, err := WireName(s)
		if err != nil {
			if w != "" {
				t.Fatalf("WireName(%q) gives %q beside %v", s, w, err)
			}
			return
		}
		if len(w) > maxName || w[len(w)-1] != 0 {
			t.Fatalf("WireName(%q) = %q", s, w)
		}
		n := 0
		for up := w; len(up) > 1; up = parent(up) {
			if up[0] == 0 || up[0] > maxLabel || int(up[0])+1 >= len(up) {
				t.Fatalf("WireName(%q) = %q: label %q", s, w, up)
			}
			n++
		}
		if labels(w) != n || n > 127 {
			t.Fatalf("labels(%q) = %d; want %d", w, labels(w), n)
		}
		text := NameText(w)
		if again, err := WireName(text); err != nil || again != w {
			t.Fatalf("WireName(NameText(%q)) = %q, %v by way of %q", w, again, err, text)
		}
		if again, err := WireName(trimDot(text)); err != nil || again != w {
			t.Fatalf("the text %q of %q lost a dot: %q, %v", text, w, again, err)
		}
		if again, err := WireName(trimDot(text + ".")); err != nil || again != w {
			t.Fatalf("the text %q. of %q: %q, %v", text, w, again, err)
		}
	})
}
