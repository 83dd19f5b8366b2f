// Package ra finds the BGP peer on an unnumbered link by its Router Advertisements,
// and lets the peer find this host by ours (RFC 4861). No default router is made or
// taken by them.
package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Peer is the router at the other end of a link. The zero Peer is none.
type Peer struct {
	// Addr is its link-local address, with the name of our interface as the zone: for
	// people.
	Addr netip.Addr
	// Dial is the same with the interface's number: package net remembers for a minute
	// which number a name had, and the interface may have been made anew.
	Dial netip.Addr
}

// retry is the pause before a link that cannot be used is looked at again.
const retry = time.Second

// Watch sends Router Advertisements on an interface, and calls change with the peer
// that it hears there, with another one that takes its place, and with the zero Peer
// when there is none any more, until ctx ends. The interface need not exist yet; it may
// lose its link or its address, or be made anew: the peer is gone then, and looked for
// again. The error, of missing rights, is the only one.
//
// An unnumbered link has one router at its other end. Where there are several, the
// first that is heard is the peer, and another one takes its place when the peer has
// been silent for ten seconds though it was asked: two of them do not make the peer
// flap, and a router that was replaced is found. Silence alone does not unmake a peer:
// whether it lives is for BFD and the session to say.
//
// Every socket is opened by the calling goroutine.
func Watch(ctx context.Context, name string, log *slog.Logger, change func(Peer)) error {
	w := &watcher{name: name, log: log.With("interface", name), change: change}
	for {
		err := w.watch(ctx)
		w.set(netip.Addr{}, 0)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("router advertisements on %s are not permitted; want CAP_NET_RAW", name)
		}
		w.waits(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
		}
	}
}

type watcher struct {
	name   string
	log    *slog.Logger
	change func(Peer)

	peer    Peer
	waiting string // why there is no link, as it was logged last
}

// watch is Watch for as long as the link stays as it is.
func (w *watcher) watch(ctx context.Context) error {
	l, err := open(w.name)
	if err != nil {
		return err
	}
	defer l.conn.Close()
	defer context.AfterFunc(ctx, func() { l.conn.Close() })()
	w.log.Info("sending router advertisements", "source", l.addr)
	w.waiting = ""
	return l.serve(w)
}

// waits says, once, why the link cannot be used.
func (w *watcher) waits(err error) {
	if reason := err.Error(); reason != w.waiting {
		w.waiting = reason
		w.log.Warn("no router advertisements", "reason", reason)
	}
}

// set makes addr, which was heard on the interface with an index, the peer.
func (w *watcher) set(addr netip.Addr, index int) {
	var p Peer
	if addr.IsValid() {
		p = Peer{Addr: addr.WithZone(w.name), Dial: addr.WithZone(fmt.Sprint(index))}
	}
	if p != w.peer {
		w.peer = p
		w.change(p)
	}
}
