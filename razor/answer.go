package razor

import (
	"math/rand/v2"
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

// answerer answers messages on the general path: every kind of query. It holds
// scratch and is not safe for concurrent use.
type answerer struct {
	server   *server
	query    query
	resolver resolver
	out      []byte // scratch of replies
	counters counters
}

func newAnswerer(s *server, seed [32]byte) *answerer {
	return &answerer{
		server:   s,
		resolver: resolver{geo: s.geo, legacy: s.cfg.Hash == "legacy", sampler: steering.NewSampler(rand.NewChaCha8(seed)), buf: make([]byte, 0, 4096)},
		out:      make([]byte, 0, 4096),
		counters: newCounters(s.metrics, len(s.cfg.Zones) > 0),
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
	r := newReply(&a.query, a.out, limit(&a.query, via))
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
	if r.finish() {
		a.counters.truncate()
	}
	if r.cut {
		a.counters.cut()
	}
	a.out = r.msg[:0]
	return r.msg
}

// limit is the size of answer that the client takes, in octets.
func limit(q *query, via transport) int {
	switch {
	case via == transportTCP:
		return maxTCP
	case !q.edns:
		return plainUDP
	}
	return min(max(int(q.udpSize), plainUDP), ednsSize)
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
	if e := a.server.export; e != nil && within(q.lower, e.zone) {
		e.answer(r, snapshot, source)
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
	a.resolver.asked = q.lower
	a.resolver.asker = askerOf(q, source, a.server.cfg.HashMethod == "edns" && !r.zone.NoECS)
	a.data(r, apex)
	if r.answers == 0 {
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
			r.soa()
		}
	case dns.TypeNS:
		if apex {
			r.nameServers()
		}
	case dns.TypeANY:
		// One RRset is enough of an answer (RFC 8482 §4.1).
		if a.addresses(r, steering.IPv6); r.answers == 0 {
			a.addresses(r, steering.IPv4)
		}
		if r.answers == 0 && apex {
			r.soa()
		}
	}
}

func (a *answerer) addresses(r *reply, f steering.Family) {
	p := a.resolver.addresses(f)
	a.scope(r, p)
	r.addresses(f, p.rdata)
}

// scope notes how much of the client's subnet the answer depends on.
func (a *answerer) scope(r *reply, p pick) {
	if k := &a.resolver.asker; p.client && k.ecs {
		r.scope = max(k.subnet.Bits(), p.bits)
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
	r.text(text)
}
