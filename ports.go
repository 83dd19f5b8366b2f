package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// portInUse is the reason of a defect that a second server on the port makes.
const portInUse = "port in use"

// bindDefect says why the address at key cannot be listened on.
func bindDefect(key, addr string, err error) upstreams.Defect {
	d := upstreams.Defect{Key: key, Member: addr, Reason: err.Error(), Want: "an address of this host and a free port"}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		d.Reason = errno.Error()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		d.Reason, d.Want = portInUse, "a free port, or the other server stopped"
	}
	return d
}

// tryPorts opens and closes every port that the configuration asks for, and
// lists those that cannot be had. Those that a running razor with the same
// state directory has are as they should be.
func (c *cli) tryPorts(ctx context.Context, cfg *config) []upstreams.Defect {
	running := upstreams.ControlAnswers(ctx, cfg.DNS.StateDir)
	var out []upstreams.Defect
	for _, d := range append(razor.CheckListen(ctx, cfg.DNS), tryHTTP(ctx, cfg.HTTP)...) {
		switch {
		case running && d.Reason == portInUse:
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
func tryHTTP(ctx context.Context, cfg httpConfig) []upstreams.Defect {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return []upstreams.Defect{bindDefect("http.listen", cfg.Listen, err)}
	}
	_ = ln.Close()
	return nil
}
