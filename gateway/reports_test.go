package gateway

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

const reportInterval = 200 * time.Millisecond

// reporting is a gateway's side of reports in a bubble of synctest, without a socket and
// a kernel: datagrams go in as they would come, and plans come out.
type reporting struct {
	*reports

	t       *testing.T
	pins    *Pins
	config  Config
	seen    sync.Mutex    // of what follows, for rounds that the clock begins
	applied balancer.Plan // last
	plans   int
	sealers map[wire.Locator]*wire.Sealer
	said    strings.Builder
	behind  atomic.Bool              // something is unread
	cut     atomic.Bool              // nothing can come
	away    map[string]bool          // sites to which there is no way
	ahead   map[string]time.Duration // clocks of backends
	stop    func()
}

// web are the backends of reporting: two hosts, and a container on the second one.
var web = map[string]balancer.PlannedBackend{
	"b1": {SID: netip.MustParseAddr("2001:db8:5e:b1:5201::")}, "b2": {SID: netip.MustParseAddr("2001:db8:5e:b2:5201::")},
	"c": {SID: netip.MustParseAddr("2001:db8:5e:b2:5201:3::")},
}

func newReporting(t *testing.T, dir string) *reporting {
	t.Helper()
	return startReporting(t, dir, balanced(t))
}

func startReporting(t *testing.T, dir string, config Config) *reporting {
	t.Helper()
	r := &reporting{t: t, config: config, sealers: map[wire.Locator]*wire.Sealer{}, away: map[string]bool{}, ahead: map[string]time.Duration{}}
	r.config.Services[0].Backends = []BackendConfig{
		{Name: "b1", Locator: "2001:db8:5e:b1::/64"}, {Name: "b2", Locator: "2001:db8:5e:b2::/64"}, {Name: "c", Locator: "2001:db8:5e:b2::/64", Target: 3},
	}
	r.config.Defaults()
	r.reports = newReports(logger(&r.said), func(p balancer.Plan, _ time.Time) error {
		r.seen.Lock()
		defer r.seen.Unlock()
		r.applied = p
		r.plans++
		return nil
	}, func() {})
	r.pins = newPins(netip.MustParsePrefix("2001:db8:5e:1::/64"), parseKeys(t, oneKey), nil, time.Now())
	r.pins.takeReports(r.reports)
	r.unread, r.deaf = r.behind.Load, r.cut.Load
	heard := newSummaries(r.poke)
	if r.config.Site != "" {
		heard.configure(&r.config, make([]byte, 16))
		r.pins.takeSummaries(heard)
		r.sites, r.elsewhere = heard.last, func() bool { return true }
	}
	if r.config.decides() {
		r.decider = newDecider(logger(&r.said), heard, r.ways, time.Now())
		if err := r.decider.load(dir, r.config.Site, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	r.load(filepath.Join(dir, reportsFile), time.Now())
	r.reconfigure()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); r.run(ctx) }()
	r.stop = func() { cancel(); <-ended }
	return r
}

func (r *reporting) ways(sites []balancer.PlannedSite) map[string]bool {
	r.seen.Lock()
	defer r.seen.Unlock()
	out := map[string]bool{}
	for _, s := range sites {
		out[s.Name] = !r.away[s.Name]
	}
	return out
}

func (r *reporting) reconfigure() {
	r.t.Helper()
	if err := r.configure(r.config.configured(make([]byte, 16)), time.Now()); err != nil {
		r.t.Fatal(err)
	}
}

// seal is a datagram of the agent of a backend with its report, which edit changes.
func (r *reporting) seal(backend string, edit func(*wire.Report)) []byte {
	r.t.Helper()
	sid := web[backend].SID
	from := wire.LocatorOf(sid)
	s := r.sealers[from]
	if s == nil {
		s = wire.NewSealer(parseKeys(r.t, oneKey), from, wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:1::")), time.Now().Add(r.ahead[backend]))
		r.sealers[from] = s
	}
	report := wire.Report{Target: uint16(sid.As16()[11]) | uint16(sid.As16()[10])<<8, Level: 1, Interval: reportInterval}
	if edit != nil {
		edit(&report)
	}
	d, others, err := s.SealReports(nil, []wire.Report{report}, time.Now().Add(r.ahead[backend]))
	if err != nil || len(others) > 0 {
		r.t.Fatal(err, others)
	}
	return d
}

func (r *reporting) receive(backend string, datagram []byte) {
	r.pins.take(nil, datagram, wire.LocatorOf(web[backend].SID).Address(), time.Now())
	synctest.Wait()
}

func (r *reporting) tell(backend string, edit func(*wire.Report)) {
	r.receive(backend, r.seal(backend, edit))
}

// pass lets time pass in which agents report as they do.
func (r *reporting) pass(d time.Duration, agents map[string]func(*wire.Report)) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(reportInterval) {
		for name, edit := range agents {
			r.tell(name, edit)
		}
	}
	synctest.Wait()
}

// clock is how far that of a backend is ahead, as its metric says.
func (r *reporting) clock(t *testing.T, backend string) float64 {
	t.Helper()
	return series(t, r, "razor_gateway_backend_clock_seconds")[web[backend].SID.String()]
}

// want holds the plan that is applied to states.
func (r *reporting) want(when, states string) {
	r.t.Helper()
	synctest.Wait()
	r.seen.Lock()
	defer r.seen.Unlock()
	var got []string
	for _, b := range r.applied.Services[0].Backends {
		got = append(got, b.Name+":"+string(b.State))
	}
	if s := strings.Join(got, " "); s != states {
		r.t.Errorf("%s: %s, want %s\n%s", when, s, states, r.said.String())
	}
}

// healthy says something of the service at a VIP.
func healthy(vip string, port uint16, h steering.Health) func(*wire.Report) {
	return func(r *wire.Report) {
		r.Services = append(r.Services, wire.ServiceHealth{VIP: netip.MustParseAddr(vip), Port: port, Protocol: unix.IPPROTO_TCP, Health: h})
	}
}

func bubble(t *testing.T, test func(t *testing.T, r *reporting)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, dir)
		defer r.stop()
		test(t, r)
	})
}

// What agents say is applied at once, and why is said.
func TestReportsAreObeyed(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.want("nobody spoke", "b1:active b2:active c:active")
		r.pass(time.Second, all)
		plans := r.plans
		r.pass(time.Second, all)
		if r.want("all is well", "b1:active b2:active c:active"); r.plans != plans {
			t.Errorf("%d plans for nothing", r.plans-plans)
		}
		all["b2"] = healthy("198.51.100.1", 443, steering.HealthDown)
		r.tell("b2", all["b2"])
		r.want("down", "b1:active b2:draining c:active")
		if want := `msg="backend changed" service=web backend=b2 sid=2001:db8:5e:b2:5201:: from=active to=draining reason="its agent says that it is down"`; !strings.Contains(r.said.String(), want) {
			t.Errorf("said %s", r.said.String())
		}
		all["b2"] = healthy("198.51.100.1", 443, steering.HealthUnknown)
		r.pass(time.Second, all)
		r.want("unknown after that", "b1:active b2:draining c:active")
		all["b2"] = healthy("198.51.100.1", 443, steering.HealthUp)
		r.pass(time.Second, all)
		r.want("up", "b1:active b2:active c:active")
		for _, other := range []func(*wire.Report){healthy("198.51.100.1", 444, steering.HealthDown), healthy("198.51.100.2", 443, steering.HealthDown)} {
			r.tell("b1", other)
			r.want("of another service", "b1:active b2:active c:active")
		}
		r.tell("b1", healthy("::", 0, steering.HealthDown))
		r.want("of all services", "b1:draining b2:active c:active")
		all["c"] = func(r *wire.Report) { r.Draining = true }
		r.pass(time.Second, all)
		r.want("drained", "b1:active b2:active c:draining")

		r.config.Services[0].Backends[1].State = "dead"
		r.reconfigure()
		r.pass(time.Second, all)
		r.want("configured", "b1:active b2:dead c:draining")
		r.tell("b1", healthy("::", 0, steering.HealthDown))
		r.want("the last one", "b1:active b2:dead c:draining")
		if got := r.disbelieved(); !slices.Equal(got, []string{"service web: 0 of 1 active backends are up: health is not believed"}) {
			t.Errorf("disbelieved: %v", got)
		}
		status := r.status([]balancer.BackendStatus{{Service: "web", SID: web["b1"].SID.String(), State: balancer.Active}}, time.Now())[0]
		if status.Reason != "its agent says that it is down, which is not believed" || status.Agent == nil || status.Agent.Health != "down" {
			t.Errorf("status %+v, %+v", status, status.Agent)
		}
	})
}

// Who is silent is dead after three intervals, and back when it speaks; silence of too
// many is not believed, nor while there is something unread.
func TestReportsSilence(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(time.Second, all)
		r.tell("c", nil)
		began := time.Now()
		delete(all, "c")
		for r.applied.Services[0].Backends[2].State != balancer.Dead {
			if r.pass(reportInterval, all); time.Since(began) > time.Minute {
				t.Fatal("never dead")
			}
		}
		if took := time.Since(began); took < 3*reportInterval || took > 4*reportInterval {
			t.Errorf("dead after %v", took)
		}
		r.want("silent", "b1:active b2:active c:dead")
		r.pass(time.Minute, all)
		r.want("still silent", "b1:active b2:active c:dead")
		r.tell("c", nil)
		r.want("it speaks", "b1:active b2:active c:active")

		// The agents have other intervals, and one says so before it starts again.
		r.tell("c", func(r *wire.Report) { r.Interval = 10 * time.Second })
		r.pass(29*time.Second, all)
		r.want("it starts again", "b1:active b2:active c:active")
		r.pass(2*time.Second, all)
		r.want("it did not", "b1:active b2:active c:dead")
		all["c"] = nil
		r.pass(time.Second, all)

		time.Sleep(time.Hour)
		r.want("no report comes", "b1:active b2:active c:active")
		r.pass(time.Second, all)
		r.behind.Store(true)
		delete(all, "c")
		r.pass(time.Minute, all)
		r.want("unread", "b1:active b2:active c:active")
		r.tell("b1", healthy("::", 0, steering.HealthDown))
		r.want("unread, and yet something comes", "b1:draining b2:active c:active")
		r.behind.Store(false)
		r.pass(time.Second, all)
		r.want("all is read", "b1:active b2:active c:dead")
	})
}

// Agents speak one after another. Where all of them cease to be heard at once, nobody is
// dead for a moment: their flows would be forgotten.
func TestReportsUnheard(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		all := []string{"b1", "b2", "c"}
		pass := func(d time.Duration, agents ...string) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				for _, name := range agents {
					r.tell(name, nil)
					time.Sleep(reportInterval / time.Duration(len(agents)))
				}
			}
		}
		pass(time.Second, all...)
		plans := r.plans
		for _, why := range []string{"a moment", "a drain"} {
			r.cut.Store(why == "a drain")
			time.Sleep(map[string]time.Duration{"a moment": time.Second, "a drain": time.Hour}[why])
			r.cut.Store(false)
			pass(time.Second, all...)
			if r.want(why, "b1:active b2:active c:active"); r.plans != plans {
				t.Errorf("%s: %d plans: %s", why, r.plans-plans, r.said.String())
			}
		}
		r.cut.Store(true)
		time.Sleep(time.Minute)
		r.cut.Store(false)
		pass(300*time.Millisecond, "b1", "b2")
		r.want("c is late", "b1:active b2:active c:active")
		pass(500*time.Millisecond, "b1", "b2")
		r.want("c is dead", "b1:active b2:active c:dead")
		pass(time.Second, "b1", "b2")
		time.Sleep(time.Minute)
		r.want("nobody is heard, and could be", "b1:active b2:active c:active")
		if got := r.disbelieved(); !slices.Equal(got, []string{"service web: 0 of 3 active backends report: neither silence nor health is believed"}) {
			t.Errorf("disbelieved: %v", got)
		}
	})
}

// A gateway that nobody could reach hears of nobody for a while when it can be reached again.
func TestReportsAfterADrain(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(time.Second, all)
		plans := r.plans
		for n := range 20 { // in all phases of what is looked at from time to time
			r.cut.Store(true)
			time.Sleep(time.Minute + time.Duration(n)*70*time.Millisecond)
			r.cut.Store(false)
			time.Sleep(5 * time.Second) // until the way is there
			r.pass(time.Second, all)
			if r.want("after a drain", "b1:active b2:active c:active"); r.plans != plans || len(r.disbelieved()) > 0 {
				t.Fatalf("%d: %d plans, %v", n, r.plans-plans, r.disbelieved())
			}
		}
	})
}

// What nobody with the key said of a backend of the plan changes nothing, and is counted.
func TestReportsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		down := healthy("::", 0, steering.HealthDown)
		for _, name := range []string{"b1", "b2", "c"} {
			r.tell(name, nil)
		}
		forged := r.seal("b1", down)
		forged[60] ^= 1
		r.receive("b1", forged)
		another, _, err := wire.NewSealer(parseKeys(t, anotherKey), wire.LocatorOf(web["b1"].SID), wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:1::")), time.Now().Add(time.Second)).
			SealReports(nil, []wire.Report{{Level: 1, Interval: reportInterval, Services: []wire.ServiceHealth{{VIP: netip.IPv6Unspecified(), Health: steering.HealthDown}}}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r.receive("b1", another)
		r.receive("b2", r.seal("b1", down)) // from another host
		whole := r.seal("b1", down)
		for n := range whole {
			r.receive("b1", whole[:n])
		}
		r.tell("b1", func(r *wire.Report) { r.Target = 7 })
		older, newer := r.seal("b1", down), r.seal("b1", nil)
		r.receive("b1", newer)
		r.receive("b1", older)
		r.receive("b1", newer)
		r.want("nothing was believed", "b1:active b2:active c:active")
		got := series(t, r, "razor_gateway_report_refusals_total")
		// A datagram that is cut within its first bytes claims to be no report.
		if want := map[string]float64{"malformed": 50, "forged": float64(2 + len(whole) - 52), "impostor": 1, "backend": 1, "overtaken": 1, "repeated": 1}; !maps.Equal(got, want) {
			t.Errorf("refused %v, want %v", got, want)
		}
		r.receive("b1", whole)
		r.receive("b1", r.seal("b1", down))
		r.want("what was sealed", "b1:draining b2:active c:active")
	})
}

// A gateway that starts knows who was dead, who was down, and who spoke.
func TestReportsOverRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, dir)
		all := map[string]func(*wire.Report){"b1": nil, "b2": healthy("::", 0, steering.HealthDown), "c": nil}
		r.config.Services[0].MinHealthy = new(0.25)
		r.reconfigure()
		r.pass(time.Second, all)
		delete(all, "c")
		r.pass(time.Second, all)
		r.want("before", "b1:active b2:draining c:dead")
		r.stop()

		r = newReporting(t, dir)
		r.config.Services[0].MinHealthy = new(0.25)
		r.reconfigure()
		r.want("after", "b1:active b2:draining c:dead")
		late := map[string]func(*wire.Report){"b1": nil}
		r.pass(9*time.Second, late)
		r.want("b2 was not heard yet", "b1:active b2:draining c:dead")
		r.pass(2*time.Second, late)
		r.want("b2 was not heard for long", "b1:active b2:dead c:dead")
		all["b2"] = healthy("::", 0, steering.HealthUnknown)
		r.pass(time.Second, all)
		r.want("b2 starts as well", "b1:active b2:draining c:dead")
		delete(all, "b2")
		r.pass(time.Second, all)
		r.want("it does not come", "b1:active b2:dead c:dead")
		all["b2"], all["c"] = nil, nil
		r.pass(time.Second, all)
		r.want("all are there", "b1:active b2:active c:active")

		// A backend that the configuration has no longer is forgotten.
		r.config.Services[0].Backends = r.config.Services[0].Backends[:2]
		r.reconfigure()
		if r.tell("c", nil); len(r.told) != 2 {
			t.Errorf("%d are known", len(r.told))
		}
		r.stop()
	})
}

// A flood that is never read to its end is said.
func TestReportsFlooded(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(time.Minute, all)
		if got := r.disbelieved(); got != nil {
			t.Errorf("without one: %v", got)
		}
		r.behind.Store(true)
		r.pass(time.Minute, all)
		if got := r.disbelieved(); !slices.Equal(got, []string{flooded}) {
			t.Errorf("in a flood: %v", got)
		}
		r.behind.Store(false)
		r.pass(time.Second, all)
		if got := r.disbelieved(); got != nil {
			t.Errorf("after it: %v", got)
		}
		if n := strings.Count(r.said.String(), flooded); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

// An agent that leaves says for how short it may be silent, and is dead soon.
func TestReportsLeave(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		every := func(d time.Duration) func(*wire.Report) { return func(r *wire.Report) { r.Interval = d } }
		slow := every(10 * time.Second)
		for range 2 {
			for _, name := range []string{"b1", "b2", "c"} {
				r.tell(name, slow)
			}
			time.Sleep(10 * time.Second)
		}
		r.tell("b1", every(wire.MinInterval))
		for range 4 { // of many
			time.Sleep(wire.MinInterval)
			r.tell("b2", slow)
		}
		r.want("it has left", "b1:dead b2:active c:active")
	})
}

// What could not be kept is kept later.
func TestReportsKeptLater(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, dir)
		defer r.stop()
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		r.pass(2*time.Second, all)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.pass(2*time.Second, all)
		if _, err := os.Stat(filepath.Join(dir, reportsFile)); err != nil {
			t.Error(err)
		}
		if n := strings.Count(r.said.String(), "not kept over a restart"); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

// A plan that cannot be applied leaves all as it was.
func TestReportsPlanRefused(t *testing.T) {
	t.Parallel()
	r := newReports(slog.New(slog.DiscardHandler), func(balancer.Plan, time.Time) error { return unix.EINVAL }, func() {})
	c := balanced(t)
	if err := r.configure(c.configured(make([]byte, 16)), time.Now()); err != unix.EINVAL { //nolint:errorlint // it is that one
		t.Error(err)
	}
	if len(r.plan.Services)+len(r.judged) > 0 {
		t.Errorf("%v, %v", r.plan, r.judged)
	}
}

// What is in the socket and was not read is known, so that nobody is taken for silent who
// was not heard.
func TestReportsUnread(t *testing.T) {
	t.Parallel()
	ownHost(t)
	locator := netip.MustParsePrefix("2001:db8:5e:1::/64")
	p, err := ListenPins(locator, parseKeys(t, oneKey), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.unread() {
		t.Error("something is unread before it is sent")
	}
	to := netip.AddrPortFrom(wire.LocatorOf(locator.Addr()).Address(), wire.Port)
	for range 2 {
		if _, err := p.conn.WriteToUDPAddrPort([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
	}
	for left := 2; left > 0; left-- {
		if !p.unread() {
			t.Errorf("%d are unread", left)
		}
		if _, _, err := p.conn.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if p.unread() {
		t.Error("all was read")
	}
}

func TestBackendWords(t *testing.T) {
	t.Parallel()
	backend := func(name string, state balancer.State, why, reason string, agent *AgentStatus) BackendStatus {
		return BackendStatus{balancer.BackendStatus{Service: "web", Backend: name, SID: "::1", State: state, Share: 0.25, Why: why}, reason, agent}
	}
	s := Status{Name: "edge1", Identity: "as 1", Stage: "in service", Disbelieved: []string{"service web: why"}, Backends: []BackendStatus{
		backend("b1", balancer.Active, "", "", nil),
		backend("b2", balancer.Active, "no way to it", "", &AgentStatus{Health: "up", Level: "warning", Load: 850, Capacity: 1000}),
		backend("b3", balancer.Draining, "no way to it", "its agent is drained", &AgentStatus{Health: "up", Level: "normal", Draining: true}),
		backend("b4", balancer.Dead, "", "its agent is silent", &AgentStatus{Health: "up", Level: "normal", Capacity: 1, Silent: true}),
	}}
	const want = `
SERVICE  BACKEND  STATE     NEW FLOWS  AGENT     LOAD          SID  SERVER ID  WHY
web      b1       active    25.0 %     -         -             ::1             
web      b2       active    25.0 %     up        85 % warning  ::1             no way to it
web      b3       draining  25.0 %     draining  -             ::1             its agent is drained; no way to it
web      b4       dead      25.0 %     silent    0 %           ::1             its agent is silent

agents: service web: why
`
	var out strings.Builder
	if err := s.Write(&out, time.Now()); err != nil || !strings.HasSuffix(out.String(), want) {
		t.Errorf("%v\n%s", err, out.String())
	}
}
