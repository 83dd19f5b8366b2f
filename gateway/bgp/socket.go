package bgp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// classSelector6 marks packets as routing (RFC 2474 §4.2.2.2).
const classSelector6 = 0xc0

// A socket is what the kernel has to know of a connection to one peer.
type socket struct {
	peer     netip.Addr
	name     string // of the peer
	key      string // of TCP MD5 (RFC 2385); none when empty
	hopLimit int    // of what is sent; the kernel's when 0
	least    int    // of what is taken (RFC 5082); any when 0
}

// socket is that of the peer's configuration.
func (p *PeerConfig) socket(peer netip.Addr) (socket, error) {
	s := socket{peer: peer, name: p.Name, key: p.Password, hopLimit: 255}
	switch {
	case p.TTLSecurity > 0:
		s.least = 256 - p.TTLSecurity
	case p.Multihop > 0:
		s.hopLimit = p.Multihop
	}
	if p.PasswordFile != "" {
		key, err := os.ReadFile(p.PasswordFile)
		if err != nil {
			return s, err
		}
		s.key = strings.TrimRight(string(key), "\r\n")
		if s.key == "" || len(s.key) > maxMD5 {
			return s, errNotPassword
		}
	}
	return s, nil
}

// control sets the options of a socket that is about to call or listen.
func (s socket) control(_, _ string, c syscall.RawConn) error {
	return onSocket(c, func(fd int) error {
		if s.key != "" {
			if err := s.setKey(fd); err != nil {
				return err
			}
		}
		return s.setHops(fd)
	})
}

// accepted sets the options of a connection that came to us.
func (s socket) accepted(conn *net.TCPConn) error {
	c, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return onSocket(c, s.setHops)
}

func onSocket(c syscall.RawConn, set func(fd int) error) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = set(int(fd)) }), err)
}

func (s socket) setHops(fd int) error {
	level, class, hops, least := unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_UNICAST_HOPS, unix.IPV6_MINHOPCOUNT
	if s.peer.Is4() {
		level, class, hops, least = unix.IPPROTO_IP, unix.IP_TOS, unix.IP_TTL, unix.IP_MINTTL
	}
	for _, o := range []struct{ option, value int }{{class, classSelector6}, {hops, s.hopLimit}, {least, s.least}} {
		if o.value == 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, level, o.option, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// setKey gives the kernel the key for the peer; an empty one takes it away.
func (s socket) setKey(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	sig := unix.TCPMD5Sig{Keylen: uint16(len(s.key))}
	copy(sig.Key[:], s.key)
	if family == unix.AF_INET {
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sig.Addr))
		a.Family, a.Addr = unix.AF_INET, s.peer.As4()
	} else {
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(&sig.Addr))
		a.Family, a.Addr = unix.AF_INET6, s.peer.As16() // of IPv4 the mapped form
	}
	err = unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
	if err == unix.ENOENT && s.key == "" {
		return nil // there was none
	}
	return os.NewSyscallError("setsockopt TCP_MD5SIG", err)
}

// listen opens the port, for IPv6 and IPv4, with the keys of those that have one: they
// are there before the first call is. The error is a Defect where the kernel refuses one.
func listen(ctx context.Context, port int, keys ...socket) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return onSocket(c, func(fd int) error {
			for _, s := range keys {
				if err := s.setKey(fd); err != nil {
					return passwordDefect(s.name, err)
				}
			}
			// The answer to a call comes before it is known who called: whoever
			// demands a hop limit of 255 has to get it.
			return errors.Join(
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 255))
		})
	}}
	config.SetMultipathTCP(false) // which has no TCP MD5
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort("::", fmt.Sprint(port)))
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
