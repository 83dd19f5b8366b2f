package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/steering"
)

// sites are sites with the same service around one router, which sends what is to the
// VIPs to the gateways of any of them:
//
//	client ── router ┬─ gateway, gateway2, b1, …           2001:db8:5e::/56
//	                 ├─ east, east2, east-b1, …            2001:db8:5e:100::/56
//	                 └─ north, north2, north-b1, …         2001:db8:5e:200::/56
type sites struct {
	t   *testing.T
	lab *netlab.Lab
	all []*site
}

// site is one of them. Its first gateway decides, the other one has the same tables. All
// agents tell gateways of their flows.
type site struct {
	*pinning

	name string
	mate *pinning
}

// allMisses is a budget that nothing in a test uses up.
const allMisses = 1_000_000

// newSites makes as many sites as there are names, the first of which has the VIPs.
func newSites(t *testing.T, backends int, names ...string) *sites {
	t.Helper()
	keys := pinKeys(t, 1, 1)
	s := &sites{t: t}
	for i, name := range names {
		var k *kept
		if i == 0 {
			k = newKept(t, backends)
			s.lab = k.lab
			k.router.Sysctl("net.ipv4.fib_multipath_hash_policy", "1") // ports as well
			k.router.Sysctl("net.ipv6.fib_multipath_hash_policy", "1")
		} else {
			first := s.all[0]
			d := &dataplane{t: t, lab: s.lab, client: first.client, router: first.router, access: first.access, site: i}
			d.build(name, name+"-b", backends)
			k = keepAll(d)
		}
		at := &site{pinning: listen(k, keys), name: name}
		at.tell()
		at.mate = listen(k.second(), keys)
		s.all = append(s.all, at)
	}
	for i, at := range s.all {
		at.budget = allMisses
		for j := 1; j < len(s.all); j++ { // the nearest is the next one
			at.others = append(at.others, s.all[(i+j)%len(s.all)].planned())
		}
		at.apply()
	}
	s.lab.Eventually("ways to all entries", s.entries)
	s.enter(s.all[0])
	return s
}

// planned is the site as others know it.
func (s *site) planned() balancer.PlannedSite {
	return balancer.PlannedSite{
		Name:     s.name,
		Locators: netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%x::/56", s.locator(0))),
		Gateways: []netip.Addr{balancer.Entry(locator(s.number)), balancer.Entry(locator(s.mate.number))},
	}
}

// gateways are both.
func (s *site) gateways() []*pinning { return []*pinning{s.pinning, s.mate} }

// apply makes the plan of the moment that of both gateways.
func (s *site) apply() {
	s.t.Helper()
	s.pinning.apply()
	s.mate.plan, s.mate.others, s.mate.spills, s.mate.budget = s.plan, s.others, s.spills, s.budget
	s.mate.apply()
	s.mate.copy(s.kept)
}

// entries tells whether all gateways have ways to all entries of other sites.
func (s *sites) entries() bool {
	for _, at := range s.all {
		for _, g := range at.gateways() {
			for _, other := range g.keeper.Sites() {
				if slices.ContainsFunc(other.Gateways, func(g balancer.GatewayStatus) bool { return g.Why != "" }) {
					return false
				}
			}
		}
	}
	return true
}

// enter has the router send what is to the VIPs to the gateways of a site.
func (s *sites) enter(at *site) {
	s.t.Helper()
	var hops [][2]string
	for _, g := range at.gateways() {
		hops = append(hops, [2]string{g.toward.B.Addrs[0].String(), g.toward.B.Addrs[1].String()})
	}
	at.shared(hops...)
}

// counts are those of both gateways.
func (s *site) counts() map[string]uint64 {
	s.t.Helper()
	sum := s.pinning.counts()
	for reason, n := range s.mate.counts() {
		sum[reason] += n
	}
	return sum
}

// has tells whether a flow was answered by a backend of the site at first.
func (s *site) has(f *liveFlow) bool {
	return slices.ContainsFunc(s.backends, func(b *netlab.Node) bool { return b.Name+"\n" == f.by })
}

// begins opens flows and returns them: each is at one of its sites.
func (s *sites) begins(n int, at ...*site) []*liveFlow {
	s.t.Helper()
	first := s.all[0]
	before := len(first.flows)
	first.begin(n)
	flows := first.flows[before:]
	for i, f := range flows {
		if !slices.ContainsFunc(at, func(at *site) bool { return at.has(f) }) {
			s.t.Fatalf("new flow %d is at %q", i, strings.TrimSpace(f.by))
		}
	}
	return flows
}

// opens opens flows on which nothing is said.
func (s *sites) opens(n int) (flows []*liveFlow) {
	s.t.Helper()
	for i := range n {
		flows = append(flows, openFlow(s.t, s.all[0].client, i))
	}
	return flows
}

// sidOf is that of the backend that answers with a line.
func (s *site) sidOf(by string) netip.Addr {
	i := slices.IndexFunc(s.plan, func(b balancer.PlannedBackend) bool { return b.Name+"\n" == by })
	if i < 0 {
		return netip.Addr{}
	}
	return s.plan[i].SID
}

// count is the counts of all sites.
func (s *sites) count() (out []map[string]uint64) {
	s.t.Helper()
	for _, at := range s.all {
		out = append(out, at.counts())
	}
	return out
}

// packets is how many packets had a reason at each backend, by its SID.
func (s *sites) packets(reason segment.Reason) map[netip.Addr]uint64 {
	s.t.Helper()
	out := map[netip.Addr]uint64{}
	for _, at := range s.all {
		for i, e := range at.endpoints {
			packets, err := e.Packets()
			at.must(err)
			out[at.plan[i].SID] = packets[reason]
		}
	}
	return out
}

// hash is that of the flow.
func (f *liveFlow) hash() uint64 {
	local := netip.MustParseAddrPort(f.conn.LocalAddr().String())
	remote := netip.MustParseAddrPort(f.conn.RemoteAddr().String())
	return steering.FlowHash(serviceKey, steering.Flow{
		Client: local.Addr().Unmap(), SourcePort: local.Port(), DestinationPort: remote.Port(), Protocol: 6,
	})
}

// slot is that of the flow.
func (f *liveFlow) slot() uint32 { return steering.FlowSlot(f.hash()) }

// table is a map of the balancer's, by its name.
func (d *dataplane) table(name string) *ebpf.Map {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.pins, "balancer-*", name))
	if err != nil || len(files) != 1 {
		d.t.Fatal(files, err)
	}
	m, err := ebpf.LoadPinnedMap(files[0], nil)
	d.must(err)
	d.t.Cleanup(func() { _ = m.Close() })
	return m
}

// sid is that of a backend's index.
func (d *dataplane) sid(index uint32) netip.Addr {
	d.t.Helper()
	value, err := d.table("backends").LookupBytes(index)
	d.must(err)
	return netip.AddrFrom16([16]byte(value[:16]))
}

// pinsOf counts the pins of a gateway that name a backend of a site, and all others.
func (p *pinning) pinsOf(of *site) (its, others int) {
	p.t.Helper()
	by := map[uint32]int{}
	var key, value []byte
	for all := p.table("pins").Iterate(); all.Next(&key, &value); {
		by[binary.NativeEndian.Uint32(value)]++
	}
	for index, n := range by {
		if of.planned().Locators.Contains(p.sid(index)) {
			its += n
		} else {
			others += n
		}
	}
	return its, others
}

// settle has flows of a site that come in at another one talk until pins name who has
// them, and then holds that no packet is asked about any more.
func (s *sites) settle(when string, flows []*liveFlow, in, home *site) {
	s.t.Helper()
	s.lab.Eventually(when+": pins", func() bool {
		home.alive(when, flows)
		pinned := 0
		for _, g := range in.gateways() {
			n, _ := g.pinsOf(home)
			pinned += n
		}
		return pinned >= len(flows)
	})
	s.quiet(when, flows, in)
}

// quiet holds that flows go by their pins, or where their rows say.
func (s *sites) quiet(when string, flows []*liveFlow, in *site) {
	s.t.Helper()
	s.lab.Eventually(when+": no more misses", func() bool {
		before := in.counts()
		in.alive(when, flows)
		after := in.counts()
		return after["away"] == before["away"] && after["miss"] == before["miss"]
	})
}

// sound holds that no gateway dropped what it should not have.
func (s *sites) sound() {
	s.t.Helper()
	for _, at := range s.all {
		c := at.counts()
		s.t.Log(at.name, ": ", c)
		for _, reason := range []string{"malformed", "outsider", "flags", "hop_limit", "no_backend", "no_neighbour", "too_big_untold", "no_headroom", "stray", "budget"} {
			if c[reason] != 0 {
				s.t.Errorf("%s: %d packets dropped: %s", at.name, c[reason], reason)
			}
		}
	}
}
