package gateway

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

// deciding is a gateway of west that decides, with the other sites east and north.
func deciding(t *testing.T, edit func(*Config), test func(t *testing.T, r *reporting)) {
	t.Parallel()
	dir, config := t.TempDir(), ofSites(t)
	config.Services[0].Spill = nil
	if edit != nil {
		edit(&config)
	}
	synctest.Test(t, func(t *testing.T) {
		r := startReporting(t, dir, config)
		defer func() { r.stop() }()
		test(t, r)
	})
}

// again is the gateway after a restart.
func (r *reporting) again() *reporting {
	r.stop()
	return startReporting(r.t, r.decider.dir, r.config)
}

var sitesOf = map[string]string{"east": "2001:db8:5e:e001::", "north": "2001:db8:5e:e101::", "south": "2001:db8:5e:f001::", "an agent of east": "2001:db8:5e:e0b1::"}

// hear has a site say something of the service.
func (r *reporting) hear(site string, plan uint64, s wire.Summary) {
	r.t.Helper()
	from := wire.LocatorOf(netip.MustParseAddr(sitesOf[site]))
	if r.sealers[from] == nil {
		r.sealers[from] = wire.NewSealer(parseKeys(r.t, oneKey), from, wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:1::")), time.Now())
	}
	if s.Service == (wire.ServiceID{}) {
		s.Service = serviceID(make([]byte, 16), "web")
	}
	d, _, err := r.sealers[from].SealSummaries(nil, steering.PlanNumber{Term: 1, Sequence: plan}, []wire.Summary{s}, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	r.pins.take(nil, d, from.Address(), time.Now())
	synctest.Wait()
}

// well has the others say that they have room for all.
func (r *reporting) well(sites ...string) {
	for _, site := range sites {
		r.hear(site, 1, wire.Summary{Capacity: 1e12, Healthy: true})
	}
}

// spills holds what is spilled to shares.
func (r *reporting) spills(when, want string) {
	r.t.Helper()
	synctest.Wait()
	r.seen.Lock()
	defer r.seen.Unlock()
	var words []string
	for _, s := range r.applied.Services[0].Spills {
		words = append(words, fmt.Sprintf("%s:%.0f", s.Site, 100*float64(s.Slots)/steering.TableSlots))
	}
	if got := strings.Join(words, " "); got != want || !r.applied.Services[0].Decided {
		r.t.Errorf("%s: spills %q, want %q\n%s", when, got, want, r.said.String())
	}
}

// lose has no way to some sites.
func (r *reporting) lose(sites ...string) {
	r.seen.Lock()
	clear(r.away)
	for _, s := range sites {
		r.away[s] = true
	}
	r.seen.Unlock()
	r.poke()
}

// service is that of the plan that is applied, and how many were.
func (r *reporting) service() (balancer.PlannedService, int) {
	synctest.Wait()
	r.seen.Lock()
	defer r.seen.Unlock()
	return r.applied.Services[0], r.plans
}

func loaded(load float64) func(*wire.Report) {
	return func(r *wire.Report) { r.Load, r.Capacity, r.Accepted = load, 100, load/60 }
}

func down(r *wire.Report) { healthy("::", 0, steering.HealthDown)(r) }

// All backends of a site go down: others have the new flows, at once, and not before; a
// site that is down, drained, stale or without a way gets none.
func TestDecideFailover(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(time.Second, all)
		r.well("east", "north")
		r.want("all is well", "b1:active b2:active c:active")
		r.spills("all is well", "")
		_, plans := r.service()
		r.pass(5*time.Second, all)
		r.well("east", "north")
		if _, n := r.service(); n != plans {
			t.Errorf("%d plans applied for nothing", n-plans)
		}

		for _, b := range []string{"b1", "b2", "c"} {
			all[b] = down
			r.tell(b, down)
		}
		r.want("failover", "b1:draining b2:draining c:draining")
		r.spills("failover", "east:100")
		if !strings.Contains(r.said.String(), `msg="shares of new flows" service=web`) || !strings.Contains(r.said.String(), `to="east 100.0 %" reason="failover: 0 of 3 active backends are up"`) {
			t.Errorf("said %s", r.said.String())
		}
		r.hear("east", 2, wire.Summary{Capacity: 1e12, Drained: true})
		r.spills("east is drained", "north:100")
		r.hear("east", 3, wire.Summary{Capacity: 1e12, Healthy: true})
		for range 12 {
			r.pass(time.Second, all)
			r.hear("east", 3, wire.Summary{Capacity: 1e12, Healthy: true})
			r.well("north")
		}
		r.spills("east is back", "east:100")
		r.lose("east")
		r.spills("no way to east", "north:100")
		r.lose()
		for range 31 {
			r.pass(time.Second, all)
			r.hear("east", 4, wire.Summary{Capacity: 1e12, Healthy: true})
		}
		r.spills("a way to east, and north is stale", "east:100")
		for range 31 {
			r.pass(time.Second, all)
		}
		r.want("nobody else is known to work: the last resort", "b1:active b2:active c:active")
		r.spills("nobody else is known to work", "")

		r.hear("east", 5, wire.Summary{Capacity: 1e12, Healthy: true})
		r.want("east works", "b1:draining b2:draining c:draining")
		all["b1"] = healthy("::", 0, steering.HealthUp)
		r.tell("b1", all["b1"])
		r.want("one is back", "b1:active b2:draining c:draining")
		for range 150 {
			r.pass(time.Second, all)
			r.hear("east", 6, wire.Summary{Capacity: 1e12, Healthy: true})
		}
		r.spills("one is back, for more than the slow start", "")
	})
}

// A site gets no more than an operator says here, whatever it says itself; nothing is a
// drain.
func TestDecideCapacity(t *testing.T) {
	bound := func(c *Config, most ...float64) {
		c.Sites[0].Capacity = nil
		for _, m := range most {
			c.Sites[0].Capacity = append(c.Sites[0].Capacity, SiteCapacityConfig{"", &m})
		}
	}
	deciding(t, func(c *Config) { bound(c, 0) }, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": down, "b2": down, "c": down}
		pass := func() {
			for range 16 {
				r.pass(time.Second, all)
				r.hear("east", 1, wire.Summary{Capacity: 1e12, Load: 280, Healthy: true})
				r.well("north")
			}
		}
		why := func() string {
			_, p := r.decider.state()
			return p.Services[0].Sites[0].Reason
		}
		pass()
		r.spills("east gets nothing", "north:100")
		if got := why(); got != "drained" {
			t.Error(got)
		}
		bound(&r.config, 300)
		r.reconfigure()
		pass()
		r.spills("it has more already", "north:100")
		if got := why(); got != "above its limit: load 93.3 %" {
			t.Error(got)
		}
		bound(&r.config)
		r.reconfigure()
		pass()
		r.spills("nobody bounds it", "east:100")
	})
}

// Who is silent is dead while others speak. Where too few do, all drain: their flows go on.
func TestDecideSilence(t *testing.T) {
	deciding(t, func(c *Config) { c.Services[0].MinHealthy = new(0.5) }, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(time.Second, all)
		r.well("east")
		delete(all, "c")
		r.pass(time.Second, all)
		r.want("one is silent", "b1:active b2:active c:dead")
		delete(all, "b2")
		delete(all, "b1")
		r.pass(time.Second, all)
		r.well("east")
		r.want("all are silent", "b1:draining b2:draining c:draining")
		r.spills("all are silent", "east:100")
		all["b1"], all["b2"] = nil, nil
		r.pass(time.Second, all)
		r.want("two speak again", "b1:active b2:active c:dead")
		for range 150 {
			r.pass(time.Second, all)
			r.well("east")
		}
		r.spills("two speak for more than the slow start", "")
	})
}

// Load above the limit goes elsewhere in steps, and comes back; a gateway that starts again
// goes on with the shares that there were.
func TestDecideSpill(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		share := func() float64 {
			_, p := r.decider.state()
			return p.Services[0].Here.Share
		}
		minutes := func(n int, load float64) {
			for range 60 * n {
				r.pass(time.Second, map[string]func(*wire.Report){"b1": loaded(load), "b2": loaded(load), "c": loaded(load)})
				r.hear("east", 1, wire.Summary{Capacity: 300, Load: 30, Healthy: true})
			}
		}
		minutes(1, 80)
		r.spills("below the limit", "")
		minutes(2, 150)
		if s := share(); s > 0.9 {
			t.Errorf("the load is 150 %%, and %v of the new flows stay", s)
		}
		if s, _ := r.service(); len(s.Spills) != 1 {
			t.Errorf("spills %v", s.Spills)
		}
		before := share()
		r = r.again()
		if s := share(); math.Abs(s-before) > 1e-9 {
			t.Errorf("share %v after a restart, and was %v", s, before)
		}
		minutes(10, 40)
		if s := share(); s != 1 {
			t.Errorf("the load is 40 %%, and only %v of the new flows stay", s)
		}
		r.spills("the load is low", "")
	})
}

// A backend that does not measure its load is taken for one like the others; where none
// does, there is room for all.
func TestDecideMeasured(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		backends := func() (out []steering.BackendSnapshot) {
			synctest.Wait()
			s, _ := r.decider.state()
			for _, b := range s.Services[0].Backends {
				out = append(out, steering.BackendSnapshot{Capacity: b.Capacity, Load: b.Load})
			}
			return out
		}
		want := func(when string, want ...steering.BackendSnapshot) {
			t.Helper()
			r.round()
			if got := backends(); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		}
		none := steering.BackendSnapshot{Capacity: steering.Unmeasured}
		r.tell("b1", nil)
		want("none", none, none, none)
		r.tell("b1", loaded(80))
		r.tell("c", loaded(40))
		want("two", steering.BackendSnapshot{Capacity: 100, Load: 80}, steering.BackendSnapshot{Capacity: 100, Load: 60}, steering.BackendSnapshot{Capacity: 100, Load: 40})
		s, _ := r.decider.state()
		if v := s.Services[0]; v.Arriving != 2 || v.FlowLoad != 1 {
			t.Errorf("arriving %v of %v each", v.Arriving, v.FlowLoad)
		}
		r.tell("c", func(r *wire.Report) { loaded(40)(r); r.FlowLoad, r.Guests = 0.5, 1 })
		r.round()
		s, _ = r.decider.state()
		if v := s.Services[0]; math.Abs(v.Arriving-5./3) > 1e-9 || v.Guests != 0.5 || math.Abs(v.FlowLoad-13./18) > 1e-9 {
			t.Errorf("arriving %v and %v of %v each", v.Arriving, v.Guests, v.FlowLoad)
		}
	})
}

// An operator's drain sends new flows elsewhere, outlives the process, and ends.
func TestDecideDrain(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		r.pass(time.Second, map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil})
		if got := r.decider.stranded(); len(got) != 1 || got[0] != "service web: 100.0 % of the new flows would have nowhere to go" {
			t.Errorf("before another site is known: stranded %q", got)
		}
		r.well("east")
		if got := r.decider.stranded(); len(got) != 0 {
			t.Errorf("stranded %q", got)
		}
		if err := r.decider.drain("power"); err != nil {
			t.Fatal(err)
		}
		r.round()
		r.want("drained", "b1:draining b2:draining c:draining")
		r.spills("drained", "east:100")
		if _, all := r.decider.summary(make([]byte, 16)); len(all) != 1 || !all[0].Drained || all[0].Healthy {
			t.Errorf("others are told %+v", all)
		}
		r = r.again()
		r.want("drained, after a restart", "b1:draining b2:draining c:draining")
		r.spills("drained, after a restart", "east:100")
		if err := r.decider.drain(""); err != nil {
			t.Fatal(err)
		}
		r.round()
		r.want("undrained", "b1:active b2:active c:active")
		if _, err := os.Stat(filepath.Join(r.decider.dir, siteDrainFile)); !os.IsNotExist(err) {
			t.Error(err)
		}
	})
}

// A gateway that comes to decide goes on with the plan in force, and with what operators
// wanted, also when it starts again, or decides for a second time.
func TestDecideLead(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		r.pass(time.Second, map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil})
		r.well("east")
		_, own := r.decider.state()
		mates := *own
		mates.At, mates.Drained = time.Now().Add(-time.Hour), true
		mates.Number = steering.PlanNumber{Term: uint64(time.Now().Add(time.Minute).UnixNano()), Sequence: 7}
		r.decider.lead(&mates, "west", time.Now())
		if _, p := r.decider.state(); p != &mates {
			t.Error("a plan that was in force for an hour is forgotten")
		}
		r.reconfigure()
		if _, p := r.decider.state(); p.Number.Compare(mates.Number) <= 0 {
			t.Errorf("plan %v is not after %v", p.Number, mates.Number)
		}
		r.want("drained at a mate", "b1:draining b2:draining c:draining")
		r = r.again()
		if got := r.decider.inForce(r.config.decisions()); len(got) != 1 || got[0].Name != "web" || got[0].Serves || len(got[0].Spills) != 1 || got[0].Spills[0].Site != "east" {
			t.Errorf("in force after a restart: %+v", got)
		}
		r.want("drained at a mate, after a restart", "b1:draining b2:draining c:draining")
		_, p := r.decider.state()
		r.decider.lead(nil, "west", time.Now().Add(-time.Hour))
		r.reconfigure()
		if _, next := r.decider.state(); next.Number.Compare(p.Number) <= 0 {
			t.Errorf("plan %v is not after %v", next.Number, p.Number)
		}
		r.want("for a second time", "b1:draining b2:draining c:draining")

		mates.Drained = false
		r.decider.heed(&mates, "west")
		if _, err := os.Stat(filepath.Join(r.decider.dir, siteDrainFile)); !os.IsNotExist(err) {
			t.Errorf("undrained at a mate: %v", err)
		}
		r = r.again()
		r.want("undrained at a mate, after a restart", "b1:active b2:active c:active")
	})
}

// Mates hear of a drain of a site whose flows are all elsewhere already.
func TestDecideDrainOfNobody(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		r.well("east")
		for _, b := range []string{"b1", "b2", "c"} {
			r.tell(b, down)
		}
		r.spills("failover", "east:100")
		for _, why := range []string{"power", ""} {
			if err := r.decider.drain(why); err != nil {
				t.Fatal(err)
			}
			r.round()
			r.seen.Lock()
			if got := r.applied.Decision.Drained; got != (why != "") {
				t.Errorf("drained %q: mates are told %v", why, got)
			}
			r.seen.Unlock()
		}
	})
}

// What is configured as spill stays as it is, whoever is loaded; a failover is one all the
// same.
func TestDecideFixed(t *testing.T) {
	deciding(t, func(c *Config) { c.Services[0].Spill = []SpillConfig{{"north", 0.25}} }, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": loaded(200), "b2": loaded(200), "c": loaded(200)}
		for range 60 {
			r.pass(time.Second, all)
		}
		want := steering.Spills{{Site: "north", Slots: steering.SpillSlots(0.25)}}
		if s, _ := r.service(); len(s.Spills) != 1 || s.Spills[0] != want[0] || s.Decided {
			t.Errorf("spills %v, want %v", s.Spills, want)
		}
		for b := range all {
			r.tell(b, down)
		}
		r.want("failover", "b1:draining b2:draining c:draining")
		r.lose("east", "north")
		r.want("no way to others", "b1:active b2:active c:active")
	})
}

// Agents that are drained, all of them, serve if nobody else does.
func TestDecideAgentsDrained(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		drained := func(r *wire.Report) { r.Draining = true }
		for b := range web {
			r.tell(b, drained)
		}
		r.want("nobody else", "b1:active b2:active c:active")
		r.well("east")
		r.want("another site", "b1:draining b2:draining c:draining")
		r.spills("another site", "east:100")
		r.tell("b2", nil)
		r.want("one is undrained", "b1:draining b2:active c:draining")
	})
}

// What is said for a site, a service or a plan that it is not of is refused and counted.
func TestSummariesRefused(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		heard := r.pins.heard
		r.hear("east", 7, wire.Summary{Capacity: 10, Healthy: true})
		r.hear("east", 6, wire.Summary{Capacity: 20, Healthy: true})
		r.hear("an agent of east", 9, wire.Summary{Capacity: 20, Healthy: true})
		r.hear("south", 7, wire.Summary{Capacity: 20, Healthy: true})
		r.hear("east", 8, wire.Summary{Service: wire.ServiceID{1}, Capacity: 20})
		s := wire.NewSealer(parseKeys(t, "2: "+strings.Repeat("b6", 32)), wire.LocatorOf(netip.MustParseAddr(sitesOf["east"])), wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:1::")), time.Now())
		d, _, err := s.SealSummaries(nil, steering.PlanNumber{}, []wire.Summary{{}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r.pins.take(nil, d, netip.MustParseAddr(sitesOf["east"]), time.Now())
		for reason, want := range map[string]float64{refusedOvertaken: 1, refusedSite: 2, refusedService: 1, wire.UnknownKey.Label(): 1, wire.Forged.Label(): 0} {
			if got := testutil.ToFloat64(heard.refused.WithLabelValues(reason)); got != want {
				t.Errorf("%s: %v refused, want %v", reason, got, want)
			}
		}
		of := heard.of("web", time.Now())
		if len(of) != 1 || of["east"].Capacity != 10 {
			t.Errorf("known: %+v", of)
		}
		time.Sleep(wire.Window + time.Second)
		r.hear("east", 1, wire.Summary{Capacity: 30}) // of another decider, whose clock is behind
		if of := heard.of("web", time.Now()); of["east"].Capacity != 30 {
			t.Errorf("known: %+v", of)
		}
	})
}

// A balancer has room for few sites: the last has what those behind it would get.
func TestFewSpills(t *testing.T) {
	t.Parallel()
	var all steering.Spills
	for i := range balancer.MaxSpills + 2 {
		all = append(all, steering.Spill{Site: fmt.Sprint(i), Slots: 10})
	}
	if got := few(all); len(got) != balancer.MaxSpills || got[0].Slots != 10 || got[len(got)-1].Slots != 30 || all[balancer.MaxSpills-1].Slots != 10 {
		t.Errorf("%v of %v", got, all)
	}
}

// That nothing is kept is said once, as plans are kept every few seconds.
func TestDecisionsNotKept(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	d := newDecider(logger(&said), newSummaries(nil), nil, time.Now())
	d.dir = filepath.Join(t.TempDir(), "later")
	d.save(time.Now())
	d.save(time.Now())
	if n := strings.Count(said.String(), "not kept over a restart"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if d.save(time.Now()); d.lost {
		t.Error("not kept later")
	}
}
