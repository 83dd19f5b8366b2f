package netlab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a cable between two nodes.
type Link struct {
	A, B End

	lab    *Lab
	number int // of the lab's links
}

// End is an end of a link.
type End struct {
	Node   *Node
	Device string
	Local  netip.Addr   // link-local, with the device as its zone
	Addrs  []netip.Addr // as given to Link, in that order
}

// firstIndex is above the numbers that the kernel gives devices of a node by itself.
const firstIndex = 1000

// Link lays a cable between two nodes, whose ends are up. Of each address, which has
// the length of its prefix, a gets that and b the next one.
func (l *Lab) Link(a *Node, deviceA string, b *Node, deviceB string, addrs ...string) *Link {
	l.tb.Helper()
	l.links++
	k := &Link{lab: l, number: l.links, A: End{Node: a, Device: deviceA}, B: End{Node: b, Device: deviceB}}
	// Of a veth whose ends have the same number in their namespaces the kernel tells only once
	// a second that there is a carrier or none, as of real ones; of others at once
	// (linkwatch_urgent_event of net/core/link_watch.c). Which are alike would be chance.
	index := func(end int) string { return strconv.Itoa(firstIndex + 2*l.links + end) }
	l.run(exec.Command("ip", "link", "add", deviceA, "index", index(0), "netns", a.Namespace,
		"type", "veth", "peer", "name", deviceB, "index", index(1), "netns", b.Namespace))
	for _, s := range addrs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			l.tb.Fatal(err)
		}
		k.A.add(p.Addr(), p.Bits())
		k.B.add(p.Addr().Next(), p.Bits())
	}
	for _, e := range []*End{&k.A, &k.B} {
		e.Node.Run("ip", "link", "set", e.Device, "up")
	}
	for _, e := range []*End{&k.A, &k.B} {
		e.waitLocal()
	}
	k.Meet()
	return k
}

func (e *End) add(a netip.Addr, bits int) {
	e.Node.lab.tb.Helper()
	e.Node.Run("ip", "addr", "add", netip.PrefixFrom(a, bits).String(), "dev", e.Device)
	e.Addrs = append(e.Addrs, a)
}

// waitLocal waits for the link-local address, which comes with the carrier.
func (e *End) waitLocal() {
	e.Node.lab.tb.Helper()
	e.Node.lab.Eventually("a link-local address on "+e.Device, func() bool {
		device, err := e.Node.handle.LinkByName(e.Device)
		if err != nil {
			return false
		}
		addrs, err := e.Node.handle.AddrList(device, netlink.FAMILY_V6)
		if err != nil {
			return false
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP)
			if ip.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				e.Local = ip.WithZone(e.Device)
				return true
			}
		}
		return false
	})
}

// Meet has the ends find each other's neighbour entries, as they have after Link. A
// router leaves a hop of a group out while it asks for its neighbour, and so moves
// flows when the answer comes: those of a test begin afterwards.
func (k *Link) Meet() {
	k.lab.tb.Helper()
	k.A.meet(&k.B)
	k.B.meet(&k.A)
}

func (e *End) meet(other *End) {
	tb := e.Node.lab.tb
	tb.Helper()
	for _, a := range append([]netip.Addr{other.Local}, other.Addrs...) {
		to := netip.AddrPortFrom(a, 9)
		if a.IsLinkLocalUnicast() {
			to = netip.AddrPortFrom(a.WithZone(e.Device), 9)
		}
		e.Node.lab.Eventually(fmt.Sprint(e.Node.Name, " to find ", a), func() bool {
			if e.knows(a.WithZone("")) {
				return true
			}
			if c, err := e.Node.Dial(tb.Context(), "udp", to.String()); err == nil {
				_, _ = c.Write(nil)
				_ = c.Close()
			}
			return false
		})
	}
}

func (e *End) knows(a netip.Addr) bool {
	device, err := e.Node.handle.LinkByName(e.Device)
	if err != nil {
		return false
	}
	neighbours, err := e.Node.handle.NeighList(device.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return false
	}
	const valid = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT | unix.NUD_NOARP
	return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool { return addr(n.IP) == a && n.State&valid != 0 })
}

// Down takes the link down: both ends lose their carrier.
func (k *Link) Down() { k.lab.tb.Helper(); k.A.Node.Run("ip", "link", "set", k.A.Device, "down") }

// Up ends Down.
func (k *Link) Up() {
	k.lab.tb.Helper()
	k.A.Node.Run("ip", "link", "set", k.A.Device, "up")
	k.A.waitLocal()
	k.B.waitLocal()
}

// What Drop drops instead of everything.
const (
	BFD = "udp dport { 3784, 3785, 4784 }"
	BGP = "tcp sport 179; tcp dport 179"
	// ND is what a node answers nothing without: neighbour discovery and ARP.
	ND = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }; arp operation { request, reply }"
)

// Drop loses packets silently in both directions: those that a match of nft says
// (several are separated by semicolons), or all of them without one. It adds to what
// is dropped already.
func (k *Link) Drop(matches ...string) {
	k.lab.tb.Helper()
	k.DropTo(k.A.Node, matches...)
	k.DropTo(k.B.Node, matches...)
}

// DropTo is Drop for packets towards one of the ends. They are lost before they are
// received, and become packets of no protocol when they are sent: their sender would
// hear of it if they were dropped there, and XDP on the receiver sees them before they
// are dropped here.
func (k *Link) DropTo(to *Node, matches ...string) {
	k.lab.tb.Helper()
	k.rule(k.other(to), "egress", "ether type set 0x88b5", matches)
	k.rule(k.end(to), "ingress", "drop", matches)
}

// Heal ends all Drop.
func (k *Link) Heal() {
	k.lab.tb.Helper()
	for _, n := range []*Node{k.A.Node, k.B.Node} {
		k.nft(n, fmt.Sprintf("add table netdev %s; delete table netdev %[1]s", k.table()))
	}
}

func (k *Link) rule(e *End, hook, verdict string, matches []string) {
	k.lab.tb.Helper()
	if len(matches) == 0 {
		matches = []string{""}
	}
	rules := []string{
		"add table netdev " + k.table(),
		fmt.Sprintf(`add chain netdev %s %s { type filter hook %[2]s device "%s" priority 0; }`, k.table(), hook, e.Device),
	}
	for m := range strings.SplitSeq(strings.Join(matches, ";"), ";") {
		rules = append(rules, fmt.Sprintf("add rule netdev %s %s %s %s", k.table(), hook, m, verdict))
	}
	k.nft(e.Node, strings.Join(rules, "; "))
}

func (k *Link) nft(n *Node, rules string) {
	k.lab.tb.Helper()
	n.Run(program(k.lab.tb, "nft", "nftables"), rules)
}

// table is the name of the link's own table of nft, as a node may have several links.
func (k *Link) table() string { return fmt.Sprintf("link%d", k.number) }

func (k *Link) end(n *Node) *End {
	k.lab.tb.Helper()
	switch n {
	case k.A.Node:
		return &k.A
	case k.B.Node:
		return &k.B
	}
	k.lab.tb.Fatalf("%s is not on the link", n.Name)
	return nil
}

func (k *Link) other(n *Node) *End {
	k.lab.tb.Helper()
	if k.end(n) == &k.A {
		return &k.B
	}
	return &k.A
}
