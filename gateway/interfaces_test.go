package gateway

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/razor-steering/razor/gateway/balancer"
)

// program is the XDP program of an interface, 0 without one.
func program(t *testing.T, name string) uint32 {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if x := l.Attrs().Xdp; x != nil && x.Attached {
		return x.ProgId
	}
	return 0
}

// addVeth makes an interface.
func addVeth(t *testing.T, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "p"}); err != nil {
		t.Fatal(err)
	}
}

// pinned is what is in a directory of pins, but for the maps of a balancer.
func pinned(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// open is a dataplane as a process has it.
func open(t *testing.T, c *Config) (*dataplane, error) {
	t.Helper()
	return openDataplane(c, netip.Prefix{}, nil, nil, slog.New(slog.NewTextHandler(t.Output(), nil)), func() {})
}

func mustOpen(t *testing.T, c *Config) *dataplane {
	t.Helper()
	p, err := open(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustClose(t *testing.T, p *dataplane) {
	t.Helper()
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
}

// A start that fails leaves nothing on interfaces that had nothing, and what was there
// where it was; an interface that is no longer in the file loses the balancer.
func TestInterfacesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth0", "eth1"}
	addVeth(t, "eth1")
	stranger, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	second, err := net.InterfaceByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	occupied, err := link.AttachXDP(link.XDPOptions{Program: stranger, Interface: second.Index})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, &c); err == nil || !strings.Contains(err.Error(), "eth1") {
		t.Errorf("an interface that has another program: %v", err)
	}
	if program(t, "eth0") != 0 || len(pinned(t, c.Dataplane.Pins)) > 0 {
		t.Errorf("left on eth0: %d, %v", program(t, "eth0"), pinned(t, c.Dataplane.Pins))
	}

	c.Dataplane.Interfaces = []string{"eth0"}
	mustClose(t, mustOpen(t, &c))
	first := program(t, "eth0")
	c.Dataplane.Interfaces = []string{"eth0", "eth1"}
	if _, err := open(t, &c); err == nil {
		t.Error("an interface that has another program: no error")
	}
	if first == 0 || program(t, "eth0") == 0 {
		t.Error("the balancer of an earlier process was taken off eth0")
	}
	if err := occupied.Close(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, &c))
	if program(t, "eth0") == 0 || program(t, "eth1") == 0 {
		t.Error("no program")
	}
	c.Dataplane.Interfaces = []string{"eth1"}
	mustClose(t, mustOpen(t, &c))
	if program(t, "eth0") != 0 || program(t, "eth1") == 0 {
		t.Error("eth0 keeps the balancer, or eth1 lost it")
	}
	l, err := netlink.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	c.Dataplane.Interfaces = []string{"eth0"}
	p := mustOpen(t, &c)
	for _, name := range pinned(t, c.Dataplane.Pins) {
		if name == "eth1" {
			t.Error("an interface that is gone has pins")
		}
	}
	if err := p.remove(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, p)
	if left := pinned(t, c.Dataplane.Pins); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A configuration that has the dataplane elsewhere, or not any more, takes off what an
// earlier one has left there, once no process has it any more.
func TestFormerDataplane(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.StateDir, c.Dataplane.Pins, c.Dataplane.Interfaces = t.TempDir(), ownHost(t), []string{"eth0"}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	remove := func(c Config) {
		t.Helper()
		if err := removeFormer(&c, log); err != nil {
			t.Error(err)
		}
	}
	without, elsewhere := c, c
	without.Dataplane.Interfaces = nil
	elsewhere.Dataplane.Pins = filepath.Join(filepath.Dir(c.Dataplane.Pins), "other")
	for _, next := range []Config{without, elsewhere} {
		if err := notePins(c.StateDir, c.Dataplane.Pins); err != nil {
			t.Fatal(err)
		}
		p := mustOpen(t, &c)
		if err := removeFormer(&next, log); !errors.Is(err, balancer.ErrRunning) || program(t, "eth0") == 0 {
			t.Errorf("while it runs: %v, program %d", err, program(t, "eth0"))
		}
		mustClose(t, p)
		remove(c)
		if program(t, "eth0") == 0 {
			t.Error("taken off, although the configuration has it")
		}
		remove(next)
		if program(t, "eth0") != 0 || len(pinned(t, c.Dataplane.Pins)) > 0 {
			t.Errorf("left: %d, %v", program(t, "eth0"), pinned(t, c.Dataplane.Pins))
		}
	}
}

// A gateway that was refused, as another one has its pins, and then has pins of its own,
// leaves the other one's dataplane where it is.
func TestRefusedDataplane(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.StateDir, c.Dataplane.Pins, c.Dataplane.Interfaces = t.TempDir(), ownHost(t), []string{"eth0"}
	p := mustOpen(t, &c)
	second := Gateway{config: c, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	second.config.StateDir = t.TempDir()
	if err := second.openDataplane(); err == nil || !strings.Contains(err.Error(), "another gateway runs with it") {
		t.Fatal("two gateways with the same pins: ", err)
	}
	mustClose(t, p) // the first one starts again
	second.config.Dataplane.Interfaces = nil
	if err := second.openDataplane(); err != nil {
		t.Fatal(err)
	}
	if program(t, "eth0") == 0 {
		t.Error("the other gateway's dataplane was taken off")
	}
}

// The interface is deleted and made anew: it has the balancer again, and no pin is of the
// old one.
func TestInterfaceMadeAnew(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth0"}
	p := mustOpen(t, &c)
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good
		err := netns.Set(ns)
		if err == nil {
			p.interfaces.keep(t.Context())
		}
		done <- err
	}()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
		mustClose(t, p)
	})
	for range 2 {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkDel(l); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery / 2)
		addVeth(t, "eth0")
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for program(t, "eth0") == 0 || linked(t, c.Dataplane.Pins) != i.Index {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("the interface %d has no balancer, or the pinned link of another one: %d", i.Index, linked(t, c.Dataplane.Pins))
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Logf("after %v", time.Since(began))
	}
}

// An interface that is made anew with a better driver than all had is told of: the next
// hops were found for those.
func TestInterfaceMadeBetter(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth1"}
	run(t, "ip link add eth1 type bridge")
	p := mustOpen(t, &c)
	var said strings.Builder
	p.interfaces.log = slog.New(slog.NewTextHandler(&said, nil))
	if !p.interfaces.generic() {
		t.Fatal("a bridge has XDP in its driver")
	}
	for _, tt := range []struct {
		how string
		add func()
		say bool
	}{
		{"as it was", func() { run(t, "ip link add eth1 type bridge") }, false},
		{"with XDP", func() { addVeth(t, "eth1") }, true},
	} {
		said.Reset()
		run(t, "ip link del eth1")
		tt.add()
		p.interfaces.attachAgain()
		if strings.Contains(said.String(), "packets from an interface get lost") != tt.say {
			t.Errorf("%s: %s", tt.how, said.String())
		}
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	mustClose(t, p)
}

// linked is the interface that the pinned link of eth0 is of; 0 without one.
func linked(t *testing.T, pins string) int {
	t.Helper()
	at, err := link.LoadPinnedLink(filepath.Join(pins, "eth0", "link"), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	info, err := at.Info()
	if err != nil {
		t.Fatal(err)
	}
	return int(info.XDP().Ifindex)
}

// Of two gateways with the same pins the second is told what is wrong.
func TestPinsOfAnotherGateway(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth0"}
	p := mustOpen(t, &c)
	_, err := open(t, &c)
	want := `gateway.dataplane.pins: "` + c.Dataplane.Pins + `": another gateway runs with it; want the other one stopped, or a directory for each`
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if program(t, "eth0") == 0 {
		t.Error("the first one lost its interface")
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	mustClose(t, p)
}
