package razor

import (
	"net/netip"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// asker is the client as steering sees it.
type asker struct {
	address netip.Addr   // the address that hashing and geography go by
	known   int          // bits of it that were given
	subnet  netip.Prefix // as much of it as hashing and geography use
	ecs     bool         // it came with the query, not from the source address
}

// askerOf is the client of a query. Without a usable client subnet it is the
// source: also when the client asks for none to be used, with /0 (RFC 7871
// §7.1.2).
func askerOf(q *query, source netip.Addr, useECS bool) asker {
	if useECS && q.hasECS && q.ecs.source > 0 {
		return asker{address: q.ecs.addr, known: int(q.ecs.source), subnet: steering.ClientSubnet(q.ecs.addr, int(q.ecs.source)), ecs: true}
	}
	return asker{address: source, known: source.BitLen(), subnet: steering.ClientSubnet(source, source.BitLen())}
}

// pick is what was chosen for one family.
type pick struct {
	rdata  []byte         // 4 or 16 octets an address; empty without an eligible one
	client bool           // the choice went by the client's subnet
	bits   int            // of the client's address that it depends on, where more than the subnet
	place  steering.Place // of the client, where its geography chose the route
}

// resolver chooses addresses from a snapshot. It is not safe for concurrent use.
type resolver struct {
	snapshot *upstreams.Snapshot
	zone     *upstreams.Zone
	asked    []byte          // the name of the query, lower case
	name     *upstreams.Name // what is known of it; nil where nothing is
	asker    asker

	geo     *geo
	legacy  bool
	sampler *steering.Sampler
	buf     []byte
}

// addresses chooses for a family. A name that is stuck to a route is answered
// from there; where that route has nothing eligible, as if it were not stuck.
func (r *resolver) addresses(f steering.Family) pick {
	if r.name != nil && r.name.Route != "" {
		if p := r.fromRoute(r.snapshot.Route(r.name.Route), f, true); len(p.rdata) > 0 {
			return p
		}
	}
	if r.zone.Answer == upstreams.AnswerGeography {
		return r.byGeography(f)
	}
	return r.fromRoute(r.name, f, false)
}

// byGeography goes from the client's prefix over state, country and continent to
// the zone's own pool.
func (r *resolver) byGeography(f steering.Family) pick {
	route, bits, ok := r.snapshot.Subnet(r.asker.address, r.asker.known)
	var p pick
	if ok {
		p = r.fromRoute(r.snapshot.Route(route), f, false)
	}
	if len(p.rdata) == 0 {
		p = r.byPlace(f)
	}
	p.client, p.bits = true, bits
	return p
}

func (r *resolver) byPlace(f steering.Family) pick {
	place := r.geo.place(r.asker.subnet.Addr())
	for _, key := range place.Keys() {
		route, ok := r.snapshot.Place(key)
		if !ok {
			continue
		}
		if p := r.fromRoute(r.snapshot.Route(route), f, false); len(p.rdata) > 0 {
			p.place = place
			return p
		}
	}
	return r.fromRoute(r.snapshot.Route(r.zone.Name), f, false)
}

// fromRoute picks from the pool of a route, or of one of its groups, as the
// zone says; for a name that is stuck to the route, from that name's shard.
func (r *resolver) fromRoute(route *upstreams.Name, f steering.Family, stuck bool) pick {
	if route == nil {
		return pick{}
	}
	count := r.zone.Count
	if route.Count > 0 {
		count = route.Count
	}
	if r.zone.Answer == upstreams.AnswerGroupHash && route.Groups != nil {
		return r.fromGroup(route.Groups, f, count)
	}
	pool := r.zone.Answered(route, f)
	if stuck {
		shard := r.zone.Shard
		if route.Shard > 0 {
			shard = route.Shard
		}
		if shard > 0 {
			pool = pool.Shard(shard, string(r.asked))
		}
	}
	if r.zone.Answer == upstreams.AnswerHash {
		return pick{rdata: r.hash(pool, count), client: true}
	}
	return pick{rdata: pool.Draw(r.buf[:0], count, r.sampler)}
}

func (r *resolver) hash(pool *steering.Pool, count int) []byte {
	if r.legacy {
		return pool.HashLegacy(r.buf[:0], count, r.asker.subnet, r.sampler)
	}
	return pool.Hash(r.buf[:0], count, r.asker.subnet)
}

// fromGroup has the client's subnet choose among the groups that have something
// eligible, and draws from the group's pool.
func (r *resolver) fromGroup(g *upstreams.Groups, f steering.Family, count int) pick {
	pool := func(i int) *steering.Pool {
		return r.zone.Answered(r.snapshot.Route(g.Route(i)), f)
	}
	choose := g.Pick
	if r.legacy {
		choose = g.PickLegacy
	}
	i := choose(r.asker.subnet, func(i int) bool { return pool(i).Len() > 0 })
	if i < 0 {
		return pick{client: true}
	}
	return pick{rdata: pool(i).Draw(r.buf[:0], count, r.sampler), client: true}
}
