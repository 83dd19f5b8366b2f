package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
)

// An actor is a gateway with what has happened to it, and so what the router has to
// have of it: a model that shares no code with the gateway.
type actor struct {
	*behind

	script              *script
	as                  int
	drained, down, mute bool // by the operator; the link; the link without a carrier lost
	ill                 bool // the service
	downSince           time.Time
	med, always         int // of all sets; VIPs that are announced in any case
	checked, lowered    int // VIPs that are withdrawn when the service is ill, and lowered
	gone                map[string]bool
}

// A script is random events that happen to gateways behind a router.
type script struct {
	*front

	random *rand.Rand
	actors []*actor
}

type gatewayAct struct {
	name   string
	weight int
	do     func(a *actor) bool
}

// gatewayActs are what can happen to a gateway. One that returns false cannot happen
// now, and has not. What heals happens more often than what breaks, so that most of
// the gateways announce something at any time.
var gatewayActs = []gatewayAct{
	{"the service fails", 1, func(a *actor) bool { return !a.ill && a.fall() }},
	{"the service recovers", 2, func(a *actor) bool { return a.ill && a.recover() }},
	{"drained", 1, func(a *actor) bool { return !a.drained && a.leave() }},
	{"undrained", 4, func(a *actor) bool { return a.drained && a.comeBack() }},
	{"killed and started", 1, (*actor).die},
	{"its speaker is killed", 1, (*actor).loseSpeaker},
	{"halts for a while", 1, (*actor).halt},
	{"the link goes down", 1, func(a *actor) bool { return !a.down && a.cut() }},
	{"the link comes up", 4, func(a *actor) bool { return a.down && a.join() }},
	{"the link loses everything", 1, func(a *actor) bool { return !a.mute && a.silence() }},
	{"the link is healed", 4, func(a *actor) bool { return a.mute && a.heal() }},
	{"other prefixes and another MED", 1, (*actor).reload},
}

// Whatever happens to gateways, in whatever order, the router comes to have exactly what
// they are to announce: prefixes, next hops, paths, MEDs and communities.
func TestGatewayScenario(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("RAZOR_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("RAZOR_SEED=%d", seed)
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := &script{front: newFront(t, file, "error wait time 1, 30", "error wait time 1, 1"), random: rand.New(rand.NewPCG(seed, 0))}
			for range rounds(3, 8) {
				s.add()
			}
			s.agrees()
			for i := range rounds(15, 200) {
				s.happens(i)
				if s.random.IntN(4) == 0 {
					s.agrees()
				}
			}
			s.heals()
			s.agrees()
		})
	}
}

// add starts a further gateway.
func (s *script) add() {
	s.t.Helper()
	n := len(s.actors) + 1
	way := asGuest
	if n <= 2 {
		way = []string{byPassword, byAddress}[n-1]
	}
	a := &actor{script: s, as: 4_210_000_000 + n, gone: map[string]bool{}}
	a.choose()
	a.behind = s.gateway(fmt.Sprintf("as: %d\n  hold: 3s\n  keepalive: 1s\n  graceful_restart: 5s\n  ", a.as)+way, a.announcements())
	s.actors = append(s.actors, a)
}

// happens has one event happen.
func (s *script) happens(i int) {
	s.t.Helper()
	for {
		a, n := s.actors[s.random.IntN(len(s.actors))], s.random.IntN(weights())
		act := slices.IndexFunc(gatewayActs, func(act gatewayAct) bool { n -= act.weight; return n < 0 })
		if gatewayActs[act].do(a) {
			s.t.Logf("event %d: %s: %s", i+1, a.node.Name, gatewayActs[act].name)
			return
		}
	}
}

func weights() int {
	n := 0
	for _, act := range gatewayActs {
		n += act.weight
	}
	return n
}

// heals ends all that is not as it should be.
func (s *script) heals() {
	s.t.Helper()
	for _, a := range s.actors {
		_ = a.ill && a.recover()
		_ = a.drained && a.comeBack()
		_ = a.down && a.join()
		_ = a.mute && a.heal()
	}
}

// pause is a random time, the same with the same seed.
func (s *script) pause() { time.Sleep(time.Duration(s.random.IntN(600)) * time.Millisecond) }

// choose has the gateway announce other VIPs.
func (a *actor) choose() {
	a.always, a.checked, a.lowered = 1+a.script.random.IntN(4), 1+a.script.random.IntN(4), 1+a.script.random.IntN(4)
	a.med = a.script.random.IntN(3)
}

// The VIPs of the sets: the first so many from these on, of both families.
const (
	alwaysFrom, checkedFrom, loweredFrom = 10, 20, 30
)

func vipsFrom(first, count int) []string {
	var out []string
	for i := first; i < first+count; i++ {
		out = append(out, fmt.Sprintf("198.51.100.%d/32", i), fmt.Sprintf("2001:db8:ffff::%d/128", i))
	}
	return out
}

// announcements is what is to be announced, as an operator writes it.
func (a *actor) announcements() string {
	quoted := func(first, count int) string { return `"` + strings.Join(vipsFrom(first, count), `", "`) + `"` }
	return fmt.Sprintf(`
drain: {converge: 300ms, settle: 100ms}
probes:
  - {name: service, kind: exec, command: [/usr/bin/test, -e, $SERVICE], interval: 200ms, fall: 2, hold_down: 20ms}
announce:
  - {from: node}
  - {set: always, prefixes: [%s], med: %d, communities: ["65000:1"]}
  - {set: checked, prefixes: [%s], med: %[2]d, when: service, floor: 0, prepend: 1}
  - {set: lowered, prefixes: [%[4]s], med: %[2]d, when: service, withdraw_after: never, communities: ["4200000000:1:2", "65000:2"]}
`, quoted(alwaysFrom, a.always), a.med, quoted(checkedFrom, a.checked), quoted(loweredFrom, a.lowered))
}

// routes are what the router has to have of the gateway.
func (a *actor) routes() []string {
	if a.drained || a.down || a.mute {
		return nil
	}
	route := func(prefix string, prepend int, attributes string) string {
		return fmt.Sprintf("%s via %s path%s%s", prefix, a.address, strings.Repeat(fmt.Sprint(" ", a.as), 1+prepend), attributes)
	}
	out := []string{route(nodePrefix(a.number).String(), 0, "")}
	for _, p := range vipsFrom(alwaysFrom, a.always) {
		out = append(out, route(p, 0, fmt.Sprintf(" med %d community 65000:1", a.med)))
	}
	for _, p := range vipsFrom(checkedFrom, a.checked) {
		if !a.ill {
			out = append(out, route(p, 1, fmt.Sprintf(" med %d", a.med)))
		}
	}
	for _, p := range vipsFrom(loweredFrom, a.lowered) {
		switch {
		case !a.ill:
			out = append(out, route(p, 0, fmt.Sprintf(" med %d community 65000:2 large 4200000000:1:2", a.med)))
		case !a.gone[p]:
			out = append(out, route(p, 3, fmt.Sprintf(" med %d community 65000:2 65535:0 large 4200000000:1:2", a.med)))
		}
	}
	return out
}

// withdrawn notes that what is not lowered yet will not be announced before the service
// is well: nobody is the last to announce what nobody announced.
func (a *actor) withdrawn() {
	for _, p := range vipsFrom(loweredFrom, 4) {
		a.gone[p] = true
	}
}

func (a *actor) fall() bool {
	a.ill = true
	clear(a.gone)
	if a.drained {
		a.withdrawn()
	}
	a.serve(a.tb, false)
	a.knows()
	return true
}

func (a *actor) recover() bool {
	a.ill = false
	a.serve(a.tb, true)
	a.knows()
	return true
}

// knows waits until the gateway has noticed how the service is: what it would have been
// shortly before does not count.
func (a *actor) knows() {
	a.tb.Helper()
	want := "up"
	if a.ill {
		want = "down"
	}
	a.until("it knows its service", func(s gateway.Status) bool { return len(s.Probes) == 1 && s.Probes[0].Health == want })
}

func (a *actor) leave() bool {
	a.drained = true
	a.withdrawn()
	if _, err := gateway.DrainLive(a.tb.Context(), a.stateDir(), "maintenance"); err != nil {
		a.tb.Error(err)
	}
	return true
}

func (a *actor) comeBack() bool {
	a.drained = false
	a.undrain()
	return true
}

func (a *actor) die() bool {
	a.withdrawn()
	a.Kill()
	a.script.pause()
	a.start()
	a.knows()
	return true
}

func (a *actor) loseSpeaker() bool {
	for _, pid := range a.speakers() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // or it has just ended
	}
	return true
}

func (a *actor) halt() bool {
	a.Stop()
	a.script.pause()
	a.Continue()
	return true
}

func (a *actor) cut() bool {
	a.down, a.downSince = true, time.Now()
	a.link.Down()
	return true
}

func (a *actor) join() bool {
	a.down = false
	time.Sleep(time.Until(a.downSince.Add(1500 * time.Millisecond))) // see longDown
	a.link.Up()
	return true
}

func (a *actor) silence() bool {
	a.mute = true
	a.link.Drop()
	return true
}

func (a *actor) heal() bool {
	a.mute = false
	a.link.Heal()
	return true
}

func (a *actor) reload() bool {
	before := a.lowered
	a.choose()
	for i, p := range vipsFrom(loweredFrom, 4) {
		if i/2 >= min(before, a.lowered) {
			a.gone[p] = true
		}
	}
	a.configure(a.section(a.announcements()))
	a.Signal(syscall.SIGHUP)
	a.until("it has the new configuration", func(s gateway.Status) bool {
		return len(s.Announcements) == 1+2*(a.always+a.checked+a.lowered)
	})
	return true
}

// agrees waits until the router has what it is to have, and nothing else.
func (s *script) agrees() {
	s.t.Helper()
	var want, got []string
	for _, a := range s.actors {
		want = append(want, a.routes()...)
	}
	slices.Sort(want)
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = s.routes(); slices.Equal(got, want) {
			s.t.Logf("the router has all %d routes", len(want))
			return
		}
	}
	s.t.Fatalf("the router lacks\n%s\nand has\n%s", strings.Join(beside(want, got), "\n"), strings.Join(beside(got, want), "\n"))
}

func beside(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(others, s) })
}

// routes are what the router has been told, sorted: prefix, next hop and attributes.
func (f *front) routes() []string {
	f.t.Helper()
	out := map[string]bool{}
	if f.bird != nil {
		birdRoutes(f.bird.Birdc("show route all"), out)
	} else {
		f.frrRoutes("ipv4", out)
		f.frrRoutes("ipv6", out)
	}
	return slices.Sorted(maps.Keys(out))
}

// frrRoutes reads what FRR has of a family. The first of a prefix says nothing of it.
func (f *front) frrRoutes(family string, out map[string]bool) {
	f.t.Helper()
	type list struct{ String string }
	var said struct {
		Routes map[string][]struct {
			AsPath                    list
			Metric                    *int
			Community, LargeCommunity list
			NextHops                  []struct{ IP string }
		}
	}
	f.frr.JSON("show bgp "+family+" unicast json detail", &said)
	for prefix, routes := range said.Routes {
		for _, r := range routes {
			if r.NextHops == nil {
				continue
			}
			text := prefix + " via " + r.NextHops[0].IP + " path " + r.AsPath.String
			if r.Metric != nil {
				text += fmt.Sprint(" med ", *r.Metric)
			}
			out[text+communities(strings.ReplaceAll(r.Community.String, "graceful-shutdown", "65535:0"), r.LargeCommunity.String)] = true
		}
	}
}

// communities are sorted.
func communities(plain, large string) string {
	words := func(label, text string) string {
		if text == "" {
			return ""
		}
		return " " + label + " " + strings.Join(slices.Sorted(slices.Values(strings.Fields(text))), " ")
	}
	return words("community", plain) + words("large", large)
}

// birdRoutes reads what BIRD has: a line with the prefix, unless it is that of the
// route before, and then a line for each attribute.
func birdRoutes(said string, out map[string]bool) {
	var prefix string
	var route map[string]string
	note := func() {
		if route["BGP.as_path"] == "" {
			return
		}
		text := prefix + " via " + route["BGP.next_hop"] + " path " + route["BGP.as_path"]
		if med := route["BGP.med"]; med != "" {
			text += " med " + med
		}
		plain := strings.NewReplacer("(", "", ")", "", ",", ":")
		large := strings.NewReplacer("(", "", ")", "", ", ", ":")
		out[text+communities(plain.Replace(route["BGP.community"]), large.Replace(route["BGP.large_community"]))] = true
	}
	for line := range strings.Lines(said) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.HasPrefix(line, "\t") {
			route[key] = strings.TrimSpace(value)
			continue
		}
		if strings.HasPrefix(line, "\t") {
			continue
		}
		note()
		route = map[string]string{}
		if p, err := netip.ParsePrefix(strings.Split(line, " ")[0]); err == nil {
			prefix = p.String()
		}
	}
	note()
}
