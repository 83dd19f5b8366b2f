package upstreams

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func respReader(s string) *bufio.Reader { return bufio.NewReaderSize(strings.NewReader(s), 64<<10) }

func TestReadRESP(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200_000)
	for _, tt := range []struct {
		name, in string
		want     any
	}{
		{"simple string", "+OK\r\n", "OK"},
		{"empty simple string", "+\r\n", ""},
		{"error", "-ERR unknown command\r\n", respError("ERR unknown command")},
		{"number", ":-42\r\n", int64(-42)},
		{"double", ",1.5\r\n", "1.5"},
		{"big number", "(123456789012345678901234567890\r\n", "123456789012345678901234567890"},
		{"null", "_\r\n", nil},
		{"true", "#t\r\n", true},
		{"false", "#f\r\n", false},
		{"bulk", "$5\r\nhe\r\no\r\n", "he\r\no"},
		{"empty bulk", "$0\r\n\r\n", ""},
		{"null bulk", "$-1\r\n", nil},
		{"bulk over several chunks", "$200000\r\n" + long + "\r\n", long},
		{"verbatim", "=7\r\ntxt:abc\r\n", "txt:abc"},
		{"bulk error", "!3\r\nERR\r\n", "ERR"},
		{"array", "*3\r\n:1\r\n$1\r\na\r\n_\r\n", []any{int64(1), "a", nil}},
		{"empty array", "*0\r\n", []any{}},
		{"null array", "*-1\r\n", nil},
		{"set", "~1\r\n+a\r\n", []any{"a"}},
		{"map", "%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n", []any{"a", int64(1), "b", int64(2)}},
		{"push", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", respPush{"invalidate", []any{"k"}}},
		{"push with null", ">2\r\n$10\r\ninvalidate\r\n_\r\n", respPush{"invalidate", nil}},
		{"nested as deep as allowed", strings.Repeat("*1\r\n", 8) + "+a\r\n", []any{[]any{[]any{[]any{[]any{[]any{[]any{[]any{"a"}}}}}}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := respReader(tt.in + "+next\r\n")
			got, err := readRESP(r)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("%#v, %v; want %#v", got, err, tt.want)
			}
			if next, err := readRESP(r); next != "next" || err != nil {
				t.Errorf("what follows reads %#v, %v", next, err)
			}
			for n := range min(len(tt.in), 300) {
				if v, err := readRESP(respReader(tt.in[:n])); err == nil {
					t.Fatalf("the first %d octets read %#v", n, v)
				}
			}
		})
	}
}

func TestBadRESP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		err      error // nil: any
	}{
		{"bad nothing", "", io.EOF},
		{"bad type", "?\r\n", errRESP},
		{"bad attribute", "|1\r\n+a\r\n+b\r\n", errRESP},
		{"bad empty line", "\r\n", errRESP},
		{"bad line end", "+OK\n", errRESP},
		{"bad line without an end", "+OK", nil},
		{"bad line longer than the buffer", "+" + strings.Repeat("x", 70_000) + "\r\n", errRESP},
		{"bad number", ":a\r\n", nil},
		{"bad number of 65 bits", ":18446744073709551616\r\n", nil},
		{"bad bulk length", "$a\r\n", errRESP},
		{"bad empty length", "$\r\n", errRESP},
		{"bad negative length", "$-2\r\n", errRESP},
		{"bad length above Redis' own", "$536870913\r\n", errRESP},
		{"bad length of 65 bits", "$18446744073709551616\r\n", errRESP},
		{"bad bulk cut off", "$5\r\nab", io.ErrUnexpectedEOF},
		{"bad bulk longer than told", "$2\r\nabc\r\n", errRESP},
		{"bad bulk end", "$2\r\nab\n\n", errRESP},
		{"bad item count", "*268435457\r\n", errRESP},
		{"bad negative item count", "*-2\r\n", errRESP},
		{"bad item", "*1\r\n?\r\n", errRESP},
		{"bad false item count", "*1000\r\n+a\r\n", nil},
		{"bad map with half a pair", "%1\r\n+a\r\n", nil},
		{"bad depth", strings.Repeat("*1\r\n", 9) + "+a\r\n", errRESP},
		{"bad push", ">1\r\n?\r\n", errRESP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := readRESP(respReader(tt.in))
			if err == nil || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("%#v, %v; want the error %v", v, err, tt.err)
			}
		})
	}
}

// TestFalseLengthsCostNothing reads lengths that nothing follows.
func TestFalseLengthsCostNothing(t *testing.T) { // not parallel: it counts memory
	for _, in := range []string{
		"$536870912\r\n", "$536870912\r\nab", "*268435456\r\n", "%268435456\r\n", ">268435456\r\n",
		strings.Repeat("*268435456\r\n", 9), strings.Repeat("%268435456\r\n", 9), "*268435456\r\n" + strings.Repeat("$536870912\r\n", 10),
	} {
		before := allocated()
		if v, err := readRESP(respReader(in)); err == nil {
			t.Errorf("%.20q reads %#v", in, v)
		}
		if cost := allocated() - before; cost > 1<<20 {
			t.Errorf("%.20q costs %d octets", in, cost)
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestAppendCommand(t *testing.T) {
	t.Parallel()
	got := string(appendCommand([]byte("x"), "SET", "k", "", "a\r\nb"))
	if want := "x*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n$4\r\na\r\nb\r\n"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
	v, err := readRESP(respReader(got[1:]))
	if want := []any{"SET", "k", "", "a\r\nb"}; err != nil || !reflect.DeepEqual(v, want) {
		t.Errorf("read again: %#v, %v", v, err)
	}
}

func FuzzRESP(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", "-ERR\r\n", ":1\r\n", "_\r\n", "#t\r\n", "$2\r\nab\r\n", "$-1\r\n", "*2\r\n+a\r\n:1\r\n", "%1\r\n+a\r\n+b\r\n",
		">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "*268435456\r\n*268435456\r\n", "$536870912\r\n", "*1\r\n*1\r\n*1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 64<<10)
		before := allocated()
		for {
			v, err := readRESP(r)
			if err != nil {
				break
			}
			if push, ok := v.(respPush); ok {
				tr := &tracker{keys: map[string]bool{}}
				tr.invalidate(push)
			}
		}
		// Depth × the first allocation of an array, and a multiple of what is there.
		if cost, limit := allocated()-before, uint64(2<<20+200*len(data)); cost > limit {
			t.Fatalf("%d octets cost %d; at most %d", len(data), cost, limit)
		}
	})
}
