package integration

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"text/tabwriter"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/harness"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
)

// wireRun is how many packets each run sends.
const wireRun = 200_000

// BenchmarkDataplaneWire is how many packets a core encapsulates in a second that come by
// a veth and leave by it, with the generator and the counting on the same core: with the
// balancer, with the prototype where its source is beside the project, and with what Linux
// itself does for a route.
//
//	generator ─┬─ razor
//	           ├─ prototype
//	           └─ linux
func BenchmarkDataplaneWire(b *testing.B) {
	w := newWireBench(b)
	w.lay("razor", w.razor)
	if s := w.prototype("gw", "-DMODE=1", "-DNSEG=2", "-DLRUFLAGS=0"); s != nil {
		w.lay("prototype", func(to *netlab.Link) { w.put(s, to) })
	}
	w.lay("linux", w.linux)
	for b.Loop() {
		w.round(wireRun)
	}
	w.table()
}

// What the generator sends comes back.
func TestDataplaneWire(t *testing.T) {
	t.Parallel()
	w := newWireBench(t)
	w.lay("razor", w.razor)
	w.lay("linux", w.linux)
	w.round(1000)
	for _, r := range w.wires {
		w.lab.Eventually(r.name+" to send all back", func() bool {
			sent, returned, err := r.Counts()
			return err == nil && sent >= 1000 && returned == sent
		})
	}
}

type wireBench struct {
	*dataplaneBench

	lab       *netlab.Lab
	generator *netlab.Node
	wires     []*wired
}

// wired is a program at the other end of a wire.
type wired struct {
	*harness.Wire

	name string
}

func newWireBench(tb testing.TB) *wireBench {
	tb.Helper()
	lab := netlab.New(quiet{tb})
	return &wireBench{dataplaneBench: &dataplaneBench{b: tb}, lab: lab, generator: lab.Node("generator")}
}

// lay lays a wire to a gateway.
func (w *wireBench) lay(name string, prepare func(*netlab.Link)) {
	w.b.Helper()
	n := len(w.wires)
	gateway := w.lab.Node(name)
	l := w.lab.Link(w.generator, fmt.Sprint("eth", n), gateway, "eth0", fmt.Sprintf("2001:db8:0:%x::1/64", n))
	l.A.WholeChecksums()
	l.B.WholeChecksums()
	traffic := over6(tcpPacket(benchClient6, benchVIP6, flagACK, benchData)).Flows(1 << 16)
	copy(traffic.Frame, l.B.MAC())
	copy(traffic.Frame[6:], l.A.MAC())
	prepare(l)
	var opened *harness.Wire
	var err error
	w.generator.Do(func() { opened, err = harness.OpenWire(indexOf(w.b, l.A.Device), traffic) })
	w.must(err)
	w.b.Cleanup(opened.Close)
	w.wires = append(w.wires, &wired{Wire: opened, name: name})
}

// indexOf is the index of a device of the node that the caller is in.
func indexOf(tb testing.TB, device string) int {
	tb.Helper()
	l, err := netlink.LinkByName(device)
	if err != nil {
		tb.Error(err)
		return 0
	}
	return l.Attrs().Index
}

// razor is the balancer as a gateway has it: behind the root program.
func (w *wireBench) razor(l *netlab.Link) {
	w.b.Helper()
	pins := testhost.BPFFS(w.b)
	root := openRoot(w.b, l.B.Node, l.B.Device, pins)
	r, err := balancer.Load(balancer.Options{Services: benchServices, Pins: pins})
	w.must(err)
	w.b.Cleanup(func() {
		w.must(r.Remove())
		w.must(r.Close())
		w.must(root.Close())
	})
	w.must(r.Join(root, l.B.Device))
	w.must(r.SetHost(balancer.Host{Locator: locator(0), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	hop := balancer.Hop{Destination: [6]byte(l.A.MAC()), Source: [6]byte(l.B.MAC()), MTU: 1500}
	l.B.Node.Do(func() { hop.Index = indexOf(w.b, l.B.Device) })
	w.fill(r, hop)
}

// put puts a program on the other end as it is.
func (w *wireBench) put(s *harness.Subject, l *netlab.Link) {
	w.b.Helper()
	p, err := s.Program()
	w.must(err)
	defer p.Close()
	var attached link.Link
	l.B.Node.Do(func() {
		attached, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: indexOf(w.b, l.B.Device), Flags: link.XDPDriverMode})
	})
	w.must(err)
	w.b.Cleanup(func() { _ = attached.Close() })
}

// linux is a route with the same list, and all that makes it cheaper: a fixed source, and
// no attempt to join packets of flows that are never the same. That what it sends comes
// into a program of XDP costs it nothing that can be seen: counted at tc, there are as many.
func (w *wireBench) linux(l *netlab.Link) {
	w.b.Helper()
	l.B.MeetXDP()
	via := l.A.Addrs[0].String()
	l.B.Node.Run("ethtool", "-K", l.B.Device, "gro", "off")
	l.B.Node.Run("ip", "sr", "tunsrc", "set", l.B.Addrs[0].String())
	l.B.Node.Run("ip", "-6", "route", "add", "2001:db8:5e::/48", "via", via)
	l.B.Node.Run("ip", "-6", "route", "add", vipAddress6+"/128", "encap", "seg6", "mode", "encap", "segs", hunt(1).String()+","+hunt(2).String(), "via", via, "dev", l.B.Device)
}

// round lets packets through each.
func (w *wireBench) round(packets int) {
	w.b.Helper()
	for _, r := range w.wires {
		var err error
		w.generator.Do(func() { err = r.Run(packets) })
		w.must(err)
	}
}

// table prints how many packets there were.
func (w *wireBench) table() {
	w.b.Helper()
	fmt.Printf("\npackets a second over veth, one core for all: the most of %d packets one after another\n", harness.Window)
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\tMpps\tlost\trazor is × that")
	var first float64
	for i, r := range w.wires {
		rate, err := r.Rate()
		w.must(err)
		if i == 0 {
			first = rate
		}
		sent, returned, err := r.Counts()
		w.must(err)
		fmt.Fprintf(out, "%s\t%.2f\t%.2f %%\t%.2f\n", r.name, rate/1e6, 100*(1-float64(returned)/float64(sent)), first/rate)
	}
	w.must(out.Flush())
}
