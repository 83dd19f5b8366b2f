package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/upstreams"
)

const (
	// overhead is what encapsulation adds at most: an IPv6 header, and an SRH with the
	// six segments that no list exceeds (RFC 8200 §3, RFC 8754 §2).
	overhead = 40 + 8 + 6*16
	// clientMTU is the largest packet that clients send over the Internet.
	clientMTU = 1500
	// Headers of a segment without options, IP and TCP.
	headers4, headers6 = 20 + 20, 40 + 20
)

// way is the narrowest interface to some hosts.
type way struct {
	device string
	mtu    int
	to     []string // those to whom the way is too narrow, in words
}

// CheckFabric lists what of the network is no fault, but may become one: that packets of
// clients are too large for their way, of which not all listen to who tells them, and ways
// to other sites that stay when who is there has died. It reads the network namespace of
// the calling thread.
func (c *Config) CheckFabric() []upstreams.Defect {
	return append(c.checkRoom(), c.checkEntries()...)
}

// checkEntries is the gateways of other sites to which a default route leads: that their
// routes are withdrawn is not seen here, nor that they answer no echo request, as without a
// key file there are none.
func (c *Config) checkEntries() (out []upstreams.Defect) {
	if c.Dataplane.KeyFile != "" {
		return nil
	}
	for i := range c.Sites {
		for j, text := range c.Sites[i].Gateways {
			locator, err := netip.ParsePrefix(text)
			if err != nil || !byDefault(balancer.Entry(locator)) {
				continue
			}
			out = append(out, upstreams.Defect{
				Key: fmt.Sprintf("%s.gateways[%d]", c.siteKey(i), j), Member: text,
				Reason: "its way is a default route, which does not tell that it is gone: its part of what is sent to the site would be lost",
				Want:   "gateway.dataplane.key_file, to have it asked for echoes; or a route to " + text + " that goes when its router has none",
			})
		}
	}
	return out
}

// byDefault tells whether the way to an address is a default route.
func byDefault(a netip.Addr) bool {
	routes, err := netlink.RouteGetWithOptions(net.IP(a.AsSlice()), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil || len(routes) == 0 {
		return false
	}
	if routes[0].Dst == nil {
		return true
	}
	bits, _ := routes[0].Dst.Mask.Size()
	return bits == 0
}

// checkRoom is whether packets of clients are too large for their way, at most one thing.
func (c *Config) checkRoom() []upstreams.Defect {
	largest := 0
	for _, name := range c.Dataplane.Interfaces {
		if device, err := net.InterfaceByName(name); err == nil {
			largest = max(largest, min(device.MTU, clientMTU))
		}
	}
	want := largest + overhead
	w := c.narrowest(want)
	if largest == 0 || len(w.to) == 0 {
		return nil
	}
	var told []string
	for _, f := range []struct {
		six     bool
		command string
		headers int
	}{{false, "ip route", headers4}, {true, "ip -6 route", headers6}} {
		if c.serves(f.six) {
			told = append(told, fmt.Sprintf("%s change default ... advmss %d", f.command, w.mtu-overhead-f.headers))
		}
	}
	return []upstreams.Defect{{
		Key: "gateway.dataplane.interfaces", Member: strings.Join(c.Dataplane.Interfaces, ", "),
		Reason: fmt.Sprintf("packets of clients, up to %d bytes, leave with up to %d more, and the way to %s takes %d (%s)",
			largest, overhead, strings.Join(w.to, " and "), w.mtu, w.device),
		Want: fmt.Sprintf("%d from here to there (ip link set dev %s mtu %d); or for TCP agents on Linux 6.6, which tell clients less, or backends that do (%s)",
			want, w.device, want, strings.Join(told, ", ")),
	}}
}

// narrowest is the narrowest way to backends and to gateways of other sites below an MTU.
func (c *Config) narrowest(want int) (w way) {
	var backends, gateways []netip.Addr
	for i := range c.Services {
		for j := range c.Services[i].Backends {
			b := &c.Services[i].Backends[j]
			if sid, ok := b.sid(); ok && balancer.State(b.State) != balancer.Dead && !slices.Contains(backends, sid) {
				backends = append(backends, sid)
			}
		}
	}
	for i := range c.Sites {
		gateways = append(gateways, c.Sites[i].plan().Gateways...)
	}
	w.look(backends, "backends", want)
	w.look(gateways, "gateways of other sites", want)
	return w
}

// look has the ways to hosts in w.
func (w *way) look(hosts []netip.Addr, word string, want int) {
	small := 0
	for _, sid := range hosts {
		device, mtu := wayTo(sid)
		if device == "" || mtu >= want {
			continue
		}
		small++
		if w.device == "" || mtu < w.mtu {
			w.device, w.mtu = device, mtu
		}
	}
	if small > 0 {
		w.to = append(w.to, fmt.Sprintf("%d of %d %s", small, len(hosts), word))
	}
}

// wayTo is the interface to an address, and the MTU of the route; "" without one.
func wayTo(a netip.Addr) (device string, mtu int) {
	routes, err := netlink.RouteGet(net.IP(a.AsSlice()))
	if err != nil || len(routes) == 0 {
		return "", 0
	}
	l, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", 0
	}
	mtu = l.Attrs().MTU
	if m := routes[0].MTU; m > 0 {
		mtu = min(mtu, m)
	}
	return l.Attrs().Name, mtu
}

// serves tells whether some VIP is of a family.
func (c *Config) serves(six bool) bool {
	for i := range c.Services {
		for _, text := range c.Services[i].VIPs {
			if v, err := balancer.ParseVIP(text); err == nil && v.Prefix.Addr().Is6() == six {
				return true
			}
		}
	}
	return false
}
