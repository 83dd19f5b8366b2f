package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/bgp/hostile"
	"github.com/razor-steering/razor/integration/netlab"
)

// harmed is a gateway to which something is done, and the router whose FIB says what
// came of it. The VIPs are those of the examples of routers.
type harmed struct {
	*announcer

	t   *testing.T
	lab *netlab.Lab
	tor *netlab.Node
	fib *netlab.FIBWatch
}

// newHarmed has a link between tor and gateway, over which nothing runs yet.
func newHarmed(t *testing.T) (*harmed, *netlab.Node) {
	t.Helper()
	lab := netlab.New(t)
	h := &harmed{t: t, lab: lab, tor: lab.Node("tor")}
	gw := lab.Node("gw")
	lab.Link(h.tor, "swp1", gw, "eth0", "2001:db8:0:1::1/64")
	h.fib = h.tor.WatchFIB()
	return h, gw
}

const harmedVIPs = `
announce:
  - {set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1", "2001:db8:ffff::2"], bind: true}
`

// start runs the gateway, until its peers are up.
func (h *harmed) start(gw *netlab.Node, section string, peers int) {
	h.t.Helper()
	h.announcer = startGateway(h.t, gw, section+harmedVIPs)
	h.t.Cleanup(func() { h.Kill() }) // nobody waits for a drain
	if peers > 0 {
		h.awaitUp(peers)
	}
}

// vips waits until the router sends the VIPs over these devices alone, and returns
// where the watch of the FIB is then.
func (h *harmed) vips(devices ...string) int {
	h.t.Helper()
	for _, p := range []string{vip4, vip6} {
		h.fib.Until(fmt.Sprint(p, " on ", devices), func(f netlab.FIB) bool { return slices.Equal(f.Devices(p), devices) })
	}
	return len(h.fib.Changes())
}

// kept checks that the router had the VIPs on swp1 all the time since a change.
func (h *harmed) kept(since int) {
	h.t.Helper()
	for _, c := range h.fib.Changes()[since-1:] {
		for _, p := range []string{vip4, vip6} {
			if !slices.Contains(c.FIB.Devices(p), "swp1") {
				h.t.Errorf("%s was on %v", p, c.FIB.Devices(p))
			}
		}
	}
}

// value is that of a series of the gateway, without the prefix of all names; 0
// without it.
func (h *harmed) value(series string) float64 {
	c, err := h.node.Dial(h.t.Context(), "tcp", "[::1]:8055")
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n")
	text, _ := io.ReadAll(c)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "razor_gateway_"+series+" "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return f
		}
	}
	return 0
}

// says waits until a line of the log has all parts.
func (h *harmed) says(parts ...string) {
	h.t.Helper()
	h.lab.Eventually(fmt.Sprintf("the log to have %q", parts), func() bool { return h.said(parts...) })
}

func (h *harmed) said(parts ...string) bool {
	for line := range strings.Lines(h.Log()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return true
		}
	}
	return false
}

// peer waits until a peer is as ok wants it.
func (h *harmed) peer(name, what string, ok func(gateway.PeerStatus) bool) {
	h.t.Helper()
	h.lab.Eventually(name+" to be "+what, func() bool {
		for _, p := range h.status().Peers {
			if p.Name == name {
				return ok(p)
			}
		}
		return false
	})
}

// speakers are the processes that speak for a process.
func speakers(parent int) []int {
	var out []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(word)
			if isSpeaker(pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

func isSpeaker(pid int) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return slices.Contains(strings.Split(string(line), "\x00"), "speaker")
}

// speaker is the one of the gateway.
func (h *harmed) speaker() int {
	h.t.Helper()
	var all []int
	h.lab.Eventually("one speaker", func() bool { all = speakers(h.PID); return len(all) == 1 })
	return all[0]
}

// steady waits until nothing has happened to the peer for longer than BFD takes to
// notice: FRR begins its session of BFD anew when that of BGP has begun, which ends the
// latter if BFD was up before.
func (h *harmed) steady(name string) (sessions float64, p gateway.PeerStatus) {
	h.t.Helper()
	since := time.Now()
	h.peer(name, "steady", func(now gateway.PeerStatus) bool {
		n := h.value(fmt.Sprintf("peer_sessions_total{peer=%q}", name))
		if n != sessions || now.BFD.Failures != p.BFD.Failures || now.State != "established" || now.BFD.State != "up" {
			since = time.Now()
		}
		sessions, p = n, now
		return time.Since(since) > 4*time.Second
	})
	return sessions, p
}

// fresh waits until the router has heard all that a session began with: the next one
// that ends too early takes the routes along (RFC 4724, section 4.2).
func (h *harmed) fresh(frr *netlab.FRR) {
	h.t.Helper()
	h.lab.Eventually("no stale route at the router", func() bool {
		said := frr.Vtysh("show bgp ipv4 unicast json") + frr.Vtysh("show bgp ipv6 unicast json")
		return strings.Contains(said, vip4) && strings.Contains(said, vip6) && !strings.Contains(said, `"stale":true`)
	})
}

// TestSpeakerDies: whatever becomes of the speaker, the session is back, and the
// router of the example has sent the VIPs to us all the time: it kept the routes, and
// BFD does not depend on speakers. One that keeps dying is held off.
func TestSpeakerDies(t *testing.T) {
	t.Parallel()
	h, gw := newHarmed(t)
	frr := h.tor.StartFRR("../deploy/routers/frr-tor.conf")
	h.start(gw, `
bgp:
  hold: 3s
  peers:
    - {name: tor, address: "2001:db8:0:1::1", password: change-me, ttl_security: 1, bfd: {interval: 1s}}`, 1)
	sessions, peer := h.steady("tor")
	before, failures := h.vips("swp1"), peer.BFD.Failures
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGSTOP, syscall.SIGKILL} {
		start := time.Now()
		if err := syscall.Kill(h.speaker(), signal); err != nil {
			t.Fatal(err)
		}
		h.lab.Eventually("the death to be counted", func() bool { return h.value(`speaker_crashes_total{peer="tor"}`) == float64(i+1) })
		noticed := time.Now()
		if i == 3 {
			h.says("level=ERROR", `msg="peer is held off"`, "peer=tor", "for=4s")
			if h.value(`peer_held_off{peer="tor"}`) != 1 {
				t.Error("no alarm in the metrics")
			}
		}
		h.lab.Eventually("the next session", func() bool { return h.value(`peer_sessions_total{peer="tor"}`) == sessions+float64(i+1) })
		t.Logf("%v: noticed after %v, established after %v more", signal, noticed.Sub(start), time.Since(noticed))
		h.awaitUp(1)
		h.fresh(frr)
	}
	for _, words := range []string{"signal: killed", "SIGSEGV"} {
		h.says("level=ERROR", `msg="speaker died`, words)
	}
	h.says("speaker: silent")
	h.lab.Eventually("all routes to be announced", func() bool {
		return h.value(`announced_routes{family="IPv4",peer="tor"}`) == 1 && h.value(`announced_routes{family="IPv6",peer="tor"}`) == 2
	})
	h.kept(before)
	if h.value(`peer_held_off{peer="tor"}`) != 0 {
		t.Error("still held off")
	}
	if p := h.status().Peers[0]; p.BFD.State != "up" || p.BFD.Failures != failures {
		t.Errorf("BFD is %v, and failed %d times", p.BFD, p.BFD.Failures-failures)
	}
}

// harmedTor is a router whose gateways come from anywhere.
const harmedTor = `
router bgp 4200000000
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp graceful-restart stalepath-time 120
 timers bgp 1 3
 neighbor GATEWAYS peer-group
 neighbor GATEWAYS remote-as external
 neighbor GATEWAYS capability extended-nexthop
 neighbor GATEWAYS advertisement-interval 0
 bgp listen range 2001:db8::/32 peer-group GATEWAYS
 address-family ipv4 unicast
  neighbor GATEWAYS activate
  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
  neighbor GATEWAYS activate
  maximum-paths 64
 exit-address-family
`

const harmedPeer = `
bgp:
  node: 2001:db8:0:1::/64
  hold: 3s
  peers:
    - {name: tor, address: "2001:db8:0:1::1"}`

// TestHostilePeer: a peer that sends what it must not has its own session to lose, and
// is held off; strangers are counted. Nobody else notices.
func TestHostilePeer(t *testing.T) {
	t.Parallel()
	h, gw := newHarmed(t)
	bad := h.lab.Node("bad")
	link := h.lab.Link(bad, "eth0", gw, "eth1", "2001:db8:9::1/64")
	h.tor.StartFRR(harmedTor)
	h.start(gw, harmedPeer+fmt.Sprintf(`
    - {name: bad, address: "2001:db8:9::1", as: "%d", passive: true}`, hostile.AS), 0)
	h.lab.Eventually("tor", func() bool { return h.value(`peer_up{peer="tor"}`) == 1 })
	before := h.vips("swp1")

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	to := link.B.Addrs[0].String()
	connect := func(ctx context.Context) (net.Conn, error) { return bad.Dial(ctx, "tcp", "["+to+"]:179") }
	var outlived, others []hostile.Case
	for i, c := range hostile.Cases() {
		switch {
		case c.State != hostile.Established && c.State != hostile.OpenSent:
		case !c.Survives:
			others = append(others, c)
		case c.State == hostile.Established && i%rounds(10, 1) == 0:
			outlived = append(outlived, c)
		}
	}
	culprits, err := hostile.Culprits(ctx, connect, outlived)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range culprits {
		t.Error(c.Name)
	}
	for i := 0; h.value(`peer_held_off{peer="bad"}`) != 1; i++ {
		c := others[i*len(others)/30%len(others)]
		err := hostile.Play(ctx, connect, c)
		if _, ended := errors.AsType[*hostile.Ended](err); err != nil && !ended {
			t.Fatalf("%s: %v", c.Name, err)
		}
		time.Sleep(50 * time.Millisecond) // for the end of the session
	}
	h.says("level=ERROR", `msg="peer is held off"`, "peer=bad")
	if h.value(`peer_held_off{peer="tor"}`) != 0 {
		t.Error("the metrics do not tell who is held off")
	}
	for i := range 3 {
		c, err := bad.Dial(ctx, "tcp", "["+link.B.Local.WithZone("eth0").String()+"]:179")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, c); n != 0 {
			t.Errorf("a stranger was told %d octets, %v", n, err)
		}
		_ = c.Close()
		if got := h.value("unknown_calls_total"); got != float64(i+1) {
			t.Errorf("%v calls of strangers counted, want %d", got, i+1)
		}
	}
	h.kept(before)
	if sessions, crashes := h.value(`peer_sessions_total{peer="tor"}`), h.value(`speaker_crashes_total{peer="bad"}`); sessions != 1 || crashes != 0 {
		t.Errorf("%v sessions with the router, %v dead speakers", sessions, crashes)
	}
	if h.value(`peer_malformed_updates_total{peer="bad"}`) == 0 || h.value(`peer_errors_total{peer="bad",reason="malformed"}`)+h.value(`peer_errors_total{peer="bad",reason="open"}`) == 0 {
		t.Error("what the peer did is not counted")
	}
}

// TestPeerFaults: a peer that resets, restarts or hangs comes back, as often as it
// likes, and is not held off for it.
func TestPeerFaults(t *testing.T) {
	t.Parallel()
	h, gw := newHarmed(t)
	frr := h.tor.StartFRR(harmedTor)
	h.start(gw, harmedPeer, 1)
	h.vips("swp1")
	sessions := 1.0
	next := func(what string) {
		t.Helper()
		h.lab.Eventually("the session after "+what, func() bool { return h.value(`peer_sessions_total{peer="tor"}`) > sessions })
		sessions = h.value(`peer_sessions_total{peer="tor"}`)
		h.awaitUp(1)
		h.vips("swp1")
	}
	for i := range rounds(4, 100) {
		frr.Vtysh("clear bgp 2001:db8:0:1::2")
		next(fmt.Sprint("reset ", i+1))
	}
	h.says("peer is down", "the peer says: Cease")

	before := len(h.fib.Changes())
	frr.Kill("bgpd")
	h.says("peer is down", "connection closed by the peer")
	frr.Restart()
	next("a restart of the router")
	t.Logf("%d changes of the FIB over its restart", len(h.fib.Changes())-before)

	frr.Stop("bgpd")
	h.says("peer is down", "hold timer expired")
	frr.Continue("bgpd")
	next("a router that hung")
	if h.value(`peer_errors_total{peer="tor",reason="hold_timer"}`) != 1 {
		t.Error("the hold timer is not counted")
	}
	if h.said("peer is held off") || h.value(`speaker_crashes_total{peer="tor"}`) != 0 {
		t.Error("the peer is held off, or speakers died")
	}
}

// TestGatewayProcess: a gateway that is killed leaves no speaker behind, and its
// routes stay until it is back. One that is stopped for a moment keeps its session,
// for longer it loses that and comes back.
func TestGatewayProcess(t *testing.T) {
	t.Parallel()
	h, gw := newHarmed(t)
	h.tor.StartFRR(harmedTor)
	h.start(gw, harmedPeer, 1)
	before := h.vips("swp1")

	speaker := h.speaker()
	h.Kill()
	h.lab.Eventually("no speaker to be left", func() bool { return !isSpeaker(speaker) })
	h.announcer.start()
	h.awaitUp(1)
	h.kept(before)

	h.Stop()
	time.Sleep(1200 * time.Millisecond) // of 3 s; no more than that has to pass
	h.Continue()
	time.Sleep(200 * time.Millisecond)
	if sessions, crashes := h.value(`peer_sessions_total{peer="tor"}`), h.value(`speaker_crashes_total{peer="tor"}`); sessions != 1 || crashes != 0 {
		t.Errorf("after a moment: %v sessions, %v dead speakers", sessions, crashes)
	}
	h.kept(before)

	h.Stop()
	h.vips() // the router has given up
	h.Continue()
	h.vips("swp1")
	if crashes := h.value(`speaker_crashes_total{peer="tor"}`); crashes != 0 {
		t.Errorf("%v speakers are said to be dead that were stopped together with the gateway", crashes)
	}
}

// misfits are peers of one router, on a link each. None has a session as things are,
// or keeps one; X is the gateway to the router.
var misfits = []struct {
	name   string
	peer   string // settings of the gateway
	router string // lines for router bgp
	spoil  string // lines that end the session that there is
	reason string // that is counted
	says   []string
	repair string // lines for router bgp that make a session possible; "" if none do
}{
	{
		name: "other-password", peer: "password: word", router: "neighbor X password sword",
		reason: "connect", says: []string{"peer cannot be reached", "no answer, as when the passwords differ"},
		repair: "neighbor X password word",
	},
	{
		name: "no-password", peer: "password: word",
		reason: "connect", says: []string{"peer cannot be reached", "no answer, as when the passwords differ"},
		repair: "neighbor X password word",
	},
	{
		name: "as-of-ours", router: "neighbor X remote-as 65099",
		reason: "notification", says: []string{"peer is down", "the peer says: OPEN message error: bad peer AS"},
		repair: "neighbor X remote-as external",
	},
	{
		name: "as-of-theirs", peer: `as: "65098"`,
		reason: "open", says: []string{"peer is down", "OPEN refused: OPEN message error: bad peer AS"},
	},
	{
		name: "far", peer: "multihop: 64", router: "neighbor X ttl-security hops 1",
		reason: "hold_timer", says: []string{"peer is down", "hold timer expired"},
		repair: "no neighbor X ttl-security hops 1",
	},
	{
		name: "too-many", spoil: "address-family ipv6 unicast\nneighbor X maximum-prefix 1",
		reason: "notification", says: []string{"peer is down", "the peer says: Cease: maximum number of prefixes reached"},
		repair: "address-family ipv6 unicast\nno neighbor X maximum-prefix 1\nend\nclear bgp X",
	},
}

// TestMisfits: what does not fit is said and counted, and does nothing to the session
// beside it. As soon as the router is told better there is a session.
func TestMisfits(t *testing.T) {
	t.Parallel()
	h, gw := newHarmed(t)
	up := func(p gateway.PeerStatus) bool { return p.State == "established" }
	section, router, family := harmedPeer, "", ""
	lines := make([]func(text string) string, len(misfits))
	for i, m := range misfits {
		l := h.lab.Link(h.tor, fmt.Sprint("swp", i+2), gw, fmt.Sprint("eth", i+1), fmt.Sprintf("2001:db8:2:%d::1/64", i))
		lines[i] = func(text string) string { return strings.ReplaceAll(text, " X", " "+l.B.Addrs[0].String()) + "\n" }
		settings := []string{"name: " + m.name, fmt.Sprintf("address: %q", l.A.Addrs[0])}
		if m.peer != "" {
			settings = append(settings, m.peer)
		}
		section += "\n    - {" + strings.Join(settings, ", ") + "}"
		if !strings.Contains(m.router, "remote-as") {
			router += lines[i](" neighbor X remote-as external")
		}
		router += lines[i](" " + m.router)
		family += lines[i]("  neighbor X activate")
	}
	frr := h.tor.StartFRR(harmedTor + router + " address-family ipv6 unicast\n" + family + " exit-address-family\n")
	h.start(gw, section, 0)
	for _, p := range []string{vip4, vip6} {
		h.fib.Until(p+" on swp1", func(f netlab.FIB) bool { return slices.Contains(f.Devices(p), "swp1") })
	}
	before := len(h.fib.Changes())
	configure := func(i int, text string) {
		if text != "" {
			frr.Vtysh("configure terminal\nrouter bgp 4200000000\n" + lines[i](text))
		}
	}
	for i, m := range misfits {
		if m.spoil != "" {
			h.peer(m.name, "up", up)
			configure(i, m.spoil)
		}
	}
	for _, m := range misfits {
		h.says(append(m.says, "peer="+m.name)...)
		series := fmt.Sprintf("peer_errors_total{peer=%q,reason=%q}", m.name, m.reason)
		h.lab.Eventually(series, func() bool { return h.value(series) > 0 })
	}
	for i, m := range misfits {
		configure(i, m.repair)
	}
	for _, m := range misfits {
		if m.repair != "" {
			h.peer(m.name, "up", up)
		}
	}
	h.kept(before)
	if h.value(`peer_sessions_total{peer="tor"}`) != 1 {
		t.Error("the session of a peer that fits has ended")
	}
}

// sorts are routers of different kinds, which take what they can of one gateway. Each
// has a link of its own, with these addresses; X is the gateway's end.
var sorts = []struct {
	name, link string
	peer       string // settings of the gateway
	frr, bird  string // configuration, of one of the two
	routes     string // what is to be in the FIB
	says       []string
}{
	{
		name: "over-ipv4", link: "10.9.0.1/24", routes: vip4,
		frr: `
router bgp 4200000001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor X remote-as external
`,
	},
	{
		name: "internal", link: "2001:db8:2:1::1/64", peer: "as: internal", routes: vip4 + " " + vip6,
		frr: `
router bgp 4200009001
 bgp router-id 192.0.2.2
 no bgp default ipv4-unicast
 neighbor X remote-as internal
 neighbor X capability extended-nexthop
 address-family ipv4 unicast
  neighbor X activate
 exit-address-family
 address-family ipv6 unicast
  neighbor X activate
 exit-address-family
`,
	},
	{
		name: "two-octets", link: "2001:db8:2:2::1/64", peer: `as: "64512"`, routes: vip4 + " " + vip6,
		bird: `
router id 192.0.2.3;
protocol device { }
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol bgp edge {
  local as 64512;
  neighbor X external;
  enable as4 no;
  connect delay time 1;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
`,
	},
	{
		name: "no-next-hop", link: "2001:db8:2:3::1/64", peer: "ttl_security: 1, password: word", routes: vip6,
		says: []string{"level=WARN", "peer takes no IPv4 routes over IPv6"},
		bird: `
router id 192.0.2.4;
protocol device { }
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol bgp edge {
  local as 64513;
  neighbor X external;
  ttl security on;
  password "word";
  connect delay time 1;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
`,
	},
	{
		name: "passive", link: "2001:db8:2:4::1/64", peer: "passive: true", routes: vip6,
		bird: `
router id 192.0.2.5;
protocol device { }
protocol kernel { ipv6 { export all; }; }
protocol bgp edge {
  local as 4200000005;
  neighbor X external;
  connect delay time 1;
  ipv6 { import all; export none; };
}
`,
	},
}

func TestSortsOfRouters(t *testing.T) {
	t.Parallel()
	h := &harmed{t: t, lab: netlab.New(t)}
	gw := h.lab.Node("gw")
	section := "bgp:\n  as: 4200009001\n  node: 2001:db8:2:1::/64\n  peers:"
	var fibs []*netlab.FIBWatch
	for i, s := range sorts {
		n := h.lab.Node(fmt.Sprint("r", i))
		l := h.lab.Link(n, "swp1", gw, fmt.Sprint("eth", i), s.link)
		fibs = append(fibs, n.WatchFIB())
		settings := strings.TrimSuffix(fmt.Sprintf("name: %s, address: %q, %s", s.name, l.A.Addrs[0], s.peer), ", ")
		section += "\n    - {" + settings + "}"
		conf := strings.ReplaceAll(s.frr+s.bird, " X", " "+l.B.Addrs[0].String())
		if s.frr != "" {
			n.StartFRR(conf)
		} else {
			n.StartBIRD(conf)
		}
	}
	h.start(gw, section, len(sorts))
	for i, s := range sorts {
		for _, p := range []string{vip4, vip6} {
			fibs[i].Until(s.name+" to have "+s.routes, func(f netlab.FIB) bool { return (f.Devices(p) != nil) == strings.Contains(s.routes, p) })
		}
		if s.says != nil {
			h.says(append(s.says, "peer="+s.name)...)
		}
	}
}
