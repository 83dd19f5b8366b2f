package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/agent/segment"
)

// Metrics registers all metrics of an agent, for those who only want to know what there
// is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) {
	var p Pinner
	var r Reporter
	p.told, p.lost = newPinCounters()
	r.told, r.lost = newReportCounters()
	probe.Metrics(reg)
	reg.MustRegister(&segment.Endpoint{}, &reply.Replies{}, monitors{}, &p, &r, drainedGauge(nil), instances{}, (*agent)(nil).consulFailures())
}

func drainedGauge(a *admin) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "razor_agent_drained", Help: "Whether gateways are told that this host is drained.",
	}, func() float64 {
		if a.why() != "" {
			return 1
		}
		return 0
	})
}
