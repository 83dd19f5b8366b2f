package consul

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/upstreams"
)

const (
	// manyQueries is how many queries may wait in any case: Consul takes 200
	// connections of one address, and all else there counts too. Beyond them it
	// refuses everybody at that address, not only us.
	manyQueries = 150
	spareConns  = 50
	askAtOnce   = 32 // queries that do not wait, at the same time
)

// fits makes sure that Consul takes as many connections as there are queries to
// wait. Those over https share connections.
func (s *Sync) fits(ctx context.Context) error {
	n := 0
	for _, k := range s.keepers {
		n += len(k.sources)
	}
	if n <= manyQueries || s.https {
		return nil
	}
	for said := false; ; {
		limit, err := s.connectionLimit(ctx)
		e, refused := errors.AsType[api.StatusError](err)
		switch {
		case err == nil && limit > 0 && n > limit-spareConns:
			return upstreams.Defect{
				Key: "sync.lists", Member: strconv.Itoa(n) + " queries", Reason: "consul takes " + strconv.Itoa(limit) + " connections of one client",
				Want: "https in sync.consul.address, or limits.http_max_conns_per_client = " + strconv.Itoa(2*n) + " in the configuration of consul",
			}
		case err == nil:
			return nil
		case refused && e.Code != http.StatusTooManyRequests:
			s.log.Warn("consul does not tell how many connections it takes of one client", "queries", n, "default", 200, "want", "https in sync.consul.address, or an ACL token with agent:read", "err", err)
			return nil
		case !said && ctx.Err() == nil:
			s.log.Warn("consul does not answer, waiting for it", "err", err)
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// connectionLimit is what the agent is configured with; 0 is none.
func (s *Sync) connectionLimit(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var self struct {
		DebugConfig struct{ HTTPMaxConnsPerClient int }
	}
	_, err := s.client.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
	return self.DebugConfig.HTTPMaxConnsPerClient, err
}
