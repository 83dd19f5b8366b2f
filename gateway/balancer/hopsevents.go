package balancer

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// hear notes which addresses messages of the kernel are about; nil is that some were
// lost.
func (w *hopWatch) hear(messages []syscall.NetlinkMessage) {
	if messages == nil {
		w.lost = true
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			w.hearLink(m)
		case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
			w.hearNeighbour(m)
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			w.hearRoute(m)
		default: // rules and next hops of routes
			w.doubtAll()
		}
	}
}

// hearLink doubts everything when an interface is another than it was: which routes that
// changes is not told for each.
func (w *hopWatch) hearLink(m syscall.NetlinkMessage) {
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] == unix.AF_BRIDGE { // of a bridge's port, not of the interface
		return
	}
	header := unix.NlMsghdr(m.Header)
	l, err := netlink.LinkDeserialize(&header, m.Data)
	if err != nil {
		w.lost = true
		return
	}
	index, is := l.Attrs().Index, deviceOf(l)
	if m.Header.Type == unix.RTM_DELLINK {
		is = device{}
	}
	was := w.devices[index]
	if is == was {
		return
	}
	w.devices[index] = is
	if is == (device{}) {
		delete(w.devices, index)
	}
	for n, e := range w.entries {
		if n.index == index && !e.known {
			w.unasked[n] = true // or what was asked did not go out
		}
	}
	w.doubtAll()
}

func (w *hopWatch) hearNeighbour(m syscall.NetlinkMessage) {
	n, err := netlink.NeighDeserialize(m.Data)
	if err != nil {
		w.lost = true
		return
	}
	if m.Header.Type == unix.RTM_DELNEIGH {
		n.State = netlink.NUD_NONE
		if key := neighbourOf(n); w.entries[key] != nil {
			w.unasked[key] = true
		}
	}
	w.learn(n)
}

// hearRoute doubts the addresses that are in a route's prefix.
func (w *hopWatch) hearRoute(m syscall.NetlinkMessage) {
	p, ok := prefixOf(m.Data)
	if !ok {
		w.doubtAll()
		return
	}
	i, _ := slices.BinarySearchFunc(w.addresses, p.Addr(), netip.Addr.Compare)
	for ; i < len(w.addresses) && p.Contains(w.addresses[i]); i++ {
		w.doubted[w.addresses[i]] = true
	}
}

// prefixOf is the destination of an IPv6 route in a message.
func prefixOf(b []byte) (netip.Prefix, bool) {
	if len(b) < unix.SizeofRtMsg {
		return netip.Prefix{}, false
	}
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofRtMsg:])
	if err != nil {
		return netip.Prefix{}, false
	}
	to := netip.IPv6Unspecified() // the default route does not name it
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_DST && len(a.Value) == 16 {
			to = netip.AddrFrom16([16]byte(a.Value))
		}
	}
	p, err := to.Prefix(int(nl.DeserializeRtMsg(b).Dst_len))
	return p, err == nil
}

// device is an interface.
type device struct {
	name   string
	mac    [6]byte
	mtu    int
	up     bool
	ether  bool
	closed string // why XDP cannot send into it, "" if it can
	parent int    // index of the interface that a VLAN is on
	vlan   uint16 // of it; 0: none
}

func deviceOf(l netlink.Link) device {
	a := l.Attrs()
	d := device{
		name:  a.Name,
		mtu:   a.MTU,
		up:    a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_RUNNING != 0,
		ether: a.EncapType == "ether" && len(a.HardwareAddr) == 6,
	}
	copy(d.mac[:], a.HardwareAddr)
	v, ok := l.(*netlink.Vlan)
	switch {
	case !ok:
		d.closed = closed(l)
	case v.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q || v.VlanId == 0 || a.NetNsID >= 0:
		d.closed = fmt.Sprintf("%s has no tag of its own on an interface of this host, as IEEE 802.1Q has", a.Name)
	default:
		d.parent, d.vlan = a.ParentIndex, uint16(v.VlanId)
	}
	return d
}

// closed is why XDP cannot send into an interface that is no VLAN. Of those that the
// kernel makes itself only these can (ndo_xdp_xmit, of a bond since Linux 5.15 where one
// port is chosen for a frame); what is sent into others is lost without a word.
func closed(l netlink.Link) string {
	kind := l.Type()
	switch kind {
	case "device", "veth", "tun", "tuntap":
		return ""
	}
	if b, ok := l.(*netlink.Bond); ok {
		switch b.Mode {
		case netlink.BOND_MODE_BALANCE_RR, netlink.BOND_MODE_ACTIVE_BACKUP, netlink.BOND_MODE_BALANCE_XOR, netlink.BOND_MODE_802_3AD:
			return ""
		}
		kind = "bond of mode " + b.Mode.String()
	}
	return fmt.Sprintf("%s is a %s, into which XDP cannot send", l.Attrs().Name, kind)
}

// neighbour is a node behind an interface.
type neighbour struct {
	index int
	addr  netip.Addr
}

func neighbourOf(n *netlink.Neigh) neighbour {
	a, _ := netip.AddrFromSlice(n.IP)
	return neighbour{n.LinkIndex, a}
}

// entry is what is known of a neighbour that is in use.
type entry struct {
	mac   [6]byte
	known bool                // mac is
	users map[netip.Addr]bool // addresses behind it
	ours  bool                // it is managed because of us
}

// The states in which the kernel sends to a neighbour (NUD_VALID), and those in which it
// does not ask for it.
const (
	validStates = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE |
		netlink.NUD_PROBE | netlink.NUD_STALE | netlink.NUD_DELAY
	fixedStates = netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// learn takes over what the kernel has of a neighbour, where it is in use, and doubts
// the addresses behind it if that is new.
func (w *hopWatch) learn(n *netlink.Neigh) {
	e := w.entries[neighbourOf(n)]
	if e == nil || n.Flags&netlink.NTF_PROXY != 0 {
		return
	}
	var mac [6]byte
	known := n.State&validStates != 0 && len(n.HardwareAddr) == len(mac)
	if known {
		copy(mac[:], n.HardwareAddr)
	}
	if known == e.known && mac == e.mac {
		return
	}
	e.known, e.mac = known, mac
	for a := range e.users {
		if !w.doubted[a] {
			w.doubted[a] = false // its route is what it was
		}
	}
}
