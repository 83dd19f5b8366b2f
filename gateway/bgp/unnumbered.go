package bgp

import (
	"context"
	"time"

	"github.com/razor-steering/razor/gateway/ra"
)

// discover keeps the address of an unnumbered peer: that of the router at the other
// end of the link. Ours is advertised there, so that the peer finds us. Without the
// right to do that there is no such peer, and all others are as they are.
func (p *peer) discover(ctx context.Context) {
	err := ra.Watch(ctx, p.config.iface, p.log, func(r ra.Peer) { p.moved(r.Dial) })
	if err == nil {
		return
	}
	p.log.Error("peer is not looked for", "err", err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.why, p.whyAt = &end{reason: endedConnection, text: err.Error()}, time.Now()
}
