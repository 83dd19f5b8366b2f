package upstreams

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Edge is what an edge has in the pool of one route.
type Edge struct {
	Name  string    `json:"edge"`
	Route string    `json:"route,omitempty"` // "" where it is in no route's pool
	A     PoolShare `json:"a"`
	AAAA  PoolShare `json:"aaaa"`
	State string    `json:"state"`
	Since time.Time `json:"since,omitzero"` // of the state; zero where that is not known
	// Health is by what the lists show now: what razor dns answers by is damped.
	Health EdgeHealth `json:"health"`
	Reason string     `json:"health_reason,omitempty"`
	Heard  time.Time  `json:"heard,omitzero"`         // when its gateway said so; zero where it does not say
	Age    float64    `json:"heard_before,omitempty"` // seconds, from then to the last word of any gateway
}

// PoolShare is an edge's part of a route's pool in one family.
type PoolShare struct {
	Members int     `json:"members"` // of the edge
	Share   float64 `json:"share"`   // 0 to 1, of what the route is answered from now
}

// EdgesLive writes every edge in Redis, a row for each route that it is in. In text
// the routes of which every edge is drained follow.
func EdgesLive(ctx context.Context, cfg Config, zones []string, asJSON bool, w io.Writer) error {
	client, err := newClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := loadModel(ctx, newReader(client), zones)
	if err != nil {
		return err
	}
	edges := m.edges()
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(edges)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "EDGE\tROUTE\tA\tSHARE\tAAAA\tSHARE\tSTATE\tSINCE\tHEALTH")
	for _, e := range edges {
		route, since := e.Route, "-"
		if route == "" {
			route = "-"
		}
		if !e.Since.IsZero() {
			since = e.Since.Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\n", e.Name, route, e.A.Members, percent(e.A.Share), e.AAAA.Members, percent(e.AAAA.Share), e.State, since, e.health())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, route := range drainedRoutes(edges) {
		if _, err := fmt.Fprintf(w, "%s: every edge is drained, answering no data\n", route); err != nil {
			return err
		}
	}
	return nil
}

// health is the health in text, with how long ago its gateway spoke when any last did,
// which clocks of gateways make wrong by as much as they are apart.
func (e *Edge) health() string {
	out := string(e.Health)
	if !e.Heard.IsZero() {
		out += fmt.Sprintf(", heard %v ago", time.Duration(e.Age*float64(time.Second)).Round(100*time.Millisecond))
	}
	if e.Reason != "" {
		out += ": " + Printable(e.Reason)
	}
	return out
}

// describe adds what is known of the health of an edge.
func (p *pulse) describe(edge string, row *Edge) {
	e := p.edges[edge]
	if e == nil {
		return
	}
	row.Reason, row.Heard = e.reason, e.said.At
	if !row.Heard.IsZero() {
		row.Age = p.newest.Sub(row.Heard).Seconds()
	}
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'g', 3, 64) + "%" }

// drainedRoutes are the routes that no edge is active of.
func drainedRoutes(edges []Edge) []string {
	active := map[string]bool{}
	for _, e := range edges {
		if e.Route != "" {
			active[e.Route] = active[e.Route] || e.State == Active.String()
		}
	}
	var out []string
	for _, route := range slices.Sorted(maps.Keys(active)) {
		if !active[route] {
			out = append(out, route)
		}
	}
	return out
}

// loadModel reads all lists of a Redis server once.
func loadModel(ctx context.Context, r *reader, zones []string) (*model, error) {
	configured, err := wireNames(zones)
	if err != nil {
		return nil, err
	}
	got, err := r.scan(ctx, scanning{configured: configured})
	if err != nil {
		return nil, err
	}
	m := newModel(configured)
	changes := make([]change, 0, len(got.values))
	for id, v := range got.values {
		changes = append(changes, change{id, v})
	}
	m.apply(changes)
	return m, nil
}

// edges are the rows of all edges, by name, then route.
func (m *model) edges() []Edge {
	names := map[string]bool{}
	for id := range m.values {
		if id.kind == kindPool || id.kind == kindState || id.kind == kindHealth {
			names[id.name] = true
		}
	}
	for name := range m.routesOf {
		names[name] = true
	}
	out := []Edge{}
	for name := range names {
		row := Edge{Name: NameText(name), State: m.state(name).String(), Health: m.pulse.of(name)}
		m.pulse.describe(name, &row)
		if v := m.values[keyID{kind: kindState, name: name}]; v != nil {
			row.Since = v.since
		}
		routes := m.routesWith(name)
		if len(routes) == 0 {
			out = append(out, row)
		}
		for _, route := range routes {
			row.Route = NameText(route)
			row.A, row.AAAA = m.share(steering.IPv4, name, route), m.share(steering.IPv6, name, route)
			out = append(out, row)
		}
	}
	slices.SortFunc(out, func(a, b Edge) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Route, b.Route)
	})
	return out
}

// routesWith are the routes that have an edge. A name with a pool of its own is a
// route too, unless it is there for the routes that have it as their edge alone.
func (m *model) routesWith(edge string) []string {
	routes := slices.Collect(maps.Keys(m.routesOf[edge]))
	isRoute := len(routes) == 0 || m.refs[edge] > 0 || m.values[keyID{kind: kindEdges, name: edge}] != nil
	if isRoute && m.hasPool([]string{edge}) && !slices.Contains(routes, edge) {
		routes = append(routes, edge)
	}
	slices.Sort(routes)
	return routes
}

// share is what an edge has of a route's pool, less what its zone skips.
func (m *model) share(f steering.Family, edge, route string) PoolShare {
	v := m.values[keyID{kindPool, f, edge}]
	if v == nil {
		return PoolShare{}
	}
	out := PoolShare{Members: v.pool.Len()}
	all := m.snapshot.eligible(f, route)
	if m.state(edge) != Active || all.Len() == 0 {
		return out
	}
	left := v.pool
	if z := m.snapshot.Zone([]byte(route)); z != nil {
		left = left.Without(z.skip[f])
	}
	if !m.pulse.of(edge).answers() && !containsAny(all, left) { // or, by FLOOR, all the same
		return out
	}
	out.Share = float64(left.Len()) / float64(all.Len())
	return out
}

func containsAny(p, of *steering.Pool) bool {
	for m := range of.Members() {
		if p.Contains(m) {
			return true
		}
	}
	return false
}

// eligible is what a route is answered from in the zone that it is in.
func (s *Snapshot) eligible(f steering.Family, route string) *steering.Pool {
	n := s.Route(route)
	if z := s.Zone([]byte(route)); z != nil {
		return z.Answered(n, f)
	}
	return n.Pool(f)
}
