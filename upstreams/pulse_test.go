package upstreams

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// ward is edges, each with a gateway that speaks every two seconds, and a pulse that
// hears them, all by one clock.
type ward struct {
	*pulse
	t    time.Time
	says map[string]string        // what each says; one that is not in it is silent
	off  map[string]time.Duration // how wrong a gateway's clock is
	deaf bool                     // nothing arrives
}

func newWard(edges ...string) *ward {
	w := &ward{pulse: newPulse(HealthRules{}), t: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), says: map[string]string{}, off: map[string]time.Duration{}}
	w.now = func() time.Time { return w.t }
	for _, e := range edges {
		w.says[e] = "up"
	}
	return w
}

func (w *ward) word(edge string, at time.Time) change {
	return change{keyID{kind: kindHealth, name: edge}, &value{said: &EdgeSaid{Health: EdgeHealth(w.says[edge]), At: at.Add(w.off[edge])}}}
}

// pass lets time pass, of which each second is looked who is silent.
func (w *ward) pass(d time.Duration) {
	for end := w.t.Add(d); w.t.Before(end); {
		w.t = w.t.Add(time.Second)
		if w.t.Unix()%2 == 0 && !w.deaf {
			for e := range w.says {
				w.hear([]change{w.word(e, w.t)})
			}
		}
		w.expire()
	}
}

func (w *ward) String() string {
	var out []string
	for e := range w.edges {
		out = append(out, e+" "+string(w.of(e)))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (w *ward) want(t *testing.T, want string) {
	t.Helper()
	if got := w.String(); got != want {
		t.Fatalf("%s; want %s", got, want)
	}
}

func TestPulse(t *testing.T) {
	t.Parallel()
	const healthy = "a up, b up, c up"
	t.Run("words are damped", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b", "c")
		w.says["c"] = "down"
		w.pass(2 * time.Second)
		w.want(t, "a up, b up, c down") // the first word counts
		w.says["c"] = "up"
		w.pass(2 * time.Second)
		w.want(t, "a up, b up, c down")
		w.pass(2 * time.Second)
		w.want(t, healthy)
		w.says["a"] = "down"
		w.pass(2 * time.Second)
		w.says["a"] = "up"
		w.pass(2 * time.Second)
		w.want(t, healthy)
		w.says["a"] = "down"
		w.pass(4 * time.Second)
		w.want(t, "a down, b up, c up")
	})
	t.Run("a drain is obeyed at once, silence or not", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b", "c")
		w.pass(2 * time.Second)
		w.says["a"] = "draining"
		w.pass(2 * time.Second)
		w.want(t, "a draining, b up, c up")
		delete(w.says, "a")
		w.pass(time.Minute)
		w.want(t, "a draining, b up, c up")
		w.says["a"] = "up"
		w.pass(2 * time.Second)
		w.want(t, "a down, b up, c up")
		w.pass(2 * time.Second)
		w.want(t, healthy)
	})
	t.Run("one falls silent", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b", "c")
		w.pass(time.Minute)
		delete(w.says, "b")
		w.pass(14 * time.Second)
		w.want(t, healthy)
		w.pass(3 * time.Second)
		w.want(t, "a up, b down, c up")
		if got := w.edges["b"].reason; got != "not heard for 15s while others were, was up" {
			t.Error(got)
		}
		w.says["b"] = "up"
		w.pass(4 * time.Second)
		w.want(t, healthy)
	})
	t.Run("all fall silent, and come back one by one", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b", "c")
		w.pass(time.Minute)
		w.deaf = true
		w.pass(time.Hour)
		w.want(t, healthy)
		w.deaf = false
		delete(w.says, "b")
		delete(w.says, "c")
		w.pass(4 * time.Second)
		w.says["b"] = "up"
		w.pass(4 * time.Second)
		w.want(t, healthy)
		w.says["c"] = "up"
		w.pass(time.Minute)
		w.want(t, healthy)
	})
	t.Run("a start", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b", "c", "d")
		w.off["b"] = -5 * time.Second // its clock is late
		w.says["d"] = "draining"
		w.hear([]change{w.word("c", w.t.Add(-16*time.Second)), w.word("a", w.t), w.word("b", w.t), w.word("d", w.t.Add(-time.Hour))})
		w.want(t, "a up, b up, c down, d draining")
		w.pass(time.Minute)
		w.want(t, healthy+", d draining")
	})
	t.Run("what has no time does not age", func(t *testing.T) {
		t.Parallel()
		w := newWard("a", "b")
		w.hear([]change{{keyID{kind: kindHealth, name: "c"}, &value{said: &EdgeSaid{Health: EdgeUp}}}})
		w.pass(time.Hour)
		w.want(t, healthy)
		w.hear([]change{{keyID{kind: kindHealth, name: "c"}, nil}})
		w.want(t, "a up, b up")
		if w.of("c") != EdgeUnknown {
			t.Error(w.of("c"))
		}
	})
}

// However often Redis is away and for how long, and however far clocks are apart, an edge
// whose gateway speaks when it can is not down.
func TestPulseHoldsNothingAgainstAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var edges []string
		for i := range rapid.IntRange(1, 6).Draw(t, "edges") {
			edges = append(edges, fmt.Sprint(i))
		}
		w := newWard(edges...)
		for _, e := range edges {
			w.off[e] = time.Duration(rapid.IntRange(-2500, 2500).Draw(t, "clock")) * time.Millisecond
		}
		for range rapid.IntRange(1, 10).Draw(t, "faults") {
			w.deaf = true
			w.pass(time.Duration(rapid.IntRange(0, 1000).Draw(t, "away")) * time.Second)
			w.deaf = false
			late := rapid.SampledFrom(edges).Draw(t, "late") // finds the primary after the others
			delete(w.says, late)
			w.pass(time.Duration(rapid.IntRange(0, 6).Draw(t, "later")) * time.Second)
			w.says[late] = "up"
			w.pass(time.Duration(rapid.IntRange(2, 60).Draw(t, "there")) * time.Second)
			for _, e := range edges {
				if w.of(e) != EdgeUp {
					t.Fatal(w)
				}
			}
		}
	})
}
