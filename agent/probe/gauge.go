package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GaugeConfig is how a service is asked for a figure. Defaults fills what was left
// out, and Check says what cannot be used. The keys are those of a [Config].
type GaugeConfig struct {
	// Kind is http, https or exec.
	Kind    string        `yaml:"kind"`
	Timeout time.Duration `yaml:"timeout"`

	Target   string `yaml:"target"`
	Path     string `yaml:"path"`
	Host     string `yaml:"host"`
	TLSName  string `yaml:"tls_name"`
	Insecure bool   `yaml:"insecure"`

	Command []string `yaml:"command"`
}

// Defaults fills what the operator left out.
func (c *GaugeConfig) Defaults() {
	or(&c.Timeout, time.Second)
	if c.Kind == kindHTTP || c.Kind == kindHTTPS {
		or(&c.Path, "/")
	}
}

// Check lists what is wrong with the gauge at key in the configuration; the keys are
// paths below it. Defaults have been filled in.
func (c *GaugeConfig) Check(key string) []Defect {
	if !slices.Contains([]string{kindHTTP, kindHTTPS, kindExec}, c.Kind) {
		return []Defect{{key + ".kind", c.Kind, "unknown", "http, https or exec"}}
	}
	probe := c.probe()
	return probe.Check(key)
}

// probe is the probe that would ask the same.
func (c *GaugeConfig) probe() Config {
	p := Config{
		Name: "gauge", Kind: c.Kind, Timeout: c.Timeout, Target: c.Target, Path: c.Path, Host: c.Host,
		TLSName: c.TLSName, Insecure: c.Insecure, Command: c.Command,
	}
	p.Defaults()
	return p
}

// Gauge asks a service for a figure: a program writes it, or an answer of HTTP with the
// status 200 has it in the body, as its first line.
type Gauge struct {
	timeout time.Duration
	line    func(context.Context) (string, error)
}

// NewGauge makes a gauge of a configuration that was checked.
func NewGauge(c GaugeConfig) *Gauge {
	p := c.probe()
	if c.Kind == kindExec {
		return &Gauge{c.Timeout, execProbe{c.Command}.line}
	}
	return &Gauge{c.Timeout, newHTTPProbe(&p).line}
}

// Read asks once, within the timeout. It ends soon after ctx.
func (g *Gauge) Read(ctx context.Context) (figure float64, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errors.New("fault: " + printable(fmt.Sprint(v)))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	line, err := g.line(ctx)
	if err != nil {
		return 0, errors.New(printable(err.Error()))
	}
	figure, err = strconv.ParseFloat(line, 64)
	if err != nil || math.IsNaN(figure) || math.IsInf(figure, 0) {
		return 0, fmt.Errorf(`"%s" is no figure`, printable(line))
	}
	return figure, nil
}

// firstLine is the first line of a text that is not empty.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimLeft(string(text), "\r\n"), "\n")
	return strings.TrimSpace(line)
}
