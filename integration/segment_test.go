package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
)

// A gateway of plain Linux, which encapsulates, in front of backends:
//
//	                  +-- eth1 -- b1 (endpoint) -- veth -- c1 (container)
//	client -- eth0 gw +-- eth2 -- b2 (endpoint)
//	                  +-- eth3 -- b3 (Linux: End.DT6, End.DX4, End)
//
// All of them have the VIPs. Answers go straight to the client.
type segmentLab struct {
	*netlab.Lab
	t                          *testing.T
	client, gw, b1, b2, b3, c1 *netlab.Node
	e1, e2                     *segment.Endpoint
}

var segmentVIPs = []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:f::10")}

const (
	segmentBlock = "2001:db8:5200::/40"
	// SIDs: hunt is 5201, final 5202, then the target.
	hunt1, hunt2   = "2001:db8:5200:1:5201::", "2001:db8:5200:2:5201::"
	final1, final2 = "2001:db8:5200:1:5202::", "2001:db8:5200:2:5202::"
	huntC, finalC  = "2001:db8:5200:1:5201:1::", "2001:db8:5200:1:5202:1::"
	linuxEnd       = "2001:db8:5200:3:1::"
	linuxDT6       = "2001:db8:5200:3:2::"
	linuxDX4       = "2001:db8:5200:3:3::"
)

func newSegmentLab(t *testing.T) *segmentLab {
	t.Helper()
	lab := netlab.New(t)
	s := &segmentLab{
		Lab: lab, t: t,
		client: lab.Node("client"), gw: lab.Node("gw"), b1: lab.Node("b1"), b2: lab.Node("b2"), b3: lab.Node("b3"), c1: lab.Node("c1"),
	}
	k := lab.Link(s.gw, "eth0", s.client, "uplink", "2001:db8:c::1/64", "198.51.100.0/31")
	s.route(s.client, &k.A, "uplink")
	for i, b := range []*netlab.Node{s.b1, s.b2, s.b3} {
		device := fmt.Sprintf("eth%d", i+1)
		k := lab.Link(s.gw, device, b, "uplink", fmt.Sprintf("2001:db8:%d::1/64", i+1), fmt.Sprintf("203.0.113.%d/31", 2*i))
		s.gw.Run("ip", "-6", "route", "add", fmt.Sprintf("2001:db8:5200:%d::/64", i+1), "via", k.B.Addrs[0].String())
		s.route(b, &k.A, "uplink")
		// Room for the outer headers, and with it for more than a page: frags.
		s.gw.Run("ip", "link", "set", device, "mtu", "5000")
		b.Run("ip", "link", "set", "uplink", "mtu", "5000")
		if b != s.b3 {
			attach(t, s.gw, device, passing(t))
		}
	}
	k = lab.Link(s.b1, "c1", s.c1, "uplink", "2001:db8:11::1/64", "203.0.113.100/31")
	s.route(s.c1, &k.A, "uplink")
	attach(t, s.c1, "uplink", passing(t))
	// The answers of a container come from an address that the host has too.
	s.b1.Sysctl("net.ipv4.conf.c1.accept_local", "1")
	s.gw.Run("ip", "sr", "tunsrc", "set", "2001:db8:5200:9::1")
	s.client.Run("ethtool", "-K", "uplink", "tx", "off") // XDP sees checksums that are not there yet
	for _, n := range []*netlab.Node{s.b1, s.b2, s.b3, s.c1} {
		n.Run("ethtool", "-K", "uplink", "tx", "off")
		for _, vip := range segmentVIPs {
			n.Own(vip.String())
		}
	}
	s.e1, s.e2 = s.endpoint(s.b1, "2001:db8:5200:1::/64"), s.endpoint(s.b2, "2001:db8:5200:2::/64")
	s.container(&k.A, &k.B)
	s.linux()
	return s
}

// route has a node send what is not its own by a neighbour.
func (s *segmentLab) route(n *netlab.Node, by *netlab.End, device string) {
	s.t.Helper()
	for _, a := range by.Addrs {
		args := []string{"route", "add", "default", "via", a.String(), "dev", device}
		if a.Is6() {
			args = append([]string{"-6"}, args...)
		}
		n.Run("ip", args...)
	}
}

// endpoint runs our endpoint on a node.
func (s *segmentLab) endpoint(n *netlab.Node, locator string) *segment.Endpoint {
	s.t.Helper()
	e, err := segment.Load(segment.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = e.Close() })
	r := openRoot(s.t, n, "uplink", testhost.BPFFS(s.t))
	for _, err := range []error{
		e.SetDomain(segment.Domain{Locator: netip.MustParsePrefix(locator), Block: netip.MustParsePrefix(segmentBlock)}),
		e.SetTarget(segment.Host, segment.Target{Level: segment.Normal}),
		e.SetVIPs(segment.Host, segmentVIPs),
		e.Join(r, "uplink"),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Cleanup(func() {
		var err error
		n.Do(func() { err = e.Leave(r, "uplink") })
		if err = errors.Join(err, r.Close()); err != nil {
			s.t.Error(err)
		}
	})
	return e
}

// container makes c1 target 1 of b1.
func (s *segmentLab) container(host, inside *netlab.End) {
	s.t.Helper()
	target := segment.Target{Level: segment.Normal, NetNS: -1}
	namespace, err := os.Open("/run/netns/" + inside.Node.Namespace)
	if err != nil {
		s.t.Fatal(err)
	}
	defer namespace.Close()
	host.Node.Do(func() {
		// Of each namespace another one: the kernel chose it when the veth was made.
		if id, err := netlink.GetNetNsIdByFd(int(namespace.Fd())); err == nil {
			target.NetNS = id
		}
		if i, err := net.InterfaceByName(host.Device); err == nil {
			target.Interface, target.Source = i.Index, i.HardwareAddr
		}
	})
	inside.Node.Do(func() {
		if i, err := net.InterfaceByName(inside.Device); err == nil {
			target.MAC = i.HardwareAddr
		}
	})
	if err := s.e1.SetTarget(1, target); err != nil {
		s.t.Fatal(err)
	}
	if err := s.e1.SetVIPs(1, segmentVIPs); err != nil {
		s.t.Fatal(err)
	}
}

// linux has the kernel of b3 answer to SIDs.
func (s *segmentLab) linux() {
	s.t.Helper()
	s.b3.Sysctl("net.ipv6.conf.all.seg6_enabled", "1")
	s.b3.Sysctl("net.ipv6.conf.uplink.seg6_enabled", "1")
	for sid, action := range map[string]string{linuxEnd: "End", linuxDT6: "End.DT6 table 255", linuxDX4: "End.DX4 nh4 0.0.0.0"} {
		args := []string{"-6", "route", "add", sid + "/128", "encap", "seg6local", "action"}
		s.b3.Run("ip", append(append(args, strings.Fields(action)...), "dev", "uplink")...)
	}
}

// steer has the gateway send the VIPs' packets along segments.
func (s *segmentLab) steer(mode string, segments ...string) {
	s.t.Helper()
	for _, vip := range segmentVIPs {
		args := []string{"route", "replace", vip.String(), "encap", "seg6", "mode", mode, "segs", strings.Join(segments, ","), "dev", "eth1"}
		if vip.Is6() {
			args = append([]string{"-6"}, args...)
		}
		s.gw.Run("ip", args...)
	}
}

// passing is a program without which veth loses what is sent to it by XDP.
func passing(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Flags: 1 << 5, // BPF_F_XDP_HAS_FRAGS
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func attach(t *testing.T, n *netlab.Node, device string, p *ebpf.Program) {
	t.Helper()
	n.Do(func() {
		i, err := net.InterfaceByName(device)
		if err != nil {
			t.Error(err)
			return
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: i.Index, Flags: link.XDPDriverMode})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = l.Close() })
	})
}

// counts are how many packets an endpoint treated as a reason says.
func counts(t *testing.T, e *segment.Endpoint) map[segment.Reason]uint64 {
	t.Helper()
	n, err := e.Packets()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const segmentFlows = 8

// reach opens flows to the VIPs, all of which a node answers.
func (s *segmentLab) reach(t *testing.T, network string, port uint16, by *netlab.Node, vips ...netip.Addr) {
	t.Helper()
	for _, vip := range vips {
		if f := s.client.Flows(network, netip.AddrPortFrom(vip, port), segmentFlows); f.To[by.Name] != segmentFlows {
			t.Errorf("%s to %v: %+v; %s counted %v and %v", network, vip, f, by.Name, counts(t, s.e1), counts(t, s.e2))
		}
	}
}

func (s *segmentLab) echo(port uint16, nodes ...*netlab.Node) {
	for _, n := range nodes {
		for _, vip := range segmentVIPs { // or UDP answers from another address
			n.Echo(netip.AddrPortFrom(vip, port))
		}
	}
}

// The kernel encapsulates, and hands on; connections work.
func TestEndpointBehindLinux(t *testing.T) {
	t.Parallel()
	s := newSegmentLab(t)
	s.echo(80, s.b1, s.b2, s.b3)
	s.echo(81, s.b2, s.b3, s.c1)
	for _, mode := range []string{"encap", "encap.red"} {
		for _, c := range []struct {
			name     string
			segments []string
			port     uint16
			by       *netlab.Node
		}{
			{"final", []string{final1}, 80, s.b1},
			{"hunt takes", []string{hunt1, hunt2}, 80, s.b1},
			{"hunt hands on to ours", []string{hunt1, hunt2}, 81, s.b2},
			{"hunt hands on to final", []string{hunt1, final2}, 81, s.b2},
			{"hunt hands on twice", []string{hunt1, hunt1, hunt2}, 81, s.b2},
			{"Linux hands on to ours", []string{linuxEnd, final1}, 80, s.b1},
			{"final of a container", []string{finalC}, 81, s.c1},
			{"hunt finds the container's sockets", []string{huntC, hunt2}, 81, s.c1},
			{"host hands on to its container", []string{hunt1, huntC}, 81, s.c1},
		} {
			t.Run(mode+", "+c.name, func(t *testing.T) {
				s.t = t
				s.steer(mode, c.segments...)
				s.reach(t, "tcp", c.port, c.by, segmentVIPs...)
			})
		}
		t.Run(mode+", hands on to Linux", func(t *testing.T) {
			s.t = t
			s.steer(mode, hunt1, linuxDX4)
			s.reach(t, "tcp", 81, s.b3, segmentVIPs[0])
			s.steer(mode, hunt1, linuxDT6)
			s.reach(t, "tcp", 81, s.b3, segmentVIPs[1])
		})
		t.Run(mode+", UDP", func(t *testing.T) {
			s.t = t
			s.steer(mode, hunt1, hunt2)
			s.reach(t, "udp", 80, s.b1, segmentVIPs...)
		})
	}
	got1, got2 := counts(t, s.e1), counts(t, s.e2)
	for r, n := range map[segment.Reason]uint64{
		segment.TakenFinal: got1[segment.TakenFinal], segment.TakenSYN: got1[segment.TakenSYN], segment.TakenSocket: got1[segment.TakenSocket],
		segment.TakenRequest: got1[segment.TakenRequest], segment.TakenUnhunted: got1[segment.TakenUnhunted], segment.HandedOn: got1[segment.HandedOn],
	} {
		if n == 0 {
			t.Errorf("b1: no packet is %v: %v", r, got1)
		}
	}
	for _, got := range []map[segment.Reason]uint64{got1, got2} {
		for r := segment.DroppedOutsider; r <= segment.DroppedRoom; r++ {
			if got[r] != 0 {
				t.Errorf("%d packets are %v", got[r], r)
			}
		}
	}
}

// What nobody owns is reset by the last kernel, as plain Linux takes no misses.
func TestEndpointResetsStrays(t *testing.T) {
	t.Parallel()
	s := newSegmentLab(t)
	s.steer("encap", hunt1, hunt2)
	for _, vip := range segmentVIPs {
		began := time.Now()
		c, err := s.client.Dial(t.Context(), "tcp", netip.AddrPortFrom(vip, 99).String())
		if err == nil {
			_ = c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(began) > 10*time.Second {
			t.Errorf("%v: %v", vip, err)
		}
	}
	if n := counts(t, s.e2)[segment.TakenStray]; n == 0 {
		t.Error("no stray at the last")
	}
}

// A loaded host lets new connections go on to the next one, and keeps those it has.
func TestEndpointUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSegmentLab(t)
	s.echo(80, s.b1, s.b2)
	s.steer("encap", hunt1, hunt2)
	var before []net.Conn
	for _, vip := range segmentVIPs {
		c, err := s.client.Dial(t.Context(), "tcp", netip.AddrPortFrom(vip, 80).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		before = append(before, c)
	}
	if err := s.e1.SetLevel(segment.Host, segment.Warning); err != nil {
		t.Fatal(err)
	}
	s.reach(t, "tcp", 80, s.b2, segmentVIPs...)
	for _, c := range before {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, "who\n")
		if b, err := io.ReadAll(c); err != nil || string(b) != "b1\n" {
			t.Errorf("%v: %q, %v", c.RemoteAddr(), b, err)
		}
	}
}

// Segments of more than a page arrive whole.
func TestEndpointTakesLargePackets(t *testing.T) {
	t.Parallel()
	s := newSegmentLab(t)
	s.gw.Run("ip", "link", "set", "eth0", "mtu", "4900")
	s.client.Run("ip", "link", "set", "uplink", "mtu", "4900")
	s.steer("encap", hunt1, hunt2)
	const size = 4 << 20
	for _, n := range []*netlab.Node{s.b1, s.c1} {
		if n == s.c1 {
			s.b1.Run("ip", "link", "set", "c1", "mtu", "4900")
			s.c1.Run("ip", "link", "set", "uplink", "mtu", "4900")
			s.steer("encap", huntC, hunt2)
		}
		l, err := n.Listen("tcp", "[::]:80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		for _, vip := range segmentVIPs {
			if got, err := s.upload(l, netip.AddrPortFrom(vip, 80), size); got != size || err != nil {
				t.Errorf("%v at %s: %d bytes arrived, %v", vip, n.Name, got, err)
			}
		}
	}
}

// upload sends bytes to a listener, and returns how many arrived.
func (s *segmentLab) upload(l net.Listener, to netip.AddrPort, size int) (got int64, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	c, err := s.client.Dial(ctx, "tcp", to.String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, size))
		_ = c.Close()
		sent <- err
	}()
	defer func() {
		if e := <-sent; err == nil {
			err = e
		}
	}()
	in, err := l.Accept()
	if err != nil {
		_ = c.Close()
		return 0, err
	}
	defer in.Close()
	_ = in.SetDeadline(time.Now().Add(30 * time.Second))
	return io.Copy(io.Discard, in)
}
