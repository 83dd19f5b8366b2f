package balancer

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// soon is far below the time after which everything is read anew, so that it is the
// kernel's word that made the change; a machine that is busy needs it.
const soon = 10 * time.Second

func (w *watched) soon(address string, hop Hop) {
	w.t.Helper()
	took := w.wait(address, hop)
	w.t.Logf("after %v", took)
	if took > soon {
		w.t.Errorf("%s after %v", address, took)
	}
}

func TestHopsFound(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	l.host.ip("route add 2001:db8:a:1::/64 via 2001:db8:1::b mtu 1400")
	l.host.ip("route add blackhole 2001:db8:b::/48")
	l.host.ip("route add unreachable 2001:db8:c::/48")
	l.host.ip("route add 2001:db8:d::/48 via 2001:db8:0::dead")
	l.host.ip("route add 2001:db8:e::/48 dev lo")
	l.host.ip("route add 2001:db8:f::/48 encap seg6 mode encap segs 2001:db8:a::1 dev u0")
	w := l.watch(
		"2001:db8:a::1", "2001:db8:a:1:5201::", "2001:db8:1::b", "2001:db8:b::1", "2001:db8:c::1",
		"2001:db8:d::1", "2001:db8:e::1", "2001:db8:f::1", "2001:db8:9::1", "2001:db8:1::a", "ff02::1", "192.0.2.1",
	)
	for address, want := range map[string]Hop{
		"2001:db8:a::1":       l.hop(0, 1500),
		"2001:db8:a:1:5201::": l.hop(1, 1400),
		"2001:db8:1::b":       l.hop(1, 1500),
	} {
		w.soon(address, want)
	}
	for address, reason := range map[string]string{
		"2001:db8:b::1": "no route: invalid argument",
		"2001:db8:c::1": "no route: no route to host",
		"2001:db8:d::1": "neighbour 2001:db8::dead on u0 has not answered",
		"2001:db8:e::1": "lo is no Ethernet",
		"2001:db8:f::1": "a route that encapsulates",
		"2001:db8:9::1": "no route: network is unreachable",
		"2001:db8:1::a": "an address of this host",
		"ff02::1":       "no unicast address",
		"192.0.2.1":     "want an IPv6 address",
	} {
		w.lacks(address, reason)
	}
	// The neighbour that did not answer comes: the kernel goes on asking.
	l.routers[0].ip("addr add 2001:db8:0::dead/64 dev e0")
	w.soon("2001:db8:d::1", l.hop(0, 1500))
}

func TestHopOfAnotherMAC(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	w := l.watch("2001:db8:a::1")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	l.routerOf[0][5] = 0x99
	l.routers[0].ip("link set e0 address 02:00:00:00:00:99")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	l.uplink[0][5] = 0x77
	l.host.ip("link set u0 address 02:00:00:00:00:77")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	l.host.ip("neigh replace fe80::ff:fe00:10 dev u0 lladdr 02:00:00:00:00:55 nud permanent")
	l.routerOf[0][5] = 0x55
	w.soon("2001:db8:a::1", l.hop(0, 1500))
}

func TestHopOfAnotherRoute(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	l.host.ip("nexthop add id 7 via fe80::ff:fe00:10 dev u0")
	l.host.ip("route add 2001:db8:b::/48 nhid 7")
	a, b := "2001:db8:a:1::1", "2001:db8:b:1::1"
	w := l.watch(a, b, "2001:db8:0::b")
	w.soon(a, l.hop(0, 1500))
	w.soon(b, l.hop(0, 1500))

	for _, tt := range []struct {
		address, command string
		hop              Hop
	}{
		{a, "route replace 2001:db8:a::/48 via fe80::ff:fe00:11 dev u1", l.hop(1, 1500)},
		{a, "route add 2001:db8:a:1::/64 via fe80::ff:fe00:10 dev u0 mtu 1300", l.hop(0, 1300)},
		{a, "route change 2001:db8:a:1::/64 via fe80::ff:fe00:10 dev u0 mtu 1350", l.hop(0, 1350)},
		{a, "route add 2001:db8:a:1::1/128 via 2001:db8:1::b dev u1", l.hop(1, 1500)},
		{a, "route del 2001:db8:a:1::1/128", l.hop(0, 1350)},
		{a, "route del 2001:db8:a:1::/64", l.hop(1, 1500)},
		{b, "nexthop replace id 7 via fe80::ff:fe00:11 dev u1", l.hop(1, 1500)},
		{a, "route del 2001:db8:a::/48", Hop{}},
		{a, "route add default via fe80::ff:fe00:10 dev u0", l.hop(0, 1500)},
		{a, "route add table 9 default via fe80::ff:fe00:11 dev u1", l.hop(0, 1500)},
		{a, "rule add to 2001:db8:a::/48 table 9", l.hop(1, 1500)},
		{a, "rule del to 2001:db8:a::/48 table 9", l.hop(0, 1500)},
		{a, "link set u0 mtu 1400", l.hop(0, 1400)},
	} {
		l.host.ip("%s", tt.command)
		w.soon(tt.address, tt.hop)
	}
}

// Into what the kernel makes of interfaces XDP cannot send, and it is said.
func TestHopOfAnInterfaceThatXDPCannotSendInto(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("link add link u1 name m0 type macvlan")
	l.host.ip("link add br0 type bridge")
	for i, device := range []string{"m0", "br0"} {
		l.host.ip("link set %s up", device)
		l.host.ip("route add 2001:db8:e%d::/48 dev %s", i, device)
	}
	w := l.watch("2001:db8:e0::1", "2001:db8:e1::1")
	w.lacks("2001:db8:e0::1", "m0 is a macvlan, into which XDP cannot send")
	w.lacks("2001:db8:e1::1", "br0 is a bridge, into which XDP cannot send")
}

// Frames for a VLAN leave by the interface that it is on, with its tag and its own MAC
// address.
func TestHopOfAVLAN(t *testing.T) {
	t.Parallel()
	attrs := func(index, parent int, name string, mac byte, mtu int) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Index, a.ParentIndex, a.Name, a.MTU, a.HardwareAddr = index, parent, name, mtu, net.HardwareAddr{2, 0, 0, 0, 0, mac}
		a.Flags, a.RawFlags, a.EncapType, a.NetNsID = net.FlagUp, unix.IFF_RUNNING, "ether", -1
		return a
	}
	vlan := func(a netlink.LinkAttrs, id int) *netlink.Vlan {
		return &netlink.Vlan{LinkAttrs: a, VlanId: id, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	}
	double, elsewhere := vlan(attrs(6, 1, "u0s", 6, 1500), 9), attrs(7, 1, "e0.7", 7, 1500)
	double.VlanProtocol, elsewhere.NetNsID = netlink.VLAN_PROTOCOL_8021AD, 0
	w := newHopWatch(NewHops(slog.New(slog.DiscardHandler), nil), nil)
	for _, d := range []netlink.Link{
		&netlink.Device{LinkAttrs: attrs(1, 0, "u0", 1, 1500)}, vlan(attrs(2, 1, "u0.7", 2, 1400), 7),
		vlan(attrs(3, 2, "u0.7.9", 3, 1400), 9), &netlink.Bond{LinkAttrs: attrs(4, 0, "bond0", 4, 1500), Mode: netlink.BOND_MODE_802_3AD},
		vlan(attrs(5, 4, "bond0.5", 5, 1500), 5), double, vlan(elsewhere, 7), vlan(attrs(8, 99, "gone.7", 8, 1500), 7),
		&netlink.GenericLink{LinkAttrs: attrs(9, 0, "nk0", 9, 1500), LinkType: "netkit"}, vlan(attrs(10, 1, "u0.8", 10, 9000), 8),
		&netlink.Bond{LinkAttrs: attrs(11, 0, "bond1", 11, 1500), Mode: netlink.BOND_MODE_BALANCE_ALB}, vlan(attrs(12, 11, "bond1.5", 12, 1500), 5),
	} {
		w.devices[d.Attrs().Index] = deviceOf(d)
	}
	mac := [6]byte{2, 9}
	for index, want := range map[int]struct {
		hop Hop
		why string
	}{
		1:  {Hop{mac, [6]byte{2, 0, 0, 0, 0, 1}, 1, 0, 1500}, ""},
		2:  {Hop{mac, [6]byte{2, 0, 0, 0, 0, 2}, 1, 7, 1400}, ""},
		3:  {Hop{}, "u0.7.9 is a VLAN in a VLAN, and XDP sends one tag"},
		4:  {Hop{mac, [6]byte{2, 0, 0, 0, 0, 4}, 4, 0, 1500}, ""},
		5:  {Hop{mac, [6]byte{2, 0, 0, 0, 0, 5}, 4, 5, 1500}, ""},
		6:  {Hop{}, "u0s has no tag of its own on an interface of this host, as IEEE 802.1Q has"},
		7:  {Hop{}, "e0.7 has no tag of its own on an interface of this host, as IEEE 802.1Q has"},
		8:  {Hop{}, "gone.7 is on an interface that is not known"},
		9:  {Hop{}, "nk0 is a netkit, into which XDP cannot send"},
		10: {Hop{mac, [6]byte{2, 0, 0, 0, 0, 10}, 1, 8, 1500}, ""},
		11: {Hop{}, "bond1 is a bond of mode balance-alb, into which XDP cannot send"},
		12: {Hop{}, "bond1 is a bond of mode balance-alb, into which XDP cannot send"},
	} {
		via := neighbour{index, netip.MustParseAddr("fe80::1")}
		w.entries[via] = &entry{mac: mac, known: true}
		if hop, why := w.hop(&target{way: way{via: via}}); hop != want.hop || why != want.why {
			t.Errorf("%s: %+v, %q; want %+v, %q", w.devices[index].name, hop, why, want.hop, want.why)
		}
	}
}

// The kernel's own VLANs.
func TestHopOfAVLANOfTheKernel(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "u0.7", l.index[0]
	if err := l.host.kernel().LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: 7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no VLANs, and nothing that could be installed makes it have them")
	} else if err != nil {
		t.Fatal(err)
	}
	l.routers[0].ip("link add link e0 name e0.7 type vlan id 7")
	l.host.ip("link set u0.7 up")
	l.host.ip("addr add 2001:db8:7::a/64 dev u0.7")
	l.routers[0].ip("link set e0.7 up")
	l.routers[0].ip("addr add 2001:db8:7::b/64 dev e0.7")
	l.host.ip("route add 2001:db8:a::/48 via 2001:db8:7::b")
	w := l.watch("2001:db8:a::1")
	want := l.hop(0, 1500)
	want.VLAN = 7
	w.soon("2001:db8:a::1", want)
	l.host.ip("link set u0.7 mtu 1400")
	want.MTU = 1400
	w.soon("2001:db8:a::1", want)
	l.host.ip("link set u0.7 address 02:00:00:00:00:78")
	want.Source[5] = 0x78
	w.soon("2001:db8:a::1", want)
	l.host.ip("link set u0 mtu 1300")
	want.MTU = 1300
	w.soon("2001:db8:a::1", want)
	l.host.ip("link del u0.7")
	w.lacks("2001:db8:a::1", "no route")
}

// Behind a driver the kernel sends, into all.
func TestHopOfGenericXDP(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("link add br0 type bridge")
	l.host.ip("link set u0 master br0")
	l.host.ip("link set br0 up")
	l.host.ip("addr add 2001:db8:7::a/64 dev br0")
	l.routers[0].ip("addr add 2001:db8:7::b/64 dev e0")
	w := l.watchWith((*Hops).Generic, "2001:db8:7::b")
	br0, err := l.host.kernel().LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	want := Hop{Destination: l.routerOf[0], Index: br0.Attrs().Index, MTU: 1500}
	copy(want.Source[:], br0.Attrs().HardwareAddr)
	w.soon("2001:db8:7::b", want)
}

// What was not wanted for a moment is told again, however short that was: who asked has
// forgotten what it was told.
func TestHopWantedAgain(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	w := l.watch("2001:db8:a::1")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	hold := make(chan struct{})
	w.mu.Lock()
	w.hold = hold
	w.mu.Unlock()
	w.set("2001:db8:a::1", "2001:db8:a::2")
	hold <- struct{}{} // it has adopted those, and is in changed
	w.set("2001:db8:a::2")
	w.set("2001:db8:a::1", "2001:db8:a::2")
	w.mu.Lock()
	clear(w.told)
	w.mu.Unlock()
	close(hold)
	w.soon("2001:db8:a::1", l.hop(0, 1500))
}

func TestHopOfALinkThatGoes(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	w := l.watch("2001:db8:a::1", "2001:db8:0::b")
	for _, a := range []string{"2001:db8:a::1", "2001:db8:0::b"} {
		w.soon(a, l.hop(0, 1500))
	}
	l.routers[0].ip("link set e0 down") // no carrier
	w.lacks("2001:db8:a::1", "u0 is down")
	w.lacks("2001:db8:0::b", "u0 is down")
	l.routers[0].ip("link set e0 up")
	for _, a := range []string{"2001:db8:a::1", "2001:db8:0::b"} {
		w.soon(a, l.hop(0, 1500))
	}
	l.host.ip("link set u0 down") // takes the routes with it
	w.lacks("2001:db8:a::1", "no route")
	w.lacks("2001:db8:0::b", "no route")
	l.host.ip("link set u0 up")
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	for _, a := range []string{"2001:db8:a::1", "2001:db8:0::b"} {
		w.soon(a, l.hop(0, 1500))
	}
	l.host.ip("link del u0")
	w.lacks("2001:db8:a::1", "no route")
	l.uplink[0][5], l.routerOf[0][5] = 0x66, 0x67
	l.join(0)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:67 dev u0")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
}

// TestHopsOfSeveralWays: each address has the way that the kernel takes for it, both ways
// are taken, and all have the one that is left.
func TestHopsOfSeveralWays(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	for i := range 2 {
		l.host.sysctl(fmt.Sprintf("ipv6/conf/u%d/ignore_routes_with_linkdown", i), "1")
	}
	l.host.ip("route add 2001:db8:a::/48 nexthop via fe80::ff:fe00:10 dev u0 nexthop via fe80::ff:fe00:11 dev u1")
	var addresses []string
	for i := range 64 {
		addresses = append(addresses, fmt.Sprintf("2001:db8:a:%x:5201::", i))
	}
	w := l.watch(addresses...)
	check := func() (by [2]int) {
		for _, a := range addresses {
			i := 0
			if strings.Contains(l.host.ip("route get %s", a), "dev u1") {
				i = 1
			}
			w.soon(a, l.hop(i, 1500))
			by[i]++
		}
		return by
	}
	if by := check(); by[0] == 0 || by[1] == 0 {
		t.Errorf("%v addresses by the uplinks", by)
	}
	l.routers[1].ip("link set e0 down")
	for _, a := range addresses {
		w.soon(a, l.hop(0, 1500))
	}
	if by := check(); by[1] != 0 {
		t.Errorf("%v addresses by the uplinks, the second one down", by)
	}
	l.routers[1].ip("link set e0 up")
	eventually(t, "both uplinks again", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range w.told {
			if c.Hop == l.hop(1, 1500) {
				return true
			}
		}
		return false
	})
	check()
}

// TestHopsManageNeighbours: those in use are kept by the kernel, others no longer, and
// what is permanent stays so.
func TestHopsManageNeighbours(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	l.host.ip("neigh add fe80::ff:fe00:11 dev u1 lladdr %v nud permanent", "02:00:00:00:00:11")
	l.host.ip("route add 2001:db8:b::/48 via fe80::ff:fe00:11 dev u1")
	l.host.ip("route add 2001:db8:c::/48 via 2001:db8:1::b")
	l.host.ip("neigh add 2001:db8:1::b dev u1 nud none managed") // by another one
	w := l.watch("2001:db8:a::1", "2001:db8:b::1", "2001:db8:c::1")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	w.soon("2001:db8:b::1", l.hop(1, 1500))
	w.soon("2001:db8:c::1", l.hop(1, 1500))
	kernel := l.host.kernel()
	entry := func(index int, address string) netlink.Neigh {
		t.Helper()
		all, err := kernel.NeighList(index, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range all {
			if n.IP.String() == address {
				return n
			}
		}
		t.Fatalf("no entry of %s", address)
		return netlink.Neigh{}
	}
	managed := func(n netlink.Neigh) bool { return n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 }
	if n := entry(l.index[0], "fe80::ff:fe00:10"); !managed(n) {
		t.Errorf("not managed: %+v", n)
	}
	if n := entry(l.index[1], "fe80::ff:fe00:11"); n.State != netlink.NUD_PERMANENT {
		t.Errorf("not permanent: %+v", n)
	}
	w.set()
	eventually(t, "not managed any more", func() bool { return !managed(entry(l.index[0], "fe80::ff:fe00:10")) })
	if n := entry(l.index[1], "fe80::ff:fe00:11"); n.State != netlink.NUD_PERMANENT {
		t.Errorf("not permanent, unused: %+v", n)
	}
	if n := entry(l.index[1], "2001:db8:1::b"); !managed(n) {
		t.Errorf("managed by another one no longer: %+v", n)
	}
	l.host.ip("neigh flush dev u0")
	told := w.last("2001:db8:a::1")
	l.host.ip("route del 2001:db8:a::/48")
	w.set("2001:db8:c::1", "2001:db8:0::b")
	w.soon("2001:db8:0::b", l.hop(0, 1500))
	if got := w.last("2001:db8:a::1"); got != told {
		t.Errorf("told of what is no longer wanted: %+v", got)
	}
}

// TestHopsOfAnEntryThatIsThrownAway: the kernel is asked again.
func TestHopsOfAnEntryThatIsThrownAway(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	w := l.watch("2001:db8:0::b")
	w.soon("2001:db8:0::b", l.hop(0, 1500))
	for range 3 {
		l.host.ip("neigh del 2001:db8:0::b dev u0")
		eventually(t, "asked again", func() bool {
			return strings.Contains(l.host.ip("neigh show dev u0"), "2001:db8::b lladdr")
		})
		w.soon("2001:db8:0::b", l.hop(0, 1500))
	}
}

// TestHopsAfterALoss: more changes than the kernel can keep for who does not listen.
func TestHopsAfterALoss(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	l.host.ip("route add 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0")
	l.host.ip("route add 2001:db8:b::/48 via fe80::ff:fe00:11 dev u1")
	w := l.watch("2001:db8:a::1", "2001:db8:b::1")
	w.soon("2001:db8:a::1", l.hop(0, 1500))
	w.soon("2001:db8:b::1", l.hop(1, 1500)) // so that nothing of u1 is to be found out
	hold := make(chan struct{})
	w.mu.Lock()
	w.hold = hold
	w.mu.Unlock()
	l.host.ip("route replace 2001:db8:a::/48 via fe80::ff:fe00:11 dev u1")
	time.Sleep(100 * time.Millisecond) // it waits in changed
	var storm strings.Builder
	for range 4000 {
		for _, verb := range []string{"add", "del"} {
			fmt.Fprintf(&storm, "route %s 2001:db8:f::/48 via 2001:db8:0::b\n", verb)
		}
	}
	l.host.batch(storm.String())
	l.host.ip("route replace 2001:db8:a::/48 via fe80::ff:fe00:10 dev u0 mtu 1450")
	lost := dropped(t, l.host)
	close(hold)
	if lost == 0 {
		t.Error("nothing was lost: the test shows nothing")
	}
	t.Logf("%d messages were lost", lost)
	w.soon("2001:db8:a::1", l.hop(0, 1450))
}

// dropped is how many messages the sockets of a namespace have lost.
func dropped(t *testing.T, h *hopHost) (n int) {
	t.Helper()
	for _, line := range strings.Split(h.read("/proc/thread-self/net/netlink"), "\n")[1:] {
		f := strings.Fields(line)
		if len(f) == 10 {
			var d int
			if _, err := fmt.Sscan(f[8], &d); err != nil {
				t.Fatal(err)
			}
			n += d
		}
	}
	return n
}

func TestHopsSet(t *testing.T) {
	t.Parallel()
	l := newHopLab(t)
	w := l.watch()
	w.set("2001:db8:1::b", "2001:db8:0::b", "2001:db8:1::b")
	w.soon("2001:db8:0::b", l.hop(0, 1500))
	w.soon("2001:db8:1::b", l.hop(1, 1500))
	w.set("2001:db8:1::b") // and a change, told of what is left alone
	l.host.ip("link set u1 mtu 1400")
	w.soon("2001:db8:1::b", l.hop(1, 1400))
	l.host.ip("link set u0 mtu 1400")
	w.set("2001:db8:0::b", "2001:db8:1::b")
	w.soon("2001:db8:0::b", l.hop(0, 1400))
}
