package razor

import (
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricQueries   = "razor_dns_queries_total"
	metricDuration  = "razor_dns_query_duration_seconds"
	metricDropped   = "razor_dns_dropped_total"
	metricTruncated = "razor_dns_truncated_total"
	metricCut       = "razor_dns_export_cut_total"
	metricTCP       = "razor_dns_tcp_connections"
	metricTCPRefuse = "razor_dns_tcp_refused_total"
	metricPanics    = "razor_dns_panics_total"
)

// metrics are those of the nameserver. Labels are bounded: a zone of the
// configuration, a few query types, the rcodes that we send, the transport.
type metrics struct {
	queries   *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	dropped   prometheus.Counter
	truncated prometheus.Counter
	exportCut prometheus.Counter
	tcp       prometheus.Gauge
	refused   *prometheus.CounterVec
	panics    prometheus.Counter
}

// Metrics registers all metrics of the nameserver, for those who only want to know
// what there is. Those of the lists are in upstreams.
func Metrics(reg prometheus.Registerer) { newMetrics(reg) }

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricQueries, Help: "Queries answered.",
		}, []string{"zone", "type", "rcode", "transport"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricDuration, Help: "Time from a query read to its answer ready to be sent.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 2, 14),
		}, []string{"transport"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricDropped, Help: "Messages left without an answer: too short, or replies.",
		}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricTruncated, Help: "Answers too large for UDP.",
		}),
		exportCut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricCut, Help: "Answers that could not hold the whole upstream list.",
		}),
		tcp: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: metricTCP, Help: "TCP connections that are open.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricTCPRefuse, Help: "TCP connections closed at once because there are too many.",
		}, []string{"limit"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: metricPanics, Help: "Messages whose handling failed by a fault of the program.",
		}),
	}
	reg.MustRegister(m.queries, m.duration, m.dropped, m.truncated, m.exportCut, m.tcp, m.refused, m.panics)
	return m
}

// counterKey is one series of the queries.
type counterKey struct {
	zone  string
	qtype uint16
	rcode int
	via   transport
}

// anyZone is the label of all zones where the configuration names none: each name
// is a zone then, and they come and go.
const anyZone = "*"

// counters are one worker's way to the metrics: looking a series up by its
// labels costs more than the rest.
type counters struct {
	*metrics
	byZone   bool // zones have a series each
	queries  map[counterKey]prometheus.Counter
	duration [len(transportWords)]prometheus.Observer
}

func newCounters(m *metrics, byZone bool) counters {
	c := counters{metrics: m, byZone: byZone, queries: map[counterKey]prometheus.Counter{}}
	for via, word := range transportWords {
		c.duration[via] = m.duration.WithLabelValues(word)
	}
	return c
}

func (c *counters) drop()     { c.dropped.Inc() }
func (c *counters) truncate() { c.truncated.Inc() }
func (c *counters) cut()      { c.exportCut.Inc() }

func (c *counters) observe(via transport, start time.Time) {
	c.duration[via].Observe(time.Since(start).Seconds())
}

func (c *counters) count(r *reply, via transport) {
	key := counterKey{rcode: r.rcode, via: via}
	if r.zone != nil {
		key.zone = anyZone
		if c.byZone {
			key.zone = r.zone.Text
		}
		key.qtype = countedType(r.query.qtype)
	}
	n := c.queries[key]
	if n == nil {
		n = c.metrics.queries.WithLabelValues(key.zone, typeWord(key.qtype), rcodeWord(key.rcode), transportWords[via])
		c.queries[key] = n
	}
	n.Inc()
}

// countedType is the query type where it has a series of its own, else 0.
func countedType(t uint16) uint16 {
	switch t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeSOA, dns.TypeNS, dns.TypeTXT, dns.TypeANY, dns.TypeHTTPS, dns.TypeSRV:
		return t
	}
	return 0
}

func typeWord(t uint16) string {
	if t == 0 {
		return "other"
	}
	return dns.TypeToString[t]
}

// rcodeWord is the name of an rcode that we send.
func rcodeWord(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "BADVERS" // the library has the name that the number has with TSIG
	}
	return dns.RcodeToString[rcode]
}
