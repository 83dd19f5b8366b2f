package bgp

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of the sessions; the label peer is the name in the
// configuration.
type metrics struct {
	announcer *Announcer

	up, heldOff, announced, received               *prometheus.Desc
	sessions, errors, crashes, malformed, messages *prometheus.CounterVec
	strangers                                      prometheus.Counter
}

// Metrics registers all metrics of an announcer, for those who only want to know what
// there is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) { reg.MustRegister(newMetrics()) }

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "razor_gateway_" + name, Help: help}, labels)
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("razor_gateway_"+name, help, labels, nil)
	}
	return &metrics{
		up:        desc("peer_up", "1 while the session with the peer is established.", "peer"),
		heldOff:   desc("peer_held_off", "1 while the peer has to wait, as its sessions keep failing by its fault.", "peer"),
		announced: desc("announced_routes", "Prefixes that the peer was told, as the wire has it.", "peer", "family"),
		received:  desc("peer_prefixes", "Prefixes that the peer announces. None is imported.", "peer"),
		sessions:  counter("peer_sessions_total", "Sessions that were established.", "peer"),
		errors:    counter("peer_errors_total", "Sessions that ended, connections that did not come about, and OPENs with our router ID, by reason.", "peer", "reason"),
		crashes:   counter("speaker_crashes_total", "Speaker processes that died.", "peer"),
		malformed: counter("peer_malformed_updates_total", "Updates of the peer that were ignored (RFC 7606).", "peer"),
		messages:  counter("peer_messages_total", "BGP messages.", "peer", "type", "direction"),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "razor_gateway_unknown_calls_total", Help: "Connections to the BGP port from addresses that are no peer.",
		}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.sessions, m.errors, m.crashes, m.malformed, m.messages, m.strangers}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.up, m.heldOff, m.announced, m.received} {
		ch <- d
	}
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.announcer.Status() {
		ch <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, oneIf(s.State == Established), s.Name)
		ch <- prometheus.MustNewConstMetric(m.heldOff, prometheus.GaugeValue, oneIf(!s.HeldUntil.IsZero()), s.Name)
		ch <- prometheus.MustNewConstMetric(m.received, prometheus.GaugeValue, float64(s.Received), s.Name)
		for _, family := range []string{"IPv4", "IPv6"} {
			ch <- prometheus.MustNewConstMetric(m.announced, prometheus.GaugeValue, float64(s.Announced[family]), s.Name, family)
		}
	}
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

func oneIf(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

// typeNames are the labels of message types.
var typeNames = [...]string{
	typeOpen: "open", typeUpdate: "update", typeNotification: "notification",
	typeKeepalive: "keepalive", typeRefresh: "route_refresh",
}
