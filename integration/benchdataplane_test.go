package integration

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/agent/segment"
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
	counted func() (uint64, error) // how many packets did what the name says; may be nil
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
		{"decapsulate, 64k flows", traffic(benchStranger6, 0, final).Flows(1 << 16), harness.Pass, nil},
		{"hunt, socket found, 64 flows", owned, harness.Pass, nil},
		{"hunt, handed on, 64k flows", traffic(benchStranger6, 1, hunt(2)).Flows(1 << 16), harness.TX, nil},
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
	r, ours := d.balancer(math.MaxInt64)
	for _, c := range balancerCases() {
		d.add("balancer: "+c.name, c, ours, gateway)
	}
	for _, c := range d.rareCases(r, ours) {
		d.add("balancer: "+c.name, c, ours, nil)
	}
	r, ours = d.balancer(0)
	full := d.overBudget(r)
	d.add("balancer: "+full.name, full, ours, nil)
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
	benchCase

	packets uint64
	seen    uint64 // by what the case counts
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
	return &measurement{Harness: h, benchCase: c, least: time.Hour}
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
	before := d.count(m)
	d.node.Do(func() {
		if _, err = m.Run(d.warm); err == nil {
			took, err = m.Run(d.run)
		}
	})
	d.must(err)
	m.least = min(m.least, took)
	m.packets += uint64(d.warm + d.run)
	m.seen += d.count(m) - before
}

// count is what the case counts, if it does.
func (d *dataplaneBench) count(m *measurement) uint64 {
	d.b.Helper()
	if m.counted == nil {
		return 0
	}
	n, err := m.counted()
	d.must(err)
	return n
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
			if m.counted != nil && m.seen < m.packets {
				d.b.Errorf("%s: only %d of %d packets were that", r.name, m.seen, m.packets)
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
	took := map[string]time.Duration{}
	for _, r := range d.rows {
		ours := r.taken[0].least - d.alone.least
		took[r.taken[0].name] = ours
		if r.taken[1] == nil {
			fmt.Fprintf(w, "%s\t%d\t\t\n", r.name, ours)
			continue
		}
		prototype := r.taken[1].least - d.alone.least
		fmt.Fprintf(w, "%s\t%d\t%d\t%.2f\n", r.name, ours, prototype, float64(ours)/float64(prototype))
	}
	for _, f := range floods {
		var sum time.Duration
		for _, pass := range f.passes {
			sum += took[pass]
		}
		fmt.Fprintf(w, "balancer: %s\t%d\t\t\n", f.name, sum)
	}
	d.must(w.Flush())
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
