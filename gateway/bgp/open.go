package bgp

import (
	"encoding/binary"
	"net/netip"

	"github.com/razor-steering/razor/steering"
)

const (
	bgpVersion = 4
	// asTrans stands in OPENs for an AS number that two octets do not hold
	// (RFC 6793 §9).
	asTrans = 23456

	openFixed           = 10  // octets before the optional parameters
	parameterCapability = 2   // RFC 5492 §4
	parameterExtended   = 255 // RFC 9072 §2
	minHold             = 3   // seconds, if not 0 (RFC 4271 §4.2)
)

// Capabilities that mean something here; all others are ignored (RFC 5492 §3).
const (
	capMultiprotocol = 1  // RFC 4760 §8
	capRefresh       = 2  // RFC 2918 §2
	capNextHop       = 5  // RFC 8950 §4
	capRestart       = 64 // RFC 4724 §3
	capFourOctetAS   = 65 // RFC 6793 §3
)

// Bits of the graceful restart capability (RFC 4724 §3, RFC 8538 §2).
const (
	restartState   = 0x80 // R, in the first octet
	restartNotify  = 0x40 // N, in the first octet
	restartForward = 0x80 // F, in the last octet of a family
)

// open is what an OPEN says, as far as it means something here.
type open struct {
	as        uint32
	fourOctet bool       // AS numbers in UPDATEs have four octets (RFC 6793)
	hold      uint16     // seconds; 0 is no hold timer
	id        netip.Addr // IPv4, whatever the session runs over
	families  families
	nextHop6  bool // IPv4 routes may have an IPv6 next hop (RFC 8950)
	refresh   bool
	restart   restart
}

// restart is the graceful restart capability (RFC 4724 §3). The zero value is none.
type restart struct {
	present      bool
	restarting   bool // R: back from a restart
	notification bool // N: also after a NOTIFICATION (RFC 8538)
	seconds      uint16
	families     families
	forwarding   families // F: of the families, those with forwarding state kept
}

// parseOpen reads the body of an OPEN. An error is the *notification for the peer
// (RFC 4271 §6.2). Without the multiprotocol capability the family is IPv4; there
// may be no family at all, if all of the peer's are others.
func parseOpen(body []byte) (open, error) {
	if len(body) < openFixed {
		return open{}, badLength(binary.BigEndian.AppendUint16(nil, uint16(headerLen+len(body))))
	}
	if body[0] != bgpVersion {
		return open{}, &notification{code: codeOpen, subcode: openBadVersion, data: []byte{0, bgpVersion}}
	}
	o := open{
		as:   uint32(binary.BigEndian.Uint16(body[1:])),
		hold: binary.BigEndian.Uint16(body[3:]),
		id:   netip.AddrFrom4([4]byte(body[5:])),
	}
	if o.hold != 0 && o.hold < minHold {
		return open{}, &notification{code: codeOpen, subcode: openBadHoldTime}
	}
	if o.id.IsUnspecified() { // RFC 6286 §2.1
		return open{}, &notification{code: codeOpen, subcode: openBadIdentifier}
	}
	if err := o.takeCapabilities(body); err != nil {
		return open{}, err
	}
	return o, nil
}

// takeCapabilities reads the capabilities of an OPEN into o, whose AS is that of
// the fixed part so far.
func (o *open) takeCapabilities(body []byte) error {
	short, multiprotocol := o.as, false
	err := eachCapability(body, func(code uint8, value []byte) bool {
		multiprotocol = multiprotocol || code == capMultiprotocol
		return o.take(code, value)
	})
	if err != nil {
		return err
	}
	// An AS of 0 is none (RFC 7607), and a peer has one number, not two.
	if o.as == 0 || short != o.as && short != asTrans {
		return &notification{code: codeOpen, subcode: openBadAS}
	}
	if !multiprotocol {
		o.families[steering.IPv4] = true
	}
	return nil
}

// take reads one capability; false says that it is malformed. Where one comes more
// than once, the last counts, or what all of them say together.
func (o *open) take(code uint8, value []byte) bool {
	switch code {
	case capMultiprotocol:
		if len(value) != 4 {
			return false
		}
		if f, ok := familyOf(binary.BigEndian.Uint16(value), value[3]); ok {
			o.families[f] = true
		}
	case capRefresh:
		o.refresh = true
		return len(value) == 0
	case capNextHop:
		return o.takeNextHop(value)
	case capRestart:
		return o.restart.take(value)
	case capFourOctetAS:
		if len(value) != 4 {
			return false
		}
		o.as, o.fourOctet = binary.BigEndian.Uint32(value), true
	}
	return true
}

// takeNextHop reads triples of family, subsequent family and family of the next
// hop, all of two octets.
func (o *open) takeNextHop(value []byte) bool {
	for ; len(value) >= 6; value = value[6:] {
		if [6]byte(value) == [6]byte{0, afiIPv4, 0, safiUnicast, 0, afiIPv6} {
			o.nextHop6 = true
		}
	}
	return len(value) == 0
}

// take reads the capability. Of several the last counts (RFC 4724 §3).
func (r *restart) take(value []byte) bool {
	if len(value) < 2 || len(value)%4 != 2 {
		return false
	}
	*r = restart{
		present:      true,
		restarting:   value[0]&restartState != 0,
		notification: value[0]&restartNotify != 0,
		seconds:      binary.BigEndian.Uint16(value) & 0xfff,
	}
	for v := value[2:]; len(v) > 0; v = v[4:] {
		if f, ok := familyOf(binary.BigEndian.Uint16(v), v[2]); ok {
			r.families[f] = true
			r.forwarding[f] = v[3]&restartForward != 0
		}
	}
	return true
}

// eachCapability calls do with each capability in the body of an OPEN, until one
// is malformed. The values lie in body. An error is a *notification.
func eachCapability(body []byte, do func(code uint8, value []byte) bool) error {
	malformed := &notification{code: codeOpen, subcode: openUnspecific} // RFC 4271 §6.2
	p, head, ok := parameters(body)
	if !ok {
		return malformed
	}
	for len(p) > 0 {
		if len(p) < head {
			return malformed
		}
		n := int(p[1])
		if head == 3 {
			n = int(binary.BigEndian.Uint16(p[1:]))
		}
		if len(p) < head+n {
			return malformed
		}
		if p[0] != parameterCapability {
			return &notification{code: codeOpen, subcode: openBadParameter}
		}
		if !inParameter(p[head:head+n], do) {
			return malformed
		}
		p = p[head+n:]
	}
	return nil
}

// parameters returns the optional parameters of an OPEN, and how many octets type
// and length of each take (RFC 9072 §2). They have to end where the message does.
func parameters(body []byte) (p []byte, head int, ok bool) {
	if len(body) < openFixed {
		return nil, 0, false
	}
	n, p := int(body[openFixed-1]), body[openFixed:]
	head = 2
	if n > 0 && len(p) > 0 && p[0] == parameterExtended {
		if len(p) < 3 {
			return nil, 0, false
		}
		n, p, head = int(binary.BigEndian.Uint16(p[1:])), p[3:], 3
	}
	return p, head, n == len(p)
}

// inParameter calls do with each capability of one optional parameter; false says
// that one is malformed.
func inParameter(b []byte, do func(code uint8, value []byte) bool) bool {
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		n := 2 + int(b[1])
		if !do(b[0], b[2:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// check says whether a peer that is to be of the AS as may be spoken to by us, who
// sent own. An error is the *notification for the peer.
func (o open) check(as uint32, own open) error {
	switch {
	case o.as != as:
		return &notification{code: codeOpen, subcode: openBadAS}
	case o.as == own.as && o.id == own.id: // RFC 6286 §2.2
		return &notification{code: codeOpen, subcode: openBadIdentifier}
	case !o.families.both(own.families).any():
		// What the peer lacks (RFC 5492 §5).
		return &notification{code: codeOpen, subcode: openBadCapability, data: own.families.capabilities(nil)}
	}
	return nil
}

// encode returns the OPEN that says what o does and nothing else: parseOpen makes o
// of it again.
func (o open) encode() message {
	short := o.as
	if o.fourOctet && short > 0xffff {
		short = asTrans
	}
	body := []byte{bgpVersion}
	body = binary.BigEndian.AppendUint16(body, uint16(short))
	body = binary.BigEndian.AppendUint16(body, o.hold)
	id := o.id.As4()
	body = append(body, id[:]...)
	c := o.capabilities() // never none
	body = append(body, byte(2+len(c)), parameterCapability, byte(len(c)))
	return newMessage(typeOpen, append(body, c...))
}

// capabilities returns the capabilities of o.
func (o open) capabilities() []byte {
	b := o.families.capabilities(nil)
	if !o.families.any() { // one that does not exist: without any it would be IPv4
		b = append(b, capMultiprotocol, 4, 0, 0, 0, 0)
	}
	if o.refresh {
		b = append(b, capRefresh, 0)
	}
	if o.nextHop6 {
		b = append(b, capNextHop, 6, 0, afiIPv4, 0, safiUnicast, 0, afiIPv6)
	}
	if o.restart.present {
		b = o.restart.appendTo(b)
	}
	if o.fourOctet {
		b = binary.BigEndian.AppendUint32(append(b, capFourOctetAS, 4), o.as)
	}
	return b
}

// capabilities appends the multiprotocol capability of each family.
func (f families) capabilities(b []byte) []byte {
	for family, on := range f {
		if on {
			b = binary.BigEndian.AppendUint16(append(b, capMultiprotocol, 4), afiOf(steering.Family(family)))
			b = append(b, 0, safiUnicast)
		}
	}
	return b
}

// appendTo appends the capability.
func (r restart) appendTo(b []byte) []byte {
	var v []byte
	for family, on := range r.families {
		if on {
			v = binary.BigEndian.AppendUint16(v, afiOf(steering.Family(family)))
			v = append(v, safiUnicast, bit(r.forwarding[family], restartForward))
		}
	}
	b = append(b, capRestart, byte(2+len(v)))
	flags := bit(r.restarting, restartState) | bit(r.notification, restartNotify)
	b = binary.BigEndian.AppendUint16(b, uint16(flags)<<8|r.seconds&0xfff)
	return append(b, v...)
}

// bit returns mask if on.
func bit(on bool, mask byte) byte {
	if on {
		return mask
	}
	return 0
}

// setRestart makes an OPEN of ours tell the peer whether we are back from a
// restart, and that the forwarding state of every family was kept, which the
// dataplane does without the process. It changes m, and nothing where that has no
// graceful restart capability.
func setRestart(m message, restarting bool) error {
	return eachCapability(m.body(), func(code uint8, value []byte) bool {
		if code != capRestart {
			return true
		}
		if len(value) < 2 || len(value)%4 != 2 {
			return false
		}
		value[0] = value[0]&^restartState | bit(restarting, restartState)
		for v := value[2:]; len(v) > 0; v = v[4:] {
			v[3] |= restartForward
		}
		return true
	})
}
