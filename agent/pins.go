package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering/wire"
)

const (
	// pinDelay is for how long flows are gathered for a datagram: short beside the time
	// that a client waits, long beside the time between packets of many flows.
	pinDelay = 5 * time.Millisecond
	// pinQueue is how many flows wait to be gathered.
	pinQueue = 4096
	// mostGateways are known at a time. There are a few; more are somebody's invention.
	mostGateways = 256
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricPinsTold = "razor_agent_pins_told_total"
	metricPinsLost = "razor_agent_pins_lost_total"
)

// Pinner tells gateways of the flows that this host has and that their rows do not find
// first. What is lost is told again a second later, with the flow's next packet. It is a
// collector of what it told.
type Pinner struct {
	self   wire.Locator
	conn   *net.UDPConn
	queue  chan segment.Event
	told   prometheus.Counter
	lost   *prometheus.CounterVec
	buffer []byte // of Run

	mu       sync.Mutex
	keys     wire.Keys
	gateways map[wire.Locator]*pinned
}

// pinned is what a gateway is to be told.
type pinned struct {
	sealer *wire.Sealer
	pins   []wire.Pin
}

// NewPinner makes a Pinner that sends from the address of the host's locator
// (wire.Locator.Address), which it makes one of the host's, in the network namespace of
// the calling thread.
func NewPinner(locator netip.Prefix, keys wire.Keys) (*Pinner, error) {
	p := &Pinner{
		self: wire.LocatorOf(locator.Addr()), keys: keys, gateways: map[wire.Locator]*pinned{},
		queue: make(chan segment.Event, pinQueue),
	}
	p.told, p.lost = newPinCounters()
	conn, err := listenAt(p.self)
	if err != nil {
		return nil, fmt.Errorf("pins: %w", err)
	}
	p.conn = conn
	return p, nil
}

func newPinCounters() (told prometheus.Counter, lost *prometheus.CounterVec) {
	told = prometheus.NewCounter(prometheus.CounterOpts{Name: metricPinsTold, Help: "Flows that gateways were told of."})
	lost = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricPinsLost, Help: "Flows that gateways were not told of, by reason.",
	}, []string{"reason"})
	for _, reason := range []string{lostQueue, lostGateway, lostSeal, lostSend} {
		lost.WithLabelValues(reason)
	}
	return told, lost
}

// listenAt is a socket at the address of a locator, which it makes one of the host's.
func listenAt(l wire.Locator) (*net.UDPConn, error) {
	if err := haveLocal(l.Address()); err != nil {
		return nil, err
	}
	free := net.ListenConfig{Control: nonlocal}
	conn, err := free.ListenPacket(context.Background(), "udp6", netip.AddrPortFrom(l.Address(), 0).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// Reasons why a gateway is not told of a flow.
const (
	lostQueue   = "queue"    // too many at once
	lostGateway = "gateways" // too many gateways
	lostSeal    = "seal"     // it is no flow
	lostSend    = "send"     // the kernel says no
)

// haveLocal has the host take packets to an address that stays nobody's source: a local
// route does that. A gateway on the same host has the same one.
func haveLocal(a netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("local route of %v: %w", a, err)
	}
	err = netlink.RouteReplace(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: unix.RTPROT_STATIC,
		Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(128, 128)},
	})
	if err != nil {
		return fmt.Errorf("local route of %v: %w", a, err)
	}
	return nil
}

// nonlocal binds to an address that is on no interface.
func nonlocal(_, _ string, c syscall.RawConn) (err error) {
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
	}); e != nil {
		return e
	}
	return err
}

// SetKeys has the first of the keys seal from now on.
func (p *Pinner) SetKeys(keys wire.Keys) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
	for _, g := range p.gateways {
		g.sealer = nil
	}
}

// Tell has the gateway that sent a flow's packet told of it. It does not wait, and is
// for [segment.Endpoint.Events].
func (p *Pinner) Tell(e segment.Event) {
	select {
	case p.queue <- e:
	default:
		p.lost.WithLabelValues(lostQueue).Inc()
	}
}

// Run sends what it is told until ctx ends.
func (p *Pinner) Run(ctx context.Context) error {
	defer p.conn.Close()
	timer := time.NewTimer(pinDelay)
	defer timer.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-p.queue:
			p.gather(e)
			if !waiting {
				timer.Reset(pinDelay)
				waiting = true
			}
		case <-timer.C:
			p.sendAll()
			waiting = false
		}
	}
}

// Close ends a Pinner that does not run.
func (p *Pinner) Close() error { return p.conn.Close() }

// gather puts a flow into the next datagram to its gateway.
func (p *Pinner) gather(e segment.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := wire.LocatorOf(e.Source)
	g := p.gateways[to]
	if g == nil {
		if len(p.gateways) >= mostGateways && !p.forget() {
			p.lost.WithLabelValues(lostGateway).Inc()
			return
		}
		g = &pinned{}
		p.gateways[to] = g
	}
	g.pins = append(g.pins, wire.Pin{Client: e.Client, VIP: e.VIP, Protocol: e.Protocol, Target: e.Target})
	if len(g.pins) == wire.MaxPins {
		p.send(to, g)
	}
}

// forget makes room for another gateway; there is none where all are to be told of flows.
// One that comes again gets a sealer with a later sequence.
func (p *Pinner) forget() bool {
	for l, g := range p.gateways {
		if len(g.pins) == 0 {
			delete(p.gateways, l)
			return true
		}
	}
	return false
}

func (p *Pinner) sendAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for to, g := range p.gateways {
		if len(g.pins) > 0 {
			p.send(to, g)
		}
	}
}

// send sends a gateway what was gathered for it.
func (p *Pinner) send(to wire.Locator, g *pinned) {
	now, n := time.Now(), float64(len(g.pins))
	if g.sealer == nil {
		g.sealer = wire.NewSealer(p.keys, p.self, to, now)
	}
	var err error
	p.buffer, err = g.sealer.SealPins(p.buffer[:0], g.pins, now)
	g.pins = g.pins[:0]
	if err != nil {
		p.lost.WithLabelValues(lostSeal).Add(n)
		return
	}
	if _, err := p.conn.WriteToUDPAddrPort(p.buffer, netip.AddrPortFrom(to.Address(), wire.Port)); err != nil {
		p.lost.WithLabelValues(lostSend).Add(n)
		return
	}
	p.told.Add(n)
}

// Describe implements prometheus.Collector.
func (p *Pinner) Describe(ch chan<- *prometheus.Desc) {
	p.told.Describe(ch)
	p.lost.Describe(ch)
}

// Collect implements prometheus.Collector.
func (p *Pinner) Collect(ch chan<- prometheus.Metric) {
	p.told.Collect(ch)
	p.lost.Collect(ch)
}
