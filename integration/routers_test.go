package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// The examples in deploy/routers are run as they are, by the routers they are for.
// BIRD stands in for the gateways:
//
//	tor ┬─ swp1 ── eth0 gw1
//	    ├─ swp2 ── eth0 gw2
//	    └─ …
//
// Each gateway announces the VIPs, and the others of its protocols when they are
// enabled.
const standIn = `
log stderr all;
router id 192.0.2.1%[1]d;
protocol device { }
protocol bfd { interface "eth0" { interval 100 ms; multiplier 3; }; }
protocol radv { interface "eth0" { max ra interval 4; }; }

protocol static plain4 {
  ipv4;
  route 198.51.100.0/24 blackhole;
  route 198.51.100.1/32 blackhole;
  route 198.51.100.2/32 blackhole;
}
protocol static plain6 {
  ipv6;
  route 2001:db8:ffff::/48 blackhole;
  route 2001:db8:ffff::1/128 blackhole;
  route 2001:db8:ffff::2/128 blackhole;
  route 2001:db8:5e:%[1]d::/64 blackhole;
}
protocol static forbidden4 {
  ipv4;
  route 0.0.0.0/0 blackhole;
  route 198.51.100.0/25 blackhole;
  route 203.0.113.0/24 blackhole;
  route 203.0.113.1/32 blackhole { bgp_community.add((65535, 666)); };
}
protocol static forbidden6 {
  ipv6;
  route ::/0 blackhole;
  route 2001:db8:ffff:1::/64 blackhole;
  route 2001:db8:5e:ff::1/128 blackhole;
  route 2001:db8:eeee::1/128 blackhole { bgp_community.add((65535, 666)); };
}
protocol static attacked4 {
  disabled;
  ipv4 { preference 250; };
  route 198.51.100.0/24 blackhole { bgp_community.add((65535, 666)); };
  route 198.51.100.2/32 blackhole { bgp_community.add((65535, 666)); };
}
protocol static attacked6 {
  disabled;
  ipv6 { preference 250; };
  route 2001:db8:ffff::/48 blackhole { bgp_community.add((65535, 666)); };
  route 2001:db8:ffff::2/128 blackhole { bgp_community.add((65535, 666)); };
}
protocol static draining4 {
  disabled;
  ipv4 { preference 250; };
  route 198.51.100.1/32 blackhole { bgp_community.add((65535, 0)); };
}
protocol static draining6 {
  disabled;
  ipv6 { preference 250; };
  route 2001:db8:ffff::1/128 blackhole { bgp_community.add((65535, 0)); };
}

protocol bgp tor {
  local as 420000000%[1]d;
  neighbor %[2]s as 4200000000;
  %[3]s
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  graceful restart on;
  ipv4 { import all; export all; extended next hop on; };
  ipv6 { import all; export all; };
}
`

// Options of a stand-in's session.
const (
	known = `bfd on; ttl security on; hold time 9; keepalive time 3;`
	guest = `hold time 9; keepalive time 3;`
	local = `interface "eth0"; bfd on; ttl security on; hold time 9; keepalive time 3;`
)

func TestRouterExamples(t *testing.T) {
	t.Parallel()
	for _, e := range []struct {
		file     string
		gateways []string // the options of their sessions
	}{
		{"frr-tor.conf", []string{known + `password "change-me";`, known, guest}},
		{"frr-tor-unnumbered.conf", []string{local, local}},
		{"cumulus-tor.conf", []string{local, local, local, local}},
		{"bird-tor.conf", []string{known + `password "change-me";`, known, guest, local}},
	} {
		t.Run(e.file, func(t *testing.T) {
			t.Parallel()
			r := newRack(t, e.file, e.gateways)
			r.takesWhatItMay()
			r.drains()
			r.discards()
			r.keepsRoutesOverARestart()
			r.noticesSilence()
		})
	}
}

// rack is a router with an example for its configuration, and stand-ins for gateways.
type rack struct {
	t        *testing.T
	lab      *netlab.Lab
	tor      *netlab.Node
	frr      *netlab.FRR // or BIRD
	bird     *netlab.BIRD
	fib      *netlab.FIBWatch
	links    []*netlab.Link
	gateways []*netlab.BIRD
	sessions []string // their options
}

func newRack(t *testing.T, file string, sessions []string) *rack {
	t.Helper()
	lab := netlab.New(t)
	r := &rack{t: t, lab: lab, tor: lab.Node("tor"), sessions: sessions}
	for i, session := range sessions {
		var addrs []string
		if !strings.Contains(session, "interface") {
			addrs = []string{fmt.Sprintf("2001:db8:0:%d::1/64", i+1)}
		}
		gw := lab.Node(fmt.Sprint("gw", i+1))
		r.links = append(r.links, lab.Link(r.tor, fmt.Sprint("swp", i+1), gw, "eth0", addrs...))
	}
	r.fib = r.tor.WatchFIB()
	if file = "../deploy/routers/" + file; strings.Contains(file, "bird") {
		r.bird = r.tor.StartBIRD(file)
	} else {
		r.frr = r.tor.StartFRR(file)
	}
	for i, l := range r.links {
		peer := l.A.Local.WithZone("")
		if len(l.A.Addrs) > 0 {
			peer = l.A.Addrs[0]
		}
		r.gateways = append(r.gateways, l.B.Node.StartBIRD(fmt.Sprintf(standIn, i+1, peer, sessions[i])))
	}
	return r
}

// all are the devices of the gateways, but those at some places.
func (r *rack) all(but ...int) string {
	var out []string
	for i := range r.gateways {
		if !slices.Contains(but, i) {
			out = append(out, fmt.Sprint("swp", i+1))
		}
	}
	return strings.Join(out, " ")
}

// until waits until prefixes go to these devices alone.
func (r *rack) until(devices string, prefixes ...string) {
	r.t.Helper()
	for _, p := range prefixes {
		r.fib.Until(p+" on "+devices, func(f netlab.FIB) bool { return strings.Join(f.Devices(p), " ") == devices })
	}
}

const (
	vip4, vip6           = "198.51.100.1/32", "2001:db8:ffff::1/128"
	attacked4, attacked6 = "198.51.100.2/32", "2001:db8:ffff::2/128"
	aggregate4           = "198.51.100.0/24"
	aggregate6           = "2001:db8:ffff::/48"
)

func (r *rack) takesWhatItMay() {
	r.t.Helper()
	r.until(r.all(), vip4, vip6, attacked4, attacked6, aggregate4, aggregate6)
	for i := range r.gateways {
		r.until(fmt.Sprint("swp", i+1), fmt.Sprintf("2001:db8:5e:%d::/64", i+1))
	}
	for _, p := range []string{
		"0.0.0.0/0", "198.51.100.0/25", "203.0.113.0/24", "203.0.113.1/32",
		"::/0", "2001:db8:ffff:1::/64", "2001:db8:5e:ff::1/128", "2001:db8:eeee::1/128",
	} {
		if hops := r.tor.FIB()[netip.MustParsePrefix(p)]; hops != nil {
			r.t.Errorf("%s is taken: %v", p, hops)
		}
	}
	for i, g := range r.gateways {
		if said := g.Birdc("show route protocol tor"); strings.Contains(said, "via") {
			r.t.Errorf("gateway %d has got routes: %s", i+1, said)
		}
	}
}

// drains has the first gateway send GRACEFUL_SHUTDOWN.
func (r *rack) drains() {
	r.t.Helper()
	r.birdc(0, "enable draining4", "enable draining6")
	r.until(r.all(0), vip4, vip6)
	r.birdc(0, "disable draining4", "disable draining6")
	r.until(r.all(), vip4, vip6)
}

// discards has the second gateway send BLACKHOLE.
func (r *rack) discards() {
	r.t.Helper()
	r.birdc(1, "enable attacked4", "enable attacked6")
	for _, p := range []string{attacked4, attacked6} {
		r.fib.Until(p+" to be discarded", func(f netlab.FIB) bool {
			return fmt.Sprint(f[netip.MustParsePrefix(p)]) == "[blackhole]"
		})
		r.noExport(p)
	}
	// Of an aggregate the community is a mistake.
	r.until(r.all(1), aggregate4, aggregate6)
	r.until(r.all(), vip4, vip6)
	r.birdc(1, "disable attacked4", "disable attacked6")
	r.until(r.all(), attacked4, attacked6, aggregate4, aggregate6)
}

func (r *rack) noExport(prefix string) {
	r.t.Helper()
	said := ""
	if r.frr != nil {
		family := "ipv4"
		if strings.Contains(prefix, ":") {
			family = "ipv6"
		}
		said = r.frr.Vtysh("show bgp " + family + " unicast " + prefix + " bestpath")
	} else {
		said = r.bird.Birdc("show route primary all for " + prefix)
	}
	if !strings.Contains(said, "no-export") && !strings.Contains(said, "(65535,65281)") {
		r.t.Errorf("%s is exported: %s", prefix, said)
	}
}

// keepsRoutesOverARestart kills a gateway without BFD: where it is back in time, its
// routes have never gone. The second of two decides: from BIRD to BIRD they are lost once
// in a while.
func (r *rack) keepsRoutesOverARestart() {
	r.t.Helper()
	i := slices.Index(r.sessions, guest)
	if i < 0 {
		return
	}
	if lost := r.lostOverARestart(i); lost != nil {
		if again := r.lostOverARestart(i); again != nil {
			r.t.Errorf("over two restarts of a gateway the VIP was on %v, then on %v", lost, again)
		}
	}
}

// lostOverARestart are the devices that the VIP was on without that of the gateway, which
// is killed and starts again; nil if it was never without.
func (r *rack) lostOverARestart(i int) (devices []string) {
	r.t.Helper()
	before := len(r.fib.Changes())
	r.gateways[i].Kill()
	r.gateways[i].Restart()
	r.lab.Eventually("the session", func() bool {
		return strings.Contains(r.gateways[i].Birdc("show protocols tor"), "Established")
	})
	r.until(r.all(), vip4, vip6)
	for _, c := range r.fib.Changes()[before:] {
		if got := c.FIB.Devices(vip6); !slices.Contains(got, r.links[i].A.Device) {
			devices = append([]string{}, got...)
		}
	}
	return devices
}

// noticesSilence loses the packets of each gateway in turn.
func (r *rack) noticesSilence() {
	r.t.Helper()
	for i, l := range r.links {
		start := time.Now()
		l.Drop()
		r.until(r.all(i), vip4, vip6)
		r.t.Logf("%s is silent: noticed after %v", l.B.Node.Name, time.Since(start))
		l.Heal()
		r.until(r.all(), vip4, vip6)
	}
}

func (r *rack) birdc(gateway int, commands ...string) {
	r.t.Helper()
	for _, c := range commands {
		r.gateways[gateway].Birdc(c)
	}
}
