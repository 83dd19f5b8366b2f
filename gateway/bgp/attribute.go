package bgp

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/razor-steering/razor/steering"
)

// Flags of path attributes (RFC 4271 §4.3).
const (
	flagOptional   = 0x80
	flagTransitive = 0x40
	flagExtended   = 0x10 // the length has two octets
)

// Path attributes that are looked into.
const (
	attrOrigin     = 1
	attrASPath     = 2
	attrNextHop    = 3
	attrAggregator = 7
	attrMPReach    = 14
	attrMPUnreach  = 15
	attrAS4Path    = 17
)

const (
	anyLength      = -1
	maxOrigin      = 2
	maxSegment     = 4 // of AS_PATH: AS_CONFED_SET (RFC 5065 §3)
	mpReachFixed   = 5 // octets of MP_REACH_NLRI but next hop and prefixes
	mpUnreachFixed = 3 // octets of MP_UNREACH_NLRI but prefixes
)

// attributeRule is what is asked of an attribute.
type attributeRule struct {
	name     string
	flags    uint8
	length   int  // in octets, or anyLength
	multiple bool // of length, and not nothing
	severity severity
}

// fits tells whether n is a length that the attribute may have.
func (r attributeRule) fits(n int) bool {
	if r.multiple {
		return n > 0 && n%r.length == 0
	}
	return r.length == anyLength || n == r.length
}

// attributeRules are the rules of the attributes that are known (RFC 7606 §7).
// What an external peer must not send is discarded if it is malformed; internal
// peers are treated alike, as nothing of it is used.
var attributeRules = map[uint8]attributeRule{
	attrOrigin:     {"ORIGIN", flagTransitive, 1, false, withdraw},
	attrASPath:     {"AS_PATH", flagTransitive, anyLength, false, withdraw},
	attrNextHop:    {"NEXT_HOP", flagTransitive, 4, false, withdraw},
	4:              {"MULTI_EXIT_DISC", flagOptional, 4, false, withdraw},
	5:              {"LOCAL_PREF", flagTransitive, 4, false, discard},
	6:              {"ATOMIC_AGGREGATE", flagTransitive, 0, false, discard},
	attrAggregator: {"AGGREGATOR", flagOptional | flagTransitive, anyLength, false, discard},
	8:              {"COMMUNITIES", flagOptional | flagTransitive, 4, true, withdraw},
	9:              {"ORIGINATOR_ID", flagOptional, 4, false, discard},
	10:             {"CLUSTER_LIST", flagOptional, 4, true, discard},
	attrMPReach:    {"MP_REACH_NLRI", flagOptional, anyLength, false, withdraw},
	attrMPUnreach:  {"MP_UNREACH_NLRI", flagOptional, anyLength, false, withdraw},
	16:             {"EXTENDED_COMMUNITIES", flagOptional | flagTransitive, 8, true, withdraw},
	attrAS4Path:    {"AS4_PATH", flagOptional | flagTransitive, anyLength, false, discard},
	18:             {"AS4_AGGREGATOR", flagOptional | flagTransitive, 8, false, discard},
	25:             {"IPV6_EXTENDED_COMMUNITIES", flagOptional | flagTransitive, 20, true, withdraw},
	32:             {"LARGE_COMMUNITIES", flagOptional | flagTransitive, 12, true, withdraw},
}

// attributeName names an attribute in a reason.
func attributeName(typ uint8) string {
	if r, ok := attributeRules[typ]; ok {
		return r.name
	}
	return fmt.Sprintf("attribute %d", typ)
}

// attribute is one path attribute; whole is it with flags, type and length.
type attribute struct {
	flags, typ   uint8
	value, whole []byte
}

// isMP tells whether prefixes are in it.
func (a attribute) isMP() bool { return a.typ == attrMPReach || a.typ == attrMPUnreach }

// reset is the end of the session because of a.
func (a attribute) reset(subcode uint8) error {
	return &notification{code: codeUpdate, subcode: subcode, data: append([]byte(nil), a.whole...)}
}

// cutAttribute cuts the first attribute from b. If it does not fit, its flags and
// type are there as far as b goes.
func cutAttribute(b []byte) (a attribute, rest []byte, ok bool) {
	a.whole = b
	if len(b) < 2 {
		return a, nil, false
	}
	a.flags, a.typ = b[0], b[1]
	head := 3
	if a.flags&flagExtended != 0 {
		head = 4
	}
	if len(b) < head {
		return a, nil, false
	}
	n := int(b[2])
	if head == 4 {
		n = int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < head+n {
		return a, nil, false
	}
	a.value, a.whole = b[head:head+n], b[:head+n]
	return a, b[head+n:], true
}

// attributes reads the path attributes. What does not fit ends them; the prefixes
// behind them are found nevertheless (RFC 7606 §4).
func (s *survey) attributes(b []byte) error {
	for len(b) > 0 {
		a, rest, ok := cutAttribute(b)
		if !ok {
			if a.isMP() {
				return a.reset(updateOptional)
			}
			s.fault(withdraw, "attributes do not fit into their field")
			return nil
		}
		if err := s.attribute(a); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// attribute reads one attribute.
func (s *survey) attribute(a attribute) error {
	if s.seen[a.typ] { // RFC 7606 §3 g
		if a.isMP() {
			return &notification{code: codeUpdate, subcode: updateMalformedList}
		}
		s.fault(discard, attributeName(a.typ)+" more than once")
		return nil
	}
	s.seen[a.typ] = true
	rule, known := attributeRules[a.typ]
	switch {
	case !known && a.flags&flagOptional == 0:
		return a.reset(updateUnrecognized) // RFC 4271 §6.3
	case !known:
		return nil
	case a.isMP():
		if a.flags&(flagOptional|flagTransitive) != rule.flags || !s.multiprotocol(a) { // RFC 7606 §5.3, §7.11
			return a.reset(updateOptional)
		}
		return nil
	case a.flags&(flagOptional|flagTransitive) != rule.flags: // RFC 7606 §3 c
		s.fault(withdraw, rule.name+" has wrong flags")
		return nil
	}
	if !rule.fits(len(a.value)) || !s.sound(a) {
		s.fault(rule.severity, rule.name+" is malformed")
	}
	return nil
}

// sound looks into the attributes for which flags and length are not all.
func (s *survey) sound(a attribute) bool {
	octets := 2
	if s.fourOctet {
		octets = 4
	}
	switch a.typ {
	case attrOrigin:
		return a.value[0] <= maxOrigin
	case attrASPath:
		return soundPath(a.value, octets)
	case attrAS4Path:
		return soundPath(a.value, 4)
	case attrAggregator:
		return len(a.value) == octets+4 && !zero(a.value[:octets])
	case attrNextHop:
		if !s.nextHop.IsValid() {
			s.nextHop = netip.AddrFrom4([4]byte(a.value))
		}
	}
	return true
}

// soundPath tells whether b is a path of AS numbers of so many octets, none of
// them 0 (RFC 7606 §7.2, RFC 7607 §2).
func soundPath(b []byte, octets int) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[0] == 0 || b[0] > maxSegment || b[1] == 0 {
			return false
		}
		n := 2 + int(b[1])*octets
		if len(b) < n {
			return false
		}
		for as := b[2:n]; len(as) > 0; as = as[octets:] {
			if zero(as[:octets]) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}

// zero tells whether all octets are 0.
func zero(b []byte) bool {
	for _, o := range b {
		if o != 0 {
			return false
		}
	}
	return true
}

// multiprotocol reads MP_REACH_NLRI or MP_UNREACH_NLRI (RFC 4760 §3, §4); false
// says that its prefixes cannot be read. A family that was not negotiated is not
// looked into.
func (s *survey) multiprotocol(a attribute) bool {
	fixed := mpUnreachFixed
	if a.typ == attrMPReach {
		fixed = mpReachFixed
	}
	if len(a.value) < fixed {
		return false
	}
	f, ok := familyOf(binary.BigEndian.Uint16(a.value), a.value[2])
	if !ok || !s.negotiated[f] {
		s.reach = s.reach || a.typ == attrMPReach
		s.fault(discard, attributeName(a.typ)+" of a family that was not negotiated")
		return true
	}
	if a.typ == attrMPReach {
		return s.mpReach(a.value[3:], f)
	}
	return s.prefixes(&s.withdrawn, a.value[mpUnreachFixed:], f)
}

// mpReach reads what follows the family in MP_REACH_NLRI. The next hop of either
// family may be IPv6, and then with a link-local one behind it (RFC 2545 §3,
// RFC 8950 §3).
func (s *survey) mpReach(b []byte, f steering.Family) bool {
	n := int(b[0])
	if b = b[1:]; len(b) < n+1 { // an octet that means nothing follows
		return false
	}
	switch {
	case n == 4 && f == steering.IPv4:
		s.nextHop = netip.AddrFrom4([4]byte(b))
	case n == 16 || n == 32:
		s.nextHop = netip.AddrFrom16([16]byte(b))
	default:
		return false
	}
	b = b[n+1:]
	s.reach = s.reach || len(b) > 0
	return s.prefixes(&s.announced, b, f)
}
