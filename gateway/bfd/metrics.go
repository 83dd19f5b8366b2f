package bfd

import "github.com/prometheus/client_golang/prometheus"

// Metric names are an interface: operators' alerts depend on them.
const (
	metricUp          = "razor_gateway_bfd_session_up"
	metricDetection   = "razor_gateway_bfd_detection_seconds"
	metricTransitions = "razor_gateway_bfd_transitions_total"
	metricReceived    = "razor_gateway_bfd_received_packets_total"
	metricSent        = "razor_gateway_bfd_sent_packets_total"
	metricSendErrors  = "razor_gateway_bfd_send_errors_total"
	metricDropped     = "razor_gateway_bfd_dropped_packets_total"
)

// drop is why a packet is of no use.
type drop uint8

const (
	dropHopLimit drop = iota
	dropMalformed
	dropNoSession
	drops
	dropNone
)

var dropWords = [drops]string{"hop_limit", "malformed", "no_session"}

// metrics are the sessions' at scrape time. A peer is a label, as the
// configuration names it.
type metrics struct {
	speaker                    *Speaker
	up, detection, transitions *prometheus.Desc
	received, sent, sendErrors *prometheus.Desc
}

// Metrics registers all metrics of a speaker, for those who only want to know what
// there is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) { register(reg, &Speaker{}) }

func register(reg prometheus.Registerer, s *Speaker) {
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricDropped, Help: "BFD packets that were of no use: from beyond the link, malformed, or of no session.",
	}, []string{"reason"})
	for i, word := range dropWords {
		s.dropped[i] = dropped.WithLabelValues(word)
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"peer"}, labels...), nil)
	}
	reg.MustRegister(dropped, &metrics{
		speaker:     s,
		up:          desc(metricUp, "Whether the BFD session is up."),
		detection:   desc(metricDetection, "Time of silence after which the peer is taken for gone; 0 while it is not heard."),
		transitions: desc(metricTransitions, "Changes of the session to a state.", "state"),
		received:    desc(metricReceived, "Packets of the session received."),
		sent:        desc(metricSent, "Packets of the session sent."),
		sendErrors:  desc(metricSendErrors, "Packets of the session that the kernel did not take."),
	})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.up, m.detection, m.transitions, m.received, m.sent, m.sendErrors} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.speaker.Sessions() {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{s.Peer.String()}, labels...)...)
		}
		up := 0.0
		if s.State == Up {
			up = 1
		}
		send(m.up, prometheus.GaugeValue, up)
		send(m.detection, prometheus.GaugeValue, s.DetectionTime.Seconds())
		for state, n := range s.Transitions {
			send(m.transitions, prometheus.CounterValue, float64(n), State(state).String())
		}
		send(m.received, prometheus.CounterValue, float64(s.Received))
		send(m.sent, prometheus.CounterValue, float64(s.Sent))
		send(m.sendErrors, prometheus.CounterValue, float64(s.SendErrors))
	}
}
