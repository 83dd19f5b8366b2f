package integration

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// A front is a router with an example of deploy/routers for its configuration, and
// gateways behind it:
//
//	client eth0 ── swp9 tor ┬─ swp1 ── eth0 gw1
//	                        ├─ swp2 ── eth0 gw2
//	                        └─ …
//
// Each gateway's node has its /64 on loopback, and answers at the VIPs wherever they
// are bound.
type front struct {
	t        testing.TB
	lab      *netlab.Lab
	client   *netlab.Node
	tor      *netlab.Node
	fib      *netlab.FIBWatch
	frr      *netlab.FRR // or BIRD
	bird     *netlab.BIRD
	gateways []*behind
}

// behind is a gateway behind a front.
type behind struct {
	*announcer

	link    *netlab.Link
	number  int
	address string // of its end of the link; "" of an unnumbered one
	bgp     string // the first part of its section
	service string // file that is there while what it announces works
}

// section is the gateway's, with all but its peers in rest, where $SERVICE is the file
// of its service.
func (g *behind) section(rest string) string {
	return g.bgp + strings.ReplaceAll(rest, "$SERVICE", g.service)
}

// The ways in which a gateway is connected, as the peers of its configuration. The
// first is for gw1 and the second for gw2, as the examples know these. The link of an
// unnumbered one has no addresses.
const (
	byPassword = `peers: [{name: tor, address: "%s", password: change-me, ttl_security: 1, bfd: {interval: 100ms, multiplier: 3}}]`
	byAddress  = `peers: [{name: tor, address: "%s", ttl_security: 1, bfd: {interval: 100ms, multiplier: 3}}]`
	asGuest    = `peers: [{name: tor, address: "%s"}]`
	unnumbered = `unnumbered: [eth0]`
)

// newFront is a front without gateways; edit changes the example, as an operator
// does: old and new texts in turn.
func newFront(tb testing.TB, file string, edit ...string) *front {
	tb.Helper()
	lab := netlab.New(tb)
	f := &front{t: tb, lab: lab, client: lab.Node("client"), tor: lab.Node("tor")}
	lab.Link(f.tor, "swp9", f.client, "eth0", "2001:db8:0:9::1/64", "192.0.2.128/31")
	f.client.Run("ip", "route", "add", "default", "via", "192.0.2.128")
	f.client.Run("ip", "-6", "route", "add", "default", "via", "2001:db8:0:9::1")
	f.fib = f.tor.WatchFIB()
	conf, err := os.ReadFile("../deploy/routers/" + file)
	if err != nil {
		tb.Fatal(err)
	}
	text := strings.NewReplacer(append(edit, "log syslog all;", "log stderr all;")...).Replace(string(conf))
	if strings.HasPrefix(file, "bird") {
		f.tor.Sysctl("net.ipv6.ip_nonlocal_bind", "1") // as the README beside the file says
		f.bird = f.tor.StartBIRD(text)
	} else {
		f.frr = f.tor.StartFRR(text)
	}
	return f
}

// gateway starts a further gateway, with a way to the router, before which there may be
// further settings of BGP, and the rest of its section.
func (f *front) gateway(way, rest string) *behind {
	f.t.Helper()
	return f.gatewayWith(way, rest, "")
}

// gatewayWith is gateway with further sections of the configuration.
func (f *front) gatewayWith(way, rest, sections string) *behind {
	f.t.Helper()
	i := len(f.gateways) + 1
	g := &behind{number: i}
	f.gateways = append(f.gateways, g)
	node := f.lab.Node(fmt.Sprint("gw", i))
	var subnets []string
	switch {
	case strings.HasSuffix(way, unnumbered):
	case strings.HasSuffix(way, asGuest):
		subnets = []string{fmt.Sprintf("2001:db8:0:3:%d::1/80", i)}
	default:
		subnets = []string{fmt.Sprintf("2001:db8:0:%d::1/64", i)}
	}
	g.link = f.lab.Link(f.tor, fmt.Sprint("swp", i), node, "eth0", subnets...)
	g.bgp = "bgp:\n  " + way + "\n"
	if subnets != nil {
		g.bgp = fmt.Sprintf(g.bgp, g.link.A.Addrs[0])
		g.address = g.link.B.Addrs[0].String()
	}
	g.service = filepath.Join(node.Dir, "service")
	g.serve(f.t, true)
	router := g.link.A.Local.WithZone("").String()
	node.Run("ip", "addr", "add", nodePrefix(i).Addr().Next().String()+"/64", "dev", "lo")
	node.Run("ip", "-6", "route", "add", "default", "via", router, "dev", "eth0")
	node.Run("ip", "-4", "route", "add", "default", "via", "inet6", router, "dev", "eth0")
	for _, vip := range []string{vip4, vip6} {
		node.Echo(service(vip))
	}
	g.announcer = startGatewayWith(f.t, node, g.section(rest), sections)
	return g
}

// serve has the service be there, or not.
func (g *behind) serve(tb testing.TB, up bool) {
	tb.Helper()
	err := os.Remove(g.service)
	if up {
		err = os.WriteFile(g.service, nil, 0o644)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// speakers are the processes of the gateway's speakers.
func (g *behind) speakers() []int {
	var out []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", g.PID))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(text)) {
			pid, _ := strconv.Atoi(word)
			if command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(command), "\x00speaker") {
				out = append(out, pid)
			}
		}
	}
	return out
}

// nodePrefix is the /64 of a gateway's node.
func nodePrefix(number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%d::/64", number))
}

// service is where nodes answer at a VIP.
func service(vip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParsePrefix(vip).Addr(), 80)
}

// until waits until prefixes go to these devices alone, and returns since when.
func (f *front) until(devices []string, prefixes ...string) time.Time {
	f.t.Helper()
	return f.fib.Until(fmt.Sprint(prefixes, " on ", devices), func(fib netlab.FIB) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return !slices.Equal(fib.Devices(p), devices) })
	})
}

// devices are those of all gateways.
func (f *front) devices() []string {
	var out []string
	for _, g := range f.gateways {
		out = append(out, g.link.A.Device)
	}
	return out
}

// sharedSection is the same on every host.
const sharedSection = `
announce:
  - {set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1"], bind: true}
  - {from: node}
`

// Gateways behind one router share the flows to VIPs of both families, in every way
// that the examples know to connect one. Their configurations differ in nothing but
// where the router is, and not even there without addresses.
func TestGatewaysShareFlows(t *testing.T) {
	t.Parallel()
	for _, e := range []struct {
		file string
		ways []string
	}{
		{"frr-tor.conf", []string{byPassword, byAddress, asGuest}},
		{"frr-tor-unnumbered.conf", []string{unnumbered, unnumbered}},
		{"cumulus-tor.conf", []string{unnumbered, unnumbered}},
		{"bird-tor.conf", []string{byPassword, byAddress, asGuest, unnumbered}},
	} {
		t.Run(e.file, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, e.file)
			for _, way := range e.ways {
				f.gateway(way, sharedSection)
			}
			f.until(f.devices(), vip4, vip6)
			for i, device := range f.devices() {
				f.until([]string{device}, nodePrefix(i+1).String())
			}
			for _, g := range f.gateways {
				g.awaitUp(1) // one session for both families
			}
			for _, vip := range []string{vip4, vip6} {
				for _, network := range []string{"tcp", "udp"} {
					f.spreads(network, vip)
				}
			}
		})
	}
}

// spreads holds that flows to a VIP reach every gateway, and none fails.
func (f *front) spreads(network, vip string) {
	f.t.Helper()
	flows := f.client.Flows(network, service(vip), 64)
	if len(flows.To) != len(f.gateways) || flows.Failed != nil {
		f.t.Errorf("%s to %s: %+v", network, vip, flows)
	}
}

// thousand is a change of an example, for more VIPs than its ranges have, and a section
// that announces 512 of each family.
func thousand() (edit []string, section string) {
	return []string{"198.51.100.0/24", "198.18.0.0/23"},
		"drain: {converge: 100ms, settle: 100ms}\nannounce:\n  - {set: vips, prefixes: [\"" + strings.Join(thousandPrefixes(), `", "`) + "\"]}\n"
}

func thousandPrefixes() []string {
	var out []string
	for i := range 512 {
		out = append(out, fmt.Sprintf("198.18.%d.%d/32", i/256, i%256), fmt.Sprintf("2001:db8:ffff::%x/128", i+1))
	}
	return out
}

// vips are how many single addresses have next hops.
func vips(fib netlab.FIB) int {
	n := 0
	for p, hops := range fib {
		if p.IsSingleIP() && len(hops) > 0 && hops[0].Via.IsValid() {
			n++
		}
	}
	return n
}

// All of 1,024 prefixes arrive, and all of them go.
func TestThousandPrefixes(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			edit, section := thousand()
			f := newFront(t, file, edit...)
			g := f.gateway(byPassword, section)
			f.fib.Until("1,024 prefixes", func(fib netlab.FIB) bool { return vips(fib) == 1024 })
			g.Terminate()
			f.fib.Until("none", func(fib netlab.FIB) bool { return vips(fib) == 0 })
		})
	}
}
