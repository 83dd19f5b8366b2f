package integration

import "testing"

// What clients write comes whole to another site's backends, with an MTU of 1500 on all
// links: hunted for, by pins, and where a link at the other site has a smaller one.
func TestLargeWritesAtTheWrongSite(t *testing.T) {
	t.Parallel()
	const size = 400_000
	s := newSites(t, 2, "west", "east")
	west, east := s.all[0], s.all[1]
	s.enter(east)
	flows := s.begins(24, east)
	s.enter(west)
	for _, g := range west.gateways() {
		g.listener.SetKeys(pinKeys(t, 2, 2)) // nothing is pinned
	}
	upload := func(when string, flows []*liveFlow) {
		t.Helper()
		for i, f := range flows {
			if err := upload(f.conn, size, f.by); err != nil {
				t.Fatalf("%s: flow %d: %v; %v, %v", when, i, err, west.counts(), east.counts())
			}
		}
	}
	upload("hunted for", flows[:8])
	if c := west.counts(); c["too_big"] == 0 {
		t.Error("nobody was told: ", c)
	}
	for _, g := range west.gateways() {
		g.listener.SetKeys(g.keys)
	}
	s.settle("by pins", flows, west, east)
	upload("by pins", flows[8:16])
	for _, l := range east.toBackend {
		l.A.Node.Run("ip", "link", "set", l.A.Device, "mtu", "1400")
		l.B.Node.Run("ip", "link", "set", l.B.Device, "mtu", "1400")
	}
	upload("a smaller path", flows[16:])
	s.sound()
}
