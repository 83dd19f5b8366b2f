package upstreams

import (
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
	n := &Name{State: m.state(name)}
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
		n.pools[f] = m.pool(f, name, edges)
		n.drained = n.drained && n.pools[f] == nil
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
