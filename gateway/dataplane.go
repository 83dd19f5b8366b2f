package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/upstreams"
)

// dataplane is the balancer on the interfaces of the host.
type dataplane struct {
	*balancer.Keeper

	balancer   *balancer.Balancer
	interfaces *interfaces
	flowKey    []byte
	locator    netip.Prefix
	mates      *mates
	listener   net.Listener // for mates; nil without
	followed   string       // the mate that decides; "" decides here
	asked      []string     // mates that have tables which are wanted at the start
	site       string       // this one
	drained    func() bool  // the gateway is: nobody can reach it
	pins       *Pins        // nil without keys
	reports    *reports
	echoes     *echoes      // nil without keys, or where they cannot be
	summaries  *summaries   // of other sites; nil without gateway.site
	decider    *decider     // nil where this gateway does not decide
	teller     *teller      // likewise, and without keys
	members    *membership  // nil where all services have their backends from the file
	others     *consulSites // nil where the file has the other sites
	election   *election    // nil where no lock says who decides

	configuring sync.Mutex // held while a plan becomes that of config
	config      *Config
}

// openDataplane puts the balancer on the interfaces, with the plan of the
// configuration, or takes over that of an earlier process. lists may have backends of
// services; nil without. read is for what Consul has of other sites. changed is called when
// Servable may say something else.
func openDataplane(c *Config, node netip.Prefix, lists *upstreams.Follower, read ReadYAML, log *slog.Logger, changed func()) (*dataplane, error) {
	flowKey, err := c.Dataplane.flowKey()
	if err != nil {
		return nil, err
	}
	locator, err := c.locator(node)
	if err != nil {
		return nil, err
	}
	block := netip.MustParsePrefix(c.Dataplane.SRBlock)
	p := &dataplane{flowKey: flowKey, locator: locator, config: c}
	if p.members, err = newMembership(c, lists, log); err != nil {
		return nil, err
	}
	if p.others, err = newConsulSites(c, locator, read, log); err != nil {
		return nil, err
	}
	if p.election, err = newElection(c, log); err != nil {
		return nil, err
	}
	p.balancer, err = balancer.Load(balancer.Options{Services: c.Dataplane.MaxServices, Pins: c.Dataplane.Pins})
	if errors.Is(err, balancer.ErrRunning) {
		return nil, upstreams.Defect{
			Key: "gateway.dataplane.pins", Member: c.Dataplane.Pins, Reason: "another gateway runs with it", Want: "the other one stopped, or a directory for each",
		}
	}
	if err != nil {
		return nil, err
	}
	p.interfaces = newInterfaces(p.balancer, &c.Dataplane, log)
	if err := p.open(c, balancer.Host{Locator: locator, Block: block}, log, changed); err != nil {
		return nil, errors.Join(err, p.balancer.Undo(c.Dataplane.Interfaces), p.close())
	}
	return p, nil
}

func (p *dataplane) open(c *Config, host balancer.Host, log *slog.Logger, changed func()) (err error) {
	p.reports = newReports(log, func(plan balancer.Plan, now time.Time) error { return p.Apply(plan, now) }, changed)
	ways := func() { p.reports.poke(); changed() }
	if p.Keeper, err = balancer.NewKeeper(p.balancer, log, time.Now(), ways); err != nil {
		return err
	}
	p.reports.elsewhere, p.reports.setAway = p.Elsewhere, p.SetAway
	if err := p.prepareDecisions(c, log); err != nil {
		return err
	}
	if p.members != nil {
		p.members.word, p.members.configure = p.reports.word, func() error { return p.configure(nil, time.Now()) }
	}
	if p.others != nil {
		p.others.config, p.others.configure = p.configured, func() error { return p.configure(nil, time.Now()) }
	}
	if c.Dataplane.KeyFile != "" {
		p.reports.load(filepath.Join(c.StateDir, reportsFile), time.Now())
	}
	if err := p.balancer.SetHost(host); err != nil {
		return err
	}
	p.mates, p.followed = newMates(p.Keeper, p.flowKey, log), c.Dataplane.Follow
	if p.election != nil {
		p.followed = p.election.mate()
	}
	if p.followed != "" || p.election != nil {
		p.Follow()
	}
	if p.decider != nil {
		p.GoOn(p.decider.inForce(c.decisions()))
	}
	if err := p.configure(nil, time.Now()); err != nil {
		return err
	}
	if err := p.meet(c, log); err != nil {
		return err
	}
	if err := p.interfaces.attach(); err != nil {
		return err
	}
	return p.listen(c, log)
}

// listen begins to take pins and reports from agents, and summaries from other sites.
func (p *dataplane) listen(c *Config, log *slog.Logger) error {
	keys, err := c.Dataplane.keys()
	if keys == nil || err != nil {
		return err
	}
	if p.pins, err = ListenPins(p.locator, keys, p.Pin); err != nil {
		return err
	}
	p.pins.takeReports(p.reports)
	if p.echoes, err = listenEchoes(p.locator, p.reports); err != nil {
		log.Warn("hosts of backends are not asked for echoes: if most are silent at once, they are not taken for gone", "err", err)
	}
	p.exchange(c, keys, log)
	return nil
}

// run keeps the balancer, serves mates and takes pins until ctx ends.
func (p *dataplane) run(ctx context.Context, group *errgroup.Group) {
	if p.interfaces.generic() {
		p.Generic()
	}
	group.Go(func() error { return p.Run(ctx) })
	group.Go(func() error { p.interfaces.keep(ctx); return nil })
	if p.listener != nil {
		group.Go(func() error { return p.mates.serve(ctx, p.listener) })
	}
	group.Go(func() error { p.await(ctx, p.mates.log); return nil })
	switch {
	case p.election != nil:
		group.Go(func() error { return p.election.stand(ctx, p.drained) })
		group.Go(func() error { return p.election.run(ctx, p) })
	case p.followed != "":
		group.Go(func() error { p.mates.follow(ctx, p.followed); return nil })
	}
	if p.members != nil {
		group.Go(func() error { return p.members.run(ctx) })
	}
	if p.others != nil {
		group.Go(func() error { p.others.run(ctx); return nil })
	}
	if p.pins != nil {
		group.Go(func() error { return p.pins.Run(ctx) })
	}
	if p.echoes != nil {
		group.Go(func() error { p.echoes.run(ctx); return nil })
	}
	if p.pins != nil || p.decider != nil {
		group.Go(func() error { p.reports.run(ctx); return nil })
	}
	if p.teller != nil {
		group.Go(func() error { p.teller.run(ctx); return nil })
	}
}

// configure makes the plan that of a configuration, nil is the same as before, with the
// backends and other sites that there are. Where that cannot be, all is as before.
func (p *dataplane) configure(c *Config, now time.Time) error {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	if c == nil {
		c = p.config
	}
	with := p.with(c)
	if err := p.reports.configure(with.configured(p.flowKey), now); err != nil {
		return err
	}
	p.config = c
	p.reconfigureDecisions(with)
	return nil
}

// with is a configuration with the backends and other sites that Consul and lists have.
func (p *dataplane) with(c *Config) *Config { return p.others.in(p.members.in(c)) }

// configured is the configuration of the plan, at this gateway's locator.
func (p *dataplane) configured() *Config {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	return p.config.at(p.locator)
}

// reload makes the plan of a configuration the balancer's, and the keys in its file
// those of the agents: nothing of it where the keys cannot be read or the plan cannot be.
func (p *dataplane) reload(c *Config, now time.Time) error {
	keys, err := c.Dataplane.keys()
	if err != nil {
		return err
	}
	if err := p.configure(c, now); err != nil {
		return err
	}
	if p.pins != nil {
		p.pins.SetKeys(keys)
	}
	if p.teller != nil {
		p.teller.setKeys(keys)
	}
	if p.others != nil {
		p.others.poke() // what its keys say may be right now, or wrong
	}
	return nil
}

// Describe implements prometheus.Collector.
func (p *dataplane) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range p.collectors() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (p *dataplane) Collect(ch chan<- prometheus.Metric) {
	for _, c := range p.collectors() {
		c.Collect(ch)
	}
}

// passing is how many answers of backends, and packets of other sites, came by this gateway.
func (p *dataplane) passing() (n uint64) {
	counts, err := p.balancer.Counts()
	if err != nil {
		return 0
	}
	for _, c := range counts {
		if c.Reason == "returned" || c.Reason == "entered" {
			n += c.Packets
		}
	}
	return n
}

// hide has the gateways of other sites use others, as echo requests are answered no more. An
// agent on this host, which has the same address, takes nothing there.
func (p *dataplane) hide() error {
	if p.pins == nil {
		return nil
	}
	return disown(p.pins.locator.Address())
}

// remove takes the balancer off the host.
func (p *dataplane) remove() error {
	p.interfaces.leave()
	return p.balancer.Remove()
}

// close lets go of the balancer, which goes on.
func (p *dataplane) close() error {
	p.interfaces.leave()
	if p.listener != nil {
		_ = p.listener.Close() // a second time, where it was served
	}
	if p.pins != nil {
		_ = p.pins.Close() // likewise
	}
	if p.echoes != nil {
		_ = p.echoes.conn.Close() // likewise
	}
	return p.balancer.Close()
}
