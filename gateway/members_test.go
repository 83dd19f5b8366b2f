package gateway

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams/consul"
)

// consulLab is a service in Consul, and what is known of agents.
type consulLab struct {
	*serviceMembers
	t         *testing.T
	now       time.Time
	instances map[int]consul.Member
	agents    map[netip.Addr]agentWord
}

func newConsulLab(t *testing.T, n int) *consulLab {
	l := &consulLab{
		serviceMembers: &serviceMembers{service: "web", block: netip.MustParsePrefix("2001:db8:5e::/48"), list: map[netip.Addr]member{}},
		t:              t, now: time.Unix(1795264015, 0), instances: map[int]consul.Member{}, agents: map[netip.Addr]agentWord{},
	}
	l.guard.Floor, _ = steering.ParseLimit("50%")
	for i := range n {
		l.instances[i] = instanceOf(i, consul.Passing)
	}
	l.step()
	return l
}

func instanceOf(i int, health consul.Health) consul.Member {
	return consul.Member{ID: fmt.Sprint("dc1/web", i), Node: fmt.Sprint("web", i), Health: health, Meta: map[string]string{
		"locator": fmt.Sprintf("2001:db8:5e:%x::/64", i+1), "target": "0", "weight": "1",
	}}
}

func sidOf(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:%x:5201::", i+1)) }

func (l *consulLab) step() (changed bool, again time.Time) {
	var all []consul.Member
	for _, i := range slices.Sorted(maps.Keys(l.instances)) {
		all = append(all, l.instances[i])
	}
	return l.next(all, func(sid netip.Addr) agentWord { return l.agents[sid] }, l.now)
}

// states are the first letters of what backends are, in order: active, draining, or none.
func (l *consulLab) states() string {
	out := ""
	for i := range 10 {
		is, ok := l.list[sidOf(i)]
		if !ok {
			out += "-"
			continue
		}
		out += string(is.State[:1])
	}
	return strings.TrimRight(out, "-")
}

func (l *consulLab) holds(what, states string) {
	l.t.Helper()
	l.step()
	if got := l.states(); got != states {
		l.t.Errorf("%s: %s, want %s (held: %q)", what, got, states, l.held)
	}
	if changed, _ := l.step(); changed {
		l.t.Errorf("%s: it changes again", what)
	}
}

func (l *consulLab) health(h consul.Health, which ...int) {
	for _, i := range which {
		l.instances[i] = instanceOf(i, h)
	}
}

func (l *consulLab) vanish(which ...int) {
	for _, i := range which {
		delete(l.instances, i)
	}
}

func (l *consulLab) speak(which ...int) {
	for _, i := range which {
		l.agents[sidOf(i)] = agentWord{spoke: true}
	}
}

func TestMembersWithoutAgents(t *testing.T) {
	t.Parallel()
	l := newConsulLab(t, 4)
	l.holds("all pass", "aaaa")
	l.health(consul.Critical, 1)
	l.health(consul.Warning, 2)
	l.holds("one is critical", "adaa")
	l.health(consul.Passing, 1)
	l.holds("it passes again", "aaaa")
	l.vanish(3)
	l.holds("one is gone", "aaad")
	l.now = l.now.Add(leaveAfter - time.Second)
	l.holds("before its time", "aaad")
	l.now = l.now.Add(time.Second)
	l.holds("after it", "aaa")

	l.vanish(0, 1, 2)
	l.holds("all are gone", "aaa")
	if !strings.Contains(l.held, "3 backends would go by consul's word alone and 0 be left, want 2 at least") {
		t.Error("held: ", l.held)
	}
	l.now = l.now.Add(leaveAfter)
	l.holds("later", "aaa")
	l.health(consul.Critical, 0, 1, 2)
	l.holds("all are critical", "aaa")
	l.health(consul.Passing, 0)
	l.holds("fewer are than the floor", "ada")
	l.health(consul.Passing, 1)
	l.holds("enough are left", "aad")
	if l.held != "" {
		t.Error("still held: ", l.held)
	}
	l.health(consul.Maintenance, 0, 1, 2)
	l.holds("an operator wants all out", "ddd")
}

func TestMembersWithAgents(t *testing.T) {
	t.Parallel()
	l := newConsulLab(t, 4)
	l.health(consul.Critical, 3)
	if _, again := l.step(); !again.After(l.now) {
		t.Error("it is not looked whether the agent of a critical backend speaks")
	}
	l.speak(3)
	l.holds("it does", "aaaa")
	delete(l.agents, sidOf(3))
	l.health(consul.Passing, 3)
	l.speak(0, 1, 2)
	l.health(consul.Critical, 0)
	l.holds("its agent says better", "aaaa")
	l.vanish(0, 1, 2, 3)
	l.holds("all are gone, and most speak", "aaad")
	l.now = l.now.Add(time.Hour)
	l.holds("an hour later", "aaa")
	l.agents[sidOf(1)] = agentWord{spoke: true, dead: true}
	l.holds("one is silent", "a-a")
	l.agents[sidOf(0)], l.agents[sidOf(2)] = agentWord{spoke: true, dead: true}, agentWord{spoke: true, dead: true}
	l.holds("all are", "")
	delete(l.agents, sidOf(0))
	l.health(consul.Passing, 0)
	l.holds("one is back", "a")
}

// A bad instance hurts nobody else, and not even the backend that it was.
func TestMembersBadMeta(t *testing.T) {
	t.Parallel()
	for want, meta := range map[string][2]string{
		`meta locator "": want an IPv6 /64`:                                                {"locator", ""},
		`meta locator "2001:db8:5e:3::1/64": want an IPv6 /64`:                             {"locator", "2001:db8:5e:3::1/64"},
		`meta locator "192.0.2.0/24": want an IPv6 /64`:                                    {"locator", "192.0.2.0/24"},
		`meta locator "2001:db8:6e:3::/64": outside of gateway.dataplane.sr_block`:         {"locator", "2001:db8:6e:3::/64"},
		`meta target "65536": want a number from 0 to 65535`:                               {"target", "65536"},
		`meta target "-1": want a number from 0 to 65535`:                                  {"target", "-1"},
		`meta weight "many": want a number from 0 to 1000000`:                              {"weight", "many"},
		`meta sid "2001:db8:5e:9::": want 2001:db8:5e:3:5201::, by its locator and target`: {"sid", "2001:db8:5e:9::"},
		`its SID 2001:db8:5e:1:5201:: is that of dc1/web0 too`:                             {"locator", "2001:db8:5e:1::/64"},
	} {
		l := newConsulLab(t, 2)
		bad := instanceOf(2, consul.Passing)
		bad.Meta[meta[0]] = meta[1]
		l.instances[2] = bad
		l.holds(want, "aa")
		if l.bad["dc1/web2"] != want {
			t.Errorf("left out as %q, want %s", l.bad, want)
		}
		l = newConsulLab(t, 3)
		l.instances[2] = bad
		l.holds(want+", and it was good", "aaa")
		delete(l.instances, 2)
		l.holds("it is gone", "aad")
	}
}

func TestMembersOfSite(t *testing.T) {
	t.Parallel()
	l := newConsulLab(t, 2)
	l.config.Site = "east"
	l.list = map[netip.Addr]member{}
	for i, site := range []string{"east", "west"} {
		is := instanceOf(i, consul.Passing)
		is.Meta["site"], is.Meta["weight"], is.Meta["target"] = site, "7", "3"
		l.instances[i] = is
	}
	l.step()
	got := l.backends()
	if len(got) != 1 || got[0].Name != "web0/3" || *got[0].Weight != 7 || got[0].Target != 3 || len(l.bad) > 0 {
		t.Errorf("%+v, left out: %v", got, l.bad)
	}
}

func TestMembershipDefects(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*ServiceConfig){
		"": func(*ServiceConfig) {},
		`gateway.services[0].backends: beside consul; want one of the two`:                                      func(s *ServiceConfig) { s.Backends = make([]BackendConfig, 1) },
		`gateway.services[0].consul.service: missing; want the name of a service in Consul, without slashes`:    func(s *ServiceConfig) { s.Consul.Service = "" },
		`gateway.services[0].consul.tag: "a\": has quotes; want a tag without quotes`:                           func(s *ServiceConfig) { s.Consul.Tag = `a\` },
		`gateway.services[0].consul.datacenters[1]: "a": empty, or listed twice; want the name of a datacenter`: func(s *ServiceConfig) { s.Consul.Datacenters = []string{"a", "a"} },
		`gateway.services[0].consul.floor: "0%": not a share; want a share such as "50%"`:                       func(s *ServiceConfig) { s.Consul.Floor = "0%" },
		`gateway.services[0].consul: beside upstream; want one of the two`:                                      func(s *ServiceConfig) { s.Upstream = "web" },
		`gateway.services[0].backends: beside upstream; want one of the two`: func(s *ServiceConfig) {
			s.Consul, s.Upstream, s.Backends = nil, "web", make([]BackendConfig, 1)
		},
		`gateway.services[0].upstream: "a..b": empty label (a final dot, or two dots in a row); want the name of an application`: func(s *ServiceConfig) { s.Consul, s.Upstream = nil, "a..b" },
		`gateway.services[0].upstream: "web": the lists are not followed; want gateway.lists: true`: func(s *ServiceConfig) {
			s.Consul, s.Upstream, s.Name = nil, "web", "unfollowed"
		},
	} {
		s := ServiceConfig{Consul: &ConsulServiceConfig{Service: "web"}}
		s.defaults()
		change(&s)
		d := &defects{}
		d.membership("services[0]", &s, s.Name != "unfollowed")
		got := ""
		if len(d.list) > 0 {
			got = d.list[0].Error()
		}
		if len(d.list) > 1 || (want == "") != (got == "") || !strings.HasPrefix(got, want) {
			t.Errorf("got  %v\nwant %s", d.list, want)
		}
	}
}

// The file has all that the next process needs, and one that is broken hurts nobody.
func TestMembersKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one := 1
	c := &Config{StateDir: dir, Services: []ServiceConfig{{Name: "web", Consul: &ConsulServiceConfig{Service: "web", Floor: "50%"}}, {Name: "dns", Backends: []BackendConfig{{Name: "d", Weight: &one}}}}}
	c.Dataplane.SRBlock = "2001:db8:5e::/48"
	c.Consul.Defaults()
	open := func() *membership {
		t.Helper()
		m, err := newMembership(c, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		m.word = func(string, netip.Addr) agentWord { return agentWord{} }
		m.configure = func() error { return nil }
		return m
	}
	m := open()
	m.services["web"].answer = consul.Answer{At: time.Now(), Members: []consul.Member{instanceOf(0, consul.Passing), instanceOf(1, consul.Passing)}}
	m.round(time.Now())
	m.services["web"].answer = consul.Answer{At: time.Now(), Members: []consul.Member{instanceOf(0, consul.Passing)}}
	m.round(time.Now())
	next := open()
	if got, want := next.services["web"].list, m.services["web"].list; len(got) != 2 || !maps.Equal(got, want) {
		t.Errorf("kept %+v of %+v", got, want)
	}
	all := next.in(c)
	if len(all.Services[0].Backends) != 2 || all.Services[0].Backends[1].State != "draining" || len(all.Services[1].Backends) != 1 || len(c.Services[0].Backends) != 0 {
		t.Errorf("configured: %+v of %+v", all.Services, c.Services)
	}
	next.round(time.Now()) // nothing was said yet
	if got := next.status(time.Now()); len(got) != 1 || got[0].Members != 2 || got[0].Gone != 1 || got[0].Answered || !strings.HasSuffix(got[0].String(), "no answer yet") {
		t.Errorf("status: %+v", got)
	}
	c.StateDir = filepath.Join(dir, "later")
	m = open()
	m.services["web"].answer = consul.Answer{At: time.Now(), Members: []consul.Member{instanceOf(0, consul.Passing)}}
	if again := m.round(time.Now()); again.IsZero() {
		t.Error("they could not be kept, and it is not tried again")
	}
	if err := os.Mkdir(c.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.round(time.Now())
	if got := open().services["web"].list; len(got) != 1 {
		t.Errorf("kept later: %v", got)
	}
	c.StateDir = dir
	if err := os.WriteFile(filepath.Join(dir, membersFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := open().services["web"].list; len(got) != 0 {
		t.Errorf("of a broken file: %v", got)
	}
}

// Who answered another query, and does not answer this one, leaves by an operator's will,
// whatever its agent says.
func TestMembersOfAnotherQuery(t *testing.T) {
	t.Parallel()
	l := newConsulLab(t, 4)
	for i := range 4 {
		l.agents[sidOf(i)] = agentWord{spoke: true}
	}
	l.config.Tag = "canary"
	for i := 1; i < 4; i++ {
		delete(l.instances, i)
	}
	l.holds("another query", "addd")
	l.agents[sidOf(2)] = agentWord{spoke: true, silent: true}
	l.holds("an agent is silent", "ad-d")
	l.now = l.now.Add(leaveAfter - time.Second)
	l.holds("not yet", "ad-d")
	l.now = l.now.Add(time.Second)
	l.holds("after a while", "a")
	delete(l.instances, 0)
	l.holds("by consul's word alone", "a")
}
