package balancer

import (
	"net/netip"
	"strings"
	"testing"
	"time"
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
	needsRoot(t)
	a, decider := process(t, "", 2)
	b, mate := process(t, "", 2)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	apply(t, decider, service("mail", Active), service("web", Active, Active, Active))
	apply(t, decider, service("mail", Active), service("web", Active, Draining, Active))

	late := service("web", Active, Active, Active)
	late.Backends[0], late.Backends[2] = late.Backends[2], late.Backends[0] // other indices
	mate.Follow()
	apply(t, mate, late)
	if mate.owners("web") == decider.owners("web") {
		t.Fatal("the tables are the same before")
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
	if err := mate.Adopt(second, time.Now()); err != nil || mate.owners("web") != decider.owners("web") {
		t.Errorf("second copy: %v", err)
	}
	if err := mate.Adopt(first, time.Now()); err == nil || !strings.Contains(err.Error(), "is not after plan") {
		t.Errorf("an old copy: %v", err)
	}
	second.Plan.Sequence++
	second.Services[0].Table = second.Services[0].Table[:100]
	second.Services[1].Table = second.Services[1].Table[:100]
	if err := mate.Adopt(second, time.Now()); err == nil || mate.owners("web") != decider.owners("web") {
		t.Errorf("a copy that is cut off: %v", err)
	}
}
