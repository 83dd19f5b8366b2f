package load

import (
	"path/filepath"
	"strconv"
	"time"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// What can be measured.
const (
	Connections = "connections" // established, of the VIPs
	CPU         = "cpu"         // CPUs that are busy
	Average     = "average"     // of the processes that run or wait, in the last minute
	Probe       = "probe"       // what a program or a server says
)

// Config is `load:` of the agent or of a container: what is measured, and what is much.
// Defaults fills what was left out, and Check says what cannot be used.
type Config struct {
	Measure  string            `yaml:"measure"`  // what is measured
	Capacity float64           `yaml:"capacity"` // that is a load of 1; CPUs of the host without
	Warning  float64           `yaml:"warning"`  // loads from which on the level is that
	Critical float64           `yaml:"critical"`
	Interval time.Duration     `yaml:"interval"` // between the starts of measurements
	Cgroup   string            `yaml:"cgroup"`   // directory of the one whose CPUs count; all without
	Probe    probe.GaugeConfig `yaml:"probe"`
}

const (
	// Bounds of the interval: shorter ones would be a load themselves, longer ones slips.
	shortest, longest = 50 * time.Millisecond, time.Minute
	// slack, smooth, hold and failures are those of all levels.
	slack    = 0.1
	smooth   = time.Second
	hold     = 3 * time.Second
	failures = 3
)

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	interval := 200 * time.Millisecond
	if c.Measure == Probe {
		interval = time.Second
		c.Probe.Defaults()
	}
	or(&c.Interval, interval)
	or(&c.Warning, 0.8)
	or(&c.Critical, 0.95)
	if c.Measure == CPU || c.Measure == Average {
		or(&c.Capacity, float64(cpus()))
	}
}

func or[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// Check lists what is wrong with the section at key in the configuration; the keys are
// paths below it.
func (c *Config) Check(key string) (wrong []upstreams.Defect) {
	add := func(name, member, reason, want string) {
		wrong = append(wrong, upstreams.Defect{Key: key + "." + name, Member: member, Reason: reason, Want: want})
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
	switch c.Measure {
	case Connections, CPU, Average:
	case Probe:
		for _, d := range c.Probe.Check(key + ".probe") {
			wrong = append(wrong, upstreams.Defect(d))
		}
	default:
		add("measure", c.Measure, "unknown", "connections, cpu, average or probe")
		return wrong
	}
	if !(c.Capacity > 0) || c.Capacity > 1e12 {
		add("capacity", number(c.Capacity), "not a capacity", "how much of it is a load of 1, such as 20000 connections")
	}
	if !(c.Warning > slack) || c.Warning > 100 {
		add("warning", number(c.Warning), "out of range", "a share of the capacity above "+number(slack)+", such as 0.8")
	}
	if !(c.Critical >= c.Warning) || c.Critical > 100 {
		add("critical", number(c.Critical), "out of range", "a share of the capacity, not below that of warning")
	}
	if c.Interval < shortest || c.Interval > longest {
		add("interval", c.Interval.String(), "out of range", shortest.String()+" to "+longest.String())
	}
	switch {
	case c.Cgroup == "":
	case c.Measure != CPU:
		add("cgroup", c.Cgroup, "not of measure "+c.Measure, "no such key, or measure cpu")
	case !filepath.IsAbs(c.Cgroup):
		add("cgroup", c.Cgroup, "not a full path", "a directory such as /sys/fs/cgroup/system.slice/web.service")
	}
	if c.Measure != Probe && (c.Probe.Kind != "" || c.Probe.Target != "" || len(c.Probe.Command) > 0) {
		add("probe", c.Probe.Kind, "not of measure "+c.Measure, "no such key, or measure probe")
	}
	return wrong
}

func (c *Config) leveling() steering.Leveling {
	return steering.Leveling{Warning: c.Warning, Critical: c.Critical, Slack: slack, Smooth: smooth, Hold: hold, Failures: failures}
}
