package gateway

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/live"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// Rates are differences by the time between; what was not there before, or began anew,
// is not known.
func TestLiveRates(t *testing.T) {
	t.Parallel()
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	was := balancer.Counted{
		Reasons:  map[string]balancer.Count{"sent": {Packets: 100}, "miss": {Packets: 50}, "flags": {Dropped: true}, "stray": {Dropped: true, Packets: 5}},
		Backends: map[netip.Addr]balancer.Traffic{a: {Packets: 10, NewFlows: 1, OldFlows: 5}},
	}
	now := balancer.Counted{
		Reasons:  map[string]balancer.Count{"sent": {Packets: 300}, "miss": {Packets: 20}, "flags": {Dropped: true, Packets: 8}, "stray": {Dropped: true, Packets: 25}},
		Backends: map[netip.Addr]balancer.Traffic{a: {Packets: 14, NewFlows: 7, OldFlows: 9}, b: {Packets: 1000, NewFlows: 1000, OldFlows: 1000}},
	}
	r := rates{now: now, was: was, seconds: 2}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"a reason", r.reason("sent"), 100.},
		{"one that began anew", r.reason("miss"), 0.},
		{"a backend", r.backend(a), live.Traffic{New: 3, Old: 2, Packets: 2}},
		{"one that is new", r.backend(b), live.Traffic{}},
		{"the first look", (&rates{now: now, seconds: 1e9}).reason("sent"), 0.},
		{"no time between", (&rates{now: now, was: was}).reason("sent"), 0.},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	if all, most := r.dropped(); all != 14 || most != "stray" {
		t.Errorf("dropped %v, most %s", all, most)
	}
}

// New flows that a backend with several services takes count once, and those of a silent one
// not at all. What goes to VIPs is what comes in, whoever has it.
func TestLiveFigures(t *testing.T) {
	t.Parallel()
	backend := func(sid string, accepted float64, silent bool) live.Backend {
		b := BackendStatus{balancer.BackendStatus{SID: sid, State: balancer.Active}, "", &AgentStatus{Health: "up", Level: "normal", Accepted: accepted - 1, Guests: 1, Silent: silent}}
		return b.live(&rates{})
	}
	d := live.Document{Services: []live.Service{
		{Name: "web", Backends: []live.Backend{backend("2001:db8::1", 10, false), backend("2001:db8::2", 7, false), backend("2001:db8::3", 100, true)}},
		{Name: "mail", Backends: []live.Backend{backend("2001:db8::1", 10, false), {Name: "site east", Site: true}}},
	}}
	d.Services[0].VIPs = []live.VIP{{Traffic: live.Traffic{New: 3, Old: 40, Packets: 500}, Bits: 7}, {Traffic: live.Traffic{New: 1}}}
	d.Services[1].VIPs = []live.VIP{{Traffic: live.Traffic{New: 1, Old: 2, Packets: 3}, Bits: 1}}
	want := func(r rates, flows, old, taken string) {
		t.Helper()
		said := map[string]string{}
		for _, f := range r.figures(&d) {
			said[f.Key] = fmt.Sprint(f.Value, " ", f.Note)
		}
		for key, want := range map[string]string{"flows": flows, "old": old, "taken": taken, "packets": "503 to VIPs, of all flows", "bits": "8 to VIPs"} {
			if said[key] != want {
				t.Errorf("%s: %q, want %q", key, said[key], want)
			}
		}
	}
	want(rates{}, "5 of TCP", "42 with packets", "17 new flows here, 2 of other sites")
	d.Sites = []live.Site{
		{Name: "west", Entries: []live.Entry{{Traffic: live.Traffic{New: 9}}}},
		{Name: "east", Entries: []live.Entry{{Traffic: live.Traffic{New: 1, Old: 5, Packets: 70}}, {Traffic: live.Traffic{Old: 1, Packets: 20}}}, Pinned: live.Traffic{Old: 2, Packets: 3}},
	}
	toSites(&d)
	if east := d.Services[1].Backends[1]; east.Traffic != (live.Traffic{New: 1, Old: 8, Packets: 93}) {
		t.Errorf("to a site: %+v", east.Traffic)
	}
	want(rates{now: balancer.Counted{Sample: 4}}, "5 of TCP, 10 to other sites", "42 1 of 4 looked at, 8 to other sites", "17 new flows here, 2 of other sites")
}

func TestLiveDecided(t *testing.T) {
	t.Parallel()
	s := live.Service{Name: "web"}
	decided(&s, nil)
	decided(&s, &DecisionStatus{Services: []DecidedService{
		{Service: "mail", Here: steering.SiteShare{Site: "west", Share: 1}},
		{Service: "web", Reason: "full", Nowhere: 0.1, Here: steering.SiteShare{Site: "west", Share: 0.6}, Sites: []steering.SiteShare{{Site: "east", Share: 0.3, Room: 0.5, Reason: "near"}}},
	}})
	if len(s.Decided) != 2 || s.Decided[0].Site != "west" || s.Decided[1] != (live.Share{Site: "east", Share: 0.3, Room: 0.5, Reason: "near"}) || s.Nowhere != 0.1 || s.Reason != "full" {
		t.Errorf("%+v", s)
	}
}

// What nameservers are told is what Redis has taken.
func TestLiveEdge(t *testing.T) {
	t.Parallel()
	down := EdgeStatus{EdgeSaid: upstreams.EdgeSaid{Health: upstreams.EdgeDown, Reason: "no session is up", Since: time.Unix(7, 0)}}
	if got := down.live(); *got != (live.Edge{Health: "not told yet"}) {
		t.Errorf("not written: %+v", got)
	}
	down.Written = time.Unix(8, 0)
	if got := down.live(); *got != (live.Edge{Health: "down", Reason: "no session is up", Since: time.Unix(7, 0)}) {
		t.Errorf("written: %+v", got)
	}
}

// What an agent said that is silent is old, and not shown.
func TestLiveSilent(t *testing.T) {
	t.Parallel()
	b := BackendStatus{balancer.BackendStatus{SID: "2001:db8::1", State: balancer.Dead, Weight: 3}, "", &AgentStatus{Health: "up", Level: "critical", Load: 9, Capacity: 10, Accepted: 5, Guests: 1}}
	if got := b.live(&rates{}); got.Load != 0.9 || got.Level != "critical" || got.Taken != 6 || got.Guests != 1 || got.Weight != 3 {
		t.Errorf("%+v", got)
	}
	b.Agent.Silent = true
	if got := b.live(&rates{}); got.Load >= 0 || got.Level != "" || got.Taken != 0 || got.Health != "silent" {
		t.Errorf("silent: %+v", got)
	}
}
