package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/rogpeppe/go-internal/txtar"
)

// Topology is a network as its file has it.
type Topology struct {
	Name  string `yaml:"-"` // of the file
	About string `yaml:"-"` // what stands before the sections

	Sites   []Site   `yaml:"sites"`
	Cables  []string `yaml:"cables"` // between sites: two names
	Clients []Client `yaml:"clients"`
	Clocks  bool     `yaml:"clocks"` // hosts have clocks of their own, which can be moved

	story []line
}

// Site is a place with routers, gateways and backends.
type Site struct {
	Name     string  `yaml:"site"`
	AS       uint32  `yaml:"as"`     // of its router, or of its first one: the others follow it
	Leaves   int     `yaml:"leaves"` // racks, each with a router; 0 is one router for all
	Spines   int     `yaml:"spines"` // routers between leaves, and to the world
	Exits    int     `yaml:"exits"`  // instead: they and leaves bridge all hosts over VXLAN
	Gateways int     `yaml:"gateways"`
	Backends int     `yaml:"backends"`
	Capacity int     `yaml:"capacity"` // connections of a backend; 0 is that load is not measured
	Redis    string  `yaml:"redis"`    // primary, replica; "" is none
	DNS      bool    `yaml:"dns"`      // with Redis
	Consul   int     `yaml:"consul"`   // servers; backends, and who decides, are in it
	Spill    []Spill `yaml:"spill"`

	// Settings of the service; without them they are razor's defaults.
	MinHealthy *float64      `yaml:"min_healthy"`
	SlowStart  time.Duration `yaml:"slow_start"`
}

// Spill is what another site gets of a site's new flows.
type Spill struct {
	To    string  `yaml:"to"`
	Share float64 `yaml:"share"`
}

// Client is a network of people with ways to all sites.
type Client struct {
	Name string `yaml:"client"`
	Site string `yaml:"site"` // its packets go there
	Keep int    `yaml:"keep"` // connections that live on
	Open int    `yaml:"open"` // new connections per second, which end after their answer

	Life time.Duration `yaml:"life"` // of those that are kept, on average; 0 is for ever
}

// Bounds of what a topology may have. Numbers of hosts are in addresses.
const (
	mostSites    = 8
	mostGateways = 8
	mostBackends = 64
	mostRouters  = 16
	mostClients  = 8
	mostKept     = 20_000
	mostOpened   = 1_000
	mostServers  = 5 // of Consul
)

//go:embed topologies/*.txtar
var builtin embed.FS

// names are those of the topologies that come with the lab.
func names() (out []string) {
	files, _ := builtin.ReadDir("topologies")
	for _, f := range files {
		out = append(out, strings.TrimSuffix(f.Name(), ".txtar"))
	}
	return out
}

// load reads a topology: one that comes with the lab, or a file.
func load(name string) (*Topology, error) {
	if slices.Contains(names(), name) {
		b, err := builtin.ReadFile(path.Join("topologies", name+".txtar"))
		if err != nil {
			return nil, err
		}
		return parse(name+".txtar", b)
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no topology %q: want one of %s, or a file", name, strings.Join(names(), ", "))
	}
	if err != nil {
		return nil, err
	}
	return parse(name, b)
}

// parse reads a file: a text, the section topology in YAML, and the section story with a
// command on each line. Errors name file, line and column.
func parse(file string, data []byte) (*Topology, error) {
	a := txtar.Parse(data)
	t := &Topology{Name: strings.TrimSuffix(filepath.Base(file), ".txtar"), About: strings.TrimSpace(string(a.Comment))}
	seen := map[string]bool{}
	from := 1 + bytes.Count(a.Comment, []byte("\n"))
	for _, section := range a.Files {
		from++ // its own line
		if seen[section.Name] {
			return nil, fmt.Errorf("%s:%d: section %q is there twice", file, from-1, section.Name)
		}
		seen[section.Name] = true
		switch section.Name {
		case "topology":
			if err := t.read(file, from, section.Data); err != nil {
				return nil, err
			}
		case "story":
			t.story = script(file, from, string(section.Data))
		default:
			return nil, fmt.Errorf("%s:%d: section %q: want topology or story", file, from-1, section.Name)
		}
		from += bytes.Count(section.Data, []byte("\n"))
	}
	if !seen["topology"] {
		return nil, fmt.Errorf("%s: no section -- topology --", file)
	}
	return t, nil
}

// read fills the topology from the YAML that begins on a line of the file.
func (t *Topology) read(file string, from int, data []byte) error {
	if err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(t); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s:%d: the topology is empty", file, from)
		}
		if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
			at := e.GetToken().Position
			return fmt.Errorf("%s:%d:%d: %s", file, from+at.Line-1, at.Column, e.GetMessage())
		}
		return fmt.Errorf("%s:%d: %w", file, from, err)
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return fmt.Errorf("%s:%d: %w", file, from, err)
	}
	var all []error
	t.check(func(key, format string, args ...any) {
		line, column := position(tree, key)
		all = append(all, fmt.Errorf("%s:%d:%d: %s: %s", file, from+line-1, column, key, fmt.Sprintf(format, args...)))
	})
	return errors.Join(all...)
}

// position is that of the value of a key such as sites[1].name, or of what it would be
// in.
func position(tree *ast.File, key string) (line, column int) {
	for key != "" {
		if p, err := yaml.PathString("$." + key); err == nil {
			if n, err := p.FilterFile(tree); err == nil && n != nil {
				at := n.GetToken().Position
				return at.Line, at.Column
			}
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	return 1, 1
}

// name is what hosts and sites are called: it is in names of devices and namespaces.
var name = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,9}[a-z0-9])?$`)

// check names all that is wrong.
func (t *Topology) check(wrong func(key, format string, args ...any)) {
	within := func(key string, n, least, most int) {
		if n < least || n > most {
			wrong(key, "%d: want %d to %d", n, least, most)
		}
	}
	within("sites", len(t.Sites), 1, mostSites)
	within("clients", len(t.Clients), 0, mostClients)
	taken, primaries, replicas := map[string]bool{}, 0, 0
	called := func(key, s string) {
		switch {
		case !name.MatchString(s):
			wrong(key, "%q: want 1 to 11 of a to z, 0 to 9 and -", s)
		case taken[s]:
			wrong(key, "%q is there twice", s)
		}
		taken[s] = true
	}
	for i := range t.Sites {
		s, key := &t.Sites[i], fmt.Sprintf("sites[%d]", i)
		called(key+".site", s.Name)
		if s.AS == 0 || slices.ContainsFunc(t.Sites[:i], func(o Site) bool { return o.overlaps(s) }) {
			wrong(key+".as", "%d: want a number that no other site has, nor one of the %d behind it", s.AS, s.routers()-1)
		}
		within(key+".gateways", s.Gateways, 0, mostGateways)
		within(key+".backends", s.Backends, 0, mostBackends)
		within(key+".capacity", s.Capacity, 0, 1_000_000)
		within(key+".leaves", s.Leaves, 0, mostRouters)
		within(key+".spines", s.Spines, 0, mostRouters)
		within(key+".exits", s.Exits, 0, mostRouters)
		within(key+".consul", s.Consul, 0, mostServers)
		switch {
		case s.Exits > 0 && (s.Leaves == 0 || s.Spines > 0):
			wrong(key+".exits", "%d with %d leaves and %d spines: want leaves, and no spines", s.Exits, s.Leaves, s.Spines)
		case (s.Exits > 0) != (t.Sites[0].Exits > 0):
			wrong(key+".exits", "%d with %d at %s: want exits at all sites, or at none", s.Exits, t.Sites[0].Exits, t.Sites[0].Name)
		case s.Exits == 0 && (s.Leaves == 0) != (s.Spines == 0):
			wrong(key+".spines", "%d with %d leaves: want both, or none for one router", s.Spines, s.Leaves)
		}
		if m := s.MinHealthy; m != nil && !(*m >= 0 && *m <= 1) {
			wrong(key+".min_healthy", "%v: want 0 to 1", *m)
		}
		if s.SlowStart < 0 {
			wrong(key+".slow_start", "%v: want a time such as 10s", s.SlowStart)
		}
		switch s.Redis {
		case "primary":
			primaries++
		case "replica":
			replicas++
		case "":
			if s.DNS {
				wrong(key+".dns", "needs redis at the site")
			}
		default:
			wrong(key+".redis", "%q: want primary or replica", s.Redis)
		}
		for j, sp := range s.Spill {
			key := fmt.Sprintf("%s.spill[%d]", key, j)
			if t.site(sp.To) == nil || sp.To == s.Name {
				wrong(key+".to", "%q: want another site", sp.To)
			}
			if !(sp.Share >= 0 && sp.Share <= 1) {
				wrong(key+".share", "%v: want 0 to 1", sp.Share)
			}
		}
	}
	if primaries > 1 || replicas > 0 && primaries == 0 {
		wrong("sites", "%d of them have redis: primary: want one where there are replicas", primaries)
	}
	t.checkCables(wrong)
	for i := range t.Clients {
		c, key := &t.Clients[i], fmt.Sprintf("clients[%d]", i)
		called(key+".client", c.Name)
		if t.site(c.Site) == nil {
			wrong(key+".site", "%q: no such site", c.Site)
		}
		within(key+".keep", c.Keep, 0, mostKept)
		within(key+".open", c.Open, 0, mostOpened)
		if c.Life != 0 && c.Life < time.Second {
			wrong(key+".life", "%v: want a second or more", c.Life)
		}
	}
}

func (t *Topology) checkCables(wrong func(key, format string, args ...any)) {
	laid := map[string]bool{}
	for i, c := range t.Cables {
		key := fmt.Sprintf("cables[%d]", i)
		a, b, ok := ends(c)
		switch {
		case !ok || t.site(a) == nil || t.site(b) == nil || a == b:
			wrong(key, "%q: want the names of two sites", c)
		case laid[a+" "+b] || laid[b+" "+a]:
			wrong(key, "%q is there twice", c)
		}
		laid[a+" "+b] = true
	}
	if t.overlay() && !t.joined() {
		wrong("cables", "want sites with exits joined, as all hosts are in one segment")
	}
}

// overlay tells whether all hosts of all sites are in one segment.
func (t *Topology) overlay() bool { return len(t.Sites) > 0 && t.Sites[0].Exits > 0 }

// joined tells whether cables lead from the first site to all others.
func (t *Topology) joined() bool {
	reached := map[string]bool{t.Sites[0].Name: true}
	for range t.Sites {
		for _, c := range t.Cables {
			if a, b, ok := ends(c); ok && (reached[a] || reached[b]) {
				reached[a], reached[b] = true, true
			}
		}
	}
	return !slices.ContainsFunc(t.Sites, func(s Site) bool { return !reached[s.Name] })
}

// ends are the sites of a cable.
func ends(cable string) (a, b string, ok bool) {
	f := strings.Fields(cable)
	if len(f) != 2 {
		return "", "", false
	}
	return f[0], f[1], true
}

func (t *Topology) site(name string) *Site {
	i := slices.IndexFunc(t.Sites, func(s Site) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &t.Sites[i]
}

// routers is how many the site has.
func (s *Site) routers() int { return max(1, s.Leaves+s.Spines+s.Exits) }

// overlaps tells whether two sites have a number of an AS in common.
func (s *Site) overlaps(o *Site) bool {
	return uint64(s.AS) < uint64(o.AS)+uint64(o.routers()) && uint64(o.AS) < uint64(s.AS)+uint64(s.routers())
}
