package steering

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A world of sites whose clients open flows that live for a while, event by event:
//
//	clients ──► gateway of a site ──slot──► backend of the site
//	                 │ rank of the slot below a share
//	                 └──► gateway of another site ──► backend there
//
// Gateways decide on measurements as they would have them: of agents that report
// every few seconds what is then, heard by other sites some seconds later.
type world struct {
	rng         *rand.Rand
	now         float64 // seconds
	events      eventHeap
	seq         int64 // of events
	flows       int64 // opened
	sites       []*simSite
	decideEvery float64
	every       []trace           // one a site
	both        map[[2]string]int // samples in a row in which two sites sent each other flows
	longestBoth int
}

const (
	simReport    = 3.0 // seconds between reports of agents
	simHear      = 3.0 // seconds until another site has a report
	simNotice    = 4.0 // seconds until a backend's health is known
	simDecide    = 2.0 // seconds between plans, unless a world says another number
	simRecord    = 5.0 // seconds between samples of the traces
	simArrivedIn = 3   // reports over which arrivals are averaged
)

var simStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// simSite is a site with the truth about it, and what it knows.
type simSite struct {
	name     string
	position float64 // distances are differences of it
	backends []*simBackend
	settings ServiceSettings
	meanLife float64                           // of a flow, seconds
	life     func(*rand.Rand, float64) float64 // with a mean
	offered  func(at float64) float64          // flows per second
	most     float64                           // of offered
	drained  bool
	cut      bool // its summaries do not get out

	plan    *Plan
	spills  Spills
	own     int // accepted since the report before, of own clients
	guests  int
	reports []report // newest last
	lost    int      // flows of its clients that nobody took
	begun   int
	heard   map[string]heard
}

type simBackend struct {
	capacity float64
	weight   uint32
	down     bool
	level    uint8
	changed  float64 // when it went up or down
	flows    map[int64]struct{}
	says     func(load, at float64) float64 // nil is the truth
}

type report struct {
	at          float64
	load        []float64
	own, guests float64 // per second
}

type heard struct {
	summary  SiteSummary
	measured float64
}

// event is something that happens at a time; ties are broken by the order in which
// they were planned.
type event struct {
	at  float64
	seq int64
	do  func()
}

// eventHeap is the events to come; the first is the earliest.
type eventHeap []event

func (h eventHeap) before(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}

func (h *eventHeap) push(e event) {
	*h = append(*h, e)
	q := *h
	for i := len(q) - 1; i > 0 && q.before(i, (i-1)/2); i = (i - 1) / 2 {
		q[i], q[(i-1)/2] = q[(i-1)/2], q[i]
	}
}

func (h *eventHeap) pop() event {
	q := *h
	first, last := q[0], len(q)-1
	q[0], q[last] = q[last], event{}
	q = q[:last]
	*h = q
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(q); child++ {
			if q.before(child, least) {
				least = child
			}
		}
		if least == i {
			return first
		}
		q[i], q[least] = q[least], q[i]
		i = least
	}
}

func (w *world) at(t float64, do func()) {
	w.seq++
	w.events.push(event{at: t, seq: w.seq, do: do})
}

func exponential(r *rand.Rand, mean float64) float64 { return mean * r.ExpFloat64() }

// heavyTailed lives are Pareto's with shape 1.5: a few live for very long.
func heavyTailed(r *rand.Rand, mean float64) float64 {
	return mean / 3 * math.Pow(1-r.Float64(), -1/1.5)
}

// newSite makes a site with even backends of a capacity together.
func newSite(i, backends int, capacity float64) *simSite {
	s := &simSite{name: fmt.Sprintf("s%02d", i), position: float64(i), meanLife: 60, life: exponential, heard: map[string]heard{}}
	for range backends {
		s.backends = append(s.backends, &simBackend{capacity: capacity / float64(backends), weight: 100, changed: math.Inf(-1), flows: map[int64]struct{}{}})
	}
	return s
}

// newWorld makes a world whose flows are those of its seed.
func newWorld(seed uint64, sites ...*simSite) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0)), sites: sites, every: make([]trace, len(sites)), both: map[[2]string]int{}, decideEvery: simDecide}
	for i, s := range sites {
		w.at(0, func() { w.arrive(s) })
		w.at(w.rng.Float64()*simReport, func() { w.report(s) })
		w.at(simReport+w.rng.Float64()*simDecide, func() { w.decide(s) })
		w.at(0, func() { w.record(i) })
	}
	w.at(0, w.watch)
	return w
}

// run lets time pass until a moment.
func (w *world) run(until float64) {
	for len(w.events) > 0 && w.events[0].at <= until {
		e := w.events.pop()
		w.now = e.at
		e.do()
	}
	w.now = until
}

// arrive opens a flow of a site's clients, and plans the next one: by thinning, as
// rates change.
func (w *world) arrive(s *simSite) {
	if w.now > 0 && w.rng.Float64()*s.most <= s.offered(w.now) {
		w.open(s)
	}
	w.at(w.now+w.rng.ExpFloat64()/s.most, func() { w.arrive(s) })
}

func (w *world) open(s *simSite) {
	s.begun++
	to := s
	if name, ok := s.spills.Site(w.rng.Uint32N(TableSlots)); ok {
		to = w.site(name)
	}
	b := to.pick(w.rng)
	if b == nil || b.down {
		s.lost++
		return
	}
	if to == s {
		to.own++
	} else {
		to.guests++
	}
	w.flows++
	id := w.flows
	b.flows[id] = struct{}{}
	w.at(w.now+s.life(w.rng, s.meanLife), func() { delete(b.flows, id) })
}

func (w *world) site(name string) *simSite {
	for _, s := range w.sites {
		if s.name == name {
			return s
		}
	}
	return nil
}

// pick is the backend of a new flow, by the weights of the plan.
func (s *simSite) pick(r *rand.Rand) *simBackend {
	if s.plan == nil {
		return s.backends[r.IntN(len(s.backends))]
	}
	weights := s.plan.Services[0].Backends
	sum := uint32(0)
	for _, b := range weights {
		sum += b.Weight
	}
	if sum == 0 {
		return nil
	}
	n := r.Uint32N(sum)
	for i, b := range weights {
		if n < b.Weight {
			return s.backends[i]
		}
		n -= b.Weight
	}
	return nil
}

// set makes a backend go up or down; its flows are lost when it goes down.
func (w *world) set(b *simBackend, down bool) {
	if b.down == down {
		return
	}
	b.down, b.changed = down, w.now
	if down {
		clear(b.flows)
	}
}

// health is what is known of a backend's.
func (w *world) health(b *simBackend) Health {
	if b.down == (w.now-b.changed > simNotice) {
		return HealthDown
	}
	return HealthUp
}

// report is what agents say of a site, which others hear later.
func (w *world) report(s *simSite) {
	r := report{at: w.now, own: float64(s.own) / simReport, guests: float64(s.guests) / simReport}
	s.own, s.guests = 0, 0
	for _, b := range s.backends {
		load := float64(len(b.flows))
		if b.says != nil {
			load = b.says(load, w.now)
		}
		r.load = append(r.load, load)
	}
	if s.reports = append(s.reports, r); len(s.reports) > simArrivedIn {
		s.reports = s.reports[1:]
	}
	if summary, ok := s.summary(); ok && !s.cut {
		at := w.now
		for _, o := range w.sites {
			if o != s {
				d := summary
				d.Distance = math.Abs(o.position - s.position)
				w.at(w.now+simHear, func() { o.heard[s.name] = heard{d, at} })
			}
		}
	}
	w.at(w.now+simReport, func() { w.report(s) })
}

// summary is what a site says of itself to others.
func (s *simSite) summary() (SiteSummary, bool) {
	if s.plan == nil {
		return SiteSummary{}, false
	}
	out := s.plan.Services[0].Summary()
	out.Drained = s.drained
	return out, true
}

// snapshot is what a site's gateway knows.
func (w *world) snapshot(s *simSite) Snapshot {
	v := ServiceSnapshot{Name: "web", Settings: s.settings}
	last := s.reports[len(s.reports)-1]
	for _, r := range s.reports {
		v.Arriving += r.own / float64(len(s.reports))
		v.Guests += r.guests / float64(len(s.reports))
	}
	for i, b := range s.backends {
		v.Backends = append(v.Backends, BackendSnapshot{
			Name: fmt.Sprintf("b%02d", i), Weight: b.weight, Capacity: b.capacity, Load: last.load[i], Level: b.level, Health: w.health(b),
		})
	}
	for _, o := range w.sites {
		if h, ok := s.heard[o.name]; ok {
			h.summary.Age = Seconds(w.now - h.measured)
			v.Sites = append(v.Sites, h.summary)
		}
	}
	now := simStart.Add(time.Duration(w.now * float64(time.Second)))
	return Snapshot{Now: now, Site: s.name, Term: 1, Drained: s.drained, Services: []ServiceSnapshot{v}, Previous: s.plan}
}

func (w *world) decide(s *simSite) {
	p := Decide(w.snapshot(s))
	s.plan, s.spills = &p, p.Services[0].Spills()
	w.at(w.now+w.decideEvery, func() { w.decide(s) })
}
