package gateway

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
)

// Diff writes what a new configuration would announce and withdraw, and whom it
// would speak to, a line each, if all probes are up: "+" for what is new, "-" for
// what goes, "~" for what changes. Both have been checked. What comes from Redis is
// named, not read.
func Diff(was, next *Config, host Host, w io.Writer) error {
	var lines []string
	lines = append(lines, diffPeers(was, next)...)
	before, after := was.best(host), next.best(host)
	prefixes := map[netip.Prefix]bool{}
	for p := range before {
		prefixes[p] = true
	}
	for p := range after {
		prefixes[p] = true
	}
	for _, p := range slices.SortedFunc(maps.Keys(prefixes), bgp.ComparePrefixes) {
		switch a, b := before[p], after[p]; {
		case a == "":
			lines = append(lines, "+ "+p.String()+" "+b)
		case b == "":
			lines = append(lines, "- "+p.String()+" "+a)
		case a != b:
			lines = append(lines, "~ "+p.String()+" "+a+" -> "+b)
		}
	}
	if was.usesPool() != next.usesPool() {
		lines = append(lines, sign(next.usesPool())+" pool of "+next.Name+" in redis")
	}
	if was.needsRestart(next) {
		lines = append(lines, "the gateway has to restart; the peers keep the routes where graceful_restart is not off")
	}
	if len(lines) == 0 {
		lines = []string{"nothing else would be announced"}
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

func sign(now bool) string {
	if now {
		return "+"
	}
	return "-"
}

func (c *Config) usesPool() bool {
	return slices.ContainsFunc(c.Announce, func(s SetConfig) bool { return s.From == fromPool })
}

func diffPeers(was, next *Config) []string {
	var out []string
	before, after := peersOf(was), peersOf(next)
	names := map[string]bool{}
	for n := range before {
		names[n] = true
	}
	for n := range after {
		names[n] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		switch a, b := before[n], after[n]; {
		case a == "":
			out = append(out, "+ peer "+n+" "+b)
		case b == "":
			out = append(out, "- peer "+n+" "+a)
		case a != b:
			out = append(out, "~ peer "+n+" "+a+" -> "+b)
		}
	}
	return out
}

// peersOf are the settings of all peers that a router sees.
func peersOf(c *Config) map[string]string {
	out := map[string]string{}
	for _, p := range c.BGP.AllPeers() {
		where := p.Address
		if where == "" {
			where = "unnumbered"
		}
		out[p.Name] = fmt.Sprintf("%s as=%s hold=%s graceful_restart=%s", where, p.AS, p.Hold, p.GracefulRestart)
		if p.BFD != nil {
			out[p.Name] += fmt.Sprintf(" bfd=%sx%d", p.BFD.Interval, p.BFD.Multiplier)
		}
	}
	return out
}

// best is what is announced when all is well: each prefix with its attributes in
// words.
func (c *Config) best(host Host) map[netip.Prefix]string {
	f := facts{now: time.Now(), health: map[string]steering.Damped{}}
	for _, p := range c.Probes {
		f.health[p.Name] = steering.Damped{Health: steering.HealthUp}
	}
	if id, err := c.identity().Identify("gateway.bgp", host); err == nil {
		f.node = id.Node
	}
	p := c.makePlan(f)
	sets := map[netip.Prefix]string{}
	for _, a := range p.announcements {
		sets[a.Prefix] = a.Set
	}
	out := map[netip.Prefix]string{}
	for _, r := range p.routes {
		out[r.Prefix] = "set=" + sets[r.Prefix] + r.String()
	}
	return out
}
