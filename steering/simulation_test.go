package steering

import (
	"math"
	"math/rand/v2"
	"testing"
)

// curve makes the load that a site's clients would make there follow a function of
// time, at most so much, both in parts of the capacity.
func (s *simSite) curve(most float64, load func(at float64) float64) {
	capacity := 0.0
	for _, b := range s.backends {
		capacity += b.capacity
	}
	s.most = most * capacity / s.meanLife
	s.offered = func(at float64) float64 { return load(at) * capacity / s.meanLife }
}

// crowd is a load that rises to another one within some seconds of a time, and falls
// as fast after another time.
func crowd(normal, crowded, from, to, within float64) func(at float64) float64 {
	return func(at float64) float64 {
		in := max(0, min((at-from)/within, 1)) - max(0, min((at-to)/within, 1))
		return normal + in*(crowded-normal)
	}
}

// evenSites are sites with ten backends each, and a load of their own.
func evenSites(n int, capacity, life, load float64) []*simSite {
	var out []*simSite
	for i := range n {
		s := newSite(i, 10, capacity)
		s.meanLife = life
		s.curve(load, func(float64) float64 { return load })
		out = append(out, s)
	}
	return out
}

// expectHeld looks whether a site's load is at the limit, minute by minute to 3
// points, and whether the share stays in its place.
func (w *world) expectHeld(t *testing.T, site int, from, to float64, reversals int, swing float64) {
	t.Helper()
	tr := w.every[site]
	for i, load := range minutes(tr.load, from, to) {
		if math.Abs(load-0.9) > 0.03 {
			t.Errorf("site %d: a load of %.3f in minute %.0f", site, load, from/60+float64(i))
		}
	}
	share := tr.spilled[sample(from):sample(to)]
	if n := mostReversals(share); n > reversals {
		t.Errorf("site %d: the share turns %d times in 10 minutes, want at most %d", site, n, reversals)
	}
	if least, most := extremes(share); most-least > swing {
		t.Errorf("site %d: the share is between %.3f and %.3f, want it within %.2f", site, least, most, swing)
	}
}

// expectHome looks whether a site keeps all its new flows in a time.
func (w *world) expectHome(t *testing.T, site int, from, to float64) {
	t.Helper()
	if _, most := extremes(w.every[site].spilled[sample(from):sample(to)]); most > 0 {
		t.Errorf("site %d: a share of %.3f goes to others after minute %.0f", site, most, from/60)
	}
}

// expectBelow looks whether the loads of sites are not above one, minute by minute.
func (w *world) expectBelow(t *testing.T, most float64, from, to float64, sites ...int) {
	t.Helper()
	for _, i := range sites {
		for j, load := range minutes(w.every[i].load, from, to) {
			if load > most {
				t.Errorf("site %d: a load of %.3f in minute %.0f", i, load, from/60+float64(j))
			}
		}
	}
}

func (w *world) expectNoneLost(t *testing.T, from, to float64) {
	t.Helper()
	for i, tr := range w.every {
		if _, most := extremes(tr.lost[sample(from):sample(to)]); most > 0 {
			t.Errorf("site %d: %.1f %% of new flows are lost after minute %.0f", i, 100*most, from/60)
		}
	}
}

// expectNoExchange looks whether no two sites sent each other flows for longer than it
// takes to hear of each other.
func (w *world) expectNoExchange(t *testing.T) {
	t.Helper()
	if most := 2 * simRecord; float64(w.longestBoth)*simRecord > most {
		t.Errorf("two sites send each other flows for %.0f s, want at most %.0f s", float64(w.longestBoth)*simRecord, most)
	}
}

// One site of three gets half more than its capacity for 20 minutes.
func TestSimulationOverload(t *testing.T) {
	t.Parallel()
	sites := evenSites(3, 4000, 60, 0.4)
	sites[0].curve(1.5, crowd(0.4, 1.5, 600, 1800, 1))
	w := newWorld(1, sites...)
	w.run(2700)
	w.expectHome(t, 0, 0, 600)
	w.expectHeld(t, 0, 900, 1800, 12, 0.1)
	w.expectBelow(t, 0.85, 0, 2700, 1, 2)
	w.expectHome(t, 0, 2100, 2700)
	w.expectNoneLost(t, 0, 2700)
	w.expectNoExchange(t)
	w.checkPlot(t, "overload", "150 % at one of three sites from minute 10 to 30")
}

// The same with flows that live for seconds, hours, or who knows how long.
func TestSimulationLives(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		life, capacity float64
		distribution   func(*rand.Rand, float64) float64
		swing          float64
	}{
		{"4 s", 4, 1500, exponential, 0.1},
		{"10 s", 10, 1500, exponential, 0.1},
		{"heavy tail", 60, 4000, heavyTailed, 0.15},
		{"5 minutes", 300, 10000, exponential, 0.2},
		{"20 minutes", 1200, 20000, exponential, 0.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sites := evenSites(3, c.capacity, c.life, 0.1)
			for _, s := range sites {
				s.life = c.distribution
			}
			from := max(300, 2*c.life)
			to := from + max(660, 3*c.life)
			sites[0].curve(1.5, crowd(0.1, 1.5, from, to, 1))
			w := newWorld(2, sites...)
			end := to + max(300, c.life)
			w.run(end)
			w.expectHeld(t, 0, from+max(300, 1.5*c.life), to, 20, c.swing)
			w.expectHome(t, 0, end-60, end)
			w.expectNoneLost(t, 0, end)
		})
	}
}

// Six sites around the world have their day, which lasts an hour and a half here, one after
// another.
func TestSimulationDay(t *testing.T) {
	t.Parallel()
	const day = 5400.0
	sites := evenSites(6, 3000, 120, 0)
	for i, s := range sites {
		s.curve(1.2, func(at float64) float64 {
			// Quiet at night, with a second peak in the evening.
			hour := 2 * math.Pi * (at/day + float64(i)/6)
			return 0.65 + 0.4*math.Sin(hour) + 0.12*math.Sin(2*hour)
		})
	}
	w := newWorld(3, sites...)
	w.run(1.5 * day)
	w.expectBelow(t, 0.95, 0, 1.25*day, 0, 1, 2, 3, 4, 5)
	w.expectNoneLost(t, 0, 1.25*day)
	w.expectNoExchange(t)
	for i := range sites {
		tr := w.every[i]
		if _, most := extremes(tr.spilled); most < 0.05 {
			t.Errorf("site %d never spills more than %.3f", i, most)
		}
		if n := mostReversals(tr.spilled); n > 15 {
			t.Errorf("site %d: the share turns %d times in 10 minutes", i, n)
		}
		for j, share := range tr.spilled {
			if share > 0 && tr.demand[j] < 0.6 {
				t.Errorf("site %d spills %.3f in minute %.0f, with a demand of %.2f", i, share, float64(j)*simRecord/60, tr.demand[j])
				break
			}
		}
	}
	w.checkPlot(t, "day", "six sites around the world, a day in an hour and a half")
}

// A crowd of more than twice a site's capacity comes within half a minute.
func TestSimulationFlashCrowd(t *testing.T) {
	t.Parallel()
	sites := evenSites(6, 4000, 60, 0.45)
	sites[0].curve(2.2, crowd(0.45, 2.2, 600, 1500, 30))
	w := newWorld(4, sites...)
	w.run(2100)
	w.expectHeld(t, 0, 960, 1500, 12, 0.15)
	w.expectBelow(t, 0.9, 0, 2100, 1, 2, 3, 4, 5)
	w.expectHome(t, 0, 1860, 2100)
	w.expectNoneLost(t, 0, 2100)
	w.expectNoExchange(t)
	w.checkPlot(t, "flash-crowd", "220 % at one of six sites within half a minute, from minute 10 to 25")
}

// A site loses all its backends, and gets them back one a minute.
func TestSimulationFailure(t *testing.T) {
	t.Parallel()
	sites := evenSites(4, 1500, 60, 0.55)
	w := newWorld(5, sites...)
	for i, b := range sites[0].backends {
		w.at(600, func() { w.set(b, true) })
		w.at(1500+60*float64(i), func() { w.set(b, false) })
	}
	w.run(3000)
	w.expectNoneLost(t, 0, 600)
	w.expectNoneLost(t, 600+simNotice+simDecide+2*simRecord, 3000)
	if got := w.every[0].spilled[sample(615)]; got != 1 {
		t.Errorf("15 s after the failure a share of %.3f goes to others", got)
	}
	w.expectBelow(t, 0.93, 0, 3000, 0, 1, 2, 3)
	w.expectHome(t, 0, 2400, 3000)
	w.expectNoExchange(t)
	if n := mostReversals(w.every[0].spilled); n > 12 {
		t.Errorf("the share turns %d times in 10 minutes", n)
	}
	w.checkPlot(t, "failure", "one of four sites fails at minute 10; its backends come back one a minute from 25 on")
}

// Two sites that are both overloaded have nothing for each other.
func TestSimulationBothLoaded(t *testing.T) {
	t.Parallel()
	w := newWorld(6, evenSites(2, 1500, 60, 1.2)...)
	w.run(1800)
	for i := range 2 {
		w.expectHome(t, i, 0, 1800)
		if got := mean(w.every[i].load[sample(600):]); got < 1.1 {
			t.Errorf("site %d has a load of %.2f", i, got)
		}
	}
}

// TestSimulationLies lets one agent of ten say what is not so. The load of its site
// is off by what one of ten can do, and no more; and it is steady.
func TestSimulationLies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		says        func(load, at float64) float64
		least, most float64
	}{
		{"shouts", func(float64, float64) float64 { return 1e9 }, 0.75, 0.95},
		{"is silent", func(float64, float64) float64 { return 0 }, 0.85, 1.05},
		{"says nonsense", func(float64, float64) float64 { return math.NaN() }, 0.85, 0.95},
		{"froze", func(float64, float64) float64 { return 80 }, 0.85, 1.0},
		{"swings", func(load, at float64) float64 {
			if math.Mod(at, 120) < 60 {
				return 0
			}
			return 1e9
		}, 0.75, 1.05},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sites := evenSites(3, 2000, 60, 0.3)
			sites[0].curve(1.3, crowd(0.3, 1.3, 300, 1200, 1))
			sites[0].backends[3].says = c.says
			w := newWorld(7, sites...)
			w.run(1680)
			tr := w.every[0]
			for i, load := range minutes(tr.load, 720, 1200) {
				if load < c.least || load > c.most {
					t.Errorf("a load of %.3f in minute %d", load, 12+i)
				}
			}
			if n := mostReversals(tr.spilled); n > 20 {
				t.Errorf("the share turns %d times in 10 minutes", n)
			}
			w.expectHome(t, 0, 1560, 1680)
			w.expectNoneLost(t, 0, 1680)
			if c.name == "swings" {
				w.checkPlot(t, "lies", "one of ten agents says 0 and 1e9 in turns; 130 % from minute 5 to 20")
			}
		})
	}
}

// Fifty sites of all sizes, or twenty where time is short, have crowds, failures, drains
// and lost summaries as chance will have it.
func TestSimulationFifty(t *testing.T) {
	t.Parallel()
	many := 20
	if long() || *updatePlots {
		many = 50
	}
	chance := rand.New(rand.NewPCG(8, 8))
	var sites []*simSite
	for i := range many {
		s := newSite(i, 2+chance.IntN(8), 300+700*chance.Float64())
		s.meanLife = 30 + 90*chance.Float64()
		from := 300 + 700*chance.Float64()
		s.curve(1.2, crowd(0.5, 0.5+0.6*chance.Float64(), from, from+300+300*chance.Float64(), 10+60*chance.Float64()))
		sites = append(sites, s)
	}
	w := newWorld(8, sites...)
	w.decideEvery = 5
	drained, cut := sites[many*2/5], sites[many/10]
	for _, i := range []int{many/4 - 1, many * 3 / 4} { // fail whole
		for _, b := range sites[i].backends {
			w.at(700, func() { w.set(b, true) })
			w.at(1200, func() { w.set(b, false) })
		}
	}
	w.at(500, func() { drained.drained = true })
	w.at(900, func() { drained.drained = false })
	w.at(600, func() { cut.cut = true })
	w.at(800, func() { cut.cut = false })
	w.run(1920)
	var above, all int
	for i := range sites {
		for _, load := range minutes(w.every[i].load, 300, 1920) {
			all++
			if load > 0.97 {
				above++
			}
		}
		if n := mostReversals(w.every[i].spilled); n > 20 {
			t.Errorf("site %d: the share turns %d times in 10 minutes", i, n)
		}
		w.expectHome(t, i, 1860, 1920)
	}
	if part := float64(above) / float64(all); part > 0.02 {
		t.Errorf("%.2f %% of the minutes of sites are above 97 %% of their capacity", 100*part)
	}
	if got := w.every[many*2/5].spilled[sample(600)]; got != 1 {
		t.Errorf("the drained site sends %.3f to others", got)
	}
	// Others hear of a failure later.
	w.expectNoneLost(t, 700+simNotice+simReport+simHear+2*w.decideEvery+2*simRecord, 1920)
	w.expectNoExchange(t)
	if many == 50 {
		w.checkPlot(t, "fifty", "fifty sites with crowds, two failures, a drain and a site that is not heard")
	}
	t.Logf("%d flows, %d of %d minutes above 97 %%", w.flows, above, all)
}
