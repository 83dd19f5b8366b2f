package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// defaultConfig is where the configuration is looked for without --config.
const defaultConfig = "/etc/razor/razor.yaml"

// config is the configuration file: one section per role, and what all of them
// share. Every setting is checked and has its value once loadConfig returned it.
type config struct {
	DNS     razor.Config     `yaml:"dns"`
	Redis   upstreams.Config `yaml:"redis"`
	Sync    consul.Config    `yaml:"sync"`
	Gateway gateway.Config   `yaml:"gateway"`
	Agent   agent.Config     `yaml:"agent"`
	HTTP    httpConfig       `yaml:"http"`
	Log     logConfig        `yaml:"log"`

	file source
}

// logConfig is the `log:` section.
type logConfig struct {
	// Level is the least severe level that is written: debug, info, warn, error.
	Level string `yaml:"level"`
	// Format is text or json.
	Format string `yaml:"format"`
}

func (c *logConfig) defaults() {
	if c.Level == "" {
		c.Level = "info"
	}
	if c.Format == "" {
		c.Format = "text"
	}
}

func (c *logConfig) check() []upstreams.Defect {
	var out []upstreams.Defect
	if _, ok := levels[c.Level]; !ok {
		out = append(out, upstreams.Defect{Key: "log.level", Member: c.Level, Reason: "unknown", Want: "debug, info, warn or error"})
	}
	if c.Format != "text" && c.Format != "json" {
		out = append(out, upstreams.Defect{Key: "log.format", Member: c.Format, Reason: "unknown", Want: "text or json"})
	}
	return out
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// logger writes to w as the section says.
func (c *logConfig) logger(w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: levels[c.Level]}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// loadConfig reads the file called name. Its error is one line for each
// problem, each with the file, the line and what would be right.
func loadConfig(name string) (*config, error) {
	data, err := readConfig(name)
	if err != nil {
		return nil, err
	}
	return parseConfig(name, data)
}

func readConfig(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(name + ": no such file; want the configuration there, or --config with its place")
	}
	if err != nil {
		return nil, unreadable(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, unreadable(name, err)
	}
	if len(data) > maxConfig {
		return nil, fileError(fmt.Sprintf("%s: larger than %d KiB; want a configuration file", name, maxConfig>>10))
	}
	return data, nil
}

func unreadable(name string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fileError(fmt.Sprintf("%s: %v; want a readable configuration file", name, err))
}

// parseConfig is loadConfig after the file was read.
func parseConfig(name string, data []byte) (*config, error) {
	c, r := &config{}, &reader{}
	r.read(data, c)
	c.file = source{name: name, lines: r.lines}
	if c.DNS.Listen != nil && len(c.DNS.Listen) == 0 {
		r.add(r.lines["dns.listen"], "dns.listen", "", "empty", "an address, or no such key for the default")
	}
	for _, d := range c.check() {
		if r.has(d.Key) {
			continue // what could not be read needs no second complaint
		}
		r.problems = append(r.problems, problem{nearestLine(r.lines, d.Key), d})
	}
	if len(r.problems) > 0 {
		return nil, c.file.all(r.problems)
	}
	return c, nil
}

// readYAML reads what is configured elsewhere than in the file as the file is read.
func readYAML(data []byte, into any) (out []upstreams.Defect) {
	if len(data) > maxConfig {
		return []upstreams.Defect{{Reason: fmt.Sprintf("larger than %d KiB", maxConfig>>10), Want: "what the configuration would have"}}
	}
	r := &reader{}
	r.read(data, into)
	for _, p := range r.problems {
		out = append(out, p.Defect)
	}
	return out
}

// check fills in the defaults and lists what is wrong with the values.
func (c *config) check() []upstreams.Defect {
	c.DNS.Defaults()
	c.Redis.Defaults()
	c.Sync.Defaults()
	c.Gateway.Defaults()
	c.Agent.Defaults()
	c.HTTP.defaults()
	c.Log.defaults()
	out := c.DNS.Check()
	out = append(out, c.Redis.Check("redis")...)
	out = append(out, c.Sync.Check()...)
	if c.Gateway.Used() {
		out = append(out, c.Gateway.Check()...)
	}
	if c.Agent.Used() {
		out = append(out, c.Agent.Check()...)
	}
	out = append(out, c.HTTP.check(c.DNS.Listen)...)
	return append(out, c.Log.check()...)
}

// answersDNS tells whether the file is, as far as it tells, for a nameserver: its section
// may be missing, but not where there is another role's.
func (c *config) answersDNS() bool {
	_, said := c.file.lines["dns"]
	return said || !c.Gateway.Used() && !c.Agent.Used() && len(c.Sync.Lists) == 0
}

// A source knows on which line of a file each setting is.
type source struct {
	name  string
	lines map[string]int
}

// A fileError is problems of a file, one line each, that begin with its name.
type fileError string

func (e fileError) Error() string { return string(e) }

// explain makes errors of settings (defects whose key is a path in the file)
// lines that begin with file and line. Other errors stay as they are.
func (s source) explain(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, s.explain(e))
		}
		return errors.Join(out...)
	}
	if d, ok := errors.AsType[upstreams.Defect](err); ok {
		return fileError(s.line(problem{nearestLine(s.lines, d.Key), d}))
	}
	return err
}

// all is one error with a line for each problem, in the order of the file.
func (s source) all(problems []problem) error {
	byLine(problems)
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = s.line(p)
	}
	return fileError(strings.Join(lines, "\n"))
}

func (s source) line(p problem) string {
	text := strings.TrimPrefix(p.String(), ": ") // problems of the whole file have no key
	if p.line == 0 {
		return s.name + ": " + text
	}
	return fmt.Sprintf("%s:%d: %s", s.name, p.line, text)
}
