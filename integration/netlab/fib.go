package netlab

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// FIB is what the kernel of a node forwards by, for each prefix of its main table:
// the next hops in order. Next hops that FRR keeps as objects of the kernel are
// resolved.
type FIB map[netip.Prefix][]Hop

// Hop is a next hop.
type Hop struct {
	Via    netip.Addr // without a zone; not valid for what is on the link
	Device string
	Type   string // "" for a plain hop; or blackhole, unreachable, prohibit
}

// String is the hop as ip route writes it.
func (h Hop) String() string {
	switch {
	case h.Type != "":
		return h.Type
	case h.Via.IsValid():
		return "via " + h.Via.String() + " dev " + h.Device
	}
	return "dev " + h.Device
}

// Devices are the devices that packets for an exact prefix leave by.
func (f FIB) Devices(prefix string) []string {
	var out []string
	for _, h := range f[netip.MustParsePrefix(prefix)] {
		out = append(out, h.Device)
	}
	return slices.Compact(slices.Sorted(slices.Values(out)))
}

func (f FIB) equal(g FIB) bool {
	if len(f) != len(g) {
		return false
	}
	for p, hops := range f {
		if other, ok := g[p]; !ok || !slices.Equal(hops, other) {
			return false
		}
	}
	return true
}

// FIB is the table as it is now.
func (n *Node) FIB() FIB {
	n.lab.tb.Helper()
	f, err := n.fib()
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	return f
}

func (n *Node) fib() (FIB, error) {
	for {
		f, err := readFIB(n.handle)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return f, err
		}
	}
}

func readFIB(h *netlink.Handle) (FIB, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	fib, metric := FIB{}, map[netip.Prefix]int{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := h.RouteList(nil, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			p := prefixOf(r)
			if m, ok := metric[p]; ok && m < r.Priority {
				continue // one of the same prefix is better
			}
			fib[p], metric[p] = hopsOf(r, names), r.Priority
		}
	}
	return fib, nil
}

func prefixOf(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		if r.Family == netlink.FAMILY_V4 {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(addr(r.Dst.IP), bits)
}

// hopsOf leaves out the hops that are dead, which the kernel does not use.
func hopsOf(r netlink.Route, names map[int]string) []Hop {
	if special, ok := types[r.Type]; ok {
		return []Hop{{Type: special}}
	}
	hops := r.MultiPath
	if hops == nil {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via, Flags: r.Flags}}
	}
	var out []Hop
	for _, h := range hops {
		if h.Flags&unix.RTNH_F_DEAD != 0 {
			continue
		}
		hop := Hop{Via: addr(h.Gw), Device: names[h.LinkIndex]}
		if via, ok := h.Via.(*netlink.Via); ok {
			hop.Via = addr(via.Addr)
		}
		out = append(out, hop)
	}
	slices.SortFunc(out, func(a, b Hop) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), a.Via.Compare(b.Via))
	})
	return out
}

var types = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit",
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// FIBWatch sees the FIB of a node change. For any goroutine.
type FIBWatch struct {
	node *Node

	mu      sync.Mutex
	changes []FIBChange
	err     error
}

// FIBChange is a FIB and when it was seen, at most the time that reading it takes
// after it was there; the time has a monotonic part.
type FIBChange struct {
	At  time.Time
	FIB FIB
}

// WatchFIB watches the FIB until the test ends.
func (n *Node) WatchFIB() *FIBWatch {
	n.lab.tb.Helper()
	// A group of hops that loses one says nothing of its routes.
	s, err := nl.SubscribeAt(n.ns, -1, unix.NETLINK_ROUTE,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP, unix.RTNLGRP_LINK)
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	w := &FIBWatch{node: n}
	w.read()
	news := make(chan struct{}, 1) // many at once are read once
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(news)
		w.listen(s, news)
	})
	wg.Go(func() {
		for range news {
			w.read()
		}
	})
	n.lab.tb.Cleanup(func() {
		s.Close()
		wg.Wait()
		if w.err != nil {
			n.lab.tb.Errorf("watching the FIB of %s: %v", n.Name, w.err)
		}
	})
	return w
}

func (w *FIBWatch) listen(s *nl.NetlinkSocket, news chan<- struct{}) {
	for {
		_, _, err := s.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // more than it could hold is news too
			return // closed
		}
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// read appends the FIB where it has changed.
func (w *FIBWatch) read() {
	f, err := w.node.fib()
	at := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err
		return
	}
	if k := len(w.changes); k == 0 || !w.changes[k-1].FIB.equal(f) {
		w.changes = append(w.changes, FIBChange{at, f})
	}
}

// Changes are all that was seen, the oldest first, which is from the start of the
// watch.
func (w *FIBWatch) Changes() []FIBChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.changes)
}

// Until waits until the FIB is as ok wants it, and returns since when it is, without
// a break.
func (w *FIBWatch) Until(what string, ok func(FIB) bool) time.Time {
	w.node.lab.tb.Helper()
	var since time.Time
	w.node.lab.wait(what, func() bool {
		since = time.Time{}
		for _, c := range slices.Backward(w.Changes()) {
			if !ok(c.FIB) {
				break
			}
			since = c.At
		}
		return !since.IsZero()
	}, func() string { return w.node.Run("ip", "route") + w.node.Run("ip", "-6", "route") })
	return since
}
