package gateway

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// listLab is a service whose backends are in a list, and what is known of agents.
type listLab struct {
	*serviceMembers
	t      *testing.T
	now    time.Time
	agents map[netip.Addr]agentWord
}

func newListLab(t *testing.T) *listLab {
	return &listLab{
		serviceMembers: &serviceMembers{
			upstream: "web", site: "west", service: "web",
			block: netip.MustParsePrefix("2001:db8:5e::/48"), list: map[netip.Addr]member{},
		},
		t: t, now: time.Unix(1795264015, 0), agents: map[netip.Addr]agentWord{},
	}
}

func endpointsOf(t *testing.T, texts ...string) (out []upstreams.Endpoint) {
	t.Helper()
	for _, text := range texts {
		words := strings.Fields(text)
		e := upstreams.Endpoint{Addr: netip.MustParseAddrPort(words[0]), Weight: 1}
		for _, attribute := range words[1:] {
			if err := e.Set(attribute); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, e)
	}
	return out
}

// holds gives it a list, and tells what backends it has then: number, name, state, and weight.
func (l *listLab) holds(what, want string, texts ...string) (again time.Time) {
	l.t.Helper()
	list := endpointsOf(l.t, texts...)
	word := func(sid netip.Addr) agentWord { return l.agents[sid] }
	_, again = l.nextOf(list, word, l.now)
	var got []string
	for _, b := range l.backends() {
		got = append(got, b.Name+" "+b.State+" "+strings.Repeat("+", *b.Weight))
	}
	if strings.Join(got, ", ") != want {
		l.t.Errorf("%s: %q, want %q", what, got, want)
	}
	if changed, _ := l.nextOf(list, word, l.now); changed {
		l.t.Errorf("%s: it changes again", what)
	}
	return again
}

const (
	listed1 = "[2001:db8:5e:1::a]:80"
	listed2 = "[2001:db8:5e:2::a]:80"
	has1    = "2001:db8:5e:1::a active +"
	has2    = "2001:db8:5e:2::a active +"
	leaves1 = "2001:db8:5e:1::a draining +"
	leaves2 = "2001:db8:5e:2::a draining +"
)

func TestListedBackends(t *testing.T) {
	t.Parallel()
	l := newListLab(t)
	l.holds("none", "")
	if again := l.holds("both", has1+", "+has2, listed1, listed2); !again.IsZero() {
		t.Error("it comes back at ", again)
	}
	l.holds("weights", "2001:db8:5e:1::a active +++, 2001:db8:5e:2::a active ", listed1+" weight=3", listed2+" weight=0")
	l.list = map[netip.Addr]member{}
	l.holds("another site's", has1, listed1+" site=west", "[2001:db8:5e:9::a]:80 site=east")
	l.list = map[netip.Addr]member{}
	l.holds("a container and its host", has1+", 2001:db8:5e:1::b/3 active +", listed1, "[2001:db8:5e:1::b]:80 sid=2001:db8:5e:1:5201:3::")
	for sid, is := range l.list {
		if is.Locator != "2001:db8:5e:1::/64" || sid != netip.MustParseAddr("2001:db8:5e:1:5201::") && sid != netip.MustParseAddr("2001:db8:5e:1:5201:3::") {
			t.Errorf("%v: %+v", sid, is)
		}
	}
}

// Who leaves the list drains at once, also if nobody is left, and is dead when its agent is
// silent, or after its time.
func TestListedBackendsLeave(t *testing.T) {
	t.Parallel()
	l := newListLab(t)
	l.agents[sidOf(0)] = agentWord{spoke: true}
	l.holds("both", has1+", "+has2, listed1, listed2)
	if again := l.holds("both leave", leaves1+", "+leaves2); !again.After(l.now) {
		t.Error("it is not looked whether agents are silent")
	}
	if l.held != "" {
		t.Error("held: ", l.held)
	}
	l.holds("one is back", leaves1+", "+has2, listed2)
	l.now = l.now.Add(leaveAfter - time.Second)
	l.holds("before its time", leaves1+", "+leaves2)
	l.now = l.now.Add(time.Second)
	l.holds("after it, although its agent speaks", leaves2)
	l.agents[sidOf(1)] = agentWord{spoke: true}
	l.holds("its agent speaks", leaves2)
	l.agents[sidOf(1)] = agentWord{spoke: true, silent: true}
	l.holds("its agent is silent", "")
	l.holds("back, and reports say how it is", has2, listed2)
}

// A bad endpoint hurts nobody else, and not even the backend that it was.
func TestListedBackendsLeftOut(t *testing.T) {
	t.Parallel()
	for bad, want := range map[string]string{
		"192.0.2.7:80":                                      "an IPv4 address: want an IPv6 one inside of gateway.dataplane.sr_block",
		"[2001:db8:6e:3::a]:80":                             "outside of gateway.dataplane.sr_block, 2001:db8:5e::/48",
		"[2001:db8:5e:1::b]:80":                             "its SID 2001:db8:5e:1:5201:: is that of [2001:db8:5e:1::a]:80 too",
		"[2001:db8:5e:1::a]:443":                            "its SID 2001:db8:5e:1:5201:: is that of [2001:db8:5e:1::a]:80 too",
		"[2001:db8:5e:3::a]:80 sid=2001:db8:5e:4:5201::":    "sid 2001:db8:5e:4:5201::: want 2001:db8:5e:3:5201::, or that of a container of this host",
		"[2001:db8:5e:3::a]:80 sid=2001:db8:5e:3::100":      "sid 2001:db8:5e:3::100: want 2001:db8:5e:3:5201::, or that of a container of this host",
		"[2001:db8:5e:3::a]:80 sid=2001:db8:5e:3:5201:3::1": "sid 2001:db8:5e:3:5201:3:0:1: want 2001:db8:5e:3:5201::, or that of a container of this host",
	} {
		l := newListLab(t)
		l.holds(bad, has1+", "+has2, listed1, listed2, bad)
		id, _, _ := strings.Cut(bad, " ")
		if !maps.Equal(l.bad, map[string]string{id: want}) {
			t.Errorf("left out: %q, want %s", l.bad, want)
		}
	}
	l := newListLab(t)
	l.holds("good", has1+", "+has2, listed1, listed2)
	l.holds("its SID is spoilt", has1+", "+has2, listed1, listed2+" sid=2001:db8::")
	l.holds("it is gone", has1+", "+leaves2, listed1)
}

func TestListedStatus(t *testing.T) {
	t.Parallel()
	s := MembershipStatus{Service: "web", List: "web:UPSTREAMS", Members: 3, Gone: 1, LeftOut: []string{"192.0.2.7:80: an IPv4 address"}, Answered: true}
	const want = "service web: 3 backends from web:UPSTREAMS, 1 of them are there no longer, 1 endpoints left out: 192.0.2.7:80: an IPv4 address"
	if got := s.String(); got != want || !s.wrong() || s.where() != "lists" {
		t.Errorf("got  %s: %s\nwant %s", s.where(), got, want)
	}
	if s = (MembershipStatus{Service: "web", List: "web:UPSTREAMS"}); s.String() != "service web: 0 backends from web:UPSTREAMS; the list was not read yet" {
		t.Error(s.String())
	}
}

// Silence of a backend that drains counts, but not while that of others is not believed.
func TestAgentWordSilent(t *testing.T) {
	t.Parallel()
	dead, draining := steering.StandingDead, steering.StandingDraining
	for _, tt := range []struct {
		is, other steering.Finding
		want      agentWord
	}{
		{steering.Finding{Claimed: steering.StandingActive, Standing: draining}, steering.Finding{}, agentWord{spoke: true}},
		{steering.Finding{Claimed: dead, Standing: draining}, steering.Finding{}, agentWord{spoke: true, silent: true}},
		{steering.Finding{Claimed: dead, Standing: dead, Reason: "silent"}, steering.Finding{}, agentWord{spoke: true, dead: true, silent: true}},
		{steering.Finding{Claimed: dead, Standing: draining}, steering.Finding{Claimed: dead, Standing: draining}, agentWord{spoke: true, silent: true}},
		{steering.Finding{Claimed: dead, Standing: draining}, steering.Finding{Claimed: dead, Standing: steering.StandingActive, Reason: "silent, which is not believed"}, agentWord{spoke: true}},
	} {
		r := newReports(nil, nil, nil)
		r.told[sidOf(0)] = &told{}
		r.judged["web"] = judgedService{findings: map[netip.Addr]steering.Finding{sidOf(0): tt.is, sidOf(1): tt.other}}
		if got := r.word("web", sidOf(0)); got != tt.want {
			t.Errorf("%+v beside %+v: %+v, want %+v", tt.is, tt.other, got, tt.want)
		}
	}
}
