package upstreams

import (
	"time"

	"github.com/razor-steering/razor/steering"
)

// HealthRules say when razor believes what gateways say of their edges.
type HealthRules struct {
	Rise int // times in a row that a gateway has to say up; at least 1
	Fall int // and down; at least 1
	// LostAfter is how long an edge may say nothing while others are heard, before it is
	// down. Gateways speak at least three times as often.
	LostAfter time.Duration
}

// Defaults fills what is 0.
func (r *HealthRules) Defaults() {
	if r.Rise == 0 {
		r.Rise = 2
	}
	if r.Fall == 0 {
		r.Fall = 2
	}
	if r.LostAfter == 0 {
		r.LostAfter = 15 * time.Second
	}
}

// LeastLostAfter bounds HealthRules.LostAfter: the clocks of gateways may be 5 s apart,
// and one that speaks every 3 s may miss once.
const LeastLostAfter = 10 * time.Second

// pulse judges the health of edges by what their gateways say, and when.
//
// A gateway whose host died says nothing any more, and so does one that cannot reach a
// primary, or whose words are not replicated to here. What tells them apart is whether
// others are heard: the silence of an edge counts only while somebody speaks. So time
// goes on with what is heard alone: clock is moved by each word that is new, by the
// time since the last one, and by no more than a third of LostAfter. While a primary is
// away, a replica stale, or all is held, it stands still, and a long pause that ends
// with one gateway's word is not held against the others. Clocks of gateways do not
// matter for that.
//
// Of an edge that is seen for the first time, as all are at the start, the word is taken
// at once, and its age is by what the lists show: how much older its time is than the
// newest one of any edge. Later words are damped ([steering.Damper]), but for draining,
// which somebody wants.
//
// It belongs to one goroutine.
type pulse struct {
	rules  HealthRules
	now    func() time.Time
	clock  time.Duration // in which somebody was heard
	heard  time.Time     // the last word of anybody
	newest time.Time     // time in a word, by gateways' clocks
	edges  map[string]*edgePulse
	turned map[string]turn // whose health is another since the last snapshot
}

// edgePulse is what is known of the health of an edge.
type edgePulse struct {
	said   *EdgeSaid
	damper *steering.Damper
	health EdgeHealth
	since  time.Time
	reason string
}

// turn is a change of an edge's health.
type turn struct {
	was    EdgeHealth
	reason string
}

func newPulse(rules HealthRules) *pulse {
	rules.Defaults()
	return &pulse{rules: rules, now: time.Now, edges: map[string]*edgePulse{}, turned: map[string]turn{}}
}

// at is the clock as dampers have it.
func (p *pulse) at() time.Time { return time.Unix(0, 0).Add(p.clock) }

// of is the health of an edge.
func (p *pulse) of(edge string) EdgeHealth {
	if e := p.edges[edge]; e != nil {
		return e.health
	}
	return EdgeUnknown
}

// hear takes the changes of HEALTH keys, all that came at once.
func (p *pulse) hear(changes []change) {
	for _, c := range changes {
		if c.id.kind == kindHealth && c.value != nil && c.value.said.At.After(p.newest) {
			p.newest = c.value.said.At
		}
	}
	for _, c := range changes {
		switch {
		case c.id.kind != kindHealth:
		case c.value == nil:
			if e := p.edges[c.id.name]; e != nil {
				p.turn(c.id.name, e.health, "HEALTH was removed")
				delete(p.edges, c.id.name)
			}
		default:
			p.say(c.id.name, c.value.said)
		}
	}
}

// say takes one word.
func (p *pulse) say(edge string, said *EdgeSaid) {
	now := p.now()
	if !p.heard.IsZero() {
		p.clock += min(max(now.Sub(p.heard), 0), p.rules.LostAfter/3)
	}
	p.heard = now
	e := p.edges[edge]
	if e == nil || e.said.At.IsZero() != said.At.IsZero() {
		p.meet(edge, said)
		return
	}
	e.said = said
	e.damper.Result(p.at(), said.Health == EdgeUp, said.Reason)
	p.judge(edge, e)
}

// meet takes the first word of an edge.
func (p *pulse) meet(edge string, said *EdgeSaid) {
	rules, begin := steering.Damping{Rise: p.rules.Rise, Fall: p.rules.Fall}, p.at()
	if !said.At.IsZero() {
		rules.Lease = p.rules.LostAfter
		begin = begin.Add(-min(p.newest.Sub(said.At), 2*p.rules.LostAfter))
	}
	e := &edgePulse{said: said, damper: steering.NewDamper(rules, begin), health: EdgeUnknown}
	if old := p.edges[edge]; old != nil {
		e.health, e.since = old.health, old.since
	}
	for range max(p.rules.Rise, p.rules.Fall) {
		e.damper.Result(begin, said.Health == EdgeUp, said.Reason)
	}
	e.damper.Expire(p.at())
	p.edges[edge] = e
	p.judge(edge, e)
	if !said.Since.IsZero() {
		e.since = said.Since
	}
}

// expire judges who was not heard.
func (p *pulse) expire() {
	for edge, e := range p.edges {
		if e.damper.Expire(p.at()) {
			p.judge(edge, e)
		}
	}
}

// silent tells whether an edge was not heard for too long.
func (p *pulse) silent(e *edgePulse) bool {
	return !e.said.At.IsZero() && !p.at().Before(e.damper.LeaseEnd())
}

func (p *pulse) judge(edge string, e *edgePulse) {
	health, reason := EdgeUp, e.said.Reason
	switch {
	case e.said.Health == EdgeDraining:
		health = EdgeDraining
	case p.silent(e):
		health, reason = EdgeDown, "not heard for "+p.rules.LostAfter.String()+" while others were, was "+string(e.said.Health)
	case e.damper.Damped().Health == steering.HealthDown:
		health = EdgeDown
	}
	if was := e.health; was != health {
		e.health, e.since = health, p.now()
		p.turn(edge, was, reason)
	}
	e.reason = reason
}

// turn notes that an edge was something else until now.
func (p *pulse) turn(edge string, was EdgeHealth, reason string) {
	if before, ok := p.turned[edge]; ok {
		was = before.was
	}
	p.turned[edge] = turn{was, reason}
}

// beats takes out of some changes those that only say once more what was said: they are
// no news for anybody but who judges silence, and make no snapshot.
func (m *model) beats(changes []change) []change {
	var rest []change
	for i, c := range changes {
		old := m.values[c.id]
		if c.id.kind != kindHealth || c.value == nil || old == nil || !old.said.same(c.value.said) || m.pulse.edges[c.id.name] == nil {
			if rest != nil {
				rest = append(rest, c)
			}
			continue
		}
		if rest == nil {
			rest = append(make([]change, 0, len(changes)), changes[:i]...)
		}
		m.pulse.hear([]change{c})
		m.values[c.id] = c.value
	}
	if rest == nil {
		return changes
	}
	return rest
}
