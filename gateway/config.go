package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// Config is the `gateway:` section. The zero value is filled by Defaults.
type Config struct {
	// Name is the edge that this gateway announces; the name of the host when empty.
	Name string `yaml:"name"`
	// Site is the one that this gateway is at. With it the gateway decides who gets new
	// flows, here and at other sites ([steering.Decide]).
	Site string `yaml:"site"`
	// Allowed are the prefixes inside of which anything may be announced.
	Allowed []string `yaml:"allowed"`
	// StateDir has the control socket, and what an operator drained.
	StateDir string `yaml:"state_dir"`
	// Lists has the gateway follow Redis: its pool, its admin state, blackholes, backends.
	Lists bool `yaml:"lists"`
	// BGP are the peers.
	BGP bgp.Config `yaml:"bgp"`
	// Announce are the sets of prefixes.
	Announce []SetConfig `yaml:"announce"`
	// Probes are what sets may depend on.
	Probes []probe.Config `yaml:"probes"`
	// PoolLimit is how many members of the pool are announced at most.
	PoolLimit int `yaml:"pool_limit"`
	// Health is what nameservers are told of the edge.
	Health HealthConfig `yaml:"health"`
	// Drain is how the gateway leaves.
	Drain DrainConfig `yaml:"drain"`
	// Blackhole bounds what is announced under attack.
	Blackhole BlackholeConfig `yaml:"blackhole"`
	// Dataplane is where packets come in and how they leave.
	Dataplane DataplaneConfig `yaml:"dataplane"`
	// Consul is the agent of Consul that services may have their backends from.
	Consul consul.AgentConfig `yaml:"consul"`
	// Services are what the balancer spreads packets of VIPs for.
	Services []ServiceConfig `yaml:"services"`
	// Sites are others that packets of the services may go to, the nearest first.
	Sites []SiteConfig `yaml:"sites"`
	// ConsulSites is where Consul has them instead; nil for the file alone.
	ConsulSites *ConsulSitesConfig `yaml:"consul_sites"`
}

// SetConfig is one of `gateway.announce:`, prefixes that are announced alike.
type SetConfig struct {
	Set      string   `yaml:"set"`      // its name
	Prefixes []string `yaml:"prefixes"` // addresses or prefixes
	// From takes the prefixes from elsewhere: pool is this edge's in Redis, node the
	// /64 of this host.
	From string `yaml:"from"`
	// When is always, or the name of a probe that has to pass.
	When string `yaml:"when"`
	// Bind has this host take the packets: the prefixes are local while announced.
	Bind        bool      `yaml:"bind"`
	Communities []string  `yaml:"communities"` // 65000:1, 4200000000:1:2, no-export
	MED         *int      `yaml:"med"`
	PeerMED     []PeerMED `yaml:"peer_med"`
	Prepend     int       `yaml:"prepend"` // further times that our AS is in the path
	// Floor is how many other announcers there have to be before a prefix is
	// withdrawn for its health.
	Floor *int `yaml:"floor"`
	// WithdrawAfter is when it is all the same where nobody knows of others; never
	// is never.
	WithdrawAfter string `yaml:"withdraw_after"`
}

// PeerMED is the MED for one peer.
type PeerMED struct {
	Peer string `yaml:"peer"`
	MED  int    `yaml:"med"`
}

// DrainConfig is `gateway.drain:`.
type DrainConfig struct {
	Converge time.Duration `yaml:"converge"` // from the announcement of leaving to the withdrawal
	Settle   time.Duration `yaml:"settle"`   // from that to the end of the sessions
	// Forget is the longest that the pool stays announced for resolvers that still answer it.
	Forget time.Duration `yaml:"forget"`
}

// BlackholeConfig is `gateway.blackhole:`.
type BlackholeConfig struct {
	Limit   int           `yaml:"limit"`   // prefixes at once
	Longest time.Duration `yaml:"longest"` // for one without an end of its own
}

// What sets may take their prefixes from.
const (
	fromPool = "pool"
	fromNode = "node"
)

const (
	always = "always"
	never  = "never"

	maxMED      = 1<<32 - 1
	maxPrepend  = 20 // longer paths are refused by some
	widest4     = 8  // of an announced prefix
	widest6     = 19
	widestHole4 = 24 // of a blackhole
	widestHole6 = 48
)

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	if c.Name == "" {
		c.Name, _ = os.Hostname()
	}
	or(&c.StateDir, "/var/lib/razor-gateway")
	c.BGP.Defaults()
	for i := range c.Announce {
		s := &c.Announce[i]
		or(&s.When, always)
		or(&s.WithdrawAfter, "1m")
		if s.Floor == nil {
			one := 1
			s.Floor = &one
		}
		if s.Set == "" {
			s.Set = s.From
		}
	}
	for i := range c.Probes {
		c.Probes[i].Defaults()
	}
	or(&c.Drain.Converge, 5*time.Second)
	or(&c.Drain.Settle, 2*time.Second)
	or(&c.Drain.Forget, 5*time.Minute)
	or(&c.Health.Every, 2*time.Second)
	or(&c.Health.Settle, 5*time.Second)
	or(&c.PoolLimit, 1000)
	or(&c.Blackhole.Limit, 50)
	or(&c.Blackhole.Longest, 24*time.Hour)
	c.Dataplane.defaults()
	c.Consul.Defaults()
	for i := range c.Services {
		c.Services[i].defaults()
	}
}

func or[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// identity are the settings of who the gateway is.
func (c *Config) identity() IdentityConfig {
	return IdentityConfig{
		AS: c.BGP.AS, ASTemplate: c.BGP.ASTemplate, HostPattern: c.BGP.HostPattern,
		RouterID: c.BGP.RouterID, Node: c.BGP.Node, Links: c.BGP.Unnumbered, Anycast: slices.Collect(maps.Keys(c.written())),
	}
}

// Identity is who the gateway is on this host. Errors are upstreams.Defect.
func (c *Config) Identity() (Identity, error) {
	host, err := ReadHost()
	if err != nil {
		return Identity{}, err
	}
	id, err := c.identity().Identify("gateway.bgp", host)
	if err == nil && !id.Node.IsValid() && slices.ContainsFunc(c.Announce, func(s SetConfig) bool { return s.From == fromNode }) {
		return id, upstreams.Defect{Key: "gateway.bgp.node", Reason: "a set is to announce it, and there is none: " + id.nodeFrom, Want: "the /64 of this host"}
	}
	if err == nil && c.Dataplane.used() {
		_, err = c.locator(id.Node)
	}
	return id, err
}

// Used tells whether there is anything in the section: a file for the nameserver
// alone has none.
func (c *Config) Used() bool {
	return len(c.BGP.Peers)+len(c.BGP.Unnumbered)+len(c.Announce)+len(c.Probes)+len(c.Allowed)+len(c.Dataplane.Interfaces)+len(c.Services)+len(c.Sites) > 0 || c.ConsulSites != nil
}

// Check lists what is wrong with the section; keys are paths below "gateway".
func (c *Config) Check() []upstreams.Defect {
	d := &defects{}
	d.list = append(c.identity().Check("gateway.bgp"), c.BGP.Check()...)
	if !filepath.IsAbs(c.StateDir) {
		d.add("state_dir", c.StateDir, "not an absolute path", "a directory such as /var/lib/razor-gateway")
	}
	if _, err := upstreams.WireName(strings.TrimSuffix(c.Name, ".")); err != nil || c.Name == "" {
		d.add("name", c.Name, "not the name of an edge", "a name such as edge1.example.org")
	}
	d.prefixes("allowed", c.Allowed, func(string, string, netip.Prefix) {})
	d.number("pool_limit", c.PoolLimit, 1, 100_000)
	d.number("blackhole.limit", c.Blackhole.Limit, 1, 10_000)
	probes := map[string]bool{}
	for i := range c.Probes {
		d.probe("probes["+strconv.Itoa(i)+"]", &c.Probes[i], probes)
	}
	d.sets(c, probes)
	d.dataplane(c)
	d.decisions(c)
	d.consulSites(c)
	d.list = append(d.list, c.Consul.Check("gateway.consul")...)
	d.times("health.every", c.Health.Every, leastEvery, mostEvery)
	d.times("health.settle", c.Health.Settle, 0, mostSettle)
	d.times("drain.forget", c.Drain.Forget, 0, time.Hour)
	if c.Health.Report && !c.Lists {
		d.add("health.report", "true", "the lists are not followed", "gateway.lists: true")
	}
	if c.Lists && len(c.Allowed) == 0 {
		d.add("allowed", "", "missing", "the prefixes that lists in Redis may have announced")
	}
	return d.list
}

type defects struct{ list []upstreams.Defect }

func (d *defects) add(key, member, reason, want string) {
	d.list = append(d.list, upstreams.Defect{Key: "gateway." + key, Member: member, Reason: reason, Want: want})
}

func (d *defects) number(key string, n, least, most int) {
	if n < least || n > most {
		d.add(key, strconv.Itoa(n), "out of range", "a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
	}
}

func (d *defects) times(key string, t, least, most time.Duration) {
	if t < least || t > most {
		d.add(key, t.String(), "out of range", "a time from "+least.String()+" to "+most.String())
	}
}

// prefixes names the texts that are no prefixes, and has check look at the others.
func (d *defects) prefixes(key string, texts []string, check func(key, text string, p netip.Prefix)) {
	for i, text := range texts {
		key := key + "[" + strconv.Itoa(i) + "]"
		p, err := parsePrefix(text)
		if err != nil {
			d.add(key, text, err.Error(), "an address, or a prefix such as 192.0.2.0/24 or 2001:db8::/48")
			continue
		}
		check(key, text, p)
	}
}

// parsePrefix reads an address or a prefix in any form that the lists may have. The
// error says what is wrong, without the text.
func parsePrefix(text string) (netip.Prefix, error) {
	p, err := upstreams.ParseMember(steering.IPv4, text)
	if six, err6 := upstreams.ParseMember(steering.IPv6, text); err6 == nil {
		p, err = six, nil
	}
	if err != nil {
		return netip.Prefix{}, err
	}
	addr, _, _ := strings.Cut(text, "/")
	if host, err := upstreams.ParseMember(steering.FamilyOf(p.Addr()), addr); err != nil || host.Addr() != p.Addr() {
		return netip.Prefix{}, fmt.Errorf("has bits behind its length; %v is the prefix", p)
	}
	return p, nil
}

// parsed are the prefixes of a setting that has been checked.
func parsed(texts []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	for _, text := range texts {
		if p, err := parsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

func (d *defects) probe(key string, p *probe.Config, names map[string]bool) {
	for _, w := range p.Check(key) {
		d.add(w.Key, w.Member, w.Reason, w.Want)
	}
	if names[p.Name] {
		d.add(key+".name", p.Name, "used twice", "each name once")
	}
	names[p.Name] = true
}

func (d *defects) sets(c *Config, probes map[string]bool) {
	allowed := parsed(c.Allowed)
	peers, names, sources, seen := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[netip.Prefix]string{}
	for _, p := range c.BGP.Peers {
		peers[p.Name] = true
	}
	for _, name := range c.BGP.Unnumbered {
		peers[name] = true
	}
	for i := range c.Announce {
		s, key := &c.Announce[i], "announce["+strconv.Itoa(i)+"]"
		switch {
		case s.Set == "":
			d.add(key+".set", "", "missing", "a name for the set")
		case names[s.Set]:
			d.add(key+".set", s.Set, "used twice", "each name once")
		}
		names[s.Set] = true
		d.source(key, s, c.Lists, sources)
		d.prefixes(key+".prefixes", s.Prefixes, func(key, text string, p netip.Prefix) {
			if why, want := unannounceable(p, allowed); why != "" {
				d.add(key, text, why, want)
			} else if other, twice := seen[p]; twice {
				d.add(key, text, "also in "+other, "each prefix in one set")
			}
			seen[p] = s.Set
		})
		d.attributes(key, s, peers)
		if s.When != always && !probes[s.When] {
			d.add(key+".when", s.When, "no probe of that name", "always, or one of gateway.probes")
		}
		d.number(key+".floor", *s.Floor, 0, 1000)
		if _, ok := s.withdrawAfter(); !ok {
			d.add(key+".withdraw_after", s.WithdrawAfter, "not a duration", "never, or one such as 1m")
		}
	}
}

func (d *defects) source(key string, s *SetConfig, lists bool, used map[string]bool) {
	switch s.From {
	case "":
		if len(s.Prefixes) == 0 {
			d.add(key+".prefixes", "", "missing", "prefixes, or from: pool or node")
		}
		return
	case fromPool:
		if !lists {
			d.add(key+".from", s.From, "the lists are not followed", "gateway.lists: true")
		}
	case fromNode:
	default:
		d.add(key+".from", s.From, "unknown", "pool or node")
	}
	if used[s.From] {
		d.add(key+".from", s.From, "used twice", "each source in one set")
	}
	used[s.From] = true
	if len(s.Prefixes) > 0 {
		d.add(key+".prefixes", "", "beside from", "one of the two")
	}
}

// unannounceable says why a prefix must not be announced, and what would be right;
// nothing if it may be. Without any allowed all are.
func unannounceable(p netip.Prefix, allowed []netip.Prefix) (why, want string) {
	a := p.Addr()
	switch {
	case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast():
		return "nothing that routers forward to", "unicast addresses that others can reach"
	case tooWide(p, widest4, widest6):
		return "too wide", "no more than a /" + strconv.Itoa(widest4) + " or an IPv6 /" + strconv.Itoa(widest6)
	case len(allowed) > 0 && !inside(p, allowed):
		return "outside of gateway.allowed", "a prefix inside of it"
	}
	return "", ""
}

// inside tells whether a prefix is in one of some others.
func inside(p netip.Prefix, others []netip.Prefix) bool {
	return slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
}

func tooWide(p netip.Prefix, widest4, widest6 int) bool {
	return p.Addr().Is4() && p.Bits() < widest4 || p.Addr().Is6() && p.Bits() < widest6
}

func (d *defects) attributes(key string, s *SetConfig, peers map[string]bool) {
	for i, text := range s.Communities {
		if _, _, err := parseCommunity(text); err != nil {
			d.add(key+".communities["+strconv.Itoa(i)+"]", text, err.Error(), `one such as "65000:100", "4200000000:1:2" or no-export`)
		}
	}
	for i, m := range s.PeerMED {
		if !peers[m.Peer] {
			d.add(key+".peer_med["+strconv.Itoa(i)+"].peer", m.Peer, "no such peer", "the name of one of gateway.bgp.peers")
		}
		d.number(key+".peer_med["+strconv.Itoa(i)+"].med", m.MED, 0, maxMED)
	}
	if s.MED != nil {
		d.number(key+".med", *s.MED, 0, maxMED)
	}
	d.number(key+".prepend", s.Prepend, 0, maxPrepend)
}

// parseCommunity reads a community: of three numbers it is a large one.
func parseCommunity(text string) (c bgp.Community, large *bgp.LargeCommunity, err error) {
	if strings.Count(text, ":") == 2 {
		l, err := bgp.ParseLargeCommunity(text)
		return 0, &l, err
	}
	c, err = bgp.ParseCommunity(text)
	return c, nil, err
}

// withdrawAfter is the setting as a time; 0 is never.
func (s *SetConfig) withdrawAfter() (time.Duration, bool) {
	if s.WithdrawAfter == never {
		return 0, true
	}
	d, err := time.ParseDuration(s.WithdrawAfter)
	return d, err == nil && d > 0
}

// route is what all routes of a set have in common. The section has been checked.
func (s *SetConfig) route() bgp.Route {
	r := bgp.Route{Prepend: s.Prepend, PeerMED: map[string]uint32{}}
	if s.MED != nil {
		med := uint32(*s.MED)
		r.MED = &med
	}
	for _, text := range s.Communities {
		if c, large, _ := parseCommunity(text); large != nil {
			r.Large = append(r.Large, *large)
		} else {
			r.Communities = append(r.Communities, c)
		}
	}
	for _, m := range s.PeerMED {
		r.PeerMED[m.Peer] = uint32(m.MED)
	}
	return r
}

// needsRestart tells whether something differs that cannot be changed while the
// gateway runs.
func (c *Config) needsRestart(next *Config) bool {
	return c.Name != next.Name || c.Site != next.Site || c.StateDir != next.StateDir || c.Lists != next.Lists || c.Health != next.Health || !reflect.DeepEqual(c.BGP, next.BGP) ||
		!reflect.DeepEqual(c.Dataplane, next.Dataplane) || !reflect.DeepEqual(c.Consul, next.Consul) ||
		!reflect.DeepEqual(c.memberships(), next.memberships()) || !reflect.DeepEqual(c.ConsulSites, next.ConsulSites)
}
