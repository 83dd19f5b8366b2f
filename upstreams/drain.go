package upstreams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/razor-steering/razor/steering"
)

// maxNamed bounds the names that an error lists.
const maxNamed = 20

// DrainEdge takes an edge out of all answers and says since when, and from when on
// resolvers have forgotten its addresses. It refuses what is no edge, and what
// would leave a route without data unless it is forced to. An edge that is not
// active stays as it is. zones are those of the configuration.
func (w *Writer) DrainEdge(ctx context.Context, zones []string, name string, force bool) (string, error) {
	return w.edge(ctx, zones, name, func(m *model, edge string) (AdminState, string, error) {
		routes := m.routesWith(edge)
		if len(routes) == 0 {
			return 0, "", m.noEdge(name)
		}
		if m.state(edge) != Active {
			return m.state(edge), "", nil
		}
		if lost := m.starved(edge, routes); len(lost) > 0 && !force {
			return 0, "", fmt.Errorf("%s is the last active edge: every %s would get no data (--force drains it all the same)", name, strings.Join(lost, ", every "))
		}
		ttl, ok := m.largestTTL(routes)
		if !ok {
			return Draining, "no zone answers its addresses", nil
		}
		forgotten := time.Now().Add(time.Duration(ttl)*time.Second + time.Second).Truncate(time.Second).UTC()
		return Draining, fmt.Sprintf("resolvers have forgotten its addresses at %s (TTL %d s), where lists are not stale", forgotten.Format(time.RFC3339), ttl), nil
	})
}

// UndrainEdge puts an edge back into the answers. It refuses what is no edge and
// has no state.
func (w *Writer) UndrainEdge(ctx context.Context, zones []string, name string) (string, error) {
	return w.edge(ctx, zones, name, func(m *model, edge string) (AdminState, string, error) {
		if len(m.routesWith(edge)) == 0 && m.values[keyID{kind: kindState, name: edge}] == nil {
			return 0, "", m.noEdge(name)
		}
		return Active, "", nil
	})
}

// edgeTries bounds how often a verb on an edge begins anew because a state that it
// depends on was written meanwhile.
const edgeTries = 10

// edge reads the lists of the primary, and writes there the state that decide
// wants, unless it stands there. It returns what there is to say, with the note of
// decide behind it. What decide sees of the states of edges in the same routes is
// true when the state is written: two verbs at once do not empty a route.
func (w *Writer) edge(ctx context.Context, zones []string, name string, decide func(m *model, edge string) (AdminState, string, error)) (said string, err error) {
	edge, err := WireName(trimDot(name))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	for range edgeTries {
		err = w.do(ctx, func(c *redis.Client) error {
			return c.Watch(ctx, func(tx *redis.Tx) error {
				m, err := watchStates(ctx, tx, zones, edge)
				if err != nil {
					return err
				}
				was := m.values[keyID{kind: kindState, name: edge}] // decide tries out another one
				state, note, err := decide(m, edge)
				if err != nil {
					return err
				}
				said, err = setState(ctx, tx, edge, was, state, note)
				return err
			})
		})
		if !errors.Is(err, redis.TxFailedErr) {
			break
		}
	}
	return said, SettingDefect(err)
}

// watchStates reads all lists, and has the transaction fail if the state of an edge
// in one of the routes of edge is written from now on.
func watchStates(ctx context.Context, tx *redis.Tx, zones []string, edge string) (*model, error) {
	r := newReader(tx)
	m, err := loadModel(ctx, r, zones)
	if err != nil {
		return nil, err
	}
	ids := m.statesBeside(edge)
	if err := tx.Watch(ctx, r.spellings(ids)...).Err(); err != nil {
		return nil, err
	}
	var changes []change
	err = r.read(ctx, ids, func(f found) { changes = append(changes, change{f.id, f.value}) }, nil)
	if err == nil {
		m.apply(changes)
	}
	return m, err
}

// statesBeside are the states of an edge and of all that are in a route with it.
func (m *model) statesBeside(edge string) []keyID {
	routes := m.routesWith(edge)
	names := map[string]bool{edge: true}
	for name := range m.routesOf {
		if slices.ContainsFunc(routes, func(route string) bool { return m.routesOf[name][route] }) {
			names[name] = true
		}
	}
	for _, route := range routes { // a route with a pool is an edge of itself
		names[route] = true
	}
	var out []keyID
	for name := range names {
		out = append(out, keyID{kind: kindState, name: name})
	}
	return out
}

// setState writes a state, unless it is what stands in Redis: where there is none,
// or none that can be used, followers may have kept another one. It returns what
// there is to say.
func setState(ctx context.Context, tx *redis.Tx, edge string, was *value, state AdminState, note string) (string, error) {
	if was != nil && was.state == state {
		said := fmt.Sprintf("%s is %s already", NameText(edge), state)
		if !was.since.IsZero() {
			said += " since " + was.since.Format(time.RFC3339)
		}
		return said, nil
	}
	since := time.Now().UTC().Truncate(time.Second)
	var set *redis.StatusCmd
	_, err := tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
		set = p.Set(ctx, keyID{kind: kindState, name: edge}.spelling(), stateText(state, since), 0)
		return nil
	})
	if isReply(set.Err()) { // that of EXEC only says that there was one
		err = set.Err()
	}
	said := fmt.Sprintf("%s is %s since %s", NameText(edge), state, since.Format(time.RFC3339))
	if note != "" {
		said += "\n" + note
	}
	return said, err
}

// noEdge is the error of a name that is no edge, and says what is.
func (m *model) noEdge(name string) error {
	var edges []string
	for e := range m.routesOf {
		edges = append(edges, NameText(e))
	}
	slices.Sort(edges)
	if len(edges) > maxNamed {
		edges = append(edges[:maxNamed], "…")
	}
	if len(edges) == 0 {
		return fmt.Errorf("%s is no edge: no route has EDGES, and it has no pool", name)
	}
	return fmt.Errorf("%s is no edge: it is in no route's EDGES and has no pool; edges are %s", name, strings.Join(edges, ", "))
}

// starved are the queries that would get no data without an edge, and do now. The
// model is then one in which it is draining.
func (m *model) starved(edge string, routes []string) []string {
	before := m.snapshot
	after := m.apply([]change{{keyID{kind: kindState, name: edge}, &value{state: Draining}}})
	var out []string
	for _, route := range routes {
		var lost []string
		left := 0
		for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
			switch n := after.eligible(f, route).Len(); {
			case n > 0:
				left += n
			case before.eligible(f, route).Len() > 0:
				lost = append(lost, recordType(f)+" query for "+NameText(route))
			}
		}
		if len(lost) > 0 && left == 0 {
			lost = []string{"query for " + NameText(route)}
		}
		out = append(out, lost...)
	}
	return out
}

func recordType(f steering.Family) string {
	if f == steering.IPv6 {
		return "AAAA"
	}
	return "A"
}

// largestTTL is that of the zones that answer from one of the routes, in seconds.
// To a route that sticky names, places, prefixes or groups lead to, those of any
// zone may.
func (m *model) largestTTL(routes []string) (ttl uint32, ok bool) {
	for _, z := range m.snapshot.zones {
		concerned := slices.ContainsFunc(routes, func(route string) bool {
			return m.refs[route] > 0 || m.snapshot.Zone([]byte(route)) == z
		})
		if concerned {
			ttl, ok = max(ttl, z.TTL), true
		}
	}
	return ttl, ok
}
