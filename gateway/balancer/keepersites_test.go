package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// twoSites are other sites, with two gateways and with one.
func twoSites() []PlannedSite {
	entry := func(i int) netip.Addr {
		return Entry(netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:e%03x::/64", i)))
	}
	return []PlannedSite{
		{Name: "east", Locators: netip.MustParsePrefix("2001:db8:5e:e000::/56"), Gateways: []netip.Addr{entry(1), entry(2)}},
		{Name: "north", Locators: netip.MustParsePrefix("2001:db8:5e:e100::/56"), Gateways: []netip.Addr{entry(0x101)}},
	}
}

// entriesOf are the entries that the program has for a site, by name, in their places.
func (k *Keeper) entriesOf(t *testing.T, number int) (names []string) {
	t.Helper()
	var v bpfSite
	if err := k.balancer.objects.Sites.Lookup(uint32(number), &v); err != nil {
		t.Fatal(err)
	}
	for _, i := range v.Entries {
		name := ""
		for sid, r := range k.backends {
			if uint32(r.index) == i {
				name = sid.String()
			}
		}
		names = append(names, name)
	}
	return names
}

// spillsOf are the spills that the program has of a service.
func (k *Keeper) spillsOf(t *testing.T, name string) (out []bpfSpill) {
	t.Helper()
	var v bpfService
	if err := k.balancer.objects.Services.Lookup(uint32(k.services[name].number), &v); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(v.Spills[:], func(s bpfSpill) bool { return s.End == 0 })
}

// way says that there is a way to an address, or none.
func (k *Keeper) way(a netip.Addr, is bool) {
	c := HopChange{Address: a}
	if is {
		c.Hop = Hop{Index: 1, MTU: 1500}
	}
	k.hopsChanged([]HopChange{c})
}

// Entries are those that can be reached, shares go where the plan says, and a service
// without backends for new flows fails over.
func TestKeeperSites(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	_, k := process(t, "", 3)
	web, sites := service("web", Active, Active), twoSites()
	web.Spills = steering.Spills{{Site: "north", Slots: 1000}, {Site: "east", Slots: 500}}
	must := func(p Plan) {
		t.Helper()
		if err := k.Apply(p, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	must(Plan{Sites: sites, MissBudget: 1000, Services: []PlannedService{web}})
	if got := k.entriesOf(t, 0); slices.ContainsFunc(got, func(s string) bool { return s != "" }) {
		t.Errorf("entries %q before there is a way to any", got)
	}
	first, second := sites[0].Gateways[0], sites[0].Gateways[1]
	k.way(first, true)
	k.way(second, true)
	got := k.entriesOf(t, 0)
	if n := strings.Count(strings.Join(got, " "), first.String()); n != 4 {
		t.Errorf("entries %q, want each of two in 4 places", got)
	}
	k.way(first, false)
	if got := k.entriesOf(t, 0); slices.ContainsFunc(got, func(s string) bool { return s != second.String() }) {
		t.Errorf("entries %q, want %s alone", got, second)
	}
	want := []bpfSpill{{End: 1000, Site: 1}, {End: 1500, Site: 0}}
	if got := k.spillsOf(t, "web"); !slices.Equal(got, want) {
		t.Errorf("spills %v, want %v", got, want)
	}
	for i := range web.Backends {
		web.Backends[i].State = Draining
	}
	must(Plan{Sites: sites, Services: []PlannedService{web}})
	// north, which is first in its spills, cannot be reached.
	if got, want := k.spillsOf(t, "web"), []bpfSpill{{End: Slots, Site: 0}}; !slices.Equal(got, want) {
		t.Errorf("spills %v, want %v: all to the site that can be reached", got, want)
	}
	vip := web.VIPs[0].Prefix
	if ok, why := k.Servable(vip); !ok {
		t.Errorf("not servable, %s: another site serves", why)
	}
	k.way(sites[1].Gateways[0], true)
	if got, want := k.spillsOf(t, "web"), []bpfSpill{{End: Slots, Site: 1}}; !slices.Equal(got, want) {
		t.Errorf("spills %v, want %v: all to the site that it spills to first", got, want)
	}
	for _, s := range sites {
		for _, a := range s.Gateways {
			k.way(a, false)
		}
	}
	if ok, _ := k.Servable(vip); ok {
		t.Error("servable without any backend or site")
	}
}

// What was decided stands where nobody here takes new flows, while there is a way to all
// sites that it names.
func TestKeeperDecided(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 3)
	defer func() { _ = b.Close() }()
	web, sites := service("web", Draining), twoSites()
	web.Decided, web.Spills = true, steering.Spills{{Site: "north", Slots: 40000}, {Site: "east", Slots: 20000}}
	if err := k.Apply(Plan{Sites: sites, Services: []PlannedService{web}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	k.way(sites[0].Gateways[0], true)
	if got, want := k.spillsOf(t, "web"), []bpfSpill{{End: Slots, Site: 0}}; !slices.Equal(got, want) {
		t.Errorf("spills %v, want %v: there is no way to north", got, want)
	}
	if ways := k.Ways(sites); !ways["east"] || ways["north"] {
		t.Errorf("ways %v", ways)
	}
	k.way(sites[1].Gateways[0], true)
	if got, want := k.spillsOf(t, "web"), []bpfSpill{{End: 40000, Site: 1}, {End: 60000, Site: 0}}; !slices.Equal(got, want) {
		t.Errorf("spills %v, want %v", got, want)
	}
	if ok, why := k.Servable(web.VIPs[0].Prefix); !ok {
		t.Errorf("not servable: %s", why)
	}
}

// A plan that contradicts itself about sites is refused, and says why.
func TestKeeperRefusesSites(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	_, k := process(t, "", 3)
	for want, change := range map[string]func(p *Plan){
		`site "east": want a name that no other has`:           func(p *Plan) { p.Sites[1].Name = "east" },
		`site "": want a name that no other has`:               func(p *Plan) { p.Sites[0].Name = "" },
		"the gateway 2001:db8:5e:e001:5203:: is of site east":  func(p *Plan) { p.Sites[1].Gateways = p.Sites[0].Gateways[:1] },
		"service web: spills to site \"south\", which is none": func(p *Plan) { p.Services[0].Spills = steering.Spills{{Site: "south"}} },
		"site east: 9 gateways, want at most 8":                func(p *Plan) { p.Sites[0].Gateways = make([]netip.Addr, 9) },
		"service web: spills to 5 sites, want at most 4":       func(p *Plan) { p.Services[0].Spills = make(steering.Spills, 5) },
		"65 other sites, want at most 64":                      func(p *Plan) { p.Sites = make([]PlannedSite, 65) },
		"site east: SID 192.0.2.1 is not an IPv6 address":      func(p *Plan) { p.Sites[0].Gateways[0] = netip.MustParseAddr("192.0.2.1") },
	} {
		p := Plan{Sites: twoSites(), Services: []PlannedService{service("web", Active)}}
		change(&p)
		if err := k.Apply(p, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A pin may name a backend of another site, which stays known as long as flows have it,
// also to the next process; nobody else may have a flow.
func TestPinsOfOtherSites(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 3)
	p := Plan{Sites: twoSites(), Services: []PlannedService{service("web", Active)}}
	if err := k.Apply(p, time.Now()); err != nil {
		t.Fatal(err)
	}
	owner := Hunt(netip.MustParsePrefix("2001:db8:5e:e0b1::/64"), 0)
	stranger := Hunt(netip.MustParsePrefix("2001:db8:5e:f0b1::/64"), 0)
	if err := k.Pin(webFlow(1), stranger); !errors.Is(err, NotItsHost) {
		t.Errorf("a stranger's flow: %v", err)
	}
	if err := k.Pin(webFlow(1), owner); err != nil {
		t.Fatal(err)
	}
	index := uint32(k.backends[owner].index)
	if got := stored(t, b); got[1] != index {
		t.Errorf("pins %v, want one of backend %d", got, index)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b, k = process(t, dir, 3)
	if err := k.Apply(p, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, b); got[1] != index || k.backends[owner] == nil {
		t.Errorf("pins %v after a restart, want one of backend %d", got, index)
	}
	p.Sites = p.Sites[1:]
	if err := k.Apply(p, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, b); len(got) != 0 || k.backends[owner] != nil {
		t.Errorf("pins %v of a site that is gone", got)
	}
}

// A router on the way to another site is believed like one on the way to a backend.
func TestSmallerPathToASite(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 1)
	defer func() { _ = b.Close() }()
	if err := b.SetHost(newModel(false).host); err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(Plan{Sites: twoSites()[1:], Services: []PlannedService{service("web", Draining)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	entry := twoSites()[1].Gateways[0]
	k.way(entry, true)
	sent := b.run(t, ethernet(0, ip(client4, "198.51.100.3", unix.IPPROTO_TCP, tcp(31000, 443, syn, 1300))))
	if sent.action != xdpTX {
		t.Fatalf("verdict %d", sent.action)
	}
	k.heard(1450, sent.frame[14:14+256], time.Now())
	if got := k.backends[entry].way().MTU; got != 1450 {
		t.Errorf("MTU to the entry is %d, want 1450", got)
	}
}

// While the way to a site is lost, and for a minute at most, a packet that nobody has is
// dropped; else it is the current backend's to answer.
func TestPatience(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	b, k := process(t, "", 1)
	defer func() { _ = b.Close() }()
	if err := b.SetHost(newModel(false).host); err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(Plan{Sites: twoSites()[1:], MissBudget: 1000, Services: []PlannedService{service("web", Active)}}, time.Now()); err != nil {
		t.Fatal(err)
	}
	entry := twoSites()[1].Gateways[0]
	k.way(sidOf(1), true)
	missed := ethernet(0, ip(agentSID, "2001:db8:5e:1:5204::100:0", unix.IPPROTO_IPIP, ip(client4, "198.51.100.3", unix.IPPROTO_TCP, tcp(31000, 443, ack, 0))))
	expect := func(when, want string) {
		t.Helper()
		if got := b.try(t, missed).reasons; last(got, want) != want {
			t.Errorf("%s: %v, want %s", when, got, want)
		}
	}
	expect("before there is a way", "no_neighbour")
	k.way(entry, true)
	expect("there is a way", "away")
	k.way(entry, false)
	expect("it is lost", "no_neighbour")
	b.SetPatience(uptime() - 1)
	expect("a minute later", "miss")
	k.way(entry, true)
	k.way(entry, false)
	expect("it is lost again", "no_neighbour")
}
