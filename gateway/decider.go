package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// decider makes the plans of this site, one after the other.
type decider struct {
	log       *slog.Logger
	summaries *summaries
	ways      func([]balancer.PlannedSite) map[string]bool // to other sites, by name
	dir       string                                       // of the state; "" is none
	leads     func() bool                                  // this gateway decides now
	term      uint64

	keeping sync.Mutex // held while it is kept that the site is drained

	mu       sync.Mutex
	config   *decisions         // as it was decided last; nil decides nothing
	drained  string             // why an operator drained the site; "" if not
	snapshot *steering.Snapshot // that the last plan was made of
	plan     *steering.Plan     // the last one
	made     uint64             // plans
	lost     bool               // the last save failed
	news     chan struct{}      // closed when others are to be told at once
}

// decision is a plan that was made and is not in force yet.
type decision struct {
	config   *decisions
	snapshot steering.Snapshot
	plan     steering.Plan
}

func newDecider(log *slog.Logger, heard *summaries, ways func([]balancer.PlannedSite) map[string]bool, now time.Time) *decider {
	return &decider{log: log, summaries: heard, ways: ways, leads: func() bool { return true }, term: uint64(now.UnixNano()), news: make(chan struct{})}
}

// decide makes a plan of what is known, and what it makes of each service.
func (d *decider) decide(config *decisions, sites []balancer.PlannedSite, inputs []input, now time.Time) (*decision, judged) {
	ways := d.ways(sites)
	d.mu.Lock()
	defer d.mu.Unlock()
	s := steering.Snapshot{Now: now, Site: config.site, Term: d.term, Drained: d.drained != "", Previous: d.plan, Services: []steering.ServiceSnapshot{}}
	for i := range inputs {
		inputs[i].sites, inputs[i].ways = d.summaries.of(inputs[i].service.Name, now), ways
		s.Services = append(s.Services, config.snapshot(&inputs[i]))
	}
	made := &decision{config, s, steering.Decide(s)}
	out := judged{}
	for i := range inputs {
		in := &inputs[i]
		if k := slices.IndexFunc(made.plan.Services, func(p steering.ServicePlan) bool { return p.Name == in.service.Name }); k >= 0 {
			out[in.service.Name] = config.obey(in, &made.plan.Services[k])
		}
	}
	return made, out
}

// settle makes a plan the one in force, and tells whether the next process has to know.
func (d *decider) settle(next *decision) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.plan
	d.config, d.snapshot, d.plan = next.config, &next.snapshot, &next.plan
	d.made++
	d.say(was)
	if urgent(was, d.plan) {
		d.tellNow()
	}
	return moved(was, d.plan)
}

// tellNow has other sites told at once.
func (d *decider) tellNow() {
	close(d.news)
	d.news = make(chan struct{})
}

// urgent tells whether others should know of a plan at once.
func urgent(was, is *steering.Plan) bool {
	if was == nil || len(was.Services) != len(is.Services) {
		return true
	}
	for i := range is.Services {
		a, b := &was.Services[i], &is.Services[i]
		if a.Name != b.Name || a.Failover != b.Failover || a.Loaded != b.Loaded || math.Abs(a.Capacity-b.Capacity) > 0.05*a.Capacity {
			return true
		}
	}
	return false
}

// say logs which shares are others than in a plan before, and why.
func (d *decider) say(was *steering.Plan) {
	for _, why := range d.plan.LeftOut {
		if was == nil || !slices.Contains(was.LeftOut, why) {
			d.log.Warn("not decided about", "what", why)
		}
	}
	for i := range d.plan.Services {
		p := &d.plan.Services[i]
		if d.config.fixed[p.Name] {
			continue // other ones are in force
		}
		before := map[string]float64{d.plan.Site: 1}
		failOpen := false
		if was != nil {
			for k := range was.Services {
				if was.Services[k].Name == p.Name {
					before, failOpen = shares(&was.Services[k]), was.Services[k].FailOpen
				}
			}
		}
		now := shares(p)
		if maps.EqualFunc(before, now, func(a, b float64) bool { return math.Abs(a-b) < 1e-6 }) && failOpen == p.FailOpen {
			continue
		}
		level := slog.LevelInfo
		if p.Failover || p.FailOpen || p.Nowhere > 0 {
			level = slog.LevelWarn
		}
		d.log.Log(context.Background(), level, "shares of new flows", "service", p.Name, "plan", d.plan.Number.String(), "from", inWords(before), "to", inWords(now), "reason", p.Reason)
	}
}

// inWords is shares as people read them.
func inWords(shares map[string]float64) string {
	var words []string
	for _, site := range slices.Sorted(maps.Keys(shares)) {
		name := site
		if name == "" {
			name = "nowhere"
		}
		words = append(words, fmt.Sprintf("%s %.1f %%", name, 100*shares[site]))
	}
	return strings.Join(words, ", ")
}

// lead begins after the plan of who decided before, however old: it is in force. nil is
// what was decided here.
func (d *decider) lead(p *steering.Plan, site string, now time.Time) {
	d.heed(p, site)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.term = max(d.term, uint64(now.UnixNano()))
	d.after()
}

// begin goes on with the plan of who decided before, if it is not too old.
func (d *decider) begin(p *steering.Plan, site string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p != nil && p.Site == site && now.Sub(p.At) < planKeeps {
		d.plan = p
		d.after()
	}
}

// after has the next plan be after the last one, whatever the clocks say.
func (d *decider) after() {
	if d.plan != nil {
		d.term = max(d.term, d.plan.Number.Term+1)
	}
}

// heed takes the plan of who decides, and whether operators drained the site, for when this
// gateway decides, and for the next process. nil says nothing.
func (d *decider) heed(p *steering.Plan, site string) {
	if p == nil || p.Site != site {
		return
	}
	d.keeping.Lock()
	defer d.keeping.Unlock()
	d.mu.Lock()
	d.plan = p
	same, why := p.Drained == (d.drained != ""), ""
	if p.Drained {
		why = "drained at the gateway that decided before"
	}
	if !same {
		d.drained = why
	}
	d.mu.Unlock()
	if same {
		return
	}
	if err := d.saveDrain(why); err != nil {
		d.log.Warn("whether the site is drained is not kept over a restart", "err", err)
	}
}

// inForce is what other sites get by the last plan, for as long as nobody decides: of the
// services that are decided about.
func (d *decider) inForce(of *decisions) (out []balancer.ServiceCopy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan == nil {
		return nil
	}
	for i := range d.plan.Services {
		p := &d.plan.Services[i]
		if of.fixed[p.Name] {
			continue
		}
		serves := slices.ContainsFunc(p.Backends, func(b steering.BackendPlan) bool { return b.Weight > 0 })
		out = append(out, balancer.ServiceCopy{Name: p.Name, Spills: few(p.Spills()), Decided: true, Serves: serves})
	}
	return out
}

// turns tells whether a plan drains the site, or ends that; nil is none. Mates have to know,
// also where all else stays as it is.
func (d *decider) turns(next *decision) bool {
	if next == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.plan == nil || d.plan.Drained != next.plan.Drained
}

// state is the last snapshot and the plan made of it; nil before the first.
func (d *decider) state() (*steering.Snapshot, *steering.Plan) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snapshot, d.plan
}

// siteDrainFile keeps, in the state directory, why an operator drained the site.
const siteDrainFile = "site-drained"

// loadDrain reads what an operator drained before.
func (d *decider) loadDrain() (err error) {
	d.drained, err = loadWhy(filepath.Join(d.dir, siteDrainFile))
	return err
}

// stranded names services of which, as far as is known, some new flows would have nowhere
// to go if the site was drained.
func (d *decider) stranded() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.snapshot == nil || d.config == nil {
		return []string{"nothing was decided yet"}
	}
	s := *d.snapshot
	s.Drained = true
	plan := steering.Decide(s)
	for i := range plan.Services {
		if p := &plan.Services[i]; p.Nowhere > 0 {
			out = append(out, fmt.Sprintf("service %s: %.1f %% of the new flows would have nowhere to go", p.Name, 100*p.Nowhere))
		}
	}
	return out
}

// drain takes an operator's word, "" to end a drain. saved is why it is not kept over a
// restart.
func (d *decider) drain(why string) (saved error) {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	d.mu.Lock()
	d.drained = why
	d.tellNow()
	d.mu.Unlock()
	return d.saveDrain(why)
}

func (d *decider) saveDrain(why string) error {
	if d.dir == "" {
		return nil
	}
	return saveWhy(filepath.Join(d.dir, siteDrainFile), why)
}
