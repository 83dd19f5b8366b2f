package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// binder is a gateway's host behind a router that sends it everything.
type binder struct {
	tb   testing.TB
	lab  *netlab.Lab
	node *netlab.Node
	tor  *netlab.Node
}

func newBinder(tb testing.TB) *binder {
	tb.Helper()
	lab := netlab.New(tb)
	b := &binder{tb: tb, lab: lab, tor: lab.Node("tor"), node: lab.Node("gw")}
	lab.Link(b.tor, "swp1", b.node, "eth0", "2001:db8:0:1::1/64", "192.0.2.0/31")
	b.tor.Run("ip", "route", "add", "default", "via", "192.0.2.1")
	b.tor.Run("ip", "route", "add", "default", "via", "2001:db8:0:1::2")
	b.node.Run("ip", "route", "add", "default", "via", "192.0.2.0")
	b.node.Run("ip", "route", "add", "default", "via", "2001:db8:0:1::1")
	return b
}

func (b *binder) bind(prefixes ...string) error {
	var list []netip.Prefix
	for _, p := range prefixes {
		list = append(list, netip.MustParsePrefix(p))
	}
	var err error
	b.node.Do(func() { err = gateway.Bind(list) })
	return err
}

// must is bind that has to succeed.
func (b *binder) must(prefixes ...string) {
	b.tb.Helper()
	if err := b.bind(prefixes...); err != nil {
		b.tb.Fatal(err)
	}
}

// local tells whether the host takes the packets to an address.
func (b *binder) local(addr string) bool {
	b.tb.Helper()
	return strings.HasPrefix(b.node.Run("ip", "route", "get", addr), "local ")
}

func (b *binder) takes(addrs ...string) {
	b.tb.Helper()
	for _, a := range addrs {
		if !b.local(a) {
			b.tb.Errorf("%s is not taken", a)
		}
	}
}

func (b *binder) takesNot(addrs ...string) {
	b.tb.Helper()
	for _, a := range addrs {
		if b.local(a) {
			b.tb.Errorf("%s is taken", a)
		}
	}
}

// answers fails unless the router can connect to the host at each address.
func (b *binder) answers(addrs ...string) {
	b.tb.Helper()
	l, err := b.node.Listen("tcp", "[::]:8080")
	if err != nil {
		b.tb.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(b.tb.Context(), patience)
	defer cancel()
	for _, a := range addrs {
		c, err := b.tor.Dial(ctx, "tcp", net.JoinHostPort(a, "8080"))
		if err != nil {
			b.tb.Error(err)
			continue
		}
		_ = c.Close()
	}
}

// state is what the kernel has.
func (b *binder) state() string {
	b.tb.Helper()
	return b.node.Run("ip", "addr", "show", "dev", "lo") +
		b.node.Run("ip", "route", "show", "table", "local") + b.node.Run("ip", "-6", "route", "show", "table", "local")
}

func TestBind(t *testing.T) {
	t.Parallel()
	b := newBinder(t)
	before := b.state()
	all := []string{"203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48"}
	inside := []string{"203.0.113.7", "2001:db8:ffff::7", "198.51.100.0", "198.51.100.255", "2001:db8:fffe::", "2001:db8:fffe:1::9"}
	b.must(all...)
	b.takes(inside...)
	b.answers("203.0.113.7", "2001:db8:ffff::7", "198.51.100.77", "2001:db8:fffe:1::9")

	bound := b.state()
	b.must(all...)
	if again := b.state(); again != bound {
		t.Errorf("a second call changed\n%s\nto\n%s", bound, again)
	}

	b.must("203.0.113.7/32", "2001:db8:fffe::/48", "2001:db8:fffe::5/48")
	b.takes("203.0.113.7", "2001:db8:fffe:1::9")
	b.takesNot("2001:db8:ffff::7", "198.51.100.77")
	b.must()
	if after := b.state(); after != before {
		t.Errorf("left behind: was\n%s\nis\n%s", before, after)
	}
}

// TestBindListen is what addresses are bound for: programs listen on them.
func TestBindListen(t *testing.T) {
	t.Parallel()
	b := newBinder(t)
	b.must("203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24")
	for _, addr := range []string{"203.0.113.7:0", "[2001:db8:ffff::7]:0", "198.51.100.9:0"} {
		b.node.Do(func() {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			_ = l.Close()
		})
	}
}

// TestBindIsNoSource: answers to an anycast address may go to another site. The host
// has no IPv4 address for the outside but VIPs, and an IPv6 one that is less like the
// destination than a VIP.
func TestBindIsNoSource(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	b := &binder{tb: t, lab: lab, tor: lab.Node("tor"), node: lab.Node("gw")}
	link := lab.Link(b.tor, "swp1", b.node, "eth0")
	b.must("203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48")
	b.node.Run("ip", "addr", "add", "2001:db8:0:12::1/128", "dev", "lo")
	b.node.Run("ip", "-6", "route", "add", "default", "via", link.A.Local.WithZone("").String(), "dev", "eth0")
	b.node.Run("ip", "-4", "route", "add", "default", "via", "inet6", link.A.Local.WithZone("").String(), "dev", "eth0")
	if said := b.node.Run("ip", "route", "get", "2001:db8:ffff::9"); !strings.Contains(said, "src 2001:db8:0:12::1 ") {
		t.Errorf("want the host's own source: %s", said)
	}
	if said := b.node.Run("ip", "route", "get", "192.0.2.99"); strings.Contains(said, "src 203.") || strings.Contains(said, "src 198.") {
		t.Errorf("want no VIP as the source: %s", said)
	}
}

// TestBindOthers leaves what an operator made, and uses it.
func TestBindOthers(t *testing.T) {
	t.Parallel()
	b := newBinder(t)
	b.node.Run("ip", "addr", "add", "203.0.113.7/32", "dev", "lo")
	b.node.Run("ip", "addr", "add", "2001:db8:ffff::7/128", "dev", "lo")
	b.node.Run("ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo")
	b.node.Run("ip", "route", "add", "local", "2001:db8:fffe::/48", "dev", "lo")
	// The kernel makes the route of an address a moment later.
	b.lab.Eventually("the address to be taken", func() bool { return b.local("2001:db8:ffff::7") })
	before := b.state()
	b.must("203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48")
	b.must()
	if after := b.state(); after != before {
		t.Errorf("was\n%s\nis\n%s", before, after)
	}
	b.must("203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48")
	b.node.Run("ip", "addr", "del", "2001:db8:ffff::7/128", "dev", "lo")
	b.node.Run("ip", "route", "del", "local", "198.51.100.0/24", "dev", "lo")
	b.takesNot("2001:db8:ffff::7", "198.51.100.9")
	b.must("203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48")
	b.takes("2001:db8:ffff::7", "198.51.100.9")
}

// TestBindRepairs binds again what somebody removed.
func TestBindRepairs(t *testing.T) {
	t.Parallel()
	b := newBinder(t)
	all := []string{"203.0.113.7/32", "2001:db8:ffff::7/128", "198.51.100.0/24", "2001:db8:fffe::/48"}
	b.must(all...)
	b.takes("2001:db8:ffff::7")
	bound := b.state()
	b.node.Run("ip", "addr", "flush", "dev", "lo", "scope", "host", "to", "203.0.113.0/24")
	b.node.Run("ip", "-6", "addr", "flush", "dev", "lo", "to", "2001:db8::/32")
	b.node.Run("ip", "route", "flush", "table", "local", "proto", "82")
	b.node.Run("ip", "-6", "route", "flush", "table", "local", "proto", "82")
	b.takesNot("203.0.113.7", "2001:db8:ffff::7", "198.51.100.9", "2001:db8:fffe::9")
	b.must(all...)
	b.takes("2001:db8:ffff::7")
	if again := b.state(); again != bound {
		t.Errorf("was\n%s\nis\n%s", bound, again)
	}
}

// TestBindRefuses a prefix with the host's own network in it, and binds the others.
func TestBindRefuses(t *testing.T) {
	t.Parallel()
	b := newBinder(t)
	err := b.bind("2001:db8::/32", "192.0.0.0/8", "0.0.0.0/0", "203.0.113.7/32")
	for _, want := range []string{
		`"2001:db8::/32": has the network 2001:db8:0:1::/64 of eth0 in it`, `"192.0.0.0/8": has the network 192.0.2.0/31 of eth0 in it`,
		`"0.0.0.0/0": has the network 127.0.0.0/8 of lo in it`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	b.takes("203.0.113.7")
	b.takesNot("2001:db8:0:1::1", "192.0.2.0")
}

func TestBindNotPermitted(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	var err error
	without(t, lab.Node("gw"), unix.CAP_NET_ADMIN, func() {
		err = gateway.Bind([]netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("198.51.100.0/24")})
	})
	if want := "binding on loopback is not permitted; want CAP_NET_ADMIN"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestBindMany is as many as an edge may have.
func TestBindMany(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	b := &binder{tb: t, lab: lab, node: lab.Node("gw")}
	var all []string
	for i := range 1024 {
		all = append(all, fmt.Sprintf("203.0.%d.%d/32", i/256, i%256), fmt.Sprintf("2001:db8::%x/128", i+1))
	}
	before := b.state()
	b.must(all...)
	b.takes("203.0.3.255", "2001:db8::400")
	b.must()
	if b.state() != before {
		t.Error("left behind:", b.state())
	}
}
