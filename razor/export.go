package razor

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// The labels of a service before the name of its application (RFC 2782), in wire
// form.
const (
	exportProto   = "\x04_tcp"
	exportService = "\x05_http" + exportProto

	maxTarget = 40 // octets of a target's label and its length
)

// exportTTL is the TTL of all answers, in seconds, where Redis does not say.
const exportTTL = 5

// export gives the upstream lists names below a zone, for the proxies of the
// edge:
//
//	_http._tcp.<app>.<zone>  SRV      an endpoint each (RFC 2782)
//	<app>.<zone>             A, AAAA  the addresses of the list
//	<address>.<app>.<zone>   A, AAAA  the targets of the SRV records
//
// All below the zone is its own, whatever else is in Redis. Answers are made
// from the list for each query: the work ends with the record that no longer
// fits. nil exports nothing.
type export struct {
	zone    string          // wire form
	builtin *upstreams.Zone // where Redis has no CONFIG for it
	clients []netip.Prefix  // that are answered
	begin   uint32          // where in a list its records begin, in parts of 2^32
}

// newExport is the export of a checked configuration. The records of a list begin
// at a place that the host's name chooses: where a list is longer than an answer,
// or than what a proxy has servers for, other hosts use other parts of it, and
// each the same part all the time.
func newExport(cfg Config, host string) *export {
	zone, err := upstreams.WireName(strings.TrimSuffix(cfg.Export, "."))
	if err != nil {
		return nil
	}
	hash := sha256.Sum256([]byte(host))
	e := &export{zone: zone, builtin: builtinZone(zone), begin: binary.BigEndian.Uint32(hash[:])}
	for _, c := range cfg.ExportClients {
		if p, err := netip.ParsePrefix(c); err == nil {
			e.clients = append(e.clients, p)
		}
	}
	return e
}

// builtinZone has the SOA and NS of a zone that is served to those nearby alone
// (RFC 6303 §3).
func builtinZone(zone string) *upstreams.Zone {
	soa := []byte(zone + "\x06nobody\x07invalid\x00")
	for _, n := range []uint32{1, 3600, 1200, 604800, exportTTL} {
		soa = binary.BigEndian.AppendUint32(soa, n)
	}
	return &upstreams.Zone{Name: zone, Text: upstreams.NameText(zone), SOA: soa, NS: []string{zone}, TTL: exportTTL}
}

// within tells whether a name is a zone or below it; both are in wire form.
func within(name []byte, zone string) bool {
	if len(name) < len(zone) || string(name[len(name)-len(zone):]) != zone {
		return false
	}
	for len(name) > len(zone) { // the octets may stand across labels
		name = name[1+int(name[0]):]
	}
	return len(name) == len(zone)
}

// serves tells whether a client may ask: the lists say where an attack would
// meet no edge.
func (e *export) serves(client netip.Addr) bool {
	for _, p := range e.clients {
		if p.Contains(client.WithZone("")) {
			return true
		}
	}
	return false
}

// answer answers a query for a name of the zone.
func (e *export) answer(r *reply, s *upstreams.Snapshot, client netip.Addr) {
	if !e.serves(client) {
		r.rcode = dns.RcodeRefused
		return
	}
	if s.Empty() { // not ready: an empty list would be believed
		r.rcode = dns.RcodeServerFailure
		return
	}
	r.zone = e.builtin
	if z := s.Zone([]byte(e.zone)); z != nil && z.Name == e.zone {
		r.zone = z
	}
	if !e.data(r, s) {
		r.rcode = dns.RcodeNameError
	}
	if r.answers == 0 {
		r.deny()
	}
}

// data adds the records that were asked for, and tells whether the name exists.
// Where a name is more than one thing, an application comes first.
func (e *export) data(r *reply, s *upstreams.Snapshot) (exists bool) {
	name := string(r.query.lower[:len(r.query.lower)-len(e.zone)]) + "\x00"
	if name == "\x00" {
		e.apex(r)
		return true
	}
	if u := s.Upstream(name); u != nil {
		e.addresses(r, u)
		return true
	}
	if app, ok := strings.CutPrefix(name, exportService); ok && s.Upstream(app) != nil {
		e.service(r, s.Upstream(app))
		return true
	}
	if app, ok := strings.CutPrefix(name, exportProto); ok && s.Upstream(app) != nil {
		return true
	}
	first, app := name[1:1+name[0]], name[1+name[0]:]
	if u := s.Upstream(app); u != nil {
		if a, ok := parseTarget(first); ok && u.Has(a) {
			e.target(r, a)
			return true
		}
	}
	return s.UpstreamsBelow(name)
}

func (e *export) apex(r *reply) {
	switch r.query.qtype {
	case dns.TypeSOA, dns.TypeANY:
		r.soa()
	case dns.TypeNS:
		r.nameServers()
	}
}

// target answers with the address of a target.
func (e *export) target(r *reply, a netip.Addr) {
	if t := r.query.qtype; t == typeOf(a) || t == dns.TypeANY {
		r.address(0, a)
		r.answers++
	}
}

// addresses answers with the addresses of a list that are of the type asked for.
func (e *export) addresses(r *reply, u *upstreams.Upstream) {
	switch r.query.qtype {
	case dns.TypeA:
		e.family(r, u, steering.IPv4)
	case dns.TypeAAAA:
		e.family(r, u, steering.IPv6)
	case dns.TypeANY: // one RRset, as everywhere
		if e.family(r, u, steering.IPv6); r.answers == 0 {
			e.family(r, u, steering.IPv4)
		}
	}
}

// family adds the distinct addresses of one family.
func (e *export) family(r *reply, u *upstreams.Upstream, f steering.Family) {
	var last netip.Addr
	for p := range e.endpoints(u) {
		a := p.Addr.Addr()
		if a == last || steering.FamilyOf(a) != f {
			continue
		}
		last = a
		mark := len(r.msg)
		r.address(0, a)
		if !r.keep(mark) {
			return
		}
	}
}

// service answers with the SRV records of a list, and behind them the addresses
// of their targets, as many as fit.
func (e *export) service(r *reply, u *upstreams.Upstream) {
	if t := r.query.qtype; t != dns.TypeSRV && t != dns.TypeANY {
		return
	}
	top := heaviest(u)
	app := r.query.name[len(exportService):]
	if maxTarget+len(app) > maxName { // the targets might have no names
		r.cut = true
		return
	}
	for p := range e.endpoints(u) {
		mark := len(r.msg)
		r.record(0, dns.TypeSRV, r.zone.TTL, 0)
		rdata := len(r.msg)
		r.msg = binary.BigEndian.AppendUint16(r.msg, 0) // priority
		r.msg = binary.BigEndian.AppendUint16(r.msg, srvWeight(p.Weight, top))
		r.msg = binary.BigEndian.AppendUint16(r.msg, p.Addr.Port())
		r.msg = appendTarget(r.msg, p.Addr.Addr())
		r.msg = append(r.msg, app...) // not compressed (RFC 2782)
		binary.BigEndian.PutUint16(r.msg[rdata-2:], uint16(len(r.msg)-rdata))
		if !r.keep(mark) {
			break
		}
	}
	e.hints(r, u)
}

// hints adds the addresses of the targets to the additional section. Those that
// do not fit are left out without TC (RFC 2181 §9).
func (e *export) hints(r *reply, u *upstreams.Upstream) {
	var last netip.Addr
	records := int(r.answers)
	for p := range e.endpoints(u) {
		if records--; records < 0 {
			return // the list is longer than the answer
		}
		a := p.Addr.Addr()
		if a == last {
			continue
		}
		last = a
		mark := len(r.msg)
		r.msg = appendTarget(r.msg, a)
		r.address(len(exportService), a)
		if !r.fits() {
			r.msg = r.msg[:mark]
			return
		}
		r.additional++
	}
}

// endpoints visits those that take new flows, from the host's own place in the
// list on, with those of one address in a row.
func (e *export) endpoints(u *upstreams.Upstream) iter.Seq[upstreams.Endpoint] {
	list := u.Endpoints
	begin := int(uint64(len(list)) * uint64(e.begin) >> 32)
	for begin > 0 && list[begin-1].Addr.Addr() == list[begin].Addr.Addr() {
		begin--
	}
	return func(yield func(upstreams.Endpoint) bool) {
		for i := range list {
			if p := list[(begin+i)%len(list)]; p.Weight > 0 && !yield(p) {
				return
			}
		}
	}
}

// heaviest is the weight that srvWeight makes the largest of.
func heaviest(u *upstreams.Upstream) uint16 {
	top := uint16(256)
	for _, p := range u.Endpoints {
		top = max(top, p.Weight)
	}
	return top
}

// srvWeight is the weight of an SRV record. HAProxy makes w/256 + 1 of it, rounded
// down: so that it gets the weights of the list, they stand here 256-fold less 1.
// In a list with weights above 256 the heaviest gets 65,535 and the others their
// share of that.
func srvWeight(weight, top uint16) uint16 {
	return uint16(max(1, uint32(weight)<<16/uint32(top)-1))
}

// appendTarget appends the label of a target: its address as in RFC 5952, with
// hyphens for dots and colons. A 0 stands where it would begin or end with one,
// which host names must not.
func appendTarget(b []byte, a netip.Addr) []byte {
	length := len(b)
	b = a.AppendTo(append(b, 0))
	if b[length+1] == ':' {
		b = slices.Insert(b, length+1, '0')
	}
	if b[len(b)-1] == ':' {
		b = append(b, '0')
	}
	label := b[length+1:]
	for i, c := range label {
		if c == '.' || c == ':' {
			label[i] = '-'
		}
	}
	b[length] = byte(len(label))
	return b
}

// parseTarget is the address of a target's label; each address has one label, and
// none with a zone has.
func parseTarget(label string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":"))
	if err != nil {
		a, err = netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	}
	if err != nil || a.Zone() != "" || string(appendTarget(nil, a)[1:]) != label {
		return netip.Addr{}, false
	}
	return a, true
}

// typeOf is the type of records that have the address.
func typeOf(a netip.Addr) uint16 {
	if a.Is4() {
		return dns.TypeA
	}
	return dns.TypeAAAA
}
