package bgp

import (
	"encoding/binary"
	"net/netip"

	"github.com/razor-steering/razor/steering"
)

// update is what an UPDATE does to the routes of a session. Where a prefix is in
// both lists, it is announced (RFC 4271 §4.3).
type update struct {
	withdrawn []netip.Prefix
	announced []netip.Prefix
	nextHop   netip.Addr // of MP_REACH_NLRI (the global one) or else NEXT_HOP, if there is one
	endOfRIB  families   // all routes of the family were sent (RFC 4724 §2)
	// malformed is the defect that the session outlives, "" if there is none: an
	// attribute is discarded, or what was to be announced is in withdrawn
	// (RFC 7606 §2).
	malformed string
}

// surveyUpdate reads the body of an UPDATE; fourOctet is the length of AS numbers
// in it. Routes of families that were not negotiated are left out. An error is the
// *notification with which the session has to end: where the prefixes cannot be
// read, and where RFC 7606 leaves RFC 4271 as it was.
func surveyUpdate(body []byte, negotiated families, fourOctet bool) (update, error) {
	s := survey{negotiated: negotiated, fourOctet: fourOctet}
	withdrawn, rest, ok := field(body)
	attributes, nlri, fits := field(rest)
	if !ok || !fits {
		return update{}, &notification{code: codeUpdate, subcode: updateMalformedList}
	}
	if f, ok := endOfRIB(body, attributes); ok {
		s.endOfRIB[f] = negotiated[f]
		return s.update, nil
	}
	if !s.prefixes(&s.withdrawn, withdrawn, steering.IPv4) || !s.prefixes(&s.announced, nlri, steering.IPv4) {
		return update{}, &notification{code: codeUpdate, subcode: updateInvalidNetwork}
	}
	s.reach = len(nlri) > 0
	if err := s.attributes(attributes); err != nil {
		return update{}, err
	}
	s.missing(len(nlri) > 0)
	return s.finish(len(attributes) > 0)
}

// endOfRIB tells whether an UPDATE says that all routes of a family were sent: it
// is empty, or has nothing but an empty MP_UNREACH_NLRI (RFC 4724 §2).
func endOfRIB(body, attributes []byte) (steering.Family, bool) {
	const empty = 4 // octets of an UPDATE without anything
	if len(body) == empty {
		return steering.IPv4, true
	}
	a, rest, ok := cutAttribute(attributes)
	if !ok || len(body) != empty+len(attributes) || len(rest) > 0 ||
		a.typ != attrMPUnreach || len(a.value) != mpUnreachFixed {
		return 0, false
	}
	return familyOf(binary.BigEndian.Uint16(a.value), a.value[2])
}

// field cuts the octets that a length of two octets counts from b.
func field(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// severity is what a defect of an attribute does (RFC 7606 §2).
type severity uint8

const (
	discard  severity = iota + 1 // the attribute does not count
	withdraw                     // the announced prefixes count as withdrawn
)

// survey is an update that is being read.
type survey struct {
	update
	negotiated families
	fourOctet  bool
	worst      severity
	seen       [256]bool // attributes that were there
	reach      bool      // there is something to announce
}

// fault notes a defect; the worst, and of several the first one, is told.
func (s *survey) fault(sev severity, what string) {
	if sev > s.worst {
		s.worst, s.malformed = sev, what
	}
}

// missing looks for the attributes without which nothing can be announced
// (RFC 7606 §3 d); classic says that there is something outside of MP_REACH_NLRI.
// LOCAL_PREF is not asked for: what is announced to us is not used.
func (s *survey) missing(classic bool) {
	if !s.reach {
		return
	}
	for _, typ := range []uint8{attrOrigin, attrASPath} {
		if !s.seen[typ] {
			s.fault(withdraw, attributeName(typ)+" is missing")
		}
	}
	if classic && !s.seen[attrNextHop] {
		s.fault(withdraw, attributeName(attrNextHop)+" is missing")
	}
}

// finish draws the conclusion of what was found.
func (s *survey) finish(attributes bool) (update, error) {
	if s.worst != withdraw {
		return s.update, nil
	}
	// With nothing to announce, the prefixes may be in what could not be read
	// (RFC 7606 §5.2).
	if attributes && !s.reach {
		return update{}, &notification{code: codeUpdate, subcode: updateMalformedList}
	}
	s.withdrawn = append(s.withdrawn, s.announced...)
	s.announced = nil
	return s.update, nil
}

// prefixes appends the prefixes in b to list; false says that they cannot be read
// (RFC 7606 §5.3).
func (s *survey) prefixes(list *[]netip.Prefix, b []byte, f steering.Family) bool {
	if len(b) > 0 && !s.negotiated[f] {
		s.fault(discard, f.String()+" routes were not negotiated")
	}
	for len(b) > 0 {
		bits := int(b[0])
		n := 1 + (bits+7)/8
		if bits > 8*f.Octets() || len(b) < n {
			return false
		}
		if s.negotiated[f] {
			*list = append(*list, prefix(b[1:n], bits, f))
		}
		b = b[n:]
	}
	return true
}

// prefix makes a prefix of its first octets; bits behind its length mean nothing
// (RFC 4271 §4.3).
func prefix(b []byte, bits int, f steering.Family) netip.Prefix {
	var a [16]byte
	copy(a[:], b)
	addr := netip.AddrFrom16(a)
	if f == steering.IPv4 {
		addr = netip.AddrFrom4([4]byte(a[:]))
	}
	return netip.PrefixFrom(addr, bits).Masked()
}
