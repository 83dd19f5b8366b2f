package steering

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawSnapshot is a snapshot of a service as it may be. What can be said wrong is,
// if wild.
func drawSnapshot(t *rapid.T, wild bool) Snapshot {
	amount := func(most float64, name string) float64 {
		if wild && rapid.IntRange(0, 9).Draw(t, name+" is wild") == 0 {
			return rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300, math.SmallestNonzeroFloat64}).Draw(t, name)
		}
		return rapid.Float64Range(0, most).Draw(t, name)
	}
	v := ServiceSnapshot{Name: "web", Arriving: amount(50, "arriving"), Guests: amount(5, "guests")}
	for i := range rapid.IntRange(0, 8).Draw(t, "backends") {
		v.Backends = append(v.Backends, BackendSnapshot{
			Name: fmt.Sprintf("b%d", i), Weight: rapid.Uint32Range(0, 20).Draw(t, "weight"),
			Capacity: amount(200, "capacity"), Load: amount(300, "load"), Level: rapid.Uint8Range(0, 3).Draw(t, "level"),
			Health: Health(rapid.SampledFrom([]int{0, 1, 1, 1, 2}).Draw(t, "health")),
			State:  rapid.SampledFrom([]AdminState{"", AdminActive, AdminActive, AdminDraining, AdminDrained}).Draw(t, "state"),
		})
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "sites") {
		v.Sites = append(v.Sites, SiteSummary{
			Name: fmt.Sprintf("s%d", i), Distance: amount(9, "distance"), Capacity: amount(2000, "capacity"), Load: amount(2500, "load"),
			Healthy: rapid.IntRange(0, 4).Draw(t, "healthy") > 0, Drained: rapid.IntRange(0, 4).Draw(t, "drained") == 0,
			Loaded: rapid.IntRange(0, 4).Draw(t, "loaded") == 0, Age: Seconds(amount(20, "age")),
		})
	}
	v.Settings = ServiceSettings{
		Limit: amount(1, "limit"), Accept: amount(1, "accept"), MinHealthy: rapid.Float64Range(-1, 1).Draw(t, "least healthy"),
		SlowStart: Seconds(amount(300, "slow start")), Policy: drawPolicy(t, 2, wild),
	}
	return Snapshot{Now: decideNow, Site: "here", Term: 1, Drained: rapid.IntRange(0, 9).Draw(t, "site is drained") == 0, Services: []ServiceSnapshot{v}}
}

func drawPolicy(t *rapid.T, depth int, wild bool) Policy {
	kinds := []PolicyKind{"", LocalFirst, Weighted, FailoverOnly}
	if wild {
		kinds = append(kinds, "none")
	}
	p := Policy{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	if depth == 0 || rapid.Bool().Draw(t, "leaf") {
		p.Site = rapid.SampledFrom([]string{"", "here", "s0", "s1", "s2", "nowhere"}).Draw(t, "site")
	}
	p.Weight = rapid.SampledFrom([]float64{0, 1, 2, 0.5}).Draw(t, "weight")
	if depth > 0 && p.Site == "" {
		for range rapid.IntRange(0, 3).Draw(t, "branches") {
			p.To = append(p.To, drawPolicy(t, depth-1, wild))
		}
	}
	return p
}

// drawSnapshots is a snapshot after some plans that were made of others before it.
func drawSnapshots(t *rapid.T, wild bool) Snapshot {
	var before *Plan
	now := decideNow
	for range rapid.IntRange(0, 3).Draw(t, "plans before") {
		s := drawSnapshot(t, wild)
		s.Now, s.Previous = now, before
		p := Decide(s)
		if wild {
			spoil(t, &p.Services[0])
		}
		before = &p
		now = now.Add(time.Duration(rapid.IntRange(-5, 60).Draw(t, "seconds")) * time.Second)
	}
	s := drawSnapshot(t, wild)
	s.Now, s.Previous = now, before
	return s
}

// spoil makes a number of a plan one that it should not be.
func spoil(t *rapid.T, v *ServicePlan) {
	numbers := []*float64{&v.Here.Share, &v.Here.Room, &v.Here.Load, &v.Here.Capacity, &v.Measured.Offered, &v.Measured.Ending}
	for i := range v.Sites {
		to := &v.Sites[i]
		numbers = append(numbers, &to.Share, &to.Room, &to.Load, &to.Capacity)
	}
	*rapid.SampledFrom(numbers).Draw(t, "spoilt") = rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), -1, 2, 1e300, math.SmallestNonzeroFloat64}).Draw(t, "to")
}

// TestDecideProperties holds plans of any snapshots, wild ones too, to what must
// always be.
func TestDecideProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshots(t, rapid.Bool().Draw(t, "wild"))
		said := fmt.Sprintf("%+v", s)
		p := Decide(s)
		if again := fmt.Sprintf("%+v", Decide(s)); again != fmt.Sprintf("%+v", p) {
			t.Fatalf("another plan of the same snapshot:\n%+v\n%s", p, again)
		}
		if fmt.Sprintf("%+v", s) != said {
			t.Fatal("the snapshot was changed")
		}
		v := p.Services[0]
		checkShares(t, v)
		checkBackends(t, s, v)
		checkSites(t, s, v)
		checkFailover(t, s, v)
	})
}

// All shares are 1 together, and slots are what shares are.
func checkShares(t *rapid.T, v ServicePlan) {
	sum := v.Here.Share + v.Nowhere
	each := append([]SiteShare{v.Here, {Share: v.Nowhere, Reason: "-"}}, v.Sites...)
	for _, s := range each {
		if !(s.Share >= 0 && s.Share <= 1+rounding) || !(s.Room >= 0 && s.Room <= 1) || s.Reason == "" {
			t.Fatalf("%+v", s)
		}
	}
	for _, s := range v.Sites {
		sum += s.Share
	}
	if math.Abs(sum-1) > 1e-6 {
		t.Fatalf("the shares are %v together: %+v", sum, v)
	}
	slots := uint32(0)
	for _, s := range v.Spills() {
		slots += s.Slots
		if s.Slots == 0 || v.site(s.Site).Share == 0 {
			t.Fatalf("%d slots for %+v", s.Slots, v.site(s.Site))
		}
	}
	if want := SpillSlots(v.spilled()); slots != want {
		t.Fatalf("%d slots spill, want %d", slots, want)
	}
}

// Who is drained gets nothing, and who is not up only where the plan says so. Weights
// are in proportion to the operator's but for slow start.
func checkBackends(t *rapid.T, s Snapshot, v ServicePlan) {
	of := map[string]BackendSnapshot{}
	for _, b := range s.Services[0].Backends {
		of[b.Name] = b
	}
	up, active := 0, 0
	for _, b := range v.Backends {
		is := of[b.Name]
		drained := s.Drained || is.State == AdminDraining || is.State == AdminDrained || is.Weight == 0 || is.Capacity == 0
		sick := is.Health != HealthUp && !v.FailOpen
		if !drained {
			active++
			if !sick {
				up++
			}
		}
		if gets, may := b.Weight > 0, !drained && !sick && (!v.Failover || v.FailOpen); gets != may {
			t.Fatalf("weight %d of %+v, fail-open is %v", b.Weight, is, v.FailOpen)
		}
		if b.Weight > startParts*is.Weight || b.Weight%max(1, is.Weight) != 0 || b.Reason == "" {
			t.Fatalf("weight %d of %+v", b.Weight, is)
		}
		if s.Previous == nil && b.Weight > 0 && b.Weight != startParts*is.Weight {
			t.Fatalf("slow start without a plan before: %+v", b)
		}
	}
	least := s.Services[0].Settings.WithDefaults().MinHealthy
	if v.Failover && up > 0 && !v.FailOpen && (float64(up) >= least*float64(active) || s.Previous == nil) {
		t.Fatalf("failover with %d of %d active backends up", up, active)
	}
}

// No site gets flows that cannot take them.
func checkSites(t *rapid.T, s Snapshot, v ServicePlan) {
	set := s.Services[0].Settings.WithDefaults()
	for _, o := range s.Services[0].Sites {
		fit := o.Healthy && !o.Drained && !o.Loaded && o.Age >= 0 && o.Age <= set.StaleAfter && o.Load >= 0 && o.Load <= set.Limit*o.Capacity
		if to := v.site(o.Name); to.Share > 0 && !fit {
			t.Fatalf("%+v goes to %+v", to, o)
		}
	}
}

// A site without backends that may get flows keeps none, unless as the last resort.
func checkFailover(t *rapid.T, s Snapshot, v ServicePlan) {
	any := false
	for _, b := range v.Backends {
		any = any || b.Weight > 0
	}
	switch {
	case v.Here.Share > 0 && !any:
		t.Fatalf("this site keeps %v without a backend", v.Here.Share)
	case !v.Failover && v.Nowhere > 0:
		t.Fatalf("%v have nowhere to go, and there are backends", v.Nowhere)
	case v.Failover && !v.Loaded:
		t.Fatal("others may send flows here, where no backend may get them")
	case s.Drained && v.Here.Share > 0:
		t.Fatal("a drained site keeps flows")
	}
}

// Load up to the limit stays, and what is above it goes only by the measured excess.
func TestDecideKeepsUpToTheLimit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := fourBackends(rapid.Float64Range(0, 360).Draw(t, "load"))
		s.Services[0].Arriving = rapid.Float64Range(0, 100).Draw(t, "arriving")
		p := Decide(s)
		for range 3 {
			for i := range 4 {
				s.Services[0].Backends[i].Load = rapid.Float64Range(0, 90).Draw(t, "load")
			}
			s = next(s, 10*time.Second, p)
			if p = Decide(s); p.Services[0].Here.Share != 1 || p.Services[0].Loaded {
				t.Fatalf("%s, with a load of %v", shares(p), p.Services[0].Here.Load)
			}
		}
	})
}

// More load on a backend never gives this site more room, nor another site whose
// load grows a larger share.
func TestDecideIsMonotonic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshots(t, false)
		if len(s.Services[0].Backends) == 0 {
			t.Skip("no backend")
		}
		room := func(more float64) float64 {
			s := s
			s.Services = []ServiceSnapshot{s.Services[0]}
			v := &s.Services[0]
			v.Backends = append([]BackendSnapshot{}, v.Backends...)
			v.Backends[0].Load += more
			return Decide(s).Services[0].Here.Room
		}
		less, more := room(0), room(rapid.Float64Range(0, 300).Draw(t, "more"))
		if more > less+rounding {
			t.Fatalf("room %v with more load, %v without", more, less)
		}

		u := fourBackends(rapid.Float64Range(360, 800).Draw(t, "load"))
		u.Services[0].Sites = u.Services[0].Sites[1:]
		there := &u.Services[0].Sites[0]
		p := Decide(u)
		u = next(u, 10*time.Second, p)
		there.Load = rapid.Float64Range(0, 1000).Draw(t, "there")
		share := Decide(u).Services[0].Sites[0].Share
		there.Load += rapid.Float64Range(0, 300).Draw(t, "more there")
		if got := Decide(u).Services[0].Sites[0].Share; got > share+rounding {
			t.Fatalf("a share of %v with more load there, %v without", got, share)
		}
	})
}

// The same for a site that follows a plan, whatever that has measured, and loads about
// the limit.
func TestDecideStepIsMonotonic(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := loadedSite()
		was, v := &s.Previous.Services[0], &s.Services[0]
		was.Here.Share = rapid.Float64Range(0, 1).Draw(t, "share")
		was.Here.Room = was.Here.Share
		was.Here.Load = rapid.Float64Range(0, 800).Draw(t, "load before")
		was.Measured.Offered = rapid.SampledFrom([]float64{0, 1, 10, 100}).Draw(t, "offered")
		was.Measured.Ending = rapid.SampledFrom([]float64{0, 1e-4, 1.0 / 600, 1.0 / 60, 1}).Draw(t, "ending")
		v.Arriving = rapid.Float64Range(0, 50).Draw(t, "arriving")
		v.FlowLoad = rapid.SampledFrom([]float64{0.1, 1, 10}).Draw(t, "load of a flow")
		s.Now = was.Measured.At.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "seconds")) * time.Second)
		load := rapid.Float64Range(0, 800).Draw(t, "load")
		room := func(load float64) float64 {
			s.Services = []ServiceSnapshot{*v}
			s.Services[0].Backends = slices.Clone(v.Backends)
			for i := range v.Backends {
				s.Services[0].Backends[i].Load = load / float64(len(v.Backends))
			}
			return Decide(s).Services[0].Here.Room
		}
		less, more := room(load), room(load+rapid.Float64Range(0, 100).Draw(t, "more"))
		if more > less+rounding {
			t.Fatalf("room %v with more load, %v without", more, less)
		}
	})
}

// TestDecideNeverExchanges lets two sites decide, each with what the other one
// measured at the same time and what it planned before: whatever happens to their
// loads and backends, they never send flows to each other at once.
func TestDecideNeverExchanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := [2]string{"east", "west"}
		var plans [2]*Plan
		now := decideNow
		sent := 0
		for range rapid.IntRange(2, 12).Draw(t, "rounds") {
			var load [2]float64
			var down [2]bool
			for i := range 2 {
				load[i] = rapid.Float64Range(0, 1500).Draw(t, "load")
				down[i] = rapid.IntRange(0, 9).Draw(t, "down") == 0
			}
			var next [2]*Plan
			for i, name := range names {
				other := SiteSummary{Name: names[1-i], Capacity: 1000, Load: load[1-i], Healthy: true, Age: 1}
				if p := plans[1-i]; p != nil {
					other = p.Services[0].Summary()
					other.Load = load[1-i]
				}
				b := BackendSnapshot{Name: "b", Weight: 1, Capacity: 1000, Load: load[i], Health: HealthUp}
				if down[i] {
					b.Health = HealthDown
				}
				p := Decide(Snapshot{Now: now, Site: name, Term: 1, Previous: plans[i], Services: []ServiceSnapshot{{
					Name: "web", Backends: []BackendSnapshot{b}, Sites: []SiteSummary{other}, Arriving: load[i] / 60,
				}}})
				next[i] = &p
			}
			plans = next
			now = now.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "seconds")) * time.Second)
			east, west := plans[0].Services[0].spilled(), plans[1].Services[0].spilled()
			if east > 0 && west > 0 && (!down[0] || !down[1]) {
				t.Fatalf("east sends %v and west %v", east, west)
			}
			if east > 0 || west > 0 {
				sent++
			}
		}
		t.Logf("%d rounds with flows sent", sent)
	})
}
