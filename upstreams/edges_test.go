package upstreams

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
)

// answered is what a name of a zone is answered from, in text.
func answered(s *Snapshot, name string) string {
	wire, err := WireName(name)
	if err != nil {
		return err.Error()
	}
	z := s.Zone([]byte(wire))
	if z == nil {
		return "no zone"
	}
	var words []string
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		words = append(words, memberTexts(z.Answered(s.Route(wire), f).Members(), 0)...)
	}
	return strings.Join(words, " ")
}

func parsed(t interface{ Fatalf(string, ...any) }, key string, r raw) change {
	id, defect := parseKey(key)
	v, defects := parseValue(id, key, r)
	if defect != nil || len(defects) > 0 {
		t.Fatalf("%s: %v %v", key, defect, defects)
	}
	return change{id, v}
}

// A route's pool is that of its edges which are active, and its own.
func TestEdges(t *testing.T) {
	t.Parallel()
	const soa = "ns. host. 1 2 3 4 5"
	m := newModel([]string{wire(t, "z.example")})
	set := func(members ...string) raw { return raw{exists: true, set: members} }
	m.apply([]change{
		parsed(t, "z.example:CONFIG", raw{exists: true, hash: map[string]string{"SOA": soa}}),
		parsed(t, "west:A", set("192.0.2.1", "192.0.2.2")),
		parsed(t, "west:AAAA", set("2001:db8::1")),
		parsed(t, "east:A", set("192.0.2.2", "192.0.2.3")),
		parsed(t, "all.z.example:EDGES", set("west", "EAST", "north")),
	})
	steps := []struct {
		key     string
		raw     raw
		want    string
		drained int
	}{
		{"x:A", set("192.0.2.9"), "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1", 0},
		{"west:STATE", raw{exists: true, text: "draining"}, "192.0.2.2 192.0.2.3", 0},
		{"east:STATE", raw{exists: true, text: "drained"}, "", 1},
		{"west:STATE", raw{exists: true, text: "active"}, "192.0.2.1 192.0.2.2 2001:db8::1", 0},
		{"north:AAAA", set("2001:db8::9"), "192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::9", 0},
		{"all.z.example:A", set("198.51.100.1"), "192.0.2.1 192.0.2.2 198.51.100.1 2001:db8::1 2001:db8::9", 0},
		{"z.example:A:SKIPLIST", set("192.0.2.0/24"), "198.51.100.1 2001:db8::1 2001:db8::9", 0},
		{"west:A", set("203.0.113.1", "192.0.2.7"), "198.51.100.1 203.0.113.1 2001:db8::1 2001:db8::9", 0},
		{"all.z.example:STATE", raw{exists: true, text: "drained"}, "203.0.113.1 2001:db8::1 2001:db8::9", 0},
		{"all.z.example:EDGES", raw{}, "", 0},
	}
	for _, step := range steps {
		s := m.apply([]change{parsed(t, step.key, step.raw)})
		if got := answered(s, "all.z.example"); got != step.want || s.Drained != step.drained {
			t.Fatalf("after %s: %q, %d drained; want %q, %d", step.key, got, s.Drained, step.want, step.drained)
		}
	}
}

// Whatever changes in whatever order, a snapshot is that of the last values.
func TestEdgesFollowChanges(t *testing.T) {
	t.Parallel()
	names := []string{"z.example", "a.z.example", "b.z.example", "e", "f"}
	rapid.Check(t, func(t *rapid.T) {
		var zones []string
		if rapid.Bool().Draw(t, "configured") {
			wire, _ := WireName("z.example")
			zones = []string{wire}
		}
		m, last := newModel(zones), map[keyID]*value{}
		put := func(key string, r raw) {
			c := parsed(t, key, r)
			m.apply([]change{c})
			if last[c.id] = c.value; c.value == nil {
				delete(last, c.id)
			}
		}
		put("z.example:CONFIG", raw{exists: true, hash: map[string]string{"SOA": "ns. host. 1 2 3 4 5"}})
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			some := func(of []string) raw {
				return raw{set: rapid.SliceOfNDistinct(rapid.SampledFrom(of), 0, len(of), rapid.ID[string]).Draw(t, "set")}
			}
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				put(name+":A", some([]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.0/24"}))
			case 1:
				put(name+":EDGES", some(names))
			case 2:
				if text := rapid.SampledFrom([]string{"", "active", "draining", "drained"}).Draw(t, "state"); text != "" {
					put(name+":STATE", raw{exists: true, text: text})
				} else {
					id, _ := parseKey(name + ":STATE")
					m.apply([]change{{id, nil}})
					delete(last, id)
				}
			case 3:
				put("z.example:A:SKIPLIST", some([]string{"192.0.2.1", "192.0.2.3", "198.51.100.0/25"}))
			case 5:
				// Words without a time are not damped by it: one that is said often
				// enough is that which is heard first.
				text := rapid.SampledFrom([]string{"up", "down", "draining"}).Draw(t, "health")
				put(name+":HEALTH", raw{exists: true, text: text + " reason=1"})
				put(name+":HEALTH", raw{exists: true, text: text})
			case 4:
				put("stuck.z.example", raw{exists: true, text: name})
			}
		}
		whole := newModel(zones)
		var all []change
		for id, v := range last {
			all = append(all, change{id, v})
		}
		want := whole.apply(all)
		observe := func(s *Snapshot) string {
			out := fmt.Sprintln(s.NameCount, s.MemberCount, s.Emptied, s.Drained, s.Edges, s.BelowFloor)
			wire, _ := WireName("z.example")
			z := s.zones[wire]
			for _, name := range append(slices.Clone(names), "stuck.z.example") {
				wire, _ := WireName(name)
				n := s.Route(wire)
				out += fmt.Sprintln(name, n.Exists(), answered(s, name), memberTexts(z.Eligible(n.Pool(steering.IPv4)).Members(), 0))
			}
			return out
		}
		if a, b := observe(m.snapshot), observe(want); a != b {
			t.Fatalf("one by one:\n%s\nat once:\n%s", a, b)
		}
	})
}

func TestSubnets(t *testing.T) {
	t.Parallel()
	s := newSubnets(map[netip.Prefix]string{
		netip.MustParsePrefix("192.0.0.0/16"):    "wide",
		netip.MustParsePrefix("192.0.2.0/24"):    "net",
		netip.MustParsePrefix("192.0.2.128/25"):  "half",
		netip.MustParsePrefix("192.0.2.200/32"):  "host",
		netip.MustParsePrefix("2001:db8::/32"):   "six",
		netip.MustParsePrefix("2001:db8:1::/56"): "deep",
	})
	for _, row := range []struct {
		client string
		known  int
		route  string
		bits   int
	}{
		{"192.0.2.200", 32, "host", 32},
		{"192.0.2.201", 32, "half", 32},
		{"192.0.2.1", 32, "net", 32},
		{"192.0.2.0", 24, "net", 32},
		{"192.0.3.0", 24, "wide", 0},
		{"192.0.0.0", 16, "wide", 0},
		{"192.0.0.0", 8, "", 0},
		{"198.51.100.1", 32, "", 0},
		{"2001:db8:1::", 56, "deep", 56},
		{"2001:db8:1::", 48, "six", 56},
		{"2001:db8:2::1", 128, "six", 0},
		{"::ffff:192.0.2.200", 128, "host", 32},
		{"::ffff:192.0.2.0", 120, "net", 32},
	} {
		route, bits, ok := s.lookup(netip.MustParseAddr(row.client), row.known)
		if route != row.route || bits != row.bits || ok != (route != "") {
			t.Errorf("%s/%d: %q, %d bits, %t; want %q, %d bits", row.client, row.known, route, bits, ok, row.route, row.bits)
		}
	}
	var none *subnets
	if _, _, ok := none.lookup(netip.MustParseAddr("192.0.2.1"), 32); ok {
		t.Error("no prefixes, and a route")
	}
}

// TestOwnPool checks that an edge keeps its own pool in the snapshot, whatever its
// state, and has nothing of other edges.
func TestOwnPool(t *testing.T) {
	t.Parallel()
	s := step(t)
	s.fill(2)
	s.do("SADD east:A 198.18.0.1")
	s.do("SADD west:A 198.18.0.2")
	s.do("SADD both:EDGES east west")
	s.do("SET east:STATE draining")
	s.rescanned("start")
	snap := s.following.Snapshot()
	for name, want := range map[string][2]int{"east": {0, 1}, "west": {1, 1}, "both": {1, 0}} {
		n := snap.Name([]byte(mustWire(name)))
		if got := [2]int{n.Pool(steering.IPv4).Len(), n.Own(steering.IPv4).Len()}; got != want {
			t.Errorf("%s: answered from %d, own %d; want %v", name, got[0], got[1], want)
		}
	}
	if snap.LargestTTL() == 0 {
		t.Error("no TTL")
	}
}
