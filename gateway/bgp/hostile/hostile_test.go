package hostile

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	gobgp "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

func TestCases(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	first := Cases()
	for i, c := range Cases() {
		if names[c.Name] {
			t.Errorf("%s twice", c.Name)
		}
		names[c.Name] = true
		if string(c.Bytes) != string(first[i].Bytes) {
			t.Errorf("%s is another one each time", c.Name)
		}
		if c.Survives && (len(c.Bytes) > maxMessage || int(binary.BigEndian.Uint16(c.Bytes[16:])) != len(c.Bytes)) {
			t.Errorf("%s has a broken header, and nobody survives that", c.Name)
		}
	}
}

// The cases are worth their place: the library that the gateway has behind its own
// reading panics on many of them, in many places.
func TestPanicsOfTheLibrary(t *testing.T) {
	t.Parallel()
	places, total := map[string]int{}, 0
	for _, c := range Cases() {
		place := panics(c.Bytes)
		if place == "" {
			continue
		}
		if places[place]++; places[place] == 1 {
			t.Logf("%s: %s", place, c.Name)
		}
		total++
	}
	t.Logf("%d panics in %d places", total, len(places))
	if total < 30 || len(places) < 3 {
		t.Errorf("the library panics on %d cases, in %d places", total, len(places))
	}
}

// panics says where the library's parser does, or nothing.
func panics(b []byte) (place string) {
	defer func() {
		if recover() == nil {
			return
		}
		callers := make([]uintptr, 32)
		frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
		for more := true; more && place == ""; {
			var f runtime.Frame
			f, more = frames.Next()
			if _, name, ok := strings.Cut(f.Function, "osrg/gobgp/v3/pkg/packet/bgp."); ok {
				place = name
			}
		}
	}()
	_, _ = gobgp.ParseBGPMessage(b)
	return ""
}
