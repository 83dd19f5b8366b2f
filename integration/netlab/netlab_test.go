package netlab

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two nodes with a link.
func pair(t *testing.T) (*Lab, *Node, *Node, *Link) {
	t.Helper()
	lab := New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw1")
	return lab, tor, gw, lab.Link(tor, "swp1", gw, "eth0", "2001:db8:0:1::1/64", "192.0.2.0/31")
}

func TestALinkPassesPacketsAtOnce(t *testing.T) {
	t.Parallel()
	_, tor, gw, link := pair(t)
	gw.Echo(netip.MustParseAddrPort("[::]:7"))
	// As names of devices are cached for all namespaces, a zone is looked up by the node.
	local := netip.AddrPortFrom(link.B.Local.WithZone("swp1"), 7)
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(link.B.Addrs[0], 7), netip.AddrPortFrom(link.B.Addrs[1], 7), local,
	} {
		for _, network := range []string{"tcp", "udp"} {
			if f := tor.Flows(network, to, 3); f.To["gw1"] != 3 {
				t.Errorf("%s to %v: %+v", network, to, f)
			}
		}
	}
}

func TestADeadProcessLeavesNothing(t *testing.T) {
	if os.Getenv("NETLAB_CHILD") != "" {
		lab := New(t)
		lab.Node("tor").StartFRR("hostname tor\nbfd\n")
		fmt.Println("lab", lab.name)
		select {}
	}
	t.Parallel()
	New(t) // or skip
	program(t, "vtysh", "frr")
	child := exec.Command(os.Args[0], "-test.run=^TestADeadProcessLeavesNothing$")
	child.Env = append(os.Environ(), "NETLAB_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	name := ""
	for lines := bufio.NewScanner(out); name == "" && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "lab %s", &name)
	}
	pid, err := os.ReadFile(filepath.Join("/run", name, "tor/frr/zebra.pid"))
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Process.Kill()
	for _, file := range []string{"/run/netns/" + name + "-tor", "/run/" + name, "/proc/" + strings.TrimSpace(string(pid))} {
		for deadline := time.Now().Add(time.Minute); exists(file); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s survives the test", file)
			}
		}
	}
}

func TestLeftoversOfTheDeadAreRemoved(t *testing.T) {
	t.Parallel()
	New(t) // or skip
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("rz%d-1", dead.Process.Pid)
	if out, err := exec.Command("ip", "netns", "add", name+"-tor").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir("/run/"+name, 0o755); err != nil {
		t.Fatal(err)
	}
	sweep(t)
	for _, file := range []string{"/run/netns/" + name + "-tor", "/run/" + name} {
		if exists(file) {
			t.Errorf("%s is left", file)
		}
	}
}

func TestDrops(t *testing.T) {
	t.Parallel()
	lab, tor, gw, link := pair(t)
	program(t, "nft", "nftables")
	seven, eight := netip.AddrPortFrom(link.B.Addrs[0], 7), netip.AddrPortFrom(link.B.Addrs[0], 8)
	gw.Echo(seven)
	gw.Echo(eight)
	passes := func(to netip.AddrPort) bool {
		c, err := tor.Dial(t.Context(), "udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("who\n"))
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		_, err = c.Read(make([]byte, 64))
		return err == nil
	}
	for _, c := range []struct {
		name         string
		drop         func()
		seven, eight bool
	}{
		{"a port", func() { link.Drop("udp dport 7", "tcp dport 7") }, false, true},
		{"a way there", func() { link.DropTo(gw, "udp dport 8") }, true, false},
		{"a way that is not taken", func() { link.DropTo(tor, "udp dport 8") }, true, true},
		{"a way back", func() { link.DropTo(tor, "udp sport 7") }, false, true},
		{"the protocols", func() { link.Drop(BFD, BGP) }, true, true},
		{"neighbours", func() {
			link.Drop(ND)
			tor.Run("ip", "neigh", "flush", "dev", "swp1")
			gw.Run("ip", "neigh", "flush", "dev", "eth0")
		}, false, false},
		{"everything", func() { link.Drop() }, false, false},
	} {
		c.drop()
		lab.Eventually(c.name+" to be lost", func() bool { return passes(seven) == c.seven && passes(eight) == c.eight })
		link.Heal()
		lab.Eventually("the link to be healed", func() bool { return passes(seven) && passes(eight) })
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	lab, _, gw, _ := pair(t)
	p := gw.Start("sh", "-c", "trap 'echo bye; exit' TERM; echo hello; while :; do sleep 0.01; done")
	lab.Eventually("a log", func() bool { return p.Log() == "hello\n" })
	p.Stop()
	lab.Eventually("the process to be stopped", func() bool { return state(p) == "T" })
	p.Terminate()
	if p.Alive() || p.Log() != "hello\nbye\n" {
		t.Errorf("alive: %v, log: %q", p.Alive(), p.Log())
	}
	p = gw.Start("sleep", "1000")
	p.Kill()
	if p.Alive() {
		t.Error("alive after a kill")
	}
}

func state(p *Process) string {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:min(1, len(after))]
}

func TestFIB(t *testing.T) {
	t.Parallel()
	lab, tor, _, link := pair(t)
	second := lab.Link(tor, "swp2", lab.Node("gw2"), "eth0", "2001:db8:0:2::1/64", "192.0.2.2/31")
	w := tor.WatchFIB()
	for _, c := range []struct{ command, prefix, want string }{
		{"ip route add default via 192.0.2.1", "0.0.0.0/0", "[via 192.0.2.1 dev swp1]"},
		{"ip route add 198.51.100.1/32 nexthop via 192.0.2.3 nexthop via inet6 2001:db8:0:1::2 dev swp1", "198.51.100.1/32", "[via 2001:db8:0:1::2 dev swp1 via 192.0.2.3 dev swp2]"},
		{"ip route add blackhole 198.51.100.2/32", "198.51.100.2/32", "[blackhole]"},
		{"ip -6 route add 2001:db8:ffff::1/128 nexthop via 2001:db8:0:2::2 nexthop via 2001:db8:0:1::2", "2001:db8:ffff::1/128", "[via 2001:db8:0:1::2 dev swp1 via 2001:db8:0:2::2 dev swp2]"},
		{"ip -6 route add blackhole 2001:db8:ffff::2/128", "2001:db8:ffff::2/128", "[blackhole]"},
		{"ip -6 route add 2001:db8:ffff::3/128 dev swp1 metric 9", "2001:db8:ffff::3/128", "[dev swp1]"},
		{"ip -6 route add 2001:db8:ffff::3/128 dev swp2 metric 8", "2001:db8:ffff::3/128", "[dev swp2]"},
		{"ip nexthop add id 1 via 2001:db8:0:1::2 dev swp1", "::/0", "[]"},
		{"ip nexthop add id 2 via 2001:db8:0:2::2 dev swp2", "::/0", "[]"},
		{"ip nexthop add id 3 group 1/2", "::/0", "[]"},
		{"ip -6 route add default nhid 3", "::/0", "[via 2001:db8:0:1::2 dev swp1 via 2001:db8:0:2::2 dev swp2]"},
		{"ip nexthop del id 1", "::/0", "[via 2001:db8:0:2::2 dev swp2]"},
	} {
		words := strings.Fields(c.command)
		start := time.Now()
		tor.Run(words[0], words[1:]...)
		has := func(f FIB) bool { return fmt.Sprint(f[netip.MustParsePrefix(c.prefix)]) == c.want }
		if f := tor.FIB(); !has(f) {
			t.Errorf("%s: %v", c.command, f[netip.MustParsePrefix(c.prefix)])
			continue
		}
		if since := w.Until(c.command, has); c.want != "[]" && since.Before(start) {
			t.Errorf("%s: changed before", c.command)
		}
	}
	link.Down()
	w.Until("one hop to be left", func(f FIB) bool { return len(f.Devices("2001:db8:ffff::1/128")) == 1 })
	second.Down()
	w.Until("none", func(f FIB) bool { return len(f.Devices("2001:db8:ffff::1/128")) == 0 })
	link.Up()
	w.Until("the link", func(f FIB) bool { return len(f.Devices("2001:db8:0:1::/64")) == 1 })
}
