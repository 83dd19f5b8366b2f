package razor

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

const (
	flagAA = 1 << 10
	flagTC = 1 << 9

	compressed = 0xc000 // of a compressed name (RFC 1035 §4.1.4)
)

// reply is an answer in the making, in wire form.
//
// It is written here and not by the DNS library, which is the judge of it in the
// tests: the library's map of every name and suffix costs more than all the rest
// of an answer, and 13 µs for a name of 120 labels, so that whoever asks for
// names that do not exist could choose what they cost. The snapshot has the
// rdata in wire form, and the names of records are pointers into the question.
type reply struct {
	query *query
	zone  *upstreams.Zone // nil for what belongs to none
	limit int             // octets that the client takes
	rcode int
	scope int  // bits of the client subnet that the answer depends on
	cut   bool // the RRset has only what fits

	msg        []byte // header, question, and the records so far
	records    int    // where they begin
	answers    uint16
	authority  uint16
	additional uint16 // without OPT
}

// newReply begins a reply in buf, with the question as it was asked.
func newReply(q *query, buf []byte, limit int) reply {
	r := reply{query: q, limit: limit, msg: append(buf[:0], make([]byte, headerLen)...)}
	if q.asked {
		r.msg = append(r.msg, q.name...)
		r.msg = binary.BigEndian.AppendUint16(r.msg, q.qtype)
		r.msg = binary.BigEndian.AppendUint16(r.msg, q.qclass)
	}
	r.records = len(r.msg)
	return r
}

// record begins a record whose owner is the question's name from an offset on.
func (r *reply) record(from int, rrtype uint16, ttl uint32, rdata int) {
	r.msg = binary.BigEndian.AppendUint16(r.msg, compressed|uint16(headerLen+from))
	r.msg = binary.BigEndian.AppendUint16(r.msg, rrtype)
	r.msg = binary.BigEndian.AppendUint16(r.msg, dns.ClassINET)
	r.msg = binary.BigEndian.AppendUint32(r.msg, ttl)
	r.msg = binary.BigEndian.AppendUint16(r.msg, uint16(rdata))
}

// addresses adds an A or AAAA record for each address of rdata.
func (r *reply) addresses(f steering.Family, rdata []byte) {
	rrtype, n := dns.TypeA, f.Octets()
	if f == steering.IPv6 {
		rrtype = dns.TypeAAAA
	}
	for ; len(rdata) > 0; rdata = rdata[n:] {
		r.record(0, rrtype, r.zone.TTL, n)
		r.msg = append(r.msg, rdata[:n]...)
		r.answers++
	}
}

// address adds an A or AAAA record, which is to be counted, whose owner is the
// question's name from an offset on.
func (r *reply) address(from int, a netip.Addr) {
	r.record(from, typeOf(a), r.zone.TTL, a.BitLen()/8)
	r.msg, _ = a.AppendBinary(r.msg)
}

// fits tells whether the client takes what there is so far.
func (r *reply) fits() bool { return len(r.msg)+r.optLen() <= r.limit }

// keep counts the record from mark on to the answers, and tells whether another
// one may follow. One too many stays over UDP, for finish to truncate the answer.
// Over TCP it is left out: more than fits there no client can get.
func (r *reply) keep(mark int) bool {
	switch {
	case r.fits():
		r.answers++
		return true
	case r.limit == maxTCP:
		r.msg, r.cut = r.msg[:mark], true
	default:
		r.answers++
	}
	return false
}

// text adds a TXT record of at most 255 octets.
func (r *reply) text(s string) {
	s = s[:min(len(s), 255)]
	r.record(0, dns.TypeTXT, r.zone.TTL, 1+len(s))
	r.msg = append(append(r.msg, byte(len(s))), s...)
	r.answers++
}

// nameServers adds the NS records of the zone, at its apex.
func (r *reply) nameServers() {
	for _, ns := range r.zone.NS {
		r.record(0, dns.TypeNS, r.zone.TTL, len(ns))
		r.msg = append(r.msg, ns...)
		r.answers++
	}
}

// soa adds the zone's SOA to the answers, at its apex.
func (r *reply) soa() {
	r.addSOA(r.zone.TTL)
	r.answers++
}

// deny adds the SOA that says how long a negative answer holds (RFC 2308 §3). Its
// scope is 0, as resolvers take it for one (RFC 7871 §7.4).
func (r *reply) deny() {
	r.scope = 0
	r.addSOA(r.zone.NegativeTTL())
	r.authority++
}

func (r *reply) addSOA(ttl uint32) {
	r.record(len(r.query.name)-len(r.zone.Name), dns.TypeSOA, ttl, len(r.zone.SOA))
	r.msg = append(r.msg, r.zone.SOA...)
}

// finish writes header and OPT. What does not fit is truncated by whole RRsets,
// which is all or nothing, and the client comes back over TCP (RFC 2181 §9).
func (r *reply) finish() (truncated bool) {
	q := r.query
	flags := uint16(flagQR) | uint16(q.opcode)<<11 | uint16(r.rcode&0xf)
	if q.rd {
		flags |= flagRD
	}
	if r.zone != nil {
		flags |= flagAA
	}
	if truncated = !r.fits(); truncated {
		flags |= flagTC
		r.msg, r.answers, r.authority = r.msg[:r.records], 0, 0
	}
	h := r.msg[:headerLen]
	binary.BigEndian.PutUint16(h, q.id)
	binary.BigEndian.PutUint16(h[2:], flags)
	if q.asked {
		h[5] = 1
	}
	binary.BigEndian.PutUint16(h[6:], r.answers)
	binary.BigEndian.PutUint16(h[8:], r.authority)
	if q.edns {
		r.opt()
		r.additional++
	}
	binary.BigEndian.PutUint16(h[10:], r.additional)
	return truncated
}

// echoes tells whether the client subnet of the query is in the reply.
func (r *reply) echoes() bool {
	return r.query.hasECS && r.rcode != dns.RcodeFormatError && r.rcode != dns.RcodeBadVers
}

func (r *reply) optLen() int {
	switch {
	case !r.query.edns:
		return 0
	case r.echoes():
		return 1 + rrFixed + r.query.ecs.optionLen()
	}
	return 1 + rrFixed
}

// opt adds the OPT record: our size, the upper bits of the rcode, version 0, DO
// as it was asked (RFC 3225 §3), and the client subnet with its scope.
func (r *reply) opt() {
	q := r.query
	r.msg = append(r.msg, 0, 0, typeOPT)
	r.msg = binary.BigEndian.AppendUint16(r.msg, ednsSize)
	r.msg = append(r.msg, byte(r.rcode>>4), 0)
	var flags uint16
	if q.do {
		flags = optDO
	}
	r.msg = binary.BigEndian.AppendUint16(r.msg, flags)
	r.msg = binary.BigEndian.AppendUint16(r.msg, uint16(r.optLen()-1-rrFixed))
	if r.echoes() {
		r.msg = q.ecs.appendOption(r.msg, r.scope)
	}
}
