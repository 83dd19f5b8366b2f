package steering

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestEcho(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		said  string // of its agent, and of echoes: a word, an answer or a loss, in silence in capitals
		known bool
		gone  bool
	}{
		{"nothing", "", false, false},
		{"it answers", "a", true, false},
		{"it never answered", "wlLLLLLL", false, false},
		{"it answered in silence alone", "LLAALLLL", false, false},
		{"gone", "waLLL", true, true},
		{"not yet", "waLL", true, false},
		{"what was lost before the silence says nothing", "allLL", true, false},
		{"it answers again", "aLLLA", true, false},
		{"and is gone again", "aLLLALLL", true, true},
		{"its agent speaks", "aLLLw", true, false},
		{"and is silent again", "aLLLwLL", true, false},
		{"one is lost now and then", "alalallwaLL", true, false},
		{"lost between words", "awlwlwL", true, false},
		{"echoes pass no longer", "awlwlwlLLLL", false, false},
		{"and do again", "alllaLLL", true, true},
	} {
		var e Echo
		for _, c := range tt.said {
			silent := c < 'a'
			switch strings.ToLower(string(c)) {
			case "w":
				e.Spoke()
			case "a":
				e.Answered(silent)
			case "l":
				e.Unanswered(silent)
			}
		}
		if e.Known != tt.known || e.Gone() != tt.gone {
			t.Errorf("%s: after %s: known %t, gone %t", tt.name, tt.said, e.Known, e.Gone())
		}
	}
}

// A host is gone if it answered while its agent spoke, and three requests are lost since the
// agent's last word and its own last answer, all in silence.
func TestEchoProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e Echo
		known, lost, doubts := false, 0, 0
		silent := false
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"word", "answer", "loss", "silence"}).Draw(t, "step") {
			case "word":
				if lost > 0 {
					doubts = 0
				}
				silent, lost = false, 0
				e.Spoke()
			case "answer":
				known, lost, doubts = known || !silent, 0, 0
				e.Answered(silent)
			case "loss":
				if silent {
					lost++
				} else {
					doubts++
				}
				known = known && (silent || doubts < 3)
				e.Unanswered(silent)
			case "silence":
				silent = true
			}
			if want := known && lost >= 3; e.Gone() != want {
				t.Fatalf("gone %t, want %t: %+v", e.Gone(), want, e)
			}
			if e.Known != known {
				t.Fatalf("known %t, want %t", e.Known, known)
			}
		}
	})
}

// Of those who are silent, whose hosts are gone is left out, however many they are; nothing is
// forgotten for it, and the last one is kept where nobody else has the flows.
func TestJudgeGone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1795264015, 0)
	told := func(ago time.Duration, gone bool) Judged {
		return Judged{Configured: StandingActive, Weight: 1, Told: &Told{At: now.Add(-ago), Interval: time.Second, Health: HealthUp, Gone: gone}}
	}
	up, silent, gone, spoke := told(0, false), told(time.Minute, false), told(time.Minute, true), told(0, true)
	draining := gone
	draining.Configured = StandingDraining
	for _, tt := range []struct {
		name      string
		backends  []Judged
		elsewhere bool
		want      string // of Judge
		claims    string // of Claims
		failOpen  string
	}{
		{"enough others speak", []Judged{up, up, up, gone}, true, "active active active dead*", "active active active dead*", ""},
		{"all are gone", []Judged{gone, gone}, true, "draining* draining*", "draining* draining*", ""},
		{"all are silent, and one answers", []Judged{gone, silent}, true, "draining* draining", "draining* draining", ""},
		{"nobody else has the flows", []Judged{gone, gone}, false, "active active", "draining* draining*", "no backend would be left: agents are not believed"},
		{"one is left", []Judged{up, gone, gone, gone, gone}, true, "active draining* draining* draining* draining*", "active draining* draining* draining* draining*", "1 of 5 active backends report: neither silence nor health is believed, but of 4 whose hosts do not answer"},
		{"one is left, and one answers", []Judged{up, gone, gone, silent}, false, "active draining* draining* active", "active draining* draining* draining", "1 of 4 active backends report: neither silence nor health is believed, but of 2 whose hosts do not answer"},
		{"who speaks is there", []Judged{spoke, spoke}, true, "active active", "active active", ""},
		{"a gone one that an operator drained", []Judged{up, draining}, true, "active draining*", "active draining*", ""},
	} {
		j := Judge(tt.backends, 0.5, tt.elsewhere, now)
		if got := inWords(j.Findings); got != tt.want || j.FailOpen != tt.failOpen {
			t.Errorf("%s: %s, %q; want %s, %q", tt.name, got, j.FailOpen, tt.want, tt.failOpen)
		}
		if got := inWords(Claims(tt.backends, 0.5, now)); got != tt.claims {
			t.Errorf("%s: claims %s; want %s", tt.name, got, tt.claims)
		}
	}
	const want = "its agent is silent for more than 3s, and its host does not answer"
	if got := Claims([]Judged{gone}, 0.5, now)[0].Reason; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
}

// inWords are standings, with a star for who is gone.
func inWords(all []Finding) string {
	var words []string
	for _, v := range all {
		word := string(v.Standing)
		if v.Gone {
			word += "*"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}
