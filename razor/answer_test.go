package razor

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/upstreams"
)

// kinds writes a zone with a name of each kind.
func kinds(tb testing.TB) fill {
	return func(s *upstreams.Embedded) {
		zoneConfig(s, "z.test", "TTL", "60")
		set(tb, s, "z.test:A", "192.0.2.1")
		set(tb, s, "z.test:AAAA", "2001:db8::1")
		set(tb, s, "four.z.test:A", "192.0.2.4")
		set(tb, s, "six.z.test:AAAA", "2001:DB8:0::6")
		set(tb, s, "deep.in.the.z.test:A", "192.0.2.9")
		set(tb, s, `a\.b.z.test:A`, "192.0.2.10")
		set(tb, s, `nul\000.z.test:A`, "192.0.2.11")
		set(tb, s, "*.z.test:A", "192.0.2.12")
		setString(tb, s, "stuck.z.test", "four.z.test")
		setString(tb, s, "loose.z.test", "nowhere.test")
		set(tb, s, "skipped.z.test:A", "198.51.100.1", "198.51.100.2")
		set(tb, s, "skipped.z.test:AAAA", "2001:db8:bad::1", "2001:db8:bad::/64")
		set(tb, s, "half.z.test:A", "198.51.100.1", "192.0.2.13")
		set(tb, s, "z.test:A:SKIPLIST", "198.51.100.0/24")
		set(tb, s, "z.test:AAAA:SKIPLIST", "2001:db8:bad::/48")
		set(tb, s, "outside.test:A", "192.0.2.14")

		zoneConfig(s, "short.test", "TTL", "10")
		zoneConfig(s, "zero.test", "TTL", "0")
		set(tb, s, "zero.test:A", "192.0.2.20")
		s.HSet("bare.test:CONFIG", "SOA", soaText)
		s.HSet("other.test:CONFIG", "SOA", "m.other.test r.other.test 1 2 3 4 5", "TTL", "9")

		zoneConfig(s, "inner.z.test", "TTL", "5")
		set(tb, s, "x.inner.z.test:A", "192.0.2.30")
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, kinds(t))}))
	nodata := "NOERROR aa (" + soaOf("z.test", "30") + ")"
	nxdomain := "NXDOMAIN aa (" + soaOf("z.test", "30") + ")"
	rows := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"z.test", dns.TypeA, "NOERROR aa z.test. 60 A 192.0.2.1"},
		{"z.test", dns.TypeAAAA, "NOERROR aa z.test. 60 AAAA 2001:db8::1"},
		{"z.test", dns.TypeSOA, "NOERROR aa " + soaOf("z.test", "60")},
		{"z.test", dns.TypeNS, "NOERROR aa z.test. 60 NS ns1.example.org.; z.test. 60 NS ns2.example.org."},
		{"four.z.test", dns.TypeA, "NOERROR aa four.z.test. 60 A 192.0.2.4"},
		{"six.z.test", dns.TypeAAAA, "NOERROR aa six.z.test. 60 AAAA 2001:db8::6"},
		{"deep.in.the.z.test", dns.TypeA, "NOERROR aa deep.in.the.z.test. 60 A 192.0.2.9"},
		{"stuck.z.test", dns.TypeA, "NOERROR aa stuck.z.test. 60 A 192.0.2.4"},
		{"half.z.test", dns.TypeA, "NOERROR aa half.z.test. 60 A 192.0.2.13"},

		// The case of the query is that of the answer.
		{"FOUR.z.TEST", dns.TypeA, "NOERROR aa FOUR.z.TEST. 60 A 192.0.2.4"},
		{"sIX.Z.tesT", dns.TypeAAAA, "NOERROR aa sIX.Z.tesT. 60 AAAA 2001:db8::6"},
		{"Z.tEST", dns.TypeNS, "NOERROR aa Z.tEST. 60 NS ns1.example.org.; Z.tEST. 60 NS ns2.example.org."},
		{"nO.Z.tEST", dns.TypeA, "NXDOMAIN aa (" + soaOf("Z.tEST", "30") + ")"},

		// NODATA: another family, another type, not at the apex, nothing eligible.
		{"four.z.test", dns.TypeAAAA, nodata},
		{"six.z.test", dns.TypeA, nodata},
		{"stuck.z.test", dns.TypeAAAA, nodata},
		{"loose.z.test", dns.TypeA, nodata},
		{"four.z.test", dns.TypeSOA, nodata},
		{"four.z.test", dns.TypeNS, nodata},
		{"four.z.test", dns.TypeMX, nodata},
		{"four.z.test", dns.TypeTXT, nodata},
		{"z.test", dns.TypeTXT, nodata},
		{"z.test", dns.TypeDNSKEY, nodata},
		{"four.z.test", dns.TypeHTTPS, nodata},
		{"four.z.test", dns.TypeCNAME, nodata},
		{"skipped.z.test", dns.TypeA, nodata},
		{"skipped.z.test", dns.TypeAAAA, nodata},
		{"skipped.z.test", dns.TypeANY, nodata},

		// Empty non-terminals exist (RFC 8020).
		{"the.z.test", dns.TypeA, nodata},
		{"in.the.z.test", dns.TypeAAAA, nodata},
		{"In.The.z.test", dns.TypeANY, nodata},

		// The negative TTL is the smaller of the SOA's TTL and its minimum (RFC 2308).
		{"short.test", dns.TypeA, "NOERROR aa (" + soaOf("short.test", "10") + ")"},
		{"no.short.test", dns.TypeA, "NXDOMAIN aa (" + soaOf("short.test", "10") + ")"},
		{"short.test", dns.TypeSOA, "NOERROR aa " + soaOf("short.test", "10")},

		// A TTL of 0 is one.
		{"zero.test", dns.TypeA, "NOERROR aa zero.test. 0 A 192.0.2.20"},
		{"zero.test", dns.TypeAAAA, "NOERROR aa (" + soaOf("zero.test", "0") + ")"},

		// A CONFIG with an SOA alone, and TTL 60.
		{"bare.test", dns.TypeSOA, "NOERROR aa " + soaOf("bare.test", "60")},
		{"bare.test", dns.TypeNS, "NOERROR aa (" + soaOf("bare.test", "30") + ")"},

		// Each zone has an SOA of its own, also one written without final dots.
		{"no.other.test", dns.TypeA, "NXDOMAIN aa (other.test. 5 SOA m.other.test. r.other.test. 1 2 3 4 5)"},
		{"no.bare.test", dns.TypeA, "NXDOMAIN aa (" + soaOf("bare.test", "30") + ")"},
		{"other.test", dns.TypeSOA, "NOERROR aa other.test. 9 SOA m.other.test. r.other.test. 1 2 3 4 5"},

		// The longest zone has the name.
		{"x.inner.z.test", dns.TypeA, "NOERROR aa x.inner.z.test. 5 A 192.0.2.30"},
		{"y.inner.z.test", dns.TypeA, "NXDOMAIN aa (" + soaOf("inner.z.test", "5") + ")"},

		// ANY is answered with one RRset (RFC 8482).
		{"z.test", dns.TypeANY, "NOERROR aa z.test. 60 AAAA 2001:db8::1"},
		{"four.z.test", dns.TypeANY, "NOERROR aa four.z.test. 60 A 192.0.2.4"},
		{"short.test", dns.TypeANY, "NOERROR aa " + soaOf("short.test", "10")},
		{"no.z.test", dns.TypeANY, nxdomain},

		// Names that do not exist.
		{"no.z.test", dns.TypeA, nxdomain},
		{"no.z.test", dns.TypeSOA, nxdomain},
		{"no.z.test", 65535, nxdomain},
		{"x.four.z.test", dns.TypeA, nxdomain},
		{"x.deep.in.the.z.test", dns.TypeA, nxdomain},
		{"in.z.test", dns.TypeA, nxdomain},
		{"our.z.test", dns.TypeA, nxdomain},
		{"*.no.z.test", dns.TypeA, nxdomain},

		// An asterisk is a label like others; it stands for no other name.
		{"*.z.test", dns.TypeA, `NOERROR aa *.z.test. 60 A 192.0.2.12`},
		{"x.*.z.test", dns.TypeA, nxdomain},

		// Types of the protocol, and numbers that are no type.
		{"z.test", 0, nodata},
		{"no.z.test", 0, nxdomain},
		{"z.test", dns.TypeOPT, "FORMERR"},
		{"z.test", dns.TypeTKEY, "FORMERR"},
		{"z.test", dns.TypeTSIG, "FORMERR"},
		{"z.test", dns.TypeIXFR, "REFUSED"},
		{"z.test", dns.TypeAXFR, "REFUSED"},
		{"z.test", dns.TypeMAILB, nodata},
		{"z.test", dns.TypeMAILA, nodata},
		{"z.test", 65535, nodata},

		// Outside of the zones: no records, no referral.
		{"test", dns.TypeA, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
		{"outside.test", dns.TypeA, "REFUSED"},
		{"zz.test", dns.TypeA, "REFUSED"},
		{"z.test.org", dns.TypeA, "REFUSED"},
		{"example.com", dns.TypeANY, "REFUSED"},
	}
	for _, via := range []transport{transportUDP, transportTCP} {
		for _, r := range rows {
			if got := outcome(c.over(via).ask(r.name, r.qtype)); got != r.want {
				t.Errorf("%s %d over %s:\n got %s\nwant %s", r.name, r.qtype, transportWords[via], got, r.want)
			}
		}
	}
}

// TestAnswerOctets asks for names with octets that text cannot hold as they are.
func TestAnswerOctets(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, kinds(t))}))
	end := label("z") + label("test") + "\x00"
	soa := "(" + soaOf("z.test", "30") + ")"
	rows := []struct {
		name, want string
	}{
		{label("a.b") + end, `NOERROR aa a\.b.z.test. 60 A 192.0.2.10`},
		{label("A.B") + end, `NOERROR aa A\.B.z.test. 60 A 192.0.2.10`},
		{label("a") + label("b") + end, "NXDOMAIN aa " + soa},
		{label("nul\x00") + end, `NOERROR aa nul\000.z.test. 60 A 192.0.2.11`},
		{label("nul") + end, "NXDOMAIN aa " + soa},
		{label("\x00") + end, "NXDOMAIN aa " + soa},
		{label("z.test") + "\x00", "REFUSED"},
		{label("\xff \"\\;()@$") + end, "NXDOMAIN aa " + soa},
		// A dot inside of a label is no border: this is not four.z.test.
		{label("x") + label("four.z") + label("test") + "\x00", "REFUSED"},
		// The longest name there is, of labels as many and as long as can be.
		{strings.Repeat(label("a"), 123) + label("z") + label("test") + "\x00", "NXDOMAIN aa " + soa},
		{strings.Repeat(label(strings.Repeat("\x00", 63)), 3) + label(strings.Repeat("\xff", 54)) + end, "NXDOMAIN aa " + soa},
		{nameOf(255), "REFUSED"},
	}
	for _, r := range rows {
		if got := outcome(c.raw(plain(r.name, dns.TypeA))); got != r.want {
			t.Errorf("%q:\n got %s\nwant %s", r.name, got, r.want)
		}
	}
}

// TestAnswerRejects are the messages that are not answered from the lists.
func TestAnswerRejects(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, kinds(t))})
	z := name("z.test")
	q := question(z, dns.TypeA, dns.ClassINET)
	rows := []struct {
		name, msg, want string
		question, edns  bool
	}{
		{"a reply", header(bitQR, 1, 0, 0, 0) + q, "nothing", false, false},
		{"11 octets", header(0, 1, 0, 0, 0)[:11], "nothing", false, false},
		{"version.bind", header(0, 1, 0, 0, 0) + question(name("version.bind"), dns.TypeTXT, dns.ClassCHAOS), "REFUSED", true, false},
		{"our zone in another class", header(bitRD, 1, 0, 0, 0) + question(z, dns.TypeA, dns.ClassHESIOD), "REFUSED", true, false},
		{"class ANY", header(0, 1, 0, 0, 0) + question(z, dns.TypeA, dns.ClassANY), "REFUSED", true, false},
		{"class 0", header(0, 1, 0, 0, 0) + question(z, dns.TypeA, 0), "REFUSED", true, false},
		{"class 65535", header(0, 1, 0, 0, 0) + question(z, dns.TypeA, 65535), "REFUSED", true, false},
		{"UPDATE", header(opcode(dns.OpcodeUpdate), 1, 1, 2, 1) + question(z, dns.TypeSOA, 1) + strings.Repeat(resource(name("x.z.test"), 1, 1, "1234"), 3) + opt(1232, 0, 0), "NOTIMP", false, false},
		{"NOTIFY", header(opcode(dns.OpcodeNotify)|bitAA, 1, 1, 0, 0) + question(z, dns.TypeSOA, 1) + resource(z, 1, 1, "1234"), "NOTIMP", false, false},
		{"STATUS", header(opcode(2), 0, 0, 0, 0), "NOTIMP", false, false},
		{"opcode 15 and every flag", header(opcode(15)|bitAA|bitTC|bitRD|bitRA|bitZ|bitAD|bitCD, 1, 0, 0, 0) + q, "NOTIMP", false, false},
		{"every flag", header(bitAA|bitTC|bitRD|bitRA|bitZ|bitAD|bitCD, 1, 0, 0, 0) + question(name("no.test"), 1, 1), "REFUSED", true, false},
		{"no question", header(0, 0, 0, 0, 0), "FORMERR", false, false},
		{"two questions", header(0, 2, 0, 0, 0) + q + q, "FORMERR", false, false},
		{"two OPTs", header(0, 1, 0, 0, 2) + q + opt(1232, 0, 0) + opt(1232, 0, 0), "FORMERR", true, true},
		{"malformed client subnet", extended(z, 1, opt(1232, 0, 0, ecs(1, 33, 0, "12345"))), "FORMERR", true, true},
		{"second client subnet malformed", extended(z, 1, opt(1232, 0, 0, subnet("192.0.2.0/24"), ecs(1, 33, 0, "12345"))), "FORMERR", true, true},
		{"EDNS 1", extended(z, 1, opt(1232, 1, 0)), "BADVERS", true, true},
		{"EDNS 1 with every flag and options", extended(z, 1, opt(1232, 1, 0xffff, subnet("192.0.2.0/24"), option(65001, "x"))), "BADVERS", true, true},
		{"EDNS 255 of a name outside", extended(name("no.test"), 1, opt(1232, 255, 0)), "BADVERS", true, true},
	}
	for _, via := range []transport{transportUDP, transportTCP} {
		c := newClient(t, s).over(via)
		for _, r := range rows {
			m := c.raw(r.msg)
			if got := outcome(m); got != r.want {
				t.Errorf("%s: %s, want %s", r.name, got, r.want)
			}
			if m == nil {
				continue
			}
			if got := len(m.Question) == 1; got != r.question {
				t.Errorf("%s: question echoed is %t", r.name, got)
			}
			o := m.IsEdns0()
			if (o != nil) != r.edns {
				t.Errorf("%s: EDNS is %t", r.name, o != nil)
			}
			if o != nil && len(o.Option) > 0 {
				t.Errorf("%s: options %v", r.name, o.Option)
			}
		}
	}
}

// TestAnswerEDNS is what of a query's OPT an answer has.
func TestAnswerEDNS(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, kinds(t))}))
	for _, n := range []string{"z.test", "no.z.test", "no.test"} {
		if m := c.ask(n, dns.TypeA); m.IsEdns0() != nil {
			t.Errorf("%s: OPT without one in the query", n)
		}
		for _, do := range []int{0, optDO} {
			m := c.raw(extended(name(n), dns.TypeA, opt(1232, 0, do|0x1234, option(65001, "secret"), option(dns.EDNS0NSID, ""), option(dns.EDNS0COOKIE, "12345678"))))
			o := m.IsEdns0()
			if o == nil {
				t.Errorf("%s: no OPT", n)
				continue
			}
			if o.Do() != (do != 0) || len(o.Option) > 0 {
				t.Errorf("%s: OPT %v", n, o)
			}
		}
	}
}

func TestAnswerWithoutSnapshot(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{}))
	if got := outcome(c.ask("z.test", dns.TypeA)); got != "SERVFAIL" {
		t.Error(got)
	}
	m := c.askWith("Z.test", dns.TypeTXT, subnet("192.0.2.0/24"))
	if got := outcome(m); got != "SERVFAIL" || scopeOf(m) != 0 {
		t.Errorf("%s, scope %d", got, scopeOf(m))
	}
}

// TestConfiguredZones are the zones where the configuration names them: others
// in Redis are none.
func TestConfiguredZones(t *testing.T) {
	t.Parallel()
	c := newClient(t, newServer(fixed{snapshotOf(t, kinds(t), "Z.test.")}))
	for n, want := range map[string]string{
		"four.z.test":    "NOERROR aa four.z.test. 60 A 192.0.2.4",
		"x.inner.z.test": "NOERROR aa x.inner.z.test. 60 A 192.0.2.30",
		"zero.test":      "REFUSED",
	} {
		if got := outcome(c.ask(n, dns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", n, got, want)
		}
	}
}

// TestCount is the number of addresses in an answer.
func TestCount(t *testing.T) {
	t.Parallel()
	pool := numbered("192.0.2.1", 8)
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		zoneConfig(s, "three.test", "COUNT", "3")
		set(t, s, "three.test:A", pool...)
		set(t, s, "two.three.test:A", pool...)
		s.HSet("two.three.test:CONFIG", "COUNT", "2")
		set(t, s, "few.three.test:A", pool[:2]...)
		set(t, s, "wide.three.test:AAAA", "2001:db8::/64")
		setString(t, s, "stuck.three.test", "two.three.test")
		zoneConfig(s, "all.test", "COUNT", "255")
		set(t, s, "all.test:A", pool...)
		zoneConfig(s, "one.test")
		set(t, s, "one.test:A", pool...)
	})}))
	for _, r := range []struct {
		name  string
		qtype uint16
		want  int
	}{
		{"three.test", dns.TypeA, 3},
		{"two.three.test", dns.TypeA, 2},
		{"few.three.test", dns.TypeA, 2},
		{"wide.three.test", dns.TypeAAAA, 3},
		{"stuck.three.test", dns.TypeA, 2},
		{"all.test", dns.TypeA, 8},
		{"one.test", dns.TypeA, 1},
	} {
		seen := map[string]bool{}
		for range 200 {
			m := c.ask(r.name, r.qtype)
			a := addresses(m)
			if len(a) != r.want || len(m.Answer) != r.want {
				t.Fatalf("%s: %s, want %d addresses", r.name, outcome(m), r.want)
			}
			for i, addr := range a {
				if i > 0 && addr == a[i-1] {
					t.Errorf("%s: %s twice", r.name, addr)
				}
				seen[addr] = true
			}
		}
		if r.qtype == dns.TypeA && r.name != "few.three.test" && len(seen) != len(pool) {
			t.Errorf("%s: only %d of %d addresses ever came", r.name, len(seen), len(pool))
		}
	}
}

// TestTruncation: what does not fit is left out whole, and comes over TCP.
func TestTruncation(t *testing.T) {
	t.Parallel()
	const zone = "random.test"
	// Header, question, OPT and n addresses of 16 octets: names of such lengths
	// that an answer fits exactly, or not by one octet.
	counts := map[string]int{
		"bi": 30, "big": 30, // 512 and 513 octets without EDNS
		"abcdefg": 29, "abcdefgh": 29, // 512 and 513 with EDNS
		"longers": 74, "longerss": 74, // 1232 and 1233 with EDNS
		"huge": 255,
	}
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		zoneConfig(s, zone)
		for n, count := range counts {
			set(t, s, n+"."+zone+":A", numbered("198.18.0.1", 300)...)
			set(t, s, n+"."+zone+":AAAA", numbered("2001:db8::1", 300)...)
			s.HSet(n+"."+zone+":CONFIG", "COUNT", strconv.Itoa(count))
		}
	})}))
	rows := []struct {
		name  string
		qtype uint16
		size  int // of the query's OPT, -1 without one
		whole bool
	}{
		{"bi", dns.TypeA, -1, true},
		{"big", dns.TypeA, -1, false},
		{"big", dns.TypeA, 1232, true},
		{"abcdefg", dns.TypeA, 512, true},
		{"abcdefgh", dns.TypeA, 512, false},
		{"abcdefgh", dns.TypeA, 513, true},
		// Less than 512 counts as 512 (RFC 6891 §6.2.3).
		{"abcdefg", dns.TypeA, 0, true},
		{"abcdefg", dns.TypeA, 511, true},
		{"abcdefgh", dns.TypeA, 0, false},
		{"abcdefgh", dns.TypeA, 100, false},
		// More than 1232 is not used (RFC 9715).
		{"longers", dns.TypeA, 1232, true},
		{"longers", dns.TypeA, 1231, false},
		{"longers", dns.TypeA, 4096, true},
		{"longerss", dns.TypeA, 1232, false},
		{"longerss", dns.TypeA, 1233, false},
		{"longerss", dns.TypeA, 4096, false},
		{"longerss", dns.TypeA, 65535, false},
		{"huge", dns.TypeA, 65535, false},
		{"huge", dns.TypeAAAA, 65535, false},
		{"huge", dns.TypeAAAA, -1, false},
	}
	for _, r := range rows {
		n := r.name + "." + zone
		msg := plain(name(n), r.qtype)
		limit := plainUDP
		if r.size >= 0 {
			msg = extended(name(n), r.qtype, opt(r.size, 0, optDO))
			limit = min(max(r.size, plainUDP), ednsSize)
		}
		what := fmt.Sprintf("%s %s with size %d", r.name, dns.TypeToString[r.qtype], r.size)
		m := c.raw(msg)
		if m.Truncated == r.whole || m.Rcode != dns.RcodeSuccess || !m.Authoritative {
			t.Errorf("%s: truncated is %t, want %t: %s", what, m.Truncated, !r.whole, outcome(m))
		}
		if n := len(c.answerer.answer([]byte(msg), c.source, transportUDP)); n > limit {
			t.Errorf("%s: %d octets", what, n)
		}
		if (m.IsEdns0() != nil) != (r.size >= 0) {
			t.Errorf("%s: OPT is %t", what, m.IsEdns0() != nil)
		}
		if r.whole && len(m.Answer) != counts[r.name] {
			t.Errorf("%s: %d addresses, want %d", what, len(m.Answer), counts[r.name])
		}
		over := c.over(transportTCP).raw(msg)
		if over.Truncated || len(over.Answer) != counts[r.name] {
			t.Errorf("%s over TCP: truncated is %t, %d addresses, want %d", what, over.Truncated, len(over.Answer), counts[r.name])
		}
	}
}

// TestTruncatedDenial: a negative answer without its SOA is not one.
func TestTruncatedDenial(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("m", 60) + "."
	long = strings.Repeat(long, 4)
	c := newClient(t, newServer(fixed{snapshotOf(t, func(s *upstreams.Embedded) {
		s.HSet("z.test:CONFIG", "SOA", "a."+long+" b.x"+long+" 1 2 3 4 5")
	})}))
	n := strings.Repeat(label("q"), 120) + name("z.test")
	if got := outcome(c.raw(plain(n, dns.TypeA))); got != "NXDOMAIN aa tc" {
		t.Errorf("over UDP: %s", got)
	}
	m := c.over(transportTCP).raw(plain(n, dns.TypeA))
	if m.Truncated || len(m.Ns) != 1 {
		t.Errorf("over TCP: %s", outcome(m))
	}
	if m := c.raw(extended(n, dns.TypeA, opt(4096, 0, 0))); m.Truncated || len(m.Ns) != 1 {
		t.Errorf("with EDNS: %s", outcome(m))
	}
}
