package razor

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/upstreams"
)

// agree holds what the parser took to what the library makes of the message. The
// library reads the data of records as well, which are none of a query's
// business, so that it is given the names and what is around them alone.
func agree(tb testing.TB, q *query, msg []byte) {
	tb.Helper()
	n, off, err := dns.UnpackDomainName(msg, headerLen)
	if err != nil || n != presentation(q.name) || off != headerLen+len(q.name) {
		tb.Fatalf("% x: name %q, the library has %q up to %d: %v", msg, q.name, n, off, err)
	}
	if dns.CanonicalName(n) != dns.CanonicalName(presentation(q.lower)) {
		tb.Fatalf("% x: lower case %q of %q", msg, q.lower, q.name)
	}
	if binary.BigEndian.Uint16(msg[off:]) != q.qtype || binary.BigEndian.Uint16(msg[off+2:]) != q.qclass {
		tb.Fatalf("% x: type %d, class %d", msg, q.qtype, q.qclass)
	}
	off += 4
	records, opts, others := 0, 0, false
	for _, count := range []int{6, 8, 10} {
		records += int(binary.BigEndian.Uint16(msg[count:]))
	}
	for range records {
		owner, next, err := dns.UnpackDomainName(msg, off)
		if err != nil || next+rrFixed > len(msg) {
			tb.Fatalf("% x: record at %d, the library says %v", msg, off, err)
		}
		if binary.BigEndian.Uint16(msg[next:]) == dns.TypeOPT {
			if opts++; owner != "." {
				tb.Fatalf("% x: OPT at %s", msg, owner)
			}
			others = otherOptions(msg[next+rrFixed : next+rrFixed+int(binary.BigEndian.Uint16(msg[next+8:]))])
		}
		off = next + rrFixed + int(binary.BigEndian.Uint16(msg[next+8:]))
	}
	if off != len(msg) {
		tb.Fatalf("% x: records end at %d of %d", msg, off, len(msg))
	}
	if q.edns != (opts == 1) || opts > 1 {
		tb.Fatalf("% x: %d OPT records, EDNS is %t", msg, opts, q.edns)
	}
	if records > opts {
		return
	}
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		if others || q.version != ednsOK {
			return // what the library finds fault with is none of our business
		}
		tb.Fatalf("% x: the library says %v", msg, err)
	}
	if o := m.IsEdns0(); o != nil && (o.UDPSize() != q.udpSize || o.Do() != q.do || o.Version() != q.version) {
		tb.Fatalf("% x: OPT %v, read as size %d, DO %t, version %d", msg, o, q.udpSize, q.do, q.version)
	}
}

// otherOptions tells whether there are EDNS options beside the client subnet.
func otherOptions(rdata []byte) bool {
	for len(rdata) >= 4 {
		if binary.BigEndian.Uint16(rdata) != codeECS {
			return true
		}
		rdata = rdata[min(len(rdata), 4+int(binary.BigEndian.Uint16(rdata[2:]))):]
	}
	return false
}

func FuzzQueryParse(f *testing.F) {
	for _, fixture := range append(answered(), refused()...) {
		f.Add([]byte(fixture.msg))
	}
	var q query
	f.Fuzz(func(t *testing.T, msg []byte) {
		v := q.parse(msg)
		switch {
		case len(msg) < headerLen || msg[2]&0x80 != 0:
			if v != verdictDrop {
				t.Errorf("verdict %d", v)
			}
			return
		case v == verdictDrop:
			t.Error("a query is dropped")
		case msg[2]>>3&0xf != 0:
			if v != verdictNotImp {
				t.Errorf("verdict %d of opcode %d", v, q.opcode)
			}
			return
		}
		if v == verdictFormErr {
			return
		}
		if len(q.name) > maxName || len(q.name) != len(q.lower) {
			t.Errorf("name %q, in lower case %q", q.name, q.lower)
		}
		if (v == verdictBadVers) != (q.edns && q.version != 0) {
			t.Errorf("verdict %d of EDNS version %d", v, q.version)
		}
		agree(t, &q, msg)
	})
}

func FuzzAnswer(f *testing.F) {
	for i, fixture := range append(answered(), refused()...) {
		f.Add([]byte(fixture.msg), i%2 == 0, byte(i))
	}
	for i, q := range exportQueries() {
		f.Add([]byte(extended(q.name, q.qtype, opt(1232, 0, 0))), i%2 == 0, byte(0))
		f.Add([]byte(plain(q.name, q.qtype)), i%2 == 0, byte(1))
	}
	lists := fixed{snapshotOf(f, func(s *upstreams.Embedded) {
		exported(f)(s)
		kinds(f)(s)
		hashed(f)(s)
		geographic(f)(s)
	})}
	database := withGeo(f, mmdbFile(f, true, clients))
	servers := []*server{
		newServer(lists, database, tracing, exporting("lists.test")),
		newServer(lists, database, tracing, legacy, exporting("z.lists.test")),
		newServer(lists, bySource),
		newServer(fixed{}),
	}
	var answerers []*answerer
	for _, s := range servers {
		answerers = append(answerers, newAnswerer(s, [32]byte{}))
	}
	sources := []netip.Addr{
		netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:e::9"), netip.MustParseAddr("::ffff:192.0.2.1"),
		netip.MustParseAddr("fe80::1%lo"), netip.MustParseAddr("::"), netip.MustParseAddr("0.0.0.0"),
	}
	var q query
	f.Fuzz(func(t *testing.T, msg []byte, tcp bool, who byte) {
		via, limit := transportUDP, plainUDP
		v := q.parse(msg)
		if v != verdictDrop && q.edns {
			limit = min(max(int(q.udpSize), plainUDP), ednsSize)
		}
		if tcp {
			via, limit = transportTCP, maxTCP
		}
		a := answerers[int(who)%len(answerers)]
		out := a.answer(msg, sources[int(who>>2)%len(sources)], via)
		if v == verdictDrop {
			if out != nil {
				t.Errorf("% x in answer to nothing", out)
			}
			return
		}
		if len(out) > limit {
			t.Errorf("%d octets, %d fit", len(out), limit)
		}
		m := wellFormed(t, msg, out)
		if m.Truncated && tcp {
			t.Error("truncated over TCP")
		}
		want := map[verdict]int{verdictFormErr: dns.RcodeFormatError, verdictNotImp: dns.RcodeNotImplemented, verdictBadVers: dns.RcodeBadVers}
		if rcode, ok := want[v]; ok && (m.Rcode != rcode || len(m.Answer)+len(m.Ns) > 0 || m.Authoritative) {
			t.Errorf("%s, want rcode %d", outcome(m), rcode)
		}
	})
}
