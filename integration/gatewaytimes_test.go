package integration

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
)

// gatewayEvent is something after which the router uses one of two gateways no longer,
// and its end, after which it does again.
type gatewayEvent struct {
	name    string
	off     bool // of the gateway without graceful restart: its routes would stay
	noticed bool // by BFD, which has to run before
	happen  func(g *behind)
	wait    func(g *behind) // for its end to make sense; may be nil
	end     func(g *behind)
}

var gatewayEvents = []gatewayEvent{
	{name: "kill -9, graceful restart off", off: true, happen: func(g *behind) { g.Kill() }, end: func(g *behind) { g.start() }},
	{name: "drain", happen: (*behind).beginDrain, wait: (*behind).awaitDrained, end: (*behind).undrain},
	{
		name:   "service down, which 2 probes notice, 100 ms apart",
		happen: func(g *behind) { g.serve(g.tb, false) }, end: func(g *behind) { g.serve(g.tb, true) },
	},
	{
		name: "silent link, BFD 3 × 100 ms", noticed: true,
		happen: func(g *behind) { g.link.Drop() }, end: func(g *behind) { g.link.Heal() },
	},
	{
		name: "silent process, BFD 3 × 100 ms", noticed: true,
		happen: func(g *behind) { g.Stop() }, end: func(g *behind) { g.Continue() },
	},
	{name: "link down", noticed: true, happen: func(g *behind) { g.link.Down() }, wait: longDown, end: func(g *behind) { g.link.Up() }},
}

// longDown waits: FRR before 9.0 does not tell the kernel of a hop again as long as it
// keeps the group that the kernel has taken it out of, a second in the examples.
func longDown(*behind) { time.Sleep(1500 * time.Millisecond) }

// beginDrain drains the gateway, and does not wait for it.
func (g *behind) beginDrain() {
	go func() { _, _ = gateway.DrainLive(g.tb.Context(), g.stateDir(), "") }()
}

func (g *behind) awaitDrained() {
	g.tb.Helper()
	g.until("drained", func(s gateway.Status) bool { return s.Stage == "drained" && s.Peers[0].State == "idle" })
}

func (g *behind) undrain() {
	g.tb.Helper()
	if _, err := gateway.UndrainLive(g.tb.Context(), g.stateDir()); err != nil {
		g.tb.Error(err)
	}
}

const timesSection = `
drain: {converge: 500ms, settle: 100ms}
probes:
  - {name: service, kind: exec, command: [/usr/bin/test, -e, $SERVICE], interval: 100ms, fall: 2, hold_down: 100ms}
announce:
  - {set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1"], bind: true, when: service, floor: 0}
`

// How long it takes from an event until the router has changed the last of its routes,
// and from the end of the event until it has again: a table with what is usual, and
// the most.
func TestGatewayTimes(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			// BIRD waits longer after each error of a peer: not after each round.
			f := newFront(t, file, "error wait time 1, 30", "error wait time 1, 1")
			f.gateway(strings.Replace(byPassword, "}]", ", graceful_restart: off}]", 1), timesSection)
			f.gateway(byAddress, timesSection)
			var rows []string
			for _, e := range gatewayEvents {
				g, other := f.gateways[1], f.gateways[0]
				if e.off {
					g, other = other, g
				}
				var gone, back []time.Duration
				for range rounds(1, 20) {
					f.until(f.devices(), vip4, vip6)
					f.lab.Eventually("BFD", func() bool { return !e.noticed || f.watches(g, 100*time.Millisecond) })
					from := time.Now()
					e.happen(g)
					gone = append(gone, f.until([]string{other.link.A.Device}, vip4, vip6).Sub(from))
					if e.wait != nil {
						e.wait(g)
					}
					from = time.Now()
					e.end(g)
					back = append(back, f.until(f.devices(), vip4, vip6).Sub(from))
				}
				rows = append(rows, fmt.Sprintf("| %s | %s | %s |", e.name, usualAndMost(gone), usualAndMost(back)))
			}
			t.Log("\n| event | gone, median and most | back |\n|---|---|---|\n" + strings.Join(rows, "\n"))
		})
	}
}

func usualAndMost(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprint(took[len(took)/2].Round(time.Millisecond), ", ", took[len(took)-1].Round(time.Millisecond))
}

// watches tells whether the router and the gateway watch the path between them with
// three packets of an interval: BFD begins slowly.
func (f *front) watches(g *behind, interval time.Duration) bool {
	f.t.Helper()
	s := g.status()
	if len(s.Peers) != 1 || s.Peers[0].BFD == nil || s.Peers[0].BFD.Detection != (3*interval).Seconds() {
		return false
	}
	if f.bird != nil {
		for line := range strings.Lines(f.bird.Birdc("show bfd sessions")) {
			words := strings.Fields(line)
			if len(words) > 5 && words[0] == g.address {
				// The clock of BIRD wanders by a millisecond.
				timeout, err := strconv.ParseFloat(words[5], 64)
				return words[2] == "Up" && err == nil && math.Abs(timeout-(3*interval).Seconds()) < interval.Seconds()/10
			}
		}
		return false
	}
	var sessions []struct {
		Peer   string
		Status string
		Remote int64 `json:"remote-transmit-interval"`
	}
	f.frr.JSON("show bfd peers json", &sessions)
	for _, s := range sessions {
		if s.Peer == g.address {
			return s.Status == "up" && s.Remote == interval.Milliseconds()
		}
	}
	return false
}
