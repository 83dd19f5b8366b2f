package consul

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// wanted is what Consul says that a list should be.
type wanted struct {
	endpoints map[netip.AddrPort]instance // every registered address, also those that are out
	left      []string                    // what was left out, and why
	index     uint64
}

// serves tells whether an endpoint is given flows.
func serves(e upstreams.Endpoint) bool { return e.Weight > 0 }

// want merges the answers of all datacenters. Of two instances with one address
// the healthier one counts.
func want(answers []answer) wanted {
	w := wanted{endpoints: map[netip.AddrPort]instance{}}
	for _, a := range answers {
		w.index = max(w.index, a.index)
		w.left = append(w.left, a.left...)
		for _, is := range a.instances {
			if old, again := w.endpoints[is.Addr]; again {
				if old.in() && is.in() {
					w.left = append(w.left, fmt.Sprintf("%s: registered by %s too: %v", is.id, old.id, is.Addr))
				}
				is = better(old, is)
			}
			w.endpoints[is.Addr] = is
		}
	}
	slices.Sort(w.left)
	return w
}

// better is the one of two instances that stands for their address.
func better(a, b instance) instance {
	if cmp.Or(cmp.Compare(a.status, b.status), -cmp.Compare(a.Weight, b.Weight), cmp.Compare(a.id, b.id)) <= 0 {
		return a
	}
	return b
}

// step is one change of one endpoint. Old or new is empty where it is added or
// removed.
type step struct {
	old, new string // members
	why      string
	rank     uint64 // of those that the guard counts: who goes first
	counts   bool   // the guard counts it: somebody who serves leaves or changes
}

// String is the step as --dry-run writes it.
func (s step) String() string {
	switch {
	case s.old == "":
		return "+ " + s.new + "  (" + s.why + ")"
	case s.new == "":
		return "- " + s.old + "  (" + s.why + ")"
	}
	return "~ " + s.old + " -> " + s.new + "  (" + s.why + ")"
}

// plan is what is to be done to a list now. Numbers are of endpoints that serve.
type plan struct {
	steps   []step
	held    []step // what the guard does not let through now
	verdict steering.Verdict
	before  int // there now
	wants   int // in Consul
	after   int // after the steps
	taken   int // leave or change by the steps
}

// newPlan compares a list with what is wanted and asks its guard, unless that is
// nil: then everything is let through.
func newPlan(list *upstreams.Published, w wanted, guard *steering.Guard, now time.Time) plan {
	var p plan
	var lose, change []step
	for addr, old := range list.Endpoints {
		is, ok := w.endpoints[addr]
		if !ok {
			is = instance{status: gone, why: gone.String()}
		}
		s := step{old: old.Member, why: is.why, rank: rank(addr, is.status)}
		if is.in() {
			s.new = is.String()
		}
		if serves(old.Endpoint) {
			p.before++
		}
		switch {
		case is.in() && is.Endpoint == old.Endpoint:
		case !serves(old.Endpoint):
			p.steps = append(p.steps, s) // nobody misses it
		case is.in() && serves(is.Endpoint):
			s.counts = true
			change = append(change, s)
		default:
			s.counts = true
			lose = append(lose, s)
		}
	}
	none := true // in Consul, also with weight 0
	for addr, is := range w.endpoints {
		if !is.in() {
			continue
		}
		none = false
		if serves(is.Endpoint) {
			p.wants++
		}
		if _, there := list.Endpoints[addr]; !there {
			p.steps = append(p.steps, step{new: is.String(), why: is.why})
		}
	}
	for _, member := range list.Unusable {
		p.steps = append(p.steps, step{old: member, why: "no endpoint, or one more for its address"})
	}
	p.decide(lose, change, guard, now)
	if guard != nil && len(list.Endpoints) > 0 && none {
		// Nobody serves there, and it is no reason to believe that nothing is left.
		p.hold(steering.HoldEmpty)
	}
	return p
}

// hold lets nothing of the plan through.
func (p *plan) hold(why steering.Hold) {
	p.held, p.steps = append(p.held, p.steps...), nil
	p.verdict.Hold, p.verdict.Lose, p.verdict.Change = why, 0, 0
	p.after, p.taken = p.before, 0
}

// decide cuts the plan down to what the guard lets through.
func (p *plan) decide(lose, change []step, guard *steering.Guard, now time.Time) {
	p.verdict = steering.Verdict{Lose: len(lose), Change: len(change), Baseline: p.before}
	if guard != nil {
		p.verdict = guard.Decide(now, steering.Change{Serving: p.before, Wanted: p.wants, Losing: len(lose), Changing: len(change)})
	}
	v := p.verdict
	for _, steps := range [][]step{lose, change} {
		slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.rank, b.rank) })
	}
	p.held = slices.Concat(lose[v.Lose:], change[v.Change:])
	if v.Hold == steering.HoldEmpty {
		p.hold(v.Hold)
		return
	}
	p.taken = v.Lose + v.Change
	p.after = p.wants + len(lose) - v.Lose
	// Who comes is there before who goes.
	slices.SortFunc(p.steps, func(a, b step) int { return cmp.Or(cmp.Compare(a.old, b.old), cmp.Compare(a.new, b.new)) })
	p.steps = slices.Concat(p.steps, change[:v.Change], lose[:v.Lose])
}

// edits are steps as the list takes them.
func edits(steps []step) []upstreams.MemberEdit {
	out := make([]upstreams.MemberEdit, len(steps))
	for i, s := range steps {
		out[i] = upstreams.MemberEdit{Old: s.old, New: s.new}
	}
	return out
}

// rank puts those first whom somebody took out by will, then those that fail, each
// in an order that is no rack's.
func rank(addr netip.AddrPort, s status) uint64 {
	b, _ := addr.MarshalBinary()
	h := fnv.New32a()
	_, _ = h.Write(b)
	r := uint64(h.Sum32())
	if s < maintenance {
		r |= 1 << 32
	}
	return r
}
