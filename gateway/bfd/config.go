package bfd

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// What a session can be told.
const (
	LeastInterval = least
	MostInterval  = time.Minute
)

// Config is one session. A peer has one at most.
type Config struct {
	Peer netip.Addr // with its zone where it is link-local
	// Local is the source of what we send; by the routing table when not valid.
	Local netip.Addr
	// Interval between packets in both directions, as far as the peer agrees.
	Interval time.Duration
	// Multiplier is how many of our packets in a row the peer misses before it takes
	// the path for failed.
	Multiplier int
	// Resume is the session of the last process, which is then gone on with.
	Resume *Resume
}

// Check lists what is wrong; keys are the names of settings.
func (c *Config) Check() []upstreams.Defect {
	var out []upstreams.Defect
	add := func(key, member, reason, want string) {
		out = append(out, upstreams.Defect{Key: key, Member: member, Reason: reason, Want: want})
	}
	peer := c.Peer.Unmap()
	switch {
	case !peer.IsValid() || peer.IsUnspecified() || peer.IsMulticast():
		add("peer", c.Peer.String(), "not the address of a host", `"2001:db8::1"`)
	case peer.IsLinkLocalUnicast() && peer.Is6() && peer.Zone() == "":
		add("peer", c.Peer.String(), "link-local, without an interface", peer.WithZone("eth0").String())
	case !peer.IsLinkLocalUnicast() && peer.Zone() != "":
		add("peer", c.Peer.String(), "an interface, and not link-local", peer.WithZone("").String())
	case c.Local.IsValid() && (c.Local.Unmap().Is4() != peer.Is4() || c.Local.IsUnspecified() || c.Local.IsMulticast()):
		add("local", c.Local.String(), "not an address to reach the peer from", "an address of this host, of the family of the peer")
	}
	if c.Interval < LeastInterval || c.Interval > MostInterval || c.Interval%time.Microsecond != 0 {
		add("interval", c.Interval.String(), "out of range", LeastInterval.String()+" to "+MostInterval.String()+", whole microseconds")
	}
	if c.Multiplier < 1 || c.Multiplier > 255 {
		add("multiplier", strconv.Itoa(c.Multiplier), "out of range", "1 to 255")
	}
	return out
}
