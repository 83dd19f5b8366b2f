package upstreams

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/razor-steering/razor/steering"
)

// model turns keys into snapshots. It belongs to one goroutine.
type model struct {
	configured []string // zones of the configuration, wire form; none: every CONFIG is one
	values     map[keyID]*value
	refs       map[string]int             // names that sticky names, places, prefixes and groups lead to
	routesOf   map[string]map[string]bool // routes that have an edge
	snapshot   *Snapshot
	emptied    []string // pools of which the last apply left nothing to answer
	drained    []string // routes that the last apply found drained as a whole
}

func newModel(zones []string) *model {
	return &model{configured: zones, values: map[keyID]*value{}, refs: map[string]int{}, routesOf: map[string]map[string]bool{}, snapshot: &Snapshot{}}
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

// apply makes the snapshot after some changes. The work grows with what they
// touch, not with the lists.
func (m *model) apply(changes []change) *Snapshot {
	next := *m.snapshot
	m.emptied, m.drained = nil, nil
	t := touched{names: map[string]bool{}, zones: map[string]bool{}, apps: map[string]bool{}}
	for _, c := range changes {
		m.store(c, &next, &t)
	}
	if t.geography {
		next.places, next.subnets = m.places(), m.subnets()
	}
	m.buildApps(&next, t.apps)
	m.buildNames(&next, t.names)
	m.buildZones(&next, &t)
	m.snapshot = &next
	return m.snapshot
}

// touched is what a batch of changes concerns.
type touched struct {
	names     map[string]bool // whose keys changed, or that are now or no longer referred to
	zones     map[string]bool // whose CONFIG or skip list changed
	apps      map[string]bool // whose upstream list or META changed
	geography bool
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
	case kindSkip:
		t.zones[c.id.name] = true
	case kindGeo, kindSubnet:
		t.geography = true
	case kindUpstream, kindMeta:
		t.apps[c.id.name] = true
	case kindConfig:
		t.zones[c.id.name] = true
		t.names[c.id.name] = true
	default:
		t.names[c.id.name] = true
	}
	switch c.id.kind {
	case kindPool, kindState: // of an edge, perhaps
		for route := range m.routesOf[c.id.name] {
			t.names[route] = true
		}
	case kindEdges:
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

// relink keeps which routes have an edge.
func (m *model) relink(route string, old, v *value) {
	if old != nil {
		for _, e := range old.edges {
			if delete(m.routesOf[e], route); len(m.routesOf[e]) == 0 {
				delete(m.routesOf, e)
			}
		}
	}
	if v != nil {
		for _, e := range v.edges {
			if m.routesOf[e] == nil {
				m.routesOf[e] = map[string]bool{}
			}
			m.routesOf[e][route] = true
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
	edit := s.apps.edit()
	for app := range apps {
		if old, _ := edit.getString(app); old != nil {
			s.EndpointCount -= len(old.Endpoints)
		}
		v := m.values[keyID{kind: kindUpstream, name: app}]
		if v == nil {
			edit.remove(app)
			continue
		}
		u := &Upstream{Endpoints: v.list}
		if v := m.values[keyID{kind: kindMeta, name: app}]; v != nil {
			u.Source, u.Index, u.Updated = v.meta.source, v.meta.index, v.meta.updated
		}
		s.EndpointCount += len(u.Endpoints)
		edit.set(app, u)
	}
	s.apps = edit.done()
}

// buildNames renews the touched names and the counts of their ancestors.
func (m *model) buildNames(s *Snapshot, names map[string]bool) {
	if len(names) == 0 {
		return
	}
	edit := s.names.edit()
	for name := range names {
		old, _ := edit.getString(name)
		n := m.name(name)
		if old != nil {
			n.below = old.below
		}
		put(edit, name, n)
		s.Drained += count(n.drained) - count(old != nil && old.drained)
		if n.drained && (old == nil || !old.drained) {
			m.drained = append(m.drained, NameText(name))
		}
		had := old != nil && old.keys > 0
		switch has := n.keys > 0; {
		case has && !had:
			s.NameCount++
			countBelow(edit, name, 1)
		case had && !has:
			s.NameCount--
			countBelow(edit, name, -1)
		}
	}
	s.names = edit.done()
}

// put keeps a name only as long as it says something.
func put(edit *tableEdit[*Name], name string, n *Name) {
	if n.keys == 0 && n.below == 0 {
		edit.remove(name)
		return
	}
	edit.set(name, n)
}

func countBelow(edit *tableEdit[*Name], name string, by int) {
	for up := parent(name); len(up) > 1; up = parent(up) {
		var n Name
		if old, _ := edit.getString(up); old != nil {
			n = *old
		}
		n.below += by
		put(edit, up, &n)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// name collects the keys of one name.
func (m *model) name(name string) *Name {
	n := &Name{State: m.state(name)}
	var edges []string
	if v := m.values[keyID{kind: kindEdges, name: name}]; v != nil {
		edges = v.edges
		n.keys++
	}
	n.drained = len(edges) > 0 || n.State != Active
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if m.values[keyID{kindPool, f, name}] != nil {
			n.keys++
		}
		n.pools[f] = m.pool(f, name, edges)
		n.drained = n.drained && n.pools[f] == nil
	}
	n.drained = n.drained && m.hasPool(append(slices.Clone(edges), name))
	if v := m.values[keyID{kind: kindGroups, name: name}]; v != nil {
		n.Groups = v.groups
		n.keys++
	}
	if v := m.values[keyID{kind: kindSticky, name: name}]; v != nil {
		n.Route = v.route
		n.keys++
	}
	if v := m.values[keyID{kind: kindConfig, name: name}]; v != nil {
		n.Count, n.Shard = v.config.count, v.config.shard
		n.keys++
	}
	return n
}

func (m *model) state(edge string) AdminState {
	if v := m.values[keyID{kind: kindState, name: edge}]; v != nil {
		return v.state
	}
	return Active
}

// pool is the union of the pools of a name and its edges, without what is not
// active; nil without any. Of a name without edges it is the value's own: no two
// names share one, as what a skip list leaves is kept by pool.
func (m *model) pool(f steering.Family, name string, edges []string) *steering.Pool {
	var own *steering.Pool
	if v := m.values[keyID{kindPool, f, name}]; v != nil && m.state(name) == Active {
		own = v.pool
	}
	if len(edges) == 0 {
		return own
	}
	members := slices.Collect(own.Members())
	for _, e := range edges {
		if v := m.values[keyID{kindPool, f, e}]; v != nil && m.state(e) == Active {
			members = slices.AppendSeq(members, v.pool.Members())
		}
	}
	if len(members) == 0 {
		return nil
	}
	return steering.NewPool(f, members)
}

// hasPool tells whether one of the names has a pool, whatever its state.
func (m *model) hasPool(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return m.values[keyID{kindPool, steering.IPv4, name}] != nil || m.values[keyID{kindPool, steering.IPv6, name}] != nil
	})
}

// buildZones renews the touched zones, and what skip lists leave of the touched
// names' pools.
func (m *model) buildZones(s *Snapshot, t *touched) {
	s.zones = maps.Clone(s.zones)
	if s.zones == nil {
		s.zones = map[string]*Zone{}
	}
	renewed := map[*Zone]bool{}
	for name := range t.zones {
		// Asked of the last snapshot: as the zone around another one it may be
		// gone already.
		_, was := m.snapshot.zones[name]
		z := m.renew(s, name, renewed)
		if was != (z != nil) { // names pass between it and the zone around it
			if around := s.Zone([]byte(parent(name))); around != nil {
				m.renew(s, around.Name, renewed)
			}
		}
	}
	if len(t.zones) > 0 {
		s.depths = [128]bool{}
		for name := range s.zones {
			s.depths[labels(name)] = true
		}
	}
	m.withoutAll(s, renewed)
	for _, z := range s.zones {
		if !renewed[z] && (z.skip[0] != nil || z.skip[1] != nil) {
			m.withoutTouched(s, z, t.names)
		}
	}
	slices.Sort(m.emptied) // one zone's skip list is enough to be named
	m.emptied = slices.Compact(m.emptied)
	s.Emptied = 0
	for _, z := range s.zones {
		for _, left := range z.without {
			if left.Len() == 0 {
				s.Emptied++
			}
		}
	}
}

// renew makes a zone anew from its keys, or takes it out.
func (m *model) renew(s *Snapshot, name string, renewed map[*Zone]bool) *Zone {
	delete(renewed, s.zones[name])
	z := m.zone(name)
	if z == nil {
		delete(s.zones, name)
		return nil
	}
	s.zones[name] = z
	renewed[z] = true
	return z
}

// zone is the zone of a name with a CONFIG that makes it one: it has an SOA, and
// is one of the configured zones if there are any.
func (m *model) zone(name string) *Zone {
	if len(m.configured) > 0 && !slices.Contains(m.configured, name) {
		return nil
	}
	v := m.values[keyID{kind: kindConfig, name: name}]
	if v == nil || v.config.soa == nil {
		return nil
	}
	c := v.config
	z := &Zone{Name: name, Text: NameText(name), SOA: c.soa, NS: c.ns, TTL: c.ttl, Answer: c.answer, Count: max(c.count, 1), Shard: c.shard, NoECS: c.noECS}
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if v := m.values[keyID{kindSkip, f, name}]; v != nil {
			z.skip[f] = v.skip
		}
	}
	return z
}

// withoutAll takes the skip lists of some zones off every pool that they can
// answer from.
func (m *model) withoutAll(s *Snapshot, zones map[*Zone]bool) {
	skipping := map[*Zone]bool{}
	for z := range zones {
		if z.skip[0] != nil || z.skip[1] != nil {
			z.without = map[*steering.Pool]*steering.Pool{}
			skipping[z] = true
		}
	}
	if len(skipping) == 0 {
		return
	}
	for name, n := range s.names.all() {
		if m.refs[name] > 0 {
			for z := range skipping {
				m.take(z, name, n)
			}
		} else if z := s.Zone([]byte(name)); skipping[z] {
			m.take(z, name, n)
		}
	}
}

// withoutTouched does so for the names that changed, on a copy of the zone.
func (m *model) withoutTouched(s *Snapshot, z *Zone, names map[string]bool) {
	var next *Zone
	for name := range names {
		old, n := m.snapshot.Route(name), s.Route(name)
		if m.refs[name] == 0 && s.Zone([]byte(name)) != s.zones[z.Name] {
			if n = nil; !z.touches(old) {
				continue
			}
		}
		if next == nil {
			c := *z
			next = &c
			next.without = maps.Clone(z.without)
			s.zones[z.Name] = next
		}
		// What is left of the last snapshot's pools is of no more use.
		if old != nil {
			for _, p := range old.pools {
				delete(next.without, p)
			}
		}
		if n != nil {
			m.take(next, name, n)
		}
	}
}

// touches tells whether the skip lists take something from a pool of the name.
func (z *Zone) touches(n *Name) bool {
	if n == nil {
		return false
	}
	for _, p := range n.pools {
		if _, ok := z.without[p]; ok {
			return true
		}
	}
	return false
}

// take keeps what the zone's skip lists leave of a name's pools, where they
// touch them.
func (m *model) take(z *Zone, name string, n *Name) {
	for f, p := range n.pools {
		if p == nil || z.skip[f] == nil {
			continue
		}
		left := p.Without(z.skip[f])
		if left == p {
			continue
		}
		z.without[p] = left
		if left.Len() == 0 {
			m.emptied = append(m.emptied, keyID{kindPool, steering.Family(f), name}.spelling())
		}
	}
}
