package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
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
	stop func()
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var out []int
	for range n {
		l, err := net.Listen("tcp", "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// start runs an announcer with one peer on loopback.
func start(t *testing.T, as uint32, port int, p PeerConfig) *side {
	t.Helper()
	cfg := Config{AS: strconv.Itoa(int(as)), Port: port, Peers: []PeerConfig{p}}
	cfg.Defaults()
	if d := cfg.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	id := Identity{AS: as, RouterID: netip.AddrFrom4([4]byte{10, 0, byte(port >> 8), byte(port)})}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("as", as)
	a := New(cfg, id, []string{"/proc/self/exe", SpeakerCommand}, log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	s := &side{a, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(func() { cancel() })
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

func TestSession(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 2)
	a := start(t, 65001, ports[0], PeerConfig{Name: "b", Address: "::1", Port: ports[1]})
	b := start(t, 65002, ports[1], PeerConfig{Name: "a", Address: "::1", Port: ports[0]})
	defer a.stop()
	defer b.stop()
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
