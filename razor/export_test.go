package razor

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

// exported writes lists of each kind, and a zone of its own for an export below
// z.lists.test.
func exported(tb testing.TB) fill {
	return func(s *upstreams.Embedded) {
		zoneConfig(s, "routes.test")
		set(tb, s, "web.example.org:UPSTREAMS", "192.0.2.1:8080", "[2001:db8::a]:8080 weight=5 site=east", "[2001:db8::a]:8081", "192.0.2.2:80 weight=0", "[2001:db8::b]:80 weight=0")
		set(tb, s, "four.example.org:UPSTREAMS", "192.0.2.3:80")
		set(tb, s, "idle:UPSTREAMS", "192.0.2.9:80 weight=0")
		set(tb, s, "edges:UPSTREAMS", "[::1]:80", "[2001:db8::]:80", "[::]:80")
		set(tb, s, "heavy:UPSTREAMS", "192.0.2.1:80 weight=65535", "192.0.2.2:80 weight=6553", "192.0.2.3:80")
		set(tb, s, "bad:UPSTREAMS", "backend1:80")
		// Names that are two things at once, and names in the way.
		set(tb, s, "_tcp.web.example.org:UPSTREAMS", "192.0.2.40:80")
		set(tb, s, "192-0-2-3.four.example.org:UPSTREAMS", "192.0.2.41:80")
		set(tb, s, "pool.lists.test:A", "192.0.2.42")
		zoneConfig(s, "test")
		s.HSet("z.lists.test:CONFIG", "SOA", "m.test r.test 1 2 3 4 7", "NS", "m.test", "TTL", "9")
		zoneConfig(s, "inner.lists.test")
	}
}

// exporting exports to everybody, records in the order of the list.
func exporting(zone string) func(*server) {
	return func(s *server) {
		s.export = newExport(Config{Export: zone, ExportClients: []string{"0.0.0.0/0", "::/0"}}, "")
		s.export.begin = 0
	}
}

type exportQuery struct {
	name  string // wire form
	qtype uint16
}

// exportQueries are the questions of proxies, in the tests' zones.
func exportQueries() []exportQuery {
	var out []exportQuery
	for _, n := range []string{"_http._tcp.web.example.org", "_tcp.web.example.org", "web.example.org", "2001-db8--a.web.example.org", "192-0-2-1.web.example.org", "example.org", "nobody"} {
		for i, t := range []uint16{dns.TypeSRV, dns.TypeA, dns.TypeAAAA, dns.TypeANY} {
			out = append(out, exportQuery{name(n + []string{".lists.test", ".z.lists.test"}[i%2]), t})
		}
	}
	return append(out, exportQuery{name("lists.test"), dns.TypeSOA}, exportQuery{name("lists.test"), dns.TypeNS})
}

// builtinSOA is the SOA of an export without CONFIG.
const builtinSOA = "lists.test. 5 SOA lists.test. nobody.invalid. 1 3600 1200 604800 5"

func TestExport(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, exported(t))}, exporting("lists.test")))
	const nodata, nxdomain = "NOERROR aa (" + builtinSOA + ")", "NXDOMAIN aa (" + builtinSOA + ")"
	srv := func(app string, records ...string) string {
		for i, r := range records {
			records[i] = "_http._tcp." + app + ".lists.test. 5 SRV 0 " + r + "." + app + ".lists.test."
		}
		slices.Sort(records)
		return "NOERROR aa " + strings.Join(records, "; ")
	}
	rows := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"_http._tcp.web.example.org", dns.TypeSRV, srv("web.example.org", "255 8080 192-0-2-1", "1279 8080 2001-db8--a", "255 8081 2001-db8--a")},
		{"_http._tcp.four.example.org", dns.TypeSRV, srv("four.example.org", "255 80 192-0-2-3")},
		{"_http._tcp.four.example.org", dns.TypeANY, srv("four.example.org", "255 80 192-0-2-3")},
		{"_http._tcp.edges", dns.TypeSRV, srv("edges", "255 80 0--0", "255 80 0--1", "255 80 2001-db8--0")},
		{"_http._tcp.heavy", dns.TypeSRV, srv("heavy", "65535 80 192-0-2-1", "6552 80 192-0-2-2", "1 80 192-0-2-3")},
		{"_http._tcp.idle", dns.TypeSRV, nodata},
		{"_http._tcp.four.example.org", dns.TypeA, nodata},
		{"_http._tcp.four.example.org", dns.TypeSOA, nodata},

		{"web.example.org", dns.TypeA, "NOERROR aa web.example.org.lists.test. 5 A 192.0.2.1"},
		{"web.example.org", dns.TypeAAAA, "NOERROR aa web.example.org.lists.test. 5 AAAA 2001:db8::a"},
		{"web.example.org", dns.TypeANY, "NOERROR aa web.example.org.lists.test. 5 AAAA 2001:db8::a"},
		{"four.example.org", dns.TypeANY, "NOERROR aa four.example.org.lists.test. 5 A 192.0.2.3"},
		{"four.example.org", dns.TypeAAAA, nodata},
		{"four.example.org", dns.TypeSRV, nodata},
		{"four.example.org", dns.TypeNS, nodata},
		{"idle", dns.TypeA, nodata},

		// A target is there with its endpoint, also one that takes no new flows.
		{"192-0-2-1.web.example.org", dns.TypeA, "NOERROR aa 192-0-2-1.web.example.org.lists.test. 5 A 192.0.2.1"},
		{"192-0-2-1.web.example.org", dns.TypeANY, "NOERROR aa 192-0-2-1.web.example.org.lists.test. 5 A 192.0.2.1"},
		{"192-0-2-1.web.example.org", dns.TypeAAAA, nodata},
		{"2001-db8--a.web.example.org", dns.TypeAAAA, "NOERROR aa 2001-db8--a.web.example.org.lists.test. 5 AAAA 2001:db8::a"},
		{"2001-DB8--A.web.example.org", dns.TypeAAAA, "NOERROR aa 2001-DB8--A.web.example.org.lists.test. 5 AAAA 2001:db8::a"},
		{"2001-db8--b.web.example.org", dns.TypeAAAA, "NOERROR aa 2001-db8--b.web.example.org.lists.test. 5 AAAA 2001:db8::b"},
		{"0--0.edges", dns.TypeAAAA, "NOERROR aa 0--0.edges.lists.test. 5 AAAA ::"},
		{"2001-db8--0.edges", dns.TypeAAAA, "NOERROR aa 2001-db8--0.edges.lists.test. 5 AAAA 2001:db8::"},
		{"192-0-2-1.four.example.org", dns.TypeA, nxdomain},
		{"2001-db8--c.web.example.org", dns.TypeAAAA, nxdomain},
		// Other spellings of an address are other names.
		{"--1.edges", dns.TypeAAAA, nxdomain},
		{"0-0-0-0-0-0-0-1.edges", dns.TypeAAAA, nxdomain},
		{"2001-0db8--a.web.example.org", dns.TypeAAAA, nxdomain},
		{"192-0-2-01.web.example.org", dns.TypeA, nxdomain},
		{"-.web.example.org", dns.TypeA, nxdomain},

		// Empty non-terminals (RFC 8020).
		{"_tcp.four.example.org", dns.TypeSRV, nodata},
		{"_tcp.four.example.org", dns.TypeA, nodata},
		{"example.org", dns.TypeA, nodata},
		{"ORG", dns.TypeAAAA, nodata},

		{"nobody.example.org", dns.TypeA, nxdomain},
		{"_http._tcp.nobody.example.org", dns.TypeSRV, nxdomain},
		{"_https._tcp.four.example.org", dns.TypeSRV, nxdomain},
		{"_http._udp.four.example.org", dns.TypeSRV, nxdomain},
		{"_http.four.example.org", dns.TypeSRV, nxdomain},
		{"_http._tcp.example.org", dns.TypeSRV, nxdomain},
		{"_http._tcp", dns.TypeSRV, nxdomain},
		{"_tcp", dns.TypeSRV, nxdomain},
		{"x._http._tcp.four.example.org", dns.TypeSRV, nxdomain},
		{"_http._tcp.bad", dns.TypeSRV, nxdomain},
		{"pool", dns.TypeA, nxdomain},
		{"inner", dns.TypeSOA, nxdomain},

		// An application is before what else has its name.
		{"_tcp.web.example.org", dns.TypeA, "NOERROR aa _tcp.web.example.org.lists.test. 5 A 192.0.2.40"},
		{"192-0-2-3.four.example.org", dns.TypeA, "NOERROR aa 192-0-2-3.four.example.org.lists.test. 5 A 192.0.2.41"},

		// The case of the query is that of the answer.
		{"_HTTP._tcp.Four.Example.org", dns.TypeSRV, "NOERROR aa _HTTP._tcp.Four.Example.org.lists.test. 5 SRV 0 255 80 192-0-2-3.Four.Example.org.lists.test."},
	}
	for _, via := range []transport{transportUDP, transportTCP} {
		for _, r := range rows {
			if got := outcome(c.over(via).ask(r.name+".lists.test", r.qtype)); got != r.want {
				t.Errorf("%s %d over %s:\n got %s\nwant %s", r.name, r.qtype, transportWords[via], got, r.want)
			}
		}
	}
	for _, r := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"lists.test", dns.TypeSOA, "NOERROR aa " + builtinSOA},
		{"lists.test", dns.TypeNS, "NOERROR aa lists.test. 5 NS lists.test."},
		{"lists.test", dns.TypeANY, "NOERROR aa " + builtinSOA},
		{"lists.test", dns.TypeA, nodata},
		{"lists.test", dns.TypeAXFR, "REFUSED"},
		{"test", dns.TypeSOA, "NOERROR aa " + soaOf("test", "60")},
		{"xlists.test", dns.TypeA, "NXDOMAIN aa (" + soaOf("test", "30") + ")"},
		{"web.example.org", dns.TypeA, "REFUSED"},
	} {
		if got := outcome(c.ask(r.name, r.qtype)); got != r.want {
			t.Errorf("%s %d:\n got %s\nwant %s", r.name, r.qtype, got, r.want)
		}
	}
	// The octets of the zone across labels are another name.
	if got := outcome(c.raw(plain(label("x\x05lists")+name("test"), dns.TypeA))); got != "NXDOMAIN aa ("+soaOf("test", "30")+")" {
		t.Error(got)
	}
}

// TestExportConfig takes SOA, NS and TTL from Redis where they are there.
func TestExportConfig(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, exported(t), "routes.test", "z.lists.test")}, exporting("Z.lists.test.")))
	for n, want := range map[string]string{
		"z.lists.test":                  "NOERROR aa (z.lists.test. 7 SOA m.test. r.test. 1 2 3 4 7)",
		"four.example.org.z.lists.test": "NOERROR aa four.example.org.z.lists.test. 9 A 192.0.2.3",
		"nobody.z.lists.test":           "NXDOMAIN aa (z.lists.test. 7 SOA m.test. r.test. 1 2 3 4 7)",
	} {
		if got := outcome(c.ask(n, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", n, got, want)
		}
	}
	if got := outcome(c.ask("z.lists.test", dns.TypeNS)); got != "NOERROR aa z.lists.test. 9 NS m.test." {
		t.Error(got)
	}
}

// TestExportClients: the lists are not for everybody.
func TestExportClients(t *testing.T) {
	t.Parallel()
	var cfg Config
	cfg.Defaults()
	lists := fixed{snapshotOf(t, exported(t))}
	for source, want := range map[string]string{
		"127.0.0.1": "NOERROR", "127.1.2.3": "NOERROR", "::1": "NOERROR", "::ffff:127.0.0.1": "NOERROR",
		"192.0.2.1": "REFUSED", "10.0.0.1": "REFUSED", "2001:db8::1": "REFUSED", "::": "REFUSED",
	} {
		c := newClient(t, newServer(lists, func(s *server) {
			s.export = newExport(Config{Export: "lists.test", ExportClients: cfg.ExportClients}, "")
		})).from(source)
		for _, n := range []string{"lists.test", "web.example.org.lists.test"} {
			if got := strings.Fields(outcome(c.ask(n, dns.TypeANY)))[0]; got != want {
				t.Errorf("%s from %s: %s, want %s", n, source, got, want)
			}
		}
		if got := strings.Fields(outcome(c.ask("nobody.lists.test", dns.TypeANY)))[0]; got == "NOERROR" || (got == "REFUSED") != (want == "REFUSED") {
			t.Errorf("an unknown name from %s: %s", source, got)
		}
	}
	c := newClient(t, newServer(lists, func(s *server) {
		s.export = newExport(Config{Export: "lists.test", ExportClients: []string{"fe80::/10"}}, "")
	}))
	if got := outcome(c.from("fe80::1%lo").ask("four.example.org.lists.test", dns.TypeA)); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("from a link-local address: %s", got)
	}
}

// TestExportNotReady: lists that are empty as nothing was ever read are no lists.
func TestExportNotReady(t *testing.T) {
	t.Parallel()
	for what, lists := range map[string]lists{"no snapshot": fixed{}, "nothing": fixed{&upstreams.Snapshot{}}} {
		c := newClient(t, newServer(lists, exporting("lists.test")))
		if got := outcome(c.ask("web.example.org.lists.test", dns.TypeA)); got != "SERVFAIL" {
			t.Errorf("%s: %s", what, got)
		}
	}
}

// TestExportAlone: no zone is needed in Redis.
func TestExportAlone(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) { set(t, s, "shop:UPSTREAMS", "192.0.2.1:80") })}, exporting("lists.test")))
	if got := outcome(c.ask("shop.lists.test", dns.TypeA)); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("an application: %s", got)
	}
	if got := outcome(c.ask("nobody.lists.test", dns.TypeA)); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Errorf("another name: %s", got)
	}
}

// TestExportHints: the additional section has the address of each target once, as
// many as fit, and never truncates.
func TestExportHints(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		exported(t)(s)
		for i, a := range numbered("2001:db8::1", 20) {
			set(t, s, "many:UPSTREAMS", "["+a+"]:80", "["+a+"]:"+strconv.Itoa(1000+i))
		}
	})}, exporting("lists.test")))
	extra := func(m *dns.Msg) (out []string) {
		for _, rr := range m.Extra {
			if rr.Header().Rrtype != dns.TypeOPT {
				out = append(out, strings.Join(slices.Delete(strings.Fields(rr.String()), 2, 3), " "))
			}
		}
		return out
	}
	got := extra(c.ask("_http._TCP.Web.example.org.lists.test", dns.TypeSRV))
	if want := []string{"192-0-2-1.Web.example.org.lists.test. 5 A 192.0.2.1", "2001-db8--a.Web.example.org.lists.test. 5 AAAA 2001:db8::a"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, r := range []struct {
		via  transport
		size int
		tc   bool
		srv  int
	}{
		{transportUDP, 512, true, 0},
		{transportUDP, 1232, true, 0},
		{transportTCP, 512, false, 40},
	} {
		m := c.over(r.via).raw(extended(name("_http._tcp.many.lists.test"), dns.TypeSRV, opt(r.size, 0, 0)))
		if m.Truncated != r.tc || len(m.Answer) != r.srv || len(extra(m)) != r.srv/2 {
			t.Errorf("size %d: tc %t, %d answers, %d hints", r.size, m.Truncated, len(m.Answer), len(extra(m)))
		}
	}
	// The records fit, and not all addresses.
	m := c.raw(extended(name("_http._tcp.web.example.org.lists.test"), dns.TypeSRV, opt(512, 0, 0)))
	if m.Truncated || len(m.Answer) != 3 || len(extra(m)) != 2 {
		t.Errorf("%v", m)
	}
	some := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		zoneConfig(s, "routes.test")
		for _, a := range numbered("2001:db8::1", 7) {
			set(t, s, "some:UPSTREAMS", "["+a+"]:80")
		}
	})}, exporting("lists.test"))).raw(plain(name("_http._tcp.some.lists.test"), dns.TypeSRV))
	if some.Truncated || len(some.Answer) != 7 || len(extra(some)) == 0 || len(extra(some)) == 7 {
		t.Errorf("%v", some)
	}
}

// TestExportLarge: a thousand endpoints come over TCP, and of more than fit the
// host's own part.
func TestExportLarge(t *testing.T) {
	t.Parallel()
	const app = "web.example.org"
	for _, r := range []struct {
		name, first string
		n           int
		cut         bool // the SRV records
	}{
		{"a thousand, IPv6", "2001:db8::1", 1000, false},
		{"a thousand, IPv4", "198.18.0.1", 1000, false},
		{"more than fit", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1", 3000, true},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			list := numbered(r.first, r.n)
			reg := prometheus.NewRegistry()
			s := newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
				zoneConfig(s, "routes.test")
				var members []string
				for _, a := range list {
					members = append(members, netip.AddrPortFrom(netip.MustParseAddr(a), 80).String())
				}
				set(t, s, app+":UPSTREAMS", members...)
			})}, exporting("lists.internal"), func(s *server) { s.metrics = newMetrics(reg) })
			ask := func(via transport) *dns.Msg {
				return newClient(t, s).over(via).raw(extended(name("_http._tcp."+app+".lists.internal"), dns.TypeSRV, opt(65535, 0, 0)))
			}
			if m := ask(transportUDP); !m.Truncated {
				t.Errorf("%d records over UDP", len(m.Answer))
			}
			seen := map[string]bool{}
			for i := range 4 {
				s.export.begin = uint32(i) << 30
				first, second := ask(transportTCP), ask(transportTCP)
				if first.Truncated || (len(first.Answer) < r.n) != r.cut {
					t.Fatalf("tc %t, %d of %d records", first.Truncated, len(first.Answer), r.n)
				}
				if outcome(first) != outcome(second) {
					t.Error("another part of the list when asked again")
				}
				for target := range targetsOf(first) {
					seen[target] = true
				}
				if len(targetsOf(first)) != len(first.Answer) {
					t.Error("an endpoint twice")
				}
			}
			if !r.cut && len(seen) != r.n {
				t.Errorf("%d targets of %d", len(seen), r.n)
			}
			want := 0.0
			if r.cut {
				want = 8
			}
			if got := value(t, reg, metricCut); got != want {
				t.Errorf("%v answers counted as cut, want %v", got, want)
			}
		})
	}
}

// TestExportAddresses draws every address once, wherever the records begin.
func TestExportAddresses(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		zoneConfig(s, "routes.test")
		for port := 1; port <= 3; port++ {
			set(t, s, "app:UPSTREAMS", fmt.Sprintf("192.0.2.1:%d", port), fmt.Sprintf("192.0.2.2:%d", port), fmt.Sprintf("[2001:db8::1]:%d", port))
		}
	})}, exporting("lists.test"))
	orders := map[string]bool{}
	for i := range 16 {
		s.export.begin = uint32(i) << 28
		m := newClient(t, s).ask("app.lists.test", dns.TypeA)
		if got := addresses(m); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
			t.Errorf("%q", got)
		}
		orders[m.Answer[0].String()] = true
	}
	if len(orders) != 2 {
		t.Errorf("records always begin with %v", orders)
	}
}

// TestExportLongNames: an application whose targets might have no names has no
// SRV records, and addresses as long as there is a name for them.
func TestExportLongNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 63) + "." + strings.Repeat("y", 63) + "."
	fits, tooLong := long+strings.Repeat("z", 63)+".aaaaaa", long+strings.Repeat("z", 63)+".aaaaaaa" // 215 and 216 octets with the zone
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		zoneConfig(s, "routes.test")
		for _, app := range []string{fits, tooLong} {
			set(t, s, app+":UPSTREAMS", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:80")
		}
	})}, exporting("lists.internal"))).over(transportTCP)
	for app, records := range map[string]int{fits: 1, tooLong: 0} {
		if m := c.ask("_http._tcp."+app+".lists.internal", dns.TypeSRV); m.Rcode != dns.RcodeSuccess || len(m.Answer) != records {
			t.Errorf("name of %d octets: %d records, want %d", len(app), len(m.Answer), records)
		}
		if m := c.ask(app+".lists.internal", dns.TypeAAAA); len(m.Answer) != 1 {
			t.Errorf("name of %d octets: %s", len(app), outcome(m))
		}
	}
}

// TestSRVWeight: HAProxy gets the weights of the list, others the ratios.
func TestSRVWeight(t *testing.T) {
	t.Parallel()
	for w := 1; w <= 256; w++ {
		srv := srvWeight(uint16(w), 256)
		if haproxy := int(srv)/256 + 1; haproxy != w {
			t.Errorf("weight %d is %d in SRV, %d in HAProxy", w, srv, haproxy)
		}
	}
	for _, r := range []struct{ weight, top, want uint16 }{
		{65535, 65535, 65535}, {1, 65535, 1}, {2, 65535, 1}, {32768, 65535, 32767}, {1000, 1000, 65535}, {500, 1000, 32767}, {257, 257, 65535},
	} {
		if got := srvWeight(r.weight, r.top); got != r.want {
			t.Errorf("%d of %d: %d, want %d", r.weight, r.top, got, r.want)
		}
	}
}

func FuzzTarget(f *testing.F) {
	for _, s := range []string{"192-0-2-1", "2001-db8--a", "0--0", "0--1", "--1", "1--", "0--ffff-192-0-2-1", "fe80--1%lo", "1-2-3-4-5-6-7-8", "64-ff9b--192.0.2.1", "-", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := parseTarget(text)
		if !ok {
			return
		}
		wire := appendTarget(nil, a)
		if string(wire[1:]) != text || int(wire[0]) != len(text) {
			t.Errorf("%q is %v, written %q", text, a, wire)
		}
	})
}
