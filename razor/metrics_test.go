package razor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// series are all series of a registry as "name{label="value",…} number"; of a
// histogram the number of observations.
func series(tb testing.TB, reg *prometheus.Registry) []string {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			line := f.GetName()
			if len(labels) > 0 {
				line += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.Counter != nil:
				line += fmt.Sprintf(" %v", m.Counter.GetValue())
			case m.Gauge != nil:
				line += fmt.Sprintf(" %v", m.Gauge.GetValue())
			case m.Histogram != nil:
				line += fmt.Sprintf(" %d", m.Histogram.GetSampleCount())
			}
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// value is the number of a series, given as series writes it; -1 without it.
func value(tb testing.TB, reg *prometheus.Registry, line string) float64 {
	tb.Helper()
	for _, s := range series(tb, reg) {
		var n float64
		if rest, ok := strings.CutPrefix(s, line+" "); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	return -1
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := newServer(fixed{snapshotOf(t, kinds(t))}, func(s *server) { s.metrics, s.cfg.Zones = newMetrics(reg), []string{"z.test"} })
	a, b := newAnswerer(s, [32]byte{1}), newAnswerer(s, [32]byte{2})
	source := netip.MustParseAddr("203.0.113.77")
	ask := func(msg string, via transport) {
		a.handle([]byte(msg), source, via)
		a, b = b, a // the workers count into the same series
	}
	for _, q := range []struct {
		name  string
		qtype uint16
		times int
	}{
		{"z.test", dns.TypeA, 3},
		{"Four.Z.Test", dns.TypeA, 2},
		{"z.test", dns.TypeAAAA, 1},
		{"z.test", dns.TypeSOA, 1},
		{"z.test", dns.TypeNS, 1},
		{"z.test", dns.TypeANY, 1},
		{"z.test", dns.TypeTXT, 1},
		{"z.test", dns.TypeHTTPS, 1},
		{"z.test", dns.TypeMX, 1},
		{"z.test", 65280, 1},
		{"secret-name.z.test", dns.TypeA, 2},
		{"x.inner.z.test", dns.TypeA, 1},
		{"secret-name.example", dns.TypeA, 2},
	} {
		for range q.times {
			ask(plain(name(q.name), q.qtype), transportUDP)
		}
	}
	ask(plain(name("z.test"), dns.TypeA), transportTCP)
	ask(extended(name("z.test"), dns.TypeA, opt(1232, 1, 0)), transportUDP)
	ask(extended(name("z.test"), dns.TypeA, opt(1232, 0, 0, subnet("203.0.113.77/32"))), transportUDP)
	ask(header(0, 2, 0, 0, 0), transportUDP)
	ask(header(opcode(5), 1, 0, 0, 0), transportTCP)
	ask(header(bitQR, 0, 0, 0, 0), transportUDP)
	ask("short", transportTCP)

	want := []string{
		`razor_dns_dropped_total 2`,
		`razor_dns_export_cut_total 0`,
		`razor_dns_panics_total 0`,
		`razor_dns_queries_total{rcode="BADVERS",transport="udp",type="other",zone=""} 1`,
		`razor_dns_queries_total{rcode="FORMERR",transport="udp",type="other",zone=""} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="tcp",type="A",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="A",zone="inner.z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="A",zone="z.test"} 6`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="AAAA",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="ANY",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="HTTPS",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="NS",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="SOA",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="TXT",zone="z.test"} 1`,
		`razor_dns_queries_total{rcode="NOERROR",transport="udp",type="other",zone="z.test"} 2`,
		`razor_dns_queries_total{rcode="NOTIMP",transport="tcp",type="other",zone=""} 1`,
		`razor_dns_queries_total{rcode="NXDOMAIN",transport="udp",type="A",zone="z.test"} 2`,
		`razor_dns_queries_total{rcode="REFUSED",transport="udp",type="other",zone=""} 2`,
		`razor_dns_query_duration_seconds{transport="tcp"} 3`,
		`razor_dns_query_duration_seconds{transport="udp"} 22`,
		`razor_dns_tcp_connections 0`,
		`razor_dns_truncated_total 0`,
	}
	got := series(t, reg)
	if !slices.Equal(got, want) {
		t.Errorf("series:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range got {
		if strings.Contains(line, "secret") || strings.Contains(line, "203.0") || strings.Contains(line, "four") {
			t.Errorf("a name or a client in a label: %s", line)
		}
	}
}

func TestMetricTruncated(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := newServer(fixed{snapshotOf(t, large(t))}, func(s *server) { s.metrics = newMetrics(reg) })
	a := newAnswerer(s, [32]byte{})
	for _, via := range []transport{transportUDP, transportTCP, transportUDP} {
		a.handle([]byte(plain(name("z.test"), dns.TypeAAAA)), netip.MustParseAddr("192.0.2.1"), via)
	}
	if got := value(t, reg, metricTruncated); got != 2 {
		t.Errorf("%v truncated answers counted, want 2", got)
	}
}

// TestMetricSeriesAreBounded: random names and types make no series.
func TestMetricSeriesAreBounded(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := newServer(fixed{snapshotOf(t, kinds(t))}, func(s *server) { s.metrics = newMetrics(reg) })
	a := newAnswerer(s, [32]byte{})
	for i := range 3000 {
		n := name(fmt.Sprintf("n%d.z.test", i))
		if i%2 == 0 {
			n = name(fmt.Sprintf("n%d.test", i))
		}
		a.handle([]byte(header(0, 1, 0, 0, 0)+question(n, uint16(i*21), dns.ClassINET)), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), transportUDP)
	}
	if got := len(series(t, reg)); got > 20 {
		t.Errorf("%d series after random names and types", got)
	}
}

// Where every CONFIG is a zone they have no series each: they come and go.
func TestMetricsWithoutZones(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := newServer(fixed{snapshotOf(t, kinds(t))}, func(s *server) { s.metrics = newMetrics(reg) })
	a := newAnswerer(s, [32]byte{1})
	for _, n := range []string{"z.test", "x.inner.z.test"} {
		a.handle([]byte(plain(name(n), dns.TypeA)), netip.MustParseAddr("203.0.113.77"), transportUDP)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != metricQueries {
			continue
		}
		if len(f.GetMetric()) != 1 || f.GetMetric()[0].GetCounter().GetValue() != 2 {
			t.Errorf("%v", f)
		}
	}
}
