package upstreams

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
)

var families = []steering.Family{steering.IPv4, steering.IPv6}

// The world of the property test: few names, so that they meet often. There are
// zones within zones, with a level between them that may be no zone, and names
// outside of all.
var (
	worldNames = []string{
		"a", "b.a", "c.b.a", "d.c.b.a", "n.a", "n.b.a", "n.c.b.a", "x.n.c.b.a", "n.d.c.b.a", "x.y.n.a",
		"z", "y.z", "n.z", "n.y.z", "out", "n.out", "x.n.out",
	}
	worldAsked = append([]string{"nothing", "y.n.a", "q.q.q.a", "q.x.n.c.b.a", "q.out", "a.z", "b.z"}, worldNames...)
	worldZones = [][]string{nil, nil, {"a"}, {"a", "b.a"}, {"c.b.a", "z"}, {"b.a", "d.c.b.a", "y.z", "out"}, {"elsewhere"}}
	worldPlace = []string{"eu", "eu:lt", "na:us:ca"}
	world4     = prefixes("192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.0/31", "192.0.2.0/30", "192.0.2.0/24", "198.51.100.0/24", "198.51.100.9", "0.0.0.0/0")
	worldDay   = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	world6     = prefixes("2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8::/64", "2001:db8::/126", "2001:db8::/32", "2001:db8:0:1::/64", "::/0")
)

func prefixes(members ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range members {
		f := steering.IPv4
		if strings.Contains(text, ":") {
			f = steering.IPv6
		}
		m, err := ParseMember(f, text)
		if err != nil {
			panic(err)
		}
		out = append(out, m)
	}
	return out
}

func mustWire(text string) string {
	w, err := WireName(text)
	if err != nil {
		panic(err)
	}
	return w
}

// drawChange makes one change. Values that a key had before come again as the
// very same values, as the follower keeps what is equal.
func drawChange(t *rapid.T, had map[keyID][]*value) change {
	names := rapid.SampledFrom(worldNames)
	family := rapid.SampledFrom(families).Draw(t, "family")
	c := change{id: keyID{kind: rapid.SampledFrom([]kind{
		kindConfig, kindConfig, kindPool, kindPool, kindSkip, kindSkip, kindBlackhole, kindGroups, kindSticky, kindSticky, kindGeo,
	}).Draw(t, "kind")}}
	switch c.id.kind {
	case kindGeo:
		c.id.name = rapid.SampledFrom(worldPlace).Draw(t, "place")
	case kindPool, kindSkip, kindBlackhole:
		c.id.family = family
		c.id.name = mustWire(names.Draw(t, "name"))
	default:
		c.id.name = mustWire(names.Draw(t, "name"))
	}
	switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
	case what < 3:
		return c // removed
	case what < 5 && len(had[c.id]) > 0:
		c.value = rapid.SampledFrom(had[c.id]).Draw(t, "again")
		return c
	}
	c.value = drawValue(t, c.id, names)
	had[c.id] = append(had[c.id], c.value)
	return c
}

func drawValue(t *rapid.T, id keyID, names *rapid.Generator[string]) *value {
	universe := world4
	if id.family == steering.IPv6 {
		universe = world6
	}
	members := func() []netip.Prefix { return rapid.SliceOfN(rapid.SampledFrom(universe), 1, 4).Draw(t, "members") }
	switch id.kind {
	case kindPool:
		return &value{pool: steering.NewPool(id.family, members())}
	case kindSkip:
		return &value{skip: steering.NewSkipList(id.family, members())}
	case kindBlackhole:
		var set []string
		for _, m := range members() {
			end := worldDay.Add(time.Duration(rapid.IntRange(-1, 25).Draw(t, "end")) * time.Hour)
			set = append(set, withTime(MemberText(m), "until", rapid.SampledFrom([]time.Time{end, end, {}}).Draw(t, "until")))
		}
		return &value{blackholes: new(parser).blackholes(id.family, set)}
	case kindGroups:
		p := parser{}
		return &value{groups: p.groups(rapid.SliceOfN(names, 1, 3).Draw(t, "groups"))}
	case kindConfig:
		c := &config{ttl: uint32(rapid.IntRange(0, 3).Draw(t, "ttl")), count: rapid.IntRange(0, 2).Draw(t, "count")}
		if rapid.IntRange(0, 3).Draw(t, "soa") > 0 {
			c.soa, _ = soaRDATA(goodSOA)
		}
		return &value{config: c}
	}
	return &value{route: mustWire(names.Draw(t, "route"))}
}

// observe is all that a reader can learn of a snapshot about the world.
func observe(s *Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "zones %d names %d members %d emptied %d\n", s.ZoneCount(), s.NameCount, s.MemberCount, s.Emptied)
	for _, place := range worldPlace {
		route, ok := s.Place(place)
		fmt.Fprintf(&b, "%s %s %v\n", place, NameText(route), ok)
	}
	zones := map[string]*Zone{}
	for _, text := range worldAsked {
		name := mustWire(text)
		z, n := s.Zone([]byte(name)), s.Name([]byte(name))
		if n != s.Route(name) {
			fmt.Fprintf(&b, "two answers for %s\n", text)
		}
		fmt.Fprintf(&b, "%s exists %v", text, n.Exists())
		if z != nil {
			zones[z.Text] = z
			fmt.Fprintf(&b, " zone %s %q ttl %d count %d", z.Text, z.Name, z.TTL, z.Count)
		}
		if n != nil {
			fmt.Fprintf(&b, " route %s count %d", NameText(n.Route), n.Count)
			if n.Groups != nil {
				for i := range n.Groups.Names() {
					fmt.Fprintf(&b, " group %s", NameText(n.Groups.Route(i)))
				}
			}
		}
		for _, f := range families {
			fmt.Fprintf(&b, " %v %s", f, texts(n.Pool(f).Members()))
		}
		b.WriteByte('\n')
	}
	led := ledTo(s)
	attacked := map[string][]Blackhole{}
	for zone, list := range s.Blackholes() {
		attacked[NameText(zone)] = list
	}
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		z := zones[zone]
		for _, hole := range attacked[zone] {
			fmt.Fprintf(&b, "%s attacked %s\n", zone, hole.Prefix)
		}
		for _, text := range worldNames {
			name := mustWire(text)
			if s.Zone([]byte(name)) != z && !led[name] {
				continue
			}
			for _, f := range families {
				if p := s.Route(name).Pool(f); p != nil {
					fmt.Fprintf(&b, "%s answers from %s %v: %s\n", zone, text, f, inside(z.Eligible(p)))
				}
			}
		}
	}
	return b.String()
}

// inside is a pool with all that it keeps, also which part of a prefix is left.
func inside(p *steering.Pool) string { return fmt.Sprintf("%+v", p) }

// ledTo are the names that a query may be led to from another one.
func ledTo(s *Snapshot) map[string]bool {
	out := map[string]bool{}
	for _, place := range worldPlace {
		if route, ok := s.Place(place); ok {
			out[route] = true
		}
	}
	for _, text := range worldNames {
		n := s.Route(mustWire(text))
		if n == nil {
			continue
		}
		if n.Route != "" {
			out[n.Route] = true
		}
		if n.Groups != nil {
			for i := range n.Groups.Names() {
				out[n.Groups.Route(i)] = true
			}
		}
	}
	return out
}

// golden says the same as observe, straight from the values: slowly, and with
// nothing kept from before.
type golden struct {
	configured []string
	values     map[keyID]*value
	now        time.Time
}

// attacked are the entries of a zone's blackholes, each once.
func (g golden) attacked(f steering.Family, zone string) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	if v := g.values[keyID{kindBlackhole, f, zone}]; v != nil {
		for _, b := range v.blackholes {
			if b.Until.IsZero() || b.Until.After(g.now) {
				out[b.Prefix] = true
			}
		}
	}
	return out
}

// skip is what must not be answered of a zone, nil without.
func (g golden) skip(f steering.Family, zone string) *steering.SkipList {
	entries := slices.Collect(maps.Keys(g.attacked(f, zone)))
	if v := g.values[keyID{kindSkip, f, zone}]; v != nil {
		entries = slices.AppendSeq(entries, v.skip.Entries())
	}
	if len(entries) == 0 {
		return nil
	}
	return steering.NewSkipList(f, entries)
}

func (g golden) is(name string) bool { // a zone
	v := g.values[keyID{kind: kindConfig, name: name}]
	return v != nil && v.config.soa != nil && (len(g.configured) == 0 || slices.Contains(g.configured, name))
}

func (g golden) zone(name string) string {
	for ; len(name) > 1; name = parent(name) {
		if g.is(name) {
			return name
		}
	}
	return ""
}

func (g golden) keys(name string) int {
	n := 0
	for id := range g.values {
		if id.name == name && id.kind != kindSkip && id.kind != kindBlackhole && id.kind != kindGeo {
			n++
		}
	}
	return n
}

func (g golden) ledTo() map[string]bool {
	out := map[string]bool{}
	for _, v := range g.values {
		if v.route != "" {
			out[v.route] = true
		}
		if v.groups != nil {
			for _, name := range v.groups.Names() {
				out[mustWire(name)] = true
			}
		}
	}
	return out
}

// touched counts the pools that the skip lists of a zone take something from,
// and those of which they leave nothing.
func (g golden) touched(zone string) (smaller, emptied int) {
	led := g.ledTo()
	for id, v := range g.values {
		if id.kind != kindPool || g.zone(id.name) != zone && !led[id.name] {
			continue
		}
		left := v.pool.Without(g.skip(id.family, zone))
		if left != v.pool {
			smaller++
		}
		if left.Len() == 0 {
			emptied++
		}
	}
	return smaller, emptied
}

func (g golden) observe() string {
	var b strings.Builder
	var names, members, emptied int
	zones := map[string]bool{}
	seen := map[string]bool{}
	for id, v := range g.values {
		if id.kind == kindPool {
			members += v.pool.Len()
		}
		if id.kind == kindConfig && g.is(id.name) {
			zones[id.name] = true
			_, n := g.touched(id.name)
			emptied += n
		}
		if id.kind != kindGeo && !seen[id.name] && g.keys(id.name) > 0 {
			seen[id.name] = true
			names++
		}
	}
	fmt.Fprintf(&b, "zones %d names %d members %d emptied %d\n", len(zones), names, members, emptied)
	for _, place := range worldPlace {
		v := g.values[keyID{kind: kindGeo, name: place}]
		route := ""
		if v != nil {
			route = v.route
		}
		fmt.Fprintf(&b, "%s %s %v\n", place, NameText(route), v != nil)
	}
	answering := map[string]string{}
	for _, text := range worldAsked {
		g.observeName(&b, text, answering)
	}
	led := g.ledTo()
	for _, zone := range slices.Sorted(maps.Keys(answering)) {
		for _, f := range families {
			for _, p := range slices.SortedFunc(maps.Keys(g.attacked(f, answering[zone])), netip.Prefix.Compare) {
				fmt.Fprintf(&b, "%s attacked %s\n", zone, p)
			}
		}
		for _, text := range worldNames {
			name := mustWire(text)
			if g.zone(name) != answering[zone] && !led[name] {
				continue
			}
			for _, f := range families {
				v := g.values[keyID{kindPool, f, name}]
				if v == nil {
					continue
				}
				left := v.pool.Without(g.skip(f, answering[zone]))
				fmt.Fprintf(&b, "%s answers from %s %v: %s\n", zone, text, f, inside(left))
			}
		}
	}
	return b.String()
}

func (g golden) observeName(b *strings.Builder, text string, answering map[string]string) {
	name := mustWire(text)
	below := false
	for id := range g.values {
		below = below || id.kind != kindSkip && id.kind != kindBlackhole && id.kind != kindGeo && strings.HasSuffix("."+NameText(id.name), "."+text)
	}
	fmt.Fprintf(b, "%s exists %v", text, below)
	if zone := g.zone(name); zone != "" {
		c := g.values[keyID{kind: kindConfig, name: zone}].config
		answering[NameText(zone)] = zone
		fmt.Fprintf(b, " zone %s %q ttl %d count %d", NameText(zone), zone, c.ttl, max(1, c.count))
	}
	if below {
		route, count := "", 0
		if v := g.values[keyID{kind: kindSticky, name: name}]; v != nil {
			route = NameText(v.route)
		}
		if v := g.values[keyID{kind: kindConfig, name: name}]; v != nil {
			count = v.config.count
		}
		fmt.Fprintf(b, " route %s count %d", route, count)
		if v := g.values[keyID{kind: kindGroups, name: name}]; v != nil {
			for _, group := range v.groups.Names() {
				fmt.Fprintf(b, " group %s", group)
			}
		}
	}
	for _, f := range families {
		fmt.Fprintf(b, " %v ", f)
		if v := g.values[keyID{kindPool, f, name}]; v != nil {
			b.WriteString(texts(v.pool.Members()))
		}
	}
	b.WriteByte('\n')
}

// diff is the first line in which two observations differ.
func textDiff(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("got  %s\nwant %s", g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines; want %d", len(g), len(w))
}

// TestSnapshotsFollowChanges applies random batches of changes, and compares
// every snapshot with what its values say, with a snapshot that is built of them
// at once, and with itself after all the later ones were made.
func TestSnapshotsFollowChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var configured []string
		for _, z := range rapid.SampledFrom(worldZones).Draw(t, "configured") {
			configured = append(configured, mustWire(z))
		}
		m := newModel(configured)
		g := golden{configured, map[keyID]*value{}, worldDay}
		m.now = func() time.Time { return g.now }
		had := map[keyID][]*value{}
		type kept struct {
			snapshot *Snapshot
			said     string
		}
		var past []kept
		for range rapid.IntRange(1, 25).Draw(t, "batches") {
			g.now = g.now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 2, -1}).Draw(t, "hours")) * time.Hour)
			var batch []change
			inBatch := map[keyID]bool{}
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				c := drawChange(t, had)
				if inBatch[c.id] {
					continue // a key is read once
				}
				inBatch[c.id] = true
				batch = append(batch, c)
				if c.value == nil {
					delete(g.values, c.id)
				} else {
					g.values[c.id] = c.value
				}
			}
			s := m.apply(batch)
			got, want := observe(s), g.observe()
			if got != want {
				t.Fatalf("after %d batches\n%s", len(past)+1, textDiff(got, want))
			}
			checkInsides(t, m, g)
			past = append(past, kept{s, got})
		}
		var all []change
		for id, v := range g.values {
			all = append(all, change{id, v})
		}
		fresh := newModel(configured)
		fresh.now = m.now
		if got, want := observe(fresh.apply(all)), g.observe(); got != want {
			t.Fatalf("built at once\n%s", textDiff(got, want))
		}
		if !maps.Equal(fresh.refs, m.refs) {
			t.Fatalf("references %v; built at once %v", m.refs, fresh.refs)
		}
		for i, p := range past {
			if got := observe(p.snapshot); got != p.said {
				t.Fatalf("snapshot %d of %d changed\n%s", i+1, len(past), textDiff(got, p.said))
			}
		}
	})
}

// checkInsides looks for what readers do not see: leftovers that only cost
// memory, and counts gone wrong.
func checkInsides(t *rapid.T, m *model, g golden) {
	s := m.snapshot
	for name, z := range s.zones {
		if smaller, _ := g.touched(name); len(z.without) != smaller {
			t.Fatalf("zone %s keeps %d pools less its skip lists; want %d", z.Text, len(z.without), smaller)
		}
	}
	for name, n := range s.names.all() {
		if !n.Exists() || n.keys != g.keys(name) {
			t.Fatalf("%s has %d keys and %d names below; want %d keys", NameText(name), n.keys, n.below, g.keys(name))
		}
	}
	for zone, valid := range m.valid {
		if s.zones[zone] == nil || !valid.holds(g.now) {
			t.Fatalf("%s is made for %v, a zone: %v", NameText(zone), valid, s.zones[zone] != nil)
		}
	}
	for name, n := range m.refs {
		if n <= 0 {
			t.Fatalf("%s is referred to %d times", NameText(name), n)
		}
	}
	if !maps.Equal(m.values, g.values) {
		t.Fatalf("%d values; want %d", len(m.values), len(g.values))
	}
	seen := map[string]bool{}
	for _, key := range m.emptied {
		id, _ := parseKey(key)
		if v := m.values[id]; v == nil || v.pool == nil {
			t.Fatalf("emptied names %s, which has no pool", key)
		}
		if seen[key] {
			t.Fatalf("emptied names %s twice", key)
		}
		seen[key] = true
	}
}
