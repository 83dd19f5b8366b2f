package balancer

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hopWatch is what Hops knows while it runs; of one goroutine.
type hopWatch struct {
	*Hops
	kernel *netlink.Handle

	addresses []netip.Addr // wanted, in order
	targets   map[netip.Addr]*target
	devices   map[int]device
	entries   map[neighbour]*entry
	doubted   map[netip.Addr]bool // may have another hop; true: by another route
	unasked   map[neighbour]bool  // to be asked for
	unused    map[neighbour]bool  // by any address, perhaps
	lost      bool                // everything is to be read again
}

// target is an address whose next hop is followed.
type target struct {
	way
	told HopChange // last
}

// way is where a route leads.
type way struct {
	via     neighbour // none: see failure
	mtu     int       // of the route; 0: of the interface
	failure string
}

func newHopWatch(h *Hops, kernel *netlink.Handle) *hopWatch {
	return &hopWatch{
		Hops: h, kernel: kernel, targets: map[netip.Addr]*target{}, devices: map[int]device{},
		entries: map[neighbour]*entry{}, doubted: map[netip.Addr]bool{},
		unasked: map[neighbour]bool{}, unused: map[neighbour]bool{}, lost: true,
	}
}

func (w *hopWatch) doubtAll() {
	for _, a := range w.addresses {
		w.doubted[a] = true
	}
}

// adopt makes the addresses that are wanted those that are followed.
func (w *hopWatch) adopt() {
	w.mu.Lock()
	same := !w.renewed
	w.addresses, w.renewed = w.wanted, false
	gone := w.gone
	w.gone = map[netip.Addr]bool{}
	w.mu.Unlock()
	if same {
		return
	}
	for a := range gone {
		if w.targets[a] != nil {
			w.turn(a, way{})
			delete(w.targets, a)
			delete(w.doubted, a)
		}
	}
	for _, a := range w.addresses {
		if w.targets[a] == nil {
			w.targets[a] = &target{}
			w.doubted[a] = true
		}
	}
}

// settle looks up what is doubted, and tells what is another now.
func (w *hopWatch) settle() {
	if w.lost {
		w.lost = false
		w.readDevices()
		for n := range w.entries {
			w.unasked[n] = true
		}
		w.doubtAll()
	}
	for a, astray := range w.doubted {
		if !astray {
			continue
		}
		to, err := w.route(a)
		if err != nil {
			w.amiss("next hops are not looked up", err)
			continue
		}
		w.turn(a, to)
	}
	w.ask()
	w.release()
	w.tell()
}

// amiss has everything read again soon, as the kernel could not be asked now.
func (w *hopWatch) amiss(what string, err error) {
	w.lost = true
	if !errors.Is(err, netlink.ErrDumpInterrupted) { // a change came between, and is told
		w.log.Warn("the kernel does not say what is needed for next hops", "what", what, "err", err)
	}
}

func (w *hopWatch) readDevices() {
	links, err := w.kernel.LinkList()
	if err != nil {
		w.amiss("interfaces", err)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return
		}
	}
	clear(w.devices)
	for _, l := range links {
		w.devices[l.Attrs().Index] = deviceOf(l)
	}
}

// route is the way to an address that the kernel takes. The error is that it could not
// say.
func (w *hopWatch) route(a netip.Addr) (way, error) {
	if !a.Is6() || a.Is4In6() {
		return way{failure: "want an IPv6 address"}, nil
	}
	routes, err := w.kernel.RouteGet(net.IP(a.AsSlice()))
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.EACCES): // none, unreachable, blackhole, prohibit
		return way{failure: "no route: " + err.Error()}, nil
	case err != nil:
		return way{}, err
	case len(routes) != 1:
		return way{}, fmt.Errorf("%d routes to one address", len(routes))
	}
	r := routes[0]
	switch {
	case r.Type == unix.RTN_LOCAL:
		return way{failure: "an address of this host"}, nil
	case r.Type != unix.RTN_UNICAST:
		return way{failure: "no unicast address"}, nil
	case r.Encap != nil:
		return way{failure: "a route that encapsulates"}, nil
	}
	via := neighbour{r.LinkIndex, a}
	if gateway, ok := netip.AddrFromSlice(r.Gw); ok {
		via.addr = gateway
	}
	return way{via: via, mtu: r.MTU}, nil
}

// turn has an address take another way.
func (w *hopWatch) turn(a netip.Addr, to way) {
	t := w.targets[a]
	from := t.via
	t.way = to
	if from == to.via {
		return
	}
	if e := w.entries[from]; e != nil {
		delete(e.users, a)
		w.unused[from] = true
	}
	if to.via == (neighbour{}) {
		return
	}
	e := w.entries[to.via]
	if e == nil {
		e = &entry{users: map[netip.Addr]bool{}}
		w.entries[to.via] = e
		w.unasked[to.via] = true
	}
	e.users[a] = true
}

// ask learns of the neighbours that were not asked for yet, and has the kernel ask for
// them and keep them.
func (w *hopWatch) ask() {
	if len(w.unasked) == 0 {
		return
	}
	all, err := w.kernel.NeighList(0, netlink.FAMILY_V6)
	if err != nil {
		w.amiss("neighbours", err)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return
		}
	}
	has := make(map[neighbour]*netlink.Neigh, len(all))
	for i := range all {
		if all[i].Flags&netlink.NTF_PROXY == 0 {
			has[neighbourOf(&all[i])] = &all[i]
		}
	}
	for n := range w.unasked {
		if w.entries[n] == nil {
			continue
		}
		is := has[n]
		if is == nil {
			is = &netlink.Neigh{LinkIndex: n.index, IP: n.addr.AsSlice()}
		}
		w.learn(is)
		w.manage(n, is)
	}
	clear(w.unasked)
}

// manage has the kernel ask for a neighbour and keep it. What is permanent would not be
// so any more by that.
func (w *hopWatch) manage(n neighbour, is *netlink.Neigh) {
	if d := w.devices[n.index]; is.State&fixedStates != 0 || !d.up || !d.ether {
		return
	}
	e := w.entries[n]
	e.ours = e.ours || is.FlagsExt&netlink.NTF_EXT_MANAGED == 0
	err := w.kernel.NeighSet(&netlink.Neigh{
		LinkIndex: n.index, Family: netlink.FAMILY_V6, IP: n.addr.AsSlice(),
		// Learned outside of the kernel: it does not throw such an entry away when there
		// are many. Used: an older kernel asks at least now.
		Flags:    netlink.NTF_USE | netlink.NTF_EXT_LEARNED,
		FlagsExt: netlink.NTF_EXT_MANAGED,
	})
	if err != nil {
		w.log.Debug("a neighbour cannot be asked for", "neighbour", n.addr, "interface", w.devices[n.index].name, "err", err)
	}
}

// release forgets the neighbours that nobody uses any more, and the kernel may too.
func (w *hopWatch) release() {
	for n := range w.unused {
		e := w.entries[n]
		if e == nil || len(e.users) > 0 {
			continue
		}
		delete(w.entries, n)
		d := w.devices[n.index]
		if !e.ours || !e.known || !d.up {
			continue
		}
		// Without the marks; it is an entry like others then.
		err := w.kernel.NeighSet(&netlink.Neigh{
			LinkIndex: n.index, Family: netlink.FAMILY_V6, IP: n.addr.AsSlice(), Flags: netlink.NTF_USE,
		})
		if err != nil {
			w.log.Debug("a neighbour stays managed", "neighbour", n.addr, "interface", d.name, "err", err)
		}
	}
	clear(w.unused)
}

// tell tells the next hops that are other ones now.
func (w *hopWatch) tell() {
	var changes []HopChange
	for _, a := range w.addresses {
		if _, ok := w.doubted[a]; !ok {
			continue
		}
		t := w.targets[a]
		is := HopChange{Address: a}
		is.Hop, is.Reason = w.hop(t)
		if is != t.told {
			t.told = is
			changes = append(changes, is)
		}
	}
	clear(w.doubted)
	if changes != nil {
		w.changed(changes)
	}
}

// hop is the next hop of a target, or why there is none.
func (w *hopWatch) hop(t *target) (Hop, string) {
	if t.failure != "" {
		return Hop{}, t.failure
	}
	e, d := w.entries[t.via], w.devices[t.via.index]
	out, tag, why := w.out(t.via.index)
	switch {
	case e == nil || d == (device{}):
		return Hop{}, "not looked up"
	case d.ether && why != "":
		return Hop{}, why
	case !d.up:
		return Hop{}, d.name + " is down"
	case !d.ether:
		return Hop{}, d.name + " is no Ethernet"
	case !e.known:
		return Hop{}, fmt.Sprintf("neighbour %v on %s has not answered", t.via.addr, d.name)
	}
	mtu := min(d.mtu, w.devices[out].mtu)
	if t.mtu > 0 {
		mtu = min(mtu, t.mtu)
	}
	return Hop{Destination: e.mac, Source: d.mac, Index: out, VLAN: tag, MTU: uint16(min(mtu, math.MaxUint16))}, ""
}

// out is the interface that frames for one leave by: those for a VLAN by the one that it
// is on, with its tag. Or why XDP cannot send them.
func (w *hopWatch) out(index int) (out int, tag uint16, why string) {
	d := w.devices[index]
	switch {
	case w.generic:
		return index, 0, ""
	case d.vlan == 0:
		return index, 0, d.closed
	}
	parent, ok := w.devices[d.parent]
	switch {
	case !ok:
		return 0, 0, fmt.Sprintf("%s is on an interface that is not known", d.name)
	case parent.vlan != 0:
		return 0, 0, fmt.Sprintf("%s is a VLAN in a VLAN, and XDP sends one tag", d.name)
	}
	return d.parent, d.vlan, parent.closed
}
