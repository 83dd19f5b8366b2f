package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
)

// drill drives a drain by a clock of its own.
type drill struct {
	drain
	now time.Time
}

func newDrill() *drill {
	return &drill{drain: drain{config: DrainConfig{Converge: 5 * time.Second, Settle: 2 * time.Second}}, now: noon}
}

// does steps after a time, and says what that does.
func (d *drill) does(after time.Duration, idle bool) string {
	d.now = d.now.Add(after)
	begin, end, next := d.step(d.now, idle)
	text := stageWords[d.stage]
	if begin {
		text += ", begin"
	}
	if end {
		text += ", end"
	}
	if !next.IsZero() {
		text += fmt.Sprintf(", again in %s", next.Sub(d.now))
	}
	return text
}

// TestDrain drives whole drains: after a time, what is done, and what comes of it.
func TestDrain(t *testing.T) {
	t.Parallel()
	type move struct {
		after time.Duration
		do    func(*drill)
		want  string
	}
	byHand := func(why string) func(*drill) { return func(d *drill) { d.byHand = why } }
	byList := func(why string) func(*drill) { return func(d *drill) { d.byList = why } }
	stop := func(d *drill) { d.leaving = "the gateway stops" }
	const s = time.Second
	for _, tt := range []struct {
		name  string
		idle  bool
		moves []move
		done  bool
		why   string
	}{
		{"nobody wants one", false, []move{{0, nil, "in service"}, {time.Hour, nil, "in service"}}, false, ""},
		{"by hand, and back", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{3 * s, nil, "leaving, again in 2s"},
			{2 * s, nil, "drained, again in 2s"},
			{s, nil, "drained, again in 1s"},
			{s, nil, "drained, end"},
			{s, nil, "drained"},
			{time.Hour, byHand(""), "in service, begin"},
			{s, nil, "in service"},
		}, false, ""},
		{"it is late", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{time.Minute, nil, "drained, again in 2s"},
			{time.Minute, nil, "drained, end"},
		}, true, "cables"},
		{"called off while leaving", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{s, byHand(""), "in service"},
			{s, byHand("cables"), "leaving, again in 5s"},
		}, false, "cables"},
		{"called off when withdrawn", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{5 * s, nil, "drained, again in 2s"},
			{s, byHand(""), "in service"},
		}, false, ""},
		{"one word is taken back, another stands", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{s, byList("x:STATE is draining"), "leaving, again in 4s"},
			{s, byHand(""), "leaving, again in 3s"},
			{3 * s, nil, "drained, again in 2s"},
			{2 * s, nil, "drained, end"},
			{s, byList(""), "in service, begin"},
		}, false, ""},
		{"it stops while it leaves", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{4 * s, stop, "leaving, again in 1s"},
			{s, nil, "drained, again in 2s"},
			{2 * s, nil, "drained, end"},
		}, true, "the gateway stops"},
		{"it stops when it is drained", false, []move{
			{0, byHand("cables"), "leaving, again in 5s"},
			{5 * s, nil, "drained, again in 2s"},
			{2 * s, nil, "drained, end"},
			{s, stop, "drained"},
		}, true, "the gateway stops"},
		{"nobody hears it", true, []move{{0, stop, "drained, end"}, {0, nil, "drained"}}, true, "the gateway stops"},
		{"nobody hears it, and it comes back", true, []move{{0, byHand("cables"), "drained, end"}, {0, byHand(""), "in service, begin"}}, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDrill()
			for i, m := range tt.moves {
				if m.do != nil {
					m.do(d)
				}
				if got := d.does(m.after, tt.idle); got != m.want {
					t.Fatalf("move %d: %s; want %s", i, got, m.want)
				}
			}
			if d.done() != tt.done || d.why() != tt.why {
				t.Errorf("done %v, why %q; want %v, %q", d.done(), d.why(), tt.done, tt.why)
			}
		})
	}
}

// TestDrainHolds: whatever is wanted, and whenever it is looked at, the network has
// its time, and who waits is told how long.
func TestDrainHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := newDrill()
		open, leavingSince := true, time.Time{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "move") {
			case 0:
				d.byHand = rapid.SampledFrom([]string{"", "cables"}).Draw(t, "by hand")
			case 1:
				d.byList = rapid.SampledFrom([]string{"", "state"}).Draw(t, "by list")
			}
			d.now = d.now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(t, "ms")) * time.Millisecond)
			was := d.stage
			begin, end, next := d.step(d.now, false)
			if was == steering.InService && d.stage != was {
				leavingSince = d.now
			}
			wanted := d.why() != ""
			switch {
			case begin && (open || wanted), end && (!open || !wanted):
				t.Fatalf("begin %v, end %v; open %v, wanted %v", begin, end, open, wanted)
			case wanted == (d.stage == steering.InService):
				t.Fatalf("wanted %v, and %s", wanted, stageWords[d.stage])
			case d.stage == steering.OutOfTheWay && d.now.Sub(leavingSince) < d.config.Converge:
				t.Fatal("withdrawn before the network has converged")
			case end && d.now.Sub(leavingSince) < d.config.Converge+d.config.Settle:
				t.Fatal("closed before the withdrawal has settled")
			case !next.IsZero() && !d.now.Before(next):
				t.Fatal("come back in the past")
			case wanted && !d.done() && next.IsZero():
				t.Fatal("nobody comes back to end it")
			}
			open = open && !end || begin
			if d.done() == open {
				t.Fatalf("done %v, open %v", d.done(), open)
			}
		}
	})
}

func TestDrainIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	load := func() (string, error) {
		var d drain
		err := d.load(dir)
		return d.byHand, err
	}
	for _, tt := range []struct{ why, want string }{{"cables", "cables"}, {"", ""}, {"", ""}, {" \t", "drained by hand"}} {
		d := drain{byHand: tt.why}
		if err := d.save(dir); err != nil {
			t.Fatal(err)
		}
		if got, err := load(); got != tt.want || err != nil {
			t.Errorf("%q: %q, %v", tt.why, got, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); left != nil {
		t.Error("left:", left)
	}
	// Whoever writes the file by hand need not write anything into it.
	if err := os.WriteFile(filepath.Join(dir, drainFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := load(); got != "drained by hand" || err != nil {
		t.Errorf("an empty file: %q, %v", got, err)
	}
	file := filepath.Join(dir, drainFile)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := load(); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
	if err := (&drain{byHand: "x"}).save("/nonexistent"); err == nil {
		t.Error("kept nowhere")
	}
}

// The dataplane stays while answers of backends come, as often as it is looked.
func TestLull(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tt := range []struct {
		name     string
		returned func(after time.Duration) uint64
		want     time.Duration
	}{
		{"none ever", func(time.Duration) uint64 { return 0 }, 0},
		{"long ago", func(time.Duration) uint64 { return 9 }, 2 * s},
		{"until agents notice", func(after time.Duration) uint64 { return 1 + uint64(min(after, 7*s)/(s/10)) }, 9 * s},
		{"with a pause", func(after time.Duration) uint64 { return 1 + uint64(min(after, 3*s)/(9*s/10)) }, 47 * s / 10},
		{"for ever", func(after time.Duration) uint64 { return 1 + uint64(after/(s/10)) }, 10 * s},
	} {
		var l lull
		after := time.Duration(0)
		for ; !l.over(noon.Add(after), tt.returned(after)) && after < time.Minute; after += s / 20 {
		}
		if after != tt.want {
			t.Errorf("%s: over after %v, want %v", tt.name, after, tt.want)
		}
	}
}

// A second signal ends the wait for answers of backends.
func TestLullIsHurried(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	g := &Gateway{opt: Options{Signals: signals}, stopped: time.Now().Add(-2 * oneWish)}
	answers := uint64(0)
	g.awaitLull(t.Context(), nil, func() uint64 { answers++; return answers })
	if !g.drain.hurry || answers > 20 {
		t.Errorf("it looked %d times, hurried: %v", answers, g.drain.hurry)
	}
}

// A disk that is slow, here one that waits for a reader, keeps nobody but who drains.
func TestDrainOnASlowDisk(t *testing.T) {
	t.Parallel()
	g := &Gateway{config: Config{StateDir: t.TempDir()}, wake: make(chan struct{}, 1), stepped: make(chan struct{})}
	close(g.stepped)
	next := filepath.Join(g.config.StateDir, drainFile+".new")
	if err := unix.Mkfifo(next, 0o600); err != nil {
		t.Fatal(err)
	}
	kept := make(chan error)
	go func() {
		saved, _ := g.drainByHand(t.Context(), "cables", func() bool { return true })
		kept <- saved
	}()
	<-g.wake
	g.mu.Lock()
	if g.drain.byHand != "cables" {
		t.Error("nobody hears of the drain")
	}
	g.mu.Unlock()
	reader, err := os.Open(next)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if <-kept == nil {
		t.Error("kept in a pipe")
	}
}
