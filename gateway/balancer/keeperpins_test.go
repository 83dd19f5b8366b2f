package balancer

import (
	"errors"
	"maps"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// webFlow is a flow to the VIP of service("web").
func webFlow(port uint16) Flow {
	return Flow{
		Client:   netip.AddrPortFrom(netip.MustParseAddr("203.0.113.7"), port),
		VIP:      netip.MustParseAddrPort("198.51.100.3:443"),
		Protocol: unix.IPPROTO_TCP,
	}
}

func sidOf(i int) netip.Addr { return service("web", make([]State, i)...).Backends[i-1].SID }

// row is that of the slot of a flow to service("web").
func (k *Keeper) row(b *Balancer, f Flow) steering.Row {
	s := k.services["web"]
	return steering.Row(b.Row(s.number, int(steering.FlowSlot(steering.FlowHash(s.hashed.Key, f.hashed(s.hashed))))))
}

// stored are the pins that the program has, by the client's port, and their backends.
func stored(t *testing.T, b *Balancer) map[uint16]uint32 {
	t.Helper()
	out := map[uint16]uint32{}
	if err := b.eachPin(func(k bpfPinKey, p bpfPin) { out[bigEndian(k.ClientPort)] = p.Backend }); err != nil {
		t.Fatal(err)
	}
	return out
}

// elsewhere are ports whose flows have another current backend than the first one.
func (k *Keeper) elsewhere(b *Balancer, n int) (ports []uint16) {
	first := k.backends[sidOf(1)].index
	for port := uint16(1000); len(ports) < n; port++ {
		if k.row(b, webFlow(port)).Current() != first {
			ports = append(ports, port)
		}
	}
	return ports
}

// Pins are made and marked, outlive the process, and end with their backend, by being
// idle and where the row says what they say.
func TestKeeperPins(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 3)
	web := service("web", Active, Active, Active)
	apply(t, k, web, service("mail", Active))
	ports := k.elsewhere(b, 3)
	for _, port := range ports {
		if err := k.Pin(webFlow(port), sidOf(1)); err != nil {
			t.Fatal(err)
		}
		if !k.row(b, webFlow(port)).Marked() {
			t.Error("a slot with a pin is not marked")
		}
	}
	first := uint32(k.backends[sidOf(1)].index)
	all := map[uint16]uint32{ports[0]: first, ports[1]: first, ports[2]: first}
	if got := stored(t, b); !maps.Equal(got, all) {
		t.Errorf("pins %v, want %v", got, all)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b, k = process(t, dir, 3)
	apply(t, k, web, service("mail", Active))
	if got := stored(t, b); !maps.Equal(got, all) || k.pins.present != 3 || !k.row(b, webFlow(ports[2])).Marked() {
		t.Errorf("the next process has pins %v, %d", got, k.pins.present)
	}

	// The owner is current: no pin is needed, and one that is there goes.
	current, _ := k.indices.Key(k.row(b, webFlow(ports[0])).Current())
	if err := k.Pin(webFlow(ports[0]), netip.MustParseAddr(current)); err != nil {
		t.Error(err)
	}
	delete(all, ports[0])
	if got := stored(t, b); !maps.Equal(got, all) || k.pins.needless != 1 {
		t.Errorf("pins %v, want %v", got, all)
	}
	k.sweepNow()
	if k.row(b, webFlow(ports[0])).Marked() || !k.row(b, webFlow(ports[1])).Marked() || k.pins.present != 2 {
		t.Error("marks after a sweep")
	}

	// Ten minutes go by for one of them, one for another that is closing.
	f, g := webFlow(ports[1]), webFlow(ports[2])
	var pin bpfPin
	if err := b.objects.Pins.Lookup(g.key(), &pin); err != nil {
		t.Fatal(err)
	}
	pin.Closing, pin.Used = 1, uptime()+540
	if _, err := b.pinTo(g.key(), pin); err != nil {
		t.Fatal(err)
	}
	if err := k.sweep(uptime() + 602); err != nil {
		t.Error(err)
	}
	if got := stored(t, b); len(got) != 0 || k.pins.expired != 2 || k.row(b, f).Marked() || k.row(b, g).Marked() {
		t.Errorf("idle pins are left: %v", got)
	}

	// A dead backend owns nothing, and a draining one does.
	for state, left := range map[State]int{Draining: 1, Dead: 0} {
		web.Backends[0].State = Active
		apply(t, k, web, service("mail", Active))
		port := k.elsewhere(b, 1)[0]
		if err := k.Pin(webFlow(port), sidOf(1)); err != nil {
			t.Fatal(err)
		}
		web.Backends[0].State = state
		apply(t, k, web, service("mail", Active))
		if got := stored(t, b); len(got) != left {
			t.Errorf("%s: pins %v", state, got)
		}
		if state == Dead && !errors.Is(k.Pin(webFlow(port), sidOf(1)), NotItsHost) {
			t.Error("a dead backend pins")
		}
		for key := range stored(t, b) {
			if err := b.unpin(webFlow(key).key()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// What cannot be pinned is refused.
func TestKeeperRefusesPins(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 3)
	t.Cleanup(func() { _ = b.Close() })
	prefix := service("prefixes", Active)
	prefix.VIPs = []VIP{{netip.MustParsePrefix("198.51.100.128/25"), 0, unix.IPPROTO_TCP}, {netip.MustParsePrefix("2001:db8:f::/64"), 0, 0}}
	web := service("web", Active, Active)
	web.Backends = web.Backends[1:]
	apply(t, k, web, service("mail", Active, Active), prefix)
	flow := func(client, vip string, protocol uint8) Flow {
		return Flow{netip.MustParseAddrPort(client), netip.MustParseAddrPort(vip), protocol}
	}
	for name, c := range map[string]struct {
		flow  Flow
		owner netip.Addr
		want  error
	}{
		"UDP":                          {flow("203.0.113.7:9", "198.51.100.3:443", unix.IPPROTO_UDP), sidOf(2), NotTCP},
		"another port":                 {flow("203.0.113.7:9", "198.51.100.3:80", unix.IPPROTO_TCP), sidOf(2), NotAVIP},
		"what is there for fragments":  {flow("203.0.113.7:9", "198.51.100.3:0", unix.IPPROTO_TCP), sidOf(2), NotAVIP},
		"another address":              {flow("203.0.113.7:9", "198.51.100.77:443", unix.IPPROTO_TCP), sidOf(2), NotAVIP},
		"a backend of another service": {flow("203.0.113.7:9", "198.51.100.3:443", unix.IPPROTO_TCP), sidOf(1), NotItsHost},
		"no backend":                   {flow("203.0.113.7:9", "198.51.100.3:443", unix.IPPROTO_TCP), sidOf(9), NotItsHost},
		"an address of a prefix":       {flow("203.0.113.7:9", "198.51.100.130:7", unix.IPPROTO_TCP), sidOf(1), nil},
		"any protocol":                 {flow("[2001:db8:7::1]:9", "[2001:db8:f::5]:1", unix.IPPROTO_TCP), sidOf(1), nil},
	} {
		if err := k.Pin(c.flow, c.owner); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if got := stored(t, b); len(got) != 0 {
		t.Errorf("pins %v", got)
	}
}

// More pins than there is room for: the map stays full of others, and it is counted.
func TestKeeperDisplacesPins(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 1)
	t.Cleanup(func() { _ = b.Close() })
	apply(t, k, service("web", Active, Active))
	owner := sidOf(1)
	for i := range 3 * MaxPins {
		f := webFlow(uint16(i))
		f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 16)}), uint16(i))
		if err := k.Pin(f, owner); err != nil {
			t.Fatal(err)
		}
	}
	if k.pins.displaced == 0 || k.pins.present > MaxPins {
		t.Errorf("%d displaced, %d present", k.pins.displaced, k.pins.present)
	}
	began := time.Now()
	k.sweepNow()
	t.Logf("%d pins swept in %v", k.pins.present, time.Since(began))
	if k.pins.present > MaxPins || k.pins.present < MaxPins/2 {
		t.Errorf("%d present", k.pins.present)
	}
	marked := 0
	for slot := range Slots {
		if steering.Row(b.Row(0, slot)).Marked() {
			marked++
		}
	}
	if marked == 0 || marked != len(k.services["web"].marked) {
		t.Errorf("%d slots marked, want %d", marked, len(k.services["web"].marked))
	}
}
