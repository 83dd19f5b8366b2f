package gateway

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// reload takes what may change without a restart from the configuration; for what
// may not, or if told so, the process restarts, with the routes kept.
func (g *Gateway) reload(ctx context.Context, group *errgroup.Group, restart bool) {
	next, beside, err := g.readConfig()
	if err != nil {
		g.log.Error("configuration not reloaded, going on with the old one", "err", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if restart || beside || g.config.needsRestart(&next) {
		g.restart = true
		return
	}
	if g.dataplane != nil {
		if err := g.dataplane.reload(&next, time.Now()); err != nil {
			g.log.Error("configuration not reloaded, going on with the old one", "err", err)
			return
		}
	}
	g.config, g.drain.config = next, next.Drain
	g.syncProbes(ctx, group)
	g.log.Info("configuration reloaded")
}

// readConfig is the configuration as it is now, with which a gateway could start.
func (g *Gateway) readConfig() (next Config, beside bool, err error) {
	if g.opt.Reload == nil {
		return g.config, false, nil
	}
	if next, beside, err = g.opt.Reload(); err != nil {
		return next, beside, err
	}
	_, err = next.Identity()
	g.mu.Lock()
	was := g.config.Dataplane.TablesListen
	g.mu.Unlock()
	if next.Dataplane.TablesListen != was {
		l, busy := next.listenForMates()
		if err = errors.Join(err, busy); l != nil {
			_ = l.Close()
		}
	}
	return next, beside, errors.Join(join(next.CheckFiles()), err)
}
