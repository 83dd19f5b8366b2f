package bgp

import (
	"context"

	"github.com/razor-steering/razor/gateway/ra"
)

// discover keeps the address of an unnumbered peer: that of the router at the other
// end of the link. Ours is advertised there, so that the peer finds us.
func (p *peer) discover(ctx context.Context) error {
	return ra.Watch(ctx, p.config.iface, p.log, func(r ra.Peer) { p.moved(r.Dial) })
}
