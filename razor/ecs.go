package razor

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

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

// echo is the option for the answer. scope is how much of the address the
// answer depends on, never more than the client gave.
func (s *clientSubnet) echo(scope int) *dns.EDNS0_SUBNET {
	addr := s.addr
	if s.family == ecsNone {
		addr = netip.IPv4Unspecified()
	}
	return &dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: s.family, SourceNetmask: s.source,
		SourceScope: uint8(min(scope, int(s.source))), Address: addr.AsSlice(),
	}
}
