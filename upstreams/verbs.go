package upstreams

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/steering"
)

// scanLive reads all lists of a Redis server once.
func scanLive(ctx context.Context, cfg Config, zones []string) (*scanned, error) {
	configured, err := wireNames(zones)
	if err != nil {
		return nil, err
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return newReader(client).scan(ctx, scanning{configured: configured})
}

// CheckLive lists every key, field and member in Redis that cannot be used,
// sorted by key. zones are those of the configuration.
func CheckLive(ctx context.Context, cfg Config, zones []string) ([]Defect, error) {
	got, err := scanLive(ctx, cfg, zones)
	if err != nil {
		return nil, err
	}
	out, err := missingRights(ctx, cfg)
	if err != nil {
		return nil, err
	}
	badSOA := map[keyID]bool{} // told already
	for key, defects := range got.defects {
		out = append(out, defects...)
		if slices.ContainsFunc(defects, func(d Defect) bool { return strings.HasPrefix(d.Member, "SOA ") }) {
			id, _ := parseKey(key)
			badSOA[id] = true
		}
	}
	for id, v := range got.values {
		out = append(out, expiredDefects(id, v.blackholes, time.Now())...)
	}
	for _, z := range zones {
		wire, _ := WireName(trimDot(z))
		id := keyID{kind: kindConfig, name: wire}
		if v := got.values[id]; !badSOA[id] && (v == nil || v.config.soa == nil) {
			out = append(out, Defect{Key: z + ":CONFIG", Reason: "the zone has no SOA and is refused", Want: "HSET " + z + ":CONFIG SOA …"})
		}
	}
	slices.SortFunc(out, func(a, b Defect) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// PoolLive is what Redis has in the pools of an edge, sorted; nothing where it has no
// such edge. zones are those of the configuration.
func PoolLive(ctx context.Context, cfg Config, zones []string, edge string) ([]netip.Prefix, error) {
	got, err := scanLive(ctx, cfg, zones)
	if err != nil {
		return nil, err
	}
	wire, err := WireName(trimDot(edge))
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if v := got.values[keyID{kindPool, f, wire}]; v != nil {
			out = slices.AppendSeq(out, v.pool.Members())
		}
	}
	return out, nil
}

// missingRights are defects of the account: without these rights it is read all the
// same, but less is known.
func missingRights(ctx context.Context, cfg Config) ([]Defect, error) {
	var out []Defect
	if t, err := track(ctx, cfg); errors.Is(err, errNoTracking) && strings.Contains(err.Error(), "NOPERM") {
		out = append(out, Defect{Key: "CLIENT TRACKING", Reason: err.Error(), Want: "Redis 6, and +client|tracking in the account's ACL: without, edits are seen late"})
	} else if err == nil {
		t.close()
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	if err := client.Info(ctx, "replication").Err(); isDenied(err) {
		out = append(out, Defect{Key: "INFO", Reason: err.Error(), Want: "+info in the account's ACL: without, a replica that has lost its primary is not noticed"})
	}
	return out, nil
}

// ListLive writes the lists in Redis: a table of all, or every member of those
// that are named. As JSON it always has the members.
func ListLive(ctx context.Context, cfg Config, zones, only []string, asJSON bool, w io.Writer) error {
	got, err := scanLive(ctx, cfg, zones)
	if err != nil {
		return err
	}
	routes, err := routesOf(got.values, only)
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(routes)
	case len(only) > 0:
		for _, r := range routes {
			for _, m := range r.members() {
				fmt.Fprintf(w, "%s\t%s\n", r.Name, m)
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tA\tAAAA\tENDPOINTS\tEDGES\tSTATE")
	for _, r := range routes {
		if r.State == "" {
			r.State = Active.String()
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%s\n", r.Name, len(r.A), len(r.AAAA), len(r.Endpoints), len(r.Edges), r.State)
	}
	return table.Flush()
}

// listed is a name with lists, as `razor upstreams list` shows it.
type listed struct {
	Name      string         `json:"name"`
	A         []netip.Prefix `json:"a,omitempty"` // addresses are full-length prefixes
	AAAA      []netip.Prefix `json:"aaaa,omitempty"`
	Endpoints []Endpoint     `json:"endpoints,omitempty"` // as they are written in Redis
	Edges     []string       `json:"edges,omitempty"`
	State     string         `json:"state,omitempty"`
}

// members are all members of the lists in text.
func (l *listed) members() []string {
	var out []string
	for _, m := range slices.Concat(l.A, l.AAAA) {
		out = append(out, MemberText(m))
	}
	for _, e := range l.Endpoints {
		out = append(out, e.String())
	}
	return append(out, l.Edges...)
}

// add notes the value of one key.
func (l *listed) add(id keyID, v *value) {
	switch id.kind {
	case kindPool:
		members := slices.Collect(v.pool.Members())
		if id.family == steering.IPv4 {
			l.A = members
		} else {
			l.AAAA = members
		}
	case kindUpstream:
		l.Endpoints = v.list
	case kindEdges:
		for _, e := range v.edges {
			l.Edges = append(l.Edges, NameText(e))
		}
	case kindState:
		l.State = v.state.String()
	}
}

// routesOf are the names with lists, sorted.
func routesOf(values map[keyID]*value, only []string) ([]listed, error) {
	byName := map[string]*listed{}
	for id, v := range values {
		switch id.kind {
		case kindPool, kindUpstream, kindEdges, kindState:
		default:
			continue
		}
		name := NameText(id.name)
		if byName[name] == nil {
			byName[name] = &listed{Name: name}
		}
		byName[name].add(id, v)
	}
	names := only
	if len(only) == 0 {
		for name := range byName {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	out := make([]listed, 0, len(names))
	for _, name := range names {
		r := byName[strings.ToLower(trimDot(name))]
		if r == nil {
			return nil, fmt.Errorf("%s: no such list in Redis", Printable(name))
		}
		out = append(out, *r)
	}
	return out, nil
}
