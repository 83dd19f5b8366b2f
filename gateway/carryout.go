package gateway

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
)

// takeOver counts what the gateway before this one bound as bound: it was killed, or
// restarted, and the peers may still send packets there.
func (g *Gateway) takeOver() {
	left, err := Bound()
	if err != nil {
		g.log.Warn("addresses not read that a gateway may have left", "err", err)
	}
	g.bound = left
}

// carryOut plans and makes the plan true: what is to be announced is bound first, and
// what cannot be is not announced. What is withdrawn stays bound until the network
// has converged, as packets are under way; before the sessions begin nothing is
// unbound, as it may be announced as soon as its probe has a result.
func (g *Gateway) carryOut(now time.Time) {
	repairing := g.begun && now.Sub(g.boundAt) >= repair
	if repairing {
		g.unbound = nil // tried again
	}
	p := g.config.makePlan(g.facts(now))
	wanted, has := p.bind, setOf(p.bind)
	for _, prefix := range g.bound {
		if !has[prefix] && g.keep(prefix, now) {
			wanted = append(wanted, prefix)
		}
	}
	maps.DeleteFunc(g.release, func(prefix netip.Prefix, _ time.Time) bool { return has[prefix] })
	if repairing && len(wanted)+len(g.bound) > 0 || !samePrefixes(wanted, g.bound) {
		if g.bind(wanted) {
			p = g.config.makePlan(g.facts(now))
		}
	}
	g.explain(p)
	if !slices.EqualFunc(g.announced, p.routes, bgp.Route.Equal) {
		g.announcer.Announce(p.routes)
		g.announced = p.routes
	}
	g.current = p
}

// keep tells whether what is no longer announced stays bound for now.
func (g *Gateway) keep(prefix netip.Prefix, now time.Time) bool {
	if !g.begun {
		return true
	}
	since, ok := g.release[prefix]
	if !ok {
		g.release[prefix] = now
		return true
	}
	if now.Sub(since) < g.config.Drain.Settle {
		return true
	}
	delete(g.release, prefix)
	return false
}

func setOf(prefixes []netip.Prefix) map[netip.Prefix]bool {
	in := map[netip.Prefix]bool{}
	for _, p := range prefixes {
		in[p] = true
	}
	return in
}

func samePrefixes(a, b []netip.Prefix) bool {
	in := setOf(a)
	return len(a) == len(b) && !slices.ContainsFunc(b, func(p netip.Prefix) bool { return !in[p] })
}

// bind has the host take the packets to prefixes, and tells whether others than
// before cannot be bound.
func (g *Gateway) bind(prefixes []netip.Prefix) bool {
	g.bound, g.boundAt = slices.Clone(prefixes), time.Now()
	err := Bind(prefixes)
	text, failed := "", map[netip.Prefix]string(nil)
	if err != nil {
		text = err.Error()
	}
	if b, ok := errors.AsType[*BindError](err); ok {
		failed = b.Failed
	}
	if text != g.bindError && text != "" {
		g.log.Error("addresses not bound", "err", text)
	}
	g.bindError = text
	g.bound = slices.DeleteFunc(g.bound, func(p netip.Prefix) bool { return failed[p] != "" })
	changed := !maps.Equal(failed, g.unbound)
	g.unbound = failed
	return changed
}

// explain logs what a plan changes, each prefix with its reason, and counts.
func (g *Gateway) explain(p plan) {
	was := map[netip.Prefix]*Announcement{}
	for _, a := range g.current.announcements {
		was[a.Prefix] = a
	}
	said := &sayings{}
	for _, a := range p.announcements {
		old := was[a.Prefix]
		delete(was, a.Prefix)
		if old != nil && old.presence == a.presence {
			continue
		}
		if old == nil && a.presence == steering.Withdrawn {
			said.add("not announced", a)
			continue
		}
		said.add(a.Presence, a)
		if a.presence == steering.Withdrawn {
			g.metrics.withdrawals.WithLabelValues(a.label).Inc()
		}
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(was), bgp.ComparePrefixes) {
		if a := was[prefix]; a.presence != steering.Withdrawn {
			said.add("withdrawn", &Announcement{Prefix: prefix, Set: a.Set, Reason: "no longer configured"})
			g.metrics.withdrawals.WithLabelValues("configuration").Inc()
		}
	}
	said.log(g.log)
	if !slices.Equal(p.refused, g.refused) && len(p.refused) > 0 {
		g.log.Error("members of lists must not be announced", "members", some(p.refused, "; "))
	}
	g.refused = p.refused
}
