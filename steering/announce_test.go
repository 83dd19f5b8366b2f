package steering_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	. "github.com/razor-steering/razor/steering"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	up, unknown := Damped{Health: HealthUp}, Damped{}
	down := Damped{Health: HealthDown, Since: start, Reason: "3 of 3 failed: refused"}
	for _, tt := range []struct {
		what   string
		offer  Offer
		stage  Stage
		after  time.Duration
		want   Presence
		reason string
		until  time.Duration
	}{
		{"up", Offer{Condition: up}, InService, 0, Announced, "always", 0},
		{"first result is missing", Offer{Condition: unknown}, InService, 0, Withdrawn, "no health result yet", 0},
		{"first result of a new probe is missing", Offer{Condition: unknown, Was: Announced}, InService, 0, Announced, "new probe", 0},
		{"lowered, and the probe is new", Offer{Condition: unknown, Was: Lowered}, InService, 0, Lowered, "new probe", 0},
		{"dataplane is missing", Offer{Condition: up, Was: Announced, NotReady: "dataplane not ready"}, InService, 0, Withdrawn, "dataplane not ready", 0},
		{"down, no floor", Offer{Condition: down, Was: Announced}, InService, 0, Withdrawn, "refused", 0},
		{"down, enough others", Offer{Condition: down, Was: Announced, Floor: 1, Others: 1}, InService, 0, Withdrawn, "refused", 0},
		{"down, the last", Offer{Condition: down, Was: Announced, Floor: 1}, InService, time.Hour, Lowered, "0 others announce it and 1 have to", 0},
		{"down, nobody knows", Offer{Condition: down, Was: Announced, Floor: 1, Others: -1, WithdrawAfter: time.Minute}, InService, 59 * time.Second, Lowered, "lowered before", time.Minute},
		{"down, nobody knows, late", Offer{Condition: down, Was: Lowered, Floor: 1, Others: -1, WithdrawAfter: time.Minute}, InService, time.Minute, Withdrawn, "nobody else", 0},
		{"down, nobody knows, for ever", Offer{Condition: down, Was: Lowered, Floor: 1, Others: -1}, InService, time.Hour, Lowered, "nobody knows", 0},
		{"down from the start", Offer{Condition: down, Floor: 1}, InService, 0, Withdrawn, "refused", 0},
		{"leaving", Offer{Condition: up, Was: Announced}, Leaving, 0, Lowered, "draining", 0},
		{"leaving, and down", Offer{Condition: down, Was: Announced}, Leaving, 0, Withdrawn, "refused", 0},
		{"out of the way", Offer{Condition: up, Was: Lowered}, OutOfTheWay, 0, Withdrawn, "drained", 0},
		{"out of the way, although the last", Offer{Condition: down, Was: Lowered, Floor: 3}, OutOfTheWay, 0, Withdrawn, "drained", 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			got := tt.offer.Judge(tt.stage, start.Add(tt.after))
			if got.Presence != tt.want || !strings.Contains(got.Reason, tt.reason) {
				t.Errorf("%s: %s; want %s: …%s…", got.Presence, got.Reason, tt.want, tt.reason)
			}
			if tt.until != 0 && !got.Until.Equal(start.Add(tt.until)) || tt.until == 0 && !got.Until.IsZero() {
				t.Errorf("until %s", got.Until)
			}
		})
	}
}

// TestJudgeHolds checks what has to hold of every offer.
func TestJudgeHolds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(1_000_000, 0)
		o := Offer{
			NotReady:      rapid.SampledFrom([]string{"", "", "no"}).Draw(t, "not ready"),
			Condition:     Damped{Health: Health(rapid.IntRange(0, 2).Draw(t, "health")), Since: at.Add(-time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "since")))},
			Floor:         rapid.IntRange(0, 3).Draw(t, "floor"),
			Others:        rapid.IntRange(-1, 3).Draw(t, "others"),
			WithdrawAfter: time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "after")),
			Was:           Presence(rapid.IntRange(0, 2).Draw(t, "was")),
		}
		stage := Stage(rapid.IntRange(0, 2).Draw(t, "stage"))
		r := o.Judge(stage, at)
		switch {
		case r.Reason == "" || r.Label == "":
			t.Fatalf("no reason: %+v", r)
		case r.Presence != Withdrawn && (o.NotReady != "" || stage == OutOfTheWay):
			t.Fatalf("announced what nobody serves: %+v", r)
		case r.Presence == Announced && stage != InService:
			t.Fatalf("a draining gateway attracts: %+v", r)
		case o.Was == Withdrawn && o.Condition.Health != HealthUp && r.Presence != Withdrawn:
			t.Fatalf("announced without health: %+v", r)
		case r.Label == "health" && r.Presence == Withdrawn && o.Was != Withdrawn && o.Others >= 0 && o.Others < o.Floor:
			t.Fatalf("withdrawn as one of the last: %+v", r)
		case !r.Until.IsZero() && !at.Before(r.Until):
			t.Fatalf("to be judged again in the past: %+v", r)
		}
	})
}
