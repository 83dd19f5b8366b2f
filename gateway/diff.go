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
	lines := slices.Concat(
		differences(was.self(host), next.self(host), strings.Compare),
		differences(was.peers(), next.peers(), strings.Compare),
		differences(was.best(host), next.best(host), bgp.ComparePrefixes),
		differences(was.pools(), next.pools(), strings.Compare),
	)
	if was.needsRestart(next) {
		lines = append(lines, "the gateway has to restart; the peers keep the routes where graceful_restart is not off")
	}
	if len(lines) == 0 {
		lines = []string{"nothing else would be announced"}
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}

// self is who the gateway would be.
func (c *Config) self(host Host) map[string]string {
	id, err := c.identity().Identify("gateway.bgp", host)
	if err != nil {
		return map[string]string{"identity": err.Error()}
	}
	return map[string]string{"identity": id.String()}
}

func (c *Config) usesPool() bool { return len(c.pools()) > 0 }

// pools are the sets that come from the lists, with their attributes in words.
func (c *Config) pools() map[string]string {
	out := map[string]string{}
	for i := range c.Announce {
		if s := &c.Announce[i]; s.From == fromPool {
			out["pool of "+c.Name+" in redis"] = "set=" + s.Set + s.route().String()
		}
	}
	return out
}

// differences are a line for each name that has another text in after than in before.
func differences[K comparable](before, after map[K]string, compare func(a, b K) int) []string {
	names := maps.Clone(before)
	maps.Copy(names, after)
	var out []string
	for _, n := range slices.SortedFunc(maps.Keys(names), compare) {
		switch a, b := before[n], after[n]; {
		case a == "":
			out = append(out, fmt.Sprintf("+ %v %s", n, b))
		case b == "":
			out = append(out, fmt.Sprintf("- %v %s", n, a))
		case a != b:
			out = append(out, fmt.Sprintf("~ %v %s -> %s", n, a, b))
		}
	}
	return out
}

// peers are the settings of all peers that a router sees.
func (c *Config) peers() map[string]string {
	out := map[string]string{}
	for _, p := range c.BGP.AllPeers() {
		where := p.Address
		if where == "" {
			where = "unnumbered"
		}
		text := fmt.Sprintf("%s as=%s hold=%s graceful_restart=%s", where, p.AS, p.Hold, p.GracefulRestart)
		if p.BFD != nil {
			text += fmt.Sprintf(" bfd=%sx%d", p.BFD.Interval, p.BFD.Multiplier)
		}
		if p.Blackhole {
			text += " blackhole"
		}
		out["peer "+p.Name] = text
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
