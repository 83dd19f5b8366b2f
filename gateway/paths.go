package gateway

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/bgp"
)

// paths watches the paths to the peers by BFD.
type paths struct{}

func newPaths(peers []bgp.PeerConfig, a *bgp.Announcer, log *slog.Logger, reg prometheus.Registerer) (*paths, error) {
	return &paths{}, nil
}

func (p *paths) run(ctx context.Context) error { <-ctx.Done(); return nil }
func (p *paths) sync(ctx context.Context)      {}

// PathStatus is the BFD session of a peer.
type PathStatus struct {
	State string `json:"state"`
}

func (s *PathStatus) String() string {
	if s == nil {
		return "-"
	}
	return s.State
}

func (p *paths) status(name string) *PathStatus { return nil }
