package upstreams

import (
	"cmp"
	"maps"
	"slices"

	"github.com/razor-steering/razor/steering"
)

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
	delete(m.valid, name)
	if len(m.configured) > 0 && !slices.Contains(m.configured, name) {
		return nil
	}
	v := m.values[keyID{kind: kindConfig, name: name}]
	if v == nil || v.config.soa == nil {
		return nil
	}
	c := v.config
	z := &Zone{
		Name: name, Text: NameText(name), SOA: c.soa, NS: c.ns, TTL: c.ttl, Answer: c.answer, Count: max(c.count, 1), Shard: c.shard, NoECS: c.noECS,
		Floor: defaultFloor, OnEmpty: cmp.Or(c.empty, OnEmptyOpen), ALPN: c.alpn, Port: c.port,
	}
	if c.floor != nil {
		z.Floor = *c.floor
	}
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if v := m.values[keyID{kindSkip, f, name}]; v != nil {
			z.skip[f] = v.skip
		}
	}
	m.blackhole(z)
	return z
}

// withoutAll takes the skip lists of some zones off every pool that they can
// answer from.
func (m *model) withoutAll(s *Snapshot, zones map[*Zone]bool) {
	skipping := map[*Zone]bool{}
	for z := range zones {
		if z.skip[0] != nil || z.skip[1] != nil {
			z.without, z.sound = map[*steering.Pool]*steering.Pool{}, map[*steering.Pool]*steering.Pool{}
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
			next.without, next.sound = maps.Clone(z.without), maps.Clone(z.sound)
			s.zones[z.Name] = next
		}
		// What is left of the last snapshot's pools is of no more use.
		if old != nil {
			for _, p := range old.pools {
				delete(next.without, p)
			}
			for _, p := range old.healthy {
				delete(next.sound, p)
			}
		}
		if n != nil {
			m.take(next, name, n)
		}
	}
}

// take keeps what the zone's skip lists leave of a name's pools, where they
// touch them.
func (m *model) take(z *Zone, name string, n *Name) {
	for f, p := range n.pools {
		if p == nil || z.skip[f] == nil {
			continue
		}
		if h := n.healthy[f]; h != p {
			if left := h.Without(z.skip[f]); left != h {
				z.sound[h] = left
			}
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

// buildHealth counts edges by their health, and finds the routes below FLOOR.
func (m *model) buildHealth(s *Snapshot, t *touched) {
	if t.edges || len(m.turned) > 0 {
		s.Edges = map[EdgeHealth]int{}
		for edge := range m.pulse.edges {
			s.Edges[m.pulse.of(edge)]++
		}
		for edge := range m.routesOf {
			if m.pulse.edges[edge] == nil {
				s.Edges[EdgeUnknown]++
			}
		}
	}
	s.BelowFloor = nil
	for name := range m.degraded {
		for _, z := range s.zones {
			if (m.refs[name] > 0 || s.Zone([]byte(name)) == z) && z.falls(s.Route(name)) {
				s.BelowFloor = append(s.BelowFloor, NameText(name))
				break
			}
		}
	}
	slices.Sort(s.BelowFloor)
}

// falls tells whether a name's health is below FLOOR in a family.
func (z *Zone) falls(n *Name) bool {
	if n == nil {
		return false
	}
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if n.healthy[f] != n.pools[f] && z.belowFloor(n, z.Eligible(n.pools[f]).Len(), z.healthyOf(n, f).Len()) {
			return true
		}
	}
	return false
}
