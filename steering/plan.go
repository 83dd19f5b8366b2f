package steering

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Plan is what [Decide] decided. One gateway of a site decides, the others apply
// its plans in the order of their numbers. It has all that the next decision needs
// of the past, so that any gateway of the site can go on with it.
type Plan struct {
	Number   PlanNumber    `json:"number"`
	At       time.Time     `json:"at"`
	Site     string        `json:"site"`
	Drained  bool          `json:"drained,omitempty"` // the site, by an operator's will
	Services []ServicePlan `json:"services"`
	LeftOut  []string      `json:"left_out,omitempty"` // of the snapshot, and why
}

// service is the plan of a service, as far as its numbers can be; nil is none.
func (p *Plan) service(name string) *ServicePlan {
	if p == nil {
		return nil
	}
	i := slices.IndexFunc(p.Services, func(s ServicePlan) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	s := p.Services[i]
	s.Here = s.Here.sane()
	s.Sites = slices.Clone(s.Sites)
	for i := range s.Sites {
		s.Sites[i] = s.Sites[i].sane()
	}
	s.Measured.Offered, s.Measured.Ending = orNone(s.Measured.Offered), orNone(s.Measured.Ending)
	return &s
}

// ServicePlan is what is to be done with the new flows of a service. The shares of
// this site, of the others and of nowhere are 1 together.
type ServicePlan struct {
	Name     string        `json:"name"`
	Reason   string        `json:"reason"`
	Load     float64       `json:"load"`      // of the backends that get new flows
	Capacity float64       `json:"capacity"`  // theirs, as far as slow start lets them
	Loaded   bool          `json:"loaded"`    // other sites should send no flows
	Failover bool          `json:"failover"`  // no backend here may get flows
	FailOpen bool          `json:"fail_open"` // health is not believed
	Backends []BackendPlan `json:"backends"`
	Here     SiteShare     `json:"here"`
	Sites    []SiteShare   `json:"sites"`    // in the order in which they share the ranks
	Nowhere  float64       `json:"nowhere"`  // share of new flows that nobody can take
	Measured Measured      `json:"measured"` // in the step that the shares were last moved
}

// BackendPlan is a backend of this site in a plan.
type BackendPlan struct {
	Name   string     `json:"name"`
	SID    netip.Addr `json:"sid"`
	Weight uint32     `json:"weight"` // in quarters of the snapshot's; 0 gets no new flows
	Since  time.Time  `json:"since"`  // since when it gets new flows; zero if it does not
	Reason string     `json:"reason"`
}

// SiteShare is what a site gets of the new flows of this site's clients.
type SiteShare struct {
	Site     string  `json:"site"`
	Share    float64 `json:"share"`    // 0 to 1
	Room     float64 `json:"room"`     // the most that its load allows, 0 to 1
	Load     float64 `json:"load"`     // when the shares were last moved
	Capacity float64 `json:"capacity"` // then
	Reason   string  `json:"reason"`
}

// sane is the share with numbers that can be.
func (s SiteShare) sane() SiteShare {
	s.Share, s.Room = min(orNone(s.Share), 1), min(orNone(s.Room), 1)
	s.Load, s.Capacity = orNone(s.Load), orNone(s.Capacity)
	return s
}

// Measured is what the shares were last moved by.
type Measured struct {
	At      time.Time `json:"at"`
	Offered float64   `json:"offered"` // load per second that new flows of this site's clients bring, wherever; 0 is not known
	Ending  float64   `json:"ending"`  // part of the load that ends per second; 0 is not known
}

// Spills are the shares of other sites in slots. Their sum is that of the shares in
// slots, and shares of 1 together are all slots.
func (s *ServicePlan) Spills() Spills {
	var out Spills
	share, end := 0.0, uint32(0)
	for _, to := range s.Sites {
		share += to.Share
		if e := SpillSlots(share); e > end {
			out = append(out, Spill{Site: to.Site, Slots: e - end})
			end = e
		}
	}
	return out
}

// Summary is what a site says of itself to others, when it is as old as the plan.
func (s *ServicePlan) Summary() SiteSummary {
	return SiteSummary{
		Name: s.Here.Site, Capacity: s.Capacity, Load: s.Load, Healthy: !s.Failover, Loaded: s.Loaded,
	}
}

// spilled is the share of all other sites.
func (s *ServicePlan) spilled() float64 {
	sum := 0.0
	for _, to := range s.Sites {
		sum += to.Share
	}
	return sum
}

// site is the share of another site; a zero one where it has none.
func (s *ServicePlan) site(name string) SiteShare {
	for _, to := range s.Sites {
		if to.Site == name {
			return to
		}
	}
	return SiteShare{Site: name}
}

// percent is a share in words.
func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }
