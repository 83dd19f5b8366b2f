package steering

import (
	"cmp"
	"fmt"
	"slices"
)

// PolicyKind says how a policy divides new flows among what is in it.
type PolicyKind string

// Kinds of policies. No site gets more than its room, but this one with
// failover-only.
const (
	// LocalFirst fills one after another: what exceeds the room of one goes on.
	LocalFirst PolicyKind = "local-first" // as is ""
	// Weighted divides by weights; what exceeds the room of one goes to the others
	// by theirs.
	Weighted PolicyKind = "weighted"
	// FailoverOnly gives all to the first one that works, however loaded it is.
	FailoverOnly PolicyKind = "failover-only"
)

// Policy says where the new flows of a service go. It is a tree: a leaf names a site,
// anything else divides what it gets among To. The zero value is local-first among
// this site and all others, nearest first.
//
// A policy that does not name this site anywhere is for what this site does not
// keep: this site comes first, in the way of the policy's kind if that is
// failover-only, else local-first. One without To divides among all other sites,
// and among this one too if it is weighted: by their capacities.
type Policy struct {
	Kind   PolicyKind `json:"kind,omitempty"`
	Site   string     `json:"site,omitempty"`
	Weight float64    `json:"weight,omitempty"` // in a weighted policy; 0 is 1
	To     []Policy   `json:"to,omitempty"`
}

// accept is the policy without what cannot be, of which it tells.
func (p Policy) accept(tell func(why string)) Policy {
	if p.Site != "" {
		if p.Kind != "" || len(p.To) > 0 {
			tell(fmt.Sprintf("site %s has a kind or a list of its own, which is not heeded", p.Site))
		}
		p.Kind, p.To = "", nil
	}
	switch p.Kind {
	case "":
		p.Kind = LocalFirst
	case LocalFirst, Weighted, FailoverOnly:
	default:
		tell(fmt.Sprintf("kind %q is not local-first, weighted or failover-only; it is taken for local-first", p.Kind))
		p.Kind = LocalFirst
	}
	if p.Weight == 0 {
		p.Weight = 1
	}
	if !isAmount(p.Weight) {
		tell(fmt.Sprintf("weight %v is no weight; it is taken for 1", p.Weight))
		p.Weight = 1
	}
	p.To = slices.Clone(p.To)
	for i := range p.To {
		p.To[i] = p.To[i].accept(tell)
	}
	return p
}

// names tells whether a site is in the policy.
func (p Policy) names(site string) bool {
	return p.Site == site || slices.ContainsFunc(p.To, func(c Policy) bool { return c.names(site) })
}

// whole is the policy with this site in it, and with all others if it names none.
func (p Policy) whole(here string, capacity float64, others []SiteSummary) Policy {
	if p.Site == "" && len(p.To) == 0 {
		byDistance := slices.SortedFunc(slices.Values(others), func(a, b SiteSummary) int {
			return cmp.Or(cmp.Compare(a.Distance, b.Distance), cmp.Compare(a.Name, b.Name))
		})
		for _, o := range byDistance {
			p.To = append(p.To, Policy{Site: o.Name, Weight: orNone(o.Capacity)})
		}
		if p.Kind == Weighted {
			p.To = append([]Policy{{Site: here, Weight: capacity}}, p.To...)
		}
	}
	if p.names(here) {
		return p
	}
	kind := LocalFirst
	if p.Kind == FailoverOnly {
		kind = FailoverOnly
	}
	return Policy{Kind: kind, To: []Policy{{Site: here}, p}}
}

// place is what a site can take of the new flows, and what it is given.
type place struct {
	alive bool    // works, and is believed
	here  bool    // is this site
	room  float64 // share that its load allows
	share float64 // what it has got
}

// places are those of a service by name, and how they come in its policy.
type places map[string]*place

// order is the names in the order of the policy, each once.
func (p Policy) order(dst []string) []string {
	if p.Site != "" && !slices.Contains(dst, p.Site) {
		dst = append(dst, p.Site)
	}
	for _, c := range p.To {
		dst = c.order(dst)
	}
	return dst
}

// alive tells whether anything in the policy works.
func (p Policy) alive(at places) bool {
	if l, ok := at[p.Site]; ok {
		return l.alive
	}
	return slices.ContainsFunc(p.To, func(c Policy) bool { return c.alive(at) })
}

// rounding is a share that is none: far less than a slot.
const rounding = 1e-9

// give divides an amount of new flows and returns what was taken.
func (p Policy) give(amount float64, at places) float64 {
	if p.Site != "" {
		l, ok := at[p.Site]
		if !ok || !l.alive {
			return 0
		}
		take := max(0, min(amount, l.room-l.share))
		l.share += take
		return take
	}
	switch p.Kind {
	case Weighted:
		return p.giveByWeight(amount, at)
	case FailoverOnly:
		for _, c := range p.To {
			if l, ok := at[c.Site]; ok && l.alive && l.here {
				l.share += amount
				return amount
			}
			if c.alive(at) {
				return c.give(amount, at)
			}
		}
		return 0
	}
	left := amount
	for _, c := range p.To {
		left -= c.give(left, at)
	}
	return amount - left
}

func (p Policy) giveByWeight(amount float64, at places) float64 {
	left := amount
	hungry := slices.DeleteFunc(slices.Clone(p.To), func(c Policy) bool { return !c.alive(at) })
	for left > rounding && len(hungry) > 0 {
		var weights float64
		for _, c := range hungry {
			weights += c.Weight
		}
		if weights == 0 {
			break
		}
		round := left
		hungry = slices.DeleteFunc(hungry, func(c Policy) bool {
			part := round * c.Weight / weights
			took := c.give(part, at)
			left -= took
			return took < part-rounding
		})
		if left >= round-rounding {
			break // nobody took any, or all
		}
	}
	return amount - left
}
