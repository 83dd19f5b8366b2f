package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// TestMain makes the test binary a speaker too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == SpeakerCommand {
		if err := Speak(context.Background(), os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// side is an announcer under test.
type side struct {
	*Announcer
	stop     func() // ends it, as often as it is called
	port     int
	log      *said
	registry *prometheus.Registry
}

// said is what was logged.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// has tells whether a line has all parts.
func (s *said) has(parts ...string) bool { return s.count(parts...) > 0 }

// count is how many lines have all parts.
func (s *said) count(parts ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for line := range strings.Lines(s.text.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for len(out) < n {
		port := leastPort + int(lastPort.Add(1)+uint32(os.Getpid())*131)%(mostPort-leastPort)
		l, err := net.Listen("tcp", net.JoinHostPort("::", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = l.Close()
		out = append(out, port)
	}
	return out
}

// Ports of tests, which are below those that calls go out from: nobody else takes one
// between two uses.
const leastPort, mostPort = 10_000, 32_000

var lastPort atomic.Uint32

// start runs an announcer with one peer on loopback, until stop or the end of the
// test. Each change is one to the announcer before it runs.
func start(t *testing.T, as uint32, port int, p PeerConfig, changes ...func(*Announcer)) *side {
	t.Helper()
	cfg := Config{AS: strconv.Itoa(int(as)), Port: port, Peers: []PeerConfig{p}}
	cfg.Defaults()
	if d := cfg.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	id := Identity{AS: as, RouterID: netip.AddrFrom4([4]byte{10, 0, byte(port >> 8), byte(port)})}
	s := &side{port: port, log: &said{}, registry: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("as", as)
	s.Announcer = New(cfg, id, []string{"/proc/self/exe", SpeakerCommand}, log, s.registry)
	for _, change := range changes {
		change(s.Announcer)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.log.text.String())
		}
	})
	t.Cleanup(s.stop)
	return s
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (s *side) state() State { return s.Status()[0].State }

// lastError is how the last session ended.
func (s *side) lastError() string { return s.Status()[0].LastError }

// child is the speaker of the session that is established.
func (s *side) child() *child {
	for _, p := range s.peers {
		p.mu.Lock()
		defer p.mu.Unlock()
		if at := p.foremost(); at != nil && at.stateNow() == Established {
			return at.child
		}
	}
	return nil
}

// metric is the value of a series without the prefix of all names; 0 without it.
func (s *side) metric(series string) float64 {
	for line := range strings.Lines(s.series()) {
		if text, ok := strings.CutPrefix(line, "razor_gateway_"+series+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(text), 64)
			return v
		}
	}
	return 0
}

// series are all samples, as they are scraped.
func (s *side) series() string {
	families, err := s.registry.Gather()
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			out.WriteString(f.GetName())
			if labels != nil {
				out.WriteString("{" + strings.Join(labels, ",") + "}")
			}
			fmt.Fprintf(&out, " %v\n", m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return out.String()
}

func TestSession(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 2)
	a := start(t, 65001, ports[0], PeerConfig{Name: "b", Address: "::1", Port: ports[1]})
	b := start(t, 65002, ports[1], PeerConfig{Name: "a", Address: "::1", Port: ports[0]})
	a.Announce([]Route{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Communities: []Community{GracefulShutdown}}, {Prefix: netip.MustParsePrefix("2001:db8::1/128"), Prepend: 2}})
	until(t, "established", func() bool { return a.state() == Established && b.state() == Established })
	until(t, "announced", func() bool { return b.Status()[0].Received == 2 })
	a.Announce([]Route{{Prefix: netip.MustParsePrefix("2001:db8::1/128")}})
	until(t, "withdrawn", func() bool { return b.Status()[0].Received == 1 })
	t.Logf("%+v", a.Status()[0])
	a.Shutdown("bye")
	until(t, "closed", func() bool { return b.Status()[0].LastError != "" && b.state() != Established })
	t.Logf("%+v", b.Status()[0])
}
