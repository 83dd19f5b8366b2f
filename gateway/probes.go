package gateway

import (
	"context"
	"reflect"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/steering"
)

// a runningProbe is a probe, with what ends it.
type runningProbe struct {
	*probe.Prober
	config probe.Config
	stop   context.CancelFunc
	ended  chan struct{}
}

// syncProbes starts and ends probes as the configuration says. One whose settings
// are as they were goes on.
func (g *Gateway) syncProbes(ctx context.Context, group *errgroup.Group) {
	wanted := map[string]probe.Config{}
	for _, c := range g.config.Probes {
		wanted[c.Name] = c
	}
	for name, p := range g.probers {
		if c, ok := wanted[name]; !ok || !sameProbe(c, p.config) {
			p.stop()
			<-p.ended // its metrics go with it
			delete(g.probers, name)
		}
	}
	for name, c := range wanted {
		if g.probers[name] != nil {
			continue
		}
		prober, err := probe.New(c, g.log, g.registry)
		if err != nil {
			g.log.Error("probe not started", "probe", name, "err", err)
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		p := &runningProbe{prober, c, stop, make(chan struct{})}
		g.probers[name] = p
		group.Go(func() error { defer close(p.ended); return prober.Run(ctx) })
		group.Go(func() error { g.watchProbe(ctx, prober); return nil })
	}
}

func sameProbe(a, b probe.Config) bool {
	return reflect.DeepEqual(a, b)
}

func (g *Gateway) watchProbe(ctx context.Context, p *probe.Prober) {
	for {
		changed := p.Status().Changed()
		g.poke()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// unknownProbes are those without a first result, by name.
func (g *Gateway) unknownProbes() []string {
	var out []string
	for name, p := range g.probers {
		if p.Status().Health == steering.HealthUnknown {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
