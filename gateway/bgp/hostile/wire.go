package hostile

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
)

const (
	headerLen  = 19
	maxMessage = 4096
)

const (
	typeOpen         = 1
	typeUpdate       = 2
	typeNotification = 3
	typeKeepalive    = 4
	typeRefresh      = 5
)

var marker = bytes.Repeat([]byte{0xff}, 16)

// raw is a message that says to be n octets long, whatever it is.
func raw(n int, typ byte, body []byte) []byte {
	return slices.Concat(marker, u16(n), []byte{typ}, body)
}

// message is one whose length is right.
func message(typ byte, body ...[]byte) []byte {
	b := slices.Concat(body...)
	return raw(headerLen+len(b), typ, b)
}

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func keepalive() []byte { return message(typeKeepalive) }

// open is the OPEN of the peer with these optional parameters.
func open(hold int, parameters []byte) []byte {
	return message(typeOpen, openBody(4, AS, hold, ID, len(parameters), parameters))
}

// openBody has the fields that it is told, also where they do not fit together.
func openBody(version, as, hold int, id string, n int, parameters []byte) []byte {
	return slices.Concat([]byte{byte(version)}, u16(as), u16(hold), netip.MustParseAddr(id).AsSlice(), []byte{byte(n)}, parameters)
}

// parameter is an optional parameter, capability a capability in it.
func parameter(typ byte, value ...[]byte) []byte   { return tlv(typ, value...) }
func capability(code byte, value ...[]byte) []byte { return tlv(code, value...) }

// tlv is a type, a length of one octet, and a value.
func tlv(typ byte, value ...[]byte) []byte {
	b := slices.Concat(value...)
	return slices.Concat([]byte{typ, byte(len(b))}, b)
}

// capabilities are what the peer can do: both families, route refresh and AS
// numbers of four octets.
func capabilities() []byte {
	return slices.Concat(
		capability(1, []byte{0, 1, 0, 1}), capability(1, []byte{0, 2, 0, 1}),
		capability(2), capability(65, u16(0), u16(AS)),
		capability(5, []byte{0, 1, 0, 1, 0, 2}),
	)
}

// update is an UPDATE whose lengths are right.
func update(withdrawn, attributes, nlri []byte) []byte {
	return message(typeUpdate, u16(len(withdrawn)), withdrawn, u16(len(attributes)), attributes, nlri)
}

// Flags of attributes.
const (
	optional   = 0x80
	transitive = 0x40
	extended   = 0x10
)

// attribute is a path attribute whose length is right, of as many octets as the
// flags say.
func attribute(flags, typ byte, value ...[]byte) []byte {
	b := slices.Concat(value...)
	return attributeOf(flags, typ, len(b), b)
}

// attributeOf is one that says to be n octets long.
func attributeOf(flags, typ byte, n int, value []byte) []byte {
	length := []byte{byte(n)}
	if flags&extended != 0 {
		length = u16(n)
	}
	return slices.Concat([]byte{flags, typ}, length, value)
}

// What is announced where something has to be.
var (
	host4     = []byte{32, 203, 0, 113, 66}
	host6     = slices.Concat([]byte{128}, netip.MustParseAddr("2001:db8:666::1").AsSlice())
	nextHop6  = netip.MustParseAddr("2001:db8::66").AsSlice()
	origin    = attribute(transitive, 1, []byte{0})
	asPath    = attribute(transitive, 2, []byte{2, 1}, u16(0), u16(AS))
	nextHop   = attribute(transitive, 3, []byte{192, 0, 2, 66})
	mandatory = slices.Concat(origin, asPath, nextHop)
)

// mandatoryBut are the attributes that an announcement needs, without one type.
func mandatoryBut(typ byte) []byte {
	var b []byte
	for _, a := range [][]byte{origin, asPath, nextHop} {
		if a[1] != typ {
			b = append(b, a...)
		}
	}
	return b
}

// mpReach is the value of MP_REACH_NLRI, mpUnreach that of MP_UNREACH_NLRI.
func mpReach(afi int, safi byte, hop, nlri []byte) []byte {
	return slices.Concat(u16(afi), []byte{safi, byte(len(hop))}, hop, []byte{0}, nlri)
}

func mpUnreach(afi int, safi byte, nlri []byte) []byte {
	return slices.Concat(u16(afi), []byte{safi}, nlri)
}

// zeros are n octets of 0.
func zeros(n int) []byte { return make([]byte, n) }
