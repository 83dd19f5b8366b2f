package steering

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func limit(t *testing.T, text string) Limit {
	t.Helper()
	l, err := ParseLimit(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return l
}

func TestLimit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text     string
		of, want int
	}{
		{"50%", 100, 50},
		{"50%", 3, 2},
		{"7%", 100, 7},
		{"0.1%", 100, 1},
		{"100%", 9, 9},
		{"33.3%", 1000, 333},
		{"20", 100, 20},
		{"20", 5, 20},
		{"50%", 0, 0},
	} {
		if got := limit(t, tt.text).Of(tt.of); got != tt.want {
			t.Errorf("%s of %d: got %d, want %d", tt.text, tt.of, got, tt.want)
		}
	}
	for _, bad := range []string{"", "%", "0", "0%", "-1", "101%", "NaN%", "Inf%", "1.5", "x", "50 %", "1e3"} {
		if l, err := ParseLimit(bad); err == nil {
			t.Errorf("%q: taken as %v", bad, l)
		}
	}
}

// TestGuard is stories: each step decides on a list and makes what the verdict
// lets through.
func TestGuard(t *testing.T) {
	t.Parallel()
	type step struct {
		after   time.Duration
		wanted  int // of those that serve, and new ones
		lost    int // of the serving that are not wanted any more
		changed int
		want    Verdict // Baseline and Floor are not compared
	}
	for _, tt := range []struct {
		name         string
		floor, churn string
		serving      int
		steps        []step
	}{
		{"what is small goes through", "50%", "30%", 100, []step{
			{0, 90, 10, 5, Verdict{Lose: 10, Change: 5}},
		}},
		{"a mass loss stops at the floor, and stays there", "50%", "100%", 100, []step{
			{0, 10, 90, 0, Verdict{Lose: 50, Hold: HoldFloor}},
			{time.Minute, 10, 40, 0, Verdict{Hold: HoldFloor}},
			{48 * time.Hour, 10, 40, 0, Verdict{Hold: HoldFloor}},
		}},
		{"new members let held ones go", "50%", "100%", 100, []step{
			{0, 10, 90, 0, Verdict{Lose: 50, Hold: HoldFloor}},
			{time.Minute, 30, 40, 0, Verdict{Lose: 20, Hold: HoldFloor}},
			{time.Minute, 60, 20, 0, Verdict{Lose: 20}},
		}},
		{"nothing is no answer", "50%", "100%", 100, []step{
			{0, 0, 100, 0, Verdict{Hold: HoldEmpty}},
		}},
		{"not the last one, whatever the floor", "1", "100%", 1, []step{
			{0, 0, 1, 0, Verdict{Hold: HoldEmpty}},
		}},
		{"a little at a time is held too", "50%", "100%", 100, []step{
			{0, 80, 20, 0, Verdict{Lose: 20}},
			{20 * time.Minute, 60, 20, 0, Verdict{Lose: 20}},
			{20 * time.Minute, 40, 20, 0, Verdict{Lose: 10, Hold: HoldFloor}},
		}},
		{"over hours a list may shrink", "50%", "100%", 100, []step{
			{0, 60, 40, 0, Verdict{Lose: 40}},
			{61 * time.Minute, 30, 30, 0, Verdict{Lose: 30}},
			{61 * time.Minute, 15, 15, 0, Verdict{Lose: 15}},
		}},
		{"the churn limit lets the rest through later", "10%", "30%", 100, []step{
			{0, 50, 50, 0, Verdict{Lose: 30, Hold: HoldChurn, Again: time.Minute}},
			{20 * time.Second, 50, 20, 0, Verdict{Hold: HoldChurn, Again: 40 * time.Second}},
			{40 * time.Second, 50, 20, 0, Verdict{Lose: 20}},
		}},
		{"who leaves goes before who changes", "10%", "10", 100, []step{
			{0, 94, 6, 20, Verdict{Lose: 6, Change: 4, Hold: HoldChurn, Again: time.Minute}},
		}},
		{"floor and churn together", "50%", "30%", 100, []step{
			{0, 10, 90, 0, Verdict{Lose: 30, Hold: HoldFloor, Again: time.Minute}},
			{time.Minute, 10, 60, 0, Verdict{Lose: 20, Hold: HoldFloor}},
		}},
		{"a short list is not hindered by a share", "50%", "1%", 12, []step{
			{0, 8, 4, 6, Verdict{Lose: 4, Change: 6}},
			{time.Second, 8, 0, 1, Verdict{Hold: HoldChurn, Again: 59 * time.Second}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := Guard{Floor: limit(t, tt.floor), Churn: limit(t, tt.churn)}
			now := time.Unix(1e9, 0)
			serving := tt.serving
			g.Serves(now, serving)
			for i, s := range tt.steps {
				now = now.Add(s.after)
				c := Change{Serving: serving, Wanted: s.wanted, Losing: s.lost, Changing: s.changed}
				got := g.Decide(now, c)
				serving = s.wanted + s.lost - got.Lose
				g.Took(now, got.Lose+got.Change)
				g.Serves(now, serving)
				got.Baseline, got.Floor = 0, 0
				if got != s.want {
					t.Fatalf("step %d: got %+v, want %+v", i, got, s.want)
				}
			}
		})
	}
}

func TestGuardRestored(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	for _, tt := range []struct {
		name  string
		after time.Duration
		held  bool
		want  int // of the 20 that should leave
	}{
		{"soon", 30 * time.Minute, false, 10},
		{"later", 2 * time.Hour, false, 20},
		{"later, held", 2 * time.Hour, true, 10},
	} {
		g := Guard{Floor: limit(t, "50%"), Churn: limit(t, "100%")}
		g.Restore(now, 100, 0, 60, tt.held)
		if got := g.Decide(now.Add(tt.after), Change{Serving: 60, Wanted: 40, Losing: 20}); got.Lose != tt.want {
			t.Errorf("%s: %+v, want %d to leave", tt.name, got, tt.want)
		}
	}
}

// A list changes hands within a minute: the churn of both counts.
func TestGuardRestoresChurn(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	g := Guard{Floor: limit(t, "1"), Churn: limit(t, "10")}
	g.Took(now, 3)
	g.Restore(now.Add(10*time.Second), 100, 8, 100, false) // 3 of the 8 were its own
	for _, tt := range []struct {
		after time.Duration
		lose  int
	}{{20 * time.Second, 2}, {60 * time.Second, 5}, {70 * time.Second, 10}} {
		if got := g.Decide(now.Add(tt.after), Change{Serving: 100, Wanted: 50, Losing: 50}); got.Lose != tt.lose {
			t.Errorf("after %v: %+v, want %d", tt.after, got, tt.lose)
		}
	}
}

func TestGuardAccepted(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	g := Guard{Floor: limit(t, "50%"), Churn: limit(t, "100%")}
	g.Serves(now, 100)
	g.Decide(now, Change{Serving: 100, Wanted: 10, Losing: 90})
	g.Accepted(now, 10)
	if got := g.Decide(now, Change{Serving: 10, Wanted: 8, Losing: 2}); got.Lose != 2 || got.Baseline != 10 {
		t.Errorf("after it was accepted: %+v", got)
	}
	if got := g.Decide(now, Change{Serving: 10, Wanted: 2, Losing: 8}); got.Lose != 5 || got.Hold != HoldFloor {
		t.Errorf("a further loss: %+v", got)
	}
}

// TestGuardLaws: whatever a source says, a list never falls below the floor of
// what it was within the hour, and no minute sees more churn than the limit.
func TestGuardLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		g := Guard{}
		g.Floor, _ = ParseLimit(rapid.SampledFrom([]string{"50%", "90%", "3", "1%"}).Draw(t, "floor"))
		g.Churn, _ = ParseLimit(rapid.SampledFrom([]string{"30%", "100%", "5", "1"}).Draw(t, "churn"))
		type moment struct {
			at                       time.Time
			serving, taken, baseline int
		}
		now := time.Unix(1e9, 0)
		serving := rapid.IntRange(0, 200).Draw(t, "serving")
		g.Serves(now, serving)
		past := []moment{{now, serving, 0, serving}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1800).Draw(t, "seconds")) * time.Second)
			losing := rapid.IntRange(0, serving).Draw(t, "losing")
			gaining := rapid.IntRange(0, 50).Draw(t, "gaining")
			changing := rapid.IntRange(0, serving-losing).Draw(t, "changing")
			v := g.Decide(now, Change{serving, serving - losing + gaining, losing, changing})
			if v.Lose < 0 || v.Lose > losing || v.Change < 0 || v.Change > changing {
				t.Fatalf("impossible verdict %+v", v)
			}
			if v.Hold == HoldEmpty {
				gaining = 0
			}
			was := serving
			serving += gaining - v.Lose
			g.Took(now, v.Lose+v.Change)
			g.Serves(now, serving)
			past = append(past, moment{now, serving, v.Lose + v.Change, v.Baseline})

			most, churn, largest := was, 0, 0
			for i, p := range past {
				// A length counts until the next one.
				if i+1 < len(past) && now.Sub(past[i+1].at) <= baselineWindow {
					most = max(most, p.serving)
				}
				if now.Sub(p.at) < churnWindow {
					churn += p.taken
					largest = max(largest, g.Churn.Of(p.baseline))
				}
				if g.Churn.share > 0 {
					largest = max(largest, churnLeast)
				}
			}
			if floor := min(g.Floor.Of(most), most); v.Lose > 0 && serving < floor {
				t.Fatalf("%d left of %d, %d must stay", serving, most, floor)
			}
			if churn > largest {
				t.Fatalf("%d changes within a minute, %d are allowed", churn, largest)
			}
			if was > 0 && serving == 0 {
				t.Fatal("emptied")
			}
		}
	})
}
