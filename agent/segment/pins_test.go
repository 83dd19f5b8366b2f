package segment

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/integration/testhost"
)

// attachable is a host with an interface, and a directory on a BPF file system.
func attachable(t *testing.T, name string) (*net.Interface, string) {
	t.Helper()
	testhost.Enter(t)
	pins := testhost.BPFFS(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return i, pins
}

func loaded(t *testing.T, pins string) *Endpoint {
	t.Helper()
	e, err := Load(Options{Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func opened(t *testing.T, pins string, i *net.Interface) *root.Root {
	t.Helper()
	r, err := root.Open(pins, i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onInterface is what the program of an interface makes of a packet.
func onInterface(t *testing.T, i *net.Interface, packet []byte) uint32 {
	t.Helper()
	l, err := netlink.LinkByIndex(i.Index)
	must(t, err)
	if l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
		t.Fatal("no program on the interface")
	}
	return onProgram(t, l.Attrs().Xdp.ProgId, packet)
}

// A process that ends leaves all as it is, the next one takes it over, and who leaves
// leaves nothing.
func TestPins(t *testing.T) {
	t.Parallel()
	i, pins := attachable(t, "eth0.7")
	if Running(pins) {
		t.Error("running before any")
	}
	first := loaded(t, pins)
	must(t, first.SetDomain(Domain{Locator: locator, Block: block}))
	must(t, first.SetTarget(Host, Target{Level: Normal}))
	must(t, first.SetVIPs(Host, []netip.Addr{vip4, vip6}))
	r := opened(t, pins, i)
	must(t, first.Join(r, i.Name))
	if !Running(pins) {
		t.Error("not running")
	}
	if _, err := Load(Options{Pins: pins}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	toVIP := sent(to(sid(locator, final, Host))).wrap(flowTo(true, 4000, portTCP).segment(ack, 5, 6))
	toOther := sent(to(sid(locator, final, Host+1))).wrap(flowTo(true, 4000, portTCP).segment(ack, 5, 6))
	taken := func(when string, e *Endpoint, want uint64) {
		t.Helper()
		if got := onInterface(t, i, toVIP); got != pass {
			t.Errorf("%s: verdict %d", when, got)
		}
		if got := onInterface(t, i, toOther); got != drop {
			t.Errorf("%s: verdict %d of what is for nobody", when, got)
		}
		if e == nil {
			return
		}
		if got, err := e.Packets(); err != nil || got[TakenFinal] != want || got[DroppedTarget] != want {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	taken("at first", first, 1)
	must(t, first.Close())
	must(t, r.Close())
	taken("without a process", nil, 0)

	next := loaded(t, pins)
	taken("before it joins", next, 3)
	if got, err := next.Joined(); err != nil || !slices.Equal(got, []string{i.Name}) {
		t.Errorf("joined: %v, %v", got, err)
	}
	r = opened(t, pins, i)
	must(t, next.Join(r, i.Name))
	taken("taken over", next, 4)
	must(t, next.SetVIPs(Host, []netip.Addr{vip4}))
	if got := onInterface(t, i, toVIP); got != drop {
		t.Errorf("a VIP less: verdict %d", got)
	}
	must(t, next.Leave(r, i.Name))
	if got, err := next.Joined(); err != nil || len(got) > 0 {
		t.Errorf("joined after leaving: %v, %v", got, err)
	}
	must(t, next.Unpin())
	if l, err := netlink.LinkByIndex(i.Index); err != nil || l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached {
		t.Errorf("a program is left: %v", err)
	}
	if left, err := os.ReadDir(pins); err != nil || len(left) > 0 {
		t.Errorf("pins are left: %v, %v", left, err)
	}
}

// Maps that cannot be pinned are an error that names the place.
func TestPinsElsewhere(t *testing.T) {
	t.Parallel()
	_, _ = attachable(t, "eth0")
	if e, err := Load(Options{Pins: t.TempDir()}); err == nil {
		_ = e.Close()
		t.Error("pinned where there is no BPF file system")
	}
}

func onProgram(t *testing.T, id uint32, packet []byte) uint32 {
	t.Helper()
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	must(t, err)
	defer p.Close()
	verdict, err := p.Run(&ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+256)})
	must(t, err)
	return verdict
}

// Whoever watches may ask while the process ends.
func TestCollectAfterClose(t *testing.T) {
	t.Parallel()
	_, pins := attachable(t, "eth0")
	e := loaded(t, pins)
	reg := prometheus.NewRegistry()
	must(t, reg.Register(e))
	if got, err := reg.Gather(); err != nil || len(got) == 0 {
		t.Errorf("before: %d, %v", len(got), err)
	}
	must(t, e.Close())
	if got, err := reg.Gather(); err != nil || len(got) != 0 {
		t.Errorf("after: %d, %v", len(got), err)
	}
}
