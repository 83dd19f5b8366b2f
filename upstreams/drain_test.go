package upstreams

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// edgeModel has two zones, with edges, groups, and names that lead out of them.
func edgeModel(t *testing.T) *model {
	t.Helper()
	m := newModel([]string{wire(t, "z.example"), wire(t, "y.example")})
	m.now = func() time.Time { return worldDay }
	m.apply([]change{
		parsed(t, "z.example:CONFIG", rawHash("SOA", goodSOA, "TTL", "30")),
		parsed(t, "y.example:CONFIG", rawHash("SOA", goodSOA, "TTL", "300")),
		parsed(t, "z.example:AAAA:BLACKHOLE", rawSet("2001:db8::9")),
		parsed(t, "all.z.example:EDGES", rawSet("east", "west", "none")),
		parsed(t, "own.z.example:EDGES", rawSet("west")),
		parsed(t, "own.z.example:A", rawSet("192.0.2.8", "192.0.2.9", "192.0.2.10")),
		parsed(t, "led.elsewhere:EDGES", rawSet("far")),
		parsed(t, "shop.y.example", rawText("led.elsewhere")),
		parsed(t, "cafe.y.example", rawText("both")),
		parsed(t, "lost.elsewhere:EDGES", rawSet("lost")),
		parsed(t, "all2.z.example:EDGES", rawSet("both", "west")),
		parsed(t, "east:A", rawSet("192.0.2.1", "192.0.2.2", "192.0.2.3")),
		parsed(t, "east:AAAA", rawSet("2001:db8::1")),
		parsed(t, "west:A", rawSet("192.0.2.4")),
		parsed(t, "west:AAAA", rawSet("2001:db8::9")),
		parsed(t, "far:A", rawSet("192.0.2.5")),
		parsed(t, "lost:A", rawSet("192.0.2.6")),
		parsed(t, "both:A", rawSet("192.0.2.7")),
		parsed(t, "lost:STATE", rawText("drained since=2026-11-21T05:31:00Z")),
	})
	return m
}

func TestEdgeRows(t *testing.T) {
	t.Parallel()
	var got []string
	for _, e := range edgeModel(t).edges() {
		got = append(got, fmt.Sprintf("%s in %s: %d %s, %d %s, %s", e.Name, e.Route, e.A.Members, percent(e.A.Share), e.AAAA.Members, percent(e.AAAA.Share), e.State))
	}
	want := []string{
		"both in all2.z.example: 1 50%, 0 0%, active",
		"both in both: 1 100%, 0 0%, active", // a name leads to it
		"east in all.z.example: 3 75%, 1 100%, active",
		"far in led.elsewhere: 1 100%, 0 0%, active",
		"lost in lost.elsewhere: 1 0%, 0 0%, drained",
		"none in all.z.example: 0 0%, 0 0%, active",
		"own.z.example in own.z.example: 3 75%, 0 0%, active",
		"west in all.z.example: 1 25%, 1 0%, active", // its IPv6 address is attacked
		"west in all2.z.example: 1 50%, 1 0%, active",
		"west in own.z.example: 1 25%, 1 0%, active",
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("%s\nwant\n%s", g, w)
	}
	if got := drainedRoutes(edgeModel(t).edges()); fmt.Sprint(got) != "[lost.elsewhere]" {
		t.Errorf("drained as a whole: %v", got)
	}
}

func TestStarvedAndForgotten(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		edge, starved string
		ttl           uint32 // 0 where no zone answers it
	}{
		{"east", "AAAA query for all.z.example", 30}, // all that is left is attacked
		{"west", "", 30},
		{"own.z.example", "", 30},
		{"far", "query for led.elsewhere", 300},
		{"both", "query for both", 300},
		{"lost", "", 0}, // is drained
		{"none", "", 30},
	} {
		m := edgeModel(t)
		edge := wire(t, tt.edge)
		routes := m.routesWith(edge)
		if ttl, ok := m.largestTTL(routes); ttl != tt.ttl || ok != (tt.ttl > 0) {
			t.Errorf("%s: TTL %d, %v; want %d", tt.edge, ttl, ok, tt.ttl)
		}
		if got := strings.Join(m.starved(edge, routes), ", "); got != tt.starved {
			t.Errorf("%s: starved %q; want %q", tt.edge, got, tt.starved)
		}
	}
}
