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
// lists those that cannot be had.
func (c *cli) tryPorts(ctx context.Context, cfg *config) []upstreams.Defect {
	var out []upstreams.Defect
	if cfg.answersDNS() {
		out = c.taken(ctx, cfg.DNS.StateDir, append(razor.CheckListen(ctx, cfg.DNS), tryHTTP(ctx, cfg.HTTP.dns())...))
	}
	if cfg.Agent.Used() && !cfg.Agent.Running() {
		out = append(out, tryHTTP(ctx, cfg.HTTP.agent())...)
	}
	if cfg.Gateway.Used() {
		out = append(out, c.taken(ctx, cfg.Gateway.StateDir, append(cfg.Gateway.CheckListen(ctx), tryHTTP(ctx, cfg.HTTP.gateway())...))...)
	}
	return out
}

// taken leaves out the ports that a running razor with the state directory has: they
// are as they should be.
func (c *cli) taken(ctx context.Context, stateDir string, defects []upstreams.Defect) []upstreams.Defect {
	running := upstreams.ControlAnswers(ctx, stateDir)
	var out []upstreams.Defect
	for _, d := range defects {
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
