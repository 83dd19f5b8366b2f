package upstreams

import (
	"net/netip"
	"slices"

	"github.com/razor-steering/razor/steering"
)

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
	n := &Name{State: m.state(name), Said: EdgeUnknown}
	if v := m.values[keyID{kind: kindHealth, name: name}]; v != nil {
		n.Said = v.said.Health
	}
	var edges []string
	if v := m.values[keyID{kind: kindEdges, name: name}]; v != nil {
		edges = v.edges
		n.keys++
	}
	var own [2]*steering.Pool
	n.drained = len(edges) > 0 || n.State != Active && m.refs[name] > 0
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if v := m.values[keyID{kindPool, f, name}]; v != nil {
			own[f] = v.pool
			n.keys++
		}
		n.pools[f], n.healthy[f] = m.pool(f, name, edges)
		n.drained = n.drained && n.pools[f] == nil
	}
	if n.healthy != n.pools {
		m.degraded[name] = true
	} else {
		delete(m.degraded, name)
	}
	if own != n.pools {
		n.own = &own
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
		c := v.config
		n.Count, n.Shard, n.Floor, n.OnEmpty, n.ALPN, n.Port = c.count, c.shard, c.floor, c.empty, c.alpn, c.port
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
// active, and what of that is healthy: the same pool where all is; each nil without any.
// Of a name without edges it is the value's own: no two names share one, as what a
// skip list leaves is kept by pool.
//
// Edges whose gateway drains are left out as those that an operator drains are, before
// health and FLOOR, unless there are no others: then they are what is not healthy. A
// restart of all gateways at once empties nothing.
func (m *model) pool(f steering.Family, name string, edges []string) (all, healthy *steering.Pool) {
	var staying, sound, leaving []*steering.Pool
	for i, e := range append([]string{name}, edges...) {
		v := m.values[keyID{kindPool, f, e}]
		if v == nil || m.state(e) != Active || i > 0 && e == name {
			continue
		}
		health := m.pulse.of(e)
		if health == EdgeDraining {
			leaving = append(leaving, v.pool)
			continue
		}
		staying = append(staying, v.pool)
		if health.answers() {
			sound = append(sound, v.pool)
		}
	}
	if len(staying) == 0 {
		staying = leaving
	}
	all = union(f, staying, len(edges) == 0)
	if len(sound) == len(staying) {
		return all, all
	}
	return all, union(f, sound, false)
}

// union is all members of some pools; nil without any. One that is alone may be the
// union itself.
func union(f steering.Family, pools []*steering.Pool, itself bool) *steering.Pool {
	switch {
	case len(pools) == 0:
		return nil
	case itself:
		return pools[0]
	}
	var members []netip.Prefix
	for _, p := range pools {
		members = slices.AppendSeq(members, p.Members())
	}
	return steering.NewPool(f, members)
}

// hasPool tells whether one of the names has a pool, whatever its state.
func (m *model) hasPool(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return m.values[keyID{kindPool, steering.IPv4, name}] != nil || m.values[keyID{kindPool, steering.IPv6, name}] != nil
	})
}
