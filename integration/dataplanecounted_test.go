package integration

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/steering"
)

// totals are what both gateways of a site count: to all VIPs, and to each SID.
type totals struct {
	vips balancer.Traffic
	to   map[netip.Addr]balancer.Traffic
}

func (s *site) totals() totals {
	c := totals{to: map[netip.Addr]balancer.Traffic{}}
	for _, g := range s.gateways() {
		of := g.keeper.Counted()
		for _, vips := range of.VIPs {
			for _, v := range vips {
				c.vips.NewFlows += v.NewFlows
				c.vips.OldFlows += v.OldFlows
			}
		}
		for sid, t := range of.Backends {
			sum := c.to[sid]
			c.to[sid] = balancer.Traffic{NewFlows: sum.NewFlows + t.NewFlows, OldFlows: sum.OldFlows + t.OldFlows}
		}
	}
	return c
}

// at is what went to a site: to its entries, and to its backends by pins.
func (c *totals) at(s *site) (sum balancer.Traffic) {
	for sid, t := range c.to {
		if s.planned().Locators.Contains(sid) {
			sum.NewFlows += t.NewFlows
			sum.OldFlows += t.OldFlows
		}
	}
	return sum
}

// synsAgain is how many SYNs a host has sent again.
func synsAgain(t *testing.T, n *netlab.Node) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(n.Run("cat", "/proc/net/netstat")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		for i, name := range names {
			if name == "TCPSynRetrans" {
				again, err := strconv.Atoi(fields[i])
				if err != nil {
					t.Fatal(err)
				}
				return again
			}
		}
		names = fields
	}
	t.Fatal("the kernel does not tell of SYNs sent again")
	return 0
}

// remembered is in how many places gateways remember that flows had packets: two flows may
// have the same.
func remembered(flows []*liveFlow) int {
	slots := map[uint64]bool{}
	for _, f := range flows {
		slots[f.hash()>>32&(1<<18-1)] = true
	}
	return len(slots)
}

// Gateways count the flows that clients open, each once, where they go: to backends of
// theirs, and to another site, which counts them likewise. Old ones count there too, in each
// second in which they have packets, also where they come in at the wrong site.
func TestFlowsCounted(t *testing.T) {
	t.Parallel()
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	west.spills = steering.Spills{{Site: "east", Slots: steering.SpillSlots(0.3)}}
	west.apply()
	client := west.client
	began, again := time.Now(), synsAgain(t, client)
	was, wasEast := west.totals(), east.totals()
	flows := s.begins(rounds(400, 2000), west, east)
	is, isEast := west.totals(), east.totals()
	again = synsAgain(t, client) - again
	seconds := uint64(math.Ceil(time.Since(began).Seconds())) + 1

	by := map[string][]*liveFlow{}
	home, away := []*liveFlow{}, []*liveFlow{}
	for _, f := range flows {
		by[f.by] = append(by[f.by], f)
		if west.has(f) {
			home = append(home, f)
		} else {
			away = append(away, f)
		}
	}
	exactly := func(what string, is, was balancer.Traffic, of []*liveFlow, old bool) {
		t.Helper()
		if n := int(is.NewFlows - was.NewFlows); n < len(of) || n > len(of)+again {
			t.Errorf("%s: %d new flows counted of %d that were opened; %d SYNs were sent again", what, n, len(of), again)
		}
		if n := is.OldFlows - was.OldFlows; old && (n < uint64(remembered(of)) || n > uint64(len(of))*seconds) {
			t.Errorf("%s: %d old flows counted of %d within %d seconds", what, n, len(of), seconds)
		}
	}
	exactly("west", is.vips, was.vips, flows, true)
	exactly("from west to east", is.at(east), was.at(east), away, false) // old ones at first go by the row
	exactly("east", isEast.vips, wasEast.vips, away, true)
	for _, b := range west.plan {
		exactly(b.Name, is.to[b.SID], was.to[b.SID], by[b.Name+"\n"], false)
	}
	for _, b := range east.plan {
		exactly(b.Name, isEast.to[b.SID], wasEast.to[b.SID], by[b.Name+"\n"], true)
	}
	if len(home) == 0 || len(away) == 0 || len(by) != 4 {
		t.Errorf("%d flows at west and %d at east, of %d backends", len(home), len(away), len(by))
	}

	s.oldAt(west, east, away)
	s.enter(east)
	s.settle("at east", home, east, west)
	s.oldAt(east, west, home)
	s.sound()
}

// oldAt waits until a site counts the old flows that come in there at the site that has
// them. They are no new ones.
func (s *sites) oldAt(in, home *site, flows []*liveFlow) {
	s.t.Helper()
	before := in.totals()
	s.lab.Eventually(in.name+" counts the old flows that are at "+home.name, func() bool {
		in.alive("counted", flows)
		is := in.totals()
		return is.at(home).OldFlows-before.at(home).OldFlows >= uint64(remembered(flows))
	})
	if is := in.totals(); is.vips.NewFlows != before.vips.NewFlows {
		s.t.Errorf("%s: %d new flows, of old ones", in.name, is.vips.NewFlows-before.vips.NewFlows)
	}
}
