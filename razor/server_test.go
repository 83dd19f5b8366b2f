package razor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/razor-steering/razor/upstreams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// freePort is a port that nobody has on any address.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// running is a nameserver with sockets and a store of its own.
type running struct {
	tb   testing.TB
	port int
	log  *journal
	stop func()
}

// start runs a nameserver until the test ends or stop is called. It answers from
// lists when start returns.
func start(tb testing.TB, write fill, hosts ...string) *running {
	tb.Helper()
	store, err := upstreams.StartEmbedded("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(store.Close)
	write(store)
	r := &running{tb: tb, port: freePort(tb), log: &journal{}}
	cfg := Config{StateDir: tb.TempDir()}
	for _, h := range hosts {
		cfg.Listen = append(cfg.Listen, net.JoinHostPort(h, strconv.Itoa(r.port)))
	}
	cfg.Defaults()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	isReady := make(chan struct{})
	var once sync.Once
	go func() {
		done <- Run(ctx, cfg, upstreams.Config{Address: store.Addr()}, slog.New(slog.NewTextHandler(r.log, nil)), prometheus.NewRegistry(),
			func(ok bool, _ string) {
				if ok {
					once.Do(func() { close(isReady) })
				}
			})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			tb.Errorf("does not stop\n%s", r.log)
		}
	})
	tb.Cleanup(r.stop)
	select {
	case <-isReady:
	case err := <-done:
		done <- err
		tb.Fatalf("Run: %v\n%s", err, r.log)
	case <-time.After(20 * time.Second):
		tb.Fatalf("not ready\n%s", r.log)
	}
	return r
}

// exchange asks an address for the apex of z.test, and holds that the answer
// comes from that address: a connected socket takes no other.
func (r *running) exchange(network, host string, qtype uint16) string {
	r.tb.Helper()
	m := new(dns.Msg)
	m.SetQuestion("z.test.", qtype)
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	got, _, err := c.Exchange(m, net.JoinHostPort(host, strconv.Itoa(r.port)))
	if err != nil {
		r.tb.Errorf("%s over %s: %v", host, network, err)
		return ""
	}
	return outcome(got)
}

// TestRunOnWildcards listens on all addresses of both families, on one port, and
// answers from the address that was asked.
func TestRunOnWildcards(t *testing.T) {
	t.Parallel()
	for _, hosts := range [][]string{{"0.0.0.0", "::"}, {"::", "0.0.0.0"}} {
		r := start(t, kinds(t), hosts...)
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"} {
			for _, network := range []string{"udp", "tcp"} {
				if got, want := r.exchange(network, host, dns.TypeA), "NOERROR aa z.test. 60 A 192.0.2.1"; got != want {
					t.Errorf("%s over %s: %s", host, network, got)
				}
			}
		}
		r.stop()
	}
}

// TestRunOnAddresses listens on some addresses alone.
func TestRunOnAddresses(t *testing.T) {
	t.Parallel()
	r := start(t, kinds(t), "127.0.0.2", "::1")
	for _, host := range []string{"127.0.0.2", "::1"} {
		for _, network := range []string{"udp", "tcp"} {
			if got, want := r.exchange(network, host, dns.TypeAAAA), "NOERROR aa z.test. 60 AAAA 2001:db8::1"; got != want {
				t.Errorf("%s over %s: %s", host, network, got)
			}
		}
	}
	if c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port))); err == nil {
		c.Close()
		t.Error("it listens on an address that is not configured")
	}
}

// TestRunPortInUse: the start fails with the setting that is to blame.
func TestRunPortInUse(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	other := start(t, kinds(t), "127.0.0.1")
	free := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(t)))
	for _, r := range []struct {
		name   string
		listen []string
		key    string
	}{
		{"TCP", []string{tcp.Addr().String()}, "dns.listen[0]"},
		{"TCP of the second", []string{free, tcp.Addr().String()}, "dns.listen[1]"},
		{"UDP", []string{free, udp.LocalAddr().String()}, "dns.listen[1]"},
		{"another server", []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(other.port))}, "dns.listen[0]"},
	} {
		cfg := Config{Listen: r.listen, StateDir: t.TempDir()}
		cfg.Defaults()
		err := Run(t.Context(), cfg, upstreams.Config{Address: "127.0.0.1:1"}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(bool, string) {})
		want := upstreams.Defect{
			Key: r.key, Member: r.listen[len(r.listen)-1], Reason: "port in use", Want: "a free port, or the other server stopped",
		}
		var d upstreams.Defect
		if !errors.As(err, &d) || d != want {
			t.Errorf("%s: %v, want %v", r.name, err, want)
		}
		if got := CheckListen(t.Context(), cfg); len(got) != 1 || got[0] != want {
			t.Errorf("%s, checked: %v", r.name, got)
		}
		// What was opened before the fault is closed again.
		if l, err := net.Listen("tcp", free); err != nil {
			t.Errorf("%s: %v", r.name, err)
		} else {
			l.Close()
		}
	}
	if got := other.exchange("udp", "127.0.0.1", dns.TypeA); got != "NOERROR aa z.test. 60 A 192.0.2.1" {
		t.Errorf("the other server: %s", got)
	}
}

// TestRunHindered are other reasons not to start.
func TestRunHindered(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		name string
		edit func(*Config)
		key  string
	}{
		{"address of another host", func(c *Config) { c.Listen = []string{"192.0.2.1:53535"} }, "dns.listen[0]"},
		{"no database", func(c *Config) { c.GeoIP = "/no/such/file.mmdb" }, "dns.geoip"},
	} {
		cfg := Config{Listen: []string{"127.0.0.1:" + strconv.Itoa(freePort(t))}, StateDir: t.TempDir()}
		r.edit(&cfg)
		cfg.Defaults()
		err := Run(t.Context(), cfg, upstreams.Config{Address: "127.0.0.1:1"}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(bool, string) {})
		var d upstreams.Defect
		if !errors.As(err, &d) || d.Key != r.key || d.Reason == "" || d.Want == "" {
			t.Errorf("%s: %v", r.name, err)
		}
	}
}

// TestHandlePanics: a fault of the program costs one message.
func TestHandlePanics(t *testing.T) {
	t.Parallel()
	var j journal
	reg := prometheus.NewRegistry()
	s := &server{log: slog.New(slog.NewTextHandler(&j, nil)), metrics: newMetrics(reg), lists: faulty{}}
	s.cfg.Defaults()
	a := newAnswerer(s, [32]byte{})
	if out := a.handle([]byte(plain(www, dns.TypeA)), netip.MustParseAddr("192.0.2.1"), transportUDP); out != nil {
		t.Errorf("answer % x", out)
	}
	if got := value(t, reg, metricPanics); got != 1 {
		t.Errorf("%v faults counted", got)
	}
	if j.String() == "" {
		t.Error("nothing is said")
	}
}

type faulty struct{}

func (faulty) Snapshot() *upstreams.Snapshot { panic("no lists today") }

// TestState is the readiness in words.
func TestState(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	lost := upstreams.Replica{Role: "slave", Heard: now.Add(-70 * time.Second)}
	for _, r := range []struct {
		health upstreams.Health
		ok     bool
		text   string
	}{
		{upstreams.Health{Link: upstreams.LinkDown}, false, "not ready: redis does not answer and there is no snapshot on disk"},
		{upstreams.Health{Link: upstreams.LinkDown, Refused: "WRONGPASS x"}, false, "not ready: redis refuses: WRONGPASS x and there is no snapshot on disk"},
		{upstreams.Health{Link: upstreams.LinkDown, Refused: "NOAUTH x", Loaded: true, InSync: now.Add(-90 * time.Second)}, true, "ready, redis refuses: NOAUTH x: serving the snapshot of 90 s ago"},
		{upstreams.Health{Link: upstreams.LinkTracking}, false, "not ready: no zone in redis (a CONFIG with an SOA)"},
		{upstreams.Health{Link: upstreams.LinkTracking, Loaded: true}, true, "ready"},
		{upstreams.Health{Link: upstreams.LinkPolling, Loaded: true}, true, "ready"},
		{upstreams.Health{Link: upstreams.LinkDown, Loaded: true, FromDisk: true}, true, "ready, redis does not answer: serving the snapshot from disk"},
		{upstreams.Health{Link: upstreams.LinkDown, Loaded: true, InSync: now.Add(-90 * time.Second)}, true, "ready, redis does not answer: serving the snapshot of 90 s ago"},
		{upstreams.Health{Loaded: true, Link: upstreams.LinkTracking, InSync: now, Replica: upstreams.Replica{Role: "master"}}, true, "ready"},
		{upstreams.Health{Loaded: true, Link: upstreams.LinkTracking, InSync: now, Replica: lost}, true, "ready, the redis replica has lost its primary: serving the lists of 70 s ago"},
		{upstreams.Health{Loaded: true, Link: upstreams.LinkTracking, InSync: now, Replica: upstreams.Replica{Role: "slave"}}, true, "ready, the redis replica has lost its primary, when is not known: serving its lists"},
		{upstreams.Health{Loaded: true, Link: upstreams.LinkDown, InSync: now, Replica: lost, Stale: true}, true, "ready, the redis replica has lost its primary: serving the lists of 70 s ago; stale: as of 70 s ago"},
		{upstreams.Health{Loaded: true, Link: upstreams.LinkTracking, InSync: now.Add(-90 * time.Second), Stale: true}, true, "ready; stale: as of 90 s ago"},
		{upstreams.Health{Link: upstreams.LinkTracking, Loaded: true, Hold: "flush"}, true, "ready, on hold: flush; razor upstreams accept ends it"},
	} {
		if ok, text := state(r.health, false, now); ok != r.ok || text != r.text {
			t.Errorf("%+v: %t, %q", r.health, ok, text)
		}
	}
	lists := upstreams.Health{Link: upstreams.LinkTracking, Upstreams: true}
	for _, export := range []bool{false, true} {
		if ok, text := state(lists, export, now); ok != export {
			t.Errorf("upstream lists alone, exported %t: %t, %q", export, ok, text)
		}
	}
}
