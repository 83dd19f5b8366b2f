package balancer

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// owners are the SIDs that the slots of a service have, current and previous.
func (k *Keeper) owners(name string) (out [Slots][2]netip.Addr) {
	sids := map[uint16]netip.Addr{}
	for sid, r := range k.backends {
		sids[r.index] = sid
	}
	for slot := range out {
		row := k.services[name].table.Row(uint32(slot))
		out[slot] = [2]netip.Addr{sids[row.Current()], sids[row.Previous()]}
	}
	return out
}

// A mate has the tables of the one that decides, under indices of its own.
func TestAdopt(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 2)
	b, mate := process(t, "", 2)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	apply(t, decider, service("mail", Active), service("web", Active, Active, Active))
	apply(t, decider, service("mail", Active), service("web", Active, Draining, Active))

	late := service("web", Active, Active, Active)
	late.Backends[0], late.Backends[2] = late.Backends[2], late.Backends[0] // other indices
	mate.Follow()
	if _, err := mate.Copy(); err != nil {
		t.Error("a mate without services: ", err)
	}
	apply(t, mate, late)
	if o := mate.owners("web"); o == decider.owners("web") || !o[0][0].IsValid() {
		t.Fatal("a mate that has heard of nobody has no table of its own, or the same one")
	}
	first, err := decider.Copy()
	if err != nil {
		t.Fatal(err)
	}
	if err := mate.Adopt(first, time.Now()); err != nil {
		t.Fatal(err)
	}
	if mate.owners("web") != decider.owners("web") {
		t.Error("other tables after the copy")
	}
	number := mate.services["web"].number
	for slot := range Slots {
		if b.Row(number, slot) != uint32(mate.services["web"].table.Row(uint32(slot))) {
			t.Fatalf("slot %d: the balancer has another row than its keeper", slot)
		}
	}

	before := mate.owners("web")
	apply(t, mate, service("web", Active, Active, Draining)) // not the mate's to decide
	if mate.owners("web") != before {
		t.Error("a mate decided")
	}
	apply(t, mate, service("web", Active, Draining, Dead))
	for slot, o := range mate.owners("web") {
		if dead := netip.MustParseAddr("2001:db8:5e:3:5201::"); o[0] == dead || o[1] == dead {
			t.Fatalf("slot %d has a dead backend: %v", slot, o)
		}
	}

	apply(t, decider, service("mail", Active), service("web", Active, Active))
	second, err := decider.Copy()
	if err != nil {
		t.Fatal(err)
	}
	if err := mate.Adopt(second, time.Now()); err != nil {
		t.Errorf("second copy: %v", err)
	}
	if err := mate.Adopt(first, time.Now()); err == nil || !strings.Contains(err.Error(), "is not after plan") {
		t.Errorf("an old copy: %v", err)
	}
	// Who is dead here stays so, whatever the decider has.
	if o := mate.owners("web"); slices.ContainsFunc(o[:], func(o [2]netip.Addr) bool { return o[0] == netip.MustParseAddr("2001:db8:5e:3:5201::") }) {
		t.Error("a dead backend came back with a copy")
	}
	second.Plan.Sequence++
	second.Services[0].Table = second.Services[0].Table[:100]
	second.Services[1].Table = second.Services[1].Table[:100]
	before = mate.owners("web")
	if err := mate.Adopt(second, time.Now()); err == nil || mate.owners("web") != before {
		t.Errorf("a copy that is cut off: %v", err)
	}
}

// A mate spills as the one that decides does, but where that one has backends for new flows
// and itself has none.
func TestAdoptSpills(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 1)
	b, mate := process(t, "", 1)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	mate.Follow()
	plan := func(k *Keeper, spills steering.Spills, decision *steering.Plan, states ...State) {
		t.Helper()
		s := service("web", states...)
		s.Spills, s.Decided = spills, true
		if err := k.Apply(Plan{Sites: twoSites(), Services: []PlannedService{s}, Decision: decision}, time.Now()); err != nil {
			t.Fatal(err)
		}
		for sid := range k.backends {
			k.way(sid, true)
		}
	}
	copied := func() {
		t.Helper()
		c, err := decider.Copy()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var heard Copy
		if err := json.Unmarshal(text, &heard); err != nil {
			t.Fatal(err)
		}
		if err := mate.Adopt(heard, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, want ...bpfSpill) {
		t.Helper()
		if got := mate.spillsOf(t, "web"); !slices.Equal(got, want) {
			t.Errorf("%s: spills %v, want %v", when, got, want)
		}
	}
	plan(mate, nil, nil, Active, Active)
	decision := &steering.Plan{Number: steering.PlanNumber{Term: 1, Sequence: 7}}
	plan(decider, steering.Spills{{Site: "north", Slots: 1000}}, decision, Active, Active)
	copied()
	want("as the decider", bpfSpill{End: 1000, Site: 1})
	if c, err := mate.Copy(); err != nil || c.Decision == nil || len(c.Services[0].Spills) != 1 || !c.Services[0].Decided {
		t.Errorf("a copy of the copy: %+v of %+v, %v", c.Services[0].Spills, c.Decision, err)
	}
	if got := mate.Decision(); got == nil || got.Number != decision.Number {
		t.Errorf("decision %+v, want %+v", got, decision)
	}
	plan(mate, nil, nil, Active, Active)
	want("after a plan of its own", bpfSpill{End: 1000, Site: 1})
	plan(mate, nil, nil, Draining, Draining)
	want("nobody here, as the mate alone knows", bpfSpill{End: Slots, Site: 1})
	plan(decider, steering.Spills{{Site: "east", Slots: 30000}, {Site: "north", Slots: 20000}}, decision, Draining, Draining)
	copied()
	want("nobody here, as the decider knows too", bpfSpill{End: 30000, Site: 0}, bpfSpill{End: 50000, Site: 1})

	mate.Decide(time.Now())
	if c, err := mate.Copy(); err != nil || c.Decision == nil || len(c.Services[0].Spills) != 2 || !c.Services[0].Decided {
		t.Errorf("a copy of who has come to decide, and has not yet: %+v of %+v, %v", c.Services[0].Spills, c.Decision, err)
	}
	mate.sitesChanged()
	want("it has come to decide, and has not yet", bpfSpill{End: 30000, Site: 0}, bpfSpill{End: 50000, Site: 1})
}

// A backend that a mate alone takes for dead, as it has not heard of it for a moment, has
// its slots again when it is back, also those that a copy gave it meanwhile.
func TestFollowerHearsAgain(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 1)
	b, mate := process(t, "", 1)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	copied := func() {
		t.Helper()
		c, err := decider.Copy()
		if err == nil {
			err = mate.Adopt(c, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	same := func(when string) {
		t.Helper()
		is, want := mate.owners("web"), decider.owners("web")
		for slot := range is {
			if is[slot][0] != want[slot][0] {
				t.Fatalf("%s: slot %d has %v, the decider %v", when, slot, is[slot], want[slot])
			}
		}
	}
	third := sidOf(3)
	gone := func(when string) {
		t.Helper()
		if o := mate.owners("web"); slices.ContainsFunc(o[:], func(o [2]netip.Addr) bool { return o[0] == third || o[1] == third }) {
			t.Errorf("%s: the dead backend is there", when)
		}
	}
	apply(t, decider, service("web", Active, Active, Active))
	mate.Follow()
	apply(t, mate, service("web", Active, Active, Active))
	copied()
	apply(t, mate, service("web", Active, Active, Dead))
	gone("unheard")
	apply(t, mate, service("web", Active, Active, Active))
	same("heard again")

	apply(t, mate, service("web", Active, Active, Dead))
	apply(t, decider, service("web", Active, Draining, Active))
	copied()
	gone("in a copy")
	apply(t, mate, service("web", Active, Draining, Active))
	same("heard again after a copy")

	// Who is nowhere any more gives back its index.
	apply(t, mate, service("web", Active, Draining, Dead))
	apply(t, decider, service("web", Active))
	copied()
	apply(t, mate, service("web", Active))
	if mate.backends[third] != nil {
		t.Error("a backend that nobody has is kept")
	}
}

// A copy with a backend that is dead here does not send it a packet.
func TestAdoptWithoutTheDead(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 1)
	b, mate := process(t, "", 1)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	apply(t, decider, service("web", Active, Active, Active))
	mate.Follow()
	apply(t, mate, service("web", Active, Active, Dead))
	c, err := decider.Copy()
	if err != nil {
		t.Fatal(err)
	}
	table, err := steering.UnmarshalTable(c.Services[0].Table, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	here := map[uint16]uint16{}
	for index, sid := range c.Services[0].Backends {
		here[index] = mate.backends[sid].index
	}
	if err := table.Renumber(here); err != nil {
		t.Fatal(err)
	}
	stores, err := mate.services["web"].become(table, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dead := mate.backends[sidOf(3)].index
	for _, s := range stores {
		if r := steering.Row(s.Value); !s.History && (r.Current() == dead || r.Previous() == dead) {
			t.Fatalf("slot %d gets row %#x, with the dead backend %d", s.Slot, s.Value, dead)
		}
	}
}

// Who decides no longer, and hears of nobody who does, goes on with what it decided: what
// it copied before that is of the past.
func TestFollowAfterDeciding(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, k := process(t, "", 1)
	t.Cleanup(func() { _ = a.Close() })
	plan := func(spills steering.Spills, decided bool, states ...State) {
		t.Helper()
		s := service("web", states...)
		s.Spills, s.Decided = spills, decided
		if err := k.Apply(Plan{Sites: twoSites(), Services: []PlannedService{s}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		for sid := range k.backends {
			k.way(sid, true)
		}
	}
	want := func(when string, want ...bpfSpill) {
		t.Helper()
		if got := k.spillsOf(t, "web"); !slices.Equal(got, want) {
			t.Errorf("%s: spills %v, want %v", when, got, want)
		}
	}
	plan(steering.Spills{{Site: "north", Slots: 1000}}, true, Active, Active)
	k.Follow()
	plan(nil, false, Active, Active) // as agents alone have it
	want("it decided about a part", bpfSpill{End: 1000, Site: 1})
	c, err := k.Copy()
	if err != nil {
		t.Fatal(err)
	}
	c.Plan.Term, c.Decision = c.Plan.Term+1, &steering.Plan{}
	if err := k.Adopt(c, time.Now()); err != nil {
		t.Fatal(err)
	}

	k.Decide(time.Now())
	plan(steering.Spills{{Site: "east", Slots: Slots}}, true, Draining, Draining)
	k.Follow()
	if k.Decision() != nil {
		t.Error("it takes a plan of before its own for one of who decides")
	}
	plan(nil, false, Active, Active)
	want("it decided that the site is drained", bpfSpill{End: Slots, Site: 0})
}

// A process that starts, and follows nobody yet, goes on with what one before decided.
func TestGoOn(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 1)
	s := service("web", Draining, Draining)
	s.Spills, s.Decided = steering.Spills{{Site: "east", Slots: Slots}}, true
	if err := k.Apply(Plan{Sites: twoSites(), Services: []PlannedService{s}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for sid := range k.backends {
		k.way(sid, true)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = process(t, dir, 1)
	t.Cleanup(func() { _ = b.Close() })
	if k.HasTables() {
		t.Error("it has tables, and nobody ever had a flow")
	}
	k.Follow()
	k.GoOn([]ServiceCopy{{Name: "web", Spills: s.Spills, Decided: true}, {Name: "another"}})
	if err := k.Apply(Plan{Sites: twoSites(), Services: []PlannedService{service("web", Active, Active)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := k.spillsOf(t, "web"); !slices.Equal(got, []bpfSpill{{End: Slots, Site: 0}}) {
		t.Errorf("spills %v", got)
	}
}

// A mate comes to decide with the tables that it has, and its plans are after those that
// it has copied, whatever the clocks say.
func TestDecide(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, first := process(t, "", 2)
	b, second := process(t, "", 2)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	apply(t, first, service("web", Active, Active, Draining))
	first.number.Term += uint64(time.Hour) // its clock was ahead
	second.Follow()
	apply(t, second, service("web", Active, Active, Active))
	copied := func(from, to *Keeper) Copy {
		t.Helper()
		c, err := from.Copy()
		if err == nil {
			err = to.Adopt(c, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := copied(first, second)
	before := second.owners("web")
	if second.Decide(time.Now()); second.owners("web") != before {
		t.Error("other tables, although nothing was applied")
	}
	if number, _ := second.Number(); number.Term <= c.Plan.Term {
		t.Errorf("plan %v is not after %v", number, c.Plan)
	}
	apply(t, second, service("web", Active, Active, Active))
	third := netip.MustParseAddr("2001:db8:5e:3:5201::")
	owns := func(k *Keeper) bool {
		o := k.owners("web")
		return slices.ContainsFunc(o[:], func(o [2]netip.Addr) bool { return o[0] == third })
	}
	if !owns(second) {
		t.Error("it decides, and its plan is not obeyed")
	}
	first.Follow()
	copied(second, first)
	if !owns(first) {
		t.Error("who decided before does not follow")
	}
	number, _ := second.Number()
	if second.Decide(time.Now()); second.number != number {
		t.Error("who decides already begins again")
	}
}

// A decider that starts from nothing, with a clock that is behind, has nothing to say
// until it has tables; what its mates know of the past stays.
func TestDeciderStartsAgain(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 1)
	b, mate := process(t, "", 1)
	c, again := process(t, "", 1)
	t.Cleanup(func() { _, _, _ = a.Close(), b.Close(), c.Close() })
	apply(t, decider, service("web", Active, Active))
	mate.Follow()
	apply(t, mate, service("web", Active, Active))
	copied := func(from *Keeper) {
		t.Helper()
		c, err := from.Copy()
		if err != nil {
			t.Fatal(err)
		}
		if err := mate.Adopt(c, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	copied(decider)
	before := mate.owners("web")

	if err := again.Apply(Plan{Services: []PlannedService{service("web", Active)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Copy(); !errors.Is(err, ErrNoTables) {
		t.Errorf("a decider without tables: %v", err)
	}
	again.number.Term = 1 // long ago
	apply(t, again, service("web", Active))
	copied(again)
	b1, b2 := netip.MustParseAddr("2001:db8:5e:1:5201::"), netip.MustParseAddr("2001:db8:5e:2:5201::")
	for slot, o := range mate.owners("web") {
		if o[0] != b1 || before[slot][0] == b2 && o[1] != b2 {
			t.Fatalf("slot %d: %v after %v", slot, o, before[slot])
		}
	}
}

// A copy without a backend for new flows is obeyed once the own plan has none either,
// whichever of them comes first.
func TestAdoptNobody(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	for _, planFirst := range []bool{true, false} {
		a, decider := process(t, "", 1)
		b, mate := process(t, "", 1)
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		mate.Follow()
		copied := func() {
			t.Helper()
			c, err := decider.Copy()
			if err == nil {
				err = mate.Adopt(c, time.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		apply(t, decider, service("web", Active, Active))
		apply(t, mate, service("web", Active, Active))
		copied()
		before := mate.owners("web")

		apply(t, decider, service("web", Draining, Draining))
		if planFirst {
			apply(t, mate, service("web", Draining, Draining))
		} else {
			copied()
		}
		if mate.owners("web") != before {
			t.Errorf("plan first %v: one of both was enough", planFirst)
		}
		if planFirst {
			copied()
		} else {
			apply(t, mate, service("web", Draining, Draining))
		}
		for slot, o := range mate.owners("web") {
			if o[0].IsValid() || o[1] != before[slot][0] {
				t.Fatalf("plan first %v: slot %d: %v after %v", planFirst, slot, o, before[slot])
			}
		}

		apply(t, decider, service("web", Active, Active))
		copied()
		if mate.owners("web") != decider.owners("web") {
			t.Errorf("plan first %v: other tables when backends are back", planFirst)
		}
	}
}

// A backend that only the mate's copy has owns flows here as well, until no copy has it.
func TestFollowerPins(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	a, decider := process(t, "", 1)
	b, mate := process(t, "", 1)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	apply(t, decider, service("web", Active, Active, Active))
	mate.Follow()
	apply(t, mate, service("web", Active, Active))
	copied := func() {
		t.Helper()
		c, err := decider.Copy()
		if err == nil {
			err = mate.Adopt(c, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	third := sidOf(3)
	if err := mate.Pin(webFlow(1), third); !errors.Is(err, NotItsHost) {
		t.Errorf("a backend that nobody knows: %v", err)
	}
	copied()
	port := uint16(1)
	for mate.row(b, webFlow(port)).Current() == mate.backends[third].index {
		port++
	}
	if err := mate.Pin(webFlow(port), third); err != nil {
		t.Errorf("a backend of the mate: %v", err)
	}
	mate.sweepNow()
	if got := stored(t, b); got[port] != uint32(mate.backends[third].index) {
		t.Errorf("pins %v, want one of %d", got, port)
	}
	apply(t, decider, service("web", Active, Active))
	copied()
	mate.sweepNow()
	if got := stored(t, b); len(got) != 0 {
		t.Errorf("pins of a backend that left: %v", got)
	}
	if err := mate.Pin(webFlow(port), third); !errors.Is(err, NotItsHost) {
		t.Errorf("a backend that left: %v", err)
	}
}
