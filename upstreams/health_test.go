package upstreams

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseHealth(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 200)
	for _, tt := range []struct{ text, want, bad string }{
		{"up", "up", ""},
		{"down", "down", ""},
		{" draining  at=2026-11-21T07:31:00.5+02:00 ", "draining at=2026-11-21T05:31:00.5Z", ""},
		{"up since=2026-11-21T05:31:00Z at=2026-11-21T05:31:00Z", "up at=2026-11-21T05:31:00Z since=2026-11-21T05:31:00Z", ""},
		{"down reason=no session is up, at=8", "down reason=no session is up, at=8", ""},
		{"down reason=a\x00b\nc ", "down reason=a b c", ""},
		{"down reason=" + long, "down reason=" + long[:256], ""},
		{"down at=now reason=x", "down reason=x", "at=now: not a time"},
		{"down until=2026-11-21T05:31:00Z", "down", "until=2026-11-21T05:31:00Z: unknown attribute"},
		{"unknown", "", "unknown health"},
		{"Up", "", "unknown health"},
		{"", "", "unknown health"},
		{"at=2026-11-21T05:31:00Z", "", "unknown health"},
		{"reason=up", "", "unknown health"},
	} {
		v, defects := parseValue(keyID{kind: kindHealth}, "e:HEALTH", rawText(tt.text))
		got, bad := "", ""
		if v != nil {
			got = v.said.String()
		}
		for _, d := range defects {
			if d.Key != "e:HEALTH" || d.Member != tt.text || d.Want == "" {
				t.Errorf("%q: defect %+v", tt.text, d)
			}
			bad += d.Reason
		}
		if got != tt.want || bad != tt.bad {
			t.Errorf("%q: %q, defect %q; want %q, %q", tt.text, got, bad, tt.want, tt.bad)
		}
	}
}

// Skip list, then admin state, then health, of which alone FLOOR and ON_EMPTY are.
func TestHealthOfRoutes(t *testing.T) {
	t.Parallel()
	m := newModel([]string{wire(t, "z.example")})
	m.apply([]change{
		parsed(t, "z.example:CONFIG", rawHash("SOA", goodSOA)),
		parsed(t, "west:A", rawSet("192.0.2.1", "192.0.2.2")),
		parsed(t, "west:AAAA", rawSet("2001:db8::1")),
		parsed(t, "east:A", rawSet("192.0.2.2", "192.0.2.3")),
		parsed(t, "north:A", rawSet("192.0.2.4")),
		parsed(t, "r.z.example:EDGES", rawSet("west", "east", "north")),
	})
	const (
		all    = "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 2001:db8::1"
		closed = "closed"
	)
	below := "[r.z.example]"
	for i, tt := range []struct{ key, text, want, below string }{
		{"x:HEALTH", "down", all, "[]"},
		{"west:HEALTH", "up", all, "[]"},
		{"north:HEALTH", "down", "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", "[]"},
		{"east:HEALTH", "down", "192.0.2.1 192.0.2.2 2001:db8::1", "[]"}, // 2 of 4 are not below a half
		{"west:HEALTH", "down", all, below},
		{"r.z.example:CONFIG", closed, "", below},
		{"west:STATE", "draining", "", below},
		{"east:HEALTH", "up", "192.0.2.2 192.0.2.3", "[]"},
		{"west:STATE", "active", "192.0.2.2 192.0.2.3", below}, // of AAAA nothing is healthy
		{"r.z.example:CONFIG", "open", "192.0.2.2 192.0.2.3 2001:db8::1", below},
		{"z.example:A:SKIPLIST", "192.0.2.3", "192.0.2.1 192.0.2.2 192.0.2.4 2001:db8::1", below}, // 1 of 3
		{"r.z.example:CONFIG", "floor", "192.0.2.2 2001:db8::1", below},
		{"z.example:A:SKIPLIST", "192.0.2.2/31", "192.0.2.1 192.0.2.4 2001:db8::1", below}, // nothing healthy is left
		{"west:HEALTH", "draining", "192.0.2.4 2001:db8::1", below},
		{"north:HEALTH", "draining", "2001:db8::1", below}, // east stays, and is skipped; of AAAA there is west alone
	} {
		r := rawText(tt.text)
		switch {
		case strings.HasSuffix(tt.key, ":CONFIG"):
			r = map[string]raw{closed: rawHash("ON_EMPTY", "closed"), "open": rawHash("TTL", "60"), "floor": rawHash("FLOOR", "0.3")}[tt.text]
		case strings.HasSuffix(tt.key, "SKIPLIST"):
			r = rawSet(tt.text)
		}
		c := parsed(t, tt.key, r)
		changes := []change{c}
		if c.value.said != nil { // twice is believed
			again := *c.value.said
			again.Reason = "again"
			changes = append(changes, change{c.id, &value{said: &again}})
		}
		s := m.apply(changes)
		if got := answered(s, "r.z.example"); got != tt.want || fmt.Sprint(s.BelowFloor) != tt.below {
			t.Fatalf("%d: after %s %s: %q, below FLOOR %v; want %q, %s", i, tt.key, tt.text, got, s.BelowFloor, tt.want, tt.below)
		}
	}
	if got := fmt.Sprint(m.snapshot.Edges); got != "map[down:1 draining:2 up:1]" {
		t.Error(got)
	}
}

// A mass loss that is held takes no edge's health, nor does it make one silent.
func TestHealthOutlivesHold(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(10)
	say := func(edge, word, at string) { s.doArgs("SET", edge+":HEALTH", word+" at=2026-11-21T05:31:"+at+"Z") }
	say("west", "down", "00")
	say("east", "up", "00")
	s.rescanned("start")
	s.do("FLUSHALL")
	s.rescanned(causeFlush)
	if s.session.Health().Hold == "" {
		t.Fatal("no hold")
	}
	for _, at := range []string{"02", "04", "06"} {
		say("east", "up", at) // the other gateway finds Redis later
		s.rescanned("beat")
	}
	if got := s.following.Snapshot().Edges; got[EdgeUp] != 1 || got[EdgeDown] != 1 {
		t.Errorf("during the hold: %v", got)
	}
	say("west", "up", "08")
	s.rescanned("back")
	say("west", "up", "10")
	s.rescanned("back")
	if got := s.following.Snapshot().Edges; got[EdgeUp] != 2 {
		t.Errorf("told during the hold: %v", got)
	}
}

// What is only said again is no news, and is not written to disk each time.
func TestBeatsAreNoNews(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(2)
	say := func(text string) { s.doArgs("SET", "west:HEALTH", text) }
	say("up at=2026-11-21T05:31:00Z")
	s.rescanned("start")
	snap := s.following.Snapshot()
	s.session.unsaved = false
	id := keyID{kind: kindHealth, name: mustWire("west")}
	for _, at := range []string{"2026-11-21T05:31:02Z", "2026-11-21T05:31:04Z"} {
		say("up at=" + at)
		s.rescanned("beat")
		if got := s.session.model.values[id].said.At.Format(time.RFC3339); got != at {
			t.Fatalf("heard at %s, want %s", got, at)
		}
	}
	if s.following.Snapshot() != snap || s.session.unsaved {
		t.Error("another snapshot")
	}
	say("down at=2026-11-21T05:31:06Z")
	s.rescanned("down")
	say("down at=2026-11-21T05:31:08Z")
	s.rescanned("down")
	if got := s.following.Snapshot().Edges[EdgeDown]; got != 1 {
		t.Errorf("%d edges down", got)
	}
	s.doArgs("SET", "west:HEALTH", "broken")
	s.rescanned("bad")
	if s.session.model.values[id] == nil || s.session.defects["west:HEALTH"] == nil {
		t.Error("a bad value is not left out alone")
	}
}
