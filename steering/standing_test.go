package steering

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Claims leave health to Decide: they say who is dead.
func TestClaims(t *testing.T) {
	t.Parallel()
	now := time.Unix(1795264015, 0)
	const interval = 200 * time.Millisecond
	backend := func(h Health, silent time.Duration) Judged {
		return Judged{Configured: StandingActive, Weight: 1, Told: &Told{At: now.Add(-silent), Interval: interval, Health: h}}
	}
	up, down, gone := backend(HealthUp, 0), backend(HealthDown, 0), backend(HealthUp, 3*interval)
	seen := func(believed, heard time.Duration) Judged {
		b := backend(HealthUp, believed)
		b.Told.Seen = now.Add(-heard)
		return b
	}
	never := Judged{Configured: StandingActive, Weight: 1}
	dead := Judged{Configured: StandingDead, Weight: 1}
	for _, tt := range []struct {
		name     string
		backends []Judged
		min      float64
		want     string
	}{
		{"all is well", []Judged{up, never}, 0.5, "active active"},
		{"all are down", []Judged{down, down}, 0.5, "draining draining"},
		{"one is silent", []Judged{up, gone}, 0.5, "active dead"},
		{"one is there, and not believed", []Judged{up, seen(3*interval, 0)}, 0.5, "active draining"},
		{"none is believed", []Judged{seen(3*interval, 0), seen(3*interval, 0)}, 0.5, "draining draining"},
		{"one was there, and not believed", []Judged{up, seen(time.Hour, 3*interval)}, 0.5, "active dead"},
		{"too few speak", []Judged{up, gone, gone}, 0.5, "active draining draining"},
		{"few speak, and that is believed", []Judged{up, gone, gone}, 0, "active dead dead"},
		{"nobody speaks", []Judged{gone, gone}, 0.25, "draining draining"},
		{"nobody speaks, and that is believed", []Judged{gone, gone}, 0, "dead dead"},
		{"as configured", []Judged{dead, up}, 1, "dead active"},
		{"none", nil, 0.5, ""},
	} {
		var got []string
		for _, f := range Claims(tt.backends, tt.min, now) {
			got = append(got, string(f.Standing))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
	}
}

func TestStandings(t *testing.T) {
	t.Parallel()
	now := time.Unix(1795264015, 0)
	const interval = 200 * time.Millisecond
	told := func(h Health, silent time.Duration) *Told {
		return &Told{At: now.Add(-silent), Interval: interval, Health: h}
	}
	drained := &Told{At: now, Interval: interval, Health: HealthUp, Draining: true}
	active := func(t *Told) Judged { return Judged{Configured: StandingActive, Weight: 1, Told: t} }
	up, down, unknown, gone := active(told(HealthUp, 0)), active(told(HealthDown, 0)), active(told(HealthUnknown, 0)), active(told(HealthUp, 3*interval))
	goneDown := active(told(HealthDown, time.Hour))
	seen := func(believed, heard time.Duration) Judged {
		b := active(told(HealthUp, believed))
		b.Told.Seen = now.Add(-heard)
		return b
	}
	was := func(b Judged, s Standing) Judged { b.Was = s; return b }
	configured := func(b Judged, s Standing) Judged { b.Configured = s; return b }
	weightless := up
	weightless.Weight = 0
	for _, tt := range []struct {
		name     string
		backends []Judged
		min      float64
		want     string
		failOpen string
	}{
		{"nobody ever spoke", []Judged{active(nil), active(nil)}, 0.5, "active active", ""},
		{"all is well", []Judged{up, up}, 0.5, "active active", ""},
		{"down", []Judged{up, down}, 0.5, "active draining", ""},
		{"drained", []Judged{up, active(drained)}, 0.5, "active draining", ""},
		{"silent", []Judged{up, gone}, 0.5, "active dead", ""},
		{"there, and not believed", []Judged{up, seen(3*interval, 0)}, 0.5, "active draining", ""},
		{"not believed for a moment", []Judged{up, seen(3*interval-1, 0)}, 0.5, "active active", ""},
		{"believed again", []Judged{up, seen(0, interval)}, 0.5, "active active", ""},
		{"was there, and not believed", []Judged{up, seen(time.Hour, 3*interval)}, 0.5, "active dead", ""},
		{"none is believed", []Judged{seen(3*interval, 0), seen(3*interval, 0)}, 0.5, "active active", "0 of 2 active backends are up: health is not believed"},
		{"silent, and down before", []Judged{up, goneDown}, 0.5, "active dead", ""},
		{"a moment before", []Judged{up, active(told(HealthUp, 3*interval-1))}, 0.5, "active active", ""},
		{"never spoke, beside one that is down", []Judged{active(nil), down}, 0.5, "active draining", ""},
		{"unknown at the start", []Judged{unknown, unknown}, 0.5, "active active", ""},
		{"unknown after down", []Judged{up, was(unknown, StandingDraining)}, 0.5, "active draining", ""},
		{"unknown after dead", []Judged{up, was(unknown, StandingDead)}, 0.5, "active draining", ""},
		{"unknown after up", []Judged{up, was(unknown, StandingActive)}, 0.5, "active active", ""},
		{"up after dead", []Judged{up, was(up, StandingDead)}, 0.5, "active active", ""},
		{"as configured: dead", []Judged{up, configured(up, StandingDead)}, 0.5, "active dead", ""},
		{"as configured: draining", []Judged{up, configured(gone, StandingDraining)}, 0.5, "active draining", ""},
		{"too few are up", []Judged{up, down, down}, 0.5, "active active active", "1 of 3 active backends are up: health is not believed"},
		{"enough are up", []Judged{up, down, down}, 0.3, "active draining draining", ""},
		{"too few are up, one is gone", []Judged{up, down, gone}, 0.5, "active active dead", "1 of 3 active backends are up: health is not believed"},
		{"too few speak", []Judged{up, gone, gone}, 0.5, "active active active", "1 of 3 active backends report: neither silence nor health is believed"},
		{"nobody speaks", []Judged{gone, gone}, 0.5, "active active", "0 of 2 active backends report: neither silence nor health is believed"},
		{"the only one is down", []Judged{down}, 0.5, "active", "0 of 1 active backends are up: health is not believed"},
		{"the only one that is configured", []Judged{gone, configured(up, StandingDraining)}, 0.5, "active draining", "0 of 1 active backends report: neither silence nor health is believed"},
		{"all are drained", []Judged{active(drained), active(drained)}, 0.5, "active active", "no backend would be left: agents are not believed"},
		{"drained ones are no share", []Judged{active(drained), active(drained), up, down}, 0.5, "draining draining active draining", ""},
		{"down beside drained", []Judged{active(drained), down}, 0.5, "draining active", "0 of 1 active backends are up: health is not believed"},
		{"no share", []Judged{down, gone}, 0, "active active", "no backend would be left: agents are not believed"},
		{"no share, one is up", []Judged{down, down, gone, up}, 0, "draining draining dead active", ""},
		{"without weight nobody serves", []Judged{weightless, down}, 0.5, "active active", "0 of 1 active backends are up: health is not believed"},
		{"configured away", []Judged{configured(up, StandingDraining)}, 0.5, "draining", ""},
		{"none", nil, 0.5, "", ""},
	} {
		j := Judge(tt.backends, tt.min, false, now)
		var got []string
		for i, v := range j.Findings {
			got = append(got, string(v.Standing))
			if plain := tt.backends[i].Configured != StandingActive || v.Standing == StandingActive && v.Claimed == StandingActive; plain != (v.Reason == "") {
				t.Errorf("%s: backend %d: reason %q of %+v", tt.name, i, v.Reason, v)
			}
		}
		if s := strings.Join(got, " "); s != tt.want || j.FailOpen != tt.failOpen {
			t.Errorf("%s: %s, %q; want %s, %q", tt.name, s, j.FailOpen, tt.want, tt.failOpen)
		}
	}
}

// TestStandingProperties: what holds whatever agents say and however long ago.
func TestStandingProperties(t *testing.T) {
	t.Parallel()
	now := time.Unix(1795264015, 0)
	standings := []Standing{StandingActive, StandingDraining, StandingDead}
	backend := rapid.Custom(func(t *rapid.T) Judged {
		b := Judged{
			Configured: rapid.SampledFrom([]Standing{StandingActive, StandingActive, StandingActive, StandingDraining, StandingDead}).Draw(t, "configured"),
			Weight:     rapid.Uint32Range(0, 2).Draw(t, "weight"),
			Was:        rapid.SampledFrom(append(standings, "")).Draw(t, "was"),
		}
		if rapid.Bool().Draw(t, "doubted") {
			b.Believed = now.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "believed")) * time.Millisecond)
		}
		if rapid.IntRange(0, 5).Draw(t, "spoke") > 0 {
			b.Told = &Told{
				At:       now.Add(-time.Duration(rapid.IntRange(-1, 1000).Draw(t, "ago")) * time.Millisecond),
				Interval: time.Duration(rapid.IntRange(10, 400).Draw(t, "interval")) * time.Millisecond,
				Health:   Health(rapid.IntRange(0, 2).Draw(t, "health")), Draining: rapid.IntRange(0, 3).Draw(t, "draining") == 0,
			}
			if rapid.Bool().Draw(t, "mistimed") {
				b.Told.Seen = now.Add(-time.Duration(rapid.IntRange(-1, 1000).Draw(t, "seen")) * time.Millisecond)
			}
		}
		return b
	})
	rapid.Check(t, func(t *rapid.T) {
		backends := rapid.SliceOfN(backend, 0, 8).Draw(t, "backends")
		least := rapid.SampledFrom([]float64{0, 0.25, 0.5, 0.75, 1}).Draw(t, "min")
		elsewhere := rapid.Bool().Draw(t, "elsewhere")
		j := Judge(backends, least, elsewhere, now)
		claims := Claims(backends, least, now)
		may, serve, count, kept := 0, 0, 0, 0
		for i, b := range backends {
			v := j.Findings[i]
			if b.Configured != StandingActive && v.Standing != b.Configured {
				t.Fatalf("backend %d is configured %s, and is %s", i, b.Configured, v.Standing)
			}
			if b.Configured == StandingActive && b.Told == nil && v.Standing != StandingActive {
				t.Fatalf("backend %d never spoke, and is %s", i, v.Standing)
			}
			silent := b.Told != nil && now.Sub(b.Told.At) >= 3*b.Told.Interval && now.Sub(b.Told.Seen) >= 3*b.Told.Interval
			if v.Standing == StandingDead && b.Configured == StandingActive && !silent {
				t.Fatalf("backend %d speaks, and is dead", i)
			}
			if silent != (v.Claimed == StandingDead) {
				t.Fatalf("backend %d: silent %t, claimed %s", i, silent, v.Claimed)
			}
			if b.Configured == StandingActive && j.FailOpen == "" && v.Standing != v.Claimed && (!silent || !elsewhere && !now.Before(b.DeadAt())) {
				t.Fatalf("backend %d is believed, claims to be %s and is %s", i, v.Claimed, v.Standing)
			}
			for _, of := range []Finding{v, claims[i]} {
				if of.Standing == StandingDead && b.counts() && now.Before(b.DeadAt()) {
					t.Fatalf("backend %d may speak yet, and is dead: %+v", i, of)
				}
				if is := silent && b.Told.Gone; of.Gone != is && (!is || of.Standing != StandingActive) {
					t.Fatalf("backend %d: silent %t, gone %t, and found to be %+v", i, silent, is, of)
				}
			}
			if b.Configured != StandingActive || b.Weight == 0 {
				continue
			}
			may++
			if v.Standing == StandingActive {
				serve++
			}
			if b.Told == nil || !b.Told.Draining {
				count++
				if v.Standing == StandingActive || v.Standing == StandingDraining && v.Gone {
					kept++
				}
			}
		}
		if may > 0 && serve == 0 && !elsewhere {
			t.Fatal("agents took the last backend")
		}
		if float64(kept) < least*float64(count) && (!elsewhere || serve > 0) {
			t.Fatalf("agents left %d of %d, or nothing of hosts that are gone; want a share of %v", kept, count, least)
		}
		// The order of backends changes nothing.
		order := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Perm(len(backends))
		mixed := make([]Judged, len(backends))
		for i, at := range order {
			mixed[at] = backends[i]
		}
		other := Judge(mixed, least, elsewhere, now)
		for i, at := range order {
			if other.Findings[at] != j.Findings[i] || other.FailOpen != j.FailOpen {
				t.Fatalf("in another order backend %d is %v, was %v", i, other.Findings[at], j.Findings[i])
			}
		}
	})
}

// What agents say of all backends is believed where another site takes the new flows.
func TestJudgeElsewhere(t *testing.T) {
	t.Parallel()
	now := time.Now()
	told := func(h Health, ago time.Duration) Judged {
		return Judged{Configured: StandingActive, Weight: 1, Told: &Told{At: now.Add(-ago), Interval: time.Second, Health: h}}
	}
	up, down, gone := told(HealthUp, 0), told(HealthDown, 0), told(HealthUp, time.Minute)
	for _, tt := range []struct {
		name     string
		backends []Judged
		want     []Standing
	}{
		{"all are down", []Judged{down, down}, []Standing{StandingDraining, StandingDraining}},
		{"down or silent", []Judged{down, gone}, []Standing{StandingDraining, StandingDead}},
		{"all are silent", []Judged{gone, gone}, []Standing{StandingDraining, StandingDraining}},
		{"too few, but one is up", []Judged{up, down, down}, []Standing{StandingActive, StandingActive, StandingActive}},
	} {
		j := Judge(tt.backends, 0.5, true, now)
		for i, v := range j.Findings {
			if v.Standing != tt.want[i] {
				t.Errorf("%s: backend %d is %s (%s), want %s", tt.name, i, v.Standing, v.Reason, tt.want[i])
			}
		}
	}
}
