package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

// metrics are those of the announcements; those of peers, BFD and probes are where
// they are.
type metrics struct {
	gateway *Gateway

	prefixes, stage, holes, beyond, refused *prometheus.Desc
	edge, edgeAge                           *prometheus.Desc
	withdrawals                             *prometheus.CounterVec
}

// Metrics registers all metrics of a gateway with a dataplane, for those who only want
// to know what there is: nothing can be collected of it. Those of the lists are in
// upstreams.
func Metrics(reg prometheus.Registerer) {
	bgp.Metrics(reg)
	bfd.Metrics(reg)
	probe.Metrics(reg)
	reg.MustRegister(newMetrics(nil), &dataplane{
		Keeper: &balancer.Keeper{}, pins: &Pins{refused: newPinRefusals()}, reports: newReports(nil, nil, nil),
		echoes:  &echoes{counts: newEchoCounts()},
		members: &membership{}, others: &consulSites{}, election: &election{}, summaries: newSummaries(nil), decider: &decider{}, teller: newTeller(nil, wire.Locator{}, nil, nil, nil),
	})
}

func newMetrics(g *Gateway) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("razor_gateway_"+name, help, labels, nil)
	}
	return &metrics{
		gateway:  g,
		prefixes: desc("prefixes", "Prefixes of each set, by what becomes of them.", "set", "state"),
		stage:    desc("drain_stage", "0 in service, 1 leaving, 2 drained."),
		holes:    desc("blackholes", "Prefixes that are announced as blackholes."),
		beyond:   desc("blackholes_refused", "Prefixes that would be, and are beyond the limit."),
		refused:  desc("members_refused", "Members of lists that must not be announced."),
		edge:     desc("edge_health", "1 for what nameservers are told of the edge: up, down or draining.", "health"),
		edgeAge:  desc("edge_health_age_seconds", "Time since Redis took what they are told."),
		withdrawals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "razor_gateway_withdrawals_total", Help: "Prefixes that were withdrawn, by reason.",
		}, []string{"reason"}),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.prefixes, m.stage, m.holes, m.beyond, m.refused, m.edge, m.edgeAge} {
		ch <- d
	}
	m.withdrawals.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	g := m.gateway
	g.mu.Lock()
	type key struct {
		set      string
		presence steering.Presence
	}
	count := map[key]int{}
	for i := range g.config.Announce {
		for _, p := range []steering.Presence{steering.Withdrawn, steering.Lowered, steering.Announced} {
			count[key{g.config.Announce[i].Set, p}] = 0
		}
	}
	for _, a := range g.current.announcements {
		count[key{a.Set, a.presence}]++
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for k, n := range count {
		gauge(m.prefixes, float64(n), k.set, k.presence.String())
	}
	gauge(m.stage, float64(g.drain.stage))
	gauge(m.holes, float64(len(g.announcedHoles)))
	gauge(m.beyond, float64(g.beyond))
	gauge(m.refused, float64(len(g.refused)))
	g.mu.Unlock()
	if e := g.herald.status(); e != nil {
		for _, health := range []upstreams.EdgeHealth{upstreams.EdgeUp, upstreams.EdgeDown, upstreams.EdgeDraining} {
			v := 0.0
			if e.Health == health {
				v = 1
			}
			gauge(m.edge, v, string(health))
		}
		if !e.Written.IsZero() {
			gauge(m.edgeAge, time.Since(e.Written).Seconds())
		}
	}
	m.withdrawals.Collect(ch)
}
