package probe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricUp       = "razor_probe_up"
	metricDuration = "razor_probe_duration_seconds"
	metricResults  = "razor_probe_results_total"
)

// The values of the label result.
const (
	resultPass  = "pass"
	resultFail  = "fail"
	resultFault = "fault" // of the program: nothing was measured
)

// metrics are those of one probe, whose name is a label of all of them. Its
// health is read at scrape time.
type metrics struct {
	prober   *Prober
	up       *prometheus.Desc
	duration prometheus.Histogram
	results  map[string]prometheus.Counter
}

// Metrics registers all metrics of a probe, for those who only want to know what there
// is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) { reg.MustRegister(newMetrics(&Prober{})) }

func newMetrics(p *Prober) *metrics {
	probe := prometheus.Labels{"probe": p.cfg.Name}
	m := &metrics{
		prober: p,
		up:     prometheus.NewDesc(metricUp, "1 while the health is up, 0 while it is down or unknown.", nil, probe),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricDuration, Help: "Time that a measurement took, also one that failed.", ConstLabels: probe,
			Buckets: prometheus.ExponentialBuckets(100e-6, 4, 8),
		}),
		results: map[string]prometheus.Counter{},
	}
	for _, result := range []string{resultPass, resultFail, resultFault} {
		m.results[result] = prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricResults, Help: "Measurements by their result; fault is one of the program.",
			ConstLabels: prometheus.Labels{"probe": p.cfg.Name, "result": result},
		})
	}
	return m
}

func (m *metrics) observe(passed bool, took time.Duration) {
	result := resultFail
	if passed {
		result = resultPass
	}
	m.results[result].Inc()
	m.duration.Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.up
	m.duration.Describe(ch)
	for _, c := range m.results {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	up := 0.0
	if m.prober.Status().Health == steering.HealthUp {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, up)
	m.duration.Collect(ch)
	for _, c := range m.results {
		c.Collect(ch)
	}
}
