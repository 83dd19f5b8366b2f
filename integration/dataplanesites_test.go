package integration

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// Routers move flows to another site and back. Each is found there by a miss or two, and
// from then on by its pin.
func TestFlowsAtTheWrongSite(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	flows := s.begins(rounds(1000, 3000), west)
	for i := range 3 {
		s.enter(east)
		before := east.counts()["away"]
		west.alive("at east", flows)
		asked := east.counts()["away"] - before
		switch {
		case i == 0 && asked < uint64(len(flows)):
			t.Errorf("%d packets of %d flows were asked about", asked, len(flows))
		case i > 0 && asked > 0:
			t.Errorf("%d packets of flows with pins were asked about", asked)
		}
		s.settle("at east", flows, east, west)
		s.enter(west)
		west.alive("back at west", flows)
		s.quiet("back at west", flows, west)
	}
	for _, g := range east.gateways() {
		its, others := g.pinsOf(west)
		if its == 0 || others != 0 {
			t.Errorf("%s: %d pins name backends of west, %d others", g.gateway.Name, its, others)
		}
	}
	if c := west.counts(); c["away"] != 0 || c["entered"] == 0 {
		t.Errorf("west: %v", c)
	}
	s.sound()
}

// The backends of a site are drained or dead: another site has the new flows, until they
// are back. Nothing breaks but the flows of who is dead.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	s.begins(rounds(200, 600), west)
	for i := range rounds(2, 6) {
		dead := i%2 == 1
		west.plan[0].State, west.plan[1].State = balancer.Draining, balancer.Draining
		if dead {
			west.plan[1].State = balancer.Dead
			west.forgetFlows("b2")
		}
		west.apply()
		west.check("west takes no new flows", "")
		before := [2]map[string]uint64{west.counts(), east.counts()}
		s.begins(rounds(200, 600), east)
		if n := west.counts()["spilled"] - before[0]["spilled"]; n < uint64(rounds(200, 600)) {
			t.Errorf("%d packets of new flows left west", n)
		}
		if n := east.counts()["entered"] - before[1]["entered"]; n < uint64(rounds(200, 600)) {
			t.Errorf("%d packets entered east", n)
		}
		west.check("new flows are at east", "")

		west.plan[0].State, west.plan[1].State = balancer.Active, balancer.Active
		west.apply()
		west.check("west is back", "")
		s.begins(rounds(100, 300), west)
		west.check("new flows are at west", "")
	}
	west.check(atTheEnd, "")
	s.quiet(atTheEnd, west.flows, west)
	s.sound()
}

// forgetFlows closes the flows of a backend, which hears of it.
func (k *kept) forgetFlows(backend string) {
	k.t.Helper()
	var left []*liveFlow
	for _, f := range k.flows {
		if f.by != backend+"\n" {
			left = append(left, f)
			continue
		}
		_ = f.conn.Close()
	}
	k.flows = left
	k.lab.Eventually("the backend hears of it", func() bool { return k.client.Run("ss", "-Hnt", "state", "fin-wait-1") == "" })
}

// A share of the slots gives its new flows to another site: just these, and no more.
// Flows live on where they are, whatever the share becomes, also those on which nothing was
// said before.
func TestSpill(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	home := func(f *liveFlow, share float64) bool {
		return east.has(f) == (steering.Rank(f.slot()) < steering.SpillSlots(share))
	}
	var silent []*liveFlow
	was := 0.0
	for _, share := range []float64{0, 0.3, 0.6, 0.3, 1, 0} {
		when := fmt.Sprintf("share %v", share)
		west.spills = steering.Spills{{Site: "east", Slots: steering.SpillSlots(share)}}
		west.apply()
		west.check(when+", old flows", "")
		for i, f := range silent {
			var err error
			if f.by, err = f.ask(); err != nil || !home(f, was) {
				t.Fatalf("%s: silent flow %d of slot %d is of %q, %v", when, i, f.slot(), f.by, err)
			}
		}
		west.flows = append(west.flows, silent...)
		n, away := rounds(400, 1000), 0
		for i, f := range s.begins(n, west, east) {
			if !home(f, share) {
				t.Fatalf("%s: flow %d of slot %d is of %q", when, i, f.slot(), f.by)
			}
			if east.has(f) {
				away++
			}
		}
		// Five times the standard deviation, for 1,000 flows and a share of 0.3: 7.2 %.
		if got := float64(away) / float64(n); math.Abs(got-share) > 5*math.Sqrt(share*(1-share)/float64(n)) {
			t.Errorf("%s: %v of the flows are at east", when, got)
		}
		west.check(when+", new flows", "")
		silent, was = s.opens(rounds(40, 200)), share
	}
	west.check(atTheEnd, "")
	s.sound()
}

// A flow whose home is the third site is found there in the second round. A packet of
// nobody's flow is answered by who is current, once all were asked. A new flow that the
// second site has no backends for is given back, and goes on from where it came in: the
// second site sends nothing on.
func TestThreeSites(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east", "north")
	west, east, north := s.all[0], s.all[1], s.all[2]
	s.enter(north)
	flows := s.begins(rounds(100, 500), north)
	s.enter(west)
	north.alive("at west", flows)
	n := uint64(len(flows))
	if c := [3]uint64{west.counts()["away"], east.counts()["entered"], north.counts()["entered"]}; c[0] < 2*n || c[1] < n || c[2] < n {
		t.Errorf("west asked %d times, %d packets entered east, %d north", c[0], c[1], c[2])
	}
	s.settle("at west", flows, west, north)
	s.sound()

	for i, client := range []string{clientAddress6, "192.0.2.129"} {
		s.stray(netip.AddrPortFrom(netip.MustParseAddr(client), uint16(1000+i)))
	}

	for _, at := range []*site{west, east} {
		at.plan[0].State, at.plan[1].State = balancer.Draining, balancer.Draining
		at.apply()
	}
	before := north.counts()
	fresh := s.begins(2, north)
	if c, given := north.counts(), east.counts(); c["entered"] == before["entered"] || given["given_back"] < 2 || given["spilled"] != 0 {
		t.Errorf("%d packets of new flows entered north, east gave back %d and sent on %d", c["entered"]-before["entered"], given["given_back"], given["spilled"])
	}
	north.alive("others have no backends", append(fresh, flows...))
}

// stray sends a packet of nobody's flow to the first site, and waits for the reset.
func (s *sites) stray(from netip.AddrPort) {
	s.t.Helper()
	west := s.all[0]
	vip := vipAddress6
	if from.Addr().Is4() {
		vip = vipAddress4
	}
	slot := steering.FlowSlot(steering.FlowHash(serviceKey, steering.Flow{Client: from.Addr(), SourcePort: from.Port(), DestinationPort: 443, Protocol: unix.IPPROTO_TCP}))
	current := west.sid(west.balancer.Row(0, int(slot)) & 0x7fff)
	before, finals := s.count(), s.packets(segment.TakenFinal)
	captured := west.access.B.Capture()
	frame := etherFrame(tcpPacket(from, netip.AddrPortFrom(netip.MustParseAddr(vip), 443), flagACK, 0))
	copy(frame, west.access.A.MAC())
	copy(frame[6:], west.access.B.MAC())
	west.access.B.Send(frame)
	s.lab.Eventually("a reset", func() bool {
		return slices.ContainsFunc(captured.Frames(), func(f []byte) bool {
			at := map[byte]int{0x08: l4, 0x86: l6}[f[12]]
			return at > 0 && len(f) >= at+20 && f[at-1] == from.Addr().AsSlice()[from.Addr().BitLen()/8-1] &&
				binary.BigEndian.Uint16(f[at+2:]) == from.Port() && f[at+13]&flagRST != 0
		})
	})
	for i, c := range s.count() {
		at := s.all[i].name
		if away := c["away"] - before[i]["away"]; i == 0 && away != uint64(len(s.all)-1) || i > 0 && away != 0 {
			s.t.Errorf("%v: %s asked others %d times", from, at, away)
		}
		if entered := c["entered"] - before[i]["entered"]; i == 0 && entered != 0 || i > 0 && entered != 1 {
			s.t.Errorf("%v: %d packets entered %s", from, entered, at)
		}
	}
	for sid, n := range s.packets(segment.TakenFinal) {
		if n -= finals[sid]; sid == current && n != 1 || sid != current && n != 0 {
			s.t.Errorf("%v: %d packets were %v's at last; %v is current", from, n, sid, current)
		}
	}
}

// A router between client and west finds a packet too big of a flow that is at east: who
// sent it is told, with a pin and without.
func TestErrorsAtTheWrongSite(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	s.enter(east)
	flows := s.begins(40, east)
	// One gateway: routers may send errors to another one than the flow.
	west.shared([2]string{west.toward.B.Addrs[0].String(), west.toward.B.Addrs[1].String()})
	west.listener.SetKeys(pinKeys(t, 2, 2)) // nothing is pinned
	west.router.Run("ip", "link", "set", west.access.A.Device, "mtu", "1400")
	s.errors("hunted for", flows[:20], func(away uint64) bool { return away > 0 })
	west.listener.SetKeys(west.keys)
	s.settle("by pins", flows[20:], west, east)
	s.errors("by pins", flows[20:], func(away uint64) bool { return away == 0 })
	s.sound()
}

// errors has much be sent on flows that are at the second site, whose packets come in at
// the first one, by a way that is smaller than their backends know.
func (s *sites) errors(when string, flows []*liveFlow, asked func(away uint64) bool) {
	s.t.Helper()
	west, east := s.all[0], s.all[1]
	for i, f := range flows {
		for _, b := range east.backends {
			b.Run("ip", "route", "flush", "cache") // or they know of it by the flow before
			b.Run("ip", "-6", "route", "flush", "cache")
		}
		before, taken := west.counts(), s.packets(segment.TakenError)
		if by, err := f.tell("20000\n"); err != nil || len(by) != 20_000+len(f.by) || by[20_000:] != f.by {
			s.t.Fatalf("%s: flow %d: %d bytes came, %v; %v", when, i, len(by), err, west.counts())
		}
		after := west.counts()
		if after["icmp_error"] == before["icmp_error"] {
			s.t.Errorf("%s: flow %d: no error came", when, i)
		}
		if n := after["away"] - before["away"]; !asked(n) {
			s.t.Errorf("%s: flow %d: %d packets were asked about", when, i, n)
		}
		for sid, n := range s.packets(segment.TakenError) {
			if n -= taken[sid]; (n > 0) != (sid == east.sidOf(f.by)) {
				s.t.Errorf("%s: flow %d of %q: %d errors came to %v", when, i, f.by, n, sid)
			}
		}
	}
}

// A gateway of a site dies, and its routes are withdrawn: others ask the one that is left,
// until it is back.
func TestAGatewayOfTheOtherSiteDies(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	withdraw := locator(east.number).String()
	for _, g := range west.gateways() { // which have no routes to east but those of its hosts
		g.gateway.Run("ip", "route", "add", "unreachable", east.planned().Locators.String())
		for _, n := range []int{east.number, east.mate.number, east.locator(1), east.locator(2)} {
			g.by(g.gateway, g.toward.A.Addrs[0].String(), "", locator(n).String())
		}
	}
	s.enter(east)
	flows := s.begins(rounds(150, 1500), east)
	third := len(flows) / 3
	known, asked, silent := flows[:third], flows[third:2*third], flows[2*third:]
	s.enter(west)
	s.settle("both gateways are there", known, west, east)
	for _, g := range east.gateways() {
		if g.counts()["entered"] == 0 {
			t.Errorf("nothing entered %s", g.gateway.Name)
		}
	}

	for _, g := range west.gateways() {
		g.gateway.Run("ip", "route", "del", withdraw)
	}
	west.router.Run("ip", "route", "del", withdraw)
	east.toward.Drop()
	s.lab.Eventually("one entry is left", func() bool {
		for _, g := range west.gateways() {
			entries := g.keeper.Sites()[0].Gateways
			if entries[0].Why == "" || entries[1].Why != "" {
				return false
			}
		}
		return true
	})
	before := [2]uint64{east.pinning.counts()["entered"], east.mate.counts()["entered"]}
	east.alive("with pins", known)
	east.alive("without", asked)
	for i := range west.plan {
		west.plan[i].State = balancer.Draining
	}
	west.apply()
	s.begins(rounds(100, 500), east)
	if n := east.pinning.counts()["entered"] - before[0]; n != 0 {
		t.Errorf("%d packets entered a dead gateway", n)
	}
	if n := east.mate.counts()["entered"] - before[1]; n < uint64(len(asked)) {
		t.Errorf("%d packets entered the gateway that is left", n)
	}

	east.toward.Heal()
	east.by(east.router, east.toward.B.Addrs[0].String(), "", withdraw)
	for _, g := range west.gateways() {
		g.by(g.gateway, g.toward.A.Addrs[0].String(), "", withdraw)
	}
	s.lab.Eventually("both entries again", s.entries)
	east.alive("both again", slices.Concat(silent, flows))
	s.begins(rounds(100, 500), east)
	if n := east.pinning.counts()["entered"] - before[0]; n == 0 {
		t.Error("nothing enters the gateway that is back")
	}
	s.sound()
}
