package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering/wire"
)

// probing is a probe that runs, and what it speaks of.
type probing struct {
	*probe.Prober
	name     string
	target   uint16
	services []wire.ServiceHealth // without their health
}

// startProbes makes the probes of the configuration.
func (a *agent) startProbes(reg prometheus.Registerer) error {
	for i := range a.config.Probes {
		c := &a.config.Probes[i]
		p, err := probe.New(c.Probe, a.log, reg)
		if err != nil {
			return err
		}
		a.probes = append(a.probes, probing{p, c.Probe.Name, uint16(c.Container), c.services()})
	}
	return nil
}

// report has gateways told how this host is until ctx ends, and measures what they are
// told.
func (a *agent) report(ctx context.Context, group *errgroup.Group, reg prometheus.Registerer) error {
	if err := a.startProbes(reg); err != nil {
		return err
	}
	for _, p := range a.probes {
		group.Go(func() error { return p.Run(ctx) })
		group.Go(func() error { a.watchProbe(ctx, p.Prober); return nil })
	}
	if a.reporter == nil {
		return nil
	}
	reg.MustRegister(a.reporter, drainedGauge(&a.admin))
	group.Go(func() error { a.reporter.Run(ctx); return nil })
	return nil
}

// watchProbe has each change of a health told at once.
func (a *agent) watchProbe(ctx context.Context, p *probe.Prober) {
	for {
		changed := p.Status().Changed()
		a.poke()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// poke has gateways and Consul told at once.
func (a *agent) poke() {
	if a.reporter != nil {
		a.reporter.Poke()
	}
	if a.registrar != nil {
		a.registrar.Poke()
	}
}

// newReporter is what tells gateways, nil where there are none.
func (a *agent) newReporter() (*Reporter, error) {
	if len(a.config.Gateways) == 0 || a.config.KeyFile == "" {
		return nil, nil
	}
	keys, err := a.config.keys()
	if err != nil {
		return nil, err
	}
	var gateways []netip.Prefix
	for _, text := range a.config.Gateways {
		gateways = append(gateways, netip.MustParsePrefix(text))
	}
	return NewReporter(a.domain.Locator, gateways, keys, a.config.ReportInterval, a.reports)
}

// reports are of all targets, as they are now.
func (a *agent) reports() []wire.Report {
	out, rates := a.states(), a.accepted.rates(time.Now())
	for i := range out {
		of := rates[out[i].Target]
		out[i].Accepted, out[i].Guests = of.own, of.guests
	}
	return out
}

// states are the reports, but for how many connections come.
func (a *agent) states() []wire.Report {
	draining := a.admin.why() != ""
	out := []wire.Report{a.reportOf(segment.Host, draining)}
	for i := range a.config.Containers {
		out = append(out, a.reportOf(uint16(a.config.Containers[i].Target), draining))
	}
	return out
}

func (a *agent) reportOf(target uint16, draining bool) wire.Report {
	r := wire.Report{Target: target, Draining: draining, Level: a.levelNow(target)}
	if m := a.monitors[target]; m != nil {
		r.Capacity = m.Capacity()
		r.Load, r.FlowLoad = m.Leveled().Load*r.Capacity, m.FlowLoad()
	}
	for _, p := range a.probes {
		if p.target != target {
			continue
		}
		health := p.Status().Health
		for _, s := range p.services {
			s.Health = health
			r.Services = append(r.Services, s)
		}
	}
	return r
}

// services are what a probe speaks of, without their health.
func (c *ProbeConfig) services() (out []wire.ServiceHealth) {
	for _, text := range c.VIPs {
		if s, err := parseService(text); err == nil {
			out = append(out, s)
		}
	}
	if out == nil {
		return []wire.ServiceHealth{{VIP: netip.IPv6Unspecified()}}
	}
	return out
}

// reporting names what is wrong with what gateways are told.
func (d *defects) reporting(c *Config) {
	if len(c.Gateways) > 0 && c.KeyFile == "" && c.Return == returnDirect {
		d.add("key_file", "", "missing, and there are gateways to report to", "the file of gateway.dataplane.key_file")
	}
	if i := c.ReportInterval; i < shortestReport || i > longestReport || i%1e6 != 0 {
		d.add("report_interval", i.String(), "out of range", fmt.Sprintf("%v to %v, in whole milliseconds", shortestReport, longestReport))
	}
	if c.DrainOnStop < 0 || c.DrainOnStop > longestDrain {
		d.add("drain_on_stop", c.DrainOnStop.String(), "out of range", "0s to "+longestDrain.String())
	}
	d.probes(c)
}

func (d *defects) probes(c *Config) {
	vips := c.targets()
	names, services := map[string]bool{}, map[int]int{}
	for i := range c.Probes {
		p, key := &c.Probes[i], "probes["+strconv.Itoa(i)+"]"
		for _, wrong := range p.Probe.Check("agent." + key + ".probe") {
			d.list = append(d.list, defectOf(wrong))
		}
		if names[p.Probe.Name] {
			d.add(key+".probe.name", p.Probe.Name, "used twice", "each name once")
		}
		names[p.Probe.Name] = true
		of, known := vips[p.Container]
		if !known {
			d.add(key+".container", strconv.Itoa(p.Container), "unknown", "a target of agent.containers, or 0 for the host")
			continue
		}
		for j, text := range p.VIPs {
			s, err := parseService(text)
			switch key := key + ".vips[" + strconv.Itoa(j) + "]"; {
			case err != nil:
				d.add(key, text, err.Error(), serviceWant)
			case !slices.Contains(of, s.VIP):
				d.add(key, text, "not a VIP of that target", "one of its vips")
			}
		}
		if services[p.Container] += max(1, len(p.VIPs)); services[p.Container] > wire.MaxServices {
			d.add(key+".vips", "", fmt.Sprintf("more than %d are probed of one target", wire.MaxServices), "fewer, or one probe without vips")
		}
	}
	d.rate(c, services)
}

// rate names what would be more than gateways take, with room for what changes meanwhile.
func (d *defects) rate(c *Config, services map[int]int) {
	reports := []wire.Report{{Services: make([]wire.ServiceHealth, services[0])}}
	for i := range c.Containers {
		reports = append(reports, wire.Report{Services: make([]wire.ServiceHealth, services[c.Containers[i].Target])})
	}
	least := time.Second * time.Duration(wire.Datagrams(reports)) / (wire.ReportRate / 2)
	if len(c.Gateways) > 0 && c.ReportInterval < least {
		d.add("report_interval", c.ReportInterval.String(), "too short for so many containers and probes", least.Round(time.Millisecond).String()+" or more")
	}
}
