package main

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// tryPorts opens and closes every port that the configuration asks for, and
// lists those that cannot be had. Those that a running razor with the same
// state directory has are as they should be.
func (c *cli) tryPorts(ctx context.Context, cfg *config) []upstreams.Defect {
	running := upstreams.ControlAnswers(ctx, cfg.DNS.StateDir)
	var out []upstreams.Defect
	for _, d := range append(razor.CheckListen(ctx, cfg.DNS), tryHTTP(ctx, cfg.HTTP.dns())...) {
		switch {
		case running && d.Reason == upstreams.PortInUse:
		case d.Reason == syscall.EACCES.Error():
			// Whoever runs this check may lack what the unit gives the service.
			fmt.Fprintf(c.stderr, "razor: %s: %q: not tried, it takes a privilege\n", d.Key, d.Member)
		default:
			out = append(out, d)
		}
	}
	return out
}

// tryHTTP is what would keep the HTTP server from its address.
func tryHTTP(ctx context.Context, e endpoint) []upstreams.Defect {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", e.address)
	if err != nil {
		return []upstreams.Defect{upstreams.BindDefect(e.key, e.address, err)}
	}
	_ = ln.Close()
	return nil
}
