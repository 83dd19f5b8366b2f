package steering

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// FlowKey is the key under which a service hashes its flows, the same one at all
// sites. Who does not know it cannot aim at a slot.
type FlowKey [2]uint64

// Flow is what of a packet counts for its slot. The ports are numbers (443 is
// 443); both are 0 where a protocol has none, and the source port of an ICMP echo
// is its identifier.
type Flow struct {
	Client          netip.Addr // IPv4 is the same as its IPv4-mapped address
	SourcePort      uint16
	DestinationPort uint16
	Protocol        uint8
}

// FlowHash is the hash of a flow that the balancer computes for each packet
// (flow_hash in gateway/bpf/include/flow.h): SipHash-1-3 (Aumasson and Bernstein,
// 2012) of 21 bytes as they are on the wire, namely the client's address with
// IPv4 as IPv4-mapped (RFC 4291 section 2.5.5.2), the source port, the destination
// port and the protocol. SipHash reads its input as little-endian words.
func FlowHash(key FlowKey, f Flow) uint64 {
	address := f.Client.As16()
	const length = 21
	last := uint64(length)<<56 | uint64(f.Protocol)<<32 |
		uint64(bits.ReverseBytes16(f.DestinationPort))<<16 | uint64(bits.ReverseBytes16(f.SourcePort))

	s := sip{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573}
	s.word(binary.LittleEndian.Uint64(address[:8]))
	s.word(binary.LittleEndian.Uint64(address[8:]))
	s.word(last)
	s[2] ^= 0xff
	s.round()
	s.round()
	s.round()
	return s[0] ^ s[1] ^ s[2] ^ s[3]
}

// sip is the state of a SipHash with one round for each word.
type sip [4]uint64

func (s *sip) word(m uint64) {
	s[3] ^= m
	s.round()
	s[0] ^= m
}

func (s *sip) round() {
	v0, v1, v2, v3 := s[0], s[1], s[2], s[3]
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 += v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v2 = bits.RotateLeft64(v2, 32)
	s[0], s[1], s[2], s[3] = v0, v1, v2, v3
}

// FlowSlot is the slot of a flow with a hash, below TableSlots: the hash's lower
// half, scaled.
func FlowSlot(hash uint64) uint32 {
	return uint32(uint64(uint32(hash)) * TableSlots >> 32)
}

// FlowLabel is the outer flow label of a flow with a hash (RFC 6437 section 3): 20
// bits, never 0. It is made of other bits than the slot, so that the flows of a
// slot still spread over paths.
func FlowLabel(hash uint64) uint32 {
	return max(uint32(hash>>44), 1)
}
