package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/upstreams"
)

// ReadYAML fills the struct that into points to from one YAML document, strictly; JSON is
// YAML. What is wrong has keys within the document.
type ReadYAML func(data []byte, into any) []upstreams.Defect

// siteKeys are the other sites as keys in Consul have them, one for each site, by its name:
//
//   - A value that cannot be used, alone or beside the other sites, leaves its site as it
//     was last, and all others alone.
//   - A key that is taken away takes its site away. All keys at once are a loss, which is not
//     obeyed: sites stay, each until its key was there again.
//
// The methods depend on their arguments alone.
type siteKeys struct {
	prefix string
	site   string // this one, whose key is for the others
	read   ReadYAML
	sites  map[string]keyedSite          // by name
	bad    map[string][]upstreams.Defect // of keys that are not obeyed, by name
}

// keyedSite is another site. It is kept in a file.
type keyedSite struct {
	SiteConfig

	Held bool `json:",omitzero"` // its key went with all others
}

// farByDefault is the distance of a site whose key has none.
const farByDefault = 1.0

// next has the sites be those of keys as far as they can be beside the configuration, and
// tells whether they are others.
func (k *siteKeys) next(values map[string][]byte, c *Config) (changed bool) {
	bad, wanted, lost := map[string][]upstreams.Defect{}, map[string]keyedSite{}, true
	for name, value := range values {
		if lost = lost && name == ""; name == "" || name == k.site { // the first is the folder itself
			continue
		}
		s, wrong := k.parse(name, value)
		if len(wrong) == 0 {
			wanted[name] = keyedSite{SiteConfig: s}
			continue
		}
		bad[name] = wrong
		if was, ok := k.sites[name]; ok {
			wanted[name] = keyedSite{SiteConfig: was.SiteConfig}
		}
	}
	for name, was := range k.sites {
		if _, there := values[name]; !there && (lost || was.Held) {
			wanted[name] = keyedSite{was.SiteConfig, true}
		}
	}
	k.settle(wanted, bad, c)
	changed = !reflect.DeepEqual(k.sites, wanted)
	k.sites, k.bad = wanted, bad
	return changed
}

// parse reads the value of a key.
func (k *siteKeys) parse(name string, value []byte) (s SiteConfig, wrong []upstreams.Defect) {
	if name != upstreams.Printable(name) || strings.Contains(name, "/") {
		return s, []upstreams.Defect{{Reason: "not the name of a site", Want: "one key for each site, such as " + k.prefix + "east"}}
	}
	wrong = k.read(value, &s)
	if s.Name != "" && s.Name != name {
		wrong = append(wrong, upstreams.Defect{Key: "name", Member: s.Name, Reason: "not that of the key", Want: name + ", or no such key"})
	}
	s.Name = name
	return s, wrong
}

// settle leaves out of the wanted sites what the rules of the file do not let be: who is
// another than before is as before, or not there. Who is as before stays, whatever the rules
// say of it now.
func (k *siteKeys) settle(wanted map[string]keyedSite, bad map[string][]upstreams.Defect, c *Config) {
	for {
		name, wrong := k.misfit(wanted, c)
		if name == "" {
			return
		}
		bad[name] = wrong
		if was, ok := k.sites[name]; ok {
			wanted[name] = keyedSite{was.SiteConfig, wanted[name].Held}
		} else {
			delete(wanted, name)
		}
	}
}

// misfit is the first site that is another than before, and that the rules do not let be
// beside those before it; "" for none.
func (k *siteKeys) misfit(wanted map[string]keyedSite, c *Config) (name string, wrong []upstreams.Defect) {
	rank := func(name string) int {
		if was, ok := k.sites[name]; ok && reflect.DeepEqual(was.SiteConfig, wanted[name].SiteConfig) {
			return 0
		}
		return 1
	}
	names := slices.SortedFunc(maps.Keys(wanted), func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
	block, _ := netip.ParsePrefix(c.Dataplane.SRBlock) // as Check has seen it
	d := &defects{}
	rules := newSiteRules(d, c, block)
	for i, name := range names {
		d.list = nil
		s := wanted[name].SiteConfig
		rules.check("", &s)
		if i >= balancer.MaxSites {
			d.add("", "", "too many sites", fmt.Sprintf("at most %d", balancer.MaxSites))
		}
		if len(d.list) > 0 && rank(name) > 0 {
			for j := range d.list {
				d.list[j].Key = strings.TrimLeft(strings.TrimPrefix(d.list[j].Key, "gateway."), ".")
			}
			return name, d.list
		}
	}
	return "", nil
}

// refused are the keys that are not obeyed, and why.
func (k *siteKeys) refused() (out []upstreams.Defect) {
	for _, name := range slices.Sorted(maps.Keys(k.bad)) {
		for _, d := range k.bad[name] {
			d.Key = strings.TrimSuffix(k.prefix+name+": "+d.Key, ": ")
			out = append(out, d)
		}
	}
	return out
}

// list is the sites, the nearest first, each with a distance.
func (k *siteKeys) list() (out []SiteConfig) {
	for _, s := range k.sites {
		one := s.SiteConfig
		if one.Distance == nil {
			one.Distance = new(farByDefault)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b SiteConfig) int {
		return cmp.Or(cmp.Compare(*a.Distance, *b.Distance), strings.Compare(a.Name, b.Name))
	})
	return out
}

// held are the names of the sites whose keys went all at once.
func (k *siteKeys) held() (out []string) {
	for name, s := range k.sites {
		if s.Held {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
