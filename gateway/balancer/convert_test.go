package balancer

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

var (
	u8  = &btf.Int{Name: "unsigned char", Size: 1, Encoding: btf.Unsigned}
	u16 = &btf.Int{Name: "unsigned short", Size: 2, Encoding: btf.Unsigned}
	u32 = &btf.Int{Name: "unsigned int", Size: 4, Encoding: btf.Unsigned}
	i32 = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	i16 = &btf.Int{Name: "short", Size: 2, Encoding: btf.Signed}
	be2 = &btf.Typedef{Name: "__be16", Type: u16}
	be4 = &btf.Typedef{Name: "__be32", Type: u32}
)

// structure has fields one behind the other, by names and types in turn.
func structure(fields ...any) *btf.Struct {
	s := &btf.Struct{Name: "s"}
	for i := 0; i < len(fields); i += 2 {
		t := fields[i+1].(btf.Type)
		size, err := btf.Sizeof(t)
		if err != nil {
			panic(err)
		}
		s.Members = append(s.Members, btf.Member{Name: fields[i].(string), Type: t, Offset: btf.Bits(8 * s.Size)})
		s.Size += uint32(size)
	}
	return s
}

func arrayOf(n uint32, of btf.Type) *btf.Array { return &btf.Array{Index: u32, Type: of, Nelems: n} }

func TestConversion(t *testing.T) {
	t.Parallel()
	inner := structure("x", u16, "y", u16)
	for name, c := range map[string]struct {
		was, is    *btf.Struct
		from, want string
		wrong      string
	}{
		"the same":          {structure("a", u32, "b", u16), structure("a", u32, "b", u16), "AAAABB", "AAAABB", ""},
		"another order":     {structure("a", u32, "b", u16), structure("b", u16, "a", u32), "AAAABB", "BBAAAA", ""},
		"one more, one off": {structure("a", u32, "b", u16), structure("c", u16, "b", u16), "AAAABB", "\x00\x00BB", ""},
		"spare":             {structure("a", u16, "spare", u16), structure("spare", u32, "a", u16), "AABB", "\x00\x00\x00\x00AA", ""},
		"wider":             {structure("a", u16, "b", u8), structure("a", u32, "b", u8), "AAB", "AA\x00\x00B", ""},
		"narrower":          {structure("a", u32, "b", u8), structure("a", u16, "b", u8), "AA\x00\x00B", "AAB", ""},
		"too narrow":        {structure("a", u32), structure("a", u16), "AAA\x00", "", "too large"},
		"longer text":       {structure("a", arrayOf(2, u8)), structure("a", arrayOf(4, u8)), "AB", "AB\x00\x00", ""},
		"shorter text":      {structure("a", arrayOf(4, u8), "b", u8), structure("a", arrayOf(2, u8), "b", u8), "AB\x00\x00C", "ABC", ""},
		"too short a text":  {structure("a", arrayOf(4, u8)), structure("a", arrayOf(2, u8)), "ABC\x00", "", "too large"},
		"inside of others":  {structure("a", arrayOf(2, inner)), structure("a", arrayOf(2, structure("y", u16, "x", u16))), "XXYYxxyy", "YYXXyyxx", ""},
		"a union":           {structure("a", &btf.Union{Size: 2}), structure("b", u8, "a", &btf.Union{Size: 2}), "AA", "\x00AA", ""},
		"other elements":    {structure("a", arrayOf(2, u32)), structure("a", arrayOf(4, u16)), "", "", "s.a had 2 elements and has 4"},
		"another kind":      {structure("a", u32), structure("a", arrayOf(4, u8)), "", "", "s.a was"},
		"another union":     {structure("a", &btf.Union{Size: 2}), structure("a", &btf.Union{Size: 4}), "", "", "s.a was"},
		"a number before":   {structure("a", inner), structure("a", u32), "", "", "s.a was"},
		"with a sign":       {structure("a", i16), structure("a", i32), "", "", "s.a had 2 bytes and has 4"},
		"of the wire":       {structure("a", be2), structure("a", be4), "", "", "s.a had 2 bytes and has 4"},
		"without a name":    {structure("", u16), structure("", u16), "", "", "without a name"},
	} {
		conversion, err := newConversion(c.is, c.was)
		var got []byte
		if err == nil {
			got, err = conversion.convert([]byte(c.from))
		}
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v, want %q", name, err, c.wrong)
			}
			if c.wrong == "too large" && !errors.Is(err, errTooLarge) {
				t.Errorf("%s: %v", name, err)
			}
		} else if err != nil || !bytes.Equal(got, []byte(c.want)) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}
