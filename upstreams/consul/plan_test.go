package consul

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// published is a list with members as redis-cli writes them.
func published(t testing.TB, members ...string) *upstreams.Published {
	t.Helper()
	out := &upstreams.Published{Endpoints: map[netip.AddrPort]upstreams.PublishedEndpoint{}}
	for _, m := range members {
		words := strings.Fields(m)
		e := upstreams.Endpoint{Addr: netip.MustParseAddrPort(words[0]), Weight: 1}
		for _, w := range words[1:] {
			if err := e.Set(w); err != nil {
				t.Fatal(err)
			}
		}
		out.Endpoints[e.Addr] = upstreams.PublishedEndpoint{Endpoint: e, Member: m}
	}
	return out
}

// registered is what Consul has: members as above, "!" before one that is critical.
func registered(t testing.TB, members ...string) wanted {
	t.Helper()
	w := wanted{endpoints: map[netip.AddrPort]instance{}}
	for _, m := range members {
		text, bad := strings.CutPrefix(m, "!")
		for addr, e := range published(t, text).Endpoints {
			i := instance{Endpoint: e.Endpoint, why: "passing"}
			if bad {
				i.status, i.why = critical, "critical: http"
			}
			w.endpoints[addr] = i
		}
	}
	return w
}

func lines(steps []step) string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func TestPlan(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		has, consul  []string
		unusable     []string
		floor, churn string
		steps, held  []string
		after        int
	}{
		{
			name: "nothing to do, in another spelling", has: []string{"[2001:DB8::1]:80 site=a weight=1"}, consul: []string{"[2001:db8::1]:80 site=a"},
			after: 1,
		},
		{
			name: "added, removed, changed", has: []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"},
			consul: []string{"192.0.2.2:80 weight=5", "192.0.2.3:80", "192.0.2.4:80"},
			steps:  []string{"+ 192.0.2.4:80  (passing)", "- 192.0.2.1:80  (deregistered)", "~ 192.0.2.2:80 -> 192.0.2.2:80 weight=5  (passing)"},
			after:  3,
		},
		{
			name: "critical leaves", has: []string{"192.0.2.1:80", "192.0.2.2:80"}, consul: []string{"!192.0.2.1:80", "192.0.2.2:80"},
			steps: []string{"- 192.0.2.1:80  (critical: http)"}, after: 1,
		},
		{
			name: "critical is not added", consul: []string{"!192.0.2.1:80"},
		},
		{
			name: "the last one stays", has: []string{"192.0.2.1:80"}, consul: []string{"!192.0.2.1:80"},
			held: []string{"- 192.0.2.1:80  (critical: http)"}, after: 1,
		},
		{
			name: "weight 0 is leaving", has: []string{"192.0.2.1:80", "192.0.2.2:80"}, consul: []string{"192.0.2.1:80 weight=0", "192.0.2.2:80 weight=0"},
			held:  []string{"~ 192.0.2.1:80 -> 192.0.2.1:80 weight=0  (passing)", "~ 192.0.2.2:80 -> 192.0.2.2:80 weight=0  (passing)"},
			after: 2,
		},
		{
			name: "who does not serve is free to go", has: []string{"192.0.2.1:80", "192.0.2.2:80 weight=0"}, consul: []string{"192.0.2.1:80"}, floor: "100%", churn: "1",
			steps: []string{"- 192.0.2.2:80 weight=0  (deregistered)"}, after: 1,
		},
		{
			name: "who begins to serve counts", has: []string{"192.0.2.1:80", "192.0.2.2:80 weight=0"}, consul: []string{"192.0.2.2:80"}, floor: "100%",
			steps: []string{"~ 192.0.2.2:80 weight=0 -> 192.0.2.2:80  (passing)", "- 192.0.2.1:80  (deregistered)"}, after: 1,
		},
		{
			name: "replaced as a whole", has: []string{"192.0.2.1:80", "192.0.2.2:80"}, consul: []string{"192.0.2.3:80", "192.0.2.4:80"},
			steps: []string{"+ 192.0.2.3:80  (passing)", "+ 192.0.2.4:80  (passing)", "- 192.0.2.1:80  (deregistered)", "- 192.0.2.2:80  (deregistered)"}, after: 2,
		},
		{
			name: "deregistered goes before critical", has: []string{"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80"}, consul: []string{"!192.0.2.1:80", "!192.0.2.2:80", "192.0.2.4:80"},
			steps: []string{"- 192.0.2.3:80  (deregistered)"}, floor: "75%",
			held: []string{"- 192.0.2.1:80  (critical: http)", "- 192.0.2.2:80  (critical: http)"}, after: 3,
		},
		{
			name: "churn", has: []string{"192.0.2.1:80", "192.0.2.2:80"}, consul: []string{"192.0.2.1:80 weight=2", "192.0.2.3:80", "192.0.2.4:80"}, churn: "1",
			steps: []string{"+ 192.0.2.3:80  (passing)", "+ 192.0.2.4:80  (passing)", "- 192.0.2.2:80  (deregistered)"},
			held:  []string{"~ 192.0.2.1:80 -> 192.0.2.1:80 weight=2  (passing)"}, after: 3,
		},
		{
			name: "rubbish goes", has: []string{"192.0.2.1:80"}, consul: []string{"192.0.2.1:80"}, unusable: []string{"rubbish"},
			steps: []string{"- rubbish  (no endpoint, or one more for its address)"}, after: 1,
		},
		{
			name: "an empty Consul leaves even rubbish", has: []string{"192.0.2.1:80", "192.0.2.2:80 weight=0"}, unusable: []string{"rubbish"},
			held: []string{"- 192.0.2.1:80  (deregistered)", "- 192.0.2.2:80 weight=0  (deregistered)", "- rubbish  (no endpoint, or one more for its address)"}, after: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var guard steering.Guard
			guard.Floor, _ = steering.ParseLimit(cmp.Or(tt.floor, "50%"))
			guard.Churn, _ = steering.ParseLimit(cmp.Or(tt.churn, "100%"))
			list := published(t, tt.has...)
			list.Unusable = tt.unusable
			p := newPlan(list, registered(t, tt.consul...), &guard, time.Unix(1e9, 0))
			slices.Sort(tt.steps)
			slices.Sort(tt.held)
			if got := lines(p.steps); got != strings.Join(tt.steps, "\n") {
				t.Errorf("steps:\n%s\nwant:\n%s", got, strings.Join(tt.steps, "\n"))
			}
			if got := lines(p.held); got != strings.Join(tt.held, "\n") {
				t.Errorf("held:\n%s\nwant:\n%s", got, strings.Join(tt.held, "\n"))
			}
			if p.after != tt.after {
				t.Errorf("%d would serve, want %d", p.after, tt.after)
			}
		})
	}
}

// TestPlanLaws: made again and again, plans end at what Consul says, or at the
// floor; and what a plan says of itself is what its edits do.
func TestPlanLaws(t *testing.T) {
	t.Parallel()
	member := rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf("192.0.2.%d:80 weight=%d", rapid.IntRange(1, 40).Draw(t, "host"), rapid.IntRange(0, 2).Draw(t, "weight"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		list := published(t, rapid.SliceOf(member).Draw(rt, "list")...)
		consul := rapid.SliceOf(member).Draw(rt, "consul")
		w := registered(t, consul...)
		var guard steering.Guard
		guard.Floor, _ = steering.ParseLimit("50%")
		guard.Churn, _ = steering.ParseLimit("30%")
		now := time.Unix(1e9, 0)
		var p plan
		for range 20 {
			p = newPlan(list, w, &guard, now)
			var members []string
			for _, e := range list.Endpoints {
				if !slices.ContainsFunc(p.steps, func(s step) bool { return s.old == e.Member }) {
					members = append(members, e.Member)
				}
			}
			for _, s := range p.steps {
				if s.new != "" {
					members = append(members, s.new)
				}
			}
			list = published(t, members...)
			serving := 0
			for _, e := range list.Endpoints {
				if serves(e.Endpoint) {
					serving++
				}
			}
			if len(list.Endpoints) != len(members) || serving != p.after {
				rt.Fatalf("%d endpoints, %d serve; the plan said %d\n%s", len(list.Endpoints), serving, p.after, lines(p.steps))
			}
			guard.Took(now, p.taken)
			guard.Serves(now, p.after)
			now = now.Add(time.Minute)
		}
		if len(p.steps) != 0 {
			rt.Fatalf("still something to do:\n%s", lines(p.steps))
		}
		if p.verdict.Hold == steering.HoldNone {
			for addr, e := range list.Endpoints {
				if w.endpoints[addr].Endpoint != e.Endpoint {
					rt.Fatalf("%v is not as in Consul", addr)
				}
			}
		}
	})
}

func TestWant(t *testing.T) {
	t.Parallel()
	instance := func(node, id, addr, status string, weight int) entry {
		return decode(t, fmt.Sprintf(`{"Node":{"Node":%q},"Service":{"ID":%q,"Address":%q,"Port":80,"Weights":{"Passing":%d,"Warning":1}},"Checks":[{"Name":"http","Status":%q}]}`, node, id, addr, weight, status))
	}
	answers := func(index uint64, entries ...entry) answer {
		a := answer{index: index}
		for i := range entries {
			p := entries[i].parse("")
			a.left = append(a.left, p.left...)
			if p.usable {
				a.instances = append(a.instances, p.instance)
			}
		}
		return a
	}
	w := want([]answer{
		answers(7,
			instance("n1", "a", "192.0.2.1", "passing", 1),
			instance("n1", "b", "192.0.2.2", "critical", 1),
			instance("n1", "c", "nowhere", "passing", 1),
		),
		answers(5,
			instance("n2", "a", "192.0.2.1", "passing", 4),
			instance("n2", "b", "192.0.2.2", "passing", 1),
			instance("n2", "d", "192.0.2.3", "passing", 1),
		),
	})
	var got []string
	for _, i := range w.endpoints {
		got = append(got, i.String()+" "+i.why+" "+i.id)
	}
	slices.Sort(got)
	if want := []string{"192.0.2.1:80 weight=4 passing n2/a", "192.0.2.2:80 passing n2/b", "192.0.2.3:80 passing n2/d"}; !slices.Equal(got, want) || w.index != 7 {
		t.Errorf("got %q, index %d", got, w.index)
	}
	if want := []string{`n1/c: address "nowhere" is not an IP address`, "n2/a: registered by n1/a too: 192.0.2.1:80"}; !slices.Equal(w.left, want) {
		t.Errorf("left out: %q", w.left)
	}
}

func TestPlanWritten(t *testing.T) {
	t.Parallel()
	var guard steering.Guard
	guard.Floor, _ = steering.ParseLimit("75%")
	guard.Churn, _ = steering.ParseLimit("100%")
	p := newPlan(published(t, "192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80"), registered(t, "!192.0.2.1:80", "192.0.2.3:80"), &guard, time.Unix(1e9, 0))
	var b strings.Builder
	p.write("web.example", &b)
	var total blast
	total.add("web.example", &p)
	total.add("other.example", &plan{before: 6})
	total.failed++
	b.WriteString(total.String())
	want := `web.example: 4 -> 3 endpoints, consul has 1
  - 192.0.2.4:80  (deregistered)
  held by floor - 192.0.2.2:80  (deregistered)
  held by floor - 192.0.2.1:80  (critical: http)
  the floor is 3 of 4; razor sync --accept web.example lets them go
blast radius: 1 of 2 lists; 0 endpoints added; 1 of 10 taken out or changed (10.0 %), most of web.example (25.0 %); 1 held; 1 not read`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
