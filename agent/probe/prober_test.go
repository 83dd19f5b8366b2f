package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/steering"
)

// quick is a probe that measures as often as it may, and whose lease lasts.
func quick(tb testing.TB) Config {
	tb.Helper()
	return checked(tb, Config{
		Kind: kindTCP, Target: "[::1]:1", Interval: shortest, Timeout: patience, HoldDown: time.Millisecond, Lease: 3 * patience,
	})
}

// await waits for a health by the channel alone.
func await(tb testing.TB, p *Prober, want steering.Health) Status {
	tb.Helper()
	for deadline := time.After(patience); ; {
		s := p.Status()
		if s.Health == want {
			return s
		}
		select {
		case <-s.Changed():
		case <-deadline:
			tb.Fatalf("never %v: %+v", want, s)
		}
	}
}

// TestProber: a real service comes and goes, and its health with it.
func TestProber(t *testing.T) {
	t.Parallel()
	l := listen(t)
	cfg := quick(t)
	cfg.Target = l.Addr().String()
	r := run(t, cfg, nil)

	up := await(t, r.Prober, steering.HealthUp)
	if up.Reason != "passed 2 times" || up.Last.Failure != "" || up.Last.At.IsZero() || !up.HeldUntil.IsZero() {
		t.Errorf("up: %+v", up)
	}
	l.Close()
	down := await(t, r.Prober, steering.HealthDown)
	if !strings.Contains(down.Reason, "connection refused") || !down.HeldUntil.After(down.Since) || !down.Since.After(up.Since) {
		t.Errorf("down: %+v", down)
	}
	select {
	case <-up.Changed():
	default:
		t.Error("up is still the health for who waits")
	}
	again, err := net.Listen("tcp", cfg.Target)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	await(t, r.Prober, steering.HealthUp)
	eventually(t, "each change is logged", func() bool { return r.log.count("health changed") == 3 })
	for _, line := range []string{
		`level=INFO msg="health changed" probe=test from=unknown to=up reason="passed 2 times" hold_down=0s`,
		`level=WARN msg="health changed" probe=test from=up to=down reason="failed 3 times: connect: connection refused" hold_down=1ms`,
		`level=INFO msg="health changed" probe=test from=down to=up reason="passed `,
	} {
		if r.log.count(line) != 1 {
			t.Errorf("no %s in\n%s", line, r.log)
		}
	}
	if n := r.log.count("\n"); n != 3 {
		t.Errorf("%d lines are logged:\n%s", n, r.log)
	}
}

// TestProberWindow: a web server that answers badly now and then stays up, goes down with
// one bad answer more, and comes back.
func TestProberWindow(t *testing.T) {
	t.Parallel()
	target, bad, asked := unsteady(t)
	bad.Store(2)
	r := run(t, checked(t, Config{
		Kind: kindHTTP, Target: target, Interval: shortest, HoldDown: time.Millisecond, Lease: 3 * patience,
		Window: new(8), Threshold: new(6),
	}), nil)
	up := await(t, r.Prober, steering.HealthUp)
	if up.Reason != "6/8 passed" {
		t.Errorf("up: %+v", up)
	}
	for range 5 {
		n := asked.Load()
		eventually(t, "asked eight times more", func() bool { return asked.Load() >= n+8 })
		if s := r.Status(); s.Health != steering.HealthUp || s.Since != up.Since || !strings.HasPrefix(s.Good, "6/8 ") {
			t.Fatalf("2 of 8 are bad: %+v", s)
		}
	}
	bad.Store(3)
	down := await(t, r.Prober, steering.HealthDown)
	if down.Reason != "5/8 passed: status 503 instead of 200" {
		t.Errorf("down: %+v", down)
	}
	for range 3 {
		n := asked.Load()
		eventually(t, "asked eight times more", func() bool { return asked.Load() >= n+8 })
		if s := r.Status(); s.Health != steering.HealthDown || s.Since != down.Since || !strings.HasPrefix(s.Good, "5/8 ") {
			t.Fatalf("3 of 8 are bad: %+v", s)
		}
	}
	bad.Store(0)
	await(t, r.Prober, steering.HealthUp)
	eventually(t, "all is well", func() bool { return r.Status().Good == "8/8 ++++++++" })
	if n := r.log.count("health changed"); n != 3 {
		t.Errorf("%d changes:\n%s", n, r.log)
	}
}

// TestProberInitial: what counts as passed at the start decides how many answers are
// waited for, be they good or bad.
func TestProberInitial(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		initial int
		bad     int64
		health  steering.Health
		asked   int // until it is known
		good    string
	}{
		{0, 0, steering.HealthUp, 6, "6/8 ..++++++"},
		{4, 0, steering.HealthUp, 2, "6/8 ..++++++"},
		{5, 0, steering.HealthUp, 1, "6/8 ..++++++"},
		{0, 8, steering.HealthDown, 3, "0/8 .....---"},
		{5, 8, steering.HealthDown, 3, "5/8 +++++---"},
	} {
		target, bad, asked := unsteady(t)
		bad.Store(tt.bad)
		cfg := checked(t, Config{Kind: kindHTTP, Target: target, Window: new(8), Threshold: new(6), Initial: new(tt.initial)})
		p, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		for p.Status().Health == steering.HealthUnknown && asked.Load() < 8 {
			p.once(t.Context())
		}
		if s := p.Status(); s.Health != tt.health || asked.Load() != int64(tt.asked) || s.Good != tt.good {
			t.Errorf("initial %d, %d of 8 are bad: %+v after %d", tt.initial, tt.bad, s, asked.Load())
		}
	}
	p, err := New(checked(t, Config{Kind: kindTCP, Target: "[::1]:1", Initial: new(3)}), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Status(); s.Health != steering.HealthUp || s.Good != "3/8 .....+++" || s.Reason != "3/8 passed" {
		t.Errorf("up at the start: %+v", s)
	}
}

// TestProberHangs: a measurement that does not end, not even with its timeout,
// ends by the lease, and nobody has to ask for it.
func TestProberHangs(t *testing.T) {
	t.Parallel()
	var hang atomic.Bool
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	cfg := quick(t)
	cfg.Timeout, cfg.Lease = shortest, 500*time.Millisecond
	r := run(t, cfg, func(context.Context) error {
		if hang.Load() {
			<-released
		}
		return nil
	})
	defer release()
	await(t, r.Prober, steering.HealthUp)
	hang.Store(true)
	if s := await(t, r.Prober, steering.HealthDown); s.Reason != "no result for 500ms" {
		t.Errorf("%+v", s)
	}
	if !slices.Contains(series(t, r.reg), `razor_probe_up{probe="test"} 0`) {
		t.Error(series(t, r.reg))
	}
	hang.Store(false)
	release()
	await(t, r.Prober, steering.HealthUp)
}

// TestProberDead: a prober that nobody runs is down for who asks.
func TestProberDead(t *testing.T) {
	t.Parallel()
	cfg := quick(t)
	cfg.Timeout, cfg.Lease = shortest, 50*time.Millisecond
	p, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "down", func() bool { return p.Status().Health == steering.HealthDown })
	if s := p.Status(); s.Reason != "no result for 50ms" || !s.Last.At.IsZero() {
		t.Errorf("%+v", s)
	}
}

// TestProberPanics: a fault of the program is no measurement, is said once, and
// ends by the lease; the prober lives on.
func TestProberPanics(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	cfg := quick(t)
	cfg.Timeout, cfg.Lease = shortest, 500*time.Millisecond
	r := run(t, cfg, func(context.Context) error {
		if broken.Load() {
			panic("out of\nbounds")
		}
		return nil
	})
	await(t, r.Prober, steering.HealthUp)
	broken.Store(true)
	if s := await(t, r.Prober, steering.HealthDown); s.Reason != "no result for 500ms" {
		t.Errorf("%+v", s)
	}
	if n := r.log.count(`msg="fault in a probe" probe=test panic="out of\\010bounds" stack=`); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
	broken.Store(false)
	await(t, r.Prober, steering.HealthUp)
}

// TestProberStops: the end of the prober is no failure of the service.
func TestProberStops(t *testing.T) {
	t.Parallel()
	var block atomic.Bool
	blocked := make(chan struct{}, 1)
	cfg := quick(t)
	cfg.Rise, cfg.Fall = 1, 1
	r := run(t, cfg, func(ctx context.Context) error {
		if block.Load() {
			blocked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	await(t, r.Prober, steering.HealthUp)
	block.Store(true)
	<-blocked
	r.stop()
	if s := r.Status(); s.Health != steering.HealthUp || s.Last.Failure != "" {
		t.Errorf("%+v", s)
	}
	if left := series(t, r.reg); len(left) > 0 {
		t.Errorf("series are left: %v", left)
	}
}

// TestProberOneAtATime: a measurement that takes longer than the interval is
// waited for, and readers never wait for it.
func TestProberOneAtATime(t *testing.T) {
	t.Parallel()
	var under, times atomic.Int32
	r := run(t, quick(t), func(context.Context) error {
		if under.Add(1) > 1 {
			t.Error("two at once")
		}
		time.Sleep(3 * shortest)
		under.Add(-1)
		if times.Add(1)%7 < 3 {
			return errors.New("refused")
		}
		return nil
	})
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for times.Load() < 15 {
				s := r.Status()
				if (s.Health == steering.HealthUnknown) != (s.Reason == "") {
					t.Errorf("torn: %+v", s)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	g.Wait()
}

func TestNew(t *testing.T) {
	t.Parallel()
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	for _, tt := range []struct{ name, want string }{
		{"one", ""},
		{"two", ""},
		{"one", `probe "one": duplicate metrics collector registration attempted`},
		{"", `.name: "": not a name; want letters, digits, "-", "_" and ".", such as "web"`},
	} {
		cfg := quick(t)
		cfg.Name = tt.name
		if _, err := New(cfg, log, reg); text(err) != tt.want {
			t.Errorf("%q: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	seen := map[time.Duration]bool{}
	for range 1000 {
		d := jitter(time.Second)
		if d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatal(d)
		}
		seen[d] = true
	}
	if len(seen) < 900 {
		t.Errorf("%d different ones of 1000", len(seen))
	}
}

// series are all series of a registry as `name{label="value",…} number`; of a
// histogram the number of observations.
func series(tb testing.TB, reg *prometheus.Registry) []string {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			out = append(out, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), v))
		}
	}
	slices.Sort(out)
	return out
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	story := []func() error{
		func() error { return nil },
		func() error { return nil },
		func() error { return errors.New("refused") },
		func() error { panic("fault") },
	}
	for _, name := range []string{"a", "b"} {
		cfg := quick(t)
		cfg.Name = name
		i := 0
		p := newProber(cfg, slog.New(slog.DiscardHandler), reg, func(context.Context) error { i++; return story[i-1]() })
		reg.MustRegister(p.metrics)
		if name == "b" {
			continue
		}
		for range story {
			p.once(t.Context())
		}
	}
	want := []string{
		`razor_probe_duration_seconds{probe="a"} 3`,
		`razor_probe_duration_seconds{probe="b"} 0`,
		`razor_probe_results_total{probe="a",result="fail"} 1`,
		`razor_probe_results_total{probe="a",result="fault"} 1`,
		`razor_probe_results_total{probe="a",result="pass"} 2`,
		`razor_probe_results_total{probe="b",result="fail"} 0`,
		`razor_probe_results_total{probe="b",result="fault"} 0`,
		`razor_probe_results_total{probe="b",result="pass"} 0`,
		`razor_probe_up{probe="a"} 1`,
		`razor_probe_up{probe="b"} 0`,
	}
	if got := series(t, reg); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
