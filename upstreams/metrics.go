package upstreams

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricAge         = "razor_upstreams_snapshot_age_seconds"
	metricZones       = "razor_upstreams_zones"
	metricNames       = "razor_upstreams_names"
	metricMembers     = "razor_upstreams_members"
	metricEndpoints   = "razor_upstreams_endpoints"
	metricEmptied     = "razor_upstreams_pools_emptied"
	metricDrained     = "razor_upstreams_routes_drained"
	metricEdges       = "razor_upstreams_edges"
	metricBelowFloor  = "razor_upstreams_routes_below_floor"
	metricRejected    = "razor_upstreams_rejected"
	metricLink        = "razor_upstreams_link_up"
	metricHold        = "razor_upstreams_hold"
	metricReplicaLink = "razor_upstreams_replica_link_up"
	metricReplicaLag  = "razor_upstreams_replica_lag_seconds"
	metricStale       = "razor_upstreams_stale"
	metricEdit        = "razor_upstreams_edit_duration_seconds"
	metricRescan      = "razor_upstreams_rescan_duration_seconds"
	metricSave        = "razor_upstreams_save_duration_seconds"
	metricSaveErrors  = "razor_upstreams_save_errors_total"
)

// metrics are a follower's. What is a state is read at scrape time.
type metrics struct {
	follower           *Follower
	age, zones, names  *prometheus.Desc
	members, emptied   *prometheus.Desc
	drained, endpoints *prometheus.Desc
	edges, belowFloor  *prometheus.Desc
	link, hold, stale  *prometheus.Desc
	replica, lag       *prometheus.Desc
	rejected           prometheus.Gauge
	edit, rescan, save prometheus.Histogram
	saveErrors         prometheus.Counter
}

// Metrics registers all metrics of a follower, for those who only want to know what
// there is: nothing can be collected of it.
func Metrics(reg prometheus.Registerer) { newMetrics(reg, nil) }

func newMetrics(reg prometheus.Registerer, f *Follower) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	hist := func(name, help string, from float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(from, 2.5, 12)})
	}
	m := &metrics{
		follower:   f,
		age:        desc(metricAge, "Time since the snapshot was last known to be what Redis says."),
		zones:      desc(metricZones, "Zones in the snapshot."),
		names:      desc(metricNames, "Names in the snapshot."),
		members:    desc(metricMembers, "Pool members in the snapshot."),
		emptied:    desc(metricEmptied, "Pools of which skip list and blackhole leave nothing."),
		endpoints:  desc(metricEndpoints, "Endpoints in the upstream lists of the snapshot."),
		drained:    desc(metricDrained, "Routes of which every edge is drained by hand."),
		edges:      desc(metricEdges, "Edges by their health: unknown, up, down, or draining by their gateway.", "health"),
		belowFloor: desc(metricBelowFloor, "Routes of which less than FLOOR is healthy."),
		link:       desc(metricLink, "Whether Redis answers, by the way in which changes are followed.", "link"),
		hold:       desc(metricHold, "1 while a mass loss in Redis is not obeyed."),
		stale:      desc(metricStale, "1 while the lists are older than redis.stale_after: Redis does not answer, does not hear its primary, or has lost them (a hold)."),
		replica:    desc(metricReplicaLink, "Whether the Redis replica's link to its primary is up."),
		lag:        desc(metricReplicaLag, "Time since the Redis replica heard its primary."),
		rejected:   prometheus.NewGauge(prometheus.GaugeOpts{Name: metricRejected, Help: "Keys, members and fields in Redis that cannot be used and are left out."}),
		edit:       hist(metricEdit, "Time from a change named by Redis to the snapshot that has it.", 100e-6),
		rescan:     hist(metricRescan, "Time of reading all keys.", 1e-3),
		save:       hist(metricSave, "Time of writing the snapshot to disk.", 1e-3),
		saveErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricSaveErrors, Help: "Snapshots that could not be written to disk.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m, m.rejected, m.edit, m.rescan, m.save, m.saveErrors)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.age, m.zones, m.names, m.members, m.endpoints, m.emptied, m.drained, m.edges, m.belowFloor, m.link, m.hold, m.stale, m.replica, m.lag} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	h := m.follower.Health()
	for _, l := range []Link{LinkTracking, LinkPolling} {
		gauge(m.link, truth(h.Link == l), string(l))
	}
	gauge(m.hold, truth(h.Hold != ""))
	gauge(m.stale, truth(h.Stale))
	if h.Replica.Role == "slave" {
		gauge(m.replica, truth(h.Replica.LinkUp))
		if !h.Replica.Heard.IsZero() {
			gauge(m.lag, time.Since(h.Replica.Heard).Seconds())
		}
	}
	if !h.InSync.IsZero() {
		gauge(m.age, time.Since(h.InSync).Seconds())
	}
	if s := m.follower.Snapshot(); s != nil {
		gauge(m.zones, float64(s.ZoneCount()))
		gauge(m.names, float64(s.NameCount))
		gauge(m.members, float64(s.MemberCount))
		gauge(m.endpoints, float64(s.EndpointCount))
		gauge(m.emptied, float64(s.Emptied))
		gauge(m.drained, float64(s.Drained))
		for _, h := range edgeHealths {
			gauge(m.edges, float64(s.Edges[h]), string(h))
		}
		gauge(m.belowFloor, float64(len(s.BelowFloor)))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
