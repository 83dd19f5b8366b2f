package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

const (
	tellEvery = time.Second
	// tellPause is between two rounds of summaries at least, whatever happens.
	tellPause = 50 * time.Millisecond
)

// teller tells the gateways of other sites how this one is, as it decides.
type teller struct {
	decider *decider
	self    wire.Locator
	flowKey []byte
	conn    *net.UDPConn
	log     *slog.Logger
	told    prometheus.Counter
	lost    prometheus.Counter

	mu    sync.Mutex
	peers []wire.Locator // to be told
	keys  wire.Keys      // none tells nobody

	sealers map[wire.Locator]*wire.Sealer
	sealed  wire.Keys // that the sealers are of
	buffer  []byte
	failing bool
}

func newTeller(d *decider, self wire.Locator, flowKey []byte, conn *net.UDPConn, log *slog.Logger) *teller {
	return &teller{
		decider: d, self: self, flowKey: flowKey, conn: conn, log: log, sealers: map[wire.Locator]*wire.Sealer{},
		told: prometheus.NewCounter(prometheus.CounterOpts{Name: "razor_gateway_sites_told_total", Help: "Datagrams with summaries that gateways of other sites were sent."}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "razor_gateway_sites_lost_total", Help: "Datagrams with summaries that could not be sent."}),
	}
}

// setKeys says with which keys others are told.
func (t *teller) setKeys(keys wire.Keys) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = keys
}

// configure says who is to be told.
func (t *teller) configure(c *Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.peers = nil
	for i := range c.Sites {
		for _, text := range c.Sites[i].Gateways {
			if p, err := netip.ParsePrefix(text); err == nil {
				t.peers = append(t.peers, wire.LocatorOf(p.Addr()))
			}
		}
	}
}

// run tells each second, and at once when something changes that others depend on, until
// ctx ends.
func (t *teller) run(ctx context.Context) {
	every := time.NewTicker(tellEvery)
	defer every.Stop()
	for {
		news := t.decider.changed()
		t.tell(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(tellPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-news:
		}
	}
}

// tell sends the summaries of the plan in force to all.
func (t *teller) tell(now time.Time) {
	number, all := t.decider.summary(t.flowKey)
	if len(all) == 0 {
		return
	}
	t.mu.Lock()
	peers, keys := t.peers, t.keys
	t.mu.Unlock()
	if len(keys) == 0 {
		return
	}
	if len(t.sealed) == 0 || t.sealed[0] != keys[0] {
		t.sealers, t.sealed = map[wire.Locator]*wire.Sealer{}, keys
	}
	var errs []error
	for _, to := range peers {
		if err := t.tellOne(to, number, all, now); err != nil {
			t.lost.Inc()
			errs = append(errs, err)
		}
	}
	switch err := errors.Join(errs...); {
	case err != nil && !t.failing:
		t.log.Warn("gateways of other sites are not told how this one is", "err", err)
	case err == nil && t.failing:
		t.log.Info("gateways of other sites are told again")
	}
	t.failing = len(errs) > 0
}

func (t *teller) tellOne(to wire.Locator, number steering.PlanNumber, all []wire.Summary, now time.Time) (err error) {
	s := t.sealers[to]
	if s == nil {
		s = wire.NewSealer(t.sealed, t.self, to, now)
		t.sealers[to] = s
	}
	at := netip.AddrPortFrom(to.Address(), wire.Port)
	for len(all) > 0 {
		if t.buffer, all, err = s.SealSummaries(t.buffer[:0], number, all, now); err != nil {
			return err
		}
		if _, err := t.conn.WriteToUDPAddrPort(t.buffer, at); err != nil {
			return err
		}
		t.told.Inc()
	}
	return nil
}

// changed is closed when others are to be told at once.
func (d *decider) changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news
}

// summary is what others are told of the plan in force.
func (d *decider) summary(flowKey []byte) (steering.PlanNumber, []wire.Summary) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.snapshot == nil || !d.leads() { // the plan is one of a process before, or of a mate
		return steering.PlanNumber{}, nil
	}
	var out []wire.Summary
	for i := range d.plan.Services {
		p := &d.plan.Services[i]
		s := p.Summary()
		out = append(out, wire.Summary{
			Service: serviceID(flowKey, p.Name), Capacity: s.Capacity, Load: s.Load, Healthy: s.Healthy, Drained: d.drained != "", Loaded: s.Loaded,
		})
	}
	return d.plan.Number, out
}
