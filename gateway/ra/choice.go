package ra

import (
	"net/netip"
	"time"
)

// silence is how long the peer has to be silent while another router speaks, until that
// one takes its place. Who is asked answers within 3.5 s (RFC 4861 §6.2.6).
const silence = 10 * time.Second

// choice is which router of a link is the peer: see Watch. The zero value has none.
type choice struct {
	peer   netip.Addr
	rivals bool      // others were heard
	since  time.Time // when the first of them spoke since the peer last did; else zero
}

// hear takes an advertisement of a router into account. It says whether that is the
// first from another one than the peer.
func (c *choice) hear(router netip.Addr, now time.Time) (news bool) {
	switch {
	case !c.peer.IsValid() || router == c.peer:
		c.peer, c.since = router, time.Time{}
	case c.since.IsZero():
		news = !c.rivals
		c.rivals, c.since = true, now
	case now.Sub(c.since) >= silence:
		*c = choice{peer: router}
	}
	return news
}

// wanted tells whether routers are to be asked for advertisements.
func (c *choice) wanted() bool { return !c.peer.IsValid() || !c.since.IsZero() }
