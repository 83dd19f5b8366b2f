package steering

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var decideNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fourBackends is a site with four backends of 100 each, with even loads, and the
// sites near and far, of 1,000 each with a load of 400.
func fourBackends(load float64) Snapshot {
	v := ServiceSnapshot{Name: "web", Arriving: load / 60}
	for i := range 4 {
		v.Backends = append(v.Backends, BackendSnapshot{
			Name: fmt.Sprintf("b%d", i), Weight: 10, Capacity: 100, Load: load / 4, Health: HealthUp,
		})
	}
	v.Sites = []SiteSummary{
		{Name: "far", Distance: 2, Capacity: 1000, Load: 400, Healthy: true, Age: 2},
		{Name: "near", Distance: 1, Capacity: 1000, Load: 400, Healthy: true, Age: 2},
	}
	return Snapshot{Now: decideNow, Site: "here", Term: 7, Services: []ServiceSnapshot{v}}
}

// next is the snapshot a while after a plan was made of it.
func next(s Snapshot, after time.Duration, p Plan) Snapshot {
	s.Now, s.Previous = s.Now.Add(after), &p
	return s
}

// shares is a plan in a line: what gets which part of the new flows in thousandths.
func shares(p Plan) string {
	v := p.Services[0]
	out := fmt.Sprintf("here %.0f", 1000*v.Here.Share)
	for _, s := range v.Sites {
		out += fmt.Sprintf(" %s %.0f", s.Site, 1000*s.Share)
	}
	if v.Nowhere > 0 {
		out += fmt.Sprintf(" nowhere %.0f", 1000*v.Nowhere)
	}
	return out
}

func weights(p Plan) string {
	var out []string
	for _, b := range p.Services[0].Backends {
		out = append(out, fmt.Sprint(b.Weight))
	}
	return strings.Join(out, " ")
}

// TestDecide holds first plans to what they are to be, each with its reason.
func TestDecide(t *testing.T) {
	t.Parallel()
	type v = *ServiceSnapshot
	all := func(do func(*BackendSnapshot)) func(v) {
		return func(s v) {
			for i := range s.Backends {
				do(&s.Backends[i])
			}
		}
	}
	down := all(func(b *BackendSnapshot) { b.Health = HealthDown })
	full := func(s v) {
		for i := range s.Sites {
			s.Sites[i].Load = 950
		}
	}
	both := func(f ...func(v)) func(v) {
		return func(s v) {
			for _, f := range f {
				f(s)
			}
		}
	}
	for name, c := range map[string]struct {
		load            float64
		change          func(v)
		shares, weights string
		reason          string // of the service or one of its sites or backends
	}{
		"quiet":                {200, nil, "here 1000 near 0 far 0", "40 40 40 40", "local: 4 of 4 active backends are up"},
		"at the limit":         {360, nil, "here 1000 near 0 far 0", "40 40 40 40", "load 90.0 %"},
		"above":                {480, nil, "here 875 near 125 far 0", "40 40 40 40", "spill: this site keeps what its limit allows"},
		"far above":            {1600, nil, "here 750 near 125 far 125", "40 40 40 40", "load 400.0 %, limit 90 %"},
		"no other site":        {480, func(s v) { s.Sites = nil }, "here 1000", "40 40 40 40", "overload: new flows above the limit have nowhere else to go"},
		"near is drained":      {480, func(s v) { s.Sites[1].Drained = true }, "here 875 near 0 far 125", "40 40 40 40", "drained"},
		"near is down":         {480, func(s v) { s.Sites[1].Healthy = false }, "here 875 near 0 far 125", "40 40 40 40", "down"},
		"near is stale":        {480, func(s v) { s.Sites[1].Age = 31 }, "here 875 near 0 far 125", "40 40 40 40", "not believed: heard 31 s ago"},
		"near is loaded":       {480, func(s v) { s.Sites[1].Loaded = true }, "here 875 near 0 far 125", "40 40 40 40", "loaded itself: load 40.0 %"},
		"near is full":         {480, func(s v) { s.Sites[1].Load = 901 }, "here 875 near 0 far 125", "40 40 40 40", "above its limit: load 90.1 %"},
		"near has no room":     {480, func(s v) { s.Sites[1].Load = 850 }, "here 875 near 0 far 125", "40 40 40 40", "no room: load 85.0 %"},
		"near is unheard of":   {480, func(s v) { s.Sites[1].Age = -1 }, "here 875 near 0 far 125", "40 40 40 40", "not heard of yet"},
		"near says nonsense":   {480, func(s v) { s.Sites[1].Load = math.NaN() }, "here 875 near 0 far 125", "40 40 40 40", "not believed: load NaN of 1000"},
		"near has little room": {480, func(s v) { s.Sites[1].Load = 736 }, "here 875 near 67 far 58", "40 40 40 40", "has room for 6.7 %"},
		"all are full":         {480, full, "here 1000 near 0 far 0", "40 40 40 40", "no other site has room for what is above"},
		"one is down":          {300, func(s v) { s.Backends[1].Health = HealthDown }, "here 1000 near 0 far 0", "40 0 40 40", "local: 3 of 4 active backends are up"},
		"one is unknown":       {300, func(s v) { s.Backends[1].Health = HealthUnknown }, "here 1000 near 0 far 0", "40 0 40 40", "unknown"},
		"one drains":           {300, func(s v) { s.Backends[1].State = AdminDraining }, "here 1000 near 0 far 0", "40 0 40 40", "draining"},
		"one is drained":       {300, func(s v) { s.Backends[1].State = AdminDrained }, "here 1000 near 0 far 0", "40 0 40 40", "drained"},
		"weights":              {300, func(s v) { s.Backends[1].Weight = 30; s.Backends[2].Weight = 0 }, "here 1000 near 0 far 0", "40 120 0 40", "weight 0"},
		"one has no capacity":  {100, func(s v) { s.Backends[3].Capacity = 0 }, "here 1000 near 0 far 0", "40 40 40 0", "capacity 0"},
		"one is elsewhere":     {300, func(s v) { s.Backends[1].Site = "near" }, "here 1000 near 0 far 0", "40 40 40", "local: 3 of 3"},
		"one is critical":      {320, func(s v) { s.Backends[1].Level = 3 }, "here 1000 near 0 far 0", "40 40 40 40", "critical: counts as full"},
		"all are critical":     {320, all(func(b *BackendSnapshot) { b.Level = 3 }), "here 950 near 50 far 0", "40 40 40 40", "load 100.0 %"},

		"failover":         {0, down, "here 0 near 1000 far 0", "0 0 0 0", "failover: 0 of 4 active backends are up"},
		"all are drained":  {0, all(func(b *BackendSnapshot) { b.State = AdminDrained }), "here 0 near 1000 far 0", "0 0 0 0", "failover: 0 of 0"},
		"failover to two":  {0, both(down, func(s v) { s.Sites[1].Load = 800 }), "here 0 near 139 far 861", "0 0 0 0", "has room for 13.9 %"},
		"more than fits":   {0, both(down, func(s v) { s.Sites[0].Load, s.Sites[1].Load = 860, 880 }), "here 0 near 333 far 667", "0 0 0 0", "failover"},
		"no site has room": {0, both(down, full), "here 1000 near 0 far 0", "40 40 40 40", "fail-open: 0 of 4 active backends are up, health is not believed"},
		"drained and full": {0, both(all(func(b *BackendSnapshot) { b.State = AdminDrained }), full), "here 0 near 0 far 0 nowhere 1000", "0 0 0 0", "failover: 0 of 0 active backends are up; 100.0 % of the new flows have nowhere to go"},
		"never open":       {0, both(down, full, func(s v) { s.Settings.MinHealthy = -1 }), "here 0 near 0 far 0 nowhere 1000", "0 0 0 0", "failover"},
		"few are up": {100, both(down, func(s v) {
			s.Backends[0].Health, s.Backends[1].State = HealthUp, AdminDrained
			s.Settings.MinHealthy = 0.5
		}), "here 1000 near 0 far 0", "40 0 40 40", "down, not believed"},
		"just enough are up": {80, both(down, func(s v) {
			s.Backends[0].Health, s.Backends[1].Health = HealthUp, HealthUp
			s.Settings.MinHealthy = 0.5
		}), "here 1000 near 0 far 0", "40 40 0 0", "local: 2 of 4"},

		"failover-only":       {1600, func(s v) { s.Settings.Policy.Kind = FailoverOnly }, "here 1000 near 0 far 0", "40 40 40 40", "overload"},
		"failover-only, down": {0, both(down, func(s v) { s.Settings.Policy.Kind = FailoverOnly }), "here 0 near 1000 far 0", "0 0 0 0", "failover"},
		"weighted": {200, func(s v) {
			s.Settings.Policy = Policy{Kind: Weighted, To: []Policy{{Site: "here", Weight: 6}, {Site: "far", Weight: 3}, {Site: "near"}}}
		}, "here 600 far 300 near 100", "40 40 40 40", "policy"},
		"weighted by capacity": {40, func(s v) { s.Settings.Policy.Kind = Weighted }, "here 167 near 417 far 417", "40 40 40 40", "policy"},
		"weighted, far is away": {200, func(s v) {
			s.Settings.Policy = Policy{Kind: Weighted, To: []Policy{{Site: "here", Weight: 6}, {Site: "far", Weight: 3}, {Site: "near", Weight: 2}}}
			s.Sites[0].Healthy = false
		}, "here 750 far 0 near 250", "40 40 40 40", "down"},
		"nested": {480, func(s v) {
			s.Settings.Policy = Policy{Kind: Weighted, To: []Policy{{Site: "far", Weight: 3}, {Site: "near", Weight: 2}}}
		}, "here 875 far 75 near 50", "40 40 40 40", "spill"},
		"nested twice": {480, func(s v) {
			s.Settings.Policy = Policy{To: []Policy{
				{Site: "here"},
				{Kind: FailoverOnly, To: []Policy{{Site: "south"}, {Kind: Weighted, To: []Policy{{Site: "far", Weight: 4}, {Site: "near"}}}}},
			}}
		}, "here 875 far 100 near 25", "40 40 40 40", "spill"},
		"not in the policy": {480, func(s v) { s.Settings.Policy = Policy{To: []Policy{{Site: "far"}}} }, "here 875 far 125", "40 40 40 40", "spill"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fourBackends(c.load)
			if c.change != nil {
				c.change(&s.Services[0])
			}
			p := Decide(s)
			if got := shares(p); got != c.shares {
				t.Errorf("shares: %s, want %s", got, c.shares)
			}
			if got := weights(p); got != c.weights {
				t.Errorf("weights: %s, want %s", got, c.weights)
			}
			text, _ := json.Marshal(p)
			if !strings.Contains(string(text), c.reason) {
				t.Errorf("no reason %q in %s", c.reason, text)
			}
		})
	}
}

// A drained site sends all its new flows away, as far as there is room.
func TestDecideDrainedSite(t *testing.T) {
	t.Parallel()
	s := fourBackends(300)
	s.Drained = true
	p := Decide(s)
	if got := shares(p); got != "here 0 near 1000 far 0" || weights(p) != "0 0 0 0" {
		t.Errorf("%s, weights %s", got, weights(p))
	}
	s.Services[0].Sites = nil
	if p := Decide(s); shares(p) != "here 0 nowhere 1000" || p.Services[0].FailOpen {
		t.Errorf("without other sites: %+v", p.Services[0])
	}
}

// TestDecideRecovery lets a site come back out of a failover: its backends in
// quarters, its share in steps that take as long as the slow start.
func TestDecideRecovery(t *testing.T) {
	t.Parallel()
	s := fourBackends(100)
	for i := range 4 {
		s.Services[0].Backends[i].Health = HealthDown
	}
	p := Decide(s)
	s.Services[0].Arriving = 0
	for i := range 4 {
		s.Services[0].Backends[i].Health = HealthUp
		s.Services[0].Backends[i].Load = 0
	}
	var got []string
	share := 0.0
	for range 15 {
		s = next(s, 10*time.Second, p)
		p = Decide(s)
		now := p.Services[0].Here.Share
		if now < share || now > share+0.1 {
			t.Errorf("the share goes from %v to %v within 10 s", share, now)
		}
		share = now
		got = append(got, weights(p)[:2])
	}
	want := "10 10 10 20 20 20 30 30 30 40 40 40 40 40 40"
	if strings.Join(got, " ") != want || share != 1 {
		t.Errorf("weights %s, want %s; share %v", strings.Join(got, " "), want, share)
	}
}

// A backend that comes alone comes in quarters beside the others, and one that
// was there already stays as it is.
func TestDecideNewBackend(t *testing.T) {
	t.Parallel()
	s := fourBackends(200)
	p := Decide(s)
	s.Services[0].Backends = append(s.Services[0].Backends, BackendSnapshot{Name: "new", Weight: 8, Capacity: 100, Health: HealthUp})
	s = next(s, 5*time.Second, p)
	p = Decide(s)
	if got := weights(p); got != "40 40 40 40 8" {
		t.Errorf("weights %s", got)
	}
	p = Decide(next(s, 65*time.Second, p))
	if got := weights(p); got != "40 40 40 40 24" {
		t.Errorf("weights after 65 s: %s", got)
	}
	if got := p.Services[0].Backends[4].Reason; got != "up, slow start at 3/4" {
		t.Errorf("reason %q", got)
	}
}

// Between steps nothing moves by load, but a site that goes away loses its share at
// once, and a failover is one at once.
func TestDecideBetweenSteps(t *testing.T) {
	t.Parallel()
	s := fourBackends(480)
	p := Decide(s)
	s.Services[0].Backends[0].Load = 300
	q := Decide(next(s, 2*time.Second, p))
	if shares(q) != shares(p) || !q.Services[0].Measured.At.Equal(decideNow) {
		t.Errorf("moved between steps: %s", shares(q))
	}
	s.Services[0].Sites[1].Drained = true
	q = Decide(next(s, 2*time.Second, p))
	if got := shares(q); got != "here 875 near 0 far 125" {
		t.Errorf("near is drained: %s", got)
	}
	for i := range 4 {
		s.Services[0].Backends[i].Health = HealthDown
	}
	q = Decide(next(s, 2*time.Second, p))
	if got := shares(q); got != "here 0 near 0 far 1000" {
		t.Errorf("failover: %s", got)
	}
}

// A clock that was set back makes no sudden moves.
func TestDecideClockSetBack(t *testing.T) {
	t.Parallel()
	s := fourBackends(300)
	p := Decide(s)
	q := Decide(next(s, -time.Hour, p))
	if shares(q) != shares(p) || weights(q) != weights(p) {
		t.Errorf("%s, weights %s", shares(q), weights(q))
	}
}

func TestDecideNumbers(t *testing.T) {
	t.Parallel()
	s := fourBackends(300)
	p := Decide(s)
	if want := (PlanNumber{7, 1}); p.Number != want {
		t.Errorf("the first is %v", p.Number)
	}
	q := Decide(next(s, time.Second, p))
	if !q.Number.Follows(p.Number) {
		t.Errorf("%v does not follow %v", q.Number, p.Number)
	}
	s.Term = 9
	if q = Decide(next(s, time.Second, q)); q.Number != (PlanNumber{9, 1}) {
		t.Errorf("the first of another decider is %v", q.Number)
	}
}

// What cannot be is left out, said, and takes nothing good with it.
func TestDecideLeavesOut(t *testing.T) {
	t.Parallel()
	s := fourBackends(200)
	v := &s.Services[0]
	v.Backends[1].Name = "b0"
	v.Backends[2].Weight = mostWeight + 1
	v.Backends[3].Capacity = math.Inf(1)
	v.Sites[1].Name = "here"
	v.Settings.Policy = Policy{Kind: "random", To: []Policy{{Site: "far", Kind: Weighted, Weight: -1}}}
	sid := netip.MustParseAddr("2001:db8:5e:1::")
	v.Backends = append(v.Backends, BackendSnapshot{Name: "odd", Health: 3}, BackendSnapshot{Name: "twin", SID: sid}, BackendSnapshot{Name: "other", SID: sid})
	s.Services = append(s.Services, ServiceSnapshot{Name: "web"}, ServiceSnapshot{Name: "mail"})
	p := Decide(s)
	want := []string{
		`service "web" is left out: the name is empty, or there twice`,
		`service web: backend "b0" is left out: the name is empty, or there twice`,
		`service web: backend "b2" is left out: weight 1000001 is above 1000000`,
		`service web: backend "b3" is left out: capacity +Inf is no amount`,
		`service web: backend "odd" is left out: health 3 is not unknown, up or down`,
		`service web: backend "other" is left out: its SID is another one's too`,
		`service web: site "here" is left out: the name is empty, this site's, or there twice`,
		`service web: policy: kind "random" is not local-first, weighted or failover-only; it is taken for local-first`,
		`service web: policy: site far has a kind or a list of its own, which is not heeded`,
		`service web: policy: weight -1 is no weight; it is taken for 1`,
	}
	if !reflect.DeepEqual(p.LeftOut, want) {
		t.Errorf("left out:\n%s", strings.Join(p.LeftOut, "\n"))
	}
	if len(p.Services) != 2 || weights(p) != "40 0" || shares(p) != "here 1000 far 0" {
		t.Errorf("%+v", p)
	}
}

// A plan survives its way through a file.
func TestPlanAsJSON(t *testing.T) {
	t.Parallel()
	p := Decide(fourBackends(480))
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, p) {
		t.Errorf("%v\n%+v\n%+v", err, back, p)
	}
}

func TestHealthAsText(t *testing.T) {
	t.Parallel()
	for _, h := range []Health{HealthUnknown, HealthUp, HealthDown} {
		text, err := h.MarshalText()
		var back Health
		if err != nil || back.UnmarshalText(text) != nil || back != h {
			t.Errorf("%v: %q, %v, %v", h, text, err, back)
		}
	}
	if _, err := Health(3).MarshalText(); err == nil {
		t.Error("health 3 has a text")
	}
	var h Health
	if h.UnmarshalText([]byte("fine")) == nil {
		t.Error("fine is a health")
	}
}
