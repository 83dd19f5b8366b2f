package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
)

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// noon is when the clock of these tests begins.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// told is a plan in words: what is told to peers that take blackholes, what to others,
// and what is bound.
func (p plan) told() string {
	var b strings.Builder
	for _, r := range p.routes {
		kind := "route"
		if r.Blackhole {
			kind = "blackhole"
		}
		fmt.Fprintf(&b, "%s %s%s\n", kind, r.Prefix, r.String())
	}
	for _, x := range p.bind {
		fmt.Fprintf(&b, "bind %s\n", x)
	}
	for _, r := range p.refused {
		fmt.Fprintf(&b, "refused %s\n", r)
	}
	return b.String()
}

// was are announcements of a plan before.
func was(presence steering.Presence, texts ...string) map[netip.Prefix]*Announcement {
	out := map[netip.Prefix]*Announcement{}
	for _, p := range prefixes(texts...) {
		out[p] = &Announcement{Prefix: p, presence: presence, Since: noon.Add(-time.Hour)}
	}
	return out
}

// fakeDataplane is not ready for some prefixes.
type fakeDataplane map[string]string

func (d fakeDataplane) Servable(p netip.Prefix) (bool, string) {
	why := d[p.String()]
	return why == "", why
}

// fakeSites know how many others announce a prefix.
type fakeSites map[string]int

func (s fakeSites) Announcers(p netip.Prefix) (int, bool) {
	n, known := s[p.String()]
	return n, known
}

func TestMakePlan(t *testing.T) {
	t.Parallel()
	up, down := steering.Damped{Health: steering.HealthUp, Since: noon}, steering.Damped{Health: steering.HealthDown, Since: noon.Add(-30 * time.Second), Reason: "failed 3 times: refused"}
	oneSet := func(edit func(*SetConfig)) func(*Config) {
		return func(c *Config) {
			c.Announce = c.Announce[1:]
			if edit != nil {
				edit(&c.Announce[0])
			}
		}
	}
	health := func(d steering.Damped) map[string]steering.Damped { return map[string]steering.Damped{"web": d} }
	for _, tt := range []struct {
		name  string
		edit  func(*Config)
		facts facts
		want  string
		until time.Duration
	}{
		{
			name: "all is well", facts: facts{health: health(up)},
			want: "route 192.0.2.1/32\nroute 2001:db8:feed::1/128\nroute 192.0.2.128/25\n",
		}, {
			name: "with attributes, and bound", edit: oneSet(func(s *SetConfig) {
				s.Bind, s.MED, s.Communities, s.Prepend = true, new(10), []string{"65000:1", "1:2:3"}, 1
			}), facts: facts{health: health(up)},
			want: "route 192.0.2.128/25 65000:1 1:2:3 med=10 prepend=1\nbind 192.0.2.128/25\n",
		}, {
			name: "before the first result", edit: oneSet(func(s *SetConfig) { s.Bind = true }), facts: facts{health: health(steering.Damped{})},
			want: "",
		}, {
			name: "a probe that nobody runs", edit: oneSet(nil), facts: facts{},
			want: "",
		}, {
			name: "down from the start", edit: oneSet(nil), facts: facts{health: health(down)},
			want: "",
		}, {
			name: "down, nobody knows of others: lowered, and still bound", edit: oneSet(func(s *SetConfig) { s.Bind, s.Prepend, s.Communities = true, 1, []string{"65000:1"} }),
			facts: facts{health: health(down), was: was(steering.Announced, "192.0.2.128/25")},
			want:  "route 192.0.2.128/25 65000:1 graceful-shutdown prepend=1 lowered\nbind 192.0.2.128/25\n", until: 30 * time.Second,
		}, {
			name: "the same, for too long", edit: oneSet(func(s *SetConfig) { s.WithdrawAfter = "30s" }),
			facts: facts{health: health(down), was: was(steering.Lowered, "192.0.2.128/25")},
			want:  "",
		}, {
			name: "the same, for ever", edit: oneSet(func(s *SetConfig) { s.WithdrawAfter = "never" }),
			facts: facts{health: health(down), was: was(steering.Lowered, "192.0.2.128/25")},
			want:  "route 192.0.2.128/25 graceful-shutdown lowered\n",
		}, {
			name: "down, no floor", edit: oneSet(func(s *SetConfig) { s.Floor = new(0) }),
			facts: facts{health: health(down), was: was(steering.Announced, "192.0.2.128/25")},
			want:  "",
		}, {
			name: "down, as many others as the floor", edit: oneSet(nil),
			facts: facts{health: health(down), was: was(steering.Announced, "192.0.2.128/25"), sites: fakeSites{"192.0.2.128/25": 1}},
			want:  "",
		}, {
			name: "down, fewer others than the floor: for ever", edit: oneSet(func(s *SetConfig) { s.Floor = new(2) }),
			facts: facts{health: health(down), was: was(steering.Announced, "192.0.2.128/25"), sites: fakeSites{"192.0.2.128/25": 1}},
			want:  "route 192.0.2.128/25 graceful-shutdown lowered\n",
		}, {
			name:  "the dataplane is not ready for one",
			facts: facts{health: health(up), dataplane: fakeDataplane{"192.0.2.1/32": "no backend"}},
			want:  "route 2001:db8:feed::1/128\nroute 192.0.2.128/25\n",
		}, {
			name: "leaving", facts: facts{stage: steering.Leaving, own: steering.Leaving, health: health(up), holes: prefixes("192.0.2.1/32")},
			want: "route 192.0.2.1/32 graceful-shutdown lowered\nroute 2001:db8:feed::1/128 graceful-shutdown lowered\nroute 192.0.2.128/25 graceful-shutdown lowered\nblackhole 192.0.2.1/32 blackhole no-export\n",
		}, {
			name: "the community is there already", edit: oneSet(func(s *SetConfig) { s.Communities = []string{"graceful-shutdown"} }), facts: facts{stage: steering.Leaving, own: steering.Leaving, health: health(up)},
			want: "route 192.0.2.128/25 graceful-shutdown lowered\n",
		}, {
			name: "out of the way", edit: func(c *Config) { c.Announce[0].Bind = true }, facts: facts{stage: steering.OutOfTheWay, own: steering.OutOfTheWay, health: health(up), holes: prefixes("192.0.2.1/32")},
			want: "",
		}, {
			name: "a blackhole is beside the route", edit: func(c *Config) { c.Announce = c.Announce[:1] }, facts: facts{holes: prefixes("192.0.2.1/32", "192.0.2.9/32")},
			want: "route 192.0.2.1/32\nroute 2001:db8:feed::1/128\nblackhole 192.0.2.1/32 blackhole no-export\nblackhole 192.0.2.9/32 blackhole no-export\n",
		}, {
			name:  "the pool, of which some must not be announced",
			edit:  func(c *Config) { c.Lists, c.Announce = true, []SetConfig{{From: "pool", Bind: true}} },
			facts: facts{pool: prefixes("192.0.2.7/32", "203.0.113.1/32", "192.0.0.0/16", "2001:db8:feed:8::/64"), refused: []string{"blackhole 192.0.2.0/23: too wide"}},
			want: "route 192.0.2.7/32\nroute 2001:db8:feed:8::/64\nbind 192.0.2.7/32\nbind 2001:db8:feed:8::/64\nrefused blackhole 192.0.2.0/23: too wide\n" +
				"refused 203.0.113.1/32: outside of gateway.allowed\nrefused 192.0.0.0/16: outside of gateway.allowed\n",
		}, {
			name: "too wide, although allowed", edit: func(c *Config) {
				c.Lists, c.Allowed, c.Announce = true, []string{"0.0.0.0/0", "::/0"}, []SetConfig{{From: "pool"}}
			},
			facts: facts{pool: prefixes("4.0.0.0/7", "4.0.0.0/8", "::/0", "ff02::/16")},
			want:  "route 4.0.0.0/8\nrefused 4.0.0.0/7: too wide\nrefused ::/0: nothing that routers forward to\nrefused ff02::/16: nothing that routers forward to\n",
		}, {
			name: "what the configuration has itself comes first, in whatever order", edit: func(c *Config) {
				c.Lists, c.Announce = true, append([]SetConfig{{From: "pool"}, {From: "node"}}, c.Announce[0])
				c.Announce[2].MED = new(7)
			},
			facts: facts{pool: prefixes("192.0.2.1/32", "192.0.2.2/32"), node: netip.MustParsePrefix("2001:db8:0:12::/64")},
			want: "route 192.0.2.2/32\nroute 2001:db8:0:12::/64\nroute 192.0.2.1/32 med=7\nroute 2001:db8:feed::1/128 med=7\n" +
				"refused 192.0.2.1/32: in set vips already\n",
		}, {
			name: "a host without a /64", edit: func(c *Config) { c.Announce = []SetConfig{{From: "node"}} },
			want: "",
		}, {
			name: "before Redis was read", edit: func(c *Config) { c.Lists, c.Announce = true, []SetConfig{{From: "pool"}} },
			want: "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, defects := checked(tt.edit)
			if len(defects) > 0 {
				t.Fatal(defects)
			}
			tt.facts.now = noon
			p := c.makePlan(tt.facts)
			if got := p.told(); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
			if got := p.until; tt.until == 0 && !got.IsZero() || tt.until != 0 && !got.Equal(noon.Add(tt.until)) {
				t.Errorf("until %s", got)
			}
		})
	}
}

// TestSince: a presence that stays keeps its time.
func TestSince(t *testing.T) {
	t.Parallel()
	c, _ := checked(func(c *Config) { c.Announce = c.Announce[:1] })
	p := c.makePlan(facts{now: noon, was: was(steering.Announced, "192.0.2.1/32")})
	if got := p.announcements[0].Since; !got.Equal(noon.Add(-time.Hour)) {
		t.Errorf("announced before: since %s", got)
	}
	if got := p.announcements[1].Since; !got.Equal(noon) {
		t.Errorf("new: since %s", got)
	}
}

// randomConfig is any section without a defect.
func randomConfig(t *rapid.T) Config {
	c := good()
	c.Lists = true
	c.Announce = nil
	free := []string{"192.0.2.1", "192.0.2.2", "192.0.2.0/25", "192.0.2.128/25", "2001:db8:feed::1", "2001:db8:feed:1::/64"}
	for i := range rapid.IntRange(0, 3).Draw(t, "sets") {
		n := rapid.IntRange(1, 2).Draw(t, "prefixes")
		c.Announce = append(c.Announce, SetConfig{Set: fmt.Sprint("set", i), Prefixes: free[:n]})
		free = free[n:]
	}
	for _, from := range []string{"pool", "node"} {
		if rapid.Bool().Draw(t, from) {
			at := rapid.IntRange(0, len(c.Announce)).Draw(t, "place of "+from)
			c.Announce = slices.Insert(c.Announce, at, SetConfig{From: from})
		}
	}
	for i := range c.Announce {
		s := &c.Announce[i]
		s.Bind = rapid.Bool().Draw(t, "bind")
		s.When = rapid.SampledFrom([]string{"", "web"}).Draw(t, "when")
		s.Floor = new(rapid.IntRange(0, 2).Draw(t, "floor"))
		s.WithdrawAfter = rapid.SampledFrom([]string{"", "never", "1s"}).Draw(t, "withdraw after")
	}
	c.Defaults()
	return c
}

func randomFacts(t *rapid.T, c *Config) facts {
	some := prefixes("192.0.2.1/32", "192.0.2.2/32", "192.0.2.0/25", "192.0.2.77/32", "2001:db8:feed::1/128", "2001:db8:feed:2::/64", "203.0.113.1/32", "2001:db8::/32")
	f := facts{
		now: noon, own: steering.Stage(rapid.IntRange(0, 2).Draw(t, "stage")),
		node:   rapid.SampledFrom(append(prefixes("2001:db8:0:12::/64", "2001:db8:feed:1::/64"), netip.Prefix{})).Draw(t, "node"),
		pool:   rapid.SliceOfDistinct(rapid.SampledFrom(some), rapid.ID).Draw(t, "pool"),
		health: map[string]steering.Damped{"web": {Health: steering.Health(rapid.IntRange(0, 2).Draw(t, "health")), Since: noon.Add(-time.Duration(rapid.IntRange(0, 120).Draw(t, "for")) * time.Second)}},
		holes:  rapid.SliceOfDistinct(rapid.SampledFrom(prefixes("192.0.2.1/32", "192.0.2.9/32", "2001:db8:feed::1/128")), rapid.ID).Draw(t, "holes"),
	}
	f.stage = steering.Stage(rapid.IntRange(int(f.own), 2).Draw(t, "stage of others"))
	if f.own == steering.InService {
		f.stage = f.own
	}
	if rapid.Bool().Draw(t, "was") {
		before := f
		before.stage, before.own, before.health = steering.InService, steering.InService, map[string]steering.Damped{"web": {Health: steering.HealthUp}}
		f.was = map[netip.Prefix]*Announcement{}
		for _, a := range c.makePlan(before).announcements {
			f.was[a.Prefix] = a
		}
	}
	if rapid.Bool().Draw(t, "dataplane") {
		f.dataplane = fakeDataplane{"192.0.2.1/32": "not ready"}
	}
	if rapid.Bool().Draw(t, "sites") {
		f.sites = fakeSites{"192.0.2.1/32": rapid.IntRange(0, 2).Draw(t, "others")}
	}
	return f
}

// TestPlanHolds checks what has to hold of every plan.
func TestPlanHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := randomConfig(t)
		if d := c.Check(); len(d) > 0 {
			t.Fatal(d)
		}
		f := randomFacts(t, &c)
		p := c.makePlan(f)
		allowed := parsed(c.Allowed)
		routes, holes := map[netip.Prefix]bgp.Route{}, map[netip.Prefix]bool{}
		for _, r := range p.routes {
			if _, twice := routes[r.Prefix]; !r.Blackhole && twice || holes[r.Prefix] && r.Blackhole {
				t.Fatalf("two routes for %s\n%s", r.Prefix, p.told())
			}
			if !inside(r.Prefix, allowed) && r.Prefix != f.node {
				t.Fatalf("%s is not allowed", r.Prefix)
			}
			switch black := slices.Contains(r.Communities, bgp.BlackholeRoute); {
			case r.Blackhole && (!black || !slices.Contains(r.Communities, bgp.NoExport)):
				t.Fatalf("a blackhole without its communities: %s", r)
			case r.Blackhole:
				holes[r.Prefix] = true
			case black:
				t.Fatalf("discarded where it should be served: %s", r)
			default:
				routes[r.Prefix] = r
			}
		}
		if f.own == steering.OutOfTheWay && len(p.routes)+len(p.bind) > 0 {
			t.Fatalf("a drained gateway announces\n%s", p.told())
		}
		judged := map[netip.Prefix]bool{}
		for i, a := range p.announcements {
			r, told := routes[a.Prefix]
			switch {
			case judged[a.Prefix] || i > 0 && bgp.ComparePrefixes(p.announcements[i-1].Prefix, a.Prefix) >= 0:
				t.Fatal("not sorted, or judged twice")
			case told != (a.presence != steering.Withdrawn):
				t.Fatalf("%s is %s, and a route: %v", a.Prefix, a.Presence, told)
			case told && (a.presence == steering.Lowered) != slices.Contains(r.Communities, bgp.GracefulShutdown):
				t.Fatalf("%s is %s:%s", a.Prefix, a.Presence, r)
			case !told && slices.Contains(p.bind, a.Prefix):
				t.Fatalf("%s is withdrawn and bound", a.Prefix)
			case a.Reason == "" || a.Set == "" || a.Since.After(f.now):
				t.Fatalf("unexplained: %+v", a)
			}
			judged[a.Prefix] = true
		}
		if len(routes) > len(judged) {
			t.Fatal("a route that nobody judged")
		}
		if !p.until.IsZero() && !f.now.Before(p.until) {
			t.Fatalf("to be planned again in the past: %s", p.until)
		}
		if again := c.makePlan(f); again.told() != p.told() {
			t.Fatalf("not the same again\n%s\n%s", p.told(), again.told())
		}
	})
}
