package ra

import (
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/ndp"
)

var (
	router  = netip.MustParseAddr("fe80::1")
	another = netip.MustParseAddr("fe80::2")
	third   = netip.MustParseAddr("fe80::3")
)

// solicitation and advertisement with the sender's link-layer address.
var (
	solicitation  = append([]byte{133, 0, 0, 0, 0, 0, 0, 0}, linkLayer...)
	advertisement = append([]byte{134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, linkLayer...)
	linkLayer     = []byte{1, 1, 2, 0, 0, 0, 0, 1}
)

func TestValid(t *testing.T) {
	t.Parallel()
	coded := append([]byte{134, 1}, advertisement[2:]...)
	empty := append(advertisement[:16:16], 1, 0)
	for _, tt := range []struct {
		name   string
		b      []byte
		hops   int
		source netip.Addr
		want   bool
	}{
		{"advertisement", advertisement, 255, router, true},
		{"advertisement without options", advertisement[:16], 255, router, true},
		{"advertisement from afar", advertisement, 254, router, false},
		{"advertisement of a global address", advertisement, 255, netip.MustParseAddr("2001:db8::1"), false},
		{"advertisement of nobody", advertisement, 255, netip.IPv6Unspecified(), false},
		{"advertisement with a code", coded, 255, router, false},
		{"advertisement cut short", advertisement[:15], 255, router, false},
		{"advertisement with an option cut short", advertisement[:23], 255, router, false},
		{"advertisement with an option of no length", empty, 255, router, false},
		{"solicitation", solicitation, 255, router, true},
		{"solicitation of a global address", solicitation, 255, netip.MustParseAddr("2001:db8::1"), true},
		{"solicitation of nobody", solicitation[:8], 255, netip.IPv6Unspecified(), true},
		{"solicitation of nobody who has an address", solicitation, 255, netip.IPv6Unspecified(), false},
		{"solicitation from afar", solicitation, 64, router, false},
		{"neighbor solicitation", append([]byte{135}, make([]byte, 23)...), 255, router, false},
		{"nothing", nil, 255, router, false},
	} {
		if got := valid(tt.b, tt.hops, tt.source) != nil; got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func FuzzValid(f *testing.F) {
	f.Add(solicitation)
	f.Add(advertisement)
	f.Fuzz(func(t *testing.T, b []byte) {
		switch m := valid(b, ndp.HopLimit, router).(type) {
		case nil, *ndp.RouterAdvertisement, *ndp.RouterSolicitation:
		default:
			t.Errorf("%T", m)
		}
	})
}

func TestTimetable(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var tt timetable
	sent := func(random float64) time.Duration {
		t.Helper()
		if !tt.due(now) {
			t.Fatal("not due")
		}
		tt.sent(now, random)
		gap := tt.next.Sub(now)
		if tt.due(tt.next.Add(-1)) {
			t.Error("due too soon")
		}
		now = tt.next
		return gap
	}
	for i, want := range []time.Duration{pause, pause, interval, interval + spread/2} {
		if got := sent([]float64{0.9, 0.9, 0, 0.5}[i]); got != want {
			t.Errorf("pause %d is %v, want %v", i, got, want)
		}
	}
	sent(0)
	tt.sent(now, 0)
	tt.hurry() // at once after the last one
	if tt.next != now.Add(pause) {
		t.Errorf("asked for, it comes after %v", tt.next.Sub(now))
	}
	tt.hurry()
	if tt.next != now.Add(pause) {
		t.Error("asked for twice, it comes at another time")
	}
	tt.sent(now, 0)
	now = now.Add(2 * time.Second)
	tt.hurry()
	if !tt.due(now) {
		t.Error("asked for, it does not come at once")
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	type heard struct {
		from netip.Addr
		at   int // seconds
		peer netip.Addr
		news bool
		asks bool
	}
	for name, story := range map[string][]heard{
		"one":         {{router, 0, router, false, false}, {router, 900, router, false, false}},
		"replaced":    {{router, 0, router, false, false}, {another, 60, router, true, true}, {another, 69, router, false, true}, {another, 70, another, false, false}},
		"two":         {{router, 0, router, false, false}, {another, 1, router, true, true}, {router, 2, router, false, false}, {another, 30, router, false, true}, {router, 39, router, false, false}, {another, 41, router, false, true}},
		"three":       {{router, 0, router, false, false}, {another, 1, router, true, true}, {third, 6, router, false, true}, {another, 12, another, false, false}, {third, 13, another, true, true}},
		"back again":  {{router, 0, router, false, false}, {another, 1, router, true, true}, {another, 11, another, false, false}, {router, 12, another, true, true}, {router, 22, router, false, false}},
		"said nought": {{router, 0, router, false, false}, {another, 1, router, true, true}, {another, 900, another, false, false}},
	} {
		var c choice
		start := time.Now()
		if !c.wanted() {
			t.Error("with no peer nobody is asked")
		}
		for i, h := range story {
			news := c.hear(h.from, start.Add(time.Duration(h.at)*time.Second))
			if c.peer != h.peer || news != h.news || c.wanted() != h.asks {
				t.Errorf("%s: step %d: peer %v, news %v, asks %v", name, i, c.peer, news, c.wanted())
			}
		}
	}
}
