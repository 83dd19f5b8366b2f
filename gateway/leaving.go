package gateway

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

// leave begins the drain that ends the process.
func (g *Gateway) leave(why string) {
	g.mu.Lock()
	g.drain.leaving = why
	g.mu.Unlock()
	g.poke()
}

// finished tells whether the process is to end. One that has left waits for the sessions to
// end, and for agents and other sites to use other gateways, and leaves nothing on loopback.
func (g *Gateway) finished(ctx context.Context, group *errgroup.Group) (bool, error) {
	g.mu.Lock()
	leaving, done, restart := g.drain.leaving != "", g.drain.done(), g.restart
	g.mu.Unlock()
	switch {
	case restart && !leaving:
		g.log.Info("restarting, routes kept")
		g.handOver()
		return true, ErrRestart
	case !leaving || !done:
		return false, nil
	}
	deadline := time.Now().Add(byeWait)
	for _, _, open := g.announcer.Sessions(); open > 0 && time.Now().Before(deadline) && ctx.Err() == nil; _, _, open = g.announcer.Sessions() {
		time.Sleep(5 * time.Millisecond)
	}
	if g.dataplane != nil {
		if err := g.dataplane.hide(); err != nil {
			g.log.Warn("gateways of other sites are not told that this one stops", "err", err)
		}
		g.awaitLull(ctx, group, g.dataplane.passing)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.bound) > 0 {
		g.bind(nil)
	}
	if g.dataplane != nil {
		if err := g.dataplane.remove(); err != nil {
			return true, err
		}
		return true, forgetPins(g.config.StateDir)
	}
	return true, nil
}

// awaitLull waits until answers, and packets of other sites, do not come by this gateway any
// more, as their counters say, or a signal hurries it.
func (g *Gateway) awaitLull(ctx context.Context, group *errgroup.Group, passing func() uint64) {
	look := time.NewTicker(lullFor / 20)
	defer look.Stop()
	for l := (lull{}); !l.over(time.Now(), passing()); {
		g.mu.Lock()
		hurry := g.drain.hurry
		g.mu.Unlock()
		if hurry {
			return
		}
		select {
		case <-ctx.Done():
			return
		case s := <-g.opt.Signals:
			g.signal(ctx, group, s)
		case <-look.C:
		}
	}
}

// unreachable tells whether nobody can reach this host by what it announces. For any
// goroutine.
func (g *Gateway) unreachable() bool {
	_, up, _ := g.announcer.Sessions()
	return up == 0 || g.away.Load()
}
