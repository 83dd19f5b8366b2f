package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/upstreams"
)

// TestHoles tells a story: at a time, what the lists have, and what is announced.
func TestHoles(t *testing.T) {
	t.Parallel()
	hs := holes{}
	const longest = time.Hour
	for i, tt := range []struct {
		at     time.Duration
		wanted string // prefixes, with the minute of their end
		limit  int
		want   string
		beyond int
		next   time.Duration // 0: never
	}{
		{0, "", 3, "", 0, 0},
		{0, "192.0.2.9/32 192.0.2.1/32", 3, "192.0.2.1/32 192.0.2.9/32", 0, time.Hour},
		{time.Minute, "192.0.2.9/32 192.0.2.1/32 192.0.2.5/32=10", 3, "192.0.2.1/32 192.0.2.5/32 192.0.2.9/32", 0, 10 * time.Minute},
		// The first ones stay.
		{2 * time.Minute, "192.0.2.9/32 192.0.2.1/32 192.0.2.5/32=10 192.0.2.0/32", 3, "192.0.2.1/32 192.0.2.5/32 192.0.2.9/32", 1, 10 * time.Minute},
		{2 * time.Minute, "192.0.2.9/32 192.0.2.1/32 192.0.2.5/32=10 192.0.2.0/32", 2, "192.0.2.1/32 192.0.2.9/32", 2, 10 * time.Minute},
		// One that has ended makes room.
		{10 * time.Minute, "192.0.2.9/32 192.0.2.1/32 192.0.2.5/32=10 192.0.2.0/32", 3, "192.0.2.0/32 192.0.2.1/32 192.0.2.9/32", 0, time.Hour},
		// One that was taken out and put back begins anew.
		{30 * time.Minute, "192.0.2.1/32", 3, "192.0.2.1/32", 0, time.Hour},
		{40 * time.Minute, "192.0.2.1/32 192.0.2.9/32", 3, "192.0.2.1/32 192.0.2.9/32", 0, time.Hour},
		{time.Hour, "192.0.2.1/32 192.0.2.9/32", 3, "192.0.2.9/32", 0, 100 * time.Minute},
		// An end of its own comes before the longest time, also when it is given later.
		{time.Hour, "192.0.2.1/32=300 192.0.2.9/32", 3, "192.0.2.1/32 192.0.2.9/32", 0, 100 * time.Minute},
		{2 * time.Hour, "192.0.2.1/32=300 192.0.2.9/32", 3, "192.0.2.1/32", 0, 300 * time.Minute},
		{3 * time.Hour, "", 3, "", 0, 0},
	} {
		wanted := map[netip.Prefix]time.Time{}
		for word := range strings.FieldsSeq(tt.wanted) {
			prefix, minutes, ends := strings.Cut(word, "=")
			var until time.Time
			if ends {
				var m int
				if _, err := fmt.Sscan(minutes, &m); err != nil {
					t.Fatal(err)
				}
				until = noon.Add(time.Duration(m) * time.Minute)
			}
			wanted[netip.MustParsePrefix(prefix)] = until
		}
		now := noon.Add(tt.at)
		out, beyond := hs.update(wanted, now, tt.limit, longest)
		var got []string
		for _, p := range out {
			got = append(got, p.String())
		}
		if strings.Join(got, " ") != tt.want || beyond != tt.beyond {
			t.Errorf("%d: %v and %d beyond; want %s and %d", i, got, beyond, tt.want, tt.beyond)
		}
		if next := hs.next(now, longest); tt.next == 0 && !next.IsZero() || tt.next != 0 && !next.Equal(noon.Add(tt.next)) {
			t.Errorf("%d: next at %s", i, next)
		}
	}
}

// TestHolesHold checks what has to hold of every update.
func TestHolesHold(t *testing.T) {
	t.Parallel()
	all := prefixes("192.0.2.0/32", "192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32")
	rapid.Check(t, func(t *rapid.T) {
		hs, now, before := holes{}, noon, []netip.Prefix(nil)
		const longest = time.Minute
		for range rapid.IntRange(1, 20).Draw(t, "updates") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			wanted := map[netip.Prefix]time.Time{}
			for _, p := range rapid.SliceOfDistinct(rapid.SampledFrom(all), rapid.ID).Draw(t, "wanted") {
				wanted[p] = time.Time{}
				if rapid.Bool().Draw(t, "ends") {
					wanted[p] = now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "in")) * time.Second)
				}
			}
			limit := rapid.IntRange(1, 5).Draw(t, "limit")
			out, beyond := hs.update(wanted, now, limit, longest)
			if len(out) > limit || beyond > 0 && len(out) < limit || len(out)+beyond > len(wanted) {
				t.Fatalf("%d of %d, %d beyond, limit %d", len(out), len(wanted), beyond, limit)
			}
			for _, p := range out {
				if _, ok := wanted[p]; !ok || !now.Before(hs[p].end(longest)) {
					t.Fatalf("%s is announced", p)
				}
			}
			for _, p := range before {
				if until, ok := wanted[p]; ok && hs[p].since.Before(now) && now.Before(hs[p].end(longest)) && len(before) <= limit && !slices.Contains(out, p) {
					t.Fatalf("%s was announced before others, and gave way to them (until %s)", p, until)
				}
			}
			if !maps.EqualFunc(hs, wanted, func(h *hole, until time.Time) bool { return h.until.Equal(until) }) {
				t.Fatal("not what the lists have")
			}
			if next := hs.next(now, longest); !next.IsZero() && !now.Before(next) || len(out) > 0 && next.IsZero() {
				t.Fatalf("to come back at %s", next)
			}
			before = out
		}
	})
}

func TestWantedHoles(t *testing.T) {
	t.Parallel()
	hole := func(prefix string, minutes int) upstreams.Blackhole {
		b := upstreams.Blackhole{Prefix: netip.MustParsePrefix(prefix)}
		if minutes != 0 {
			b.Until = noon.Add(time.Duration(minutes) * time.Minute)
		}
		return b
	}
	zones := map[string][]upstreams.Blackhole{
		"a": {
			hole("192.0.2.1/32", 0), hole("192.0.2.2/32", 5), hole("192.0.2.3/32", -5), hole("203.0.113.1/32", 0),
			hole("192.0.2.0/24", 0), hole("198.51.100.0/23", 0), hole("2001:db8:feed::/47", 0), hole("2001:db8:feed:1::/64", 0),
		},
		"b": {hole("192.0.2.1/32", 5), hole("192.0.2.2/32", 10)},
		"c": {hole("192.0.2.2/32", 7)},
	}
	wanted, refused := wantedHoles(maps.All(zones), prefixes("192.0.2.0/24", "198.51.100.0/22", "2001:db8:fe00::/40"), noon)
	want := map[netip.Prefix]time.Time{
		netip.MustParsePrefix("192.0.2.1/32"):         {}, // of two zones the later end
		netip.MustParsePrefix("192.0.2.2/32"):         noon.Add(10 * time.Minute),
		netip.MustParsePrefix("192.0.2.0/24"):         {},
		netip.MustParsePrefix("2001:db8:feed:1::/64"): {},
	}
	if !maps.EqualFunc(wanted, want, time.Time.Equal) {
		t.Errorf("wanted %v", wanted)
	}
	if want := []string{"blackhole 198.51.100.0/23: too wide", "blackhole 2001:db8:feed::/47: too wide"}; !slices.Equal(refused, want) {
		t.Errorf("refused %q", refused)
	}
}
