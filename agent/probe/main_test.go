package probe

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// TestMain checks that nothing that a test started is left running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for what takes milliseconds on an idle machine.
const patience = 30 * time.Second

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// checked is a configuration with its defaults; the timeout is long unless given.
func checked(tb testing.TB, cfg Config) Config {
	tb.Helper()
	or(&cfg.Name, "test")
	or(&cfg.Timeout, patience)
	cfg.Defaults()
	if wrong := cfg.Check("probe"); len(wrong) > 0 {
		tb.Fatal(wrong)
	}
	return cfg
}

// measured is what failed in one measurement; empty when it passed.
func measured(tb testing.TB, cfg Config) string {
	tb.Helper()
	cfg = checked(tb, cfg)
	ctx, cancel := context.WithTimeout(tb.Context(), cfg.Timeout)
	defer cancel()
	return text(measurer(&cfg)(ctx))
}

// runsOut measures with a timeout that comes before the answer. It is the longer
// the more often something else came, as on a busy machine.
func runsOut(tb testing.TB, cfg Config, want string) {
	tb.Helper()
	got := ""
	for cfg.Timeout = 50 * time.Millisecond; cfg.Timeout < patience; cfg.Timeout *= 2 {
		if got = measured(tb, cfg); got == want {
			return
		}
	}
	tb.Errorf("%s: %q, want %q", cfg.Kind, got, want)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// listen is a listener on loopback until the test ends.
func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// raw is a TCP server that handles one connection at a time, and closes it.
func raw(tb testing.TB, handle func(net.Conn)) (target string) {
	tb.Helper()
	l := listen(tb)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			handle(conn)
			conn.Close()
		}
	}()
	tb.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// logLines keeps what is logged.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logLines) count(words string) int { return strings.Count(l.String(), words) }

// running is a prober that runs.
type running struct {
	*Prober
	log  *logLines
	reg  *prometheus.Registry
	stop func() // ends it and waits
}

func run(tb testing.TB, cfg Config, measure func(context.Context) error) *running {
	tb.Helper()
	r := &running{log: &logLines{}, reg: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	if measure == nil {
		p, err := New(cfg, log, r.reg)
		if err != nil {
			tb.Fatal(err)
		}
		r.Prober = p
	} else {
		r.Prober = newProber(cfg, log, r.reg, measure)
		r.reg.MustRegister(r.metrics)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(r.stop)
	return r
}
