package gateway

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/gateway/bgp"
)

// good is a section without a defect, which rows of tests change.
func good() Config {
	return Config{
		Name: "edge1.example.org", Allowed: []string{"192.0.2.0/24", "2001:db8:feed::/48"},
		BGP: bgp.Config{AS: "4200000001", RouterID: "192.0.2.1", Peers: []bgp.PeerConfig{{Name: "tor", Address: "2001:db8::1"}}},
		Announce: []SetConfig{
			{Set: "vips", Prefixes: []string{"192.0.2.1", "2001:db8:feed::1"}},
			{Set: "web", Prefixes: []string{"192.0.2.128/25"}, When: "web"},
		},
		Probes: []probe.Config{{Name: "web", Kind: "tcp", Target: "[::1]:80"}},
	}
}

// checked is a section with its defaults, or the defects that it has.
func checked(edit func(*Config)) (Config, []string) {
	c := good()
	if edit != nil {
		edit(&c)
	}
	c.Defaults()
	var out []string
	for _, d := range c.Check() {
		out = append(out, d.String())
	}
	return c, out
}

// TestCheck has a row for every rule.
func TestCheck(t *testing.T) {
	t.Parallel()
	const wantPrefix = "; want an address, or a prefix such as 192.0.2.0/24 or 2001:db8::/48"
	const wantCommunity = `; want one such as "65000:100", "4200000000:1:2" or no-export`
	first := func(edit func(*SetConfig)) func(*Config) { return func(c *Config) { edit(&c.Announce[0]) } }
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want []string
	}{
		{"nothing wrong", nil, nil},
		{"no probes", func(c *Config) { c.Probes, c.Announce = nil, c.Announce[:1] }, nil},
		{"nothing is announced", func(c *Config) { c.Announce = nil }, nil},
		{"all forms of addresses", first(func(s *SetConfig) {
			s.Prefixes = []string{"[2001:db8:feed::2]", "2001:DB8:FEED:0::3", "::ffff:192.0.2.4", "192.0.2.8/30", "2001:db8:feed:1::/64"}
		}), nil},
		{"anywhere, where nothing says what is allowed", func(c *Config) { c.Allowed, c.Announce[0].Prefixes = nil, []string{"203.0.113.1"} }, nil},
		{"the whole net may be allowed", func(c *Config) { c.Allowed = []string{"0.0.0.0/0", "::/0"} }, nil},
		{"unnumbered peers may have a MED", func(c *Config) {
			c.BGP.Unnumbered = []string{"eth0"}
			c.Announce[0].PeerMED = []PeerMED{{"eth0", 1}, {"tor", maxMED}}
		}, nil},
		{"pool and node", func(c *Config) {
			c.Lists = true
			c.Announce = append(c.Announce, SetConfig{From: "pool"}, SetConfig{From: "node"})
		}, nil},

		{"bad name", func(c *Config) { c.Name = "a..b" }, []string{`gateway.name: "a..b": not the name of an edge; want a name such as edge1.example.org`}},
		{"bad name: a dot", func(c *Config) { c.Name = "." }, []string{`gateway.name: ".": not the name of an edge; want a name such as edge1.example.org`}},
		{"bad state_dir", func(c *Config) { c.StateDir = "state" }, []string{`gateway.state_dir: "state": not an absolute path; want a directory such as /var/lib/razor-gateway`}},
		{"no peers", func(c *Config) { c.BGP.Peers = nil }, []string{`gateway.bgp.peers: no peer; want peers with an address, or unnumbered: [eth0]`}},
		{"bad health", func(c *Config) { c.Health = HealthConfig{true, time.Minute, -time.Second} }, []string{
			`gateway.health.every: "1m0s": out of range; want a time from 500ms to 3s`,
			`gateway.health.settle: "-1s": out of range; want a time from 0s to 10m0s`,
			`gateway.health.report: "true": the lists are not followed; want gateway.lists: true`,
		}},
		{"bad drain.forget", func(c *Config) { c.Drain.Forget = 2 * time.Hour }, []string{`gateway.drain.forget: "2h0m0s": out of range; want a time from 0s to 1h0m0s`}},
		{"bad allowed", func(c *Config) { c.Allowed = append(c.Allowed, "192.0.2.1/24", "example.org") }, []string{
			`gateway.allowed[2]: "192.0.2.1/24": has bits behind its length; 192.0.2.0/24 is the prefix` + wantPrefix,
			`gateway.allowed[3]: "example.org": unexpected character` + wantPrefix,
		}},
		{"lists without allowed", func(c *Config) { c.Lists, c.Allowed = true, nil }, []string{`gateway.allowed: missing; want the prefixes that lists in Redis may have announced`}},
		{"bad blackhole.limit", func(c *Config) { c.Blackhole.Limit = -1 }, []string{`gateway.blackhole.limit: "-1": out of range; want a number from 1 to 10000`}},

		{"set without a name", first(func(s *SetConfig) { s.Set = "" }), []string{`gateway.announce[0].set: missing; want a name for the set`}},
		{"set twice", first(func(s *SetConfig) { s.Set = "web" }), []string{`gateway.announce[1].set: "web": used twice; want each name once`}},
		{"set without prefixes", first(func(s *SetConfig) { s.Prefixes = nil }), []string{`gateway.announce[0].prefixes: missing; want prefixes, or from: pool or node`}},
		{"bad prefixes", first(func(s *SetConfig) {
			s.Prefixes = []string{"192.0.2.300", "192.0.2.1/16", "fe80::1%eth0", "192.0.2.9/24", "192.0.2.010", "203.0.113.1"}
		}), []string{
			`gateway.announce[0].prefixes[0]: "192.0.2.300": IPv4 field has value >255` + wantPrefix,
			`gateway.announce[0].prefixes[1]: "192.0.2.1/16": has bits behind its length; 192.0.0.0/16 is the prefix` + wantPrefix,
			`gateway.announce[0].prefixes[2]: "fe80::1%eth0": zone identifier` + wantPrefix,
			`gateway.announce[0].prefixes[3]: "192.0.2.9/24": has bits behind its length; 192.0.2.0/24 is the prefix` + wantPrefix,
			`gateway.announce[0].prefixes[4]: "192.0.2.010": IPv4 field has octet with leading zero` + wantPrefix,
			`gateway.announce[0].prefixes[5]: "203.0.113.1": outside of gateway.allowed; want a prefix inside of it`,
		}},
		{"the place of a bad prefix behind one that cannot be read", first(func(s *SetConfig) { s.Prefixes = []string{"x", "203.0.113.1"} }), []string{
			`gateway.announce[0].prefixes[0]: "x": unable to parse IP` + wantPrefix,
			`gateway.announce[0].prefixes[1]: "203.0.113.1": outside of gateway.allowed; want a prefix inside of it`,
		}},
		{"prefix around what is allowed", first(func(s *SetConfig) { s.Prefixes = []string{"192.0.0.0/16"} }), []string{
			`gateway.announce[0].prefixes[0]: "192.0.0.0/16": outside of gateway.allowed; want a prefix inside of it`,
		}},
		{"prefix twice, in two forms", first(func(s *SetConfig) { s.Prefixes = []string{"2001:db8:feed::1", "2001:DB8:FEED::1/128"} }), []string{
			`gateway.announce[0].prefixes[1]: "2001:DB8:FEED::1/128": also in vips; want each prefix in one set`,
		}},
		{"prefix in two sets", first(func(s *SetConfig) { s.Prefixes = []string{"192.0.2.128/25"} }), []string{
			`gateway.announce[1].prefixes[0]: "192.0.2.128/25": also in vips; want each prefix in one set`,
		}},
		{"prefix in a prefix of another set", first(func(s *SetConfig) { s.Prefixes = []string{"192.0.2.129"} }), nil},
		{"too wide", func(c *Config) {
			c.Allowed, c.Announce[0].Prefixes = nil, []string{"4.0.0.0/7", "8.0.0.0/8", "2001::/18", "2001::/19"}
		}, []string{
			`gateway.announce[0].prefixes[0]: "4.0.0.0/7": too wide; want no more than a /8 or an IPv6 /19`,
			`gateway.announce[0].prefixes[2]: "2001::/18": too wide; want no more than a /8 or an IPv6 /19`,
		}},
		{"no unicast", func(c *Config) {
			c.Allowed, c.Announce[0].Prefixes = nil, []string{"0.0.0.0/0", "::1", "ff02::1", "fe80::/64", "169.254.0.0/16", "224.0.0.0/8"}
		}, []string{
			`gateway.announce[0].prefixes[0]: "0.0.0.0/0": nothing that routers forward to; want unicast addresses that others can reach`,
			`gateway.announce[0].prefixes[1]: "::1": nothing that routers forward to; want unicast addresses that others can reach`,
			`gateway.announce[0].prefixes[2]: "ff02::1": nothing that routers forward to; want unicast addresses that others can reach`,
			`gateway.announce[0].prefixes[3]: "fe80::/64": nothing that routers forward to; want unicast addresses that others can reach`,
			`gateway.announce[0].prefixes[4]: "169.254.0.0/16": nothing that routers forward to; want unicast addresses that others can reach`,
			`gateway.announce[0].prefixes[5]: "224.0.0.0/8": nothing that routers forward to; want unicast addresses that others can reach`,
		}},
		{"bad from", first(func(s *SetConfig) { s.Prefixes, s.From = nil, "redis" }), []string{`gateway.announce[0].from: "redis": unknown; want pool or node`}},
		{"from beside prefixes", first(func(s *SetConfig) { s.From = "node" }), []string{`gateway.announce[0].prefixes: beside from; want one of the two`}},
		{"pool without lists", first(func(s *SetConfig) { s.Prefixes, s.From = nil, "pool" }), []string{`gateway.announce[0].from: "pool": the lists are not followed; want gateway.lists: true`}},
		{"from twice", func(c *Config) { c.Announce = []SetConfig{{Set: "a", From: "node"}, {Set: "b", From: "node"}} }, []string{
			`gateway.announce[1].from: "node": used twice; want each source in one set`,
		}},
		{"probe unknown", first(func(s *SetConfig) { s.When = "dns" }), []string{`gateway.announce[0].when: "dns": no probe of that name; want always, or one of gateway.probes`}},
		{"bad communities", first(func(s *SetConfig) {
			s.Communities = []string{"65000:65536", "no-export", "1:2:3:4", "65536:1", "4200000000:1:2", "4294967296:1:1", "64512:-1", "", "NO-EXPORT", "65000: 1"}
		}), []string{
			`gateway.announce[0].communities[0]: "65000:65536": not a community` + wantCommunity,
			`gateway.announce[0].communities[2]: "1:2:3:4": not a community` + wantCommunity,
			`gateway.announce[0].communities[3]: "65536:1": not a community` + wantCommunity,
			`gateway.announce[0].communities[5]: "4294967296:1:1": not a community` + wantCommunity,
			`gateway.announce[0].communities[6]: "64512:-1": not a community` + wantCommunity,
			`gateway.announce[0].communities[7]: not a community` + wantCommunity,
			`gateway.announce[0].communities[9]: "65000: 1": not a community` + wantCommunity,
		}},
		{"bad MED", first(func(s *SetConfig) { s.MED, s.PeerMED = new(-1), []PeerMED{{"nobody", 1}, {"tor", maxMED + 1}} }), []string{
			`gateway.announce[0].peer_med[0].peer: "nobody": no such peer; want the name of one of gateway.bgp.peers`,
			`gateway.announce[0].peer_med[1].med: "4294967296": out of range; want a number from 0 to 4294967295`,
			`gateway.announce[0].med: "-1": out of range; want a number from 0 to 4294967295`,
		}},
		{"bad prepend", first(func(s *SetConfig) { s.Prepend = 21 }), []string{`gateway.announce[0].prepend: "21": out of range; want a number from 0 to 20`}},
		{"bad floor", first(func(s *SetConfig) { s.Floor = new(-1) }), []string{`gateway.announce[0].floor: "-1": out of range; want a number from 0 to 1000`}},
		{"bad withdraw_after", func(c *Config) { c.Announce[0].WithdrawAfter, c.Announce[1].WithdrawAfter = "0s", "later" }, []string{
			`gateway.announce[0].withdraw_after: "0s": not a duration; want never, or one such as 1m`,
			`gateway.announce[1].withdraw_after: "later": not a duration; want never, or one such as 1m`,
		}},
		{"bad probes", func(c *Config) { c.Probes = append(c.Probes, probe.Config{Name: "web", Kind: "icmp"}) }, []string{
			`gateway.probes[1].kind: "icmp": unknown; want http, https, tcp, dns or exec`,
			`gateway.probes[1].name: "web": used twice; want each name once`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, got := checked(tt.edit); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := Config{Announce: []SetConfig{{From: "node"}, {Set: "kept", When: "web", Floor: new(0), WithdrawAfter: "never"}}, Probes: []probe.Config{{Name: "web", Kind: "http"}}}
	c.Defaults()
	host, _ := os.Hostname()
	if c.Name != host || c.StateDir != "/var/lib/razor-gateway" || c.Drain != (DrainConfig{5 * time.Second, 2 * time.Second, 5 * time.Minute}) || c.Health != (HealthConfig{false, 2 * time.Second, 5 * time.Second}) || c.Blackhole != (BlackholeConfig{50, 24 * time.Hour}) {
		t.Errorf("%+v", c)
	}
	if s := c.Announce[0]; s.Set != "node" || s.When != "always" || *s.Floor != 1 || s.WithdrawAfter != "1m" {
		t.Errorf("a set with nothing: %+v", s)
	}
	if s := c.Announce[1]; s.Set != "kept" || s.When != "web" || *s.Floor != 0 || s.WithdrawAfter != "never" {
		t.Errorf("a set with all: %+v", s)
	}
	if c.BGP.Port != 179 || c.Probes[0].Path != "/" {
		t.Errorf("peers and probes have none: %+v", c)
	}
}

// TestUsed: a file for the nameserver alone has no gateway.
func TestUsed(t *testing.T) {
	t.Parallel()
	c := Config{}
	c.Defaults()
	if c.Used() {
		t.Error("an empty section is used")
	}
	for _, c := range []Config{{Allowed: []string{"192.0.2.0/24"}}, {Announce: make([]SetConfig, 1)}, {Probes: make([]probe.Config, 1)}, {BGP: bgp.Config{Unnumbered: []string{"eth0"}}}} {
		if !c.Used() {
			t.Errorf("%+v is not used", c)
		}
	}
}

func TestNeedsRestart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want bool
	}{
		{"as it was", func(*Config) {}, false},
		{"other prefixes", func(c *Config) { c.Announce = c.Announce[:1] }, false},
		{"other probes", func(c *Config) { c.Probes[0].Target = "[::1]:81" }, false},
		{"other times", func(c *Config) { c.Drain.Converge, c.Blackhole.Limit = time.Minute, 1 }, false},
		{"more is allowed", func(c *Config) { c.Allowed = nil }, false},
		{"another name", func(c *Config) { c.Name = "b" }, true},
		{"another directory", func(c *Config) { c.StateDir = "/b" }, true},
		{"lists", func(c *Config) { c.Lists = true }, true},
		{"what nameservers are told", func(c *Config) { c.Health.Report = true }, true},
		{"another AS", func(c *Config) { c.BGP.AS = "4200000002" }, true},
		{"another peer", func(c *Config) { c.BGP.Peers[0].Address = "2001:db8::2" }, true},
		{"BFD", func(c *Config) { c.BGP.Peers[0].BFD = &bgp.BFDConfig{} }, true},
	} {
		was, _ := checked(nil)
		next, _ := checked(tt.edit)
		if got := was.needsRestart(&next); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestCommonRoute(t *testing.T) {
	t.Parallel()
	s := SetConfig{Communities: []string{"65000:1", "4200000000:1:2", "no-export"}, MED: new(0), PeerMED: []PeerMED{{"tor", 7}}, Prepend: 2}
	if got := s.route().String(); got != " 65000:1 no-export 4200000000:1:2 med=0 med(tor)=7 prepend=2" {
		t.Error(got)
	}
	if r := (&SetConfig{}).route(); r.MED != nil || r.String() != "" {
		t.Errorf("%+v", r)
	}
}

// FuzzParsePrefix: what is read is a prefix, and is written in a form that is read
// as the same.
func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "192.0.2.0/24", "[2001:db8::1]", "::ffff:192.0.2.1/120", "2001:db8::/129", "1.2.3.4/33", "/", "[", "::/0", "fe80::1%a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePrefix(text)
		if err != nil {
			if p.IsValid() || err.Error() == "" {
				t.Errorf("%q: %v, %v", text, p, err)
			}
			return
		}
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			t.Errorf("%q: %v", text, p)
		}
		if again, err := parsePrefix(p.String()); err != nil || again != p {
			t.Errorf("%q: %v, again %v, %v", text, p, again, err)
		}
	})
}

// FuzzCommunity: what is read is written in a form that is read as the same.
func FuzzCommunity(f *testing.F) {
	for _, s := range []string{"65000:1", "4200000000:1:2", "blackhole", "No-Export", "1:", ":", "1:2:3:4", "+1:1", "00001:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, large, err := parseCommunity(text)
		if err != nil {
			return
		}
		s := SetConfig{Communities: []string{text}}
		r := s.route()
		if large != nil && (len(r.Large) != 1 || r.Large[0] != *large) || large == nil && (len(r.Communities) != 1 || r.Communities[0] != c) {
			t.Errorf("%q: %+v", text, r)
		}
		again, largeAgain, err := parseCommunity(strings.TrimSpace(r.String()))
		if err != nil || again != c || (large == nil) != (largeAgain == nil) || large != nil && *large != *largeAgain {
			t.Errorf("%q: written as %q", text, r.String())
		}
	})
}

// TestUnannounced: what `razor check` says of the pool of the edge.
func TestUnannounced(t *testing.T) {
	t.Parallel()
	pool := prefixes("192.0.2.1/32", "192.0.2.77/32", "192.0.2.200/32", "203.0.113.0/24", "2001:db8:feed::5/128", "2001:db8:feed:1::/64")
	said := func(c Config) []string {
		var out []string
		for _, d := range c.Unannounced(pool) {
			out = append(out, d.String())
		}
		return out
	}
	c, _ := checked(nil)
	want := []string{
		`edge1.example.org:A: "192.0.2.77": this gateway does not announce it; want from: pool in gateway.announce, or a set with it`,
		`edge1.example.org:A: "203.0.113.0/24": this gateway does not announce it; want from: pool in gateway.announce, or a set with it`,
		`edge1.example.org:AAAA: "2001:db8:feed::5": this gateway does not announce it; want from: pool in gateway.announce, or a set with it`,
		`edge1.example.org:AAAA: "2001:db8:feed:1::/64": this gateway does not announce it; want from: pool in gateway.announce, or a set with it`,
	}
	if got := said(c); !slices.Equal(got, want) {
		t.Errorf("without the pool\n%s", strings.Join(got, "\n"))
	}
	c, _ = checked(func(c *Config) {
		c.Lists = true
		c.Announce = append(c.Announce, SetConfig{From: "pool"})
	})
	want = []string{`edge1.example.org:A: "203.0.113.0/24": outside of gateway.allowed; want a prefix inside of it`}
	if got := said(c); !slices.Equal(got, want) {
		t.Errorf("with the pool\n%s", strings.Join(got, "\n"))
	}
}
