package steering

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Snapshot is all that [Decide] knows: what one site has measured and heard at a
// moment, and the plan before. Decide changes nothing of it.
//
// Loads and capacities of a service are in one unit, whatever it is: open
// connections, requests or bits per second.
type Snapshot struct {
	Now      time.Time         `json:"now"`
	Site     string            `json:"site"`    // this one
	Term     uint64            `json:"term"`    // of the gateway that decides, see [PlanNumber]
	Drained  bool              `json:"drained"` // this site: no new flows, by an operator's will
	Services []ServiceSnapshot `json:"services"`
	Previous *Plan             `json:"previous,omitempty"` // nil is none
}

// ServiceSnapshot is a service in a snapshot.
type ServiceSnapshot struct {
	Name     string            `json:"name"`
	Settings ServiceSettings   `json:"settings"`
	Backends []BackendSnapshot `json:"backends"`
	Sites    []SiteSummary     `json:"sites"` // the other ones

	// Arriving is how much load the new flows of this site's own clients brought to
	// its backends, per second; best the mean since the plan before. It is what
	// agents accepted, not what gateways saw: a flood of SYNs is no load. It is new
	// flows per second times the load of a flow.
	Arriving float64 `json:"arriving"`
	// Guests is the same of flows that came by other sites; 0 where it is not known
	// makes the share move slower.
	Guests float64 `json:"guests"`
	// FlowLoad is the mean load of a flow; 0 is 1, as where load is in connections.
	FlowLoad float64 `json:"flow_load,omitempty"`
}

// ServiceSettings is what an operator says about a service. A number that is 0, or
// cannot be, stands for what [ServiceSettings.WithDefaults] says.
type ServiceSettings struct {
	Limit      float64 `json:"limit"`       // of the capacity that may be used; above it flows spill
	Accept     float64 `json:"accept"`      // of another site's capacity up to which it is sent spilled flows
	MinHealthy float64 `json:"min_healthy"` // share of the backends below which health is not believed; negative is none
	SlowStart  Seconds `json:"slow_start"`  // from none of the new flows to all, after a recovery
	StaleAfter Seconds `json:"stale_after"` // age from which another site's summary is not believed
	Policy     Policy  `json:"policy"`
}

// WithDefaults is the settings with what is missing: 90 % and 80 %, a quarter,
// 2 minutes and 15 seconds.
//
// Accept is below Limit, so that a site is full of others' flows before it spills
// its own. A quarter, as a site that has others beside it does better to send flows
// there than to backends that may be down: only when nearly all of them are said to
// be down, it is more likely that what says so is broken.
func (s ServiceSettings) WithDefaults() ServiceSettings {
	or := func(v, most, other float64) float64 {
		if v > 0 && v <= most {
			return v
		}
		return other
	}
	s.Limit = or(s.Limit, 1, 0.9)
	s.Accept = min(or(s.Accept, 1, 0.8), s.Limit)
	if !(s.MinHealthy < 0) {
		s.MinHealthy = or(s.MinHealthy, 1, 0.25)
	}
	s.SlowStart = Seconds(or(float64(s.SlowStart), math.MaxFloat64, 120))
	s.StaleAfter = Seconds(or(float64(s.StaleAfter), math.MaxFloat64, 30))
	return s
}

// Seconds is a time as a number of seconds.
type Seconds float64

// AdminState is what an operator wants of a backend.
type AdminState string

// Admin states. Draining and drained backends get no new flows.
const (
	AdminActive   AdminState = "active" // as is ""
	AdminDraining AdminState = "draining"
	AdminDrained  AdminState = "drained"
)

// BackendSnapshot is a backend in a snapshot.
type BackendSnapshot struct {
	Name     string     `json:"name"` // of all backends of the service one has it
	Site     string     `json:"site"` // "" is this one; those of other sites are in summaries
	SID      netip.Addr `json:"sid"`
	Weight   uint32     `json:"weight"` // its share of new flows; 0 is none
	Capacity float64    `json:"capacity"`
	Load     float64    `json:"load"`
	Level    uint8      `json:"level"` // 1 to 3; 0 is 1
	Health   Health     `json:"health"`
	State    AdminState `json:"state"`
}

// Unmeasured is the capacity, for each unit of weight, of a backend whose load is not
// measured: nothing moves by load.
const Unmeasured = 1e6

// mostWeight is the largest weight, so that sums of them fit.
const mostWeight = 1_000_000

// SiteSummary is what another site says about a service: [ServicePlan.Summary].
type SiteSummary struct {
	Name     string  `json:"name"`
	Distance float64 `json:"distance"` // in any unit; the nearest has the least
	Capacity float64 `json:"capacity"` // of the backends that get new flows, as far as slow start lets them
	Load     float64 `json:"load"`     // on these
	Healthy  bool    `json:"healthy"`
	Drained  bool    `json:"drained"`
	Loaded   bool    `json:"loaded"` // its own plan says so: [ServicePlan.Loaded]
	Age      Seconds `json:"age"`    // of the summary; negative is that there is none
}

// accept makes a copy of the snapshot of what can be decided about. What else is in
// it is left out, with the reason.
func (s Snapshot) accept() (Snapshot, []string) {
	var left []string
	drop := func(format string, args ...any) bool {
		left = append(left, fmt.Sprintf(format, args...))
		return true
	}
	names := map[string]bool{}
	s.Services = slices.DeleteFunc(slices.Clone(s.Services), func(v ServiceSnapshot) bool {
		if v.Name == "" || names[v.Name] {
			return drop("service %q is left out: the name is empty, or there twice", v.Name)
		}
		names[v.Name] = true
		return false
	})
	for i := range s.Services {
		s.Services[i] = s.acceptService(s.Services[i], drop)
	}
	return s, left
}

func (s Snapshot) acceptService(v ServiceSnapshot, drop func(string, ...any) bool) ServiceSnapshot {
	v.Settings = v.Settings.WithDefaults()
	v.Arriving, v.Guests = orNone(v.Arriving), orNone(v.Guests)
	if v.FlowLoad = orNone(v.FlowLoad); v.FlowLoad == 0 {
		v.FlowLoad = 1
	}
	names, sids := map[string]bool{}, map[netip.Addr]bool{}
	v.Backends = slices.DeleteFunc(slices.Clone(v.Backends), func(b BackendSnapshot) bool {
		if b.Site != "" && b.Site != s.Site {
			return true
		}
		why := ""
		switch {
		case b.Name == "" || names[b.Name]:
			why = "the name is empty, or there twice"
		case sids[b.SID] && b.SID.IsValid():
			why = "its SID is another one's too"
		case b.Weight > mostWeight:
			why = fmt.Sprintf("weight %d is above %d", b.Weight, mostWeight)
		case !isAmount(b.Capacity):
			why = fmt.Sprintf("capacity %v is no amount", b.Capacity)
		case !slices.Contains([]AdminState{"", AdminActive, AdminDraining, AdminDrained}, b.State):
			why = fmt.Sprintf("state %q is not active, draining or drained", b.State)
		case b.Health > HealthDown:
			why = fmt.Sprintf("health %d is not unknown, up or down", uint8(b.Health))
		}
		names[b.Name], sids[b.SID] = true, true
		return why != "" && drop("service %s: backend %q is left out: %s", v.Name, b.Name, why)
	})
	sites := map[string]bool{s.Site: true}
	v.Sites = slices.DeleteFunc(slices.Clone(v.Sites), func(o SiteSummary) bool {
		if o.Name == "" || sites[o.Name] {
			return drop("service %s: site %q is left out: the name is empty, this site's, or there twice", v.Name, o.Name)
		}
		sites[o.Name] = true
		return false
	})
	v.Settings.Policy = v.Settings.Policy.accept(func(why string) {
		drop("service %s: policy: %s", v.Name, why)
	})
	return v
}

// mostAmount is more than any load or capacity is: sums of amounts stay numbers.
const mostAmount = 1e15

// isAmount tells whether a number can be a load or a capacity.
func isAmount(v float64) bool { return v >= 0 && v <= mostAmount }

// orNone is an amount, or 0 for what cannot be one.
func orNone(v float64) float64 {
	if isAmount(v) {
		return v
	}
	return 0
}
