package upstreams

import (
	"maps"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
)

// TestNestedZonesComeAndGo passes between all combinations of four zones within
// each other in one batch. Each has a skip list that takes another address.
func TestNestedZonesComeAndGo(t *testing.T) {
	t.Parallel()
	zones := []string{"a", "b.a", "c.b.a", "d.c.b.a"}
	soa, err := soaRDATA(goodSOA)
	if err != nil {
		t.Fatal(err)
	}
	common := map[keyID]*value{
		// Every zone has answers from there.
		{kindPool, steering.IPv4, wire(t, "out")}: {pool: steering.NewPool(steering.IPv4, world4[:4])},
		{kind: kindGeo, name: "eu"}:               {route: wire(t, "out")},
	}
	apex := map[keyID]*value{}
	for i, z := range zones {
		common[keyID{kindPool, steering.IPv4, wire(t, "n."+z)}] = &value{pool: steering.NewPool(steering.IPv4, world4[:4])}
		common[keyID{kindSkip, steering.IPv4, wire(t, z)}] = &value{skip: steering.NewSkipList(steering.IPv4, world4[i:i+1])}
		apex[keyID{kind: kindConfig, name: wire(t, z)}] = &value{config: &config{soa: soa, ttl: uint32(i)}}
	}
	with := func(set int) map[keyID]*value {
		out := maps.Clone(common)
		for i, z := range zones {
			if set>>i&1 == 1 {
				id := keyID{kind: kindConfig, name: wire(t, z)}
				out[id] = apex[id]
			}
		}
		return out
	}
	for from := range 1 << len(zones) {
		for to := range 1 << len(zones) {
			for range 5 { // the changes of a batch are taken in no order
				m := newModel(nil)
				var first []change
				for id, v := range with(from) {
					first = append(first, change{id, v})
				}
				m.apply(first)
				var second []change
				for i, z := range zones {
					if (from^to)>>i&1 == 1 {
						id := keyID{kind: kindConfig, name: wire(t, z)}
						second = append(second, change{id, with(to)[id]})
					}
				}
				want := golden{nil, with(to), time.Time{}}.observe()
				if got := observe(m.apply(second)); got != want {
					t.Fatalf("zones %04b became %04b\n%s", from, to, textDiff(got, want))
				}
			}
		}
	}
}

// TestEmptiedIsNamed checks what the log says of a pool that a skip list leaves
// nothing of.
func TestEmptiedIsNamed(t *testing.T) {
	t.Parallel()
	soa, err := soaRDATA(goodSOA)
	if err != nil {
		t.Fatal(err)
	}
	pool := func(members ...string) *value {
		return &value{pool: steering.NewPool(steering.IPv4, prefixes(members...))}
	}
	skip := func(entries ...string) *value {
		return &value{skip: steering.NewSkipList(steering.IPv4, prefixes(entries...))}
	}
	zone := &value{config: &config{soa: soa}}
	inside, outside := keyID{kindPool, steering.IPv4, wire(t, "n.a")}, keyID{kindPool, steering.IPv4, wire(t, "out")}
	list := keyID{kindSkip, steering.IPv4, wire(t, "a")}
	m := newModel(nil)
	for _, step := range []struct {
		name    string
		changes []change
		emptied int
		named   string
	}{
		{"a pool within, one without", []change{{keyID{kind: kindConfig, name: wire(t, "a")}, zone}, {inside, pool("192.0.2.1")}, {outside, pool("192.0.2.1")}}, 0, ""},
		{"skip list", []change{{list, skip("192.0.2.1")}}, 1, "n.a:A"},
		{"nothing to do with it", []change{{keyID{kindPool, steering.IPv6, wire(t, "n.b")}, pool()}}, 1, ""},
		{"led outside", []change{{keyID{kind: kindGeo, name: "eu"}, &value{route: wire(t, "out")}}}, 2, "out:A"},
		{"two zones", []change{{keyID{kind: kindConfig, name: wire(t, "b")}, zone}, {keyID{kindSkip, steering.IPv4, wire(t, "b")}, skip("192.0.2.0/24")}}, 3, "out:A"},
		{"one zone less", []change{{keyID{kind: kindConfig, name: wire(t, "b")}, nil}}, 2, ""},
		{"no longer led outside", []change{{keyID{kind: kindGeo, name: "eu"}, nil}}, 1, ""},
		{"a member more", []change{{inside, pool("192.0.2.1", "192.0.2.2")}}, 0, ""},
		{"a wider entry", []change{{list, skip("192.0.2.0/24")}}, 1, "n.a:A"},
		{"no skip list", []change{{list, nil}}, 0, ""},
	} {
		s := m.apply(step.changes)
		named := ""
		for _, key := range m.emptied {
			named += key
		}
		if s.Emptied != step.emptied || named != step.named {
			t.Errorf("%s: %d emptied, %q named; want %d, %q", step.name, s.Emptied, named, step.emptied, step.named)
		}
	}
}
