package upstreams

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/razor-steering/razor/steering"
)

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

// count is the number of lines that have all of the words in them.
func (l *logLines) count(words ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
lines:
	for line := range strings.Lines(l.buf.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// following is a follower that runs, beside a client of the store it follows.
type following struct {
	*Follower
	tb       testing.TB
	log      *logLines
	client   *redis.Client
	registry *prometheus.Registry
	stop     func() // ends the follower and waits for it
}

func startEmbedded(tb testing.TB) *Embedded {
	tb.Helper()
	e, err := StartEmbedded("127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

// follow runs a follower of the server at an address until the test ends.
func follow(tb testing.TB, addr string, opt Options) *following {
	tb.Helper()
	w := &following{
		tb: tb, log: &logLines{}, registry: prometheus.NewPedanticRegistry(),
		client: redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true, MaxRetries: -1}),
	}
	var err error
	w.Follower, err = NewFollower(Config{Address: addr}, opt, slog.New(slog.NewTextHandler(w.log, nil)), w.registry)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
		_ = w.client.Close()
	})
	tb.Cleanup(func() {
		w.stop()
		if tb.Failed() {
			tb.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// do sends a command, its words separated by spaces.
func (w *following) do(command string) {
	w.tb.Helper()
	var args []any
	for word := range strings.FieldsSeq(command) {
		args = append(args, word)
	}
	w.doArgs(args...)
}

func (w *following) doArgs(args ...any) {
	w.tb.Helper()
	if err := w.client.Do(context.Background(), args...).Err(); err != nil {
		w.tb.Fatalf("%v: %v", args, err)
	}
}

// zone makes a zone.
func (w *following) zone(name string, pairs ...any) {
	w.tb.Helper()
	w.doArgs(append([]any{"HSET", name + ":CONFIG", "SOA", goodSOA}, pairs...)...)
}

// members is the pool of a key ("r.example:A"), "" where there is none.
func (w *following) members(key string) string {
	name, suffix, _ := strings.Cut(key, ":")
	f := steering.IPv4
	if suffix == "AAAA" {
		f = steering.IPv6
	}
	s := w.Snapshot()
	if s == nil {
		return ""
	}
	return texts(s.Name([]byte(wire(w.tb, name))).Pool(f).Members())
}

func (w *following) waitMembers(key, want string) {
	w.tb.Helper()
	end := time.Now().Add(patience)
	for w.members(key) != want {
		if time.Now().After(end) {
			w.tb.Fatalf("%s has %q; want %q", key, w.members(key), want)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *following) sticky(name string) string {
	s := w.Snapshot()
	if s == nil {
		return ""
	}
	if n := s.Name([]byte(wire(w.tb, name))); n != nil {
		return NameText(n.Route)
	}
	return ""
}

func (w *following) zoneOf(name string) *Zone {
	s := w.Snapshot()
	if s == nil {
		return nil
	}
	return s.Zone([]byte(wire(w.tb, name)))
}

func (w *following) wait(what string, condition func() bool) {
	w.tb.Helper()
	eventually(w.tb, what, condition)
}

func (w *following) waitLink(l Link) {
	w.tb.Helper()
	w.wait("link "+string(l), func() bool { return w.Health().Link == l })
}

// gauge is the value of a metric without labels.
func (w *following) gauge(name string) float64 {
	w.tb.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
