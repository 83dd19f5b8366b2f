package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

// heard reads a datagram with reports.
func (g *gatewayListener) heard(t *testing.T) []wire.Report {
	t.Helper()
	_ = g.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buffer := make([]byte, 2000)
	n, from, err := g.conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		t.Fatal(err)
	}
	message, err := g.opener.Open(buffer[:n], from.Addr(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	reports, err := message.Reports()
	if err != nil {
		t.Fatal(err)
	}
	return reports
}

// Each gateway is told of all targets at each interval, at once when something changed,
// and at the end for how long there is nothing.
func TestReporter(t *testing.T) {
	t.Parallel()
	pinnerHost(t)
	keys := pinnerKeys(t, 1)
	gateways := []netip.Prefix{netip.MustParsePrefix("2001:db8:5e:1::/64"), netip.MustParsePrefix("2001:db8:5e:2::/64")}
	var listeners []*gatewayListener
	for _, g := range gateways {
		l := listenAsGateway(t, g, keys)
		l.opener.TakeReports(wire.Limits{Senders: 10, Sender: 1000, Total: 1000})
		listeners = append(listeners, l)
	}
	const targets = 100 // which are several datagrams
	var level atomic.Uint32
	level.Store(1)
	r, err := NewReporter(netip.MustParsePrefix("2001:db8:5e:7::/64"), gateways, keys, 40*time.Millisecond, func() (all []wire.Report) {
		for i := range targets {
			all = append(all, wire.Report{Target: uint16(i), Level: steering.Level(level.Load())})
		}
		return all
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	// until waits for a round of reports that are as they are to be.
	until := func(what string, level steering.Level, interval time.Duration) {
		t.Helper()
		for i, l := range listeners {
			seen := map[uint16]bool{}
			for end := time.Now().Add(10 * time.Second); len(seen) < targets; {
				for _, report := range l.heard(t) {
					if report.Level == level && report.Interval == interval {
						seen[report.Target] = true
					}
				}
				if time.Now().After(end) {
					t.Fatalf("%s: gateway %d heard of %d targets", what, i, len(seen))
				}
			}
		}
	}
	until("at the start", 1, 40*time.Millisecond)
	until("an interval later", 1, 40*time.Millisecond)
	level.Store(3)
	r.Poke()
	until("changed", 3, 40*time.Millisecond)
	cancel()
	<-ended
	r.Leave(30 * time.Second)
	until("at the end", 3, 10*time.Second)
	if r.Failed() != "" {
		t.Error(r.Failed())
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.Leave(30 * time.Second)
	if !strings.HasPrefix(r.Failed(), "2001:db8:5e:2::/64: ") {
		t.Errorf("failed: %q", r.Failed())
	}
}

// Reports are what monitors, probes and the operator say, each of its target.
func TestReportOfTargets(t *testing.T) {
	t.Parallel()
	c := section(func(c *Config) {
		c.Containers = []ContainerConfig{{Target: 5, Netns: "a", Veth: "b"}}
		c.Probes = []ProbeConfig{
			{VIPs: []string{"198.51.100.1:443/tcp", "2001:db8:ffff::1"}, Probe: probe.Config{Name: "one", Kind: "exec", Command: []string{"/bin/true"}}},
			{Container: 5, Probe: probe.Config{Name: "two", Kind: "exec", Command: []string{"/bin/true"}}},
		}
	})
	if wrong := c.Check(); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	a := newAgent(*c, slog.New(slog.DiscardHandler), nil)
	a.accepted.read = func() (map[uint16]segment.Accepted, error) { return nil, nil }
	if err := a.startProbes(prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	host := wire.Report{Level: 1, Services: []wire.ServiceHealth{
		{VIP: netip.MustParseAddr("198.51.100.1"), Port: 443, Protocol: unix.IPPROTO_TCP}, {VIP: netip.MustParseAddr("2001:db8:ffff::1")},
	}}
	container := wire.Report{Target: 5, Level: 1, Services: []wire.ServiceHealth{{VIP: netip.IPv6Unspecified()}}}
	if got := a.reports(); !reflect.DeepEqual(got, []wire.Report{host, container}) {
		t.Errorf("%+v", got)
	}
	a.admin.leave("it stops")
	for _, r := range a.reports() {
		if !r.Draining {
			t.Errorf("%+v is not drained", r)
		}
	}
}

// What an operator drained is so for the next process, too.
func TestAdmin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	after := func() string {
		t.Helper()
		var d admin
		if err := d.load(dir); err != nil {
			t.Fatal(err)
		}
		return d.why()
	}
	var d admin
	if err := d.load(dir); err != nil || d.why() != "" {
		t.Error(err, d.why())
	}
	if err := d.drain("cables"); err != nil || d.why() != "cables" || after() != "cables" {
		t.Errorf("%v, %q, %q", err, d.why(), after())
	}
	d.leave("it stops")
	if d.why() != "it stops" || after() != "cables" {
		t.Errorf("%q, %q", d.why(), after())
	}
	for range 2 {
		if err := d.drain(""); err != nil || after() != "" {
			t.Errorf("%v, %q", err, after())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, drainFile), nil, 0o600); err != nil || after() != drainedByHand {
		t.Errorf("%v, %q", err, after())
	}
	d = admin{dir: filepath.Join(dir, "none")}
	if err := d.drain("cables"); err == nil || d.why() != "cables" {
		t.Errorf("%v, %q", err, d.why())
	}
}

func TestReportingDefects(t *testing.T) {
	t.Parallel()
	good := func(c *Config) {
		c.Gateways, c.KeyFile = []string{"2001:db8:5e:1::/64"}, "/k"
		c.Containers = []ContainerConfig{{Target: 5, Netns: "a", Veth: "b", VIPs: []string{"198.51.100.2"}}}
		c.Probes = []ProbeConfig{{Container: 5, VIPs: []string{"198.51.100.2:443/udp"}, Probe: probe.Config{Name: "web", Kind: "tcp", Target: "[::1]:443"}}}
	}
	if wrong := section(good).Check(); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	for want, change := range map[string]func(*Config){
		`agent.gateways[0]: "2001:db8:5e:1::1/64": not a locator; want an IPv6 /64`:                                 func(c *Config) { c.Gateways[0] = "2001:db8:5e:1::1/64" },
		`agent.gateways[0]: "2001:db8:5f:1::/64": outside of agent.sr_block; want a /64 inside of it`:               func(c *Config) { c.Gateways[0] = "2001:db8:5f:1::/64" },
		`agent.gateways[1]: "2001:db8:5e:1::/64": listed twice; want each gateway once`:                             func(c *Config) { c.Gateways = append(c.Gateways, c.Gateways[0]) },
		`agent.key_file: missing, and there are gateways to report to; want the file of gateway.dataplane.key_file`: func(c *Config) { c.KeyFile = "" },
		`agent.report_interval: "10ms": out of range; want 50ms to 10s, in whole milliseconds`:                      func(c *Config) { c.ReportInterval = 10 * time.Millisecond },
		`agent.report_interval: "50.5ms": out of range; want 50ms to 10s, in whole milliseconds`:                    func(c *Config) { c.ReportInterval = 50500 * time.Microsecond },
		`agent.drain_on_stop: "-1s": out of range; want 0s to 1h0m0s`:                                               func(c *Config) { c.DrainOnStop = -time.Second },
		`agent.state_dir: "x": not an absolute path; want a directory such as /var/lib/razor-agent`:                 func(c *Config) { c.StateDir = "x" },
		`agent.probes[0].container: "6": unknown; want a target of agent.containers, or 0 for the host`:             func(c *Config) { c.Probes[0].Container = 6 },
		`agent.probes[0].vips[0]: "198.51.100.1": not a VIP of that target; want one of its vips`:                   func(c *Config) { c.Probes[0].VIPs[0] = "198.51.100.1" },
		`agent.probes[0].vips[0]: "198.51.100.2:443": a port without a protocol`:                                    func(c *Config) { c.Probes[0].VIPs[0] = "198.51.100.2:443" },
		`agent.probes[0].vips[0]: "198.51.100.2:0/tcp": not an address with port and protocol`:                      func(c *Config) { c.Probes[0].VIPs[0] = "198.51.100.2:0/tcp" },
		`agent.probes[0].vips[0]: "198.51.100.2:1/sctp": not an address with port and protocol`:                     func(c *Config) { c.Probes[0].VIPs[0] = "198.51.100.2:1/sctp" },
		`agent.probes[1].probe.name: "web": used twice; want each name once`:                                        func(c *Config) { c.Probes = append(c.Probes, c.Probes[0]) },
		`agent.probes[0].probe.kind: "smtp": unknown`:                                                               func(c *Config) { c.Probes[0].Probe.Kind = "smtp" },
		`agent.report_interval: "50ms": too short for so many containers and probes; want 170ms or more`: func(c *Config) {
			c.ReportInterval = 50 * time.Millisecond
			for i := range 800 {
				c.Containers = append(c.Containers, ContainerConfig{Target: 10 + i, Netns: "a", Veth: fmt.Sprint("v", i), VIPs: c.VIPs})
			}
		},
		`agent.probes[0].vips: more than 56 are probed of one target; want fewer, or one probe without vips`: func(c *Config) {
			for range wire.MaxServices {
				c.Probes[0].VIPs = append(c.Probes[0].VIPs, "198.51.100.2")
			}
		},
	} {
		got := section(good, change).Check()
		if len(got) != 1 || !strings.HasPrefix(got[0].Error(), want) {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestStatusWords(t *testing.T) {
	t.Parallel()
	now := time.Unix(1795264015, 0)
	s := Status{
		Locator: "2001:db8:5e:7::/64", Drained: "cables", Gateways: []string{"2001:db8:5e:1::/64", "2001:db8:5e:2::/64"}, Interval: 0.2,
		Targets: []TargetStatus{{0, "warning", 812.3456, 1000}, {5, "normal", 0, 0}},
		Probes: []ProbeStatus{
			{"web", 0, []string{"198.51.100.1:443/tcp"}, "down", now.Add(-time.Second), "failed 3 times: refused", now.Add(4 * time.Second), ""},
			{"all", 5, nil, "up", now.Add(-time.Minute), "3/4 passed", time.Time{}, "2/4 +-+-"},
		},
	}
	const want = `2001:db8:5e:7::/64: draining: cables
every 200ms told: 2001:db8:5e:1::/64, 2001:db8:5e:2::/64

TARGET       LEVEL    LOAD   CAPACITY
host         warning  812.3  1000
container 5  normal   -      -

PROBE  TARGET       VIPS                  HEALTH  FOR   GOOD      WHY
web    host         198.51.100.1:443/tcp  down    1s    -         failed 3 times: refused; held down for 4s
all    container 5  all                   up      1m0s  2/4 +-+-  3/4 passed
`
	var b strings.Builder
	if err := s.Write(&b, now); err != nil || b.String() != want {
		t.Errorf("%v\n%swant\n%s", err, b.String(), want)
	}
	for text, s := range map[string]Status{
		"in service\nno gateway is told\n":              {},
		"in service\ngateways are not told: no route\n": {Gateways: []string{"x"}, Failed: "no route"},
	} {
		b.Reset()
		if err := s.Write(&b, now); err != nil || !strings.HasPrefix(b.String(), fmt.Sprintf(": %s", text)) {
			t.Errorf("%v: %s", err, b.String())
		}
	}
}
