package balancer

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// process is a balancer with its keeper, as one process has them after another.
func process(t *testing.T, dir string, services int) (*Balancer, *Keeper) {
	t.Helper()
	b, err := Load(Options{Services: services, Pins: dir})
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeeper(b, slog.New(slog.DiscardHandler), time.Now(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	return b, k
}

func service(name string, states ...State) PlannedService {
	s := PlannedService{Service: Service{Name: name, Key: steering.FlowKey{1, 2}}}
	last := byte(len(name))
	s.VIPs = []VIP{{netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, last}), 32), 443, unix.IPPROTO_TCP}}
	for i, state := range states {
		sid := netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:%x:5201::", i+1))
		s.Backends = append(s.Backends, PlannedBackend{Name: fmt.Sprint("b", i+1), SID: sid, Weight: 1, State: state})
	}
	return s
}

// holders are how many slots each backend is in, by name, of a service's table.
func (k *Keeper) holders(b *Balancer, name string) (current, previous map[string]int) {
	current, previous = map[string]int{}, map[string]int{}
	names := map[uint32]string{0: ""}
	for _, r := range k.backends {
		names[uint32(r.index)] = r.name
	}
	for slot := range Slots {
		row := b.Row(k.services[name].number, slot)
		current[names[row&0x7fff]]++
		previous[names[row>>15&0x7fff]]++
	}
	return current, previous
}

// apply applies a plan whose backends all can be reached.
func apply(t *testing.T, k *Keeper, services ...PlannedService) {
	t.Helper()
	if err := k.Apply(Plan{Services: services}, time.Now()); err != nil {
		t.Fatal(err)
	}
	for sid := range k.backends {
		k.hopsChanged([]HopChange{{Address: sid, Hop: Hop{Index: 1, MTU: 1500}}})
	}
}

// A backend joins, drains, dies; a process takes over from another; services go.
func TestKeeper(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 3)
	if err := k.Apply(Plan{Services: []PlannedService{service("web", Active, Active)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	current, _ := k.holders(b, "web")
	if current["b1"]+current["b2"] != 0 {
		t.Error("backends without a known way have slots: ", current)
	}
	apply(t, k, service("web", Active, Active), service("mail", Active))
	current, _ = k.holders(b, "web")
	if current["b1"] < 32768 || current["b2"] < 32768 {
		t.Error("two of the same weight: ", current)
	}
	rows := func(b *Balancer) (rows []uint32) {
		for slot := range Slots {
			rows = append(rows, b.Row(0, slot), b.Row(1, slot))
		}
		return rows
	}
	before := rows(b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b, k = process(t, dir, 3)
	if !slices.Equal(rows(b), before) {
		t.Error("the next process has other rows")
	}
	apply(t, k, service("web", Active, Active), service("mail", Active))
	if !slices.Equal(rows(b), before) {
		t.Error("the same plan changed rows")
	}
	vips, err := all[bpfVipKey, bpfVip](b.objects.Vips)
	if err != nil || len(vips) != 6 { // each with its ICMP and fragments
		t.Errorf("%d keys, %v", len(vips), err)
	}

	apply(t, k, service("web", Active, Draining), service("mail", Active))
	current, previous := k.holders(b, "web")
	if current["b1"] != Slots || previous["b2"] < 32768 {
		t.Error("draining: ", current, previous)
	}
	apply(t, k, service("web", Active, Dead), service("mail", Active))
	if current, previous = k.holders(b, "web"); current["b1"] != Slots || previous["b2"] != 0 {
		t.Error("dead: ", current, previous)
	}
	k.hopsChanged([]HopChange{{Address: netip.MustParseAddr("2001:db8:5e:1:5201::"), Reason: "gone"}})
	if ok, why := k.Servable(netip.MustParsePrefix("198.51.100.3/32")); ok || !strings.Contains(why, "b1") {
		t.Error("servable without a way to a backend: ", why)
	}
	if ok, _ := k.Servable(netip.MustParsePrefix("192.0.2.1/32")); !ok {
		t.Error("what is no VIP is not the balancer's to refuse")
	}
	apply(t, k, service("mail", Active))
	if vips, err = all[bpfVipKey, bpfVip](b.objects.Vips); err != nil || len(vips) != 3 {
		t.Errorf("service gone: %d keys, %v", len(vips), err)
	}
	for slot := range Slots {
		if b.Row(0, slot) != 0 {
			t.Fatal("service gone, rows left")
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A plan that cannot be is refused whole.
func TestKeeperRefuses(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 2)
	t.Cleanup(func() { _ = b.Close() })
	good := service("web", Active)
	apply(t, k, good)
	twice := service("web2", Active)
	twice.VIPs = good.VIPs
	same := service("web", Active, Active)
	same.Backends[1].SID = same.Backends[0].SID
	noSID := service("web", Active)
	noSID.Backends[0].SID = netip.MustParseAddr("192.0.2.1")
	anyPort := service("web", Active)
	anyPort.VIPs[0].Protocol = 0
	taker, takers := service("web", Active), service("mail", Active)
	taker.Fragments, takers.Fragments = true, true
	taker.VIPs[0].Protocol = unix.IPPROTO_UDP
	takers.VIPs[0] = VIP{taker.VIPs[0].Prefix, 53, unix.IPPROTO_UDP}
	for want, services := range map[string][]PlannedService{
		"fragments to vip":                  {taker, takers},
		"service web is there twice":        {good, good},
		"is of service web":                 {good, twice},
		"have the SID 2001:db8:5e:1:5201::": {same},
		"not an IPv6 address":               {noSID},
		"port 443 of any protocol":          {anyPort},
		"3 services, want at most 2":        {good, service("web2"), service("web33")},
		"the name has 45 bytes":             {service(strings.Repeat("x", 45))},
	} {
		if err := k.Apply(Plan{Services: services}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if current, _ := k.holders(b, "web"); current["b1"] != Slots {
		t.Error("rows changed: ", current)
	}
}

// A backend to which there is no way for a moment, in which the process ends, keeps its
// slots.
func TestKeeperRestartsWithoutAWay(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 1)
	apply(t, k, service("web", Active, Active))
	before, _ := k.holders(b, "web")
	k.hopsChanged([]HopChange{{Address: sidOf(1), Reason: "its neighbour is silent"}})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = process(t, dir, 1)
	t.Cleanup(func() { _ = b.Close() })
	if err := k.Apply(Plan{Services: []PlannedService{service("web", Active, Active)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if after, _ := k.holders(b, "web"); after["b1"] != before["b1"] || after["b1"] == 0 {
		t.Errorf("slots %v, want %v", after, before)
	}
}

// Who takes no new flows has tables all the same: of those who have old ones.
func TestKeeperHasTables(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 1)
	if k.HasTables() {
		t.Error("of nobody")
	}
	apply(t, k, service("web", Active, Active))
	apply(t, k, service("web", Draining, Draining))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = process(t, dir, 1)
	t.Cleanup(func() { _ = b.Close() })
	if !k.HasTables() {
		t.Error("a process that starts does not know who has flows")
	}
	apply(t, k, service("web", Dead, Dead))
	if k.HasTables() {
		t.Error("of the dead")
	}
}

// A backend whose host is gone keeps its slots, and nothing is sent there, also by the next
// process, until it is back.
func TestKeeperLeavesOut(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 3)
	way := func() bpfHop {
		t.Helper()
		var v bpfBackend
		if err := b.objects.Backends.Lookup(uint32(k.backends[service("web", Active).Backends[0].SID].index), &v); err != nil {
			t.Fatal(err)
		}
		if v.Found == 0 {
			t.Error("it was never found: its flows do not wait")
		}
		return v.Hop
	}
	gone := func(states ...State) PlannedService {
		s := service("web", states...)
		s.Backends[0].Gone = true
		return s
	}
	apply(t, k, service("web", Active, Active), service("mail", Active))
	before, _ := k.holders(b, "web")
	if way() == (bpfHop{}) {
		t.Error("no way to a backend that is there")
	}
	mail := service("mail", Active)
	apply(t, k, gone(Draining, Active), mail)
	if way() == (bpfHop{}) {
		t.Error("no way to a backend that another service takes for one that is there")
	}
	mail.Backends[0].Gone, mail.Backends[0].State = true, Draining
	apply(t, k, gone(Draining, Active), mail)
	if way() != (bpfHop{}) {
		t.Error("a way to a backend that is gone")
	}
	if _, previous := k.holders(b, "web"); previous["b1"] < before["b1"] {
		t.Errorf("%d slots remember who is gone, want %d at least", previous["b1"], before["b1"])
	}
	status := k.Status()
	if i := slices.IndexFunc(status, func(s BackendStatus) bool { return s.Service == "web" && s.Backend == "b1" }); status[i].Why == "" || status[i].Path != 0 {
		t.Errorf("status %+v", status[i])
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = process(t, dir, 3)
	apply(t, k, gone(Draining, Active), mail)
	if way() != (bpfHop{}) {
		t.Error("the next process has a way to a backend that is gone")
	}
	apply(t, k, service("web", Active, Active), service("mail", Active))
	if after, _ := k.holders(b, "web"); after["b1"] != before["b1"] || way() == (bpfHop{}) {
		t.Errorf("back: %d slots, want %d, by %v", after["b1"], before["b1"], way())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}
