package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering"
)

// Metric names are an interface: operators' alerts depend on them.
const (
	metricLoad     = "razor_agent_load_ratio"
	metricLevel    = "razor_agent_load_level"
	metricFailures = "razor_agent_load_failures_total"
)

// change is a level that changed.
type change struct {
	target uint16
	now    steering.Leveled
}

// monitor makes the monitors of all targets whose load is measured. They begin with the
// levels that an earlier process had.
func (a *agent) monitor() error {
	add := func(number uint16, m func(segment.Level) *load.Monitor) error {
		level, err := a.endpoint.Level(number)
		a.levels[number], a.monitors[number] = level, m(level)
		return err
	}
	if c := a.config.Load; c != nil {
		if err := add(segment.Host, func(l segment.Level) *load.Monitor { return load.New(*c, l, a.config.parsedVIPs(), nil) }); err != nil {
			return err
		}
	}
	for i := range a.config.Containers {
		t := &a.config.Containers[i]
		if t.Load == nil {
			continue
		}
		if err := add(uint16(t.Target), func(l segment.Level) *load.Monitor { return load.New(*t.Load, l, parsed(t.VIPs), t.inside) }); err != nil {
			return err
		}
	}
	return nil
}

// level is that of a target: its own where its load is measured, else the host's.
func (a *agent) level(number uint16) segment.Level {
	for _, of := range []uint16{number, segment.Host} {
		if level, measured := a.levels[of]; measured {
			return level
		}
	}
	return segment.Normal
}

// watch has the monitors measure until ctx ends; whoever reads the channel learns of
// changes.
func (a *agent) watch(ctx context.Context, group *errgroup.Group) <-chan change {
	changes := make(chan change)
	for number, m := range a.monitors {
		group.Go(func() error {
			m.Run(ctx, func(now steering.Leveled) {
				select {
				case changes <- change{number, now}:
				case <-ctx.Done():
				}
			})
			return nil
		})
	}
	return changes
}

// change has a level in the endpoint, and that of containers that have the host's.
func (a *agent) change(c change) {
	severity := slog.LevelInfo
	if c.now.Level > a.levels[c.target] {
		severity = slog.LevelWarn
	}
	a.log.Log(context.Background(), severity, "level changed", "target", c.target, "from", a.levels[c.target].String(), "to", c.now.Level.String(),
		"reason", c.now.Reason)
	a.levels[c.target] = c.now.Level
	a.poke()
	if c.target == segment.Host {
		a.setLevel(segment.Host)
	}
	for number := range a.containers {
		a.setLevel(number)
	}
	a.say()
}

func (a *agent) setLevel(number uint16) {
	if err := a.endpoint.SetLevel(number, a.level(number)); err != nil {
		a.log.Error("level not set", "target", number, "err", err)
	}
}

// loaded says which levels are not normal.
func (a *agent) loaded() (text string) {
	for _, number := range slices.Sorted(maps.Keys(a.monitors)) {
		if level := a.levels[number]; level > segment.Normal {
			of := ""
			if number != segment.Host {
				of = fmt.Sprintf(" of container %d", number)
			}
			text += fmt.Sprintf("; load%s: %v", of, level)
		}
	}
	return text
}

// monitors are a collector of what they measured last.
type monitors map[uint16]*load.Monitor

var (
	descLoad     = prometheus.NewDesc(metricLoad, "Mean load of the last second, as a share of the capacity; target 0 is the host.", []string{"target"}, nil)
	descLevel    = prometheus.NewDesc(metricLevel, "Level of the load: 1 normal, 2 warning, 3 critical.", []string{"target"}, nil)
	descFailures = prometheus.NewDesc(metricFailures, "Measurements of the load that failed.", []string{"target"}, nil)
)

// Describe implements prometheus.Collector.
func (m monitors) Describe(ch chan<- *prometheus.Desc) {
	ch <- descLoad
	ch <- descLevel
	ch <- descFailures
}

// Collect implements prometheus.Collector.
func (m monitors) Collect(ch chan<- prometheus.Metric) {
	for number, monitor := range m {
		target, now := strconv.Itoa(int(number)), monitor.Leveled()
		ch <- prometheus.MustNewConstMetric(descLoad, prometheus.GaugeValue, now.Load, target)
		ch <- prometheus.MustNewConstMetric(descLevel, prometheus.GaugeValue, float64(now.Level), target)
		ch <- prometheus.MustNewConstMetric(descFailures, prometheus.CounterValue, float64(monitor.Failures()), target)
	}
}
