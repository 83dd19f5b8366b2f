package gateway

import (
	"crypto/hmac"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

// summaryLimits are those of summaries: of each gateway that decides a few a second.
var summaryLimits = wire.Limits{Senders: 512, Sender: 200, Total: 4000}

// Reasons of refusals beside those of wire and of reports.
const (
	refusedSite    = "site"    // the sender is no gateway of a site that is configured
	refusedService = "service" // none that is here, or another flow key
)

// summaries is what other sites said last of the services here.
type summaries struct {
	changed func() // something is said that new flows depend on at once
	refused *prometheus.CounterVec

	mu       sync.Mutex
	gateways map[wire.Locator]string // sites
	services map[wire.ServiceID]string
	heard    map[string]*heardSite
}

// heardSite is what was heard of a site.
type heardSite struct {
	plan     steering.PlanNumber // of the newest
	at       time.Time
	services map[string]heardService
}

type heardService struct {
	Summary wire.Summary
	at      time.Time
}

func newSummaries(changed func()) *summaries {
	s := &summaries{
		changed: changed, gateways: map[wire.Locator]string{}, services: map[wire.ServiceID]string{}, heard: map[string]*heardSite{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "razor_gateway_site_refusals_total",
			Help: "Summaries of other sites, and services in them, that were not believed, by reason.",
		}, []string{"reason"}),
	}
	for n := range wire.Refusals {
		s.refused.WithLabelValues(n.Label())
	}
	for _, reason := range []string{refusedSite, refusedService, refusedOvertaken} {
		s.refused.WithLabelValues(reason)
	}
	return s
}

func (s *summaries) refuse(reason string) { s.refused.WithLabelValues(reason).Inc() }

// serviceID is what the gateways of all sites call a service.
func serviceID(flowKey []byte, service string) (id wire.ServiceID) {
	m := hmac.New(sha256.New, flowKey)
	m.Write([]byte("summary of " + service))
	copy(id[:], m.Sum(nil))
	return id
}

// configure says which sites and services there are. What is known of others is forgotten.
func (s *summaries) configure(c *Config, flowKey []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateways, s.services = map[wire.Locator]string{}, map[wire.ServiceID]string{}
	heard := map[string]*heardSite{}
	for i := range c.Sites {
		p := c.Sites[i].plan()
		for _, a := range p.Gateways {
			s.gateways[wire.LocatorOf(a)] = p.Name
		}
		if was := s.heard[p.Name]; was != nil {
			heard[p.Name] = was
		}
	}
	s.heard = heard
	for i := range c.Services {
		s.services[serviceID(flowKey, c.Services[i].Name)] = c.Services[i].Name
	}
}

// take has the summaries of a message believed. The error is a [wire.Refusal]; what else
// is not believed is counted.
func (s *summaries) take(m wire.Message, now time.Time) error {
	plan, all, err := m.Summaries()
	if err != nil {
		return err
	}
	s.mu.Lock()
	site, known := s.gateways[m.Sender] // agents there, which have the key too, are not
	if !known {
		s.mu.Unlock()
		s.refuse(refusedSite)
		return nil
	}
	h := s.heard[site]
	if h == nil {
		h = &heardSite{services: map[string]heardService{}}
		s.heard[site] = h
	}
	if plan.Compare(h.plan) < 0 && now.Sub(h.at) < wire.Window {
		s.mu.Unlock()
		s.refuse(refusedOvertaken) // or of one who does not know yet that another one decides
		return nil
	}
	h.plan, h.at = plan, now
	news := false
	for _, next := range all {
		name, known := s.services[next.Service]
		if !known {
			s.refuse(refusedService)
			continue
		}
		was, before := h.services[name]
		news = news || !before || now.Sub(was.at) > leastStale || was.Summary.Healthy != next.Healthy || was.Summary.Drained != next.Drained || was.Summary.Loaded != next.Loaded
		h.services[name] = heardService{next, now}
	}
	s.mu.Unlock()
	if news {
		s.changed()
	}
	return nil
}

// of is what is known of a service at other sites, by their names.
func (s *summaries) of(service string, now time.Time) map[string]steering.SiteSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]steering.SiteSummary{}
	for site, h := range s.heard {
		one, ok := h.services[service]
		if !ok {
			continue
		}
		out[site] = steering.SiteSummary{
			Name: site, Capacity: one.Summary.Capacity, Load: one.Summary.Load, Healthy: one.Summary.Healthy,
			Drained: one.Summary.Drained, Loaded: one.Summary.Loaded, Age: steering.Seconds(max(0, now.Sub(one.at)).Seconds()),
		}
	}
	return out
}

// last is when some site was heard last; zero for never.
func (s *summaries) last() (last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.heard {
		if h.at.After(last) {
			last = h.at
		}
	}
	return last
}

// age is for how long nothing was heard of each site that was heard of.
func (s *summaries) age(now time.Time) map[string]time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]time.Duration{}
	for site, h := range s.heard {
		if !h.at.IsZero() {
			out[site] = max(0, now.Sub(h.at))
		}
	}
	return out
}

// known is what a next process is to know: summaries by site and service, that are not
// older than a time.
func (s *summaries) known(now time.Time, oldest time.Duration) map[string]map[string]wire.Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]map[string]wire.Summary{}
	for site, h := range s.heard {
		out[site] = map[string]wire.Summary{}
		for name, one := range h.services {
			if now.Sub(one.at) <= oldest {
				out[site][name] = one.Summary
			}
		}
	}
	return out
}

// begin takes what a process before knew, as heard now.
func (s *summaries) begin(known map[string]map[string]wire.Summary, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for site, services := range known {
		h := &heardSite{services: map[string]heardService{}}
		for name, one := range services {
			h.services[name] = heardService{one, now}
		}
		s.heard[site] = h
	}
}
