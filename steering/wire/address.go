package wire

import "net/netip"

// Port is the UDP port that gateways take datagrams at.
const Port = 5205

// Hunt is the SID at which a target of the node, 0 is the host itself, takes the packets
// that are its own (SID_HUNT in gateway/bpf/include/srv6.h).
func (l Locator) Hunt(target uint16) netip.Addr {
	var b [16]byte
	copy(b[:], l[:])
	b[8], b[9], b[10], b[11] = 0x52, 0x01, byte(target>>8), byte(target)
	return netip.AddrFrom16(b)
}

// Address is where a node sends its datagrams from, and where it takes them if it is a
// gateway: its locator with the function of outer sources (SID_SOURCE in
// gateway/bpf/include/srv6.h) and an argument of 0. Whoever got a packet from a gateway
// knows it by that.
func (l Locator) Address() netip.Addr {
	var b [16]byte
	copy(b[:], l[:])
	b[8], b[9] = 0x52, 0x05
	return netip.AddrFrom16(b)
}
