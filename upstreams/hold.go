package upstreams

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/steering"
)

// loss is what a wholesale event in Redis would take from the lists: how much
// is missing, and of how much.
type loss struct {
	Zones                  []string // zones whose CONFIG is missing, or the SOA in it; presentation form
	Names, NamesOf         int
	Members, MembersOf     int
	Endpoints, EndpointsOf int
	Guards                 int // skip lists, blackholes, and states that take an edge out of the answers, not wholly there
}

const (
	holdShare = 20 // per cent of names, members or endpoints whose loss starts a hold
	backShare = 10 // per cent that may still be missing when it ends

	// settleTime is for how long nothing more has come back when a hold ends with
	// something missing: lists that are being put back are put back to the last.
	settleTime = time.Second
)

// serious tells whether the loss is not obeyed.
func (l loss) serious() bool { return l.exceeds(holdShare) }

// healed tells whether enough is back for a hold to end. What keeps addresses from
// being answered has to be: the order in which lists are put back must not answer
// an attacked one.
func (l loss) healed() bool { return !l.exceeds(backShare) && l.Guards == 0 }

// missing counts all that is not back.
func (l loss) missing() int {
	return len(l.Zones) + l.Names + l.Members + l.Endpoints + l.Guards
}

func (l loss) exceeds(percent int) bool {
	return len(l.Zones) > 0 || l.Names*100 > l.NamesOf*percent ||
		l.Members*100 > l.MembersOf*percent || l.Endpoints*100 > l.EndpointsOf*percent
}

// String is the loss in a few words.
func (l loss) String() string {
	s := fmt.Sprintf("%d zones, %d of %d names, %d of %d members", len(l.Zones), l.Names, l.NamesOf, l.Members, l.MembersOf)
	if l.EndpointsOf > 0 {
		s += fmt.Sprintf(", %d of %d endpoints", l.Endpoints, l.EndpointsOf)
	}
	if l.Guards > 0 {
		s += fmt.Sprintf(", %d skip lists, blackholes and states", l.Guards)
	}
	return s + " missing"
}

// lossOf compares the values before, which made zones, with those in Redis now.
// A name is lost when none of its keys is left.
func lossOf(before, now map[keyID]*value, zones map[string]*Zone, at time.Time) loss {
	var l loss
	left := map[string]bool{} // names before, and whether a key is left
	for id, old := range before {
		v := now[id]
		switch id.kind {
		case kindSkip, kindBlackhole, kindState:
			if old.guardsMore(v, at) {
				l.Guards++
			}
			continue
		case kindGeo, kindSubnet, kindMeta, kindHealth:
			continue
		case kindUpstream:
			l.EndpointsOf += len(old.list)
			l.Endpoints += missingEndpoints(old, v)
			continue
		case kindPool:
			l.MembersOf += old.pool.Len()
			l.Members += missing(old, v)
		case kindConfig:
			if zones[id.name] != nil && (v == nil || v.config.soa == nil) {
				l.Zones = append(l.Zones, NameText(id.name))
			}
		}
		left[id.name] = left[id.name] || v != nil
	}
	l.NamesOf = len(left)
	for _, ok := range left {
		if !ok {
			l.Names++
		}
	}
	return l
}

// missing counts the members of an old pool that the new one lacks.
func missing(old, v *value) int {
	if v == nil {
		return old.pool.Len()
	}
	if v == old {
		return 0
	}
	n := 0
	for m := range old.pool.Members() {
		if !v.pool.Contains(m) {
			n++
		}
	}
	return n
}

// missingEndpoints counts the endpoints of an old list whose address the new one
// lacks.
func missingEndpoints(old, v *value) int {
	if v == nil {
		return len(old.list)
	}
	n := 0
	for _, e := range old.list {
		if !hasEndpoint(v.list, e.Addr) {
			n++
		}
	}
	return n
}

func hasEndpoint(list []Endpoint, addr netip.AddrPort) bool {
	_, ok := slices.BinarySearchFunc(list, addr, func(e Endpoint, a netip.AddrPort) int { return e.Addr.Compare(a) })
	return ok
}

// hold is the state in which a mass loss in Redis is not obeyed: what is there
// overrides, what is missing keeps its last value.
type hold struct {
	since   time.Time
	cause   string
	before  map[keyID]*value // the lists when the loss came
	zones   map[string]*Zone // that were answered for then
	present map[keyID]*value // what is in Redis now
	loss    loss
	changed time.Time // when something came back last
}

// evaluate counts what is missing, and tells whether the hold ends.
func (h *hold) evaluate(now time.Time) bool {
	was := h.loss.missing()
	h.loss = lossOf(h.before, h.present, h.zones, now)
	if h.loss.missing() != was {
		h.changed = now
	}
	return h.loss.healed() && (h.loss.missing() == 0 || now.Sub(h.changed) >= settleTime)
}

// merge lays a scan over the values. It returns the changes to make, and the
// hold that is on then: a new one, the old one, or nil.
func merge(h *hold, values, scan map[keyID]*value, cause string, now time.Time, zones map[string]*Zone) ([]change, *hold) {
	if h == nil {
		if loss := lossOf(values, scan, zones, now); loss.serious() {
			h = &hold{since: now, cause: cause, before: maps.Clone(values), zones: zones, loss: loss, changed: now}
		}
	}
	if h != nil {
		h.present = scan
	}
	var out []change
	for id, v := range scan {
		if h != nil {
			v = h.serve(id, v, values[id])
		}
		if values[id] != v {
			out = append(out, change{id, v})
		}
	}
	if h != nil {
		return out, h
	}
	for id := range values {
		if scan[id] == nil {
			out = append(out, change{id, nil})
		}
	}
	return out, nil
}

// keepZone is a value during a hold: a CONFIG that is being put back field by
// field is a zone all the while, by its last SOA.
func keepZone(v, old *value) *value {
	if v == nil || v.config == nil || v.config.soa != nil || old == nil || old.config.soa == nil {
		return v
	}
	if kept := (&value{config: v.config.keeping(old.config, "SOA")}); !kept.equal(old) {
		return kept
	}
	return old
}

// serve is what is answered by during the hold where Redis has v; old is what was
// answered by until now.
func (h *hold) serve(id keyID, v, old *value) *value {
	switch before := h.before[id]; {
	case v == nil || id.kind == kindConfig:
		return keepZone(v, old)
	case before == nil || id.kind != kindSkip && id.kind != kindBlackhole:
		return v
	default:
		v = before.withGuards(id.family, v)
	}
	if old != nil && v.equal(old) {
		return old
	}
	return v
}

// edit notes an edit during the hold: it is obeyed, also a removal, and what it
// removed is not waited for.
func (h *hold) edit(c change) {
	was := h.present[c.id]
	if c.value == nil {
		delete(h.present, c.id)
		delete(h.before, c.id)
		return
	}
	h.present[c.id] = c.value
	before := h.before[c.id]
	if was == nil || before == nil || was == c.value {
		return
	}
	switch c.id.kind {
	case kindUpstream:
		h.before[c.id] = &value{list: slices.DeleteFunc(slices.Clone(before.list), func(e Endpoint) bool {
			return hasEndpoint(was.list, e.Addr) && !hasEndpoint(c.value.list, e.Addr)
		})}
	case kindSkip, kindBlackhole:
		h.before[c.id] = before.withoutGuards(c.id.family, was.guarded(), c.value.guarded())
	case kindPool:
		h.editPool(c, before, was)
	}
}

func (h *hold) editPool(c change, before, was *value) {
	var left []netip.Prefix
	for m := range before.pool.Members() {
		if !was.pool.Contains(m) || c.value.pool.Contains(m) {
			left = append(left, m)
		}
	}
	if len(left) < before.pool.Len() {
		h.before[c.id] = &value{pool: steering.NewPool(c.id.family, left)}
	}
}

// release is what ends the hold: from now on Redis is right.
func (h *hold) release(values map[keyID]*value) []change {
	var out []change
	for id, v := range values {
		if h.present[id] != v {
			out = append(out, change{id, h.present[id]})
		}
	}
	return out
}
