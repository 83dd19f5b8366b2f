package razor

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

const (
	// ednsSize is what we take, and the most that we send over UDP: it passes
	// every path unfragmented (RFC 9715).
	ednsSize = 1232
	plainUDP = 512 // without EDNS (RFC 1035 §4.2.1)
	maxTCP   = 65535
)

// transport is how a query came.
type transport uint8

const (
	transportUDP transport = iota
	transportTCP
)

var transportWords = [...]string{"udp", "tcp"}

// answerer answers messages on the general path: every kind of query, through
// the DNS library. It holds scratch and is not safe for concurrent use.
type answerer struct {
	server   *server
	query    query
	resolver resolver
	out      []byte
	soas     soaCache
	counters counters
}

func newAnswerer(s *server, seed [32]byte) *answerer {
	return &answerer{
		server:   s,
		resolver: resolver{geo: s.geo, legacy: s.cfg.Hash == "legacy", sampler: steering.NewSampler(rand.NewChaCha8(seed)), buf: make([]byte, 0, 512)},
		out:      make([]byte, 4096),
		counters: newCounters(s.metrics),
	}
}

// answer is the reply to a message, nil where there is none. It is valid until
// the next call.
func (a *answerer) answer(msg []byte, source netip.Addr, via transport) []byte {
	v := a.query.parse(msg)
	if v == verdictDrop {
		a.counters.drop()
		return nil
	}
	r := reply{query: &a.query, soas: &a.soas}
	switch v {
	case verdictFormErr:
		r.rcode = dns.RcodeFormatError
	case verdictNotImp:
		r.rcode = dns.RcodeNotImplemented
	case verdictBadVers:
		r.rcode = dns.RcodeBadVers
	default:
		a.ask(&r, source.Unmap())
	}
	a.counters.count(&r, via)
	return a.pack(&r, via)
}

// reply is an answer in the making.
type reply struct {
	query     *query
	zone      *upstreams.Zone // nil for what belongs to none
	rcode     int
	answer    []dns.RR
	authority []dns.RR
	scope     int // bits of the client subnet that the answer depends on
	name      string
	soas      *soaCache
}

// ask answers a well-formed query.
func (a *answerer) ask(r *reply, source netip.Addr) {
	q := r.query
	snapshot := a.server.lists.Snapshot()
	if snapshot == nil {
		r.rcode = dns.RcodeServerFailure
		return
	}
	if q.qclass != dns.ClassINET {
		r.rcode = dns.RcodeRefused
		return
	}
	switch q.qtype {
	case dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY: // types of the protocol, not of data
		r.rcode = dns.RcodeFormatError
		return
	case dns.TypeAXFR, dns.TypeIXFR:
		r.rcode = dns.RcodeRefused
		return
	}
	r.zone = snapshot.Zone(q.lower)
	if r.zone == nil {
		r.rcode = dns.RcodeRefused
		return
	}
	name := snapshot.Name(q.lower)
	apex := len(q.lower) == len(r.zone.Name)
	if !apex && !name.Exists() && r.zone.Answer != upstreams.AnswerGeography {
		r.rcode = dns.RcodeNameError
		r.deny()
		return
	}
	a.resolver.snapshot, a.resolver.zone, a.resolver.name = snapshot, r.zone, name
	a.resolver.asker = askerOf(q, source, a.server.cfg.HashMethod == "edns")
	a.data(r, apex)
	if len(r.answer) == 0 {
		r.deny()
	}
}

// data finds the records of the type that was asked for.
func (a *answerer) data(r *reply, apex bool) {
	switch r.query.qtype {
	case dns.TypeA:
		a.addresses(r, steering.IPv4)
	case dns.TypeAAAA:
		a.addresses(r, steering.IPv6)
	case dns.TypeTXT:
		if a.server.cfg.TraceTXT {
			a.trace(r)
		}
	case dns.TypeSOA:
		if apex {
			r.answer = append(r.answer, r.soa(r.zone.TTL))
		}
	case dns.TypeNS:
		if apex {
			r.nameServers()
		}
	case dns.TypeANY:
		// One RRset is enough of an answer (RFC 8482 §4.1).
		if a.addresses(r, steering.IPv6); len(r.answer) == 0 {
			a.addresses(r, steering.IPv4)
		}
		if len(r.answer) == 0 && apex {
			r.answer = append(r.answer, r.soa(r.zone.TTL))
		}
	}
}

func (a *answerer) addresses(r *reply, f steering.Family) {
	p := a.resolver.addresses(f)
	a.scope(r, p)
	for rdata := p.rdata; len(rdata) > 0; rdata = rdata[f.Octets():] {
		r.answer = append(r.answer, r.address(f, rdata[:f.Octets()]))
	}
}

// scope notes how much of the client's subnet the answer depends on.
func (a *answerer) scope(r *reply, p pick) {
	if k := &a.resolver.asker; p.client && k.ecs {
		r.scope = k.subnet.Bits()
		if k.address.Is4In6() {
			r.scope += 96 // the IPv4 address stands at the end of the IPv6 one
		}
	}
}

// trace answers with the client, its place where geography was used, and a draw
// from the client's family, as pdns-razor does.
func (a *answerer) trace(r *reply) {
	client := a.resolver.asker.address
	f := steering.FamilyOf(client)
	p := a.resolver.addresses(f)
	if len(p.rdata) == 0 {
		f ^= 1
		p = a.resolver.addresses(f)
	}
	a.scope(r, p)
	text := "Razor/" + client.WithZone("").String()
	if p.place.Continent != "" && p.place.Country != "" {
		text += " (" + p.place.Continent + ":" + p.place.Country + ")"
	}
	text += "/"
	if len(p.rdata) > 0 {
		addr, _ := netip.AddrFromSlice(p.rdata[:f.Octets()])
		text += addr.String()
	}
	r.answer = append(r.answer, &dns.TXT{Hdr: r.header(dns.TypeTXT, r.zone.TTL), Txt: []string{text}})
}

// deny adds the SOA that says how long a negative answer holds (RFC 2308 §3).
func (r *reply) deny() { r.authority = append(r.authority, r.soa(r.zone.NegativeTTL())) }

func (r *reply) nameServers() {
	for _, ns := range r.zone.NS {
		r.answer = append(r.answer, &dns.NS{Hdr: r.header(dns.TypeNS, r.zone.TTL), Ns: presentation([]byte(ns))})
	}
}

// header is that of a record at the name that was asked for, in the query's case.
func (r *reply) header(rrtype uint16, ttl uint32) dns.RR_Header {
	if r.name == "" {
		r.name = presentation(r.query.name)
	}
	return dns.RR_Header{Name: r.name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func (r *reply) address(f steering.Family, rdata []byte) dns.RR {
	ip := net.IP(rdata)
	if f == steering.IPv4 {
		return &dns.A{Hdr: r.header(dns.TypeA, r.zone.TTL), A: ip}
	}
	return &dns.AAAA{Hdr: r.header(dns.TypeAAAA, r.zone.TTL), AAAA: ip}
}

// soa is the zone's SOA. Its owner is the end of the query's name, in its case.
func (r *reply) soa(ttl uint32) *dns.SOA {
	out := r.soas.of(r.zone)
	owner := presentation(r.query.name[len(r.query.name)-len(r.zone.Name):])
	out.Hdr = dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}
	return &out
}

// soaCache has the SOA of the zone that was asked for last, so that a flood of
// names that do not exist costs no more than names that do.
type soaCache struct {
	zone *upstreams.Zone
	soa  dns.SOA
}

func (c *soaCache) of(z *upstreams.Zone) dns.SOA {
	if c.zone != z {
		mname, off, _ := dns.UnpackDomainName(z.SOA, 0)
		rname, off, _ := dns.UnpackDomainName(z.SOA, off)
		number := func(i int) uint32 { return binary.BigEndian.Uint32(z.SOA[off+4*i:]) }
		c.zone = z
		c.soa = dns.SOA{Ns: mname, Mbox: rname, Serial: number(0), Refresh: number(1), Retry: number(2), Expire: number(3), Minttl: number(4)}
	}
	return c.soa
}

// presentation is the text of a name in wire form.
func presentation(wire []byte) string {
	s, _, err := dns.UnpackDomainName(wire, 0)
	if err != nil {
		return "." // the parser took it; it cannot be
	}
	return s
}

// message is the reply for the DNS library.
func (r *reply) message() *dns.Msg {
	q := r.query
	m := &dns.Msg{Compress: true, Answer: r.answer, Ns: r.authority}
	m.Id, m.Opcode, m.Response, m.RecursionDesired, m.Rcode = q.id, int(q.opcode), true, q.rd, r.rcode
	m.Authoritative = r.zone != nil
	if q.asked && q.opcode == 0 {
		if r.name == "" {
			r.name = presentation(q.name)
		}
		m.Question = []dns.Question{{Name: r.name, Qtype: q.qtype, Qclass: q.qclass}}
	}
	if q.edns {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(ednsSize)
		opt.SetDo(q.do) // RFC 3225 §3
		if q.hasECS && r.rcode != dns.RcodeFormatError && r.rcode != dns.RcodeBadVers {
			opt.Option = append(opt.Option, q.ecs.echo(r.scope))
		}
		m.Extra = []dns.RR{opt}
	}
	return m
}

// pack writes the reply. What does not fit is truncated by whole RRsets, which
// is all or nothing: a client comes back over TCP (RFC 2181 §9).
func (a *answerer) pack(r *reply, via transport) []byte {
	limit := maxTCP
	if via == transportUDP {
		limit = plainUDP
		if r.query.edns {
			limit = min(max(int(r.query.udpSize), plainUDP), ednsSize)
		}
	}
	m := r.message()
	out, err := m.PackBuffer(a.out)
	if err == nil && len(out) > limit {
		m.Truncated, m.Answer, m.Ns = true, nil, nil
		a.counters.truncate()
		out, err = m.PackBuffer(a.out)
	}
	if err != nil {
		// A name that the library cannot write back: the header says it.
		short := &dns.Msg{MsgHdr: m.MsgHdr}
		short.Rcode, short.Authoritative = dns.RcodeServerFailure, false
		if out, err = short.PackBuffer(a.out); err != nil {
			return nil
		}
	}
	return out
}
