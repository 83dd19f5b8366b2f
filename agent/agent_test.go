package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

// onLoopback are the addresses of lo beside its own.
func onLoopback(t *testing.T) string {
	t.Helper()
	var out []string
	for line := range strings.SplitSeq(run(t, "ip -o addr show dev lo"), "\n") {
		if words := strings.Fields(line); len(words) > 3 && !strings.HasPrefix(words[3], "127.") && words[3] != "::1/128" {
			out = append(out, words[3])
		}
	}
	return strings.Join(out, " ")
}

// attachedTo tells whether an XDP program is on eth0.
func attachedTo(t *testing.T) bool {
	t.Helper()
	return strings.Contains(run(t, "ip link show dev eth0"), "prog/xdp")
}

// A start, the end of the process, another configuration, and a stop, by the steps that
// Run makes of them on one thread: it is a host of its own.
func TestLife(t *testing.T) {
	t.Parallel()
	pins := newHost(t)
	run(t, "ip addr add 2001:db8:ffff::1/128 dev lo") // by an operator
	at := func(c *Config) { c.Pins = pins }
	start := func(c *Config) (a *agent, text string) {
		t.Helper()
		a = newAgent(*c, slog.New(slog.DiscardHandler), nil)
		a.ready = func(ok bool, now string) {
			if !ok {
				now = "not ready: " + now
			}
			text = now
		}
		if err := a.open(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.close() })
		return a, text
	}
	a, text := start(section(at))
	if text != "2 VIPs, locator 2001:db8:5e:7::/64, on eth0" {
		t.Error("ready: ", text)
	}
	if got := onLoopback(t); !strings.Contains(got, "198.51.100.1/32") || !attachedTo(t) {
		t.Errorf("running: %s on loopback", got)
	}
	if !section(at).Running() {
		t.Error("it does not run")
	}
	other := newAgent(*section(at), slog.New(slog.DiscardHandler), nil)
	if d, ok := errors.AsType[upstreams.Defect](other.open()); !ok || d.Key != "agent.pins" {
		t.Error("a second one: ", d)
	}
	_ = other.close()
	if err := a.close(); err != nil { // as when the process ends
		t.Fatal(err)
	}
	if got := onLoopback(t); !strings.Contains(got, "198.51.100.1/32") || !attachedTo(t) || section(at).Running() {
		t.Errorf("without a process: %s on loopback", got)
	}

	a, _ = start(section(at, func(c *Config) { c.VIPs, c.Interfaces = []string{"198.51.100.2"}, []string{"peer"} }))
	if got := onLoopback(t); !strings.Contains(got, "198.51.100.2/32") || strings.Contains(got, "198.51.100.1/32") {
		t.Errorf("other VIPs: %s on loopback", got)
	}
	if attachedTo(t) {
		t.Error("it is on an interface that it is not to be on")
	}
	// Somebody makes the interface anew, and takes a VIP away.
	run(t, "ip link del peer")
	run(t, "ip addr del 198.51.100.2/32 dev lo")
	if got := strings.Join(append(a.bind(), a.attachAgain()...), " "); got != "peer: no such interface" {
		t.Error("said of what is gone: ", got)
	}
	run(t, "ip link add eth0 type veth peer name peer")
	if got := append(a.bind(), a.attachAgain()...); len(got) > 0 {
		t.Error("said of what is back: ", got)
	}
	if got := onLoopback(t); !strings.Contains(got, "198.51.100.2/32") || !strings.Contains(run(t, "ip link show dev peer"), "prog/xdp") {
		t.Errorf("made whole: %s on loopback", got)
	}

	if err := errors.Join(a.remove(), a.close()); err != nil {
		t.Fatal(err)
	}
	if got := onLoopback(t); !strings.Contains(got, "2001:db8:ffff::1/128") || strings.Contains(got, "198.51.100") {
		t.Errorf("stopped: %s on loopback", got)
	}
	if left, err := os.ReadDir(pins); err != nil || len(left) > 0 || strings.Contains(run(t, "ip link show"), "xdp") {
		t.Errorf("stopped: %v, %v are left", left, err)
	}
}

// A signal starts it again, unless the configuration has a mistake, and nothing is taken
// off for it.
func TestRun(t *testing.T) {
	t.Parallel()
	pins := newHost(t)
	c := section(func(c *Config) { c.Pins, c.StateDir = pins, t.TempDir(); no := false; c.Bind = &no })
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGHUP
	signals <- syscall.SIGHUP
	checks := 0
	opt := Options{Signals: signals, Check: func() error {
		if checks++; checks == 1 {
			return errors.New("a mistake")
		}
		return nil
	}}
	// The thread of the test is the host: what Run starts beside it does not touch that.
	err := Run(t.Context(), *c, opt, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(bool, string) {})
	if !errors.Is(err, ErrRestart) || checks != 2 {
		t.Errorf("%v after %d checks", err, checks)
	}
	if !attachedTo(t) {
		t.Error("taken off by a restart")
	}
	hangups := make(chan os.Signal)
	ctx, cancel := context.WithCancel(t.Context())
	a := newAgent(*c, slog.New(slog.DiscardHandler), func(bool, string) {})
	a.admin.leave("the agent stops")
	go func() {
		hangups <- syscall.SIGHUP
		cancel()
	}()
	if err := a.loop(ctx, Options{Signals: hangups, Check: func() error { return nil }}, nil); err != nil {
		t.Error("a signal while it stops: ", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	err = Run(ctx, *c, Options{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(ok bool, _ string) {
		if !ok {
			t.Error("not ready")
		}
		cancel()
	})
	if err != nil || attachedTo(t) {
		t.Error("stopped: ", err)
	}
}
