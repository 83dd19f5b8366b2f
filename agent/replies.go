package agent

import (
	"errors"
	"math"
	"net"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/razor-steering/razor/agent/reply"
)

// packet is the largest packet of clients that fits through all interfaces with what
// gateways put before it; 0 where none can be looked at.
func (c *Config) packet() int {
	least := math.MaxInt
	for _, name := range c.Interfaces {
		if l, err := netlink.LinkByName(name); err == nil {
			least = min(least, l.Attrs().MTU)
		}
	}
	if least == math.MaxInt {
		return 0
	}
	return max(least-overhead, 0)
}

// setReplies has clients told of the segments that fit now.
func (a *agent) setReplies() error { return a.replies.Set(reply.Setting{Packet: a.config.packet()}) }

// joinReplies puts the program of the replies on an interface, where the kernel can.
func (a *agent) joinReplies(device *net.Interface) error {
	err := a.replies.Join(device)
	if errors.Is(err, reply.ErrOld) {
		a.log.Warn("clients are not told of smaller segments", "err", err)
		return nil
	}
	return err
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
