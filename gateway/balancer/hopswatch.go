package balancer

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// reread is how often all is read anew, and relook how soon when it went wrong.
	reread = 30 * time.Second
	relook = time.Second
	// unheard is how many reads of messages may wait for who follows them. What is more
	// waits in the socket.
	unheard = 64
)

// hopGroups are the kernel's messages that can change a next hop.
var hopGroups = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
}

// HopChange is a next hop that is another one now.
type HopChange struct {
	Address netip.Addr
	Hop     Hop    // with the Index 0: not resolved
	Reason  string // why it is not
}

// Hops finds the next hops of addresses, and follows them: routes, neighbours and
// interfaces are the kernel's, which tells of each change. Where a route has several
// ways, the one that the kernel takes for the address is taken.
//
// The neighbours in use are marked as managed (Linux 5.16): the kernel itself asks for
// them, and again before it would forget them. They stay so when Run ends, as the
// program goes on sending to them. An entry that is permanent is left alone.
//
// Everything is read anew every 30 seconds, and when the kernel had more to tell than it
// could keep. That is also when an MTU is seen that the kernel learned of a path, which
// it does not tell. A neighbour that has another MAC and says nothing of it is missed
// when the kernel asks it again, up to 50 seconds later (RFC 4861 §7.3, §10).
type Hops struct {
	log     *slog.Logger
	changed func([]HopChange)
	wake    chan struct{}
	generic bool // the kernel sends, not a driver

	mu      sync.Mutex
	wanted  []netip.Addr
	renewed bool                // wanted is
	gone    map[netip.Addr]bool // not wanted for a moment at least, and not adopted yet
}

// NewHops makes one that calls changed with each change, from one goroutine: first with
// what an address has at the start, be it resolved or not. As long as changed has not
// returned nothing further is followed.
func NewHops(log *slog.Logger, changed func([]HopChange)) *Hops {
	return &Hops{log: log, changed: changed, wake: make(chan struct{}, 1), gone: map[netip.Addr]bool{}}
}

// Generic says that the programs are behind the drivers of their interfaces, and so can
// send into all. It is called before Run.
func (h *Hops) Generic() { h.generic = true }

// Set is the addresses to find the next hops of, all of them: IPv6, of nodes or SIDs.
// An address that was there before is not told again, but one that was not there in
// between. For any goroutine, at any time.
func (h *Hops) Set(addresses []netip.Addr) {
	wanted := slices.Clone(addresses)
	slices.SortFunc(wanted, netip.Addr.Compare)
	wanted = slices.Compact(wanted)
	h.mu.Lock()
	for _, a := range h.wanted {
		if _, still := slices.BinarySearchFunc(wanted, a, netip.Addr.Compare); !still {
			h.gone[a] = true
		}
	}
	h.wanted, h.renewed = wanted, true
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Add is one address more than those of the last Set. For any goroutine, at any time.
func (h *Hops) Add(a netip.Addr) {
	h.mu.Lock()
	if i, ok := slices.BinarySearchFunc(h.wanted, a, netip.Addr.Compare); !ok {
		h.wanted, h.renewed = slices.Insert(slices.Clip(h.wanted), i, a), true
	}
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run follows next hops until ctx ends, in the network namespace of the calling
// goroutine.
func (h *Hops) Run(ctx context.Context) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, hopGroups...)
	if err != nil {
		return os.NewSyscallError("netlink", err)
	}
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		socket.Close()
		return os.NewSyscallError("netlink", err)
	}
	defer kernel.Close()
	messages := make(chan []syscall.NetlinkMessage, unheard)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		socket.Close()
		return nil
	})
	g.Go(func() error { return listen(ctx, socket, messages) })
	g.Go(func() error { return newHopWatch(h, kernel).follow(ctx, messages) })
	return g.Wait()
}

// listen passes messages of the kernel on, and nil where some were lost.
func listen(ctx context.Context, socket *nl.NetlinkSocket, to chan<- []syscall.NetlinkMessage) error {
	for {
		messages, from, err := socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			messages = nil
		case err != nil:
			return os.NewSyscallError("netlink", err)
		case from.Pid != nl.PidKernel:
			continue
		}
		select {
		case to <- messages:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow keeps the next hops until ctx ends.
func (w *hopWatch) follow(ctx context.Context, messages <-chan []syscall.NetlinkMessage) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-messages:
			w.hear(m)
		case <-w.wake:
		case <-timer.C:
			w.lost = true
		}
		for range len(messages) { // one settling for all that is known by now
			w.hear(<-messages)
		}
		w.adopt()
		again := w.lost
		w.settle()
		if w.lost {
			timer.Reset(relook)
		} else if again {
			timer.Reset(reread)
		}
	}
}
