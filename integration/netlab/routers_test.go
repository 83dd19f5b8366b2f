package netlab

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Two gateways (BIRD) announce the same VIPs of both families to a router (FRR), by
// sessions over IPv6.
//
//	client ── tor ┬─ swp1 ── eth0 gw1
//	              └─ swp2 ── eth0 gw2
const routerFRR = `
router bgp 4200000000
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 timers bgp 1 3
 neighbor GW peer-group
 neighbor GW remote-as external
 neighbor GW timers connect 1
 neighbor GW advertisement-interval 0
 neighbor GW bfd
 neighbor GW bfd profile fast
 neighbor GW capability extended-nexthop
 neighbor 2001:db8:0:1::2 peer-group GW
 neighbor 2001:db8:0:2::2 peer-group GW
 address-family ipv6 unicast
  neighbor GW activate
 exit-address-family
exit
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
 exit
exit
`

const gatewayBIRD = `
log stderr all;
router id 192.0.2.1%[1]d;
protocol device { }
protocol bfd { interface "eth0" { interval 100 ms; }; }
protocol static { ipv4; route 198.51.100.1/32 blackhole; }
protocol static { ipv6; route 2001:db8:ffff::1/128 blackhole; }
protocol bgp tor {
  local as 420000000%[1]d;
  neighbor 2001:db8:0:%[1]d::1 as 4200000000;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  hold time 3;
  keepalive time 1;
  bfd on;
  ipv4 { import none; export all; extended next hop on; };
  ipv6 { import none; export all; };
}
`

const (
	vip4 = "198.51.100.1/32"
	vip6 = "2001:db8:ffff::1/128"
)

// rack is what routerFRR and gatewayBIRD describe, converged.
type rack struct {
	lab         *Lab
	client, tor *Node
	links       []*Link // to the gateways
	frr         *FRR
	birds       []*BIRD
	fib         *FIBWatch
}

func newRack(t *testing.T) *rack {
	t.Helper()
	lab := New(t)
	r := &rack{lab: lab, client: lab.Node("client"), tor: lab.Node("tor")}
	lab.Link(r.tor, "swp9", r.client, "eth0", "2001:db8:0:9::1/64", "192.0.2.128/31")
	r.client.Run("ip", "route", "add", "default", "via", "192.0.2.128")
	r.client.Run("ip", "-6", "route", "add", "default", "via", "2001:db8:0:9::1")
	r.fib = r.tor.WatchFIB()
	r.frr = r.tor.StartFRR(routerFRR)
	for i := 1; i <= 2; i++ {
		gw := lab.Node(fmt.Sprint("gw", i))
		r.links = append(r.links, lab.Link(r.tor, fmt.Sprint("swp", i), gw, "eth0", fmt.Sprintf("2001:db8:0:%d::1/64", i)))
		gw.Run("ip", "-6", "route", "add", "default", "via", fmt.Sprintf("2001:db8:0:%d::1", i))
		gw.Run("ip", "-4", "route", "add", "default", "via", "inet6", fmt.Sprintf("2001:db8:0:%d::1", i), "dev", "eth0")
		for _, vip := range []string{vip4, vip6} {
			gw.Own(vip)
			gw.Echo(netip.AddrPortFrom(netip.MustParsePrefix(vip).Addr(), 80))
		}
		r.birds = append(r.birds, gw.StartBIRD(fmt.Sprintf(gatewayBIRD, i)))
	}
	r.until("swp1 swp2")
	return r
}

// until waits until both VIPs go to these devices alone, and returns since when.
func (r *rack) until(devices string) time.Time {
	r.lab.tb.Helper()
	return r.fib.Until("the VIPs on "+devices, func(f FIB) bool {
		return strings.Join(f.Devices(vip4), " ") == devices && strings.Join(f.Devices(vip6), " ") == devices
	})
}

func (r *rack) waitBFD() {
	r.lab.tb.Helper()
	r.lab.Eventually("bfd", func() bool {
		var peers []struct{ Status string }
		r.frr.JSON("show bfd peers json", &peers)
		return len(peers) == 2 && peers[0].Status == "up" && peers[1].Status == "up"
	})
}

func TestFlowsSpreadOverBothGateways(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	for _, vip := range []string{vip4, vip6} {
		for _, network := range []string{"tcp", "udp"} {
			f := r.client.Flows(network, netip.AddrPortFrom(netip.MustParsePrefix(vip).Addr(), 80), 64)
			if f.To["gw1"] == 0 || f.To["gw2"] == 0 || f.Failed != nil {
				t.Errorf("%s to %s: %+v", network, vip, f)
			}
		}
	}
	if said := r.birds[0].Birdc("show protocols tor"); !strings.Contains(said, "Established") {
		t.Error(said)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	for _, f := range []struct {
		name        string
		fault, heal func()
		bfd         bool // is what notices
	}{
		{"the link is down", r.links[1].Down, r.links[1].Up, false},
		{"the path is silent", func() { r.links[1].Drop() }, r.links[1].Heal, true},
		{"bfd does not pass", func() { r.links[1].DropTo(r.links[1].A.Node, BFD) }, r.links[1].Heal, true},
		{"bgp does not pass", func() { r.links[1].Drop(BGP) }, r.links[1].Heal, false},
		{"the gateway's speaker is stopped", func() { r.birds[1].Stop() }, func() { r.birds[1].Continue() }, true},
		{"the gateway's speaker is killed", func() { r.birds[1].Kill() }, r.birds[1].Restart, false},
	} {
		r.waitBFD()
		start := time.Now()
		f.fault()
		took := r.until("swp1").Sub(start)
		t.Logf("%s: %v", f.name, took)
		f.heal()
		r.until("swp1 swp2")
	}
}

func TestARouterComesBack(t *testing.T) {
	t.Parallel()
	r := newRack(t)
	r.frr.Kill("bgpd")
	r.frr.Restart()
	r.until("swp1 swp2")
	r.waitBFD()
	r.frr.Stop("bgpd")
	r.lab.Eventually("the gateways to notice", func() bool {
		return !strings.Contains(r.birds[0].Birdc("show protocols tor"), "Established")
	})
	r.frr.Continue("bgpd")
	r.frr.Terminate()
	r.until("")
	r.frr.Restart()
	r.until("swp1 swp2")
}
