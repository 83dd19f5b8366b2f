package steering

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Decide makes the next plan of a site of what is known of it: for each service the
// weights of its backends, and the shares of new flows that other sites get. It
// depends on the snapshot alone. Old flows are not its matter: they stay where they
// are.
//
//   - This site keeps all new flows while the load of its backends is not above the
//     limit. Above it, exactly as many go elsewhere as keep the load there, by the
//     law in control.go, to the sites that its policy names, as far as they have
//     room.
//   - Sites that are down, drained, loaded themselves, above their limit, or of
//     which nothing was heard for too long get none. As who spills is loaded, and
//     who is loaded gets none, two sites never send each other flows that they
//     have no room for. Only what an operator's weights say goes both ways.
//   - What no site has room for stays here, above the limit.
//   - A site none of whose backends may get flows sends all away at once. That may
//     be more than others have measured room for: they tell by their load, and what
//     is too much for all of them goes to backends here that are said to be down,
//     or nowhere.
//
// It is to be called every few seconds, and when something happened that cannot wait:
// shares move by load every 10 s at most, but follow health and operators at once.
func Decide(snapshot Snapshot) Plan {
	s, left := snapshot.accept()
	p := Plan{Number: PlanNumber{Term: s.Term, Sequence: 1}, At: s.Now, Site: s.Site, Drained: s.Drained, Services: []ServicePlan{}, LeftOut: left}
	if s.Previous != nil && s.Previous.Number.Term == s.Term {
		p.Number.Sequence = s.Previous.Number.Sequence + 1
	}
	for i := range s.Services {
		v := &s.Services[i]
		p.Services = append(p.Services, s.decide(v, s.Previous.service(v.Name)))
	}
	return p
}

// decision is the plan of a service in the making.
type decision struct {
	s        *Snapshot
	v        *ServiceSnapshot
	was      *ServicePlan // nil is none
	crew     crew
	works    bool // this site may have new flows
	law      controller
	measured Measured
	at       places
	why      map[string]string // reasons of the other sites
}

func (s *Snapshot) decide(v *ServiceSnapshot, was *ServicePlan) ServicePlan {
	d := decision{s: s, v: v, was: was, at: places{}, why: map[string]string{}}
	d.crew = s.muster(v, was, false)
	d.works = d.crew.works
	d.law.senders, d.law.grain = 1, v.FlowLoad
	for _, o := range v.Sites {
		if o.Loaded && d.believed(o) {
			d.law.senders++
		}
	}
	d.measure()
	here := &place{alive: d.works, here: true, room: d.roomHere()}
	d.at[s.Site] = here
	for _, o := range v.Sites {
		l := &place{}
		if d.why[o.Name] = d.unfit(o); d.why[o.Name] == "" {
			l.alive, l.room = true, d.roomThere(o)
		}
		d.at[o.Name] = l
	}
	policy := v.Settings.Policy.whole(s.Site, d.crew.capacity, v.Sites)
	left := max(0, 1-policy.give(1, d.at))
	if left < rounding {
		left = 0
	}
	nowhere := d.place(left, policy)
	return d.plan(policy, nowhere)
}

// failing tells whether the site ceases to work with this plan.
func (d *decision) failing() bool {
	return !d.works && (d.was == nil || !d.was.Failover)
}

// believed tells whether a site's summary is recent and can be.
func (d *decision) believed(o SiteSummary) bool {
	return o.Age >= 0 && o.Age <= d.v.Settings.StaleAfter && isAmount(o.Load) && isAmount(o.Capacity)
}

// unfit is why another site gets no new flows, or "".
func (d *decision) unfit(o SiteSummary) string {
	limit := d.v.Settings.Limit
	switch {
	case o.Drained:
		return "drained"
	case o.Age < 0:
		return "not heard of yet"
	case !(o.Age <= d.v.Settings.StaleAfter):
		return fmt.Sprintf("not believed: heard %v s ago", math.Round(float64(o.Age)))
	case !d.believed(o):
		return fmt.Sprintf("not believed: load %v of %v", o.Load, o.Capacity)
	case !o.Healthy || o.Capacity == 0:
		return "down"
	case o.Load > limit*o.Capacity:
		return "above its limit: " + loadOf(o.Load, o.Capacity)
	case o.Loaded:
		return "loaded itself: " + loadOf(o.Load, o.Capacity)
	}
	return ""
}

// place finds a place for new flows that nobody has room for, and returns what is
// left of them.
func (d *decision) place(left float64, policy Policy) float64 {
	here := d.at[d.s.Site]
	if left == 0 {
		return 0
	}
	if d.works {
		here.share += left
		return 0
	}
	if left -= d.crowd(left, policy); left < rounding {
		return 0
	}
	if c := d.s.muster(d.v, d.was, true); c.works {
		d.crew = c
		here.share, left = left, 0
	}
	return left
}

// crowd gives flows of a failover to the sites that work, in proportion to what they have
// to where they should be, and returns how much they took: no more than what each of
// them would have room for alone. When the site ceases to work it is all, and where
// they should be is their limit.
func (d *decision) crowd(left float64, policy Policy) float64 {
	target := d.target()
	if d.failing() {
		target = d.v.Settings.Limit
	}
	sum, gaps := 0.0, map[string]float64{}
	for _, o := range d.v.Sites {
		if gap := target*o.Capacity - o.Load; gap > 0 && d.at[o.Name].alive && policy.names(o.Name) {
			gaps[o.Name] = gap
			sum += gap
		}
	}
	if sum == 0 {
		return 0
	}
	each := left / sum
	if !d.failing() {
		each = min(each, closing(d.law.ending)/d.law.offered)
	}
	for name, gap := range gaps {
		l := d.at[name]
		l.share = min(1, l.share+each*gap)
		l.room = max(l.room, l.share)
	}
	return each * sum
}

// plan writes down what was decided.
func (d *decision) plan(policy Policy, nowhere float64) ServicePlan {
	here := d.at[d.s.Site]
	p := ServicePlan{
		Name: d.v.Name, Failover: !d.works, FailOpen: d.crew.failOpen, Backends: d.crew.backends,
		Here:    SiteShare{Site: d.s.Site, Share: here.share, Room: here.room, Load: d.crew.load, Capacity: d.crew.full},
		Nowhere: nowhere, Measured: d.measured, Sites: []SiteShare{},
	}
	for _, name := range policy.order(nil) {
		i := slices.IndexFunc(d.v.Sites, func(o SiteSummary) bool { return o.Name == name })
		if i >= 0 {
			p.Sites = append(p.Sites, d.there(d.v.Sites[i]))
		}
	}
	if !d.law.step { // growth is measured from the step on
		p.Here.Load, p.Here.Capacity = d.was.Here.Load, d.was.Here.Capacity
	}
	p.Load, p.Capacity = d.crew.load, d.crew.capacity
	p.Loaded = !d.works || d.crew.failOpen || here.room < 1 || d.crew.load > d.v.Settings.Limit*d.crew.capacity
	p.Here.Reason, p.Reason = d.reasonHere(p.spilled()), d.reason(&p)
	return p
}

// there is the plan for another site.
func (d *decision) there(o SiteSummary) SiteShare {
	l := d.at[o.Name]
	p := SiteShare{Site: o.Name, Share: l.share, Room: l.room, Reason: d.why[o.Name], Load: orNone(o.Load), Capacity: orNone(o.Capacity)}
	if d.was != nil && !d.law.step {
		if was := d.was.site(o.Name); was.Capacity > 0 {
			p.Load, p.Capacity = was.Load, was.Capacity
		}
	}
	if p.Reason == "" {
		switch {
		case l.share > 0:
			p.Reason = loadOf(o.Load, o.Capacity) + ", has room for " + percent(l.room)
		case l.room > 0:
			p.Reason = "not needed: " + loadOf(o.Load, o.Capacity)
		default:
			p.Reason = "no room: " + loadOf(o.Load, o.Capacity)
		}
	}
	return p
}

// reasonHere says why this site keeps what it keeps.
func (d *decision) reasonHere(spilled float64) string {
	here := d.at[d.s.Site]
	load := loadOf(d.crew.load, d.crew.capacity)
	limit := fmt.Sprintf("limit %.0f %%", 100*d.v.Settings.Limit)
	switch {
	case !d.works && here.share > 0:
		return "last resort: no other site has room"
	case d.s.Drained:
		return "drained"
	case !d.works:
		return "no backend may get flows"
	case here.share > here.room+rounding:
		return load + ", " + limit + ", and no other site has room for what is above"
	case here.room < 1 && d.crew.load > d.v.Settings.Limit*d.crew.capacity:
		return load + ", " + limit
	case here.room < 1:
		return load + ", " + limit + "; flows come back in steps"
	case spilled > 0:
		return load + ", policy"
	}
	return load
}

// reason says in a sentence what happens to the service.
func (d *decision) reason(p *ServicePlan) string {
	var out []string
	switch {
	case p.FailOpen:
		out = append(out, "fail-open: "+d.crew.reason+", health is not believed")
	case d.s.Drained:
		out = append(out, "drained: all new flows go elsewhere")
	case p.Failover:
		out = append(out, "failover: "+d.crew.reason)
	case p.Here.Share > p.Here.Room+rounding:
		out = append(out, "overload: new flows above the limit have nowhere else to go")
	case p.Here.Room < 1 && p.spilled() > 0:
		out = append(out, "spill: this site keeps what its limit allows")
	case p.spilled() > 0:
		out = append(out, "policy")
	default:
		out = append(out, "local: "+d.crew.reason)
	}
	if p.Nowhere > 0 {
		out = append(out, percent(p.Nowhere)+" of the new flows have nowhere to go")
	}
	return strings.Join(out, "; ")
}

// loadOf is a load in words.
func loadOf(load, capacity float64) string {
	if load == 0 && capacity >= Unmeasured {
		return "load not measured"
	}
	if capacity == 0 {
		return fmt.Sprintf("load %.4g", load)
	}
	return fmt.Sprintf("load %.1f %%", 100*load/capacity)
}
