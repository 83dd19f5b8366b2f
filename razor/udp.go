package razor

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	receiveBuffer = 4 << 20 // octets that wait for a worker
	// drain is how long a stopping server still answers what has arrived.
	drain = 50 * time.Millisecond
	// lastCall bounds that under a flood.
	lastCall = time.Second
	// maxUDP is the largest message read; a query is far below.
	maxUDP = 4096
)

// udpSocket is one worker's socket; the kernel spreads queries over those of an
// address (SO_REUSEPORT).
type udpSocket struct {
	conn *net.UDPConn
	// wildcard sockets learn to which address a query came, and answer from it.
	wildcard bool
}

func listenUDP(ctx context.Context, addr netip.AddrPort) (*udpSocket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = udpOptions(int(fd), addr.Addr()) }); cerr != nil {
			return cerr
		}
		return err
	}}
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	c, err := lc.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	return &udpSocket{conn: c.(*net.UDPConn), wildcard: addr.Addr().IsUnspecified()}, nil
}

func udpOptions(fd int, addr netip.Addr) error {
	set := func(level, option, value int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, value))
	}
	if err := set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	// Above the system's limit where we may, else up to it.
	if set(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = set(unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if addr.Is4() {
		// Never fragment by a path MTU that somebody made us believe (RFC 9715 §3.1).
		if err := set(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT); err != nil {
			return err
		}
	} else if err := set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		return err
	}
	switch {
	case !addr.IsUnspecified():
		return nil
	case addr.Is4():
		return set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	default:
		return set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
}

// serveUDP answers what comes to one socket until ctx ends, and then what has
// arrived by then.
func (s *server) serveUDP(ctx context.Context, c *udpSocket) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Now().Add(drain)) })
	defer stop()
	a := s.newAnswerer()
	in := make([]byte, maxUDP)
	oob := make([]byte, 64)
	var stopped time.Time
	for {
		n, oobn, flags, from, err := c.conn.ReadMsgUDPAddrPort(in, oob)
		if err != nil {
			if ctx.Err() != nil && stopped.IsZero() {
				stopped = time.Now()
			}
			// A deadline comes before what has arrived, if this goroutine had to wait.
			if time.Since(stopped) < lastCall && errors.Is(err, os.ErrDeadlineExceeded) && c.unread() {
				_ = c.conn.SetReadDeadline(time.Now().Add(drain))
				continue
			}
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.log.Debug("read error on a UDP socket", "err", err)
			time.Sleep(time.Millisecond) // one that stays must not take the core
			continue
		}
		if flags&unix.MSG_TRUNC != 0 {
			a.counters.drop()
			continue
		}
		out := a.handle(in[:n], from.Addr(), transportUDP)
		if out == nil {
			continue
		}
		var control []byte
		if c.wildcard {
			control = replyFrom(oob[:oobn])
		}
		// The network may refuse an answer; the client asks again.
		_, _, _ = c.conn.WriteMsgUDPAddrPort(out, control, from)
	}
}

// unread tells whether something has arrived that was not read.
func (c *udpSocket) unread() bool {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
	return err == nil && n > 0
}

// replyFrom makes of the control message of a query that of its answer: sent
// from the address that was asked. The interface is left to the routing table,
// but for link-local addresses, which mean nothing without it. What it returns
// is oob itself, changed.
func replyFrom(oob []byte) []byte {
	const header = int(unsafe.Sizeof(unix.Cmsghdr{}))
	if len(oob) < header {
		return nil
	}
	level := int32(binary.NativeEndian.Uint32(oob[unsafe.Offsetof(unix.Cmsghdr{}.Level):]))
	kind := int32(binary.NativeEndian.Uint32(oob[unsafe.Offsetof(unix.Cmsghdr{}.Type):]))
	info := oob[header:]
	switch {
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(info) >= unix.SizeofInet4Pktinfo:
		clear(info[:4]) // ipi_ifindex; ipi_spec_dst is the address
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(info) >= unix.SizeofInet6Pktinfo:
		if addr, _ := netip.AddrFromSlice(info[:16]); !addr.IsLinkLocalUnicast() {
			clear(info[16:20]) // ipi6_ifindex
		}
	default:
		return nil
	}
	return oob
}
