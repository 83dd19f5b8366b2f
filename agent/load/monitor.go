package load

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/steering"
)

// rest is how much longer than counting connections the pause after it is, at least:
// the kernel goes through all of them, and to measure the load must not be one.
const rest = 19

// Monitor measures the load of a host or a container.
type Monitor struct {
	config  Config
	measure func(context.Context) (float64, error)

	flows    *connections // that make the load; nil where they are it, or not known
	counted  time.Time    // when flows were, last
	mu       sync.Mutex
	leveler  *steering.Leveler
	failures uint64
	flowLoad float64
}

// New makes a monitor, of a configuration that was checked, that begins with a level.
// The connections counted are those of vips in the namespace that inside calls in; nil
// is that of the calling thread.
func New(c Config, level steering.Level, vips []netip.Addr, inside func(func() error) error) *Monitor {
	if inside == nil {
		inside = func(f func() error) error { return f() }
	}
	m := &Monitor{config: c, leveler: steering.NewLeveler(c.leveling(), level, time.Now())}
	switch {
	case c.Measure == Connections:
		m.measure = newConnections(vips, inside).measure
	case c.Measure == Average:
		m.measure, m.flows = average, new(newConnections(vips, inside))
	case c.Measure == Probe:
		m.measure = probe.NewGauge(c.Probe).Read
	case c.Cgroup != "":
		m.measure, m.flows = newGroup(c.Cgroup).measure, new(newConnections(vips, inside))
	default:
		m.measure, m.flows = new(busy).measure, new(newConnections(vips, inside))
	}
	return m
}

// Run measures until ctx ends, and calls changed with each change of the level; it is
// called once. No two measurements are ever under way at once.
func (m *Monitor) Run(ctx context.Context, changed func(steering.Leveled)) {
	for {
		start := time.Now()
		change := m.once(ctx)
		took := time.Since(start)
		if change {
			changed(m.Leveled())
		}
		pause := m.config.Interval - took
		if m.config.Measure == Connections {
			pause = max(pause, rest*took)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// once makes one measurement, and tells whether the level is another now.
func (m *Monitor) once(ctx context.Context) bool {
	figure, err := m.measure(ctx)
	each := m.perFlow(ctx, figure, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	if each > 0 {
		m.flowLoad = each
	}
	switch {
	case ctx.Err() != nil || errors.Is(err, errNoTime):
		return false
	case err != nil:
		m.failures++
		return m.leveler.Failed(time.Now(), err.Error())
	}
	return m.leveler.Load(time.Now(), figure/m.config.Capacity)
}

// countFlows is how often flows are counted for the load that one is.
const countFlows = 10 * time.Second

// perFlow is the mean load of a flow, 0 if it is not known now.
func (m *Monitor) perFlow(ctx context.Context, figure float64, failed error) float64 {
	if m.flows == nil || failed != nil || time.Since(m.counted) < countFlows {
		return 0
	}
	m.counted = time.Now()
	n, err := m.flows.measure(ctx)
	if err != nil || n == 0 {
		return 0
	}
	return figure / n
}

// FlowLoad is the mean load of a flow; 0 where that is 1, as loads are connections, or not
// known. What a probe says is taken for connections.
func (m *Monitor) FlowLoad() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flowLoad
}

// Leveled is the level as of the last measurement.
func (m *Monitor) Leveled() steering.Leveled {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leveler.Leveled()
}

// Capacity is what a load of 1 is.
func (m *Monitor) Capacity() float64 { return m.config.Capacity }

// Failures is how many measurements failed.
func (m *Monitor) Failures() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failures
}
