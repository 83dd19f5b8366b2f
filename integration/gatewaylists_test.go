package integration

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/redistest"
)

// startLists runs a Redis that every node reaches, by a socket in the file system, and
// returns it with the sections of the configuration that name it.
func (u *uplink) startLists() (s *redistest.Server, sections string) {
	u.t.Helper()
	socket := filepath.Join(u.lab.Dir, "redis.sock")
	s = redistest.Start(u.t, "--unixsocket", socket)
	return s, "redis: {address: \"unix://" + socket + "\"}\ndns: {zones: [z.example]}\n"
}

// configureWith is configure with further sections.
func (a *announcer) configureWith(section, sections string) {
	a.tb.Helper()
	a.configure(section)
	text, err := os.ReadFile(a.config)
	if err != nil {
		a.tb.Fatal(err)
	}
	if err := os.WriteFile(a.config, append(text, sections...), 0o644); err != nil {
		a.tb.Fatal(err)
	}
}

func startGatewayWith(tb testing.TB, node *netlab.Node, section, sections string) *announcer {
	tb.Helper()
	a := &announcer{tb: tb, node: node, config: filepath.Join(node.Dir, "razor.yaml")}
	a.configureWith(section, sections)
	a.start()
	return a
}

func (a *announcer) untilStatus(what string, ok func(gateway.Status) bool) {
	a.tb.Helper()
	a.eventually(what, func() bool { return ok(a.status()) })
}

// metrics is what the gateway has at /metrics.
func (a *announcer) metrics() string {
	c, err := a.node.Dial(a.tb.Context(), "tcp", "[::1]:8055")
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n")
	text, _ := io.ReadAll(c)
	return string(text)
}

// TestGatewayLists: the pool and the state of the edge are obeyed within moments, and
// whatever happens to Redis takes nothing from the net.
func TestGatewayLists(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	redis, sections := u.startLists()
	fillLists := func() {
		redis.DoArgs("HSET", "z.example:CONFIG", "SOA", "ns. host. 1 2 3 4 5", "TTL", "1")
		redis.Do("SADD all.z.example:EDGES edge1 edge2")
		redis.Do("SADD edge2:A 198.51.100.200")
		redis.Do("SADD edge2:AAAA 2001:db8:ffff::200")
		redis.Do("SADD edge1:A 198.51.100.1 203.0.113.1")
		redis.Do("SADD edge1:AAAA 2001:db8:ffff::1")
	}
	fillLists()
	section := uplinkPeer + `
name: Edge1.
lists: true
allowed: [198.51.100.0/24, "2001:db8:ffff::/48"]
announce: [{from: pool, bind: true}]
`
	g := startGatewayWith(t, u.gw, section, sections)
	u.until([]string{one4, one6})
	g.untilStatus("the refused member", func(s gateway.Status) bool {
		return slices.Equal(s.Refused, []string{"203.0.113.1/32: outside of gateway.allowed"})
	})
	g.untilLog(`level=ERROR msg="members of lists must not be announced" members="203.0.113.1/32: outside of gateway.allowed"`)
	if said := g.metrics(); !strings.Contains(said, "\nrazor_gateway_members_refused 1\n") {
		t.Error(said)
	}

	// Edits.
	redis.Do("SADD edge1:A 198.51.100.2")
	u.until([]string{one4, two4, one6})
	redis.Do("SREM edge1:A 198.51.100.2 203.0.113.1")
	u.until([]string{one4, one6}, two4)
	g.untilStatus("no refused member", func(s gateway.Status) bool { return len(s.Refused) == 0 })

	// The state, by hand and by the command.
	redis.Do("SET edge1:STATE draining")
	u.until(nil, one4, one6)
	g.untilStatus("drained", func(s gateway.Status) bool {
		return s.Stage == "drained" && s.Drained == "Edge1.:STATE is draining"
	})
	redis.Do("SET edge1:STATE active")
	u.until([]string{one4, one6})
	if said, err := g.razor("drain", "gateway", "edge1"); err != nil || !strings.HasPrefix(said, "edge1 is draining since ") {
		t.Errorf("drain: %v: %s", err, said)
	}
	u.until(nil, one4, one6)
	if said, err := g.razor("undrain", "gateway"); err != nil || said != "still drained: Edge1.:STATE is draining\n" {
		t.Errorf("undrain of what the lists drain: %v: %s", err, said)
	}
	if said, err := g.razor("undrain", "gateway", "edge1"); err != nil || !strings.HasPrefix(said, "edge1 is active since ") {
		t.Errorf("undrain: %v: %s", err, said)
	}
	u.until([]string{one4, one6})
	from := u.now()

	// Faults.
	redis.Do("FLUSHALL")
	g.untilStatus("a hold", func(s gateway.Status) bool { return s.Lists.Hold != "" })
	fillLists()
	g.untilStatus("the end of the hold", func(s gateway.Status) bool { return s.Lists.Hold == "" && s.Lists.Link == "tracking" })
	redis.Kill()
	g.untilStatus("that Redis is away", func(s gateway.Status) bool { return s.Lists.Link == "down" })
	if said, err := g.razor("status"); err != nil || !strings.Contains(said, "\nlists: redis does not answer, going by those of 20") {
		t.Errorf("%v\n%s", err, said)
	}
	u.sessions = u.session().ConnectionsEstablished
	if said, err := g.razor("restart", "gateway"); err != nil {
		t.Errorf("restart: %v: %s", err, said)
	}
	u.nextSession()
	g.Kill()
	g.start()
	u.nextSession()
	redis.Restart() // with nothing in it
	g.untilStatus("another hold", func(s gateway.Status) bool { return s.Lists != nil && s.Lists.Hold != "" })
	fillLists()
	g.untilStatus("the end of the other hold", func(s gateway.Status) bool { return s.Lists.Hold == "" })
	u.keeps(from, one4, one6)

	// What stands in the pool and is not announced is found before it is live.
	redis.Do("SREM edge1:A 203.0.113.1")
	said, err := g.razor("check")
	if err != nil {
		t.Errorf("check of a good pool: %v: %s", err, said)
	}
	redis.Do("SADD edge1:A 203.0.113.1")
	if said, err := g.razor("check"); err == nil || !strings.Contains(said, "redis: Edge1:A: \"203.0.113.1\": outside of gateway.allowed; want a prefix inside of it\n") {
		t.Errorf("check: %v: %s", err, said)
	}
}

// blackholed tells whether the router discards what is sent to a prefix.
func blackholed(f netlab.FIB, prefix string) bool {
	return fmt.Sprint(f[netip.MustParsePrefix(prefix)]) == "[blackhole]"
}

// TestGatewayBlackholes: attacked addresses are discarded by the example router, and
// nobody else hears of it.
func TestGatewayBlackholes(t *testing.T) {
	t.Parallel()
	u := &uplink{t: t, lab: netlab.New(t), peer: "2001:db8:0:1::2"}
	u.tor, u.gw = u.lab.Node("tor"), u.lab.Node("gw")
	other := u.lab.Node("other")
	u.lab.Link(u.tor, "swp1", u.gw, "eth0", "2001:db8:0:1::1/64")
	u.lab.Link(other, "swp1", u.gw, "eth1", "2001:db8:0:9::1/64")
	u.frr = u.tor.StartFRR("../deploy/routers/frr-tor.conf")
	u.fib = u.tor.WatchFIB()
	second := &uplink{t: t, lab: u.lab, tor: other, frr: other.StartFRR(strings.ReplaceAll(uplinkTor, ":0:1:", ":0:9:")), fib: other.WatchFIB(), peer: "2001:db8:0:9::2"}
	redis, sections := u.startLists()
	redis.DoArgs("HSET", "z.example:CONFIG", "SOA", "ns. host. 1 2 3 4 5")
	section := func(blackhole string) string {
		return `
name: edge1
lists: true
allowed: [198.51.100.0/24, "2001:db8:ffff::/48"]
bgp:
  as: 4200000901
  node: "2001:db8:0:1::/64"
  peers:
    - {name: tor, address: "2001:db8:0:1::1", password: change-me, ttl_security: 1, blackhole: true}
    - {name: other, address: "2001:db8:0:9::1"}
announce: [{set: vips, prefixes: [198.51.100.1, 198.51.100.2, "2001:db8:ffff::1"]}]
blackhole: {` + blackhole + `}
`
	}
	g := startGatewayWith(t, u.gw, section("limit: 2"), sections)
	vips := []string{one4, two4, one6}
	u.until(vips)
	second.until(vips)
	from := second.now()
	discards := func(prefixes ...string) {
		t.Helper()
		u.fib.Until(fmt.Sprintf("%v to be discarded", prefixes), func(f netlab.FIB) bool {
			for _, p := range append([]string{"198.51.100.77/32"}, vips...) {
				if blackholed(f, p) != slices.Contains(prefixes, p) {
					return false
				}
			}
			return true
		})
	}

	// It comes and goes with the member.
	redis.Do("SADD z.example:A:BLACKHOLE 198.51.100.2")
	discards(two4)
	u.untilRoute(two4, "blackhole", "no-export")
	redis.Do("SADD z.example:AAAA:BLACKHOLE 2001:db8:ffff::1")
	discards(two4, one6)
	redis.Do("DEL z.example:A:BLACKHOLE z.example:AAAA:BLACKHOLE")
	discards()
	u.until(vips)
	g.untilLog(`msg="blackhole ended" prefix=198.51.100.2/32 reason="no longer in the lists"`)

	// Also one that nobody announces; and it ends by itself.
	redis.DoArgs("SADD", "z.example:A:BLACKHOLE", "198.51.100.77 until="+time.Now().Add(4*time.Second).UTC().Format(time.RFC3339))
	discards("198.51.100.77/32")
	discards()
	redis.Do("DEL z.example:A:BLACKHOLE")

	// The limit: those that came first stay.
	redis.Do("SADD z.example:A:BLACKHOLE 198.51.100.2")
	discards(two4)
	redis.Do("SADD z.example:A:BLACKHOLE 198.51.100.77")
	discards(two4, "198.51.100.77/32")
	redis.Do("SADD z.example:A:BLACKHOLE 198.51.100.1 203.0.113.9")
	g.untilLog(`msg="more blackholes than gateway.blackhole.limit, the later ones are not announced" not_announced=1 limit=2`)
	g.eventually("the metrics", func() bool {
		said := g.metrics()
		return strings.Contains(said, "\nrazor_gateway_blackholes 2\n") && strings.Contains(said, "\nrazor_gateway_blackholes_refused 1\n")
	})
	discards(two4, "198.51.100.77/32")
	if said, err := g.razor("status"); err != nil || !regexp.MustCompile(`(?m)^198\.51\.100\.77/32 +blackhole +announced +[0-9.m]+s +until 20`).MatchString(said) {
		t.Errorf("%v\n%s", err, said)
	}

	// A flush takes no blackhole away, and the longest time ends it all the same.
	redis.Do("FLUSHALL")
	g.untilStatus("a hold", func(s gateway.Status) bool { return s.Lists.Hold != "" && len(s.Blackholes) == 2 })
	sessions := second.session().ConnectionsEstablished
	g.configureWith(section("longest: 1s"), sections)
	g.Signal(syscall.SIGHUP)
	discards()
	g.untilLog(`reason="its time is over"`)
	u.until(vips)

	second.keeps(from, vips...)
	if n := second.session().ConnectionsEstablished; n != sessions {
		t.Errorf("%d sessions", n-sessions)
	}
	for _, c := range second.fib.Changes() {
		if _, ok := c.FIB[netip.MustParsePrefix("198.51.100.77/32")]; ok {
			t.Error("a peer that takes no blackholes was told of one")
		}
	}
}

// TestGatewayHealth: nothing is announced before the first result, and what is down is
// lowered first.
func TestGatewayHealth(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	flag := filepath.Join(u.gw.Dir, "well")
	g := startGateway(t, u.gw, uplinkPeer+fmt.Sprintf(`
announce:
  - {set: alone, prefixes: [198.51.100.1], when: well, withdraw_after: 3s}
  - {set: quick, prefixes: [198.51.100.2], when: well, floor: 0}
  - {set: kept, prefixes: ["2001:db8:ffff::1"], when: well, withdraw_after: never}
probes: [{name: well, kind: exec, command: [/bin/sh, -c, "test ! -e %s.hangs || sleep 1h; test -e %s"], interval: 200ms, hold_down: 100ms}]
`, flag, flag))
	u.nextSession()
	g.untilStatus("a result", func(s gateway.Status) bool { return len(s.Probes) == 1 && s.Probes[0].Health == "down" })
	u.until(nil, one4, two4, one6)
	u.gw.Run("touch", flag)
	u.until([]string{one4, two4, one6})
	if len(u.fib.Changes()[0].FIB.Devices(one4)) > 0 {
		t.Error("announced before it was well")
	}

	// The service is gone.
	u.gw.Run("rm", flag)
	u.until([]string{one6}, two4)
	u.untilRoute(one6, "graceful-shutdown")
	u.until([]string{one6}, one4, two4)
	u.untilRoute(one6, "graceful-shutdown")
	as := fmt.Sprint(u.session().RemoteAs)
	u.untilRoute(one6, strings.TrimSpace(strings.Repeat(as+" ", 4)))
	g.untilLog(`state=lowered prefixes=198.51.100.1/32 set=alone reason="failed 3 times: `)
	g.untilLog("nobody else was seen to announce it")
	g.eventually("the metric", func() bool {
		return strings.Contains(g.metrics(), "\nrazor_gateway_withdrawals_total{reason=\"health\"} 2\n")
	})
	u.gw.Run("touch", flag)
	u.until([]string{one4, two4, one6})
	g.eventually("the end of the lowering", func() bool { return !strings.Contains(u.route(one6), "graceful-shutdown") })

	// The check hangs.
	u.gw.Run("touch", flag+".hangs")
	u.until([]string{one6}, one4, two4)
}
