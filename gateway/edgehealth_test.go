package gateway

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// What nameservers are told: the way back takes its time, the way out none.
func TestHerald(t *testing.T) {
	t.Parallel()
	const s = time.Second
	type move struct {
		at                       time.Duration
		draining, cannot, before string
		want                     string
	}
	const away = "no session is up"
	for _, tt := range []struct {
		name  string
		moves []move
	}{
		{"a first start", []move{
			{0, "", away, "unknown", " again in 15s"},
			{3 * s, "", "", "unknown", " again in 5s"},
			{8 * s, "", "", "unknown", "up: in service"},
			{time.Hour, "", "", "up", "up: in service"},
		}},
		{"a start without a network", []move{
			{0, "", away, "draining", " again in 15s"},
			{15 * s, "", away, "draining", "down: " + away},
			{20 * s, "", "", "down", "down: announced again, waiting for the network again in 5s"},
			{25 * s, "", "", "down", "up: in service"},
		}},
		{"a restart, or a crash, with the routes kept", []move{
			{0, "", away, "up", " again in 15s"},
			{s, "", "", "up", "up: in service"},
		}},
		{"a fault", []move{
			{0, "", "", "up", "up: in service"},
			{s, "", "x is withdrawn", "up", "down: x is withdrawn"},
			{2 * s, "", "", "up", "down: announced again, waiting for the network again in 5s"},
			{3 * s, "", away, "down", "down: " + away},
			{4 * s, "", "", "down", "down: announced again, waiting for the network again in 5s"},
			{9 * s, "", "", "down", "up: in service"},
		}},
		{"a drain", []move{
			{0, "", "", "up", "up: in service"},
			{s, "cables", "", "up", "draining: cables"},
			{9 * s, "cables", away, "draining", "draining: cables"},
			{10 * s, "", away, "draining", "down: " + away},
			{11 * s, "", "", "down", "down: announced again, waiting for the network again in 5s"},
			{16 * s, "", "", "down", "up: in service"},
		}},
		{"drained from the start", []move{{0, "cables", away, "unknown", "draining: cables"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Name: "west"}
			cfg.Defaults()
			h := newHerald(&cfg, upstreams.Config{}, slog.New(slog.DiscardHandler), func() {})
			for i, m := range tt.moves {
				now := noon.Add(m.at)
				next := h.judge(now, noon, m.draining, m.cannot, upstreams.EdgeHealth(m.before))
				got := ""
				if h.said.Health != "" {
					got = string(h.said.Health) + ": " + h.said.Reason
				}
				if !next.IsZero() {
					got += fmt.Sprintf(" again in %v", next.Sub(now))
				}
				if got != m.want {
					t.Fatalf("move %d: %q; want %q", i, got, m.want)
				}
			}
		})
	}
}

// A pool is away when more than half of it is in a family; a single member that cannot
// be announced is not held against the others.
func TestPoolAway(t *testing.T) {
	t.Parallel()
	const there, lowered, gone = steering.Announced, steering.Lowered, steering.Withdrawn
	for _, tt := range []struct {
		four, six []steering.Presence
		anycast   steering.Presence
		want      string
	}{
		{nil, nil, gone, ""},
		{[]steering.Presence{there, gone}, []steering.Presence{there}, gone, ""},
		{[]steering.Presence{there, lowered, gone}, []steering.Presence{there}, there, "192.0.2.1/32 is lowered: because"},
		{[]steering.Presence{there, there, there}, []steering.Presence{gone}, there, "2001:db8::/128 is withdrawn: because"},
	} {
		p := plan{announcements: []*Announcement{{Prefix: netip.MustParsePrefix("198.51.100.1/32"), presence: tt.anycast}}}
		add := func(at netip.Addr, list []steering.Presence) {
			for _, presence := range list {
				p.announcements = append(p.announcements, &Announcement{
					Prefix: netip.PrefixFrom(at, at.BitLen()), Presence: presence.String(), Reason: "because", presence: presence, pool: true,
				})
				at = at.Next()
			}
		}
		add(netip.MustParseAddr("192.0.2.0"), tt.four)
		add(netip.MustParseAddr("2001:db8::"), tt.six)
		if got := p.poolAway(); got != tt.want {
			t.Errorf("%v %v: %q, want %q", tt.four, tt.six, got, tt.want)
		}
	}
}

// Resolvers are waited for as long as they may answer the pool, and not for ever; what
// others announce too waits for nobody.
func TestDrainWaitsForResolvers(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tt := range []struct {
		name    string
		forget  time.Duration
		unasked time.Duration // after the beginning; negative is never
		hurry   bool
		want    time.Duration
	}{
		{"nobody to wait for", 0, -1, false, 5 * s},
		{"a short TTL", 2 * s, 0, false, 5 * s},
		{"a TTL of a minute", 61 * s, 0, false, 61 * s},
		{"nameservers heard of it late", 61 * s, 10 * s, false, 71 * s},
		{"nameservers cannot be told", 61 * s, -1, false, 300 * s},
		{"a long TTL", 3601 * s, 0, false, 300 * s},
		{"a second signal", 61 * s, 0, true, 0},
	} {
		d := newDrill()
		d.config.Forget = 300 * s
		d.byHand, d.forget = "cables", tt.forget
		d.does(0, false)
		if tt.unasked >= 0 {
			d.unasked = noon.Add(tt.unasked)
		}
		d.hurry = tt.hurry
		for d.stage == steering.Leaving {
			_, _, next := d.step(d.now, false)
			if want := d.now.Sub(noon) >= 5*s; !tt.hurry && (d.anycast(d.now) == steering.OutOfTheWay) != want {
				t.Fatalf("%s: after %v anycast prefixes are withdrawn: %v", tt.name, d.now.Sub(noon), !want)
			}
			if d.stage == steering.Leaving {
				d.now = next
			}
		}
		if got := d.now.Sub(noon); got != tt.want {
			t.Errorf("%s: withdrawn after %v, want %v", tt.name, got, tt.want)
		}
	}
}
