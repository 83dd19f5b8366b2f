package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Pin says that a flow belongs to the sender of the datagram, or to one of its
// containers.
type Pin struct {
	Client   netip.AddrPort
	VIP      netip.AddrPort
	Protocol uint8  // TCP or UDP, by its number
	Target   uint16 // of the owner's SID: 0 is the host itself
}

// Protocols with flows that a pin may be of.
const (
	protocolTCP = 6
	protocolUDP = 17
)

// Where the parts of a pin are: see the package's text.
const (
	atClient     = 0
	atVIP        = 16
	atClientPort = 32
	atVIPPort    = 34
	atProtocol   = 36
	atSpare      = 37
	atTarget     = 38
	pinBytes     = 40
)

// MaxPins is how many pins a datagram can have.
const MaxPins = (MaxDatagram - atBody - sealBytes) / pinBytes

// check is an error where no flow can be what the pin says.
func (p *Pin) check() error {
	client, vip := p.Client.Addr(), p.VIP.Addr()
	switch {
	case !isHost(client):
		return fmt.Errorf("client %v: want the address of a host", client)
	case !isHost(vip):
		return fmt.Errorf("VIP %v: want the address of a host", vip)
	case isIPv4(client) != isIPv4(vip):
		return fmt.Errorf("client %v and VIP %v: want one family", client, vip)
	case p.Client.Port() == 0 || p.VIP.Port() == 0:
		return errors.New("port 0")
	case p.Protocol != protocolTCP && p.Protocol != protocolUDP:
		return fmt.Errorf("protocol %d: want TCP or UDP", p.Protocol)
	}
	return nil
}

func isIPv4(a netip.Addr) bool { return a.Is4() || a.Is4In6() }

func isHost(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsValid() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

func (p *Pin) appendTo(dst []byte) []byte {
	client, vip := p.Client.Addr().As16(), p.VIP.Addr().As16()
	dst = append(dst, client[:]...)
	dst = append(dst, vip[:]...)
	dst = binary.BigEndian.AppendUint16(dst, p.Client.Port())
	dst = binary.BigEndian.AppendUint16(dst, p.VIP.Port())
	dst = append(dst, p.Protocol, 0)
	return binary.BigEndian.AppendUint16(dst, p.Target)
}

// pinOf reads the bytes of one pin.
func pinOf(b []byte) (Pin, error) {
	address := func(at, port int) netip.AddrPort {
		a := netip.AddrFrom16([16]byte(b[at : at+16])).Unmap()
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[port:]))
	}
	p := Pin{
		Client:   address(atClient, atClientPort),
		VIP:      address(atVIP, atVIPPort),
		Protocol: b[atProtocol],
		Target:   binary.BigEndian.Uint16(b[atTarget:]),
	}
	if b[atSpare] != 0 || p.check() != nil {
		return Pin{}, Malformed
	}
	return p, nil
}

// AppendPins appends the pins of a message, all or none. The error is [Malformed].
func (m Message) AppendPins(dst []Pin) ([]Pin, error) {
	if m.Type != TypePins || len(m.Body) == 0 || len(m.Body)%pinBytes != 0 {
		return dst, Malformed
	}
	all := dst
	for b := m.Body; len(b) > 0; b = b[pinBytes:] {
		p, err := pinOf(b)
		if err != nil {
			return dst, err
		}
		all = append(all, p)
	}
	return all, nil
}
