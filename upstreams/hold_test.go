package upstreams

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
)

// poolOf has n addresses from 10.0.0.0 + first on.
func poolOf(first, n int) *value {
	members := make([]netip.Prefix, n)
	for i := range members {
		k := first + i
		members[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}), 32)
	}
	return &value{pool: steering.NewPool(steering.IPv4, members)}
}

// lists are n names with a pool of m members each.
func lists(tb testing.TB, n, m int) map[keyID]*value {
	out := map[keyID]*value{}
	for i := range n {
		out[poolID(tb, i)] = poolOf(i*m, m)
	}
	return out
}

func poolID(tb testing.TB, i int) keyID {
	return keyID{kindPool, steering.IPv4, wire(tb, fmt.Sprintf("n%d.a", i))}
}

func without(values map[keyID]*value, ids ...keyID) map[keyID]*value {
	out := maps.Clone(values)
	for _, id := range ids {
		delete(out, id)
	}
	return out
}

func TestLossOf(t *testing.T) {
	t.Parallel()
	name := func(text string) string { return wire(t, text) }
	v4, v6 := keyID{kindPool, steering.IPv4, name("n.a")}, keyID{kindPool, steering.IPv6, name("n.a")}
	other := keyID{kindPool, steering.IPv4, name("m.a")}
	zone, noZone := keyID{kind: kindConfig, name: name("a")}, keyID{kind: kindConfig, name: name("n.a")}
	sticky, groups := keyID{kind: kindSticky, name: name("s.a")}, keyID{kind: kindGroups, name: name("n.a")}
	skip, geo := keyID{kindSkip, steering.IPv4, name("a")}, keyID{kind: kindGeo, name: "eu"}
	config := &value{config: &config{soa: []byte{0}}}
	six := &value{pool: steering.NewPool(steering.IPv6, world6[:3])}
	before := map[keyID]*value{
		v4: poolOf(0, 10), v6: six, other: poolOf(0, 7), zone: config, noZone: config, sticky: {route: name("n.a")},
		groups: {groups: &Groups{}}, skip: {skip: steering.NewSkipList(steering.IPv4, world4)}, geo: {route: name("n.a")},
	}
	zones := map[string]*Zone{name("a"): {}}
	change := func(id keyID, v *value) map[keyID]*value {
		out := maps.Clone(before)
		out[id] = v
		return out
	}
	for _, tt := range []struct {
		what    string
		now     map[keyID]*value
		zones   []string
		names   int
		members int
	}{
		{"nothing", before, nil, 0, 0},
		{"all", nil, []string{"a"}, 4, 20},
		{"skip list and place", without(before, skip, geo), nil, 0, 0},
		{"zone", without(before, zone), []string{"a"}, 1, 0},
		{"CONFIG of a name that is no zone", without(before, noZone), nil, 0, 0},
		{"one family", without(before, v6), nil, 0, 3},
		{"both families, CONFIG and groups are left", without(before, v4, v6), nil, 0, 13},
		{"all keys of a name", without(before, v4, v6, noZone, groups), nil, 1, 13},
		{"sticky name", without(before, sticky), nil, 1, 0},
		{"some members", change(v4, poolOf(3, 10)), nil, 0, 3},
		{"all members, as many others there", change(v4, poolOf(100, 10)), nil, 0, 10},
		{"equal members, read again", change(v4, poolOf(0, 10)), nil, 0, 0},
		{"prefix instead of its addresses", change(other, &value{pool: steering.NewPool(steering.IPv4, prefixes("10.0.0.0/24"))}), nil, 0, 7},
		{"something new", change(keyID{kind: kindSticky, name: name("new.a")}, &value{}), nil, 0, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			l := lossOf(before, tt.now, zones, time.Time{})
			if !slices.Equal(l.Zones, tt.zones) || l.Names != tt.names || l.Members != tt.members || l.NamesOf != 4 || l.MembersOf != 20 {
				t.Errorf("%+v; want %v, %d of 4 names, %d of 20 members", l, tt.zones, tt.names, tt.members)
			}
		})
	}
}

func TestLossOfNothing(t *testing.T) {
	t.Parallel()
	if l := lossOf(nil, nil, nil, time.Time{}); l.serious() || !l.healed() {
		t.Errorf("%+v", l)
	}
	if l := lossOf(nil, lists(t, 3, 3), nil, time.Time{}); l.serious() || l.NamesOf != 0 {
		t.Errorf("%+v", l)
	}
}

func TestThresholds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		loss            loss
		serious, healed bool
	}{
		{loss{}, false, true},
		{loss{NamesOf: 10, MembersOf: 100}, false, true},
		{loss{Names: 1, NamesOf: 10, MembersOf: 100}, false, true},
		{loss{Names: 2, NamesOf: 10}, false, false}, // 20 % is not more than 20 %
		{loss{Names: 3, NamesOf: 10}, true, false},
		{loss{Members: 200, MembersOf: 1000}, false, false},
		{loss{Members: 201, MembersOf: 1000}, true, false},
		{loss{Members: 100, MembersOf: 1000}, false, true},
		{loss{Members: 101, MembersOf: 1000}, false, false},
		{loss{Names: 10, NamesOf: 10}, true, false},
		{loss{Names: 1, NamesOf: 1}, true, false},
		{loss{Names: 200_000, NamesOf: 1_000_000}, false, false},
		{loss{Names: 200_001, NamesOf: 1_000_000}, true, false},
		{loss{Zones: []string{"a"}, NamesOf: 1_000_000}, true, false},
		{loss{Names: 1, NamesOf: 10, Members: 2, MembersOf: 10}, false, false},
	} {
		if got := tt.loss.serious(); got != tt.serious {
			t.Errorf("%s: serious %v", tt.loss, got)
		}
		if got := tt.loss.healed(); got != tt.healed {
			t.Errorf("%s: healed %v", tt.loss, got)
		}
	}
	loss := loss{Zones: []string{"a", "b"}, Names: 1, NamesOf: 2, Members: 3, MembersOf: 4}
	if got := loss.String(); got != "2 zones, 1 of 2 names, 3 of 4 members missing" {
		t.Errorf("%s", got)
	}
}

// lay is merge, with the changes applied to the values.
func lay(h *hold, values, scan map[keyID]*value, zones map[string]*Zone) (map[keyID]*value, *hold) {
	changes, h := merge(h, values, scan, "test", time.Unix(1, 0), zones)
	return applied(values, changes), h
}

func applied(values map[keyID]*value, changes []change) map[keyID]*value {
	out := maps.Clone(values)
	for _, c := range changes {
		if c.value == nil {
			delete(out, c.id)
		} else {
			out[c.id] = c.value
		}
	}
	return out
}

func TestMergeByShare(t *testing.T) {
	t.Parallel()
	all := lists(t, 100, 10)
	for _, tt := range []struct {
		lost int
		held bool
	}{{0, false}, {1, false}, {20, false}, {21, true}, {100, true}} {
		scan := maps.Clone(all)
		for i := range tt.lost {
			delete(scan, poolID(t, i))
		}
		got, h := lay(nil, all, maps.Clone(scan), nil)
		if (h != nil) != tt.held {
			t.Errorf("%d %% lost: held %v; want %v", tt.lost, h != nil, tt.held)
		}
		want := scan
		if tt.held {
			want = all
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d %% lost: %d lists served; want %d", tt.lost, len(got), len(want))
		}
	}
}

func TestMergeByMembers(t *testing.T) {
	t.Parallel()
	before := map[keyID]*value{poolID(t, 0): poolOf(0, 1000)}
	for _, tt := range []struct {
		left int
		held bool
	}{{801, false}, {800, false}, {799, true}, {1, true}} {
		scan := map[keyID]*value{poolID(t, 0): poolOf(0, tt.left)}
		got, h := lay(nil, before, scan, nil)
		if (h != nil) != tt.held {
			t.Errorf("%d of 1000 members left: held %v; want %v", tt.left, h != nil, tt.held)
		}
		// A key that is there overrides, in a hold too.
		if n := got[poolID(t, 0)].pool.Len(); n != tt.left {
			t.Errorf("%d members served; want %d", n, tt.left)
		}
	}
}

// TestMergeLosesZone checks that a zone's CONFIG is never a small loss, and has to
// be back.
func TestMergeLosesZone(t *testing.T) {
	t.Parallel()
	apex := keyID{kind: kindConfig, name: wire(t, "a")}
	all := lists(t, 1000, 1)
	all[apex] = &value{config: &config{soa: []byte{0}}}
	scan := without(all, apex)
	if _, h := lay(nil, all, maps.Clone(scan), nil); h != nil {
		t.Error("the CONFIG of what is no zone is held")
	}
	zones := map[string]*Zone{apex.name: {}}
	got, h := lay(nil, all, maps.Clone(scan), zones)
	if h == nil || got[apex] == nil {
		t.Fatal("a zone's CONFIG is lost")
	}
	if loss := lossOf(h.before, h.present, h.zones, time.Time{}); loss.healed() || !slices.Equal(loss.Zones, []string{"a"}) {
		t.Errorf("%+v ends the hold", loss)
	}
	h.edit(change{apex, all[apex]})
	if loss := lossOf(h.before, h.present, h.zones, time.Time{}); !loss.healed() {
		t.Errorf("%+v does not end the hold", loss)
	}
	if changes := h.release(got); len(changes) != 0 {
		t.Errorf("%d changes at the end", len(changes))
	}
}

// TestMergeInHold follows a flush and a refill in which things have changed.
func TestMergeInHold(t *testing.T) {
	t.Parallel()
	all := lists(t, 100, 10)
	values, h := lay(nil, all, map[keyID]*value{}, nil)
	if h == nil || !maps.Equal(values, all) {
		t.Fatal("a flush is obeyed")
	}
	if h.cause != "test" || !h.since.Equal(time.Unix(1, 0)) || h.loss.Names != 100 {
		t.Errorf("%+v", h)
	}
	// A name that is new, one that is changed.
	fresh, changed := keyID{kindPool, steering.IPv4, wire(t, "new.a")}, poolID(t, 0)
	scan := map[keyID]*value{fresh: poolOf(0, 1), changed: poolOf(5000, 10)}
	values, h2 := lay(h, values, maps.Clone(scan), nil)
	if h2 != h || values[fresh] != scan[fresh] || values[changed] != scan[changed] || len(values) != 101 {
		t.Errorf("%d lists, hold %v", len(values), h2 == h)
	}
	// What Redis has lost again is kept with what it last said.
	values, _ = lay(h, values, map[keyID]*value{}, nil)
	if values[fresh] == nil || values[changed] != scan[changed] {
		t.Error("a second flush is obeyed")
	}
	// 89 of 100 back: not yet, by one name.
	for i := 1; i < 90; i++ {
		h.edit(change{poolID(t, i), all[poolID(t, i)]})
	}
	if loss := lossOf(h.before, h.present, nil, time.Time{}); loss.Names != 11 || loss.healed() {
		t.Errorf("%+v ends the hold", loss)
	}
	h.edit(change{poolID(t, 90), all[poolID(t, 90)]})
	if loss := lossOf(h.before, h.present, nil, time.Time{}); loss.Names != 10 || !loss.healed() {
		t.Errorf("%+v does not end the hold", loss)
	}
	values = applied(values, h.release(values))
	if len(values) != 90 || values[changed] != nil || values[fresh] != nil || values[poolID(t, 90)] == nil {
		t.Errorf("%d lists after the hold", len(values))
	}
}

// TestRemovalInHold checks that an edit is obeyed in a hold, and is not waited for.
func TestRemovalInHold(t *testing.T) {
	t.Parallel()
	all := lists(t, 10, 1)
	before := maps.Clone(all)
	values, h := lay(nil, all, map[keyID]*value{}, nil)
	if h == nil {
		t.Fatal("no hold")
	}
	for i := range 10 {
		c := change{poolID(t, i), nil}
		h.edit(c)
		values = applied(values, []change{c})
	}
	if loss := lossOf(h.before, h.present, nil, time.Time{}); !loss.healed() || loss.NamesOf != 0 {
		t.Errorf("waiting for what was removed: %+v", loss)
	}
	if len(values) != 0 || !maps.Equal(all, before) {
		t.Error("removal touched the values before the hold")
	}
}

// TestHoldLetsARefillEnd checks that a hold which may end waits for lists that
// are still being put back.
func TestHoldLetsARefillEnd(t *testing.T) {
	t.Parallel()
	before := lists(t, 20, 5)
	at := time.Unix(100, 0)
	h := &hold{before: before, present: map[keyID]*value{}, loss: lossOf(before, nil, nil, at), changed: at}
	for i := range 20 {
		at = at.Add(settleTime - 1)
		if h.evaluate(at) {
			t.Fatalf("ended while %d of 20 were back, the last of them just now", i)
		}
		h.present[poolID(t, i)] = before[poolID(t, i)]
	}
	if !h.evaluate(at) {
		t.Error("not ended when all were back")
	}
	delete(h.present, poolID(t, 0))
	delete(h.present, poolID(t, 1))
	if h.evaluate(at) || h.evaluate(at.Add(settleTime-1)) {
		t.Error("ended at once with some missing")
	}
	if !h.evaluate(at.Add(settleTime)) {
		t.Error("not ended although nothing more came")
	}
}
