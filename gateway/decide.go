package gateway

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// decideEvery is from one decision to the next, when nothing happens.
const decideEvery = 2 * time.Second

// decisions is how a gateway decides who gets new flows, as the configuration has it.
type decisions struct {
	site     string
	sites    []otherSite
	settings map[string]steering.ServiceSettings // by service
	fixed    map[string]bool                     // services whose spills are configured
}

// otherSite is another site as this one knows it.
type otherSite struct {
	name     string
	distance float64
	most     map[string]float64 // capacity by service, as an operator bounds it; "" is each without its own
}

// bound has what a site says be no more than an operator says. One that is to get nothing
// is drained, as far as this site is concerned.
func (o *otherSite) bound(service string, s *steering.SiteSummary) {
	most, ok := o.most[service]
	if !ok {
		most, ok = o.most[""]
	}
	if ok {
		s.Capacity, s.Drained = min(s.Capacity, most), s.Drained || most == 0
	}
}

// decisions is nil where a gateway does not decide.
func (c *Config) decisions() *decisions {
	if !c.decides() {
		return nil
	}
	d := &decisions{site: c.Site, settings: map[string]steering.ServiceSettings{}, fixed: map[string]bool{}}
	for i := range c.Sites {
		distance := float64(i + 1)
		if far := c.Sites[i].Distance; far != nil {
			distance = *far
		}
		o := otherSite{name: c.Sites[i].Name, distance: distance, most: map[string]float64{}}
		for _, of := range c.Sites[i].Capacity {
			o.most[of.Service] = *of.Most // as Check has seen it
		}
		d.sites = append(d.sites, o)
	}
	for i := range c.Services {
		s := &c.Services[i]
		d.settings[s.Name], d.fixed[s.Name] = c.settings(s), len(s.Spill) > 0
	}
	return d
}

// input is a service that is to be decided about, with its claims in the order of its
// backends.
type input struct {
	service balancer.PlannedService
	claims  []steering.Finding
	told    []*told // nil for who never spoke
	sites   map[string]steering.SiteSummary
	ways    map[string]bool
}

// snapshot is what is known of a service.
func (d *decisions) snapshot(in *input) steering.ServiceSnapshot {
	out := steering.ServiceSnapshot{Name: in.service.Name, Settings: d.settings[in.service.Name], Sites: []steering.SiteSummary{}}
	out.Backends = in.backends()
	in.load(&out)
	for _, o := range d.sites {
		s, heard := in.sites[o.name]
		switch {
		case d.fixed[in.service.Name]:
			// An operator's word: the others have room for whatever there is.
			s = steering.SiteSummary{Capacity: steering.Unmeasured * steering.Unmeasured, Healthy: true}
		case !heard:
			s.Age = -1
		}
		if !d.fixed[in.service.Name] {
			o.bound(in.service.Name, &s)
		}
		s.Name, s.Distance, s.Healthy = o.name, o.distance, s.Healthy && in.ways[o.name]
		out.Sites = append(out.Sites, s)
	}
	return out
}

// backends are those of a service but for the dead ones, and those whose hosts are gone as
// long as somebody is there. Where all that are left are gone, or drained through their
// agents, they are down: the last resort, should nobody else take the flows.
func (in *input) backends() []steering.BackendSnapshot {
	out := []steering.BackendSnapshot{}
	names, drained, active, peopled := map[string]bool{}, []int{}, false, in.peopled()
	for i, b := range in.service.Backends {
		claim := in.claims[i]
		if claim.Standing == steering.StandingDead || claim.Gone && peopled {
			continue
		}
		next := steering.BackendSnapshot{Name: b.Name, SID: b.SID, Weight: b.Weight, Health: healthOf(claim.Standing), State: steering.AdminActive}
		if next.Name == "" || names[next.Name] {
			next.Name = b.SID.String()
		}
		names[next.Name] = true
		switch t := in.told[i]; {
		case b.State == balancer.Draining:
			next.State, next.Health = steering.AdminDraining, healthOf(claim.Claimed)
		case t != nil && t.Report.Draining:
			next.State, next.Health = steering.AdminDraining, t.of(in.service.VIPs).Health
			drained = append(drained, len(out))
		default:
			active = active || b.Weight > 0
		}
		out = append(out, next)
	}
	if !active {
		for _, i := range drained {
			out[i].State, out[i].Health = steering.AdminActive, steering.HealthDown
		}
	}
	return out
}

// peopled tells whether some backend is there to have new flows.
func (in *input) peopled() bool {
	for i, b := range in.service.Backends {
		is, t := in.claims[i], in.told[i]
		if b.State == balancer.Active && b.Weight > 0 && is.Standing != steering.StandingDead && !is.Gone && (t == nil || !t.Report.Draining) {
			return true
		}
	}
	return false
}

func healthOf(s steering.Standing) steering.Health {
	if s == steering.StandingActive {
		return steering.HealthUp
	}
	return steering.HealthDown
}

// load adds what backends carry and can. Who does not measure its load is taken for one
// like the others, by its weight.
func (in *input) load(s *steering.ServiceSnapshot) {
	reports := map[netip.Addr]*told{}
	for i, b := range in.service.Backends {
		if t := in.told[i]; t != nil && t.Report.Capacity > 0 {
			reports[b.SID] = t
		}
	}
	var weight, capacity, load, accepted float64
	for i := range s.Backends {
		b := &s.Backends[i]
		t := reports[b.SID]
		if t == nil {
			continue
		}
		r := &t.Report
		b.Capacity, b.Load, b.Level = r.Capacity, r.Load, uint8(r.Level)
		weight, capacity, load = weight+weighs(b), capacity+r.Capacity, load+r.Load
		each := r.FlowLoad
		if each == 0 {
			each = 1
		}
		accepted += r.Accepted + r.Guests
		s.Arriving += r.Accepted * each
		s.Guests += r.Guests * each
	}
	if accepted > 0 {
		s.FlowLoad = (s.Arriving + s.Guests) / accepted
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		switch {
		case reports[b.SID] != nil:
		case weight > 0:
			b.Capacity, b.Load = weighs(b)*capacity/weight, weighs(b)*load/weight
		default:
			b.Capacity = weighs(b) * steering.Unmeasured
		}
	}
}

// weighs is the weight of a backend, of one without as if it had one.
func weighs(b *steering.BackendSnapshot) float64 { return float64(max(1, b.Weight)) }

// obey is what becomes of the backends of a service by the plan for it.
func (d *decisions) obey(in *input, p *steering.ServicePlan) judgedService {
	out := judgedService{findings: map[netip.Addr]steering.Finding{}, weights: map[netip.Addr]uint32{}}
	planned := map[netip.Addr]steering.BackendPlan{}
	for _, b := range p.Backends {
		planned[b.SID] = b
	}
	for i, b := range in.service.Backends {
		f, to := in.claims[i], planned[b.SID]
		out.weights[b.SID] = to.Weight
		switch {
		case f.Standing == steering.StandingDead:
			out.weights[b.SID] = b.Weight // as configured
		case to.Weight > 0 && f.Standing != steering.StandingActive:
			f.Standing, f.Gone, f.Reason = steering.StandingActive, false, f.Reason+", which is not believed"
		case to.Weight == 0 && f.Standing == steering.StandingActive && b.Weight > 0:
			f.Standing, f.Reason = steering.StandingDraining, to.Reason
		}
		out.findings[b.SID] = f
	}
	if p.FailOpen {
		out.failOpen, _, _ = strings.Cut(p.Reason, ";")
	}
	if d.fixed[in.service.Name] {
		out.spills = in.service.Spills
	} else {
		out.spills, out.decided = few(p.Spills()), true
	}
	return out
}

// few are spills to no more sites than a balancer has room for: the last one has what
// those behind it would get.
func few(spills steering.Spills) steering.Spills {
	if len(spills) <= balancer.MaxSpills {
		return spills
	}
	out := slices.Clone(spills[:balancer.MaxSpills])
	for _, more := range spills[balancer.MaxSpills:] {
		out[len(out)-1].Slots += more.Slots
	}
	return out
}

// moved tells whether a plan has other shares than one before, or was made of another
// step: what a next process has to know.
func moved(was, is *steering.Plan) bool {
	if was == nil || len(was.Services) != len(is.Services) {
		return true
	}
	for i := range is.Services {
		a, b := &was.Services[i], &is.Services[i]
		if a.Name != b.Name || !a.Measured.At.Equal(b.Measured.At) || !maps.Equal(shares(a), shares(b)) {
			return true
		}
		if !slices.EqualFunc(a.Backends, b.Backends, func(x, y steering.BackendPlan) bool { return x.SID == y.SID && x.Weight == y.Weight }) {
			return true
		}
	}
	return false
}

// shares are those of sites, and of nowhere (""), that are above 0.
func shares(p *steering.ServicePlan) map[string]float64 {
	out := map[string]float64{p.Here.Site: p.Here.Share, "": p.Nowhere}
	for _, s := range p.Sites {
		out[s.Site] = s.Share
	}
	maps.DeleteFunc(out, func(_ string, share float64) bool { return share == 0 })
	return out
}
