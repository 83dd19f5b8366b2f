package razor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// parsed is what a message says, for comparison.
type parsed struct {
	opcode  int
	rd      bool
	asked   bool
	name    string // wire form, in the query's case
	lower   string
	qtype   uint16
	qclass  int
	edns    bool
	version int
	udpSize int
	do      bool
	ecs     bool
}

func parsedOf(q *query) parsed {
	p := parsed{
		opcode: int(q.opcode), rd: q.rd, asked: q.asked, qtype: q.qtype, qclass: int(q.qclass),
		edns: q.edns, version: int(q.version), udpSize: int(q.udpSize), do: q.do, ecs: q.hasECS,
	}
	if q.asked {
		p.name, p.lower = string(q.name), string(q.lower)
	} else {
		p.qtype, p.qclass = 0, 0
	}
	return p
}

// asks is the beginning of what a query for a name in lower case says.
func asks(n string, qtype uint16) parsed {
	return parsed{asked: true, name: n, lower: n, qtype: qtype, qclass: dns.ClassINET}
}

// with is p changed.
func (p parsed) with(change func(*parsed)) parsed {
	change(&p)
	return p
}

// queryFixture is a message and what has to be made of it.
type queryFixture struct {
	name    string
	msg     string
	verdict verdict
	want    parsed
	// loose says that what is read before the fault is of no matter.
	loose bool
}

var www = name("www.example.org")

// answered are the fixtures that are taken.
func answered() []queryFixture {
	a := asks(www, dns.TypeA)
	rd := a.with(func(p *parsed) { p.rd = true })
	edns := a.with(func(p *parsed) { p.edns, p.udpSize = true, 1232 })
	long := nameOf(255)
	// Each record's name is a pointer more than the one before.
	chain := header(0, 1, 0, 0, 100) + question(www, dns.TypeA, dns.ClassINET)
	for to := headerLen; strings.Count(chain, "\xff\xf0") < 100; {
		at := len(chain)
		chain += resource(label("a")+pointer(to), 0xfff0, 1, "")
		to = at
		if strings.Count(chain, "\xff\xf0")%50 == 0 {
			to = headerLen
		}
	}
	return []queryFixture{
		{name: "A", msg: plain(www, dns.TypeA), want: rd},
		{name: "AAAA", msg: plain(www, dns.TypeAAAA), want: rd.with(func(p *parsed) { p.qtype = dns.TypeAAAA })},
		{name: "no RD", msg: header(0, 1, 0, 0, 0) + question(www, dns.TypeA, 1), want: a},
		{name: "every other flag", msg: header(bitAA|bitTC|bitRA|bitZ|bitAD|bitCD|0xf, 1, 0, 0, 0) + question(www, dns.TypeA, 1), want: a},
		{name: "mixed case", msg: plain(name("wWw.eXAMPLE.oRG"), dns.TypeA), want: rd.with(func(p *parsed) { p.name = name("wWw.eXAMPLE.oRG") })},
		{name: "octets beside the letters keep", msg: plain(labels("@AZ[`az{\xc1"), dns.TypeA), want: rd.with(func(p *parsed) {
			p.name, p.lower = labels("@AZ[`az{\xc1"), labels("@az[`az{\xc1")
		})},
		{name: "NUL and dots in labels", msg: plain(labels("\x00", "a.b", "\\"), dns.TypeA), want: rd.with(func(p *parsed) {
			p.name = labels("\x00", "a.b", "\\")
			p.lower = p.name
		})},
		{name: "root", msg: plain(name("."), dns.TypeNS), want: asks("\x00", dns.TypeNS).with(func(p *parsed) { p.rd = true })},
		{name: "label of 63", msg: plain(labels(strings.Repeat("x", 63)), dns.TypeA), want: asks(labels(strings.Repeat("x", 63)), dns.TypeA).with(func(p *parsed) { p.rd = true })},
		{name: "name of 255", msg: plain(long, dns.TypeA), want: asks(long, dns.TypeA).with(func(p *parsed) { p.rd = true })},
		{name: "127 labels", msg: plain(strings.Repeat(label("a"), 127)+"\x00", dns.TypeA), want: asks(strings.Repeat(label("a"), 127)+"\x00", dns.TypeA).with(func(p *parsed) { p.rd = true })},
		{name: "type 0", msg: plain(www, 0), want: rd.with(func(p *parsed) { p.qtype = 0 })},
		{name: "type 65535, class 65535", msg: header(bitRD, 1, 0, 0, 0) + question(www, 65535, 65535), want: rd.with(func(p *parsed) { p.qtype, p.qclass = 65535, 65535 })},
		{name: "class CH", msg: header(bitRD, 1, 0, 0, 0) + question(name("version.bind"), dns.TypeTXT, dns.ClassCHAOS), want: asks(name("version.bind"), dns.TypeTXT).with(func(p *parsed) {
			p.rd, p.qclass = true, dns.ClassCHAOS
		})},
		{name: "EDNS", msg: extended(www, dns.TypeA, opt(1232, 0, 0)), want: edns},
		{name: "EDNS of size 0", msg: extended(www, dns.TypeA, opt(0, 0, 0)), want: edns.with(func(p *parsed) { p.udpSize = 0 })},
		{name: "DO", msg: extended(www, dns.TypeA, opt(4096, 0, optDO)), want: edns.with(func(p *parsed) { p.udpSize, p.do = 4096, true })},
		{name: "unknown EDNS flags", msg: extended(www, dns.TypeA, opt(1232, 0, 0x7fff)), want: edns},
		{name: "unknown options", msg: extended(www, dns.TypeA, opt(1232, 0, 0, option(65001, "x"), option(0, ""), option(65535, strings.Repeat("y", 300)))), want: edns},
		{name: "cookie and padding", msg: extended(www, dns.TypeA, opt(1232, 0, 0, option(dns.EDNS0COOKIE, "12345678"), option(dns.EDNS0PADDING, strings.Repeat("\x00", 40)))), want: edns},
		{name: "client subnet", msg: extended(www, dns.TypeA, opt(1232, 0, 0, ecs(1, 24, 0, "\xc0\x00\x02"))), want: edns.with(func(p *parsed) { p.ecs = true })},
		{name: "client subnet between others", msg: extended(www, dns.TypeA, opt(1232, 0, 0, option(10, "12345678"), ecs(2, 0, 0, ""), option(12, ""))), want: edns.with(func(p *parsed) { p.ecs = true })},
		{name: "extended rcode is ignored", msg: extended(www, dns.TypeA, "\x00"+u16(41, 1232)+"\xff\x00"+u16(0, 0)), want: edns},
		{name: "OPT behind another record", msg: header(0, 1, 0, 0, 2) + question(www, dns.TypeA, 1) + resource(pointer(headerLen), dns.TypeA, 1, "1234") + opt(1232, 0, 0), want: edns},
		{name: "records in every section", msg: header(0, 1, 1, 1, 2) + question(www, dns.TypeA, 1) +
			resource(name("."), dns.TypeA, 1, "1234") + resource(pointer(headerLen+4), dns.TypeA, 1, "1234") + opt(1232, 0, 0) + resource(label("x")+pointer(headerLen), 65280, 1, "z"), want: edns},
		{name: "chain of pointers backwards", msg: chain, want: a},
		{name: "as many pointers as a name can use", msg: pointers(126), want: a},
	}
}

// pointers is a query with an additional record whose name goes over n pointers.
func pointers(n int) string {
	var chain strings.Builder
	msg := header(0, 1, 0, 0, 2) + question(www, dns.TypeA, 1)
	at := len(msg) + 1 + rrFixed // the first record's data
	chain.WriteString(pointer(headerLen))
	for i := range n - 2 {
		chain.WriteString(pointer(at + 2*i))
	}
	return msg + resource(name("."), 65280, 1, chain.String()) + resource(pointer(at+2*(n-2)), 65280, 1, "")
}

// refused are the fixtures that are not answered from the lists.
func refused() []queryFixture {
	q := question(www, dns.TypeA, 1)
	a := asks(www, dns.TypeA)
	none := parsed{}
	rows := []queryFixture{
		// Silence: no query, or a reply.
		{name: "nothing", msg: "", verdict: verdictDrop, loose: true},
		{name: "one octet", msg: "\x12", verdict: verdictDrop, loose: true},
		{name: "11 octets", msg: header(0, 1, 0, 0, 0)[:11], verdict: verdictDrop, loose: true},
		{name: "a reply", msg: header(bitQR, 1, 0, 0, 0) + q, verdict: verdictDrop, loose: true},
		{name: "a reply that is malformed", msg: header(bitQR, 7, 0, 0, 0), verdict: verdictDrop, loose: true},
		{name: "a reply to UPDATE", msg: header(bitQR|opcode(5), 1, 0, 0, 0) + q, verdict: verdictDrop, loose: true},

		// Counts.
		{name: "header alone", msg: header(0, 0, 0, 0, 0), verdict: verdictFormErr, want: none},
		{name: "no question but OPT", msg: header(0, 0, 0, 0, 1) + opt(1232, 0, 0), verdict: verdictFormErr, want: none},
		{name: "two questions", msg: header(0, 2, 0, 0, 0) + q + q, verdict: verdictFormErr, want: none},
		{name: "65535 questions", msg: header(0, 65535, 0, 0, 0) + q, verdict: verdictFormErr, want: none},
		{name: "question missing", msg: header(0, 1, 0, 0, 0), verdict: verdictFormErr, want: none},
		{name: "answer counted and missing", msg: header(0, 1, 1, 0, 0) + q, verdict: verdictFormErr, want: a},
		{name: "authority counted and missing", msg: header(0, 1, 0, 1, 0) + q, verdict: verdictFormErr, want: a},
		{name: "additional counted and missing", msg: header(0, 1, 0, 0, 1) + q, verdict: verdictFormErr, want: a},
		{name: "65535 additional", msg: header(0, 1, 0, 0, 65535) + q + opt(1232, 0, 0), verdict: verdictFormErr, loose: true},
		{name: "OPT not counted", msg: header(0, 1, 0, 0, 0) + q + opt(1232, 0, 0), verdict: verdictFormErr, want: a},
		{name: "one octet trails", msg: header(0, 1, 0, 0, 0) + q + "\x00", verdict: verdictFormErr, want: a},
		{name: "octets trail OPT", msg: extended(www, dns.TypeA, opt(1232, 0, 0)) + "abc", verdict: verdictFormErr, loose: true},
		{name: "type missing", msg: header(0, 1, 0, 0, 0) + www, verdict: verdictFormErr, want: none},
		{name: "class missing", msg: header(0, 1, 0, 0, 0) + www + u16(1), verdict: verdictFormErr, want: none},

		// Names of the question.
		{name: "question points at itself", msg: header(0, 1, 0, 0, 0) + question(pointer(12), 1, 1), verdict: verdictFormErr, want: none},
		{name: "question points forwards", msg: header(0, 1, 0, 0, 0) + question(pointer(18), 1, 1) + www, verdict: verdictFormErr, want: none},
		{name: "question points into the header", msg: header(0, 1, 0, 0, 0) + question(pointer(4), 1, 1), verdict: verdictFormErr, want: none},
		{name: "question points behind a label", msg: header(0, 1, 0, 0, 0) + question(label("www")+pointer(12), 1, 1), verdict: verdictFormErr, want: none},
		{name: "label of 64", msg: header(0, 1, 0, 0, 0) + question(labels(strings.Repeat("x", 64)), 1, 1), verdict: verdictFormErr, want: none},
		{name: "label type 0x40", msg: header(0, 1, 0, 0, 0) + question("\x41"+strings.Repeat("x", 80)+"\x00", 1, 1), verdict: verdictFormErr, want: none},
		{name: "label type 0x80", msg: header(0, 1, 0, 0, 0) + question("\x81"+strings.Repeat("x", 200)+"\x00", 1, 1), verdict: verdictFormErr, want: none},
		{name: "name of 256", msg: header(0, 1, 0, 0, 0) + question(nameOf(256), 1, 1), verdict: verdictFormErr, want: none},
		{name: "128 labels", msg: header(0, 1, 0, 0, 0) + question(strings.Repeat(label("a"), 128)+"\x00", 1, 1), verdict: verdictFormErr, want: none},
		{name: "name without end", msg: header(0, 1, 0, 0, 0) + strings.TrimSuffix(www, "\x00"), verdict: verdictFormErr, want: none},
		{name: "label beyond the end", msg: header(0, 1, 0, 0, 0) + "\x3fx", verdict: verdictFormErr, want: none},

		// Names of other records.
		{name: "owner points at itself", msg: header(0, 1, 0, 0, 1) + q + resource(pointer(12+len(q)), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points forwards", msg: header(0, 1, 0, 0, 2) + q + resource(pointer(12+len(q)+12), 1, 1, "") + resource(name("."), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owners point at each other", msg: header(0, 1, 0, 0, 2) + q + resource(pointer(12+len(q)+12), 1, 1, "") + resource(pointer(12+len(q)), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points into itself", msg: header(0, 1, 0, 0, 1) + q + resource(label("abc")+pointer(12+len(q)), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points at the header", msg: header(0, 1, 0, 0, 1) + q + resource(pointer(0), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points at a zero in the header", msg: header(0, 1, 0, 0, 1) + q + resource(pointer(6), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points at the header's last octet", msg: header(0, 1, 0, 0, 1) + q + resource(pointer(11), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner points beyond the end", msg: header(0, 1, 0, 0, 1) + q + resource(pointer(0x3fff), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "half a pointer", msg: header(0, 1, 0, 0, 1) + q + "\xc0", verdict: verdictFormErr, want: a},
		{name: "owner longer than 255 by a pointer", msg: header(0, 1, 0, 0, 1) + question(nameOf(255), 1, 1) + resource(label("x")+pointer(12), 1, 1, ""), verdict: verdictFormErr, loose: true},
		{name: "owner of 256", msg: header(0, 1, 0, 0, 1) + q + resource(nameOf(256), 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner with label type 0x40", msg: header(0, 1, 0, 0, 1) + q + resource("\x40"+strings.Repeat("x", 64)+"\x00", 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "owner with label type 0x80", msg: header(0, 1, 0, 0, 1) + q + resource("\x80"+strings.Repeat("x", 128)+"\x00", 1, 1, ""), verdict: verdictFormErr, want: a},
		{name: "more pointers than a name can use", msg: pointers(127), verdict: verdictFormErr, want: a},
		{name: "a thousand pointers", msg: pointers(1000), verdict: verdictFormErr, want: a},
		{name: "rdata beyond the end", msg: header(0, 1, 0, 0, 1) + q + name(".") + u16(1, 1, 0, 0, 5) + "1234", verdict: verdictFormErr, want: a},

		// OPT.
		{name: "two OPTs", msg: header(0, 1, 0, 0, 2) + q + opt(1232, 0, 0) + opt(1232, 0, 0), verdict: verdictFormErr, loose: true},
		{name: "OPT among the answers", msg: header(0, 1, 1, 0, 0) + q + opt(1232, 0, 0), verdict: verdictFormErr, want: a},
		{name: "OPT in the authority", msg: header(0, 1, 0, 1, 0) + q + opt(1232, 0, 0), verdict: verdictFormErr, want: a},
		{name: "OPT not at the root", msg: header(0, 1, 0, 0, 1) + q + name("x") + opt(1232, 0, 0)[1:], verdict: verdictFormErr, want: a},
		{name: "OPT at a pointer to the root", msg: header(0, 1, 0, 0, 1) + q + pointer(12+len(www)-1) + opt(1232, 0, 0)[1:], verdict: verdictFormErr, want: a},
		{name: "option of 3 octets", msg: extended(www, 1, opt(1232, 0, 0, "\x00\x0a\x00")), verdict: verdictFormErr, loose: true},
		{name: "option longer than its record", msg: extended(www, 1, opt(1232, 0, 0, u16(65001, 5)+"abcd")), verdict: verdictFormErr, loose: true},
		{name: "option of 65535", msg: extended(www, 1, opt(1232, 0, 0, u16(65001, 65535))), verdict: verdictFormErr, loose: true},
		{name: "second option too long", msg: extended(www, 1, opt(1232, 0, 0, option(65001, "ab"), u16(65002, 1))), verdict: verdictFormErr, loose: true},
		{name: "two client subnets", msg: extended(www, 1, opt(1232, 0, 0, ecs(1, 0, 0, ""), ecs(1, 0, 0, ""))), verdict: verdictFormErr, loose: true},
		{name: "malformed client subnet", msg: extended(www, 1, opt(1232, 0, 0, ecs(1, 33, 0, "12345"))), verdict: verdictFormErr, loose: true},

		// EDNS versions.
		{name: "EDNS 1", msg: extended(www, 1, opt(1232, 1, optDO)), verdict: verdictBadVers, want: a.with(func(p *parsed) {
			p.edns, p.version, p.udpSize, p.do = true, 1, 1232, true
		})},
		{name: "EDNS 255", msg: extended(www, 1, opt(1232, 255, 0)), verdict: verdictBadVers, loose: true},
		{name: "options of EDNS 1 are not read", msg: extended(www, 1, opt(1232, 1, 0, ecs(9, 99, 9, "x"))), verdict: verdictBadVers, loose: true},
	}
	for op := 1; op < 16; op++ {
		rows = append(rows,
			queryFixture{
				name: fmt.Sprintf("opcode %d", op), msg: header(opcode(op)|bitRD, 1, 0, 0, 0) + q,
				verdict: verdictNotImp, want: parsed{opcode: op, rd: true},
			},
			queryFixture{
				name: fmt.Sprintf("opcode %d, rest malformed", op), msg: header(opcode(op), 3, 2, 1, 9) + "\xc0",
				verdict: verdictNotImp, want: parsed{opcode: op},
			})
	}
	return rows
}

func TestQueryParse(t *testing.T) {
	t.Parallel()
	var q query // reused, as the server does: nothing may be left of the message before
	for _, f := range append(answered(), refused()...) {
		v := q.parse([]byte(f.msg))
		if v != f.verdict {
			t.Errorf("%s: verdict %d, want %d", f.name, v, f.verdict)
			continue
		}
		if v != verdictDrop && q.id != testID {
			t.Errorf("%s: id %#x", f.name, q.id)
		}
		if got := parsedOf(&q); !f.loose && got != f.want {
			t.Errorf("%s:\n got %+v\nwant %+v", f.name, got, f.want)
		}
	}
}

// TestQueryParseTruncated cuts every message that is well-formed at each length.
func TestQueryParseTruncated(t *testing.T) {
	t.Parallel()
	var q query
	cut := 0
	for _, f := range append(answered(), refused()...) {
		if f.verdict != verdictAnswer && f.verdict != verdictBadVers {
			continue
		}
		for n := range len(f.msg) {
			want := verdictFormErr
			if n < headerLen {
				want = verdictDrop
			}
			// A copy of that length: reading behind it must not go unnoticed.
			if v := q.parse(slices.Clip([]byte(f.msg[:n]))); v != want {
				t.Errorf("%s cut to %d of %d octets: verdict %d, want %d", f.name, n, len(f.msg), v, want)
			}
			cut++
		}
		if v := q.parse([]byte(f.msg + "\x00")); v != verdictFormErr {
			t.Errorf("%s with an octet behind it: verdict %d", f.name, v)
		}
	}
	if cut < 1000 {
		t.Errorf("only %d messages tried", cut)
	}
}

// TestQueryParseOneOctet changes each octet of a message to each value: no
// panic, and the library finds nothing wrong with what is taken.
func TestQueryParseOneOctet(t *testing.T) {
	t.Parallel()
	msg := []byte(extended(name("w.org"), dns.TypeA, opt(1232, 0, optDO, ecs(1, 20, 0, "\xc0\x00\x10"), option(65001, "xy"))))
	var q query
	if v := q.parse(msg); v != verdictAnswer {
		t.Fatalf("verdict %d", v)
	}
	for i := range msg {
		was := msg[i]
		for c := range 256 {
			msg[i] = byte(c)
			if q.parse(msg) == verdictAnswer {
				agree(t, &q, msg)
			}
		}
		msg[i] = was
	}
}

// TestQueryParseWork holds the worst message that is known to bounded work:
// thousands of records, each of whose names leads over all pointers of a chain.
func TestQueryParseWork(t *testing.T) {
	var chain strings.Builder
	head := header(0, 1, 0, 0, 4000) + question(www, dns.TypeA, 1)
	at := len(head) + 1 + rrFixed
	chain.WriteString(pointer(headerLen))
	n := 0
	for ; at+2*n+2 < 0x3ff0; n++ {
		chain.WriteString(pointer(at + 2*n))
	}
	msg := head + resource(name("."), 65280, 1, chain.String())
	for range 3999 {
		msg += resource(pointer(at+2*n), 65280, 1, "")
	}
	if len(msg) > maxTCP {
		t.Fatalf("%d octets", len(msg))
	}
	var q query
	if v := q.parse([]byte(msg)); v != verdictFormErr {
		t.Errorf("verdict %d: %d pointers were followed for each of thousands of names", v, n)
	}
}
