package agent

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"slices"

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
func (c *Config) gateways() (all []netip.Prefix) {
	if c.Return == returnGateway {
		for _, text := range c.Gateways {
			all = append(all, netip.MustParsePrefix(text))
		}
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
	return a.replies.Set(reply.Setting{
		Packet: a.config.packet(), Gateways: a.config.gateways(), Locator: a.domain.Locator, Block: a.domain.Block,
	})
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
		return defect("return", a.config.Return, "this kernel cannot (no tcx)", "Linux 6.6, or direct")
	}
	a.log.Warn("clients are not told of smaller segments", "err", err)
	return nil
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

// returned names default routes by which answers would leave beside the gateways.
func (d *defects) returned(c *Config) {
	if c.Return != returnGateway {
		return
	}
	for family, of := range map[int]func(netip.Addr) bool{netlink.FAMILY_V4: netip.Addr.Is4, netlink.FAMILY_V6: netip.Addr.Is6} {
		if !slices.ContainsFunc(c.allVIPs(), of) {
			continue
		}
		for _, r := range defaultRoutes(family) {
			out, err := netlink.LinkByIndex(r.LinkIndex)
			if err == nil && !slices.Contains(c.Interfaces, out.Attrs().Name) {
				d.add("return", c.Return, "answers leave by "+out.Attrs().Name+", where there is no agent: straight to clients",
					"a default route by one of agent.interfaces, or "+out.Attrs().Name+" among them")
			}
		}
	}
}
