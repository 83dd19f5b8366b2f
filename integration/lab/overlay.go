package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// A site with an overlay has all its hosts in one segment: the leaves are switches that
// bridge it over VXLAN, and tell each other by EVPN (RFC 7432, RFC 8365) who is where. Each
// is also the router of the hosts that are plugged into it.
const (
	bridge    = "br0"
	vni       = 10
	fabricMTU = 9000 // VXLAN takes 50
)

// segment is the address of a host, or of a leaf, in the segment of its site.
func segment(site, host int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:0:f%x::%x", site, host))
}

// leafHost is the number in the segment of the first leaf.
const leafHost = 0xff00

// layOverlay has the routers of a site bridge its segment.
func (l *lab) layOverlay(s *site) {
	for i, r := range s.racks() {
		r.overlay, r.gate = true, segment(s.number, leafHost+i)
		r.node.Run("ip", "link", "add", bridge, "type", "bridge")
		r.node.Run("ip", "addr", "add", r.gate.String()+"/64", "dev", bridge)
		r.node.Run("ip", "link", "set", bridge, "up")
		r.node.Run("ip", "link", "add", "vx0", "type", "vxlan", "id", fmt.Sprint(vni), "local", r.id.String(), "dstport", "4789", "nolearning")
		r.node.Run("ip", "link", "set", "vx0", "mtu", "1500", "master", bridge, "up")
	}
	for _, r := range s.routers {
		r.evpn = true
		r.own = append(r.own, netip.PrefixFrom(r.id, 32)) // where VXLAN comes from
		for _, p := range r.ports {
			if p.kind == toRouter {
				r.node.Run("ip", "link", "set", p.device, "mtu", fmt.Sprint(fabricMTU))
			}
		}
	}
}

// bridged puts the host into the segment.
func (h *host) bridged(r *router, p *port) {
	p.peer = segment(h.site.number, h.number%perSite)
	r.node.Run("ip", "link", "set", p.device, "master", bridge)
	h.node.Run("ip", "addr", "add", p.peer.String()+"/64", "dev", "eth0")
	h.gate, h.near = r.gate, p.peer
	if h.role != roleGateway { // they announce their own
		for _, leaf := range h.site.racks() {
			leaf.segment = append(leaf.segment, p)
		}
	}
}

// peers are the gateways of a leaf, which are told apart by their addresses.
func (r *router) peers(b *strings.Builder) {
	for _, p := range r.ports {
		if p.peer.IsValid() && p.kind == toGateway {
			fmt.Fprintf(b, " neighbor %s remote-as external\n neighbor %[1]s capability extended-nexthop\n neighbor %[1]s timers connect 1\n neighbor %[1]s bfd 3 300 300\n", p.peer)
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
		if p.kind == toRouter {
			fmt.Fprintf(b, "  neighbor %s activate\n", p.device)
		}
	}
	if r.overlay {
		b.WriteString("  advertise-all-vni\n")
	}
	b.WriteString(" exit-address-family\n")
}
