package consul

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricActive       = "razor_sync_active"
	metricEndpoints    = "razor_sync_endpoints"
	metricWanted       = "razor_sync_wanted_endpoints"
	metricHeld         = "razor_sync_held"
	metricKept         = "razor_sync_list_kept"
	metricAge          = "razor_sync_consul_age_seconds"
	metricChanges      = "razor_sync_changes_total"
	metricLatency      = "razor_sync_publish_duration_seconds"
	metricConsulErrors = "razor_sync_consul_errors_total"
	metricWriteErrors  = "razor_sync_redis_errors_total"
)

// The values of the label action.
const (
	actionAdd    = "add"
	actionRemove = "remove"
	actionChange = "change"
)

// metrics are those of a sync. What is a state is read at scrape time; the label
// app has the lists of the configuration.
type metrics struct {
	sync                      *Sync
	active, endpoints, wanted *prometheus.Desc
	held, kept, age           *prometheus.Desc
	changes                   *prometheus.CounterVec
	latency                   prometheus.Histogram
	consulErrors, writeErrors prometheus.Counter
}

// Metrics registers all metrics of a sync, for those who only want to know what there
// is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) { newMetrics(reg, nil) }

func newMetrics(reg prometheus.Registerer, s *Sync) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		sync:      s,
		active:    desc(metricActive, "1 while this sync holds the lock and keeps the lists."),
		endpoints: desc(metricEndpoints, "Endpoints of a list that are given flows.", "app"),
		wanted:    desc(metricWanted, "Endpoints that the list would have if the guards held nothing.", "app"),
		held:      desc(metricHeld, "1 while the guard of a list does not let a change through.", "app", "reason"),
		kept:      desc(metricKept, "0 while a list cannot be kept: not owned by the sync, Redis or Consul away.", "app"),
		age:       desc(metricAge, "Time since Consul answered last for a list, the oldest of its datacenters.", "app"),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricChanges, Help: "Endpoints added to lists, removed from them, or changed there.",
		}, []string{"action"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricLatency, Help: "Time from Consul's answer to the list in Redis.", Buckets: prometheus.ExponentialBuckets(500e-6, 2.5, 12),
		}),
		consulErrors: counter(metricConsulErrors, "Queries that Consul did not answer."),
		writeErrors:  counter(metricWriteErrors, "Lists that could not be read or written on the Redis primary."),
	}
	for _, a := range []string{actionAdd, actionRemove, actionChange} {
		m.changes.WithLabelValues(a)
	}
	if reg != nil {
		reg.MustRegister(m, m.changes, m.latency, m.consulErrors, m.writeErrors)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.active, m.endpoints, m.wanted, m.held, m.kept, m.age} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	_, active := m.sync.lock.held()
	gauge(m.active, truth(active))
	now := time.Now()
	for _, k := range m.sync.keepers {
		app := k.cfg.App
		s, oldest := k.seen()
		if !oldest.IsZero() {
			gauge(m.age, now.Sub(oldest).Seconds(), app)
		}
		if !active {
			continue
		}
		gauge(m.endpoints, float64(s.endpoints), app)
		gauge(m.wanted, float64(s.wants), app)
		gauge(m.kept, truth(s.trouble == ""), app)
		if s.held != nil {
			gauge(m.held, 1, app, s.held.Reason)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
