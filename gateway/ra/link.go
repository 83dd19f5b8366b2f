package ra

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// recheck is how often the interface is compared with what it was.
const recheck = time.Second

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// link is an interface that is up, and a socket for neighbour discovery on it.
type link struct {
	device *net.Interface
	addr   netip.Addr // a link-local address of it, without zone
	conn   *ndp.Conn
}

// open fails where the interface is not there, or not ready yet.
func open(name string) (*link, error) {
	device, addrs, err := look(name)
	if err != nil {
		return nil, err
	}
	// By number: see Peer.Dial.
	numbered := *device
	numbered.Name = strconv.Itoa(device.Index)
	conn, _, err := ndp.Listen(&numbered, ndp.Addr(addrs[0].String()))
	if errors.Is(err, unix.EPERM) {
		return nil, errNotAllowed
	}
	if err != nil {
		return nil, err
	}
	l := &link{device: device, addr: addrs[0], conn: conn}
	if err := l.prepare(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return l, nil
}

// look is the interface as it is now, with its link-local addresses, of which there is
// one at least.
func look(name string) (*net.Interface, []netip.Addr, error) {
	device, err := net.InterfaceByName(name)
	if unsure(err) {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, errors.New("no such interface")
	}
	if up := net.FlagUp | net.FlagRunning; device.Flags&up != up {
		return nil, nil, errors.New("the link is down")
	}
	all, err := device.Addrs()
	if err != nil {
		return nil, nil, err
	}
	var addrs []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, p.Addr())
		}
	}
	if addrs == nil {
		return nil, nil, errors.New("no link-local address")
	}
	return device, addrs, nil
}

func (l *link) prepare() error {
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	return errors.Join(
		l.conn.SetICMPFilter(&filter),
		l.conn.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true),
		l.conn.JoinGroup(allNodes),
		l.conn.JoinGroup(allRouters),
	)
}

// serve advertises and listens until the interface changes or the socket is closed.
func (l *link) serve(w *watcher) error {
	var (
		times  timetable
		router choice
		check  = time.Now().Add(recheck)
		buf    = make([]byte, max(1500, l.device.MTU))
	)
	for {
		now := time.Now()
		if !now.Before(check) {
			if err := l.unchanged(); err != nil {
				return err
			}
			check = now.Add(recheck)
		}
		if times.due(now) {
			// A packet that could not be sent is no loss of the link.
			if err := l.send(router.wanted()); err != nil {
				w.complain(err)
			}
			times.sent(now, rand.Float64())
		}
		until := times.next
		if check.Before(until) {
			until = check
		}
		m, source, err := l.receive(buf, until)
		if err != nil {
			return err
		}
		switch m.(type) {
		case *ndp.RouterSolicitation:
			times.hurry()
		case *ndp.RouterAdvertisement:
			if router.hear(source, now) {
				w.log.Warn("another router on an unnumbered link", "router", source, "peer", router.peer)
				times.hurry() // asks both
			}
			w.set(router.peer, l.device.Index)
		}
	}
}

// unchanged is an error when the interface is no longer what it was.
func (l *link) unchanged() error {
	device, addrs, err := look(l.device.Name)
	if unsure(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if device.Index != l.device.Index || !bytes.Equal(device.HardwareAddr, l.device.HardwareAddr) || !slices.Contains(addrs, l.addr) {
		return errors.New("the interface has changed")
	}
	return nil
}

// unsure tells whether the kernel could not be asked, for want of descriptors say:
// that is no news of the link.
func unsure(err error) bool {
	_, ok := errors.AsType[*os.SyscallError](err)
	return ok
}

// send advertises this host, and with solicit asks routers to do so.
func (l *link) send(solicit bool) error {
	var options []ndp.Option
	if len(l.device.HardwareAddr) == 6 {
		options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: l.device.HardwareAddr}}
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(retry)); err != nil {
		return err
	}
	// All values 0: unspecified, and no default router (RFC 4861 §4.2).
	if err := l.conn.WriteTo(&ndp.RouterAdvertisement{Options: options}, nil, allNodes); err != nil {
		return fmt.Errorf("send a router advertisement: %w", err)
	}
	if !solicit {
		return nil
	}
	if err := l.conn.WriteTo(&ndp.RouterSolicitation{Options: options}, nil, allRouters); err != nil {
		return fmt.Errorf("send a router solicitation: %w", err)
	}
	return nil
}

// receive is the next message that is valid, and where it is from; nil when it is not,
// or none has come until then.
func (l *link) receive(buf []byte, until time.Time) (ndp.Message, netip.Addr, error) {
	if err := l.conn.SetReadDeadline(until); err != nil {
		return nil, netip.Addr{}, err
	}
	n, control, source, err := l.conn.ReadRaw(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, netip.Addr{}, nil
	}
	if err != nil {
		return nil, netip.Addr{}, err
	}
	source = source.WithZone("")
	if control == nil || control.IfIndex != l.device.Index || source == l.addr {
		return nil, netip.Addr{}, nil
	}
	return valid(buf[:n], control.HopLimit, source), source, nil
}

// valid is the Router Solicitation or Advertisement in b, or nil where it is none that
// RFC 4861 §6.1 allows. The kernel has checked the checksum.
func valid(b []byte, hopLimit int, source netip.Addr) ndp.Message {
	// Who is not on the link cannot send 255.
	if hopLimit != ndp.HopLimit || len(b) < 2 || b[1] != 0 {
		return nil
	}
	m, err := ndp.ParseMessage(b)
	if err != nil {
		return nil
	}
	switch m := m.(type) {
	case *ndp.RouterAdvertisement:
		if source.IsLinkLocalUnicast() {
			return m
		}
	case *ndp.RouterSolicitation:
		named := slices.ContainsFunc(m.Options, func(o ndp.Option) bool { return o.Code() == byte(ndp.Source) })
		if !source.IsUnspecified() || !named {
			return m
		}
	}
	return nil
}
