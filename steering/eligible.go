package steering

import (
	"fmt"
	"slices"
	"time"
)

// startParts is in how many steps a backend comes back to its weight. The slots that
// it gets move once each, however many steps there are.
const startParts = 4

// crew is what the backends of a site can do for a service together.
type crew struct {
	backends []BackendPlan
	works    bool    // some get new flows
	failOpen bool    // health is not believed
	capacity float64 // of those that get new flows, as far as slow start lets them
	full     float64 // the same without slow start
	load     float64 // on them
	reason   string
}

// active tells whether a backend gets new flows when it is up.
func (b *BackendSnapshot) active() bool {
	return (b.State == "" || b.State == AdminActive) && b.Weight > 0 && b.Capacity > 0
}

// muster decides which backends get new flows, and how many of them:
//
//   - Those that are up and active. A health that is unknown is not up.
//   - If fewer than the least healthy share of the active ones are up, but some,
//     health is not believed: all active ones get new flows. If none is up, that is
//     the last resort, when no other site can take the flows (lastResort); and so it
//     is until enough are up again, as others have the flows meanwhile.
//   - Draining and drained ones never: what an operator wants is not a measurement.
//   - Who comes back gets a quarter of its weight, and one more after each quarter
//     of the slow start. Without a plan before there is nothing to come back from.
func (s *Snapshot) muster(v *ServiceSnapshot, was *ServicePlan, lastResort bool) crew {
	var c crew
	up, active := 0, 0
	for i := range v.Backends {
		if b := &v.Backends[i]; b.active() {
			active++
			if b.Health == HealthUp {
				up++
			}
		}
	}
	least := v.Settings.MinHealthy
	few := least > 0 && float64(up) < least*float64(active)
	away := few && (up == 0 || was != nil && was.Failover)
	c.failOpen = few && !s.Drained && (!away || lastResort)
	c.reason = fmt.Sprintf("%d of %d active backends are up", up, active)
	var serving []member
	for i := range v.Backends {
		b := &v.Backends[i]
		p := BackendPlan{Name: b.Name, SID: b.SID}
		if p.Reason = s.barred(b, c.failOpen, away); p.Reason == "" {
			parts := 0
			p.Since, parts = s.since(v, was, b.Name, c.failOpen)
			p.Weight = b.Weight * uint32(parts)
			p.Reason = servingReason(b, c.failOpen, parts)
			serving = append(serving, member{b, float64(parts) / startParts})
		}
		c.backends = append(c.backends, p)
	}
	c.works = len(serving) > 0
	c.sum(serving, v.Settings.Limit)
	return c
}

// member is a backend that gets new flows, with the part of its weight.
type member struct {
	*BackendSnapshot
	part float64
}

// barred is why a backend gets no new flows, or "": away says that others have them.
func (s *Snapshot) barred(b *BackendSnapshot, failOpen, away bool) string {
	switch {
	case s.Drained:
		return "the site is drained"
	case b.State == AdminDraining || b.State == AdminDrained:
		return string(b.State)
	case b.Weight == 0:
		return "weight 0"
	case b.Capacity == 0:
		return "capacity 0"
	case b.Health != HealthUp && !failOpen:
		return b.Health.String()
	case away && !failOpen:
		return b.Health.String() + ", but too few are"
	}
	return ""
}

func servingReason(b *BackendSnapshot, failOpen bool, parts int) string {
	reason := b.Health.String()
	if failOpen && b.Health != HealthUp {
		reason += ", not believed"
	}
	if parts < startParts {
		reason += fmt.Sprintf(", slow start at %d/%d", parts, startParts)
	}
	if b.Level >= 3 {
		reason += ", critical: counts as full"
	}
	if !isAmount(b.Load) {
		reason += fmt.Sprintf(", load %v is no amount: counts as the others'", b.Load)
	}
	return reason
}

// since is from when on a backend gets new flows, and how many quarters of its
// weight are due. A time that is not over yet is of a clock that was set back, which
// is no reason to start slowly, nor is that health is not believed.
func (s *Snapshot) since(v *ServiceSnapshot, was *ServicePlan, name string, failOpen bool) (time.Time, int) {
	start := v.Settings.SlowStart.duration()
	if was == nil || failOpen {
		return s.Now.Add(-start), startParts
	}
	since := s.Now
	i := slices.IndexFunc(was.Backends, func(b BackendPlan) bool { return b.Name == name })
	if i >= 0 && was.Backends[i].Weight > 0 {
		since = was.Backends[i].Since
	}
	past := s.Now.Sub(since)
	if past < 0 || past >= start {
		return since, startParts
	}
	return since, 1 + int(startParts*(past.Seconds()/start.Seconds()))
}

// sum adds up loads and capacities. A backend that is critical counts as full, if it
// is not above that. No load is believed to be above twice the middle one in
// proportion to the capacity, or, with two backends and fewer, above twice the
// capacity: a backend that says anything can move its site by no more than that.
func (c *crew) sum(serving []member, limit float64) {
	var parts []float64
	for _, m := range serving {
		if isAmount(m.Load) {
			parts = append(parts, m.Load/m.Capacity)
		}
	}
	slices.Sort(parts)
	middle, most := limit, 2.0
	if len(parts) > 0 {
		middle = parts[len(parts)/2]
	}
	if len(parts) > 2 {
		most = 2 * max(middle, limit)
	}
	for _, m := range serving {
		load := middle * m.Capacity
		if isAmount(m.Load) {
			load = min(m.Load, most*m.Capacity)
		}
		if m.Level >= 3 {
			load = max(load, m.Capacity)
		}
		c.load += load
		c.full += m.Capacity
		c.capacity += m.Capacity * m.part
	}
}

// duration is s for the functions of package time, within what that can hold.
func (s Seconds) duration() time.Duration {
	return time.Duration(min(float64(s), 1e9) * float64(time.Second))
}
