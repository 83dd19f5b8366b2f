package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/harness"
	"github.com/razor-steering/razor/integration/netlab"
)

// The traffic of the benchmark: one client's address and those near to it. A stranger
// has no connections.
var (
	benchClient6   = netip.MustParseAddrPort("[2001:db8:c::1]:31000")
	benchClient4   = netip.MustParseAddrPort("198.18.0.1:31000")
	benchStranger6 = netip.MustParseAddrPort("[2001:db8:d::1]:31000")
	benchVIP6      = netip.MustParseAddrPort("[" + vipAddress6 + "]:443")
	benchVIP4      = netip.MustParseAddrPort(vipAddress4 + ":443")
	benchAlone6    = netip.MustParseAddrPort("[" + vipAddress6 + "]:444") // rows have no previous
	benchNoVIP     = netip.MustParseAddrPort("[2001:db8:fffe::1]:443")
)

const (
	benchBackends = 100
	benchData     = 140 // bytes in a packet

	// Each measurement is short and made often, after some packets that warm the caches:
	// the least of them is one that nobody disturbed.
	benchWarm = 20_000
	benchRun  = 100_000
)

// BenchmarkDataplane is the time that balancer and endpoint take for a packet, each
// from another flow than the last one, and that of the prototypes where their sources
// are beside the project. What the harness takes is subtracted.
func BenchmarkDataplane(b *testing.B) {
	d := newDataplaneBench(b, benchWarm, benchRun)
	d.prepare(d.prototype("gw", "-DMODE=1", "-DNSEG=2", "-DLRUFLAGS=0"), d.prototype("agent"))
	rounds := 0
	for b.Loop() {
		d.round()
		rounds++
	}
	d.check()
	d.table(rounds)
}

// What is measured is what the names of the benchmark's cases say.
func TestDataplaneCases(t *testing.T) {
	t.Parallel()
	d := newDataplaneBench(t, 100, 1000)
	d.prepare(nil, nil)
	d.round()
	d.check()
}

// benchCase is traffic and what becomes of all of it.
type benchCase struct {
	name string
	harness.Traffic
	verdict int
}

// balancerCases are those of the balancer.
func balancerCases() []benchCase {
	six := func(packet []byte) harness.Traffic {
		return harness.Traffic{Frame: etherFrame(packet), Address: source6, Port: l6}
	}
	syn := six(tcpPacket(benchClient6, benchVIP6, flagSYN, benchData))
	ack := six(tcpPacket(benchClient6, benchVIP6, flagACK, benchData))
	alone := six(tcpPacket(benchClient6, benchAlone6, flagACK, benchData))
	udp := six(udpPacket(benchClient6, benchVIP6, benchData))
	ack4 := harness.Traffic{Frame: etherFrame(tcpPacket(benchClient4, benchVIP4, flagACK, benchData)), Address: source4, Port: l4}
	other := six(tcpPacket(benchClient6, benchNoVIP, flagACK, benchData))
	return []benchCase{
		{"SYN, flood of new flows", syn.Flows(1 << 32), harness.TX},
		{"SYN, 64k flows", syn.Flows(1 << 16), harness.TX},
		{"ACK, 1 flow", ack.Flows(1), harness.TX},
		{"ACK, 64k flows", ack.Flows(1 << 16), harness.TX},
		{"ACK, 512k flows", ack.Flows(1 << 19), harness.TX},
		{"ACK without previous, 1 flow", alone.Flows(1), harness.TX},
		{"ACK without previous, 64k flows", alone.Flows(1 << 16), harness.TX},
		{"ACK without previous, 512k flows", alone.Flows(1 << 19), harness.TX},
		{"UDP, 64k flows", udp.Flows(1 << 16), harness.TX},
		{"ACK over IPv4, 64k flows", ack4.Flows(1 << 16), harness.TX},
		{"no VIP, 64k flows", other.Flows(1 << 16), harness.Pass},
	}
}

// endpointCases are those of the endpoint, with connections for the second.
func (d *dataplaneBench) endpointCases() []benchCase {
	inside := etherHeader + 40 + 8 + 2*16
	final := netip.MustParseAddr("2001:db8:5e:1:5202::")
	source := netip.MustParseAddr("2001:db8:5e:0:5205:0:1:203")
	traffic := func(client netip.AddrPort, left int, second netip.Addr) harness.Traffic {
		inner := tcpPacket(client, benchVIP6, flagACK, benchData)
		outer := encapsulated(source, left, []netip.Addr{hunt(2 - left), second}, inner)
		return harness.Traffic{Frame: etherFrame(outer), Address: inside + 8 + 12, Port: inside + 40}
	}
	owned := traffic(benchClient6, 1, hunt(2))
	owned.PortMask = d.connections()
	return []benchCase{
		{"decapsulate, 64k flows", traffic(benchStranger6, 0, final).Flows(1 << 16), harness.Pass},
		{"hunt, socket found, 64 flows", owned, harness.Pass},
		{"hunt, handed on, 64k flows", traffic(benchStranger6, 1, hunt(2)).Flows(1 << 16), harness.TX},
	}
}

type dataplaneBench struct {
	b         testing.TB
	node      *netlab.Node
	warm, run int          // packets before each measurement, and in it
	alone     *measurement // the harness without a program
	rows      []benchRow
}

func newDataplaneBench(b testing.TB, warm, run int) *dataplaneBench {
	b.Helper()
	return &dataplaneBench{b: b, node: netlab.New(quiet{b}).Node("host"), warm: warm, run: run}
}

// prepare loads all programs for all cases.
func (d *dataplaneBench) prepare(gateway, agent *harness.Subject) {
	d.b.Helper()
	ours := d.balancer()
	for _, c := range balancerCases() {
		d.add("balancer: "+c.name, c, ours, gateway)
	}
	ours = d.endpoint()
	for _, c := range d.endpointCases() {
		d.add("endpoint: "+c.name, c, ours, agent)
	}
	d.alone = d.load(nil, benchCase{Traffic: balancerCases()[0].Traffic, verdict: harness.Pass})
}

// benchRow is what programs take for one kind of traffic.
type benchRow struct {
	name  string
	taken []*measurement // one is nil where a program is missing
}

// measurement is a program in the harness, and the least time of its runs.
type measurement struct {
	*harness.Harness
	verdict int
	packets uint64
	least   time.Duration
}

func (d *dataplaneBench) must(err error) {
	d.b.Helper()
	if err != nil {
		d.b.Fatal(err)
	}
}

// add is a further row of the table.
func (d *dataplaneBench) add(name string, c benchCase, subjects ...*harness.Subject) {
	d.b.Helper()
	row := benchRow{name: name}
	for _, s := range subjects {
		var m *measurement
		if s != nil {
			m = d.load(s, c)
		}
		row.taken = append(row.taken, m)
	}
	d.rows = append(d.rows, row)
}

func (d *dataplaneBench) load(s *harness.Subject, c benchCase) *measurement {
	d.b.Helper()
	h, err := harness.Load(s, c.Traffic)
	d.must(err)
	d.b.Cleanup(h.Close)
	return &measurement{Harness: h, verdict: c.verdict, least: time.Hour}
}

// round measures every program once, so that what else the machine does harms all alike.
func (d *dataplaneBench) round() {
	d.b.Helper()
	d.measure(d.alone)
	for _, r := range d.rows {
		for _, m := range r.taken {
			if m != nil {
				d.measure(m)
			}
		}
	}
}

func (d *dataplaneBench) measure(m *measurement) {
	d.b.Helper()
	var took time.Duration
	var err error
	d.node.Do(func() {
		if _, err = m.Run(d.warm); err == nil {
			took, err = m.Run(d.run)
		}
	})
	d.must(err)
	m.least = min(m.least, took)
	m.packets += uint64(d.warm + d.run)
}

// check tells whether every packet had the verdict that it should.
func (d *dataplaneBench) check() {
	d.b.Helper()
	for _, r := range d.rows {
		for i, m := range r.taken {
			if m == nil {
				continue
			}
			verdicts, err := m.Verdicts()
			d.must(err)
			got := verdicts[m.verdict]
			verdicts[m.verdict] = 0
			// A run that a signal ends is made again.
			if got < m.packets || verdicts != [8]uint64{} {
				d.b.Errorf("%s, program %d: verdict %d of %d packets, others %v", r.name, i, m.verdict, got, verdicts)
			}
		}
	}
}

// table prints the figures, in ns.
func (d *dataplaneBench) table(rounds int) {
	d.b.Helper()
	fmt.Printf("\nns per packet, the least of %d runs of %d packets; the harness's own %d are subtracted\n",
		rounds, d.run, d.alone.least)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\trazor\tprototype\tratio")
	for _, r := range d.rows {
		ours := r.taken[0].least - d.alone.least
		if r.taken[1] == nil {
			fmt.Fprintf(w, "%s\t%d\t\t\n", r.name, ours)
			continue
		}
		prototype := r.taken[1].least - d.alone.least
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\n", r.name, ours, prototype, float64(ours)/float64(prototype))
	}
	d.must(w.Flush())
}

// benchRowOf is the backends of a slot.
func benchRowOf(slot int) (current, previous uint32) {
	current = uint32(slot) * 2654435761 >> 7 % benchBackends
	return current + 1, (current+7)%benchBackends + 1
}

// balancer is ours, with rows that have a previous backend and rows that have none.
func (d *dataplaneBench) balancer() *harness.Subject {
	d.b.Helper()
	r, err := balancer.Load(balancer.Options{Services: 2})
	d.must(err)
	d.b.Cleanup(func() { _ = r.Close() })
	d.must(r.SetHost(balancer.Host{Locator: locator(0), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	hop := balancer.Hop{Destination: [6]byte{2, 0, 0, 0, 0, 3}, Source: [6]byte{2, 0, 0, 0, 0, 1}, Index: 1, MTU: 1500}
	for i := range benchBackends {
		d.must(r.SetBackend(i+1, balancer.Backend{SID: hunt(i + 1), Hop: hop}))
	}
	vips := map[balancer.VIP]balancer.Assignment{}
	for i, v := range []struct {
		netip.AddrPort
		service  int
		protocol uint8
	}{
		{benchVIP6, 0, unix.IPPROTO_TCP},
		{benchVIP6, 0, unix.IPPROTO_UDP},
		{benchVIP4, 0, unix.IPPROTO_TCP},
		{benchAlone6, 1, unix.IPPROTO_TCP},
	} {
		prefix := netip.PrefixFrom(v.Addr(), v.Addr().BitLen())
		vips[balancer.VIP{Prefix: prefix, Port: v.Port(), Protocol: v.protocol}] = balancer.Assignment{Service: v.service, Number: i}
	}
	d.must(r.SetVIPs(vips))
	for service := range 2 {
		d.must(r.SetService(service, balancer.Service{Name: fmt.Sprint(service), Key: serviceKey}))
		for slot := range balancer.Slots {
			row, previous := benchRowOf(slot)
			if service == 0 {
				row |= previous << 15
			}
			r.SetRow(service, slot, row)
		}
	}
	s, err := harness.Loaded(filepath.Join("..", "gateway", "balancer", "bpf_bpfel.o"), "balancer", r.Program())
	d.must(err)
	d.b.Cleanup(s.Close)
	return s
}

// endpoint is ours, on a host that has the VIP.
func (d *dataplaneBench) endpoint() *harness.Subject {
	d.b.Helper()
	e, err := segment.Load(segment.Options{})
	d.must(err)
	d.b.Cleanup(func() { _ = e.Close() })
	d.must(e.SetDomain(segment.Domain{Locator: locator(1), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	d.must(e.SetTarget(segment.Host, segment.Target{Level: segment.Normal}))
	d.must(e.SetVIPs(segment.Host, []netip.Addr{benchVIP6.Addr()}))
	s, err := harness.Loaded(filepath.Join("..", "agent", "segment", "endpoint_bpfel.o"), "endpoint", e.Program())
	d.must(err)
	d.b.Cleanup(s.Close)
	return s
}

// connections opens 64 of the client's to the VIP, and is the mask of its ports.
func (d *dataplaneBench) connections() uint16 {
	d.b.Helper()
	for _, a := range []netip.Addr{benchClient6.Addr(), benchVIP6.Addr()} {
		d.node.Run("ip", "addr", "add", a.String(), "dev", "lo", "nodad")
	}
	d.node.Run("ip", "link", "set", "lo", "up")
	l, err := d.node.Listen("tcp", benchVIP6.String())
	d.must(err)
	d.b.Cleanup(func() { _ = l.Close() })
	for i := range uint16(64) {
		from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(benchClient6.Addr(), benchClient6.Port()^i))
		var c net.Conn
		d.node.Do(func() { c, err = (&net.Dialer{LocalAddr: from}).DialContext(d.b.Context(), "tcp", benchVIP6.String()) })
		d.must(err)
		d.b.Cleanup(func() { _ = c.Close() })
	}
	return 63 << 8 // in network order
}
