package gateway

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

// asked is a host that is asked for echoes, as its agent has spoken.
type asked struct {
	steering.Echo

	at       time.Time // when it was asked last
	waiting  bool      // for the answer to that
	silentAt time.Time // from then on its agent is silent, unless it speaks
	every    time.Duration
}

// survey has the hosts be those of whom something is told.
func (r *reports) survey(now time.Time) {
	for _, a := range r.hosts {
		a.silentAt, a.every = time.Time{}, 0
	}
	for sid, t := range r.told {
		host := wire.LocatorOf(sid)
		a := r.hosts[host]
		if a == nil {
			a = &asked{at: now.Add(-rand.N(echoEvery))} // so that not all are asked at once
			r.hosts[host] = a
		}
		if at := t.silentAt(); a.every == 0 || at.After(a.silentAt) {
			a.silentAt, a.every = at, t.Report.Interval
		}
	}
	maps.DeleteFunc(r.hosts, func(_ wire.Locator, a *asked) bool { return a.every == 0 })
}

// dueAt is when a host is to be asked, and whether its agent is silent.
func (a *asked) dueAt(now time.Time) (at time.Time, silent bool) {
	if now.Before(a.silentAt) {
		return a.at.Add(echoEvery), false
	}
	return a.at.Add(min(max(a.every, echoLeast), echoEvery)), true
}

// toAsk says which hosts are to be asked now, mostEchoes of them at most, and when to look
// again, and notes who did not answer before. behind is that there are answers which were not
// read yet. No request counts as lost while nobody else is heard, agents or other sites, nor
// while the gateway is deaf, or was a moment ago: then it may be this one that is cut off.
func (r *reports) toAsk(now time.Time, deaf, behind bool) (hosts []wire.Locator, next time.Time) {
	defer r.tellAway()
	r.mu.Lock()
	defer r.mu.Unlock()
	if deaf {
		r.able = now.Add(startGrace)
	}
	r.survey(now)
	next = now.Add(echoLook)
	for host, a := range r.hosts {
		at, silent := a.dueAt(now)
		switch {
		case now.Before(at):
			if next = soonest(next, at); !silent {
				next = soonest(next, a.silentAt) // it is asked more often then
			}
			continue
		case behind || len(hosts) == mostEchoes:
			next = now
			continue
		}
		if a.waiting && a.at.After(r.able) && r.heardSince(a.at) {
			r.learn(a, func() { a.Unanswered(silent) })
		}
		a.at, a.waiting = now, true
		hosts = append(hosts, host)
	}
	return r.sitesToAsk(hosts, next, now, behind)
}

// heardSince tells whether some agent, or another site, was heard after a time.
func (r *reports) heardSince(t time.Time) bool {
	return r.last.After(t) || r.sites().After(t) || r.answer.After(t)
}

// answered takes the answer of a host.
func (r *reports) answered(host wire.Locator, now time.Time) {
	defer r.tellAway()
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.hosts[host]; a != nil {
		a.waiting = false
		_, silent := a.dueAt(now)
		r.learn(a, func() { a.Answered(silent) })
	}
	r.present(host, true, now)
}

// unasked takes back that a host was asked: the request could not be sent.
func (r *reports) unasked(host wire.Locator) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.hosts[host]; a != nil {
		a.waiting = false
	}
	if g := r.siteGateways[host]; g != nil {
		g.waiting = false
	}
}

// learn has what is known of a host change, and judged anew and kept where that counts.
func (r *reports) learn(a *asked, change func()) {
	known, gone := a.Known, a.Gone()
	change()
	if a.Known != known || a.Gone() != gone {
		r.unsaved = true
		r.poke()
	}
}

// gone tells whether the host of a backend is, should its agent be silent.
func (r *reports) gone(sid netip.Addr) bool {
	a := r.hosts[wire.LocatorOf(sid)]
	return a != nil && a.Gone()
}
