package razor

import (
	"encoding/binary"
	"net/netip"
)

const codeECS = 8

// Address families of EDNS client subnet (RFC 7871 §6).
const (
	ecsNone = 0 // with a source prefix length of 0 only, as dig +subnet=0 sends it
	ecsIPv4 = 1
	ecsIPv6 = 2
)

// clientSubnet is an EDNS client subnet option of a query (RFC 7871).
type clientSubnet struct {
	family uint16
	source uint8 // SOURCE PREFIX-LENGTH
	addr   netip.Addr
}

// parse reads the option's data. It is false for what is to be rejected with
// FORMERR: an unknown family, a length that does not fit the family, a scope,
// address octets too few or too many, bits set behind the prefix (RFC 7871
// §6, §7.2.1).
func (s *clientSubnet) parse(data []byte) bool {
	if len(data) < 4 || data[3] != 0 {
		return false
	}
	s.family, s.source = binary.BigEndian.Uint16(data), data[2]
	octets := data[4:]
	bits := 0
	switch s.family {
	case ecsNone:
	case ecsIPv4:
		bits = 32
	case ecsIPv6:
		bits = 128
	default:
		return false
	}
	if int(s.source) > bits || len(octets) != (int(s.source)+7)/8 {
		return false
	}
	var full [16]byte
	copy(full[:], octets)
	s.addr, _ = netip.AddrFromSlice(full[:bits/8])
	if bits == 0 {
		return true
	}
	return netip.PrefixFrom(s.addr, int(s.source)).Masked().Addr() == s.addr
}

// optionLen is the length of the option in an answer, in octets.
func (s *clientSubnet) optionLen() int { return 4 + 4 + (int(s.source)+7)/8 }

// appendOption adds the option for an answer. scope is how much of the address
// the answer depends on, never more than the client gave.
func (s *clientSubnet) appendOption(dst []byte, scope int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, codeECS)
	dst = binary.BigEndian.AppendUint16(dst, uint16(s.optionLen()-4))
	dst = binary.BigEndian.AppendUint16(dst, s.family)
	dst = append(dst, s.source, byte(min(scope, int(s.source))))
	return append(dst, s.addr.AsSlice()[:(int(s.source)+7)/8]...)
}
