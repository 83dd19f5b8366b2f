package gateway

import (
	"maps"
	"net/netip"
	"time"

	"github.com/razor-steering/razor/steering/wire"
)

// silentFor is how many requests in a row a gateway of another site does not answer until no
// packets are sent there, and how many it answers until they are again.
const silentFor = 3

// siteGateway is a gateway of another site. Where it is lost, a default route still leads
// there: it is asked for echoes, which its kernel answers as long as its balancer takes
// packets, whether the process runs or not.
type siteGateway struct {
	site     string
	entry    netip.Addr
	at       time.Time // when it was asked last
	waiting  bool      // for the answer to that
	lost     int       // requests that were not answered, one after the other
	answered int       // likewise those that were
	away     bool
}

// dueAt is when it is to be asked: more often once an answer is missing.
func (g *siteGateway) dueAt() time.Time {
	if g.waiting && !g.away {
		return g.at.Add(echoLeast)
	}
	return g.at.Add(echoLook)
}

// surveySites has the gateways of other sites be those of the plan.
func (r *reports) surveySites() {
	is := map[wire.Locator]bool{}
	for _, s := range r.plan.Sites {
		for _, entry := range s.Gateways {
			l := wire.LocatorOf(entry)
			if is[l] = true; r.siteGateways[l] == nil {
				r.siteGateways[l] = &siteGateway{}
			}
			r.siteGateways[l].site, r.siteGateways[l].entry = s.Name, entry
		}
	}
	maps.DeleteFunc(r.siteGateways, func(l wire.Locator, g *siteGateway) bool {
		r.awayMoved = r.awayMoved || !is[l] && g.away
		return !is[l]
	})
}

// sitesToAsk is toAsk of the gateways of other sites; hosts are those that are asked anyway.
func (r *reports) sitesToAsk(hosts []wire.Locator, next, now time.Time, behind bool) ([]wire.Locator, time.Time) {
	r.surveySites()
	for host, g := range r.siteGateways {
		switch at := g.dueAt(); {
		case now.Before(at):
			next = soonest(next, at)
			continue
		case behind || len(hosts) == mostEchoes:
			next = now
			continue
		}
		if g.waiting && g.at.After(r.able) && r.heardSince(g.at) {
			r.missed(g)
		}
		g.at, g.waiting = now, true
		hosts = append(hosts, host)
	}
	return hosts, next
}

// missed takes a request that was not answered, although others were heard meanwhile. It
// says something only if a gateway of that site has answered: elsewhere something in between
// may let no echoes pass.
func (r *reports) missed(g *siteGateway) {
	g.lost, g.answered = min(g.lost+1, silentFor), 0
	if g.away || g.lost < silentFor || !r.answers[g.site] {
		return
	}
	g.away, r.awayMoved = true, true
	r.log.Warn("gateway of another site does not answer, no packets are sent there", "site", g.site, "gateway", g.entry)
}

// present takes an answer of a gateway of another site, to an echo request or otherwise.
func (r *reports) present(host wire.Locator, echo bool, now time.Time) {
	g := r.siteGateways[host]
	if g == nil {
		return
	}
	r.answer, r.answers[g.site] = now, r.answers[g.site] || echo
	g.waiting, g.lost, g.answered = false, 0, min(g.answered+1, silentFor)
	if g.away && g.answered == silentFor {
		g.away, r.awayMoved = false, true
		r.log.Info("gateway of another site answers", "site", g.site, "gateway", g.entry)
	}
}

// spoke takes a word of a gateway of another site.
func (r *reports) spoke(host wire.Locator, now time.Time) {
	defer r.tellAway()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present(host, false, now)
}

// tellAway has no packets be sent to the gateways that are away, and to the others again.
func (r *reports) tellAway() {
	r.tellingAway.Lock()
	defer r.tellingAway.Unlock()
	if away, moved := r.takeAway(); moved {
		r.setAway(away)
	}
}

// takeAway is who is away, by entries, if that has changed since it was taken before.
func (r *reports) takeAway() (away map[netip.Addr]bool, moved bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.awayMoved {
		return nil, false
	}
	away, r.awayMoved = map[netip.Addr]bool{}, false
	for _, g := range r.siteGateways {
		if g.away {
			away[g.entry] = true
		}
	}
	return away, true
}
