package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
)

// Announcement is a prefix of a set, and what becomes of it.
type Announcement struct {
	Prefix   netip.Prefix `json:"prefix"`
	Set      string       `json:"set"`
	Presence string       `json:"presence"` // announced, lowered, withdrawn
	Reason   string       `json:"reason"`
	Since    time.Time    `json:"since"` // of the presence

	presence steering.Presence
	label    string
	pool     bool // of this edge alone
}

// A Dataplane says whether packets to a prefix would be served.
type Dataplane interface {
	// Servable is false, and why, while packets to a prefix would be lost.
	Servable(netip.Prefix) (ok bool, why string)
}

// Sites know of the other gateways that announce a prefix.
type Sites interface {
	// Announcers is how many others announce it now; false where that is not known.
	Announcers(netip.Prefix) (n int, known bool)
}

// facts is what a plan depends on beside the configuration.
type facts struct {
	now       time.Time
	stage     steering.Stage             // of the drain, for prefixes that others may have too
	own       steering.Stage             // of it for what is this gateway's alone: pool and node
	node      netip.Prefix               // this host's /64; the zero Prefix without one
	pool      []netip.Prefix             // of this edge, in Redis
	health    map[string]steering.Damped // of the probes
	holes     []netip.Prefix             // to be announced as blackholes
	refused   []string                   // members of blackhole lists that must not be
	dataplane Dataplane                  // may be nil
	sites     Sites                      // may be nil
	unbound   map[netip.Prefix]string    // what cannot be bound, and why
	was       map[netip.Prefix]*Announcement
}

// plan is what to announce.
type plan struct {
	now           time.Time
	announcements []*Announcement // sorted by prefix
	routes        []bgp.Route
	bind          []netip.Prefix
	refused       []string  // members of lists that may not be announced, and why
	until         time.Time // when another may come without anything having happened; zero if never
}

// makePlan decides about every prefix of the configuration, which has been checked.
func (c *Config) makePlan(f facts) plan {
	p := plan{now: f.now, refused: slices.Clone(f.refused)}
	allowed := parsed(c.Allowed)
	seen := c.written()
	for i := range c.Announce {
		s := &c.Announce[i]
		common, room := s.route(), c.PoolLimit
		for _, prefix := range s.prefixes(f) {
			if s.From != "" {
				if why := s.refusal(prefix, allowed, seen); why != "" {
					p.refused = append(p.refused, fmt.Sprintf("%s: %s", prefix, why))
					continue
				}
				seen[prefix] = s.Set
			}
			if s.From == fromPool {
				if room--; room < 0 {
					p.refused = append(p.refused, fmt.Sprintf("%s: beyond gateway.pool_limit", prefix))
					continue
				}
			}
			p.add(s, common, prefix, f)
		}
	}
	slices.SortFunc(p.announcements, func(a, b *Announcement) int { return bgp.ComparePrefixes(a.Prefix, b.Prefix) })
	if f.own != steering.OutOfTheWay {
		for _, hole := range f.holes {
			p.routes = append(p.routes, bgp.Route{Prefix: hole, Communities: []bgp.Community{bgp.BlackholeRoute, bgp.NoExport}, Blackhole: true})
		}
	}
	return p
}

// written are the prefixes that stand in the configuration, with their sets: what
// comes from elsewhere gives way to them.
func (c *Config) written() map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for i := range c.Announce {
		for _, p := range parsed(c.Announce[i].Prefixes) {
			out[p] = c.Announce[i].Set
		}
	}
	return out
}

// refusal says why a prefix that the configuration does not have itself is not
// announced; "" if it is. The host's own /64 is not in a list that others write.
func (s *SetConfig) refusal(p netip.Prefix, allowed []netip.Prefix, seen map[netip.Prefix]string) string {
	if other := seen[p]; other != "" {
		return "in set " + other + " already"
	}
	if s.From == fromNode {
		return ""
	}
	why, _ := unannounceable(p, allowed)
	return why
}

// prefixes are those of a set.
func (s *SetConfig) prefixes(f facts) []netip.Prefix {
	switch s.From {
	case fromPool:
		// What is announced comes first, as it is the last to be left out.
		pool := slices.Clone(f.pool)
		slices.SortStableFunc(pool, func(a, b netip.Prefix) int { return f.absent(a) - f.absent(b) })
		return pool
	case fromNode:
		if !f.node.IsValid() {
			return nil
		}
		return []netip.Prefix{f.node}
	}
	return parsed(s.Prefixes)
}

// absent is 1 for a prefix that is not announced yet, else 0.
func (f *facts) absent(p netip.Prefix) int {
	if was := f.was[p]; was != nil && was.presence != steering.Withdrawn {
		return 0
	}
	return 1
}

// add judges one prefix.
func (p *plan) add(s *SetConfig, route bgp.Route, prefix netip.Prefix, f facts) {
	o := s.offer(prefix, f)
	stage := f.stage
	if s.From != "" {
		stage = f.own
	}
	ruling := o.Judge(stage, f.now)
	a := &Announcement{
		Prefix: prefix, Set: s.Set, Presence: ruling.Presence.String(), Reason: ruling.Reason, Since: f.now,
		presence: ruling.Presence, label: ruling.Label, pool: s.From == fromPool,
	}
	if was := f.was[prefix]; was != nil && was.presence == a.presence {
		a.Since = was.Since
	}
	p.announcements = append(p.announcements, a)
	if !ruling.Until.IsZero() && (p.until.IsZero() || ruling.Until.Before(p.until)) {
		p.until = ruling.Until
	}
	if ruling.Presence == steering.Withdrawn {
		return
	}
	if s.Bind {
		p.bind = append(p.bind, prefix)
	}
	route.Prefix = prefix
	if ruling.Presence == steering.Lowered {
		route = lowered(route)
	}
	p.routes = append(p.routes, route)
}

// offer is the prefix with all that its announcement depends on.
func (s *SetConfig) offer(prefix netip.Prefix, f facts) steering.Offer {
	o := steering.Offer{Condition: steering.Damped{Health: steering.HealthUp}, Floor: *s.Floor, Others: -1}
	o.WithdrawAfter, _ = s.withdrawAfter()
	if s.When != always {
		o.Condition = f.health[s.When]
	}
	if f.dataplane != nil {
		if ok, why := f.dataplane.Servable(prefix); !ok {
			o.NotReady = why
		}
	}
	if why := f.unbound[prefix]; s.Bind && why != "" {
		o.NotReady = "not bound: " + why
	}
	if f.sites != nil {
		if n, known := f.sites.Announcers(prefix); known {
			o.Others = n
		}
	}
	if was := f.was[prefix]; was != nil {
		o.Was = was.presence
	}
	return o
}

// lowered is a route that any other is preferred to, by routers that obey RFC 8326
// and by all others.
func lowered(r bgp.Route) bgp.Route {
	if !slices.Contains(r.Communities, bgp.GracefulShutdown) {
		r.Communities = append(slices.Clone(r.Communities), bgp.GracefulShutdown)
	}
	r.Lowered = true
	return r
}
