package gateway

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// logger writes lines without their time.
func logger(to *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestSayings(t *testing.T) {
	t.Parallel()
	var said sayings
	announcement := func(prefix, set, reason string, presence steering.Presence, label string) *Announcement {
		return &Announcement{Prefix: netip.MustParsePrefix(prefix), Set: set, Reason: reason, presence: presence, label: label}
	}
	for i := range 10 {
		said.add("withdrawn", announcement("192.0.2."+string(rune('0'+i))+"/32", "web", "refused", steering.Withdrawn, "health"))
	}
	said.add("announced", announcement("192.0.2.77/32", "vips", "always", steering.Announced, "up"))
	said.add("withdrawn", announcement("192.0.2.78/32", "vips", "the gateway is drained", steering.Withdrawn, "drain"))
	var log strings.Builder
	said.log(logger(&log))
	want := `level=WARN msg=announcement state=withdrawn prefixes="192.0.2.0/32 192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 192.0.2.4/32 192.0.2.5/32 192.0.2.6/32 192.0.2.7/32 and 2 more" set=web reason=refused
level=INFO msg=announcement state=announced prefixes=192.0.2.77/32 set=vips reason=always
level=INFO msg=announcement state=withdrawn prefixes=192.0.2.78/32 set=vips reason="the gateway is drained"
`
	if log.String() != want {
		t.Errorf("got\n%swant\n%s", log.String(), want)
	}
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	s := Status{
		Name: "edge1", Identity: "as 1", Stage: "drained", Drained: "cables", Since: ago(time.Hour),
		Peers: []PeerStatus{
			{PeerStatus: bgp.PeerStatus{Name: "tor1", Address: "2001:db8::1", AS: 65001, State: bgp.Established, Since: ago(49 * time.Hour), IPv4: true, Announced: map[string]int{"IPv4": 3, "IPv6": 2}}, BFD: &PathStatus{State: "up", Detection: 0.15}},
			{PeerStatus: bgp.PeerStatus{Name: "tor2", AS: 65001, State: bgp.Established, Since: ago(90 * time.Second), Announced: map[string]int{"IPv6": 2}}},
			{PeerStatus: bgp.PeerStatus{Name: "tor3", State: bgp.Idle, Since: ago(time.Minute), LastError: "hold timer expired", ErrorAt: ago(61 * time.Minute), HeldUntil: noon.Add(time.Minute)}},
		},
		Announcements: []*Announcement{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Set: "web", Presence: "lowered", Reason: "refused", Since: ago(1500 * time.Millisecond)}},
		Blackholes:    []HoleStatus{{"192.0.2.9/32", ago(time.Minute), noon.Add(time.Hour)}},
		Probes:        []ProbeStatus{{Name: "web", Health: "down", Since: ago(time.Second), Reason: "refused", HeldUntil: noon.Add(10 * time.Second), Took: 0.0012}, {Name: "dns", Health: "up", Since: ago(time.Second), Reason: "3/4 passed", Good: "2/4 +-+-"}},
		Lists:         &ListStatus{Link: upstreams.LinkDown, AsOf: noon},
		Refused:       []string{"203.0.113.1/32: outside of gateway.allowed"},
		BindError:     "no",
	}
	const want = `edge1: drained since 2026-11-21T11:00:00Z: cables
as 1

PEER  ADDRESS      AS     STATE        FOR    IPv4       IPv6  BFD       LAST ERROR
tor1  2001:db8::1  65001  established  2d1h   3          2     up 150ms  -
tor2  -            65001  established  1m30s  not taken  2     -         -
tor3  -            -      held off     1m0s   0          0     -         hold timer expired, 1h1m ago

PREFIX        SET        STATE      FOR   WHY
192.0.2.1/32  web        lowered    1.5s  refused
192.0.2.9/32  blackhole  announced  1m0s  until 2026-11-21T13:00:00Z

PROBE  HEALTH  FOR  TOOK   GOOD      WHY
web    down    1s   1.2ms  -         refused; held down for 10s
dns    up      1s   0s     2/4 +-+-  3/4 passed

lists: redis does not answer, going by those of 2026-11-21T12:00:00Z
not announced: 203.0.113.1/32: outside of gateway.allowed
not bound: no
`
	var out strings.Builder
	if err := s.Write(&out, noon); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

func TestListRemarks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status ListStatus
		want   string
	}{
		{ListStatus{Link: upstreams.LinkTracking, AsOf: noon}, ""},
		{ListStatus{Link: upstreams.LinkDown}, "not known, redis was never read"},
		{ListStatus{Link: upstreams.LinkTracking, AsOf: noon, Stale: true}, "old, redis is behind its primary since 2026-11-21T12:00:00Z"},
		{ListStatus{Link: upstreams.LinkTracking, AsOf: noon, Stale: true, Hold: "flush"}, "on hold: flush; razor upstreams accept ends it"},
	} {
		if got := tt.status.wrong(); got != tt.want {
			t.Errorf("%+v: %q", tt.status, got)
		}
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	host := Host{Name: "h", addresses: append(slices.Clone(system), at("eth0", "2001:db8:0:12::1/64"))}
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"nothing", func(*Config) {}, "nothing else would be announced\n"},
		{"what nobody outside sees", func(c *Config) { c.Drain.Converge, c.Announce[1].When = time.Minute, "always" }, "nothing else would be announced\n"},
		{"prefixes", func(c *Config) {
			c.Announce[0].Prefixes = []string{"192.0.2.2", "2001:db8:feed::1"}
			c.Announce[1].MED, c.Announce[1].Communities = new(7), []string{"65000:1"}
			c.Announce = append(c.Announce, SetConfig{From: "node"})
		}, `- 192.0.2.1/32 set=vips
+ 192.0.2.2/32 set=vips
~ 192.0.2.128/25 set=web -> set=web 65000:1 med=7
+ 2001:db8:0:12::/64 set=node
`},
		{"the pool", func(c *Config) {
			c.Lists = true
			c.Announce = append(c.Announce, SetConfig{From: "pool", Communities: []string{"no-export"}})
		}, `+ pool of edge1.example.org in redis set=pool no-export
the gateway has to restart; the peers keep the routes where graceful_restart is not off
`},
		{"peers", func(c *Config) {
			c.BGP.AS = "65001"
			c.BGP.Peers[0].Hold, c.BGP.Peers[0].Blackhole = 3*time.Second, true
			c.BGP.Unnumbered, c.BGP.BFD = []string{"eth0"}, &bgp.BFDConfig{}
		}, `~ identity as 4200000001 (as configured), router id 192.0.2.1 (as configured), node 2001:db8:0:12::/64 (eth0) -> as 65001 (as configured), router id 192.0.2.1 (as configured), node 2001:db8:0:12::/64 (eth0)
+ peer eth0 unnumbered as=external hold=9s graceful_restart=30s bfd=300msx3
~ peer tor 2001:db8::1 as=external hold=9s graceful_restart=30s -> 2001:db8::1 as=external hold=3s graceful_restart=30s bfd=300msx3 blackhole
the gateway has to restart; the peers keep the routes where graceful_restart is not off
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			was, _ := checked(nil)
			next, defects := checked(tt.edit)
			if len(defects) > 0 {
				t.Fatal(defects)
			}
			var out strings.Builder
			if err := Diff(&was, &next, host, &out); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got\n%swant\n%s", out.String(), tt.want)
			}
		})
	}
}
