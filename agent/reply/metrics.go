package reply

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricPackets  = "razor_agent_reply_packets_total"
	metricGateways = "razor_agent_reply_gateways"
)

// labels are what becomes of packets, in the words of metrics.
var labels = [replyReasonREASONS]string{
	replyReasonCLAMPED:         "clamped",
	replyReasonRETURNED:        "returned",
	replyReasonDROPPED_TOO_BIG: "dropped_too_big",
	replyReasonDROPPED_ROOM:    "dropped_room",
	replyReasonUNREAD:          "unread",
}

// Counts is how many replies something was done to, by what it was.
func (r *Replies) Counts() (map[string]uint64, error) {
	out := map[string]uint64{}
	for reason, word := range labels {
		var cpus []uint64
		if err := r.objects.Reasons.Lookup(uint32(reason), &cpus); err != nil {
			return nil, fmt.Errorf("read the counter %s: %w", word, err)
		}
		out[word] = 0
		for _, n := range cpus {
			out[word] += n
		}
	}
	return out, nil
}

var (
	descPackets  = prometheus.NewDesc(metricPackets, "Packets from VIPs that something was done to on their way out, by what it was.", []string{"reason"}, nil)
	descGateways = prometheus.NewDesc(metricGateways, "Gateways that answers go by; 0 where they go straight to clients.", nil, nil)
)

// Describe implements prometheus.Collector.
func (r *Replies) Describe(ch chan<- *prometheus.Desc) {
	ch <- descPackets
	ch <- descGateways
}

// Collect implements prometheus.Collector: it reads the maps. There are none after Close.
func (r *Replies) Collect(ch chan<- prometheus.Metric) {
	r.scrape.RLock()
	defer r.scrape.RUnlock()
	if r.closed {
		return
	}
	counts, err := r.Counts()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descPackets, err)
		return
	}
	var s replySetting
	if err := r.objects.Settings.Lookup(uint32(0), &s); err != nil {
		ch <- prometheus.NewInvalidMetric(descGateways, err)
		return
	}
	ch <- prometheus.MustNewConstMetric(descGateways, prometheus.GaugeValue, float64(s.Gateways))
	for word, n := range counts {
		ch <- prometheus.MustNewConstMetric(descPackets, prometheus.CounterValue, float64(n), word)
	}
}
