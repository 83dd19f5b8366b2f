package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

// BackendStatus is a backend of a service, and what its agent says.
type BackendStatus struct {
	balancer.BackendStatus

	Reason string       `json:"reason,omitempty"` // why the state is not what is configured
	Agent  *AgentStatus `json:"agent,omitempty"`  // nil where it never spoke
}

// AgentStatus is what an agent said of a backend last.
type AgentStatus struct {
	Health   string  `json:"health"`
	Draining bool    `json:"draining"`
	Level    string  `json:"level"`
	Load     float64 `json:"load"`
	Capacity float64 `json:"capacity"`         // 0 where the load is not measured
	Accepted float64 `json:"accepted"`         // new flows a second that came by gateways of this site
	Guests   float64 `json:"guests"`           // and by those of other ones
	Age      float64 `json:"age"`              // seconds since it spoke
	Silent   bool    `json:"silent,omitempty"` // it should have spoken
	Host     string  `json:"host,omitempty"`   // that is asked for echoes: see host words; "" is not known
	Ahead    float64 `json:"ahead"`            // seconds that its clock is
	Unlike   bool    `json:"unlike,omitempty"` // it is not believed, as that is too much
}

// What is known of a host by its echoes.
const (
	hostAnswers = "answers"
	hostGone    = "gone" // it does not answer, and its agent is silent
)

// status is the backends of the balancer with what is known of their agents.
func (r *reports) status(backends []balancer.BackendStatus, now time.Time) []BackendStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []BackendStatus
	for _, b := range backends {
		status := BackendStatus{BackendStatus: b}
		sid, _ := netip.ParseAddr(b.SID) // none of another site
		status.Weight = r.weight(b.Service, sid)
		status.Reason = r.judged[b.Service].findings[sid].Reason
		if t := r.told[sid]; t != nil {
			of := t.of(r.service(b.Service).VIPs)
			status.Agent = &AgentStatus{
				Health: of.Health.String(), Draining: of.Draining, Level: t.Report.Level.String(), Load: t.Report.Load, Capacity: t.Report.Capacity, Accepted: t.Report.Accepted, Guests: t.Report.Guests,
				Age: max(0, now.Sub(t.at)).Seconds(), Silent: !r.speaks(t), Host: r.host(sid, t), Ahead: t.ahead.Seconds(), Unlike: r.speaks(t) && !of.OldAt().After(r.quiet),
			}
		}
		out = append(out, status)
	}
	return out
}

// host is what is known of the host of a backend by its echoes.
func (r *reports) host(sid netip.Addr, t *told) string {
	a := r.hosts[wire.LocatorOf(sid)]
	switch {
	case a == nil || !a.Known:
		return ""
	case a.Gone() && !r.speaks(t):
		return hostGone
	}
	return hostAnswers
}

// service is what the configuration has of one.
func (r *reports) service(name string) (s balancer.PlannedService) {
	if i := slices.IndexFunc(r.plan.Services, func(s balancer.PlannedService) bool { return s.Name == name }); i >= 0 {
		s = r.plan.Services[i]
	}
	return s
}

// weight is that of a backend by the configuration: the tables have it in other units, and
// less of it in a slow start.
func (r *reports) weight(service string, sid netip.Addr) uint32 {
	for _, b := range r.service(service).Backends {
		if b.SID == sid {
			return b.Weight
		}
	}
	return 0
}

// disbelieved names services whose agents are not believed everything, and why.
func (r *reports) disbelieved() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.late >= unreadLong {
		out = append(out, flooded)
	}
	for _, s := range r.plan.Services {
		if why := r.judged[s.Name].failOpen; why != "" {
			out = append(out, "service "+s.Name+": "+why)
		}
	}
	return out
}

// agent is what its agent says, in words.
func (b *BackendStatus) agent() string {
	switch {
	case b.Agent == nil:
		return "-"
	case b.Agent.Silent:
		return "silent"
	case b.Agent.Unlike:
		return fmt.Sprintf("clock %+.0f s", b.Agent.Ahead)
	case b.Agent.Draining:
		return "draining"
	}
	return b.Agent.Health
}

// load is the load in words, with a level that is not normal.
func (b *BackendStatus) load() string {
	if b.Agent == nil || b.Agent.Capacity == 0 {
		return "-"
	}
	text := strconv.FormatFloat(100*b.Agent.Load/b.Agent.Capacity, 'f', 0, 64) + " %"
	if b.Agent.Level != steering.LevelNormal.String() {
		text += " " + b.Agent.Level
	}
	return text
}

// why is what is wrong.
func (b *BackendStatus) why() string {
	return strings.Trim(fmt.Sprintf("%s; %s", b.Reason, b.Why), "; ")
}

var (
	backendHealthDesc   = reportDesc("backend_health", "Health of a service on a backend, as its agent says: 1 up, 0 down, -1 unknown.", "service", "backend")
	backendActiveDesc   = reportDesc("backend_active", "Whether a backend is to have new flows of a service, by configuration and agents.", "service", "backend")
	backendSilentDesc   = reportDesc("backend_silent", "Whether the agent of a backend, which spoke before, is silent.", "backend")
	backendGoneDesc     = reportDesc("backend_gone", "Whether the host of a backend is gone: its agent is silent, and it does not answer echoes. Only where it answered before.", "backend")
	backendClockDesc    = reportDesc("backend_clock_seconds", "How far the clock of a backend is ahead of this one, less the time that a report takes.", "backend")
	backendDrainedDesc  = reportDesc("backend_drained", "Whether a backend is drained through its agent.", "backend")
	backendLoadDesc     = reportDesc("backend_load", "Load of a backend, in the unit of its capacity, as its agent says.", "backend")
	backendCapacityDesc = reportDesc("backend_capacity", "Capacity of a backend, as its agent says.", "backend")
	backendLevelDesc    = reportDesc("backend_load_level", "Level of the load of a backend, as its agent says: 1 normal, 2 warning, 3 critical.", "backend")
	failOpenDesc        = reportDesc("service_agents_disbelieved", "Whether the agents of a service are not believed everything, as too few would be left.", "service")
)

func reportDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("razor_gateway_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (r *reports) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		backendHealthDesc, backendActiveDesc, backendSilentDesc, backendGoneDesc, backendClockDesc, backendDrainedDesc, backendLoadDesc, backendCapacityDesc, backendLevelDesc, failOpenDesc,
	} {
		ch <- d
	}
	r.refused.Describe(ch)
}

// Collect implements prometheus.Collector.
func (r *reports) Collect(ch chan<- prometheus.Metric) {
	r.refused.Collect(ch)
	r.mu.Lock()
	defer r.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range r.plan.Services {
		j := r.judged[s.Name]
		gauge(failOpenDesc, number(j.failOpen != ""), s.Name)
		for _, b := range s.Backends {
			gauge(backendActiveDesc, number(j.findings[b.SID].Standing == steering.StandingActive), s.Name, b.SID.String())
			if t := r.told[b.SID]; t != nil {
				health := map[steering.Health]float64{steering.HealthUp: 1, steering.HealthUnknown: -1}[t.of(s.VIPs).Health]
				gauge(backendHealthDesc, health, s.Name, b.SID.String())
			}
		}
	}
	for sid, t := range r.told {
		backend := sid.String()
		gauge(backendSilentDesc, number(!r.speaks(t)), backend)
		if host := r.host(sid, t); host != "" {
			gauge(backendGoneDesc, number(host == hostGone), backend)
		}
		gauge(backendDrainedDesc, number(t.Report.Draining), backend)
		if t.sequence != 0 || !t.seen.IsZero() { // not of a process before
			gauge(backendClockDesc, t.ahead.Seconds(), backend)
		}
		gauge(backendLevelDesc, float64(t.Report.Level), backend)
		if t.Report.Capacity > 0 {
			gauge(backendLoadDesc, t.Report.Load, backend)
			gauge(backendCapacityDesc, t.Report.Capacity, backend)
		}
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
