package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams/consul"
)

// electionLook is how often it is looked whether the lease of who decides has ended, and
// who has it.
const electionLook = 100 * time.Millisecond

// election has the gateways of a site agree, by a lock in Consul, on who decides: the one
// that holds it decides, the others copy its tables. While Consul is away who decides goes
// on for as long as nobody else can, and then nobody does: all tables stay as they are, but
// for who is dead.
type election struct {
	lock *consul.Decider
	self string // tables_listen, which is the value of the lock
	log  *slog.Logger

	mu      sync.Mutex
	decides bool
	follows string // the mate whose tables are copied
}

// newElection is that of a configuration, nil without a lock.
func newElection(c *Config, log *slog.Logger) (*election, error) {
	if c.Dataplane.ConsulLock == "" {
		return nil, nil
	}
	lock, err := consul.NewDecider(c.Consul, "gateway.consul", c.Dataplane.ConsulLock, c.Dataplane.TablesListen, log)
	if err != nil {
		return nil, err
	}
	return &election{lock: lock, self: c.Dataplane.TablesListen, log: log}, nil
}

// election names what is wrong with how it is agreed who decides.
func (d *defects) election(p *DataplaneConfig) {
	const key = "dataplane.consul_lock"
	switch {
	case p.ConsulLock == "":
		return
	case p.ConsulLock != strings.Trim(p.ConsulLock, "/"):
		d.add(key, p.ConsulLock, "begins or ends with a slash", `one key for each site, such as "razor/east/decider"`)
	case p.Follow != "":
		d.add(key, p.ConsulLock, "beside follow", "one of the two")
	case p.TablesListen == "":
		d.add(key, p.ConsulLock, "without tables_listen", "where mates find the tables of this gateway, should it decide")
	}
	if a, err := netip.ParseAddrPort(p.TablesListen); err == nil && p.ConsulLock != "" && a.Addr().IsUnspecified() {
		d.add("dataplane.tables_listen", p.TablesListen, "not an address that mates reach, who find it in consul_lock", "an address of this gateway")
	}
}

// mate is who decides now, "" where that is nobody else, or not known.
func (e *election) mate() string {
	ctx, cancel := context.WithTimeout(context.Background(), firstWait)
	defer cancel()
	at, err := e.lock.Look(ctx)
	switch {
	case err != nil:
		e.log.Warn("consul does not tell who decides", "err", err)
	case at != e.self:
		return at
	}
	return ""
}

// stand has this gateway be one that may decide, until ctx ends: not while it is drained,
// as nobody reaches it then.
func (e *election) stand(ctx context.Context, drained func() bool) error {
	ticker := time.NewTicker(electionLook)
	defer ticker.Stop()
	for ctx.Err() == nil {
		if !drained() {
			if err := e.standUntil(ctx, drained); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	return nil
}

// standUntil gives the lock back once the gateway is drained.
func (e *election) standUntil(ctx context.Context, drained func() bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- e.lock.Run(ctx) }()
	ticker := time.NewTicker(electionLook)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ticker.C:
			if drained() {
				stop()
			}
		}
	}
}

// leads tells whether this gateway decides.
func (e *election) leads() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.decides
}

// run decides, or copies the tables of who does, until ctx ends.
func (e *election) run(ctx context.Context, p *dataplane) error {
	ticker := time.NewTicker(electionLook)
	defer ticker.Stop()
	stop := func() {}
	defer func() { stop() }()
	for {
		held := e.lock.Held()
		holder, heard := e.lock.Holder()
		switch is := e.state(); {
		case held && !is.Decides:
			stop()
			stop = func() {}
			if p.decider != nil {
				p.decider.lead(p.Decision(), p.site, time.Now())
			}
			e.set(true, "") // before what is judged counts: it is to be decided
			p.Decide(time.Now())
			if err := p.configure(nil, time.Now()); err != nil {
				e.log.Error("the own plan is not applied", "err", err)
			}
		case !held && is.Decides:
			p.Follow()
			e.set(false, "")
			if err := p.configure(nil, time.Now()); err != nil {
				e.log.Error("the own plan is not applied", "err", err)
			}
		case !held && heard && holder != "" && holder != e.self && holder != is.Holder:
			stop()
			stop = e.follow(ctx, p, holder)
		}
		if p.decider != nil && !e.leads() {
			p.decider.heed(p.Decision(), p.site)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-e.lock.Changed():
		}
	}
}

// follow has the tables be those of a mate until it is stopped.
func (e *election) follow(ctx context.Context, p *dataplane, mate string) (stop func()) {
	e.set(false, mate)
	e.log.Info("tables are those of another gateway", "mate", mate)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.mates.follow(ctx, mate)
	}()
	return func() { cancel(); <-done }
}

func (e *election) set(decides bool, follows string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.decides, e.follows = decides, follows
}

// ElectionStatus is who decides, by the lock in Consul.
type ElectionStatus struct {
	Decides bool   `json:"decides"`          // this gateway does
	Holder  string `json:"holder,omitempty"` // else the mate whose tables are copied
	Heard   bool   `json:"heard"`            // Consul tells who decides
}

// state is what this gateway does now; nil without a lock.
func (e *election) state() *ElectionStatus {
	if e == nil {
		return nil
	}
	_, heard := e.lock.Holder()
	e.mu.Lock()
	defer e.mu.Unlock()
	return &ElectionStatus{e.decides, e.follows, heard}
}

// String is the state in words.
func (s *ElectionStatus) String() string {
	text := "nobody is known to decide, tables stay as they are"
	switch {
	case s.Decides:
		text = "this gateway decides"
	case s.Holder != "":
		text = fmt.Sprintf("tables are those of %s", s.Holder)
	}
	if !s.Heard {
		text += "; consul does not tell who decides"
	}
	return text
}

var (
	decidesDesc = reportDesc("decides", "Whether this gateway decides, by the lock in Consul.")
	heardDesc   = reportDesc("decider_known", "Whether Consul tells who decides.")
)

// Describe implements prometheus.Collector.
func (e *election) Describe(ch chan<- *prometheus.Desc) {
	ch <- decidesDesc
	ch <- heardDesc
}

// Collect implements prometheus.Collector.
func (e *election) Collect(ch chan<- prometheus.Metric) {
	s := e.state()
	ch <- prometheus.MustNewConstMetric(decidesDesc, prometheus.GaugeValue, number(s.Decides))
	ch <- prometheus.MustNewConstMetric(heardDesc, prometheus.GaugeValue, number(s.Heard))
}
