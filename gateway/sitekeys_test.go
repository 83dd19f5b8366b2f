package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// readJSON reads as strictly as the configuration is read, but JSON alone.
func readJSON(data []byte, into any) []upstreams.Defect {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return []upstreams.Defect{{Reason: err.Error(), Want: "JSON"}}
	}
	return nil
}

// keyLab is a folder in Consul, and what a gateway of west makes of it.
type keyLab struct {
	siteKeys

	t      *testing.T
	config Config
	values map[string][]byte
}

func newKeyLab(t *testing.T) *keyLab {
	c := balanced(t)
	c.Site, c.ConsulSites = "west", &ConsulSitesConfig{Prefix: "razor/sites/"}
	if d := c.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	return &keyLab{c.keys(readJSON), t, *c.at(netip.MustParsePrefix("2001:db8:5e:1::/64")), map[string][]byte{"west": []byte("for others")}}
}

// siteValue is a site whose locators begin with two digits, with gateways of it.
func siteValue(locators string, gateways ...int) string {
	var list []string
	for _, n := range gateways {
		list = append(list, fmt.Sprintf("%q", fmt.Sprintf("2001:db8:5e:%s%02x::/64", locators, n)))
	}
	return fmt.Sprintf(`{"locators": "2001:db8:5e:%s00::/56", "gateways": [%s]}`, locators, strings.Join(list, ", "))
}

func (l *keyLab) put(name, value string) { l.values[name] = []byte(value) }

func (l *keyLab) gone(names ...string) {
	for _, name := range names {
		delete(l.values, name)
	}
}

// holds holds what the sites are: names with locators and gateways, a star behind who is
// held; and what is said of refused keys.
func (l *keyLab) holds(when, want string, refused ...string) {
	l.t.Helper()
	l.next(l.values, &l.config)
	var words []string
	for _, s := range l.list() {
		word := s.Name + ":" + strings.TrimSuffix(strings.TrimPrefix(s.Locators, "2001:db8:5e:"), "00::/56")
		for _, g := range s.Gateways {
			word += "," + strings.TrimSuffix(g, "::/64")[len("2001:db8:5e:e0"):]
		}
		if l.sites[s.Name].Held {
			word += "*"
		}
		words = append(words, word)
	}
	if got := strings.Join(words, " "); got != want {
		l.t.Errorf("%s: %s, want %s", when, got, want)
	}
	var said []string
	for _, d := range l.refused() {
		said = append(said, d.String())
	}
	if strings.Join(said, "\n") != strings.Join(refused, "\n") {
		l.t.Errorf("%s: said\n%s\nwant\n%s", when, strings.Join(said, "\n"), strings.Join(refused, "\n"))
	}
	if l.next(l.values, &l.config) {
		l.t.Errorf("%s: they change again", when)
	}
}

// Sites come, change and go as their keys do. A value that cannot be used leaves its site
// as it was, and all others alone.
func TestSiteKeys(t *testing.T) {
	t.Parallel()
	l := newKeyLab(t)
	l.holds("this site alone", "")
	l.put("", "")
	l.put("north", siteValue("e1", 1))
	l.put("east", strings.Replace(siteValue("e0", 1, 2), "{", `{"name": "east", "distance": 0.5, "capacity": [{"service": "web", "most": 0}], `, 1))
	l.holds("two come", "east:e0,01,02 north:e1,01")
	if s := l.list(); *s[0].Capacity[0].Most != 0 || *s[0].Distance != 0.5 || *s[1].Distance != 1 {
		t.Errorf("%+v", s)
	}
	l.put("east", siteValue("e0", 3))
	l.holds("east changes", "east:e0,03 north:e1,01")

	l.put("east", "{")
	l.put("south", `{"locator": "x"}`)
	l.put("north", siteValue("e1", 1, 2))
	l.holds("two are no sites", "east:e0,03 north:e1,01,02",
		"razor/sites/east: unexpected EOF; want JSON", `razor/sites/south: json: unknown field "locator"; want JSON`)
	l.put("east", strings.Replace(siteValue("e0", 4), "{", `{"name": "est", `, 1))
	l.put("south", siteValue("e2"))
	l.put("old/one", siteValue("e3", 1))
	l.put("\xff", siteValue("e4", 1))
	l.holds("more that are none", "east:e0,03 north:e1,01,02",
		`razor/sites/east: name: "est": not that of the key; want east, or no such key`,
		"razor/sites/old/one: not the name of a site; want one key for each site, such as razor/sites/east",
		`razor/sites/south: gateways: "0": so many; want 1 to 8`,
		`razor/sites/\255: not the name of a site; want one key for each site, such as razor/sites/east`)
	l.gone("old/one", "\xff")
	l.put("south", `{"locators": "2001:db8:5e::/56", "gateways": ["2001:db8:5e:2::/64"], "capacity": [{"service": "mail"}]}`)
	l.put("east", siteValue("e0", 3, 4))
	l.config.Services[0].Backends = nil
	l.holds("this gateway is in it", "east:e0,03,04 north:e1,01,02",
		`razor/sites/south: locators: "2001:db8:5e::/56": has locators of site this one: 2001:db8:5e:1::/64; want each locator at one site`,
		`razor/sites/south: capacity[0].service: "mail": no such service; want one of gateway.services, or no such key for all others`,
		"razor/sites/south: capacity[0].most: missing; want a load in the unit of the service's agents, or 0 for nothing")
	l.gone("south", "north")
	l.holds("north is gone", "east:e0,03,04")
	l.gone("east")
	l.holds("all others are gone", "")
}

// Of two sites that cannot be beside each other the one stays that is there already.
func TestSiteKeysBesideEachOther(t *testing.T) {
	t.Parallel()
	l := newKeyLab(t)
	taken := func(name, site string) string {
		return fmt.Sprintf(`razor/sites/%s: locators: "2001:db8:5e:e000::/56": has locators of site %s: 2001:db8:5e:e000::/56; want each locator at one site`, name, site)
	}
	l.put("east", siteValue("e0", 1))
	l.put("north", siteValue("e0", 1))
	l.holds("both are new", "east:e0,01", taken("north", "east"))
	l.put("north", siteValue("e1", 1))
	l.holds("both are good", "east:e0,01 north:e1,01")
	l.put("east", siteValue("e1", 1))
	l.holds("east is where north is", "east:e0,01 north:e1,01", strings.ReplaceAll(taken("east", "north"), "e000", "e100"))
	l.put("north", siteValue("e0", 1))
	l.holds("they have changed places", "east:e1,01 north:e0,01")
	l.put("a", siteValue("e0", 2))
	l.holds("another one is where north is", "east:e1,01 north:e0,01", taken("a", "north"))
	l.gone("north")
	l.holds("and north is gone", "a:e0,02 east:e1,01")

	l = newKeyLab(t)
	for i := range balancer.MaxSites + 1 {
		l.put(fmt.Sprintf("s%02d", i), siteValue(fmt.Sprintf("%02x", 0x10+i), 1))
	}
	l.next(l.values, &l.config)
	if len(l.sites) != balancer.MaxSites || len(l.bad) != 1 || l.bad["s64"] == nil {
		t.Errorf("%d sites, refused %v", len(l.sites), l.refused())
	}
}

// A Consul that has lost all keys takes no site away, nor does one in which they are put
// again one by one.
func TestSiteKeysHold(t *testing.T) {
	t.Parallel()
	l := newKeyLab(t)
	l.put("east", siteValue("e0", 1))
	l.put("north", siteValue("e1", 1))
	l.put("south", siteValue("e2", 1))
	l.holds("three", "east:e0,01 north:e1,01 south:e2,01")
	l.gone("west", "east", "north", "south")
	l.holds("all are lost", "east:e0,01* north:e1,01* south:e2,01*")
	l.put("", "")
	l.holds("the folder is there", "east:e0,01* north:e1,01* south:e2,01*")
	l.put("west", "for others")
	l.holds("the own key is there", "east:e0,01* north:e1,01* south:e2,01*")
	l.put("east", siteValue("e0", 1))
	l.put("south", "{")
	l.holds("one is put again, and one cannot be used", "east:e0,01 north:e1,01* south:e2,01", "razor/sites/south: unexpected EOF; want JSON")
	l.gone("east", "south")
	l.holds("they are taken away", "north:e1,01*")
	l.put("north", siteValue("e1", 2))
	l.holds("the last one is put again", "north:e1,02")
	l.gone("north")
	l.holds("and taken away", "")
}

// What Consul had is there after a restart, as far as it fits.
func TestConsulSitesKept(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	l := newKeyLab(t)
	l.config.StateDir = t.TempDir()
	l.config.Consul.Address = "unix://" + l.config.StateDir + "/consul.sock" // which nobody has
	start := func(at string) *consulSites {
		t.Helper()
		s, err := newConsulSites(&l.config, netip.MustParsePrefix(at), readJSON, slog.New(slog.NewTextHandler(&said, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s.config, s.configure = func() *Config { return &l.config }, func() error { return nil }
		return s
	}
	s := start("2001:db8:5e:1::/64")
	l.put("east", siteValue("e0", 1))
	l.put("north", siteValue("e1", 1))
	s.answer.Of, s.answer.At = l.values, s.answer.At.AddDate(1, 0, 0)
	if again := s.round(time.Now()); !again.IsZero() || len(s.sites) != 2 {
		t.Fatalf("%+v", s.sites)
	}
	if !strings.Contains(said.String(), `msg="consul does not tell of other sites, none is known before it does"`) {
		t.Error(said.String())
	}
	for at, want := range map[string]int{"2001:db8:5e:1::/64": 2, "2001:db8:5e:e107::/64": 1} {
		if next := start(at); len(next.in(&l.config).Sites) != want || next.in(&l.config).Sites[0].Name != "east" {
			t.Errorf("at %s: %+v", at, next.sites)
		}
	}
	if !strings.Contains(said.String(), `msg="a site that consul had before is not what it can be now" site=north reason="locators: `) {
		t.Error(said.String())
	}
	if err := os.WriteFile(filepath.Join(l.config.StateDir, consulSitesFile), []byte("null"), 0o600); err != nil {
		t.Fatal(err)
	}
	next := start("2001:db8:5e:1::/64")
	if len(next.sites) != 0 || !next.next(l.values, &l.config) || len(next.sites) != 2 {
		t.Errorf("of nothing: %+v", next.sites)
	}
}

// A service spills to sites of Consul once they are there, and decisions go by them as by
// those of the file.
func TestConsulSitesPlan(t *testing.T) {
	t.Parallel()
	l := newKeyLab(t)
	l.config.Services[0].Spill = []SpillConfig{{"east", 0.5}, {"south", 0.25}}
	s := &consulSites{siteKeys: l.siteKeys}
	if p := s.in(&l.config).balance(make([]byte, 16)); len(p.Sites) != 0 || len(p.Services[0].Spills) != 0 {
		t.Errorf("without any: %+v", p)
	}
	l.put("east", siteValue("e0", 1))
	l.put("north", strings.Replace(siteValue("e1", 1), "{", `{"distance": 0, `, 1))
	s.next(l.values, &l.config)
	p := s.in(&l.config).balance(make([]byte, 16))
	if len(p.Sites) != 2 || p.Sites[0].Name != "north" || len(p.Services[0].Spills) != 1 || p.Services[0].Spills[0].Site != "east" {
		t.Errorf("%+v", p)
	}
	d := s.in(&l.config).decisions()
	if !d.fixed["web"] || len(d.sites) != 2 || d.sites[0].distance != 0 || d.sites[1].distance != 1 {
		t.Errorf("%+v", d)
	}
}

// An operator bounds what a site takes of a service, or of each, in the decisions of others.
func TestSiteCapacity(t *testing.T) {
	t.Parallel()
	c := ofSites(t)
	c.Services[0].Spill = nil
	c.Services = append(c.Services, c.Services[0])
	c.Services[1].Name, c.Services[1].VIPs = "mail", []string{"198.51.100.9"}
	c.Sites[0].Capacity = []SiteCapacityConfig{{"web", new(300.0)}, {"", new(0.0)}}
	if wrong := c.Check(); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	d := c.decisions()
	for service, want := range map[string][2]steering.SiteSummary{
		"web":  {{Name: "east", Distance: 1, Capacity: 300, Load: 200, Healthy: true}, {Name: "north", Distance: 2, Capacity: 1000, Healthy: true}},
		"mail": {{Name: "east", Distance: 1, Load: 200, Healthy: true, Drained: true}, {Name: "north", Distance: 2, Capacity: 1000, Healthy: true}},
	} {
		in := input{
			service: balancer.PlannedService{Service: balancer.Service{Name: service}}, ways: map[string]bool{"east": true, "north": true},
			sites: map[string]steering.SiteSummary{"east": {Capacity: 1000, Load: 200, Healthy: true}, "north": {Capacity: 1000, Healthy: true}},
		}
		if got := d.snapshot(&in).Sites; len(got) != 2 || [2]steering.SiteSummary(got) != want {
			t.Errorf("%s: %+v, want %+v", service, got, want)
		}
	}
}
