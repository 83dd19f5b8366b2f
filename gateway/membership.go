package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams/consul"
)

// membersFile has, in the state directory, the backends that Consul had last: a gateway
// that starts while Consul is away has them.
const membersFile = "members.json"

// ConsulServiceConfig is `consul:` of a service, whose backends Consul says.
type ConsulServiceConfig struct {
	Service     string   `yaml:"service"`     // name in Consul
	Datacenters []string `yaml:"datacenters"` // of Consul; the agent's own when empty
	Tag         string   `yaml:"tag"`         // only instances that have it; all when empty
	Site        string   `yaml:"site"`        // only instances whose meta has it; all when empty
	// Floor is what stays of the backends where Consul alone says that they are gone: a
	// share or a number.
	Floor string `yaml:"floor"`
}

func (c *ConsulServiceConfig) defaults() { or(&c.Floor, "50%") }

// membership names what is wrong with where a service's backends come from.
func (d *defects) membership(key string, s *ServiceConfig) {
	c := s.Consul
	if c == nil {
		return
	}
	if len(s.Backends) > 0 {
		d.add(key+".backends", "", "beside consul", "one of the two")
	}
	key += ".consul"
	if why := consul.ServiceReason(c.Service); why != "" {
		d.add(key+".service", c.Service, why, consul.ServiceWant)
	}
	if why := consul.TagReason(c.Tag); why != "" {
		d.add(key+".tag", c.Tag, why, consul.TagWant)
	}
	for i, dc := range c.Datacenters {
		if dc == "" || slices.Contains(c.Datacenters[:i], dc) {
			d.add(key+".datacenters["+strconv.Itoa(i)+"]", dc, "empty, or listed twice", "the name of a datacenter in Consul, each once")
		}
	}
	if _, err := steering.ParseLimit(c.Floor); err != nil {
		d.add(key+".floor", c.Floor, err.Error(), `a share such as "50%" or a number of backends such as 20`)
	}
}

// memberships are where the backends of services come from, by their names.
func (c *Config) memberships() map[string]ConsulServiceConfig {
	out := map[string]ConsulServiceConfig{}
	for i := range c.Services {
		if from := c.Services[i].Consul; from != nil {
			out[c.Services[i].Name] = *from
		}
	}
	return out
}

// membership keeps the backends of the services that have them from Consul.
type membership struct {
	log  *slog.Logger
	file string
	from *consul.Members
	word func(service string, sid netip.Addr) agentWord
	// configure has the plan be of the backends that there are now.
	configure func() error
	wake      chan struct{}

	mu       sync.Mutex
	services map[string]*followed
	unsaved  bool
	untold   bool   // the plan has others
	refused  string // why the plan does not have them, as it was logged; of the loop
}

// followed is a service that Consul is asked for.
type followed struct {
	serviceMembers

	answer consul.Answer
	said   map[string]string // of what is left out, as it was logged
	saidOf string            // that is held
}

// newMembership is that of a configuration, nil where no service has backends from Consul.
// What a process before has kept in the state directory is there at once.
func newMembership(c *Config, log *slog.Logger) (*membership, error) {
	memberships := c.memberships()
	if len(memberships) == 0 {
		return nil, nil
	}
	from, err := consul.NewMembers(c.Consul, "gateway.consul", log)
	if err != nil {
		return nil, err
	}
	m := &membership{log: log, file: filepath.Join(c.StateDir, membersFile), from: from, wake: make(chan struct{}, 1), services: map[string]*followed{}}
	block := netip.MustParsePrefix(c.Dataplane.SRBlock)
	for name, of := range memberships {
		f := &followed{serviceMembers: serviceMembers{config: of, service: name, block: block, list: map[netip.Addr]member{}}}
		f.guard.Floor, _ = steering.ParseLimit(of.Floor) // as Check has seen it
		m.services[name] = f
	}
	m.load()
	return m, nil
}

// load reads what a process before has kept.
func (m *membership) load() {
	text, err := os.ReadFile(m.file)
	var saved map[string]map[netip.Addr]member
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("the backends that consul had before are not known", "err", err)
		return
	}
	for name, list := range saved {
		if f := m.services[name]; f != nil {
			f.list = list
		}
	}
}

// save keeps the backends for the next process, where they are others.
func (m *membership) save() {
	m.mu.Lock()
	if !m.unsaved {
		m.mu.Unlock()
		return
	}
	m.unsaved = false
	saved := map[string]map[netip.Addr]member{}
	for name, f := range m.services {
		saved[name] = f.list
	}
	text, err := json.Marshal(saved)
	m.mu.Unlock()
	if err == nil {
		err = os.WriteFile(m.file+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(m.file+".new", m.file)
	}
	if err != nil {
		m.log.Warn("the backends that consul has are not kept over a restart", "err", err)
	}
}

// in is a configuration with the backends that there are now. nil has none.
func (m *membership) in(c *Config) *Config {
	if m == nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := *c
	out.Services = slices.Clone(c.Services)
	for i := range out.Services {
		if f := m.services[out.Services[i].Name]; f != nil {
			out.Services[i].Backends = f.backends()
		}
	}
	return &out
}

// run follows Consul until ctx ends.
func (m *membership) run(ctx context.Context) error {
	defer m.from.Close()
	g, ctx := errgroup.WithContext(ctx)
	for _, f := range m.services {
		q := consul.Query{Service: f.config.Service, Tag: f.config.Tag, Datacenters: f.config.Datacenters}
		g.Go(func() error {
			return m.from.Follow(ctx, q, func(a consul.Answer) {
				m.mu.Lock()
				f.answer = a
				m.mu.Unlock()
				m.poke()
			})
		})
	}
	g.Go(func() error { m.loop(ctx); return nil })
	return g.Wait()
}

func (m *membership) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// loop has the plan be of what Consul and agents say.
func (m *membership) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := m.round(time.Now())
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		}
	}
}

// round brings the lists up to date, and the plan where they are others.
func (m *membership) round(now time.Time) (again time.Time) {
	m.mu.Lock()
	for name, f := range m.services {
		if f.answer.At.IsZero() {
			continue // not all have answered: what was kept stays
		}
		changed, at := f.next(f.answer.Members, func(sid netip.Addr) agentWord { return m.word(name, sid) }, now)
		m.unsaved, m.untold = m.unsaved || changed, m.untold || changed
		again = soonest(again, at)
		m.say(f)
	}
	untold := m.untold
	m.untold = false
	m.mu.Unlock()
	if untold {
		err := m.configure()
		if err != nil {
			m.mu.Lock()
			m.untold = true
			m.mu.Unlock()
			again = soonest(again, now.Add(applyPause))
		}
		m.sayApplied(err)
	}
	m.save()
	return again
}

// sayApplied logs why the plan does not have the backends, once for each reason.
func (m *membership) sayApplied(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	switch {
	case why == m.refused:
	case why != "":
		m.log.Error("backends of consul are not applied, the plan stays as it is", "err", err)
	default:
		m.log.Info("backends of consul are applied again")
	}
	m.refused = why
}

// say logs what is left out and held, once for each change.
func (m *membership) say(f *followed) {
	for id, why := range f.bad {
		if f.said[id] != why {
			m.log.Warn("instance in consul left out", "service", f.service, "instance", id, "reason", why)
		}
	}
	f.said = f.bad
	switch {
	case f.held != "" && f.saidOf == "":
		m.log.Error("backends that consul does not have, or calls critical, are held", "service", f.service, "why", f.held)
	case f.held == "" && f.saidOf != "":
		m.log.Info("consul is believed again", "service", f.service)
	}
	f.saidOf = f.held
}

// MembershipStatus is what Consul says of a service's backends.
type MembershipStatus struct {
	Service  string   `json:"service"`
	Members  int      `json:"members"`            // in the plan
	Gone     int      `json:"gone,omitempty"`     // of those, that Consul does not have
	LeftOut  []string `json:"left_out,omitempty"` // instances that cannot be used, and why
	Held     string   `json:"held,omitempty"`     // why not all that Consul says is obeyed
	Failed   string   `json:"failed,omitempty"`   // why there is nothing new of Consul
	Answered bool     `json:"answered"`           // this process has heard of Consul
	Age      float64  `json:"age"`                // seconds since it answered last
}

// status is that of all services. nil has none.
func (m *membership) status(now time.Time) (out []MembershipStatus) {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, f := range m.services {
		s := MembershipStatus{Service: name, Members: len(f.list), Held: f.held, Answered: !f.answer.At.IsZero()}
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
			s.Age = max(0, now.Sub(f.answer.At)).Seconds()
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

// String is the state in words.
func (s *MembershipStatus) String() string {
	text := fmt.Sprintf("service %s: %d backends from consul", s.Service, s.Members)
	if s.Gone > 0 {
		text += fmt.Sprintf(", %d of them are there no longer", s.Gone)
	}
	if len(s.LeftOut) > 0 {
		text += fmt.Sprintf(", %d instances left out: %s", len(s.LeftOut), s.LeftOut[0])
	}
	if s.Held != "" {
		text += "; held: " + s.Held
	}
	switch {
	case s.Failed != "" && s.Answered:
		text += fmt.Sprintf("; no answer for %.0f s: %s", s.Age, s.Failed)
	case s.Failed != "":
		text += "; no answer: " + s.Failed
	case !s.Answered:
		text += "; no answer yet"
	}
	return text
}

var (
	membersDesc     = reportDesc("membership_backends", "Backends of a service that is in Consul.", "service")
	membersGoneDesc = reportDesc("membership_gone", "Backends of a service that Consul does not have any more, and that are in the plan.", "service")
	membersBadDesc  = reportDesc("membership_left_out", "Instances of a service in Consul that cannot be used.", "service")
	membersHeldDesc = reportDesc("membership_held", "Whether not all is obeyed that Consul says of a service.", "service")
	membersAgeDesc  = reportDesc("membership_age_seconds", "Time since Consul answered last for a service, the oldest of its datacenters.", "service")
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
	ch <- prometheus.MustNewConstMetric(membersFailDesc, prometheus.CounterValue, float64(m.from.Failures()))
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

// word is what is known here of the agent of a backend.
func (r *reports) word(service string, sid netip.Addr) agentWord {
	r.mu.Lock()
	defer r.mu.Unlock()
	return agentWord{spoke: r.told[sid] != nil, dead: r.judged[service].findings[sid].Standing == steering.StandingDead}
}
