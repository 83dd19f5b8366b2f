package steering

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLeveler is stories of measurements, one in 100 ms: below 0 is one that fails.
func TestLeveler(t *testing.T) {
	t.Parallel()
	rules := Leveling{Warning: 0.8, Critical: 0.95, Slack: 0.1, Hold: 300 * time.Millisecond, Failures: 3}
	for _, tt := range []struct {
		name   string
		loads  []float64
		want   string // levels, one for each measurement
		reason string
	}{
		{"normal", []float64{0, 0.5, 0.79}, "111", ""},
		{"warning at its threshold", []float64{0.79, 0.8}, "12", "load 0.8, warning from 0.8"},
		{"critical at once", []float64{0.1, 3}, "13", "load 3, critical from 0.95"},
		{"critical by warning", []float64{0.8, 0.95}, "23", "load 0.95, critical from 0.95"},
		{"slack keeps the level", []float64{0.8, 0.71, 0.71, 0.71, 0.71}, "22222", "load 0.8, warning from 0.8"},
		{"below the slack, after the hold", []float64{0.8, 0.6, 0.6, 0.6, 0.6}, "22211", "load 0.6, below 0.7"},
		{"step by step", []float64{1, 0.8, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1}, "33322211", ""},
		{"from critical to normal", []float64{1, 1, 1, 0.1}, "3331", "load 0.1, below 0.7"},
		{"around a threshold", []float64{0.81, 0.79, 0.81, 0.79, 0.81, 0.79}, "222222", "load 0.81, warning from 0.8"},
		{"failures", []float64{0.1, -1, -1, 0.1, -1, -1, -1, -1}, "11111122", "failed 3 times: -1 is no load"},
		{"failures end critical, after the hold", []float64{1, 1, -1, -1, -1, -1}, "333322", "failed 3 times: -1 is no load"},
		{"failures within the hold", []float64{1, -1, -1}, "333", "load 1, critical from 0.95"},
		{"failures do not end warning", []float64{0.9, -1, -1, -1, -1}, "22222", "load 0.9, warning from 0.8"},
		{"measured again", []float64{-1, -1, -1, 0.1, 0.1, 0.1}, "112221", "load 0.1, below 0.7"},
	} {
		at := time.Unix(1, 0)
		l := NewLeveler(rules, LevelNormal, at)
		got := ""
		for _, load := range tt.loads {
			was := l.Leveled().Level
			if changed := l.Load(at, load); changed != (l.Leveled().Level != was) {
				t.Errorf("%s: changed is %v", tt.name, changed)
			}
			got += string('0' + rune(l.Leveled().Level))
			at = at.Add(100 * time.Millisecond)
		}
		if reason := l.Leveled().Reason; got != tt.want || tt.reason != "" && reason != tt.reason {
			t.Errorf("%s: %s, %q; want %s, %q", tt.name, got, reason, tt.want, tt.reason)
		}
	}
}

// The mean follows a step as an exponential does, however often it is measured.
func TestLevelerMean(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		at := time.Unix(1, 0)
		l := NewLeveler(Leveling{Warning: 2, Critical: 3, Smooth: time.Second}, LevelNormal, at)
		l.Load(at, 0)
		for range time.Second / every {
			at = at.Add(every)
			l.Load(at, 1)
		}
		if got, want := l.Leveled().Load, 1-1/math.E; math.Abs(got-want) > 1e-9 {
			t.Errorf("every %v: %v after the time constant, want %v", every, got, want)
		}
	}
}

// Whatever is measured: a level is one of the three, a lower one comes no sooner than
// after the hold, and loads that are all below a threshold never reach its level.
func TestLevelerLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Leveling{
			Warning: rapid.Float64Range(0.1, 1).Draw(t, "warning"), Slack: rapid.Float64Range(0, 0.1).Draw(t, "slack"),
			Smooth:   time.Duration(rapid.IntRange(0, 2000).Draw(t, "smooth")) * time.Millisecond,
			Hold:     time.Duration(rapid.IntRange(0, 2000).Draw(t, "hold")) * time.Millisecond,
			Failures: rapid.IntRange(0, 3).Draw(t, "failures"),
		}
		r.Critical = r.Warning + rapid.Float64Range(0, 1).Draw(t, "critical")
		at, most, failed := time.Unix(1, 0), 0.0, false
		l := NewLeveler(r, LevelNormal, at)
		for range rapid.IntRange(0, 50).Draw(t, "measurements") {
			at = at.Add(time.Duration(rapid.IntRange(-10, 1000).Draw(t, "later")) * time.Millisecond)
			was := l.Leveled()
			if rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
				failed = true
				l.Failed(at, "no answer")
			} else {
				load := rapid.Float64Range(0, 2).Draw(t, "load")
				most = max(most, load)
				l.Load(at, load)
			}
			now := l.Leveled()
			switch {
			case now.Level < LevelNormal || now.Level > LevelCritical:
				t.Fatalf("level %d", now.Level)
			case now.Level < was.Level && at.Sub(was.Since) < r.Hold:
				t.Fatalf("%v after %v, held for %v", now.Level, was.Level, at.Sub(was.Since))
			case now.Level == LevelCritical && most < r.Critical-1e-9:
				t.Fatalf("critical by loads up to %v: %+v", most, r)
			case now.Level == LevelWarning && !failed && most < r.Warning-1e-9:
				t.Fatalf("warning by loads up to %v: %+v", most, r)
			case now.Load < 0 || now.Load > most+1e-9:
				t.Fatalf("mean %v of loads up to %v", now.Load, most)
			}
		}
	})
}

// A load that is no number fails.
func TestLevelerTakesNumbersOnly(t *testing.T) {
	t.Parallel()
	for _, load := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -0.001} {
		l := NewLeveler(Leveling{Warning: 0.8, Critical: 0.9}, LevelNormal, time.Unix(1, 0))
		if !l.Load(time.Unix(1, 0), load) || l.Leveled().Level != LevelWarning || l.Leveled().Load != 0 {
			t.Errorf("%v: %+v", load, l.Leveled())
		}
	}
	if got := Level(9).String() + Level(0).String() + LevelNormal.String(); got != "unknownunknownnormal" {
		t.Error(got)
	}
}
