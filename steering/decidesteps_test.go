package steering

import (
	"math"
	"testing"
	"time"
)

// loadedSite is a site at a share of 0.6, whose load is at the limit and stays there,
// and the plan that it follows.
func loadedSite() Snapshot {
	s := fourBackends(360)
	s.Services[0].Arriving = 6
	p := Plan{Number: PlanNumber{7, 4}, At: decideNow, Site: "here", Services: []ServicePlan{{
		Name: "web", Here: SiteShare{Site: "here", Share: 0.6, Room: 0.6, Load: 360, Capacity: 400},
		Sites: []SiteShare{
			{Site: "near", Share: 0.4, Room: 0.5, Load: 400, Capacity: 1000},
			{Site: "far", Room: 0.3, Load: 400, Capacity: 1000},
		},
		Measured: Measured{At: decideNow, Offered: 10, Ending: 1.0 / 60},
	}}}
	for _, b := range s.Services[0].Backends {
		p.Services[0].Backends = append(p.Services[0].Backends, BackendPlan{Name: b.Name, Weight: 40, Since: decideNow.Add(-time.Hour)})
	}
	return next(s, 30*time.Second, p)
}

// TestDecideSteps holds the move of one step to the law, by hand.
func TestDecideSteps(t *testing.T) {
	t.Parallel()
	each := func(v *ServiceSnapshot, load float64) {
		for i := range v.Backends {
			v.Backends[i].Load = load
		}
	}
	for name, c := range map[string]struct {
		change func(*ServiceSnapshot)
		here   float64
	}{
		"at the limit":   {func(*ServiceSnapshot) {}, 0.6},
		"close to it":    {func(v *ServiceSnapshot) { each(v, 91) }, 0.6},
		"grown above it": {func(v *ServiceSnapshot) { each(v, 105) }, 0.6 + 0.5*(-60/60.0-2)/10},
		"fallen":         {func(v *ServiceSnapshot) { each(v, 75) }, 0.6 + 0.5*(60/60.0+2)/10},
		"far too much":   {func(v *ServiceSnapshot) { each(v, 300) }, 0.35},
		"nothing left":   {func(v *ServiceSnapshot) { each(v, 0) }, 0.85},
		"a backend left with its flows": {func(v *ServiceSnapshot) {
			v.Backends[0].Health = HealthDown
		}, 0.6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := loadedSite()
			c.change(&s.Services[0])
			if got := Decide(s).Services[0].Here.Room; math.Abs(got-c.here) > 1e-9 {
				t.Errorf("room %v, want %v", got, c.here)
			}
		})
	}
}

// More load gives a site no more room, where there are so few flows that one more makes
// flows seem to live far longer, or shorter than without any.
func TestDecideMoreLoad(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change           func(v *ServiceSnapshot, was *ServicePlan)
		load, more       float64
		room, roomOfMore float64
	}{
		"comes back without a flow, or with few": {func(v *ServiceSnapshot, was *ServicePlan) {
			v.Settings.SlowStart = 1
			v.Arriving = 1
			v.Backends = []BackendSnapshot{{Name: "b0", Weight: 1, Capacity: 1, Health: HealthUp}}
			*was = ServicePlan{Name: "web", Failover: true, Here: SiteShare{Site: "here"}, Measured: Measured{At: decideNow, Offered: 1, Ending: 2}}
		}, 0, 0.0625, 0, 0},
		"never measured how long flows live": {func(_ *ServiceSnapshot, was *ServicePlan) {
			was.Here.Load, was.Measured = 1, Measured{At: decideNow}
		}, 0, 1, 0.6 + 0.5*(360/120.0+1/30.0)/10, 0.6 + 0.5*(359/120.0)/10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := loadedSite()
			v := &s.Services[0]
			c.change(v, &s.Previous.Services[0])
			for load, want := range map[float64]float64{c.load: c.room, c.more: c.roomOfMore} {
				for i := range v.Backends {
					v.Backends[i].Load = load / float64(len(v.Backends))
				}
				if got := Decide(s).Services[0].Here.Room; math.Abs(got-want) > 1e-9 {
					t.Errorf("room %v with a load of %v, want %v", got, load, want)
				}
			}
		})
	}
}

// Sites that are loaded at the same time share the room of the others.
func TestDecideSharesRoom(t *testing.T) {
	t.Parallel()
	s := loadedSite()
	alone := Decide(s).Services[0].site("far").Room
	s.Services[0].Sites = append(s.Services[0].Sites, SiteSummary{Name: "north", Capacity: 1000, Load: 950, Healthy: true, Loaded: true})
	both := Decide(s).Services[0].site("far").Room
	if want := 0.5 * 400 / 60 / 10; math.Abs(alone-want) > 1e-9 || math.Abs(both-want/2) > 1e-9 {
		t.Errorf("room %v alone and %v with another loaded site, want %v and %v", alone, both, want, want/2)
	}
}

// In a failover that lasts, flows go where others still have room, and no further.
func TestDecideFailoverLasts(t *testing.T) {
	t.Parallel()
	s := loadedSite()
	v := &s.Services[0]
	for i := range v.Backends {
		v.Backends[i].Health = HealthDown
	}
	v.Settings.MinHealthy = -1
	p := Decide(s)
	if got := shares(p); got != "here 0 near 1000 far 0" {
		t.Errorf("at first: %s", got)
	}
	v.Sites[0].Load, v.Sites[1].Load = 600, 700
	s = next(s, 30*time.Second, p)
	p = Decide(s)
	if got := shares(p); got != "here 0 near 766 far 234" {
		t.Errorf("with room elsewhere: %s", got)
	}
	v.Sites[0].Load, v.Sites[1].Load = 870, 880
	p = Decide(next(s, 30*time.Second, p))
	if p.Services[0].Nowhere < 0.5 {
		t.Errorf("without room elsewhere: %s", shares(p))
	}
	v.Settings.MinHealthy = 0
	if q := Decide(next(s, 30*time.Second, p)).Services[0]; q.Nowhere > 0 || !q.FailOpen || !q.Failover {
		t.Errorf("without room elsewhere, fail-open: %+v", q)
	}
}

// A site whose health is not believed asks for no flows of others, nor does one that
// is loaded, or has no backends.
func TestSummary(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change          func(*Snapshot)
		loaded, healthy bool
	}{
		"quiet":  {func(*Snapshot) {}, false, true},
		"loaded": {func(s *Snapshot) { s.Services[0].Backends[0].Load, s.Services[0].Backends[1].Load = 160, 160 }, true, true},
		"fail-open": {func(s *Snapshot) {
			s.Services[0].Settings.MinHealthy = 1
			s.Services[0].Backends[0].Health = HealthDown
		}, true, true},
		"drained": {func(s *Snapshot) { s.Drained = true }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fourBackends(200)
			c.change(&s)
			v := Decide(s).Services[0]
			got := v.Summary()
			if got.Name != "here" || got.Loaded != c.loaded || got.Healthy != c.healthy || got.Load != v.Load || got.Capacity != v.Capacity {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestPlanSpills(t *testing.T) {
	t.Parallel()
	v := ServicePlan{Sites: []SiteShare{{Site: "a", Share: 1.0 / 3}, {Site: "b"}, {Site: "c", Share: 1.0 / 3}, {Site: "d", Share: 1.0 / 3}}}
	sum := uint32(0)
	for i, s := range v.Spills() {
		if s.Site != []string{"a", "c", "d"}[i] || math.Abs(float64(s.Slots)-TableSlots/3.0) > 1 {
			t.Errorf("%d slots for %s", s.Slots, s.Site)
		}
		sum += s.Slots
	}
	if sum != TableSlots {
		t.Errorf("%d slots of %d", sum, TableSlots)
	}
}
