package gateway

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ConsulSitesStatus is what Consul says of other sites.
type ConsulSitesStatus struct {
	Prefix   string   `json:"prefix"` // of their keys
	Sites    int      `json:"sites"`
	Refused  []string `json:"refused,omitempty"` // keys that are not obeyed, and why
	Held     []string `json:"held,omitempty"`    // sites that stay though all keys are gone
	Failed   string   `json:"failed,omitempty"`  // why there is nothing new of Consul
	Answered bool     `json:"answered"`          // to this process
	Age      float64  `json:"age"`               // seconds since it did last
}

// status is nil where the file has the other sites.
func (s *consulSites) status(now time.Time) *ConsulSitesStatus {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &ConsulSitesStatus{Prefix: s.prefix, Sites: len(s.sites), Held: s.held(), Answered: !s.answer.At.IsZero()}
	for _, d := range s.refused() {
		out.Refused = append(out.Refused, d.String())
	}
	if s.answer.Err != nil {
		out.Failed = s.answer.Err.Error()
	}
	if out.Answered {
		out.Age = max(0, now.Sub(s.answer.At)).Seconds()
	}
	return out
}

// wrong tells whether there is something that somebody should know.
func (s *ConsulSitesStatus) wrong() bool {
	return len(s.Refused) > 0 || len(s.Held) > 0 || s.Failed != "" || !s.Answered
}

// String is the state in words.
func (s *ConsulSitesStatus) String() string {
	text := fmt.Sprintf("%d by keys in consul, %s", s.Sites, s.Prefix)
	if len(s.Held) > 0 {
		text += "; held, as all keys were gone at once: " + strings.Join(s.Held, ", ")
	}
	switch {
	case s.Failed != "" && s.Answered:
		text += fmt.Sprintf("; no answer for %.0f s: %s", s.Age, s.Failed)
	case s.Failed != "":
		text += "; no answer: " + s.Failed
	case !s.Answered:
		text += "; no answer yet"
	}
	return strings.Join(append([]string{text}, s.Refused...), "; not obeyed: ")
}

var (
	consulSitesDesc    = reportDesc("consul_sites", "Other sites that there are by keys in Consul.")
	consulRefusedDesc  = reportDesc("consul_sites_refused", "Keys in Consul of other sites that are not obeyed, as their values cannot be used.")
	consulHeldDesc     = reportDesc("consul_sites_held", "Other sites that stay, though Consul has lost all their keys at once.")
	consulSitesAgeDesc = reportDesc("consul_sites_age_seconds", "Time since Consul answered last for other sites.")
	consulSitesErrDesc = reportDesc("consul_sites_failures_total", "Queries for other sites that Consul did not answer.")
)

// Describe implements prometheus.Collector.
func (s *consulSites) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{consulSitesDesc, consulRefusedDesc, consulHeldDesc, consulSitesAgeDesc, consulSitesErrDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *consulSites) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	ch <- prometheus.MustNewConstMetric(consulSitesErrDesc, prometheus.CounterValue, float64(s.from.Failures()))
	is := s.status(time.Now())
	gauge(consulSitesDesc, float64(is.Sites))
	s.mu.Lock()
	refused := len(s.bad)
	s.mu.Unlock()
	gauge(consulRefusedDesc, float64(refused))
	gauge(consulHeldDesc, float64(len(is.Held)))
	if is.Answered {
		gauge(consulSitesAgeDesc, is.Age)
	}
}
