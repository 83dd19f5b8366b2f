package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

// Prober runs one probe and knows the health of its service.
type Prober struct {
	cfg     Config
	log     *slog.Logger
	reg     prometheus.Registerer
	metrics *metrics
	measure func(context.Context) error // nil is up; it ends soon after its context
	faulty  bool                        // the last measurement was; of the goroutine that measures

	mu      sync.Mutex // held for moments, never while measuring or logging
	damper  *steering.Damper
	last    Measurement
	changed chan struct{} // closed by the next change of health
}

// Measurement is what one probe found.
type Measurement struct {
	At      time.Time // its end; zero before the first
	Took    time.Duration
	Failure string // empty where it passed
}

// Status is a probe at one moment.
type Status struct {
	steering.Damped
	Last Measurement
	Good string // the window, as [steering.Damper.Window]; empty where rows count

	changed <-chan struct{}
}

// Changed is closed as soon as the health is another than in s, at once if it
// already is. It costs nothing to wait for it, or to wait no longer.
func (s Status) Changed() <-chan struct{} { return s.changed }

// New makes a prober of a configuration that was checked; the lease begins now.
// Nothing is measured before Run.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Prober, error) {
	if wrong := cfg.Check(cfg.Name); len(wrong) > 0 {
		return nil, wrong[0]
	}
	p := newProber(cfg, log, reg, measurer(&cfg))
	if err := reg.Register(p.metrics); err != nil {
		return nil, fmt.Errorf("probe %q: %w", cfg.Name, err)
	}
	return p, nil
}

func newProber(cfg Config, log *slog.Logger, reg prometheus.Registerer, measure func(context.Context) error) *Prober {
	p := &Prober{
		cfg: cfg, log: log.With("probe", cfg.Name), reg: reg, measure: measure,
		damper: steering.NewDamper(cfg.damping(), time.Now()), changed: make(chan struct{}),
	}
	p.metrics = newMetrics(p)
	return p
}

func measurer(c *Config) func(context.Context) error {
	switch c.Kind {
	case kindTCP:
		return tcpProbe{c.Target}.measure
	case kindDNS:
		return newDNSProbe(c).measure
	case kindExec:
		return execProbe{c.Command}.measure
	default:
		return newHTTPProbe(c).measure
	}
}

// Run measures until ctx ends, and waits for the measurement under way; it is
// called once. The series of the probe end with it, and its lease is not renewed.
func (p *Prober) Run(ctx context.Context) error {
	defer p.reg.Unregister(p.metrics)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { p.repeat(ctx); return nil })
	g.Go(func() error { p.watch(ctx); return nil })
	return g.Wait()
}

// Status is the probe now. A lease that has ended is seen here, by whoever asks,
// as the goroutine that measures may be the one that hangs.
func (p *Prober) Status() Status {
	p.step(func(now time.Time) bool { return p.damper.Expire(now) })
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{p.damper.Damped(), p.last, p.damper.Window(), p.changed}
}

// step has the damper learn something, and tells of it if that changed the health.
func (p *Prober) step(learn func(now time.Time) bool) {
	p.mu.Lock()
	from := p.damper.Damped()
	changed := learn(time.Now())
	to := p.damper.Damped()
	if changed {
		close(p.changed)
		p.changed = make(chan struct{})
	}
	p.mu.Unlock()
	if !changed {
		return
	}
	level := slog.LevelInfo
	if to.Health == steering.HealthDown {
		level = slog.LevelWarn
	}
	p.log.Log(context.Background(), level, "health changed", "from", from.Health.String(), "to", to.Health.String(),
		"reason", to.Reason, "hold_down", max(0, to.HeldUntil.Sub(to.Since)))
}

// watch wakes those who wait for a change when the lease ends.
func (p *Prober) watch(ctx context.Context) {
	for pause(ctx, p.leaseLeft()) {
		p.Status()
	}
}

// leaseLeft is how long the lease lasts without a measurement. When it has ended
// the next one ends no sooner than after its whole time.
func (p *Prober) leaseLeft() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := time.Until(p.damper.LeaseEnd()); left > 0 {
		return left
	}
	return p.cfg.Lease
}

// repeat measures again and again, never twice at once.
func (p *Prober) repeat(ctx context.Context) {
	for next := time.Now(); pause(ctx, time.Until(next)); {
		next = time.Now().Add(jitter(p.cfg.Interval))
		p.once(ctx)
	}
}

// jitter is d ± 10 %, so that probes do not fall into step.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// pause waits, and tells whether ctx lasts.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// once makes one measurement. One in which the program was at fault is none: if
// all are, the lease ends.
func (p *Prober) once(ctx context.Context) {
	start := time.Now()
	err := p.guarded(ctx)
	took := time.Since(start)
	if ctx.Err() != nil {
		return // stopped: that says nothing of the service
	}
	if f, ok := errors.AsType[*fault](err); ok {
		p.metrics.results[resultFault].Inc()
		if !p.faulty {
			p.log.Error("fault in a probe", "panic", f.Error(), "stack", f.stack)
		}
		p.faulty = true
		return
	}
	p.faulty = false
	failure := ""
	if err != nil {
		failure = printable(err.Error())
	}
	p.metrics.observe(err == nil, took)
	p.step(func(now time.Time) bool { return p.damper.Expire(now) })
	p.step(func(now time.Time) bool {
		p.last = Measurement{now, took, failure}
		return p.damper.Result(now, err == nil, failure)
	})
}

// fault is a panic of a measurement.
type fault struct{ value, stack string }

func (f *fault) Error() string { return f.value }

// guarded is measure within its timeout, with a net under the faults of the program.
func (p *Prober) guarded(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &fault{printable(fmt.Sprint(v)), string(debug.Stack())}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	return p.measure(ctx)
}
