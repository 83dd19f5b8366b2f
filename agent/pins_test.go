package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering/wire"
)

// gatewayListener is where a gateway would take datagrams.
type gatewayListener struct {
	conn   *net.UDPConn
	opener *wire.Opener
}

// pinnerHost makes the test's thread a host of its own, of which all locators are.
func pinnerHost(t *testing.T) {
	t.Helper()
	testhost.Enter(t)
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func listenAsGateway(t *testing.T, locator netip.Prefix, keys wire.Keys) *gatewayListener {
	t.Helper()
	l := wire.LocatorOf(locator.Addr())
	if err := haveLocal(l.Address()); err != nil {
		t.Fatal(err)
	}
	free := net.ListenConfig{Control: nonlocal}
	conn, err := free.ListenPacket(t.Context(), "udp6", netip.AddrPortFrom(l.Address(), wire.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	limits := wire.Limits{Senders: 10, Sender: 1000, Total: 1000}
	return &gatewayListener{conn.(*net.UDPConn), wire.NewOpener(l, keys, limits, time.Now())}
}

// take reads datagrams until n flows were told, by their clients; datagrams are how many
// there were.
func (g *gatewayListener) take(t *testing.T, n int) (told map[netip.AddrPort]wire.Pin, datagrams int) {
	t.Helper()
	told = map[netip.AddrPort]wire.Pin{}
	_ = g.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 2000)
	for ; len(told) < n; datagrams++ {
		size, from, err := g.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			t.Fatalf("%d of %d flows: %v", len(told), n, err)
		}
		message, err := g.opener.Open(buffer[:size], from.Addr(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		pins, err := message.AppendPins(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pins {
			told[p.Client] = p
		}
	}
	return told, datagrams
}

func pinnerKeys(t *testing.T, id int) wire.Keys {
	t.Helper()
	keys, err := wire.ParseKeys(fmt.Sprintf("%d: %064d", id, id))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func eventOf(gateway netip.Prefix, client int) segment.Event {
	source := wire.LocatorOf(gateway.Addr()).Address().As16()
	source[12], source[15] = 1, byte(client) // round and entropy
	return segment.Event{
		Source:   netip.AddrFrom16(source),
		Client:   netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(1024+client)),
		VIP:      netip.MustParseAddrPort("198.51.100.1:443"),
		Protocol: unix.IPPROTO_TCP,
		Target:   2,
	}
}

// counted is the sum of a metric's counters.
func counted(t *testing.T, p *Pinner, name string) (n float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(p)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// Flows are told to the gateway that sent their packets, many in a datagram, with the
// key of the moment.
func TestPinner(t *testing.T) {
	t.Parallel()
	pinnerHost(t)
	self := netip.MustParsePrefix("2001:db8:5e:7::/64")
	one, other := netip.MustParsePrefix("2001:db8:5e:1::/64"), netip.MustParsePrefix("2001:db8:5e:2::/64")
	keys := append(pinnerKeys(t, 1), pinnerKeys(t, 2)...)
	first, second := listenAsGateway(t, one, keys[:1]), listenAsGateway(t, other, keys)
	p, err := NewPinner(self, keys)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	const flows = 300
	for i := range flows {
		p.Tell(eventOf(one, i))
	}
	p.Tell(eventOf(other, 7))
	told, datagrams := first.take(t, flows)
	for i := range flows {
		e := eventOf(one, i)
		if got, want := told[e.Client], (wire.Pin{Client: e.Client, VIP: e.VIP, Protocol: e.Protocol, Target: e.Target}); got != want {
			t.Errorf("told %v, want %v", got, want)
		}
	}
	if datagrams > flows/4 {
		t.Errorf("%d datagrams for %d flows", datagrams, flows)
	}
	if told, _ := second.take(t, 1); len(told) != 1 {
		t.Errorf("the other gateway was told %v", told)
	}

	p.SetKeys(keys[1:])
	first.opener.SetKeys(keys[1:])
	p.Tell(eventOf(one, 1))
	first.take(t, 1)
	// A datagram arrives before it is counted.
	eventually(t, "all are counted", func() bool { return counted(t, p, metricPinsTold) == flows+2 })
	if lost := counted(t, p, metricPinsLost); lost != 0 {
		t.Errorf("%v lost", lost)
	}
}

// What is too much is lost and counted, and room is made for gateways that come.
func TestPinnerBounds(t *testing.T) {
	t.Parallel()
	pinnerHost(t)
	p, err := NewPinner(netip.MustParsePrefix("2001:db8:5e:7::/64"), pinnerKeys(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	gateway := func(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("2001:db8:5f:%x::/64", i)) }
	for i := range pinQueue + 5 {
		p.Tell(eventOf(gateway(0), i))
	}
	if lost := counted(t, p, metricPinsLost); lost != 5 {
		t.Errorf("%v lost of a full queue, want 5", lost)
	}
	for i := range mostGateways + 3 {
		p.gather(eventOf(gateway(i), i))
	}
	if lost := counted(t, p, metricPinsLost); lost != 8 || len(p.gateways) != mostGateways {
		t.Errorf("%v lost, want 8; %d gateways", lost, len(p.gateways))
	}
	p.sendAll() // to nowhere: there is no route
	if lost := counted(t, p, metricPinsLost); lost != 8+mostGateways {
		t.Errorf("%v lost, want %d", lost, 8+mostGateways)
	}
	p.gather(eventOf(gateway(1000), 1))
	if len(p.gateways) != mostGateways || p.gateways[wire.LocatorOf(gateway(1000).Addr())] == nil {
		t.Error("no room was made for another gateway")
	}
}
