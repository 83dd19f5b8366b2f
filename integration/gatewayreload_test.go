package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// uplink is a gateway with a router of FRR before it, which keeps the time:
//
//	tor ── swp1 ─── eth0 ── gw
type uplink struct {
	t   *testing.T
	lab *netlab.Lab
	tor *netlab.Node
	frr *netlab.FRR
	fib *netlab.FIBWatch
	gw  *netlab.Node

	peer     string // the gateway's address
	sessions int    // how many there were, when nextSession returned last
}

// uplinkTor takes what any gateway announces.
const uplinkTor = `
router bgp 4200000000
 bgp router-id 10.255.0.1
 bgp log-neighbor-changes
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor 2001:db8:0:1::2 remote-as external
 neighbor 2001:db8:0:1::2 timers 3 9
 neighbor 2001:db8:0:1::2 passive
 neighbor 2001:db8:0:1::2 capability extended-nexthop
 address-family ipv4 unicast
  neighbor 2001:db8:0:1::2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 2001:db8:0:1::2 activate
 exit-address-family
`

// uplinkPeer is the gateway's side of it.
const uplinkPeer = `
bgp:
  peers: [{name: tor, address: "2001:db8:0:1::1"}]
drain: {converge: 1s, settle: 100ms}
`

func newUplink(t *testing.T) *uplink {
	t.Helper()
	u := &uplink{t: t, lab: netlab.New(t), peer: "2001:db8:0:1::2"}
	u.tor, u.gw = u.lab.Node("tor"), u.lab.Node("gw")
	u.lab.Link(u.tor, "swp1", u.gw, "eth0", "2001:db8:0:1::1/64")
	u.frr = u.tor.StartFRR(uplinkTor)
	u.fib = u.tor.WatchFIB()
	return u
}

// until waits until the router forwards to some prefixes, and to others not.
func (u *uplink) until(there []string, gone ...string) time.Time {
	u.t.Helper()
	return u.fib.Until(fmt.Sprintf("%v to be there, and %v gone", there, gone), func(f netlab.FIB) bool {
		for _, p := range there {
			if !slices.Equal(f.Devices(p), []string{"swp1"}) {
				return false
			}
		}
		for _, p := range gone {
			if _, ok := f[netip.MustParsePrefix(p)]; ok {
				return false
			}
		}
		return true
	})
}

// keeps says that the router has forwarded to prefixes without a break since the
// change with a number.
func (u *uplink) keeps(since int, prefixes ...string) {
	u.t.Helper()
	for _, c := range u.fib.Changes()[since-1:] {
		for _, p := range prefixes {
			if !slices.Equal(c.FIB.Devices(p), []string{"swp1"}) {
				u.t.Fatalf("%s was at %v", p, c.FIB[netip.MustParsePrefix(p)])
			}
		}
	}
}

// now is the number of changes until now, for keeps.
func (u *uplink) now() int { return len(u.fib.Changes()) }

// session is what the router says of the gateway.
type session struct {
	BgpState               string `json:"bgpState"`
	ConnectionsEstablished int    `json:"connectionsEstablished"`
	LocalAs, RemoteAs      uint32
}

func (u *uplink) session() session {
	u.t.Helper()
	out := map[string]session{}
	u.frr.JSON("show bgp neighbors "+u.peer+" json", &out)
	return out[u.peer]
}

// nextSession waits for another session than the one that was seen last. Two calls at once
// may end one before.
func (u *uplink) nextSession() {
	u.t.Helper()
	u.lab.Eventually(fmt.Sprintf("a session after the %d.", u.sessions), func() bool {
		s := u.session()
		if s.BgpState != "Established" || s.ConnectionsEstablished <= u.sessions {
			return false
		}
		u.sessions = s.ConnectionsEstablished
		return true
	})
}

// route is what the router knows of a prefix, with all attributes.
func (u *uplink) route(prefix string) string {
	u.t.Helper()
	family := "ipv4"
	if strings.Contains(prefix, ":") {
		family = "ipv6"
	}
	return u.frr.Vtysh("show bgp " + family + " unicast " + prefix)
}

func (u *uplink) untilRoute(prefix string, words ...string) {
	u.t.Helper()
	u.lab.Eventually(fmt.Sprintf("%s with %q", prefix, words), func() bool {
		said := u.route(prefix)
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(said, w) })
	})
}

// onLoopback tells whether the node of the gateway takes an address for its own.
func (u *uplink) onLoopback(addr string) bool {
	u.t.Helper()
	return strings.Contains(u.gw.Run("ip", "addr", "show", "dev", "lo"), " "+addr+"/")
}

func (a *announcer) untilLog(words string) {
	a.tb.Helper()
	a.eventually("log: "+words, func() bool { return strings.Contains(a.Log(), words) })
}

func (a *announcer) eventually(what string, ok func() bool) {
	a.tb.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.tb.Fatalf("waiting for %s: timed out", what)
		}
	}
}

// write changes the configuration, and tells the gateway.
func (a *announcer) hangUp(section string) {
	a.tb.Helper()
	a.configure(section)
	a.Signal(syscall.SIGHUP)
}

// ended waits for the end of the process, and says how it ended.
func (a *announcer) ended() {
	a.tb.Helper()
	select {
	case <-a.Ended:
	case <-time.After(time.Minute):
		a.tb.Fatal("it does not end")
	}
}

const (
	one4, two4 = "198.51.100.1/32", "198.51.100.2/32"
	one6       = "2001:db8:ffff::1/128"
)

// TestGatewayReload: other prefixes come and go within the session, and a file with a
// mistake changes nothing.
func TestGatewayReload(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	g := startGateway(t, u.gw, uplinkPeer+`announce: [{set: vips, prefixes: [198.51.100.1], bind: true}]`)
	u.until([]string{one4})
	u.nextSession()
	from := u.now()

	g.hangUp(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1, 198.51.100.2, "2001:db8:ffff::1"], bind: true, communities: ["65000:7"]}]`)
	u.until([]string{one4, two4, one6})
	u.untilRoute(one4, "65000:7")
	for _, a := range []string{"198.51.100.1", "198.51.100.2", "2001:db8:ffff::1"} {
		g.eventually(a+" on lo", func() bool { return u.onLoopback(a) })
	}
	g.hangUp(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1"], bind: true, communities: ["65000:7"]}]`)
	u.until([]string{one4, one6}, two4)
	g.eventually("198.51.100.2 to leave lo", func() bool { return !u.onLoopback("198.51.100.2") })

	g.hangUp(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.300]}]`)
	g.untilLog("configuration not reloaded, going on with the old one")
	g.untilLog(`razor.yaml:6: gateway.announce[0].prefixes[0]: \"198.51.100.300\": IPv4 field has value >255; want `)
	if said, err := g.razor("restart", "gateway"); err == nil || !strings.Contains(said, "IPv4 field has value >255") {
		t.Errorf("restart with a mistake: %v: %s", err, said)
	}
	g.configure(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1]}]`)
	text, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.config, text[strings.Index(string(text), "log:"):], 0o644); err != nil {
		t.Fatal(err)
	}
	g.Signal(syscall.SIGHUP)
	g.untilLog("no gateway: section")

	u.keeps(from, one4)
	if s := u.session(); s.ConnectionsEstablished != 1 || s.BgpState != "Established" {
		t.Errorf("%+v", s)
	}
}

// TestGatewayRestart: with other peers, a new binary, or an operator's word the same
// process starts again, and the router loses no route.
func TestGatewayRestart(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	flag := filepath.Join(u.gw.Dir, "well")
	u.gw.Run("touch", flag)
	// The second set is known to be well some time after the start.
	section := func(bgp string) string {
		return strings.Replace(uplinkPeer, "bgp:", "bgp:"+bgp, 1) + fmt.Sprintf(`
announce:
  - {set: vips, prefixes: [198.51.100.1], bind: true}
  - {set: probed, prefixes: ["2001:db8:ffff::1"], bind: true, when: well}
probes:
  - {name: well, kind: exec, command: [/usr/bin/test, -e, %s], interval: 500ms}
`, flag)
	}
	g := startGateway(t, u.gw, section(""))
	u.until([]string{one4, one6})
	u.nextSession()
	events := u.gw.Start("ip", "monitor", "address")
	from := u.now()

	if said, err := g.razor("restart", "gateway"); err != nil || said != "restarted, routes kept\n" {
		t.Errorf("restart: %v: %s", err, said)
	}
	u.nextSession()
	g.Signal(syscall.SIGUSR2)
	u.nextSession()
	g.hangUp(section("\n  hold: 6s"))
	u.nextSession()
	g.hangUp(section("\n  as: 4200000777"))
	u.lab.Eventually("the other AS", func() bool { return u.session().RemoteAs == 4200000777 })
	u.nextSession()
	u.untilRoute(one6, "4200000777")
	u.until([]string{one4, one6})

	u.keeps(from, one4, one6)
	if said := events.Log(); strings.Contains(said, "Deleted") {
		t.Errorf("an address was away:\n%s", said)
	}
	if !g.Alive() || strings.Count(g.Log(), "msg=starting") != 5 {
		t.Error("not the same process")
	}
}

// TestGatewayCrash: a gateway that was killed comes back with what its configuration
// says, and as drained as it was.
func TestGatewayCrash(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	g := startGateway(t, u.gw, uplinkPeer+`announce: [{set: vips, prefixes: [198.51.100.1, 198.51.100.2, "2001:db8:ffff::1"], bind: true}]`)
	u.until([]string{one4, two4, one6})
	g.Kill()
	for _, a := range []string{"198.51.100.1", "198.51.100.2", "2001:db8:ffff::1"} {
		if !u.onLoopback(a) {
			t.Errorf("%s is not bound", a)
		}
	}
	g.configure(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1], bind: true}]`)
	g.start()
	u.nextSession()
	u.until([]string{one4}, two4, one6)
	g.eventually("leftovers to go", func() bool {
		return u.onLoopback("198.51.100.1") && !u.onLoopback("198.51.100.2") && !u.onLoopback("2001:db8:ffff::1")
	})

	if said, err := g.razor("drain", "gateway", "--reason", "new cables"); err != nil || said != "drained: nothing is announced, all sessions are closed\n" {
		t.Errorf("drain: %v: %s", err, said)
	}
	u.until(nil, one4)
	g.Kill()
	g.start()
	g.eventually("the status", func() bool { return g.status().Stage == "drained" })
	if said, _ := g.razor("status"); !strings.Contains(said, ": drained since ") || !strings.Contains(said, ": new cables\n") || !strings.Contains(said, "idle") {
		t.Errorf("status of a drained gateway\n%s", said)
	}
	if said, err := g.razor("undrain", "gateway"); err != nil || said != "in service\n" {
		t.Errorf("undrain: %v: %s", err, said)
	}
	u.until([]string{one4})
	if n := u.session().ConnectionsEstablished; n != 3 {
		t.Errorf("%d sessions: the drained gateway had one", n)
	}

	// Of another kind: nothing is to be bound any more.
	g.Kill()
	g.configure(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.2]}]`)
	g.start()
	u.until([]string{two4}, one4)
	g.eventually("nothing on lo", func() bool { return !u.onLoopback("198.51.100.1") })
}

// TestGatewayLeaves: the router hears that it leaves, then of the withdrawal, then why
// the session ends.
func TestGatewayLeaves(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	section := strings.Replace(uplinkPeer, "converge: 1s, settle: 100ms", "converge: 4s, settle: 2s", 1) +
		`announce: [{set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1"], bind: true}]`
	g := startGateway(t, u.gw, section)
	u.until([]string{one4, one6})
	u.nextSession()
	g.Signal(syscall.SIGTERM)
	u.untilRoute(one4, "graceful-shutdown")
	u.until([]string{one4, one6})
	u.until(nil, one4, one6)
	if s := u.session(); s.BgpState != "Established" {
		t.Errorf("closed with the withdrawal: %+v", s)
	}
	g.ended()
	if said := u.gw.Run("ip", "addr", "show", "dev", "lo"); strings.Contains(said, "198.51.100.1") || strings.Contains(said, "ffff::1") {
		t.Errorf("left on lo\n%s", said)
	}
	u.lab.Eventually("the reason", func() bool { return strings.Contains(u.frr.Log("bgpd"), "the gateway stops") })
	if !strings.Contains(u.frr.Log("bgpd"), "Administrative Shutdown") {
		t.Error(u.frr.Log("bgpd"))
	}

	// Whoever is in a hurry says so twice.
	g.configure(strings.Replace(section, "converge: 4s", "converge: 1h", 1))
	g.start()
	u.nextSession()
	u.until([]string{one4})
	g.Signal(syscall.SIGTERM)
	u.untilRoute(one4, "graceful-shutdown")
	g.eventually("the end", func() bool {
		g.Signal(syscall.SIGTERM)
		return !g.Alive()
	})
}

// TestGatewaysOnOneHost: a second one is refused, and does the first no harm.
func TestGatewaysOnOneHost(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	const section = uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1], bind: true}]`
	startGateway(t, u.gw, section)
	u.until([]string{one4})
	from := u.now()
	second := func(edit ...string) string {
		t.Helper()
		g := &announcer{tb: t, node: u.gw, config: filepath.Join(u.gw.Dir, "second.yaml")}
		g.configure(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.2], bind: true}]`)
		text, err := os.ReadFile(g.config)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.NewReplacer(edit...).Replace(string(text)) + "http: {gateway: \"[::1]:8066\"}\n"
		if err := os.WriteFile(g.config, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		said, err := g.razor("gateway")
		if err == nil {
			t.Errorf("it ran: %s", said)
		}
		return said
	}
	if said := second(); !strings.Contains(said, "second.yaml:2: gateway.state_dir: \"") || !strings.Contains(said, ": another razor uses this state directory; want a directory for each\n") {
		t.Errorf("with the same directory: %s", said)
	}
	if said := second("/razor\n", "/other\n"); !strings.Contains(said, "second.yaml:3: gateway.bgp.port: \"179\": port in use; want a free port, or the other server stopped\n") {
		t.Errorf("with the same port: %s", said)
	}
	if !u.onLoopback("198.51.100.1") || u.onLoopback("198.51.100.2") {
		t.Error("the second changed what is bound")
	}
	u.keeps(from, one4)
}

// TestGatewayWithoutRights: what the host does not let it do is said, and the rest is
// done.
func TestGatewayWithoutRights(t *testing.T) {
	t.Parallel()
	u := newUplink(t)
	g := &announcer{tb: t, node: u.gw, config: filepath.Join(u.gw.Dir, "razor.yaml")}
	razor, err := razorBinary()
	if err != nil {
		t.Fatal(err)
	}
	without := func(capability string, rest ...string) []string {
		return append([]string{"--bounding-set", "-" + capability, razor, "gateway", "--config", g.config}, rest...)
	}
	g.configure(uplinkPeer + `announce: [{set: vips, prefixes: [198.51.100.1]}, {set: bound, prefixes: [198.51.100.2], bind: true}]`)
	g.Process = u.gw.Start("setpriv", without("net_admin")...)
	u.until([]string{one4}, two4)
	g.untilLog(`level=ERROR msg="addresses not bound" err="binding on loopback is not permitted; want CAP_NET_ADMIN"`)
	if said, err := g.razor("status"); err != nil || !strings.Contains(said, "not bound: binding on loopback is not permitted; want CAP_NET_ADMIN\n") {
		t.Errorf("status: %v\n%s", err, said)
	}
	g.Kill()

	said, err := u.gw.Command("setpriv", without("net_bind_service")...).CombinedOutput()
	if err == nil || !strings.Contains(string(said), `gateway.bgp.port: "179": permission denied; want a port above 1023, or the capability CAP_NET_BIND_SERVICE`) {
		t.Errorf("port 179: %v: %s", err, said)
	}

	g.configure(strings.Replace(uplinkPeer, "bgp:", "bgp:\n  unnumbered: [eth0]", 1) + `announce: [{set: vips, prefixes: [198.51.100.1]}]`)
	g.Process = u.gw.Start("setpriv", without("net_raw")...)
	u.nextSession()
	g.untilLog(`level=ERROR msg="peer is not looked for" peer=eth0 err="router advertisements on eth0 are not permitted; want CAP_NET_RAW"`)
	u.until([]string{one4})
	if said, err := g.razor("status"); err != nil || !strings.Contains(said, "router advertisements on eth0 are not permitted; want CAP_NET_RAW, ") {
		t.Errorf("status: %v\n%s", err, said)
	}
}
