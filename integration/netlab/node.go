package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Node is a host or router: a network namespace that forwards, spreads over equal
// paths by the ports, and takes its own addresses for good at once.
type Node struct {
	Name      string // within the lab
	Namespace string // for ip netns exec
	Dir       string // files of what runs on it

	lab    *Lab
	ns     netns.NsHandle
	handle *netlink.Handle
}

// Node is a further node of the lab.
func (l *Lab) Node(name string) *Node {
	l.tb.Helper()
	n := &Node{Name: name, Namespace: l.name + "-" + name, Dir: filepath.Join(l.Dir, name), lab: l}
	if err := os.Mkdir(n.Dir, 0o755); err != nil {
		l.tb.Fatal(err)
	}
	l.run(exec.Command("ip", "netns", "add", n.Namespace))
	var err error
	if n.ns, err = netns.GetFromName(n.Namespace); err != nil {
		l.tb.Fatal(err)
	}
	l.nodes = append(l.nodes, n)
	if n.handle, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		l.tb.Fatal(err)
	}
	n.Sysctl("net.ipv4.ip_forward", "1")
	n.Sysctl("net.ipv6.conf.all.forwarding", "1")
	for _, family := range []string{"ipv4", "ipv6"} {
		n.Sysctl("net."+family+".fib_multipath_hash_policy", "1")
	}
	for _, device := range []string{"all", "default"} {
		n.Sysctl("net.ipv4.conf."+device+".rp_filter", "0") // ways back differ
		n.Sysctl("net.ipv6.conf."+device+".accept_dad", "0")
		n.Sysctl("net.ipv6.conf."+device+".keep_addr_on_down", "1") // as a router does
	}
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

func (n *Node) close() {
	if n.handle != nil {
		n.handle.Close()
	}
	_ = n.ns.Close()
}

// Sysctl sets a kernel parameter of the node.
func (n *Node) Sysctl(key, value string) {
	n.lab.tb.Helper()
	file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	var err error
	n.Do(func() { err = os.WriteFile(file, []byte(value), 0) })
	if err != nil {
		n.lab.tb.Fatal(err)
	}
}

// Command is a command to be run on the node.
func (n *Node) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Namespace, name}, args...)...)
}

// Run runs a command on the node and returns what it said; the test fails with it.
func (n *Node) Run(name string, args ...string) string {
	n.lab.tb.Helper()
	return n.lab.run(n.Command(name, args...))
}

func (l *Lab) run(cmd *exec.Cmd) string {
	l.tb.Helper()
	l.tb.Log(quoted(cmd.Args))
	out, err := cmd.CombinedOutput()
	if err != nil {
		l.tb.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// Do calls f in the namespace of the node. What f opens stays there; goroutines that
// it starts do not. For any goroutine.
func (n *Node) Do(f func()) {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err == nil {
			err = netns.Set(n.ns)
		}
		if err != nil {
			done <- fmt.Errorf("enter %s: %w", n.Namespace, err)
			return // and the thread ends, being locked
		}
		defer close(done) // also when f leaves the test
		defer func() {
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
			_ = home.Close()
		}()
		f()
	}()
	if err := <-done; err != nil {
		panic(err)
	}
}

// Dial connects from the node to an address, no name. For any goroutine.
func (n *Node) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	n.Do(func() {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, n.numbered(address))
	})
	return c, err
}

// Listen listens on an address, also one that the node does not have. For any
// goroutine.
func (n *Node) Listen(network, address string) (l net.Listener, err error) {
	n.Do(func() { l, err = anywhere.Listen(context.Background(), network, n.numbered(address)) })
	return l, err
}

// ListenPacket is Listen for datagrams.
func (n *Node) ListenPacket(network, address string) (c net.PacketConn, err error) {
	n.Do(func() { c, err = anywhere.ListenPacket(context.Background(), network, n.numbered(address)) })
	return c, err
}

// anywhere binds to addresses that are not on a device: prefixes may be the node's.
var anywhere = net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
	level, option := unix.SOL_IP, unix.IP_FREEBIND
	if strings.HasSuffix(network, "6") {
		level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}}

// numbered has the zone of an address as a number: the names of devices are cached by
// package net, for all namespaces alike.
func (n *Node) numbered(address string) string {
	a, err := netip.ParseAddrPort(address)
	if err != nil || a.Addr().Zone() == "" {
		return address
	}
	link, err := n.handle.LinkByName(a.Addr().Zone())
	if err != nil {
		return address
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(link.Attrs().Index)), a.Port()).String()
}

// Own makes all addresses of a prefix the node's.
func (n *Node) Own(prefix string) {
	n.lab.tb.Helper()
	n.Run("ip", "route", "add", "local", prefix, "dev", "lo")
}
