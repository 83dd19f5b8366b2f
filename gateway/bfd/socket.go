package bfd

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	port = 3784 // RFC 5881 §4
	// hopLimit is sent and required: a packet from farther than the link has less
	// (RFC 5881 §5, RFC 5082).
	hopLimit = 255
	// networkControl is the traffic class CS6, that of routing protocols.
	networkControl = 0xc0
	priority       = 6 // of the queue of the device, the highest for all
	firstSource    = 49152
	lastSource     = 65535
	maxPayload     = 256 // a packet says its length in an octet
)

// socket is a UDP socket of one family.
type socket struct {
	conn *net.UDPConn
	v4   *ipv4.PacketConn
	v6   *ipv6.PacketConn
}

// origin is where a packet came from.
type origin struct {
	addr     netip.Addr // without a zone
	ifIndex  int
	hopLimit int
	at       time.Time
}

// openReceiver opens the port of control packets on an address.
func openReceiver(addr netip.Addr) (*socket, error) {
	s, err := open(netip.AddrPortFrom(addr, port))
	if err != nil {
		return nil, err
	}
	if s.v4 != nil {
		err = s.v4.SetControlMessage(ipv4.FlagTTL|ipv4.FlagInterface, true)
	} else {
		err = s.v6.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// openSender opens a socket to send to an address from. Its port is in the range
// of RFC 5881 §4 and of no other session.
func openSender(to netip.Addr) (s *socket, err error) {
	local := netip.IPv6Unspecified()
	if to.Is4() {
		local = netip.IPv4Unspecified()
	}
	for range 100 {
		source := uint16(firstSource + rand.IntN(lastSource-firstSource+1))
		if s, err = open(netip.AddrPortFrom(local, source)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	if err := s.mark(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func open(addr netip.AddrPort) (*socket, error) {
	network := "udp6"
	if addr.Addr().Is4() {
		network = "udp4"
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	s := &socket{conn: c}
	if addr.Addr().Is4() {
		s.v4 = ipv4.NewPacketConn(c)
	} else {
		s.v6 = ipv6.NewPacketConn(c)
	}
	return s, nil
}

// mark has packets sent before others and with the hop limit that is required.
func (s *socket) mark() error {
	var err error
	if s.v4 != nil {
		if err = s.v4.SetTTL(hopLimit); err == nil {
			err = s.v4.SetTOS(networkControl)
		}
	} else {
		if err = s.v6.SetHopLimit(hopLimit); err == nil {
			err = s.v6.SetTrafficClass(networkControl)
		}
	}
	if err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	if cerr := raw.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, priority))
	}); cerr != nil {
		return cerr
	}
	return err
}

func (s *socket) close() { _ = s.conn.Close() }

// read waits for a packet.
func (s *socket) read(b []byte) (int, origin, error) {
	var (
		n      int
		from   origin
		source net.Addr
		err    error
	)
	if s.v4 != nil {
		var cm *ipv4.ControlMessage
		if n, cm, source, err = s.v4.ReadFrom(b); cm != nil {
			from.ifIndex, from.hopLimit = cm.IfIndex, cm.TTL
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, source, err = s.v6.ReadFrom(b); cm != nil {
			from.ifIndex, from.hopLimit = cm.IfIndex, cm.HopLimit
		}
	}
	if err != nil {
		return 0, origin{}, err
	}
	from.at = time.Now()
	from.addr = source.(*net.UDPAddr).AddrPort().Addr().WithZone("").Unmap()
	return n, from, nil
}

// write sends to an address without a zone: through the interface, if not 0, and
// from the local address, if valid. The route is looked up anew each time.
func (s *socket) write(b []byte, to, local netip.Addr, ifIndex int) error {
	dst := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port))
	var src net.IP
	if local.IsValid() {
		src = local.AsSlice()
	}
	var err error
	if s.v4 != nil {
		_, err = s.v4.WriteTo(b, &ipv4.ControlMessage{Src: src, IfIndex: ifIndex}, dst)
	} else {
		_, err = s.v6.WriteTo(b, &ipv6.ControlMessage{Src: src, IfIndex: ifIndex}, dst)
	}
	return err
}
