package upstreams

import (
	"cmp"
	"iter"
	"net/netip"

	"github.com/razor-steering/razor/steering"
)

// Snapshot is what the lists say at one moment. It is immutable and safe for
// concurrent use; names in it are in wire form and lower case, rdata in wire
// form. A new one shares with the old one all that did not change.
type Snapshot struct {
	zones   map[string]*Zone
	depths  [128]bool // label counts at which there is a zone
	names   table[*Name]
	places  map[string]string // geoip place to route
	apps    table[*Upstream]  // by the name of the application
	above   table[int]        // names above applications, with how many of them are below
	subnets *subnets          // prefix to route

	superseded chan struct{} // closed when the follower has a newer one

	// Size of the lists, for metrics.
	NameCount, MemberCount int
	// EndpointCount is the number of endpoints in all upstream lists.
	EndpointCount int
	// Emptied counts pools of zones that skip list and blackhole leave no address of.
	Emptied int
	// Drained counts routes of which operators have drained every edge.
	Drained int
	// Edges counts edges by their health.
	Edges map[EdgeHealth]int
	// BelowFloor are the routes of which less than FLOOR is healthy, sorted, as text.
	BelowFloor []string
}

// Zone is a name that the server is authoritative for, with its CONFIG.
type Zone struct {
	Name   string   // wire form
	Text   string   // presentation form, for logs and metric labels
	SOA    []byte   // RDATA
	NS     []string // names in wire form, may be empty
	TTL    uint32   // seconds, of every positive answer
	Answer Answer
	Count  int  // addresses in an answer, at least 1
	Shard  int  // SHARD of the zone's CONFIG; 0 without
	NoECS  bool // the client subnet of queries is not used

	Floor   float64 // share of a pool, 0 to 1, below which health is ignored
	OnEmpty OnEmpty // what is answered then

	// Of HTTPS and SVCB records; nothing is answered by them yet.
	ALPN []string // protocol ids; nil without
	Port uint16   // 0 without

	skip       [2]*steering.SkipList // with what is blackholed
	blackholes []Blackhole           // in force
	// without has what they leave of the pools that they touch. A
	// pool that is not in it may be answered whole.
	without map[*steering.Pool]*steering.Pool
	// sound has the same of what is healthy of names of which not all is.
	sound map[*steering.Pool]*steering.Pool
}

// NegativeTTL is the TTL of the SOA in a negative answer, in seconds: the
// smaller of the SOA's own TTL and its MINIMUM (RFC 2308 §5).
func (z *Zone) NegativeTTL() uint32 { return min(z.TTL, soaMinimum(z.SOA)) }

// Eligible is what the zone's skip list and blackhole leave of a pool.
func (z *Zone) Eligible(p *steering.Pool) *steering.Pool {
	if left, ok := z.without[p]; ok {
		return left
	}
	return p
}

// Answered is the pool of a family that a name is answered from in the zone: what its
// skip list and blackhole leave of the active edges, and of that what is healthy. Where
// that is less than FLOOR of it, or nothing, it is all of it again, unless ON_EMPTY is
// closed.
func (z *Zone) Answered(n *Name, f steering.Family) *steering.Pool {
	if n == nil {
		return nil
	}
	all := z.Eligible(n.pools[f])
	if n.healthy[f] == n.pools[f] {
		return all
	}
	healthy := z.healthyOf(n, f)
	if cmp.Or(n.OnEmpty, z.OnEmpty) == OnEmptyOpen && z.belowFloor(n, all.Len(), healthy.Len()) {
		return all
	}
	return healthy
}

// healthyOf is what the zone's skip list and blackhole leave of what is healthy of a
// name.
func (z *Zone) healthyOf(n *Name, f steering.Family) *steering.Pool {
	p := n.healthy[f]
	if p == n.pools[f] {
		return z.Eligible(p)
	}
	if left, ok := z.sound[p]; ok {
		return left
	}
	return p
}

// belowFloor tells whether too few of the members of a name's pool are healthy.
func (z *Zone) belowFloor(n *Name, all, healthy int) bool {
	floor := z.Floor
	if n.Floor != nil {
		floor = *n.Floor
	}
	return all > 0 && (healthy == 0 || float64(healthy) < floor*float64(all))
}

// Name is what is known of one name, be it of a zone, a route elsewhere or a
// group. A nil *Name has nothing.
type Name struct {
	pools   [2]*steering.Pool  // of the name and of its eligible edges, before any skip list
	healthy [2]*steering.Pool  // what of pools is healthy; the same where all is
	own     *[2]*steering.Pool // of the name itself, where pools are not; nil else
	Groups  *Groups            // of group_consistent_hash; nil without
	Route   string             // the route that the name is stuck to, wire form; "" without
	Count   int                // COUNT of the name's own CONFIG; 0 without
	Shard   int                // SHARD of it; 0 without
	Floor   *float64           // FLOOR of it; nil without
	OnEmpty OnEmpty            // ON_EMPTY of it; "" without
	ALPN    []string           // ALPN of it; nil without
	Port    uint16             // PORT of it; 0 without
	State   AdminState         // of the edge of that name
	Said    EdgeHealth         // what the gateway of the edge of that name said; unknown without
	drained bool               // names lead to it or it has edges, and all is drained by hand
	below   int                // names that exist strictly below
	keys    int                // keys of this name
}

// Pool is the pool of a family that the name is answered from, before any skip
// list and its health: its own members and those of its edges, without what is draining or
// drained. nil without.
func (n *Name) Pool(f steering.Family) *steering.Pool {
	if n == nil {
		return nil
	}
	return n.pools[f]
}

// Own is the pool of a family of the name itself, without those of edges, and
// whatever its admin state: what the edge of that name has. nil without.
func (n *Name) Own(f steering.Family) *steering.Pool {
	switch {
	case n == nil:
		return nil
	case n.own != nil:
		return n.own[f]
	}
	return n.pools[f]
}

// Exists tells whether the name has data or is an empty non-terminal (RFC 8020).
func (n *Name) Exists() bool { return n != nil && (n.keys > 0 || n.below > 0) }

// Groups are the groups of a route.
type Groups struct {
	*steering.Groups
	routes []string // the name of each group, wire form, in the order of Names
}

// Route is the name of group i in wire form: its pools are that name's.
func (g *Groups) Route(i int) string { return g.routes[i] }

// Zone is the zone that a name belongs to: the longest one that is the name or
// above it. The name is in wire form and lower case. nil where there is none.
func (s *Snapshot) Zone(name []byte) *Zone {
	n := 0
	for i := 0; i < len(name) && name[i] != 0; i += 1 + int(name[i]) {
		n++
	}
	for len(name) > 1 {
		if n < len(s.depths) && s.depths[n] {
			if z := s.zones[string(name)]; z != nil {
				return z
			}
		}
		name = name[1+int(name[0]):]
		n--
	}
	return nil
}

// Name is what is known of a name in wire form and lower case, nil if nothing.
func (s *Snapshot) Name(name []byte) *Name {
	n, _ := s.names.get(name)
	return n
}

// Route is Name for a name that the snapshot itself gave.
func (s *Snapshot) Route(name string) *Name {
	n, _ := s.names.getString(name)
	return n
}

// Upstream is the list of an application, given in wire form; nil without one.
func (s *Snapshot) Upstream(app string) *Upstream {
	u, _ := s.apps.getString(app)
	return u
}

// Upstreams visits every application, in wire form, with its list.
func (s *Snapshot) Upstreams() iter.Seq2[string, *Upstream] { return s.apps.all() }

// UpstreamsBelow tells whether there are applications strictly below a name in
// wire form.
func (s *Snapshot) UpstreamsBelow(name string) bool {
	_, ok := s.above.getString(name)
	return ok
}

// Place is the route for clients of a place ("eu:lt:vl"), in wire form.
func (s *Snapshot) Place(key string) (route string, ok bool) {
	route, ok = s.places[key]
	return route, ok
}

// leavesNothing tells whether a zone's skip list takes all of a pool.
func (s *Snapshot) leavesNothing(pool keyID) bool {
	p := s.Route(pool.name).Pool(pool.family)
	for _, z := range s.zones {
		if left, ok := z.without[p]; ok && left.Len() == 0 {
			return true
		}
	}
	return false
}

// Subnet is the route for clients of the longest prefix around a client, of whose
// address the first known bits are given; in wire form. bits is how many of them
// the outcome depends on where that is more than [steering.ClientSubnet] takes,
// also if there is no route; else 0.
func (s *Snapshot) Subnet(client netip.Addr, known int) (route string, bits int, ok bool) {
	return s.subnets.lookup(client, known)
}

// Empty tells whether there is neither a zone nor an upstream list; true of nil.
func (s *Snapshot) Empty() bool { return s == nil || len(s.zones) == 0 && s.EndpointCount == 0 }

// LargestTTL is for how long resolvers may answer what they were told, in seconds.
func (s *Snapshot) LargestTTL() uint32 {
	var ttl uint32
	for _, z := range s.zones {
		ttl = max(ttl, z.TTL)
	}
	return ttl
}

// ZoneCount is the number of zones.
func (s *Snapshot) ZoneCount() int { return len(s.zones) }
