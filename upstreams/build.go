package upstreams

import (
	"net/netip"
	"slices"
	"time"
)

// model turns keys into snapshots. It belongs to one goroutine.
type model struct {
	configured []string // zones of the configuration, wire form; none: every CONFIG is one
	values     map[keyID]*value
	refs       map[string]int             // names that sticky names, places, prefixes and groups lead to
	routesOf   map[string]map[string]bool // routes that have an edge
	valid      map[string]validity        // zones with blackholes that end
	pulse      *pulse                     // the health of edges
	degraded   map[string]bool            // names of whose pools something is not healthy
	now        func() time.Time           // the wall clock, which those ends are told by
	snapshot   *Snapshot
	emptied    []string        // pools of which the last apply left nothing to answer
	drained    []string        // routes that the last apply found drained as a whole
	turned     map[string]turn // edges whose health the last apply found to be another
}

func newModel(zones []string) *model {
	return &model{configured: zones, values: map[keyID]*value{}, refs: map[string]int{}, routesOf: map[string]map[string]bool{}, valid: map[string]validity{}, pulse: newPulse(HealthRules{}), degraded: map[string]bool{}, now: time.Now, snapshot: &Snapshot{superseded: make(chan struct{})}}
}

// isApex tells whether sticky names below a name are of interest: it is a zone of
// the configuration or, without any there, has a CONFIG.
func (m *model) isApex(name string) bool {
	if len(m.configured) > 0 {
		return slices.Contains(m.configured, name)
	}
	return m.values[keyID{kind: kindConfig, name: name}] != nil
}

// strays are the changes that take out sticky names which no zone has any more.
// A scan would not read them, and must not find them lost.
func (m *model) strays() []change {
	var out []change
	for id := range m.values {
		if id.kind == kindSticky && !below(id.name, m.isApex) {
			out = append(out, change{id, nil})
		}
	}
	return out
}

// below tells whether a name is or is below one that apex is true for.
func below(name string, apex func(string) bool) bool {
	for up := name; len(up) > 1; up = parent(up) {
		if apex(up) {
			return true
		}
	}
	return false
}

// change is the new content of one key; nil removes it.
type change struct {
	id    keyID
	value *value
}

// apply makes the snapshot after some changes and the time that has passed. The
// work grows with what they touch, not with the lists.
func (m *model) apply(changes []change) *Snapshot {
	next := *m.snapshot
	next.superseded = make(chan struct{})
	m.emptied, m.drained = nil, nil
	t := touched{names: map[string]bool{}, zones: map[string]bool{}, apps: map[string]bool{}}
	for _, c := range changes {
		m.store(c, &next, &t)
	}
	m.pulse.hear(changes)
	m.turned, m.pulse.turned = m.pulse.turned, map[string]turn{}
	for edge := range m.turned {
		t.edge(m, edge)
	}
	for _, zone := range m.outdated() {
		t.zones[zone] = true
	}
	if t.geography {
		next.places, next.subnets = m.places(), m.subnets()
	}
	m.buildApps(&next, t.apps)
	m.buildNames(&next, t.names)
	m.buildZones(&next, &t)
	m.buildHealth(&next, &t)
	m.snapshot = &next
	return m.snapshot
}

// touched is what a batch of changes concerns.
type touched struct {
	names     map[string]bool // whose keys changed, or that are now or no longer referred to
	zones     map[string]bool // whose CONFIG, skip list or blackhole changed
	apps      map[string]bool // whose upstream list or META changed
	geography bool
	edges     bool // which edges there are, or their health
}

// edge notes that the pool, the state or the health of what may be an edge changed.
func (t *touched) edge(m *model, name string) {
	t.names[name] = true
	for route := range m.routesOf[name] {
		t.names[route] = true
	}
}

// store keeps one value and notes what has to be built anew.
func (m *model) store(c change, s *Snapshot, t *touched) {
	old := m.values[c.id]
	if old == nil && c.value == nil {
		return
	}
	if c.value == nil {
		delete(m.values, c.id)
	} else {
		m.values[c.id] = c.value
	}
	switch c.id.kind {
	case kindSkip, kindBlackhole:
		t.zones[c.id.name] = true
	case kindGeo, kindSubnet:
		t.geography = true
	case kindUpstream, kindMeta:
		t.apps[c.id.name] = true
	case kindConfig:
		t.zones[c.id.name] = true
		t.names[c.id.name] = true
	case kindHealth:
		t.names[c.id.name], t.edges = true, true
	default:
		t.names[c.id.name] = true
	}
	switch c.id.kind {
	case kindPool, kindState: // of an edge, perhaps
		t.edge(m, c.id.name)
	case kindEdges:
		t.edges = true
		m.relink(c.id.name, old, c.value)
	}
	s.MemberCount += memberCount(c.value) - memberCount(old)
	for name := range c.value.leadsTo() {
		if m.refs[name]++; m.refs[name] == 1 {
			t.names[name] = true
		}
	}
	for name := range old.leadsTo() {
		if m.refs[name]--; m.refs[name] == 0 {
			delete(m.refs, name)
			t.names[name] = true
		}
	}
}

func memberCount(v *value) int {
	if v == nil {
		return 0
	}
	return v.pool.Len()
}

// leadsTo visits the names whose pools the value makes answers of.
func (v *value) leadsTo() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if v == nil {
			return
		}
		if v.route != "" && !yield(v.route) {
			return
		}
		if v.groups != nil {
			for _, r := range v.groups.routes {
				if !yield(r) {
					return
				}
			}
		}
	}
}

func (m *model) places() map[string]string {
	out := map[string]string{}
	for id, v := range m.values {
		if id.kind == kindGeo {
			out[id.name] = v.route
		}
	}
	return out
}

func (m *model) subnets() *subnets {
	routes := map[netip.Prefix]string{}
	for id, v := range m.values {
		if id.kind == kindSubnet {
			routes[netip.MustParsePrefix(id.name)] = v.route
		}
	}
	return newSubnets(routes)
}

// buildApps renews the touched upstream lists.
func (m *model) buildApps(s *Snapshot, apps map[string]bool) {
	if len(apps) == 0 {
		return
	}
	edit, above := s.apps.edit(), s.above.edit()
	for app := range apps {
		old, _ := edit.getString(app)
		if old != nil {
			s.EndpointCount -= len(old.Endpoints)
		}
		v := m.values[keyID{kind: kindUpstream, name: app}]
		if by := count(v != nil) - count(old != nil); by != 0 {
			countAbove(above, app, by)
		}
		if v == nil {
			edit.remove(app)
			continue
		}
		u := &Upstream{Endpoints: v.list}
		if v := m.values[keyID{kind: kindMeta, name: app}]; v != nil {
			u.Meta = v.meta.Meta
		}
		s.EndpointCount += len(u.Endpoints)
		if !u.equal(old) {
			edit.set(app, u)
		}
	}
	s.apps, s.above = edit.done(), above.done()
}

// countAbove notes at every name above an application that it came or went.
func countAbove(above *tableEdit[int], app string, by int) {
	for up := parent(app); len(up) > 1; up = parent(up) {
		n, _ := above.getString(up)
		if n += by; n == 0 {
			above.remove(up)
		} else {
			above.set(up, n)
		}
	}
}
