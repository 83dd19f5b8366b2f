package razor

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/upstreams"
)

// BenchmarkAnswer is the general path from a message to its answer. Names that
// are not there must cost no more than those that are.
func BenchmarkAnswer(b *testing.B) {
	deep := strings.Repeat("d.", 116) // 120 labels with the others
	lists := fixed{snapshotOf(b, func(s *upstreams.Embedded) {
		for zone, pairs := range map[string][]string{
			"routes.example.org": nil, "four.example.org": {"COUNT", "4"}, "hash.example.org": {"ANSWER", "consistent_hash"},
		} {
			zoneConfig(s, zone, pairs...)
			for _, n := range []string{"node1." + zone, "d." + deep + zone} {
				set(b, s, n+":A", numbered("198.18.0.1", 512)...)
				set(b, s, n+":AAAA", numbered("2001:db8::1", 512)...)
			}
			for i := range 1000 {
				setString(b, s, "shop"+strconv.Itoa(i)+"."+zone, "node1."+zone)
			}
		}
	})}
	edns := opt(1232, 0, 0)
	for _, r := range []struct {
		name  string
		msg   string
		rcode int
	}{
		{"A/1of512", extended(name("node1.routes.example.org"), dns.TypeA, edns), dns.RcodeSuccess},
		{"A/4of512", extended(name("node1.four.example.org"), dns.TypeA, edns), dns.RcodeSuccess},
		{"AAAA/1of512", extended(name("node1.routes.example.org"), dns.TypeAAAA, edns), dns.RcodeSuccess},
		{"A/sticky", extended(name("shop7.routes.example.org"), dns.TypeA, edns), dns.RcodeSuccess},
		{"A/120labels", extended(name("d."+deep+"routes.example.org"), dns.TypeA, edns), dns.RcodeSuccess},
		{"A/consistent_hash/ECS", extended(name("node1.hash.example.org"), dns.TypeA, opt(1232, 0, 0, subnet("203.0.113.0/24"))), dns.RcodeSuccess},
		{"NXDOMAIN", extended(name("nodeX.routes.example.org"), dns.TypeA, edns), dns.RcodeNameError},
		{"NXDOMAIN/120labels", extended(name("x."+deep+"routes.example.org"), dns.TypeA, edns), dns.RcodeNameError},
		{"NODATA", extended(name("node1.routes.example.org"), dns.TypeMX, edns), dns.RcodeSuccess},
		{"REFUSED", extended(name("node1.routes.example.net"), dns.TypeA, edns), dns.RcodeRefused},
		{"FORMERR", header(0, 2, 0, 0, 0), dns.RcodeFormatError},
	} {
		b.Run(r.name, func(b *testing.B) {
			a := newAnswerer(newServer(lists), [32]byte{})
			source := netip.MustParseAddr("192.0.2.53")
			msg := []byte(r.msg)
			out := a.answer(msg, source, transportUDP)
			if got := wellFormed(b, msg, out); got.Rcode != r.rcode {
				b.Fatal(outcome(got))
			}
			b.ReportAllocs()
			for b.Loop() {
				out = a.answer(msg, source, transportUDP)
			}
			b.ReportMetric(float64(len(out)), "octets")
		})
	}
}

// BenchmarkParse is the reading of a query alone.
func BenchmarkParse(b *testing.B) {
	for n, msg := range map[string]string{
		"plain":     plain(www, dns.TypeA),
		"EDNS/ECS":  extended(www, dns.TypeA, opt(1232, 0, 0, subnet("203.0.113.0/24"), option(dns.EDNS0COOKIE, "12345678"))),
		"120labels": plain(strings.Repeat(label("d"), 120)+"\x00", dns.TypeA),
	} {
		b.Run(n, func(b *testing.B) {
			var q query
			b.ReportAllocs()
			for b.Loop() {
				if q.parse([]byte(msg)) != verdictAnswer {
					b.Fatal("not taken")
				}
			}
		})
	}
}
