package bgp

import "github.com/prometheus/client_golang/prometheus"

// metrics are those of the sessions; the label peer is the name in the
// configuration.
type metrics struct {
	announcer *Announcer

	up, announced, received                        *prometheus.Desc
	sessions, errors, crashes, malformed, messages *prometheus.CounterVec
	heldOff                                        *prometheus.GaugeVec
	strangers                                      prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "razor_gateway_" + name, Help: help}, labels)
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("razor_gateway_"+name, help, labels, nil)
	}
	return &metrics{
		up:        desc("peer_up", "1 while the session with the peer is established.", "peer"),
		announced: desc("announced_routes", "Prefixes that the peer was told, as the wire has it.", "peer", "family"),
		received:  desc("peer_prefixes", "Prefixes that the peer announces. None is imported.", "peer"),
		sessions:  counter("peer_sessions_total", "Sessions that were established.", "peer"),
		errors:    counter("peer_errors_total", "Sessions that ended, and connections that did not come about, by reason.", "peer", "reason"),
		crashes:   counter("speaker_crashes_total", "Speaker processes that died.", "peer"),
		malformed: counter("peer_malformed_updates_total", "Updates of the peer that were ignored (RFC 7606).", "peer"),
		messages:  counter("peer_messages_total", "BGP messages.", "peer", "type", "direction"),
		heldOff: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "razor_gateway_peer_held_off", Help: "1 while the peer has to wait, as its sessions keep failing by its fault.",
		}, []string{"peer"}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "razor_gateway_unknown_calls_total", Help: "Connections to the BGP port from addresses that are no peer.",
		}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.sessions, m.errors, m.crashes, m.malformed, m.messages, m.heldOff, m.strangers}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.up, m.announced, m.received} {
		ch <- d
	}
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.announcer.Status() {
		up := 0.0
		if s.State == Established {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, up, s.Name)
		ch <- prometheus.MustNewConstMetric(m.received, prometheus.GaugeValue, float64(s.Received), s.Name)
		for _, family := range []string{"IPv4", "IPv6"} {
			ch <- prometheus.MustNewConstMetric(m.announced, prometheus.GaugeValue, float64(s.Announced[family]), s.Name, family)
		}
	}
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

// typeNames are the labels of message types.
var typeNames = [...]string{
	typeOpen: "open", typeUpdate: "update", typeNotification: "notification",
	typeKeepalive: "keepalive", typeRefresh: "route_refresh",
}
