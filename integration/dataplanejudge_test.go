package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/tshark"
)

// twin is a router of plain Linux that encapsulates, between a source and a sink, and a
// balancer that is told to do the same:
//
//	source ── router ── sink
type twin struct {
	t        *testing.T
	router   *netlab.Node
	in, out  *netlab.Link
	captured *netlab.Capture
	balancer *balancer.Balancer
}

func newTwin(t *testing.T) *twin {
	t.Helper()
	lab := netlab.New(t)
	w := &twin{t: t, router: lab.Node("router")}
	w.in = lab.Link(w.router, "eth0", lab.Node("source"), "eth0", "2001:db8:0:1::1/64", "192.0.2.0/31")
	w.out = lab.Link(w.router, "eth1", lab.Node("sink"), "eth0", "2001:db8:0:2::1/64")
	w.router.Run("ip", "-6", "route", "add", "2001:db8:5e::/48", "via", "2001:db8:0:2::2")
	w.captured = w.out.B.Capture()

	var err error
	w.balancer, err = balancer.Load(balancer.Options{Services: 2})
	w.must(err)
	t.Cleanup(func() { _ = w.balancer.Close() })
	w.must(w.balancer.SetHost(balancer.Host{Locator: locator(0), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	hop := balancer.Hop{Destination: [6]byte(w.out.B.MAC()), Source: [6]byte(w.out.A.MAC()), Index: 1, MTU: 1500}
	for i := range 4 {
		w.must(w.balancer.SetBackend(i+1, balancer.Backend{SID: hunt(i + 1), Hop: hop}))
	}
	vips := map[balancer.VIP]balancer.Assignment{}
	for i, a := range []netip.Addr{benchVIP6.Addr(), benchVIP4.Addr()} {
		prefix := netip.PrefixFrom(a, a.BitLen())
		for service, port := range []uint16{443, 444} {
			vips[balancer.VIP{Prefix: prefix, Port: port, Protocol: unix.IPPROTO_TCP}] = balancer.Assignment{Service: service, Number: 2*i + service}
		}
		vips[balancer.VIP{Prefix: prefix, Port: 443, Protocol: unix.IPPROTO_UDP}] = balancer.Assignment{Number: 4 + i}
	}
	w.must(w.balancer.SetVIPs(vips))
	for service := range 2 {
		w.must(w.balancer.SetService(service, balancer.Service{Name: fmt.Sprint(service), Key: serviceKey}))
		for slot := range balancer.Slots {
			w.balancer.SetRow(service, slot, 1|uint32(1-service)*2<<15)
			w.balancer.SetHistory(service, slot, 3|4<<16)
		}
	}
	return w
}

func (w *twin) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// ours is what the balancer makes of a packet.
func (w *twin) ours(packet []byte) []byte {
	w.t.Helper()
	o := &ebpf.RunOptions{Data: etherFrame(packet), DataOut: make([]byte, 2000)}
	verdict, err := w.balancer.Program().Run(o)
	w.must(err)
	if verdict != 3 {
		w.t.Fatalf("verdict %d of the balancer, want it sent", verdict)
	}
	return o.DataOut
}

// linux is what Linux makes of a packet for a destination, from an outer source on, with
// a list of segments.
func (w *twin) linux(packet []byte, to, source netip.Addr, list []netip.Addr) []byte {
	w.t.Helper()
	w.router.Run("ip", "sr", "tunsrc", "set", source.String())
	mode, segments := "encap", make([]string, len(list))
	if len(list) == 1 {
		mode = "encap.red"
	}
	for i, s := range list {
		segments[i] = s.String()
	}
	prefix := netip.PrefixFrom(to, to.BitLen()).String()
	w.router.Run("ip", "route", "replace", prefix, "encap", "seg6", "mode", mode, "segs", strings.Join(segments, ","), "dev", "eth1")
	frame := etherFrame(packet)
	copy(frame, w.in.A.MAC())
	seen := len(w.captured.Frames())
	w.in.B.Send(frame)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, f := range w.captured.Frames()[seen:] {
			if len(f) > etherHeader+40 && bytes.Equal(f[etherHeader+8:etherHeader+24], source.AsSlice()) {
				return f
			}
		}
	}
	w.t.Fatal("Linux sends nothing on")
	return nil
}

// aside is an encapsulated frame without what each may choose: flow label and hop limit,
// and the traffic class of IPv4 in IPv6, which Linux leaves 0.
func aside(frame []byte, inner netip.Addr) []byte {
	b := bytes.Clone(frame)
	b[etherHeader+1] &= 0xf0
	b[etherHeader+2], b[etherHeader+3], b[etherHeader+7] = 0, 0, 0
	if inner.Is4() {
		b[etherHeader] &= 0xf0
		b[etherHeader+1] = 0
	}
	return b
}

// forwarded is a packet with a hop limit that is one less.
func forwarded(packet []byte) []byte {
	b := bytes.Clone(packet)
	if b[0]>>4 == 6 {
		b[7]--
		return b
	}
	b[8]--
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], internetSum(b[:20]))
	return b
}

// The balancer encapsulates as Linux does (RFC 8986 §5.1, §5.2), from one segment to
// the list of a miss. A balancer is the router that forwards the packet inside (RFC 2473
// §3.1); Linux encapsulates first, and forwards what comes of it.
func TestLinuxEncapsulatesAlike(t *testing.T) {
	t.Parallel()
	w := newTwin(t)
	final := func(i int) netip.Addr {
		b := hunt(i).As16()
		b[9]++
		return netip.AddrFrom16(b)
	}
	for _, f := range []struct{ client, vip netip.AddrPort }{{benchClient6, benchVIP6}, {benchClient4, benchVIP4}} {
		alone := netip.AddrPortFrom(f.vip.Addr(), 444)
		for _, data := range []int{0, 1, 100, 1300} {
			for _, c := range []struct {
				name   string
				packet []byte
				missed bool
				list   []netip.Addr
			}{
				{"one segment", tcpPacket(f.client, alone, flagACK, data), false, []netip.Addr{hunt(1)}},
				{"two segments", tcpPacket(f.client, f.vip, flagACK, data), false, []netip.Addr{hunt(1), hunt(2)}},
				{"one segment, the final one", udpPacket(f.client, f.vip, data), false, []netip.Addr{final(1)}},
				{"a miss", tcpPacket(f.client, f.vip, flagACK, data), true, []netip.Addr{hunt(3), hunt(4), final(1)}},
			} {
				input := c.packet
				if c.missed {
					miss := netip.MustParseAddr("2001:db8:5e:0:5204::")
					input = encapsulated(hunt(2), 0, []netip.Addr{hunt(2), miss}, c.packet)
				}
				ours := w.ours(input)
				source := netip.AddrFrom16([16]byte(ours[etherHeader+8:]))
				linux := w.linux(forwarded(c.packet), f.vip.Addr(), source, c.list)
				if got, want := aside(ours, f.vip.Addr()), aside(linux, f.vip.Addr()); !bytes.Equal(got, want) {
					t.Errorf("%s to %s, %d bytes of data: %d bytes\n%.180x, Linux %d bytes\n%.180x",
						c.name, f.vip, data, len(got), got, len(want), want)
				}
			}
		}
	}
}

// Wireshark finds nothing wrong in what goes over the links of the lab, while flows are
// hunted for as well.
func TestWiresharkReadsTheLab(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	captures := []*netlab.Capture{k.toward.A.Capture()}
	for _, l := range k.toBackend {
		captures = append(captures, l.A.Capture())
	}
	k.begin(40)
	k.plan[0].State = balancer.Draining
	k.apply()
	k.check("a backend drains", "")
	k.plan[0].State = balancer.Active
	k.apply()
	k.check(atTheEnd, "")
	var frames []tshark.Frame
	encapsulated := 0
	for i, c := range captures {
		for j, f := range c.Frames() {
			frames = append(frames, tshark.Frame{Name: fmt.Sprintf("link %d, frame %d", i, j), Data: f})
			if len(f) > etherHeader+40 && f[12] == 0x86 && f[etherHeader+6] == unix.IPPROTO_ROUTING {
				encapsulated++
			}
		}
	}
	if encapsulated == 0 {
		t.Errorf("no frame of %d has a segment routing header", len(frames))
	}
	tshark.Judge(t, frames)
}
