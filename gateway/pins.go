package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering/wire"
)

// pinLimits are datagrams a second, of up to wire.MaxPins flows each. All of them at
// once are a fraction of a CPU.
var pinLimits = wire.Limits{Senders: 4096, Sender: 200, Total: 2000}

// pinReceiveBuffer holds what comes while a plan is applied, in bytes.
const pinReceiveBuffer = 1 << 20

// reportLimits are those of reports: a few a second of each agent.
var reportLimits = wire.Limits{Senders: 4096, Sender: wire.ReportRate, Total: 40000}

// unexpected is the reason where the kernel would not store a pin.
const unexpected = "kernel"

// Pins takes from agents whose flows are whose, and has them pinned; what they report of
// themselves; and what other sites say of themselves. What it does not believe it counts and forgets. It is a collector of that count.
type Pins struct {
	conn    *net.UDPConn
	locator wire.Locator
	pin     func(f balancer.Flow, owner netip.Addr) error
	refused *prometheus.CounterVec
	reports *reports   // nil takes none
	heard   *summaries // nil takes none

	mu     sync.Mutex
	opener *wire.Opener
}

// newPins is Pins that do not listen.
func newPins(locator netip.Prefix, keys wire.Keys, pin func(f balancer.Flow, owner netip.Addr) error, now time.Time) *Pins {
	p := &Pins{
		locator: wire.LocatorOf(locator.Addr()), pin: pin, refused: newPinRefusals(),
	}
	p.opener = wire.NewOpener(p.locator, keys, pinLimits, now)
	return p
}

func newPinRefusals() *prometheus.CounterVec {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "razor_gateway_pin_refusals_total",
		Help: "Datagrams of agents, and flows in them, that were not believed, by reason.",
	}, []string{"reason"})
	for r := range wire.Refusals {
		refused.WithLabelValues(r.Label())
	}
	for _, r := range balancer.PinRefusals {
		refused.WithLabelValues(string(r))
	}
	refused.WithLabelValues(unexpected)
	return refused
}

// ListenPins listens at the address of a gateway's locator (wire.Locator.Address), which
// it makes one of the host's, in the network namespace of the calling thread. pin is
// called for each flow, one at a time: [balancer.Keeper.Pin].
func ListenPins(locator netip.Prefix, keys wire.Keys, pin func(f balancer.Flow, owner netip.Addr) error) (*Pins, error) {
	p := newPins(locator, keys, pin, time.Now())
	at := netip.AddrPortFrom(p.locator.Address(), wire.Port)
	if err := own(at.Addr()); err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	free := net.ListenConfig{Control: freely}
	conn, err := free.ListenPacket(context.Background(), "udp6", at.String())
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	p.conn = conn.(*net.UDPConn)
	_ = p.conn.SetReadBuffer(pinReceiveBuffer) // a smaller one loses pins, and no flows
	return p, nil
}

// own has the host take packets to an address, which stays nobody's source: a local
// route does that, and the address of the locator is the same as long as the host lives,
// so that it stays when the process ends, but for one that takes its tables away.
func own(a netip.Addr) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	r := lo.route(host(a))
	r.Protocol = unix.RTPROT_STATIC // Bind takes away what is the protocol of VIPs
	if err := unless(unix.EEXIST, netlink.RouteAdd(r)); err != nil {
		return fmt.Errorf("local route of %v: %w", a, err)
	}
	return nil
}

// disown ends that.
func disown(a netip.Addr) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	r := lo.route(host(a))
	r.Protocol = unix.RTPROT_STATIC
	if err := unless(unix.ESRCH, netlink.RouteDel(r)); err != nil {
		return fmt.Errorf("local route of %v: %w", a, err)
	}
	return nil
}

// freely binds to an address that is on no interface.
func freely(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}); e != nil {
		return e
	}
	return err
}

// SetKeys replaces the keys that agents may seal with.
func (p *Pins) SetKeys(keys wire.Keys) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opener.SetKeys(keys)
}

// takeReports has reports taken as well; it is called before Run.
func (p *Pins) takeReports(r *reports) {
	p.opener.TakeReports(reportLimits)
	p.reports, r.unread = r, p.unread
}

// takeSummaries has summaries of other sites taken as well; it is called before Run.
func (p *Pins) takeSummaries(s *summaries) {
	p.opener.TakeSummaries(summaryLimits)
	p.heard = s
}

// unread tells whether there are datagrams that were not read yet.
func (p *Pins) unread() bool { return unread(p.conn) }

// unread tells whether a socket has something that was not read yet.
func unread(conn syscall.Conn) (some bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		some = err == nil && n > 0
	})
	return some
}

// Run takes datagrams until ctx ends.
func (p *Pins) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = p.conn.Close() })()
	buffer := make([]byte, 2*wire.MaxDatagram) // one that is too long shows
	var pins []wire.Pin
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("pins: %w", err)
		}
		pins = p.take(pins[:0], buffer[:n], from.Addr(), time.Now())
	}
}

// Close ends what Run would.
func (p *Pins) Close() error { return p.conn.Close() }

// take opens a datagram, and has its flows pinned or its reports believed; pins is memory.
func (p *Pins) take(pins []wire.Pin, datagram []byte, from netip.Addr, now time.Time) []wire.Pin {
	p.mu.Lock()
	message, err := p.opener.Open(datagram, from.WithZone(""), now)
	p.mu.Unlock()
	switch kind := wire.Claims(datagram); {
	case p.reports != nil && kind == wire.TypeReports:
		switch {
		case err == nil:
			err = p.reports.take(message, now)
		case wire.Mistimed(err):
			p.reports.mistimed(message, now)
		}
		if r, ok := errors.AsType[wire.Refusal](err); ok {
			p.reports.refuse(r.Label())
		}
		return pins
	case p.heard != nil && kind == wire.TypeSummaries:
		if err == nil {
			err = p.heard.take(message, now)
		}
		if err == nil && p.reports != nil {
			p.reports.spoke(message.Sender, now)
		}
		if r, ok := errors.AsType[wire.Refusal](err); ok {
			p.heard.refuse(r.Label())
		}
		return pins
	}
	if err == nil {
		pins, err = message.AppendPins(pins)
	}
	if err != nil {
		p.refuse(err)
		return pins
	}
	for _, told := range pins {
		f := balancer.Flow{Client: told.Client, VIP: told.VIP, Protocol: told.Protocol}
		owner := balancer.Hunt(netip.PrefixFrom(message.Sender.Address(), 64), told.Target)
		if err := p.pin(f, owner); err != nil {
			p.refuse(err)
		}
	}
	return pins
}

func (p *Pins) refuse(err error) {
	label := unexpected
	if r, ok := errors.AsType[wire.Refusal](err); ok {
		label = r.Label()
	} else if r, ok := errors.AsType[balancer.PinRefusal](err); ok {
		label = string(r)
	}
	p.refused.WithLabelValues(label).Inc()
}

// Describe implements prometheus.Collector.
func (p *Pins) Describe(ch chan<- *prometheus.Desc) { p.refused.Describe(ch) }

// Collect implements prometheus.Collector.
func (p *Pins) Collect(ch chan<- prometheus.Metric) { p.refused.Collect(ch) }
