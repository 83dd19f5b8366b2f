package gateway

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
)

// DecisionStatus is what was decided for a site last.
type DecisionStatus struct {
	Site     string           `json:"site"`
	Plan     string           `json:"plan"` // its number
	At       time.Time        `json:"at"`
	Drained  string           `json:"drained,omitempty"` // why the site is; "" if it is not
	Mate     string           `json:"mate,omitempty"`    // who decides; "" is this gateway
	Services []DecidedService `json:"services"`
}

// DecidedService is who gets the new flows of a service. Shares are of those of the site's
// clients.
type DecidedService struct {
	Service string               `json:"service"`
	Reason  string               `json:"reason"`
	Here    steering.SiteShare   `json:"here"`
	Sites   []steering.SiteShare `json:"sites"`
	Nowhere float64              `json:"nowhere,omitempty"`
}

// status is what was decided; nil where nothing was.
func (p *dataplane) decisionStatus() *DecisionStatus {
	out := &DecisionStatus{Mate: p.followed}
	if p.election != nil {
		out.Mate = p.election.state().Holder
	}
	plan := p.Decision()
	var fixed map[string]bool
	if d := p.decider; d != nil {
		d.mu.Lock()
		if out.Drained = d.drained; plan == nil || d.leads() {
			plan = d.plan
		}
		if d.config != nil {
			fixed = d.config.fixed
		}
		d.mu.Unlock()
	}
	if plan == nil {
		return nil
	}
	out.Site, out.Plan, out.At = plan.Site, plan.Number.String(), plan.At
	for i := range plan.Services {
		s := &plan.Services[i]
		one := DecidedService{Service: s.Name, Reason: s.Reason, Here: s.Here, Sites: s.Sites, Nowhere: s.Nowhere}
		if fixed[s.Name] {
			continue // as configured, which the backends' table has
		}
		out.Services = append(out.Services, one)
	}
	return out
}

// write writes the decisions for people.
func (d *DecisionStatus) write(w io.Writer, now time.Time) {
	by := "decided here"
	if d.Mate != "" {
		by = "decided by " + d.Mate
	}
	fmt.Fprintf(w, "\nSERVICE\tSITE\tNEW FLOWS\tWHY (plan %s, %s, %s ago)\n", d.Plan, by, ago(now, d.At))
	for _, s := range d.Services {
		fmt.Fprintf(w, "%s\t%s\t%.1f %%\t%s\n", s.Service, s.Here.Site, 100*s.Here.Share, s.Reason)
		for _, to := range s.Sites {
			fmt.Fprintf(w, "%s\t%s\t%.1f %%\t%s\n", s.Service, to.Site, 100*to.Share, to.Reason)
		}
		if s.Nowhere > 0 {
			fmt.Fprintf(w, "%s\tnowhere\t%.1f %%\tno site has room\n", s.Service, 100*s.Nowhere)
		}
	}
}

var (
	shareDesc       = reportDesc("site_share", "Share of the new flows of this site's clients that a site gets, as was decided.", "service", "to_site")
	roomDesc        = reportDesc("site_room", "Share of the new flows of this site's clients that a site has room for.", "service", "to_site")
	decisionsDesc   = reportDesc("decisions_total", "Plans that were made.")
	decidedAtDesc   = reportDesc("decision_timestamp_seconds", "When the plan in force was made.")
	termDesc        = reportDesc("plan_term", "Term of the plan in force: rises with each gateway that comes to decide.")
	sequenceDesc    = reportDesc("plan_sequence", "Number of the plan in force in its term.")
	siteDrainedDesc = reportDesc("site_drained", "Whether an operator drained this site.")
	summaryAgeDesc  = reportDesc("site_age_seconds", "For how long nothing was heard of another site that was heard of.", "from_site")
)

// Describe implements prometheus.Collector.
func (d *decider) Describe(ch chan<- *prometheus.Desc) {
	for _, one := range []*prometheus.Desc{shareDesc, roomDesc, decisionsDesc, decidedAtDesc, termDesc, sequenceDesc, siteDrainedDesc} {
		ch <- one
	}
}

// Collect implements prometheus.Collector.
func (d *decider) Collect(ch chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	metric := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	metric(decisionsDesc, prometheus.CounterValue, float64(d.made))
	metric(siteDrainedDesc, prometheus.GaugeValue, number(d.drained != ""))
	if d.plan == nil || !d.leads() { // of a plan that is not in force nothing is told
		return
	}
	metric(decidedAtDesc, prometheus.GaugeValue, float64(d.plan.At.UnixMilli())/1000)
	metric(termDesc, prometheus.GaugeValue, float64(d.plan.Number.Term))
	metric(sequenceDesc, prometheus.GaugeValue, float64(d.plan.Number.Sequence))
	for i := range d.plan.Services {
		s := &d.plan.Services[i]
		if d.config != nil && d.config.fixed[s.Name] {
			continue
		}
		for _, to := range slices.Concat([]steering.SiteShare{s.Here}, s.Sites) {
			metric(shareDesc, prometheus.GaugeValue, to.Share, s.Name, to.Site)
			metric(roomDesc, prometheus.GaugeValue, to.Room, s.Name, to.Site)
		}
	}
}

// Describe implements prometheus.Collector.
func (s *summaries) Describe(ch chan<- *prometheus.Desc) {
	ch <- summaryAgeDesc
	s.refused.Describe(ch)
}

// Collect implements prometheus.Collector.
func (s *summaries) Collect(ch chan<- prometheus.Metric) {
	for site, age := range s.age(time.Now()) {
		ch <- prometheus.MustNewConstMetric(summaryAgeDesc, prometheus.GaugeValue, age.Seconds(), site)
	}
	s.refused.Collect(ch)
}

// Describe implements prometheus.Collector.
func (t *teller) Describe(ch chan<- *prometheus.Desc) {
	t.told.Describe(ch)
	t.lost.Describe(ch)
}

// Collect implements prometheus.Collector.
func (t *teller) Collect(ch chan<- prometheus.Metric) {
	t.told.Collect(ch)
	t.lost.Collect(ch)
}
