package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Sites with exit switches have all their hosts in one segment: leaves and exit switches
// bridge it over VXLAN, also from site to site, and tell each other by EVPN (RFC 7432, RFC
// 8365) who is where. The hosts find each other in it, and their ways out: each exit switch
// is a router there.
const (
	bridge    = "br0"
	vni       = 10
	fabricMTU = 9000 // VXLAN takes 50

	// Of all sessions in the segment: that an exit switch is no more is seen by nothing else.
	bfdInterval   = 300 // ms
	bfdMultiplier = 5
)

// segment is the address there of a host, or of an exit switch.
func segment(number int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:ffff::%x", number))
}

// exitNumber is that of a site's first exit switch.
const exitNumber = 0xe0

// bridge has the routers of a site with exit switches bridge the segment.
func (s *site) bridge() {
	if s.Exits == 0 {
		return
	}
	for i, r := range s.routers {
		r.own = append(r.own, netip.PrefixFrom(r.id, 32)) // where VXLAN comes from
		r.node.Run("ip", "link", "add", bridge, "type", "bridge")
		r.node.Run("ip", "link", "add", "vx0", "type", "vxlan", "id", fmt.Sprint(vni), "local", r.id.String(), "dstport", "4789", "nolearning")
		r.node.Run("ip", "link", "set", "vx0", "mtu", "1500", "up")
		r.bridged("vx0")
		if i < s.Exits {
			r.gate = segment(s.number*perSite + exitNumber + i)
			r.node.Run("ip", "addr", "add", r.gate.String()+"/64", "dev", bridge)
			r.node.Run("nft", answers)
		}
		r.node.Run("ip", "link", "set", bridge, "up")
	}
}

// bridged puts a device of a router into the segment. Frames to who is not known are not
// sent to all: razor would take them, as those of a NIC, which sorts others' out, and a cable
// of namespaces does not.
func (r *router) bridged(device string) {
	r.node.Run("ip", "link", "set", device, "master", bridge)
	r.node.Run("ip", "link", "set", device, "type", "bridge_slave", "flood", "off")
}

// bridged puts the host into the segment.
func (h *host) bridged(r *router, p *port) {
	h.near = segment(h.number)
	r.bridged(p.device)
	h.node.Run("ip", "addr", "add", h.near.String()+"/64", "dev", "eth0")
}

// meet has exit switches know who is in the segment, and cables of the fabric have room for
// VXLAN.
func (l *lab) meet() {
	for _, r := range l.exits() {
		r.hosts = l.hosts()
	}
	for _, r := range l.routers() {
		for _, p := range r.ports {
			if p.kind == toSwitch {
				r.node.Run("ip", "link", "set", p.device, "mtu", fmt.Sprint(fabricMTU))
			}
		}
	}
}

// bridging waits until all switches of the segment know each other: hosts that look for others
// before wait for long until they look again.
func (l *lab) bridging() {
	switches := slices.DeleteFunc(l.routers(), func(r *router) bool { return !r.evpn })
	l.eventually("the segment", func() (bool, string) {
		for _, r := range switches {
			if n := strings.Count(r.node.Run("bridge", "fdb", "show", "dev", "vx0"), "00:00:00:00:00:00 dst"); n < len(switches)-1 {
				return false, fmt.Sprintf("%s knows %d of %d other switches", r.name, n, len(switches)-1)
			}
		}
		return true, ""
	})
}

// routeOverlay has a host send to the locators of others straight, and out by all exit
// switches, of which the kernel leaves those out that do not answer. Those of backends are
// BIRD's.
func (l *lab) routeOverlay(h *host) {
	var b strings.Builder
	for _, o := range l.hosts() {
		if o != h {
			fmt.Fprintf(&b, "route replace %s via %s dev eth0\n", locator(o.number), o.near)
		}
	}
	if h.role != roleBackend {
		var group []string
		for i, r := range l.exits() {
			fmt.Fprintf(&b, "nexthop replace id %d via %s dev eth0\n", i+1, r.gate)
			group = append(group, fmt.Sprint(i+1))
		}
		fmt.Fprintf(&b, "nexthop replace id 100 group %s\n", strings.Join(group, "/"))
		b.WriteString("route replace ::/0 nhid 100\nroute replace 0.0.0.0/0 nhid 100\n")
	}
	h.put("routes", b.String())
	h.node.Run("ip", "-batch", h.file("routes"))
}

// leave has the answers of a backend leave by all exit switches alike, as long as they are
// there: BIRD asks them by BFD.
func (h *host) leave(exits []*router) {
	vias := strings.Join(called(exits, func(r *router) string { return fmt.Sprintf("via %s bfd", r.gate) }), " ")
	h.put("bird.conf", fmt.Sprintf(`router id 10.2.%d.%d;
protocol device {}
protocol bfd { interface "eth0" { interval %d ms; idle tx interval %[3]d ms; multiplier %d; }; }
protocol kernel { ipv6 { export all; }; }
protocol kernel { ipv4 { export all; }; }
protocol static { ipv6; route ::/0 %s; }
protocol static { ipv4; route 0.0.0.0/0 %[5]s; }
`, h.site.number, h.number%perSite, bfdInterval, bfdMultiplier, vias))
	h.run("bird", "-f", "-c", h.file("bird.conf"), "-s", h.file("bird.ctl"))
}

// gateways are those of all sites, of an exit switch.
func (r *router) gateways(b *strings.Builder) {
	for _, h := range r.hosts {
		if h.role == roleGateway {
			fmt.Fprintf(b, " neighbor %s remote-as external\n neighbor %[1]s capability extended-nexthop\n neighbor %[1]s timers connect 1\n neighbor %[1]s bfd %d %d %[3]d\n", h.near, bfdMultiplier, bfdInterval)
		}
	}
}

// l2vpn is the part of a router's configuration that tells who is where.
func (r *router) l2vpn(b *strings.Builder) {
	if !r.evpn {
		return
	}
	b.WriteString(" !\n address-family l2vpn evpn\n")
	for _, p := range r.ports {
		if p.kind == toSwitch {
			fmt.Fprintf(b, "  neighbor %s activate\n", p.device)
		}
	}
	b.WriteString("  advertise-all-vni\n  advertise-svi-ip\n exit-address-family\n!\n")
}

// asked is the part of the configuration of an exit switch that has BFD answer backends.
func (r *router) asked(b *strings.Builder) {
	if !slices.ContainsFunc(r.hosts, func(h *host) bool { return h.role == roleBackend }) {
		return
	}
	fmt.Fprintf(b, "bfd\n profile backends\n  detect-multiplier %d\n  receive-interval %d\n  transmit-interval %[2]d\n exit\n", bfdMultiplier, bfdInterval)
	for _, h := range r.hosts {
		if h.role == roleBackend {
			fmt.Fprintf(b, " peer %s local-address %s interface %s\n  profile backends\n exit\n", h.near, r.gate, bridge)
		}
	}
	b.WriteString("exit\n")
}

// unsettled is what an exit switch waits for; "" if nothing.
func (r *router) unsettled() string {
	for family, vip := range map[string]string{"-6": vip6, "-4": vip4} {
		text, _ := r.node.Command("ip", family, "route", "show", vip).Output() // fails where there is none
		for _, g := range r.site.gateways {
			if !strings.Contains(string(text), fmt.Sprintf(" %s ", g.near)) {
				return fmt.Sprintf("it has no way to %s by %s", vip, g.name)
			}
		}
	}
	return ""
}
