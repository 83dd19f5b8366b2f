package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MembershipStatus is what Consul, or a list in Redis, says of a service's backends.
type MembershipStatus struct {
	Service  string   `json:"service"`
	List     string   `json:"list,omitempty"`     // the key in Redis; "" where Consul has them
	Members  int      `json:"members"`            // in the plan
	Gone     int      `json:"gone,omitempty"`     // of those, that are not there any more
	LeftOut  []string `json:"left_out,omitempty"` // instances or endpoints that cannot be used, and why
	Held     string   `json:"held,omitempty"`     // why not all that Consul says is obeyed
	Failed   string   `json:"failed,omitempty"`   // why there is nothing new of Consul
	Answered bool     `json:"answered"`           // this process has heard of Consul, or of the lists
	Age      float64  `json:"age"`                // seconds since it answered last, or the lists were known to be so
}

// status is that of all services. nil has none.
func (m *membership) status(now time.Time) (out []MembershipStatus) {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.services {
		s := MembershipStatus{Service: name, Members: len(f.list), Held: f.held}
		asOf := f.answer.At
		s.Answered = !asOf.IsZero()
		if f.upstream != "" {
			s.List, s.Answered, asOf = f.key(), f.heard, m.lists.Health().AsOf()
		}
		for _, is := range f.list {
			if !is.Left.IsZero() {
				s.Gone++
			}
		}
		for id, why := range f.bad {
			s.LeftOut = append(s.LeftOut, id+": "+why)
		}
		slices.Sort(s.LeftOut)
		if f.answer.Err != nil {
			s.Failed = f.answer.Err.Error()
		}
		if s.Answered {
			s.Age = max(0, now.Sub(asOf)).Seconds()
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b MembershipStatus) int { return strings.Compare(a.Service, b.Service) })
	return out
}

// wrong tells whether there is something that somebody should know.
func (s *MembershipStatus) wrong() bool {
	return s.Gone > 0 || len(s.LeftOut) > 0 || s.Held != "" || s.Failed != "" || !s.Answered
}

// where is who says it.
func (s *MembershipStatus) where() string {
	if s.List != "" {
		return "lists"
	}
	return "consul"
}

// String is the state in words.
func (s *MembershipStatus) String() string {
	text := fmt.Sprintf("service %s: %d backends from %s", s.Service, s.Members, cmp.Or(s.List, "consul"))
	if s.Gone > 0 {
		text += fmt.Sprintf(", %d of them are there no longer", s.Gone)
	}
	if len(s.LeftOut) > 0 {
		what := "instances"
		if s.List != "" {
			what = "endpoints"
		}
		text += fmt.Sprintf(", %d %s left out: %s", len(s.LeftOut), what, s.LeftOut[0])
	}
	if s.Held != "" {
		text += "; held: " + s.Held
	}
	switch {
	case s.Failed != "" && s.Answered:
		text += fmt.Sprintf("; no answer for %.0f s: %s", s.Age, s.Failed)
	case s.Failed != "":
		text += "; no answer: " + s.Failed
	case s.List != "" && !s.Answered:
		text += "; the list was not read yet"
	case !s.Answered:
		text += "; no answer yet"
	}
	return text
}

var (
	membersDesc     = reportDesc("membership_backends", "Backends of a service that is in Consul, or has them from a list in Redis.", "service")
	membersGoneDesc = reportDesc("membership_gone", "Backends of a service that are in Consul, or its list, no longer, and that are in the plan.", "service")
	membersBadDesc  = reportDesc("membership_left_out", "Instances in Consul, or endpoints of its list, that cannot be backends of a service.", "service")
	membersHeldDesc = reportDesc("membership_held", "Whether not all is obeyed that Consul says of a service.", "service")
	membersAgeDesc  = reportDesc("membership_age_seconds", "Time since Consul answered last for a service, the oldest of its datacenters, or since its list was known to be so.", "service")
	membersFailDesc = reportDesc("membership_failures_total", "Queries for services that Consul did not answer.")
)

// Describe implements prometheus.Collector.
func (m *membership) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{membersDesc, membersGoneDesc, membersBadDesc, membersHeldDesc, membersAgeDesc, membersFailDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *membership) Collect(ch chan<- prometheus.Metric) {
	if m.from != nil {
		ch <- prometheus.MustNewConstMetric(membersFailDesc, prometheus.CounterValue, float64(m.from.Failures()))
	}
	for _, s := range m.status(time.Now()) {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.Service)
		}
		gauge(membersDesc, float64(s.Members))
		gauge(membersGoneDesc, float64(s.Gone))
		gauge(membersBadDesc, float64(len(s.LeftOut)))
		gauge(membersHeldDesc, number(s.Held != ""))
		if s.Answered {
			gauge(membersAgeDesc, s.Age)
		}
	}
}
