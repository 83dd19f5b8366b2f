package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering"
)

// newContainer makes a namespace with a veth to the host, and returns its path.
func newContainer(t *testing.T) string {
	t.Helper()
	host, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	run(t, "ip link set lo up")
	if err := netns.Set(host); err != nil {
		t.Fatal(err)
	}
	run(t, "ip link add veth-c1 type veth peer name inside")
	inside, err := netlink.LinkByName("inside")
	if err == nil {
		err = netlink.LinkSetNsFd(inside, int(ns))
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns))
}

// TestCheckContainer has a row for everything that may be wrong about a container.
func TestCheckContainer(t *testing.T) {
	t.Parallel()
	newHost(t)
	path := newContainer(t)
	t1 := ContainerConfig{Target: 1, Netns: path, Veth: "veth-c1", VIPs: []string{"198.51.100.9"}}
	with := func(change func(*ContainerConfig)) *Config {
		t1 := t1
		change(&t1)
		return section(func(c *Config) { c.Containers = []ContainerConfig{t1} })
	}
	wrong := func(what string) []string {
		return []string{`agent.containers[0]: "1": ` + what + `; want its namespace, and the host's end of the veth to it`}
	}
	same := func(*ContainerConfig) {}
	compare(t, "a name", with(func(t *ContainerConfig) { t.Netns = "nowhere" }), wrong("open /run/netns/nowhere: no such file or directory"))
	compare(t, "a process", with(func(t *ContainerConfig) { t.Netns = "0" }), wrong("open /proc/0/ns/net: no such file or directory"))
	compare(t, "no veth", with(func(t *ContainerConfig) { t.Veth = "veth-c2" }), wrong("veth-c2: Link not found"))
	compare(t, "elsewhere", with(func(t *ContainerConfig) { t.Veth = "eth0" }), wrong("eth0 does not lead to the namespace "+path))
	compare(t, "another kind", with(func(t *ContainerConfig) { t.Veth = "lo" }), wrong("lo is no veth but a device"))

	vip := `agent.containers[0].vips[0]: "198.51.100.9": `
	compare(t, "no VIP, no way out", with(same), []string{
		vip + "not an address of the container; want ip addr add 198.51.100.9/32 dev lo, in the namespace " + path,
		vip + "this host does not forward what the container answers; want sysctl -w net.ipv4.ip_forward=1",
	})
	run(t, "sysctl -w net.ipv4.ip_forward=1")
	if err := t1.inside(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("198.51.100.9/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, a)
	}); err != nil {
		t.Fatal(err)
	}
	compare(t, "all is well", with(same), nil)
	c := with(same)
	c.VIPs = append(c.VIPs, "198.51.100.9")
	compare(t, "a VIP of the host", c, []string{
		vip + "also a VIP of the host, which drops what the container answers; want sysctl -w net.ipv4.conf.veth-c1.accept_local=1",
	})
	run(t, "sysctl -w net.ipv4.conf.veth-c1.accept_local=1")
	compare(t, "a VIP of the host, mended", c, nil)
	if strings.Contains(run(t, "ip addr show dev lo"), "198.51.100.9") {
		t.Error("what was done in the container was done on the host")
	}
}

// A container that the next configuration does not have is nobody's, and nothing is left
// in it.
func TestContainerLeaves(t *testing.T) {
	t.Parallel()
	pins := newHost(t)
	t1 := ContainerConfig{Target: 1, Netns: newContainer(t), Veth: "veth-c1"}
	received := func() (is bool) {
		t.Helper()
		if err := t1.inside(func() error {
			inside, err := netlink.LinkByName("inside")
			is = err == nil && inside.Attrs().Xdp != nil && inside.Attrs().Xdp.Attached
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return is
	}
	step := func(name string, want []uint16, containers ...ContainerConfig) *agent {
		t.Helper()
		a := newAgent(*section(func(c *Config) { c.Pins, c.Containers = pins, containers }), slog.New(slog.DiscardHandler), func(bool, string) {})
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.close() })
		if got, err := a.endpoint.Targets(); err != nil || !slices.Equal(got, want) || received() != (len(containers) > 0) {
			t.Errorf("%s: targets %v, %v", name, got, err)
		}
		return a
	}
	_ = step("with a container", []uint16{0, 1}, t1).close()
	_ = step("taken over", []uint16{0, 1}, t1).close()
	a := step("without", []uint16{0})
	if err := errors.Join(a.remove(), a.close()); err != nil {
		t.Fatal(err)
	}
}

// A container has the level of the host, also one that comes later, or its own where its
// load is measured; a restart forgets none.
func TestLevels(t *testing.T) {
	t.Parallel()
	pins := newHost(t)
	path := newContainer(t)
	busy := &load.Config{Measure: load.CPU}
	open := func(ofHost, ofContainer *load.Config) *agent {
		t.Helper()
		a := newAgent(*section(func(c *Config) {
			c.Pins, c.Load = pins, ofHost
			c.Containers = []ContainerConfig{{Target: 1, Netns: path, Veth: "veth-c1", Load: ofContainer}}
		}), slog.New(slog.DiscardHandler), func(bool, string) {})
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.close() })
		return a
	}
	levels := func(a *agent, what string, host, container segment.Level) {
		t.Helper()
		for number, want := range map[uint16]segment.Level{segment.Host: host, 1: container} {
			if got, err := a.endpoint.Level(number); err != nil || got != want {
				t.Errorf("%s: target %d is at %v, %v; want %v", what, number, got, err, want)
			}
		}
	}
	turn := func(a *agent, target uint16, to segment.Level) {
		a.change(change{target, steering.Leveled{Level: to, Reason: "of the test"}})
	}
	const normal, warning, critical = segment.Normal, segment.Warning, segment.Critical
	a := open(busy, nil)
	levels(a, "at the start", normal, normal)
	turn(a, segment.Host, warning)
	levels(a, "the host is loaded", warning, warning)
	if got := a.loaded(); got != "; load: warning" {
		t.Error(got)
	}
	clear(a.containers)
	if wrong := a.contain(); len(wrong) > 0 {
		t.Error(wrong)
	}
	levels(a, "the container is taken up again", warning, warning)
	_ = a.close()
	a = open(busy, busy)
	levels(a, "with one of its own", warning, warning)
	turn(a, 1, critical)
	turn(a, segment.Host, normal)
	levels(a, "the container is loaded", normal, critical)
	if got := a.loaded(); got != "; load of container 1: critical" {
		t.Error(got)
	}
	_ = a.close()
	a = open(nil, nil)
	levels(a, "nothing is measured", normal, normal)
	if err := errors.Join(a.remove(), a.close()); err != nil {
		t.Fatal(err)
	}
}
