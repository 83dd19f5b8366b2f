package agent

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/agent/segment"
)

// outerHeader is what is put before an answer that goes by a gateway: no SRH, as the
// list is one segment (RFC 8986 §5.2).
const outerHeader = 40

// mtu is the least of the interfaces; 0 where none can be looked at.
func (c *Config) mtu() int {
	least := math.MaxInt
	for _, name := range c.Interfaces {
		if l, err := netlink.LinkByName(name); err == nil {
			least = min(least, l.Attrs().MTU)
		}
	}
	if least == math.MaxInt {
		return 0
	}
	return least
}

// packet is the largest packet of clients that fits through all interfaces with what
// gateways put before it; 0 where that is not known.
func (c *Config) packet() int { return max(c.mtu()-overhead, 0) }

// sends is the largest packet that may be answered; 0 is any.
func (c *Config) sends() int {
	if c.Return != returnGateway {
		return 0
	}
	return max(c.mtu()-outerHeader, 0)
}

// gateways are those that answers go by, of a section that has been checked.
func (c *Config) gateways() []netip.Prefix {
	if c.Return == returnGateway {
		return c.siteGateways()
	}
	return nil
}

// siteGateways are all of the site.
func (c *Config) siteGateways() (all []netip.Prefix) {
	for _, text := range c.Gateways {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// setReplies has answers go as they are to now, and clients and targets told of segments
// that fit now.
func (a *agent) setReplies() error {
	if sends := a.config.sends(); sends != a.sends {
		a.sends = sends
		clear(a.containers) // they are told again
		if err := a.setHost(); err != nil {
			return err
		}
	}
	gateways, err := a.heard()
	if err != nil {
		return err
	}
	return a.replies.Set(reply.Setting{
		Packet: a.config.packet(), Gateways: gateways, Locator: a.domain.Locator, Block: a.domain.Block,
	})
}

// silentFor is for how much longer than another one a gateway has to be silent to be out.
// By traffic alone nobody knows whether it is dead, or routers send it nothing: but then
// it is not missed.
const silentFor = 5 * time.Second

// heard are the gateways that answers go by now.
func (a *agent) heard() ([]netip.Prefix, error) {
	all := a.config.gateways()
	silent := make([]time.Duration, len(all))
	for i, p := range all {
		var err error
		if silent[i], err = a.endpoint.Heard(p); err != nil {
			return nil, err
		}
	}
	in := talking(all, silent)
	if !slices.Equal(in, a.by) && a.by != nil {
		a.log.Warn("answers go by other gateways", "gateways", fmt.Sprint(in), "of", len(all))
	}
	a.by = in
	return in, nil
}

// talking are the gateways that are not out.
func talking(all []netip.Prefix, silent []time.Duration) (in []netip.Prefix) {
	for i, p := range all {
		if silent[i]-slices.Min(silent) < silentFor {
			in = append(in, p)
		}
	}
	return in
}

// setHost has the endpoint take packets for the host.
func (a *agent) setHost() error {
	return a.endpoint.SetTarget(segment.Host, segment.Target{Level: a.level(segment.Host), Packet: a.sends})
}

// joinReplies puts the program of the replies on an interface, where the kernel can.
func (a *agent) joinReplies(device *net.Interface) error {
	err := a.replies.Join(device)
	switch {
	case !errors.Is(err, reply.ErrOld):
		return err
	case a.config.Return == returnGateway:
		return tooOld(a.config.Return)
	}
	a.log.Warn("clients are not told of smaller segments", "err", err)
	return nil
}

// able tells what of the section the kernel cannot.
func (c *Config) able() error {
	if c.Return == returnGateway && !reply.Able() {
		return tooOld(c.Return)
	}
	return nil
}

func tooOld(value string) error {
	return defect("return", value, "this kernel cannot (no tcx)", "Linux 6.6, or direct")
}

// leaveReplies takes the program of the replies off all interfaces but those.
func (a *agent) leaveReplies(but []string) error {
	joined, err := a.replies.Joined()
	for _, name := range joined {
		if !slices.Contains(but, name) {
			err = errors.Join(err, a.replies.Leave(name))
		}
	}
	return err
}

// returned names default routes by which answers would leave beside the gateways, or
// would be too large for the way to them. TCP is told, others are not.
func (d *defects) returned(c *Config) {
	if c.Return != returnGateway {
		return
	}
	looked := map[string]bool{}
	for _, f := range []struct {
		family  int
		of      func(netip.Addr) bool
		command string
	}{{netlink.FAMILY_V4, netip.Addr.Is4, "ip route"}, {netlink.FAMILY_V6, netip.Addr.Is6, "ip -6 route"}} {
		if !slices.ContainsFunc(c.allVIPs(), f.of) {
			continue
		}
		for _, r := range defaultRoutes(f.family) {
			out, err := netlink.LinkByIndex(r.LinkIndex)
			if err != nil {
				continue
			}
			name, size := out.Attrs().Name, min(clientMTU, out.Attrs().MTU)
			if r.MTU > 0 {
				size = min(size, r.MTU)
			}
			if !looked[name] && setting6(name, "forwarding") == 0 {
				d.wayless(c, r.LinkIndex, name)
			}
			looked[name] = true
			switch most := c.sends(); {
			case !slices.Contains(c.Interfaces, name):
				d.add("return", c.Return, "answers leave by "+name+", where there is no agent: straight to clients",
					"a default route by one of agent.interfaces, or "+name+" among them")
			case size > most:
				d.add("return", c.Return, fmt.Sprintf("answers of more than %d bytes, of others than TCP, do not fit through %s with %d more, and are dropped", most, name, outerHeader),
					fmt.Sprintf("%s change default ... mtu %d, or an MTU of %d from here to the gateways", f.command, most, size+outerHeader))
			}
		}
	}
}

// wayless names a gateway that an interface which does not forward does not lead to: the
// kernel lets a program look for the way by another one only where it forwards.
func (d *defects) wayless(c *Config, index int, name string) {
	for _, gateway := range c.gateways() {
		routes, err := netlink.RouteGetWithOptions(gateway.Addr().AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil || len(routes) == 0 || routes[0].LinkIndex == index ||
			slices.ContainsFunc(routes[0].MultiPath, func(n *netlink.NexthopInfo) bool { return n.LinkIndex == index }) {
			continue
		}
		d.add("return", c.Return, fmt.Sprintf("answers leave by %s, which neither leads to %v nor forwards: they go astray", name, gateway),
			"sysctl -w net.ipv6.conf."+inSysctl(name)+".forwarding=1, and accept_ra=2 where its routes are of router advertisements")
		return
	}
}
