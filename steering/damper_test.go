package steering

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDamper is stories, in seconds: "+" passes, "-" fails, "?" only asks, and
// "." is a second in which nothing is heard.
func TestDamper(t *testing.T) {
	t.Parallel()
	s := func(n int) time.Duration { return time.Duration(n) * time.Second }
	for _, tt := range []struct {
		name   string
		rules  Damping
		story  string
		health Health
		since  int // seconds after the start
		held   int // seconds after the start; 0 is not
		reason string
	}{
		{"nothing yet", Damping{Rise: 1, Fall: 1}, "?", HealthUnknown, 0, 0, ""},
		{"too few to say", Damping{Rise: 2, Fall: 3}, "+--+", HealthUnknown, 0, 0, ""},
		{"up at first", Damping{Rise: 2, Fall: 3}, "++", HealthUp, 1, 0, "passed 2 times"},
		{"down at first, not held", Damping{Rise: 2, Fall: 3, HoldDown: s(9)}, "---", HealthDown, 2, 0, "failed 3 times: refused"},
		{"the zero value needs one", Damping{}, "+", HealthUp, 0, 0, "passed"},
		{"one failure is enough", Damping{}, "+-", HealthDown, 1, 1, "failed: refused"},
		{"a row is broken", Damping{Rise: 2, Fall: 3}, "++--+--+", HealthUp, 1, 0, "passed 2 times"},
		{"and again up", Damping{Rise: 2, Fall: 3}, "++---+-++", HealthUp, 8, 0, "passed 2 times"},
		{"held", Damping{HoldDown: s(3)}, "+-++", HealthDown, 1, 4, "failed: refused"},
		{"until the hold is over", Damping{HoldDown: s(3)}, "+-+++", HealthUp, 4, 0, "passed 3 times"},
		{"the row that is needed is needed then too", Damping{Rise: 3, HoldDown: s(3)}, "+++-++-++", HealthDown, 3, 6, "failed: refused"},
		{"twice as long", Damping{HoldDown: s(1)}, "+-+-+", HealthDown, 3, 5, "failed: refused"},
		{"four times as long", Damping{HoldDown: s(1)}, "+-+-++-", HealthDown, 6, 10, "failed: refused"},
		{"a lease ends", Damping{Lease: s(3)}, "+...?", HealthDown, 3, 3, "no result for 3s"},
		{"a lease is not over", Damping{Lease: s(4)}, "+..?", HealthUp, 0, 0, "passed"},
		{"as of when it ended, however late one asks", Damping{Lease: s(3), HoldDown: s(2)}, "+.......?", HealthDown, 3, 5, "no result for 3s"},
		{"no measurement at all", Damping{Lease: s(3)}, "...?", HealthDown, 3, 0, "no result for 3s"},
		{"a lease that ended breaks a row", Damping{Rise: 2, Lease: s(3)}, "+...+", HealthDown, 3, 0, "no result for 3s"},
		{"down has its reason still when the lease ends", Damping{Lease: s(3)}, "-...?", HealthDown, 0, 0, "failed: refused"},
		{"of a window enough passed", Damping{Window: 4, Threshold: 3}, "+-++", HealthUp, 3, 0, "3/4 passed"},
		{"some may fail", Damping{Window: 4, Threshold: 3}, "+++-+++-+++-+++-", HealthUp, 2, 0, "3/4 passed"},
		{"but no more", Damping{Window: 4, Threshold: 3, HoldDown: s(9)}, "+++-+-", HealthDown, 5, 14, "2/4 passed: refused"},
		{"too few to say of a window", Damping{Window: 4, Threshold: 3}, "+-+", HealthUnknown, 0, 0, ""},
		{"down as soon as it cannot be up", Damping{Window: 4, Threshold: 3}, "--", HealthDown, 1, 0, "0/4 passed: refused"},
		{"down is not before it cannot be up", Damping{Window: 8, Threshold: 3, Initial: 2}, "-----", HealthUnknown, 0, 0, ""},
		{"one is enough with what counts at the start", Damping{Window: 8, Threshold: 3, Initial: 2}, "+", HealthUp, 0, 0, "3/8 passed"},
		{"what counts at the start is the first to leave", Damping{Window: 4, Threshold: 2, Initial: 2}, "+-++--+", HealthUp, 0, 0, "2/4 passed"},
		{"up at the start", Damping{Window: 8, Threshold: 3, Initial: 3}, "", HealthUp, 0, 0, "3/8 passed"},
		{"up at the start, until it fails", Damping{Window: 8, Threshold: 3, Initial: 3, HoldDown: s(1)}, "------", HealthDown, 5, 6, "2/8 passed: refused"},
		{"held, with a window", Damping{Window: 2, Threshold: 1, HoldDown: s(3)}, "+--+++", HealthUp, 5, 0, "2/2 passed"},
		{"whatever the measurement at its end is", Damping{Window: 2, Threshold: 1, HoldDown: s(3)}, "+--++-", HealthUp, 5, 0, "1/2 passed"},
		{"a lease that ended empties a window", Damping{Window: 4, Threshold: 2, Initial: 4, Lease: s(3)}, "+...+", HealthDown, 3, 3, "no result for 3s"},
		{"and it fills again", Damping{Window: 4, Threshold: 2, Initial: 4, Lease: s(3)}, "+...+-+", HealthUp, 6, 0, "2/4 passed"},
		{"a lease that ended unseen is a change like others", Damping{Lease: s(3), HoldDown: s(3)}, "+....+", HealthDown, 3, 6, "no result for 3s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Unix(1e9, 0)
			d := NewDamper(tt.rules, start)
			for i, c := range tt.story {
				switch now := start.Add(s(i)); c {
				case '+', '-':
					d.Result(now, c == '+', "refused")
				case '?':
					d.Expire(now)
				}
			}
			want := Damped{Health: tt.health, Since: start.Add(s(tt.since)), Reason: tt.reason}
			if tt.held > 0 {
				want.HeldUntil = start.Add(s(tt.held))
			}
			if got := d.Damped(); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestDamperHolds: holds double up to the longest, and each longest hold of being
// up takes one doubling back.
func TestDamperHolds(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	d := NewDamper(Damping{HoldDown: time.Second}, now)
	for i, tt := range []struct {
		up   time.Duration
		hold int // seconds
	}{
		{time.Hour, 1},
		{0, 2},
		{0, 4},
		{31 * time.Second, 8},
		{0, 16},
		{0, 32},
		{0, 32},
		{31 * time.Second, 32},
		{32 * time.Second, 16},
		{63 * time.Second, 16},
		{64 * time.Second, 8},
		{24 * time.Hour, 1},
		{0, 2},
	} {
		d.Result(now, true, "")
		if d.Damped().Health != HealthUp {
			t.Fatalf("step %d: %+v at the end of the hold", i, d.Damped())
		}
		now = now.Add(tt.up)
		d.Result(now, false, "refused")
		held := d.Damped().HeldUntil
		if got := held.Sub(now); got != time.Duration(tt.hold)*time.Second {
			t.Fatalf("step %d: held for %v, want %d s", i, got, tt.hold)
		}
		now = held
	}
}

// TestDamperWindow: what an operator sees of it.
func TestDamperWindow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rules Damping
		story string
		want  string
	}{
		{Damping{Rise: 2, Fall: 3}, "+-+", ""},
		{Damping{Window: 1, Threshold: 1}, "", "0/1 ."},
		{Damping{Window: 8, Threshold: 3, Initial: 2}, "", "2/8 ......++"},
		{Damping{Window: 8, Threshold: 3, Initial: 2}, "--+", "3/8 ...++--+"},
		{Damping{Window: 8, Threshold: 3, Initial: 2}, "--+-+-+-+-", "4/8 +-+-+-+-"},
		{Damping{Window: 64, Threshold: 64, Initial: 64}, "-", "63/64 " + strings.Repeat("+", 63) + "-"},
		{Damping{Window: 64, Threshold: 64}, strings.Repeat("-+", 40), "32/64 " + strings.Repeat("-+", 32)},
		{Damping{Window: 4, Threshold: 2, Initial: 4, Lease: time.Second}, "++?+", "1/4 ...+"},
	} {
		now := time.Unix(1e9, 0)
		d := NewDamper(tt.rules, now)
		for _, c := range tt.story {
			if c == '?' {
				now = now.Add(time.Second)
				d.Expire(now)
				continue
			}
			d.Result(now, c == '+', "refused")
		}
		if got := d.Window(); got != tt.want {
			t.Errorf("%+v %s: %q, want %q", tt.rules, tt.story, got, tt.want)
		}
	}
}

// measurement is one event of a history.
type measurement struct {
	at     time.Time
	passed bool
}

func drawDamping(t *rapid.T) Damping {
	seconds := func(name string, least int) time.Duration {
		return time.Duration(rapid.IntRange(least, 20).Draw(t, name)) * time.Second
	}
	rules := Damping{HoldDown: seconds("hold_down", 0), Lease: seconds("lease", 0)}
	if rapid.Bool().Draw(t, "windowed") {
		rules.Window = rapid.OneOf(rapid.IntRange(1, 10), rapid.IntRange(1, MaxWindow)).Draw(t, "window")
		rules.Threshold = rapid.IntRange(1, rules.Window).Draw(t, "threshold")
		rules.Initial = rapid.IntRange(0, rules.Window).Draw(t, "initial")
		return rules
	}
	rules.Rise, rules.Fall = rapid.IntRange(0, 4).Draw(t, "rise"), rapid.IntRange(0, 4).Draw(t, "fall")
	return rules
}

// agreed is what measurements, the newest last, say by the rules alone: up, down, or
// neither. It is the slow model of the damper.
func agreed(rules Damping, heard []bool) Health {
	all := func(n int, passed bool) bool {
		return len(heard) >= n && !slices.Contains(heard[len(heard)-n:], !passed)
	}
	if rules.Window == 0 {
		switch {
		case all(max(rules.Rise, 1), true):
			return HealthUp
		case all(max(rules.Fall, 1), false):
			return HealthDown
		}
		return HealthUnknown
	}
	last, passed := heard[max(0, len(heard)-rules.Window):], 0
	for _, p := range last {
		if p {
			passed++
		}
	}
	missing := rules.Window - len(last)
	switch {
	case passed >= rules.Threshold:
		return HealthUp
	case passed+missing < rules.Threshold:
		return HealthDown
	}
	return HealthUnknown
}

// drawHistory is measurements with runs of equal results, so that changes happen.
func drawHistory(t *rapid.T, start time.Time) []measurement {
	var out []measurement
	now := start
	for range rapid.IntRange(1, 30).Draw(t, "runs") {
		passed := rapid.Bool().Draw(t, "passed")
		pace := time.Duration(rapid.SampledFrom([]int{1, 100, 1000, 3000, 25000}).Draw(t, "pace")) * time.Millisecond
		for range rapid.IntRange(1, 8).Draw(t, "length") {
			now = now.Add(pace)
			out = append(out, measurement{now, passed})
		}
	}
	return out
}

// TestDamperLaws: up needs its row or window and the end of the hold, down its row or
// window, or the end of the lease; every change has a reason, and flapping has its bound.
func TestDamperLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := drawDamping(t)
		start := time.Unix(1e9, 0)
		d := NewDamper(rules, start)
		results := slices.Repeat([]bool{true}, rules.Initial) // that count
		if up := rules.Window > 0 && rules.Initial >= rules.Threshold; up != (d.Damped().Health == HealthUp) {
			t.Fatalf("%+v at the start", d.Damped())
		}
		heard, falls := start, []time.Time(nil)
		for _, m := range drawHistory(t, start) {
			before := d.Damped()
			lapsed := rules.Lease > 0 && m.at.Sub(heard) >= rules.Lease
			if d.Expire(m.at) != (lapsed && before.Health != HealthDown) {
				t.Fatalf("expired: %+v, was %+v, lapsed %v", d.Damped(), before, lapsed)
			}
			if lapsed {
				results = nil
			}
			expired := d.Damped()
			changed := d.Result(m.at, m.passed, "refused")
			after := d.Damped()
			heard, results = m.at, append(results, m.passed)
			want := agreed(rules, results)
			if want == HealthUnknown || want == HealthUp && m.at.Before(expired.HeldUntil) {
				want = expired.Health
			}
			if after.Health != want || changed != (want != expired.Health) {
				t.Fatalf("%+v after %v: %+v became %+v, want %v", m, results, expired, after, want)
			}
			for _, c := range [][2]Damped{{before, expired}, {expired, after}} {
				checkChange(t, rules, c[0], c[1])
				if c[0].Health == HealthUp && c[1].Health == HealthDown {
					falls = append(falls, c[1].Since)
				}
			}
		}
		checkFalls(t, rules, falls)
	})
}

func checkChange(t *rapid.T, rules Damping, from, to Damped) {
	if from.Health == to.Health {
		if from != to {
			t.Fatalf("no change, and yet %+v became %+v", from, to)
		}
		return
	}
	hold := to.HeldUntil.Sub(to.Since)
	switch {
	case to.Reason == "" || to.Since.Before(from.Since):
		t.Fatalf("%+v became %+v", from, to)
	case from.Health != HealthUp && !to.HeldUntil.IsZero():
		t.Fatalf("held without having been up: %+v", to)
	case from.Health == HealthUp && (hold < rules.HoldDown || hold > rules.HoldDown<<holdDoublings):
		t.Fatalf("held for %v", hold)
	}
}

// checkFalls holds any two changes to down against the bound for the time between.
func checkFalls(t *rapid.T, rules Damping, falls []time.Time) {
	if rules.HoldDown == 0 {
		return
	}
	longest := rules.HoldDown << holdDoublings
	for i := range falls {
		for j := i; j < len(falls); j++ {
			if within := falls[j].Sub(falls[i]); j-i+1 > int(within/longest)+1+holdDoublings {
				t.Fatalf("down %d times within %v, a longest hold is %v", j-i+1, within, longest)
			}
		}
	}
}

// TestDamperAsked: asking, at any time and however often, changes nothing of what
// comes out; nor do times that run backwards make it forget.
func TestDamperAsked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rules := drawDamping(t)
		start := time.Unix(1e9, 0)
		quiet, asked := NewDamper(rules, start), NewDamper(rules, start)
		last := start
		for _, m := range drawHistory(t, start) {
			for range rapid.IntRange(0, 3).Draw(t, "asked") {
				back := time.Duration(rapid.Int64Range(0, int64(m.at.Sub(last))).Draw(t, "back"))
				asked.Expire(m.at.Add(-back))
			}
			quiet.Result(m.at, m.passed, "refused")
			asked.Result(m.at, m.passed, "refused")
			if quiet.Damped() != asked.Damped() || quiet.Window() != asked.Window() {
				t.Fatalf("%+v, and when asked between %+v", quiet.Damped(), asked.Damped())
			}
			last = m.at
		}
		early := rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "early")
		quiet.Result(last.Add(-early), true, "")
		if asked.Result(last, true, ""); quiet.Damped() != asked.Damped() || quiet.LeaseEnd() != asked.LeaseEnd() {
			t.Fatalf("%+v, and with a time in the past %+v", asked.Damped(), quiet.Damped())
		}
	})
}
