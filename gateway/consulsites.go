package gateway

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// consulSitesFile has, in the state directory, the other sites that Consul had last: a
// gateway that starts while Consul is away has them.
const consulSitesFile = "sites.json"

// ConsulSitesConfig is `consul_sites:`, where Consul has the other sites.
type ConsulSitesConfig struct {
	Prefix     string `yaml:"prefix"`     // of keys: behind it is the name of a site
	Datacenter string `yaml:"datacenter"` // of Consul; the agent's own when empty
}

// consulSites names what is wrong with where Consul has the other sites.
func (d *defects) consulSites(c *Config) {
	if c.ConsulSites == nil {
		return
	}
	if why := consul.PrefixReason(c.ConsulSites.Prefix); why != "" {
		d.add("consul_sites.prefix", c.ConsulSites.Prefix, why, consul.PrefixWant)
	}
	if len(c.Sites) > 0 {
		d.add("sites", "", "beside consul_sites", "one of the two")
	}
}

// keys are the other sites in Consul, of which none is known yet.
func (c *Config) keys(read ReadYAML) siteKeys {
	return siteKeys{prefix: c.ConsulSites.Prefix, site: c.Site, read: read, sites: map[string]keyedSite{}}
}

// InConsul is the configuration with the other sites that Consul has now, and what is wrong
// with their keys. The error is that Consul does not answer.
func (c *Config) InConsul(ctx context.Context, read ReadYAML) (*Config, []upstreams.Defect, error) {
	if c.ConsulSites == nil {
		return c, nil, nil
	}
	from, err := consul.NewFolder(c.Consul, "gateway.consul", c.ConsulSites.Prefix, c.ConsulSites.Datacenter, slog.New(slog.DiscardHandler))
	if err != nil {
		return c, nil, err
	}
	defer from.Close()
	values, err := from.Read(ctx)
	if err != nil {
		return c, nil, err
	}
	k, out, self := c.keys(read), *c, c
	if id, err := c.Identity(); err == nil && c.Dataplane.Locator == locatorAuto && id.Node.IsValid() {
		self = c.at(id.Node)
	}
	k.next(values.Of, self)
	out.Sites = k.list()
	wrong := k.refused()
	if len(values.Of) == 0 {
		wrong = append(wrong, upstreams.Defect{Key: k.prefix, Reason: "there is no such key", Want: "one for each site: consul kv put " + k.prefix + "east @east.yaml"})
	}
	return &out, wrong, nil
}

// consulSites keeps the other sites that Consul has.
type consulSites struct {
	rounds
	siteKeys // guarded

	log    *slog.Logger
	from   *consul.Folder
	config func() *Config // what is configured now

	answer  consul.Values     // guarded
	said    map[string]string // of keys that are not obeyed, as it was logged; of the loop
	holding bool              // likewise
}

// newConsulSites is that of a configuration of a gateway with a locator, nil where the file
// has the other sites. What a process before has kept in the state directory is there at
// once; where that is nothing Consul is waited for a moment, as flows may be at other sites.
func newConsulSites(c *Config, locator netip.Prefix, read ReadYAML, log *slog.Logger) (*consulSites, error) {
	if c.ConsulSites == nil {
		return nil, nil
	}
	from, err := consul.NewFolder(c.Consul, "gateway.consul", c.ConsulSites.Prefix, c.ConsulSites.Datacenter, log)
	if err != nil {
		return nil, err
	}
	s := &consulSites{log: log, from: from, siteKeys: c.keys(read)}
	s.rounds = newRounds(s, filepath.Join(c.StateDir, consulSitesFile))
	if c = c.at(locator); !s.load(c) {
		s.ask(c)
	}
	return s, nil
}

// at is the configuration of a gateway with a locator, which may be that of its node.
func (c *Config) at(locator netip.Prefix) *Config {
	out := *c
	out.Dataplane.Locator = locator.String()
	return &out
}

// ask has the sites be those that Consul has, where it answers at once.
func (s *consulSites) ask(c *Config) {
	ctx, cancel := context.WithTimeout(context.Background(), firstWait)
	defer cancel()
	values, err := s.from.Read(ctx)
	if err != nil {
		s.log.Warn("consul does not tell of other sites, none is known before it does", "err", err)
		return
	}
	s.next(values.Of, c)
	s.unsaved = true
}

// load reads what a process before has kept, as far as it fits to the configuration of now.
// It tells whether there was anything.
func (s *consulSites) load(c *Config) bool {
	var saved map[string]keyedSite
	if err := readKept(s.file, &saved); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the other sites that consul had before are not known", "err", err)
		}
		return false
	}
	delete(saved, s.site)
	bad := map[string][]upstreams.Defect{}
	s.settle(saved, bad, c)
	for name, wrong := range bad {
		s.log.Warn("a site that consul had before is not what it can be now", "site", name, "reason", inOne(wrong))
	}
	if len(saved) > 0 {
		s.sites = saved
	}
	return true
}

// kept is the sites.
func (s *consulSites) kept() any { return s.sites }

// in is a configuration with the other sites that there are now. nil has those of the file.
func (s *consulSites) in(c *Config) *Config {
	if s == nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := *c
	out.Sites = s.list()
	return &out
}

// run follows Consul until ctx ends.
func (s *consulSites) run(ctx context.Context) {
	defer s.from.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.from.Follow(ctx, func(v consul.Values) {
			s.mu.Lock()
			s.answer = v
			s.mu.Unlock()
			s.poke()
		})
	}()
	defer func() { <-ended }()
	s.loop(ctx)
}

// hear brings the sites up to date.
func (s *consulSites) hear(time.Time) (changed bool, again time.Time) {
	c := s.config()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer.At.IsZero() {
		return false, time.Time{}
	}
	was := s.sites
	changed = s.next(s.answer.Of, c)
	s.say(was)
	return changed, time.Time{}
}

// say logs what is another than it was, once for each change.
func (s *consulSites) say(was map[string]keyedSite) {
	for name, is := range s.sites {
		if before, known := was[name]; !known || !reflect.DeepEqual(before.SiteConfig, is.SiteConfig) {
			s.log.Info("other site as consul has it", "site", name, "locators", is.Locators, "gateways", strings.Join(is.Gateways, " "), "known", known)
		}
	}
	for name := range was {
		if _, there := s.sites[name]; !there {
			s.log.Info("other site taken away, as its key in consul is", "site", name)
		}
	}
	said := map[string]string{}
	for name, wrong := range s.bad {
		if said[name] = inOne(wrong); said[name] != s.said[name] {
			_, known := s.sites[name]
			s.log.Warn("key in consul is not obeyed, its site is as it was", "key", s.prefix+name, "reason", said[name], "known", known)
		}
	}
	for name := range s.said {
		if said[name] == "" {
			s.log.Info("key in consul is obeyed again", "key", s.prefix+name)
		}
	}
	s.said = said
	held := s.held()
	switch {
	case len(held) > 0 && !s.holding:
		s.log.Error("consul has lost the keys of all sites, which stay as they are", "prefix", s.prefix, "sites", strings.Join(held, " "))
	case len(held) == 0 && s.holding:
		s.log.Info("consul has the keys of sites again", "prefix", s.prefix)
	}
	s.holding = len(held) > 0
}

func (s *consulSites) sayApplied(err error) {
	if err != nil {
		s.log.Error("other sites of consul are not applied, the plan stays as it is", "err", err)
		return
	}
	s.log.Info("other sites of consul are applied again")
}

func (s *consulSites) sayLost(err error) {
	s.log.Warn("the other sites that consul has are not kept over a restart", "err", err)
}

// inOne is defects in one line.
func inOne(wrong []upstreams.Defect) string {
	words := make([]string, len(wrong))
	for i, d := range wrong {
		words[i] = strings.TrimPrefix(d.String(), ": ")
	}
	return strings.Join(slices.Compact(words), " - ")
}
