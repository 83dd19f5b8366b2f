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
	addr   netip.Addr // its link-local address, without zone
	conn   *ndp.Conn
}

// open fails where the interface is not there, or not ready yet.
func open(name string) (*link, error) {
	l, err := look(name)
	if err != nil {
		return nil, err
	}
	// By number: see Peer.Dial.
	numbered := *l.device
	numbered.Name = strconv.Itoa(l.device.Index)
	if l.conn, _, err = ndp.Listen(&numbered, ndp.Addr(l.addr.String())); err != nil {
		return nil, err
	}
	if err := l.prepare(); err != nil {
		_ = l.conn.Close()
		return nil, err
	}
	return l, nil
}

// look is the interface as it is now, without a socket.
func look(name string) (*link, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, errors.New("no such interface")
	}
	if up := net.FlagUp | net.FlagRunning; device.Flags&up != up {
		return nil, errors.New("the link is down")
	}
	addrs, err := device.Addrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			return &link{device: device, addr: p.Addr()}, nil
		}
	}
	return nil, errors.New("no link-local address")
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
			if err := l.send(router.wanted()); err != nil {
				return err
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
	now, err := look(l.device.Name)
	if err != nil {
		return err
	}
	if now.device.Index != l.device.Index || !bytes.Equal(now.device.HardwareAddr, l.device.HardwareAddr) || now.addr != l.addr {
		return errors.New("the interface has changed")
	}
	return nil
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
