package gateway

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

// prepareDecisions has what this gateway needs to decide for its site, if it does, and to
// hear of others.
func (p *dataplane) prepareDecisions(c *Config, log *slog.Logger) error {
	if c.Site == "" {
		return nil
	}
	p.summaries = newSummaries(p.reports.poke)
	p.summaries.configure(p.with(c), p.flowKey)
	p.reports.sites = p.summaries.last
	if !c.decides() {
		return nil
	}
	p.decider = newDecider(log, p.summaries, p.Ways, time.Now())
	if p.election != nil {
		p.decider.leads = p.election.leads
	}
	p.reports.decider = p.decider
	if err := p.decider.load(c.StateDir, c.Site, time.Now()); err != nil {
		return upstreams.Defect{Key: "gateway.state_dir", Member: c.StateDir, Reason: err.Error(), Want: "a directory that can be read"}
	}
	return nil
}

// exchange has summaries of other sites taken, and, where this gateway decides, its own
// told to them.
func (p *dataplane) exchange(c *Config, keys wire.Keys, log *slog.Logger) {
	if p.summaries != nil {
		p.pins.takeSummaries(p.summaries)
	}
	if p.decider != nil {
		p.teller = newTeller(p.decider, wire.LocatorOf(p.locator.Addr()), p.flowKey, p.pins.conn, log)
		p.teller.setKeys(keys)
		p.teller.configure(p.with(c))
	}
}

// reconfigureDecisions takes what a configuration says of other sites.
func (p *dataplane) reconfigureDecisions(c *Config) {
	if p.summaries != nil {
		p.summaries.configure(c, p.flowKey)
	}
	if p.teller != nil {
		p.teller.configure(c)
	}
}

// collectors are the metrics of what there is.
func (p *dataplane) collectors() []prometheus.Collector {
	out := []prometheus.Collector{p.Keeper}
	if p.pins != nil {
		out = append(out, p.pins, p.reports)
	}
	if p.echoes != nil {
		out = append(out, p.echoes)
	}
	if p.election != nil {
		out = append(out, p.election)
	}
	if p.members != nil {
		out = append(out, p.members)
	}
	if p.others != nil {
		out = append(out, p.others)
	}
	if p.summaries != nil {
		out = append(out, p.summaries)
	}
	if p.decider != nil {
		out = append(out, p.decider)
	}
	if p.teller != nil {
		out = append(out, p.teller)
	}
	return out
}
