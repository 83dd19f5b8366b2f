package consul

import (
	"log/slog"
	"testing"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// An answer of before a term is asked for anew, also one that is only stored when
// the term has begun and others were asked already, and each once.
func TestAskAgain(t *testing.T) {
	t.Parallel()
	cfg := Config{Lists: []ListConfig{{App: "web.example", Service: "web", Datacenters: []string{"east", "west"}}}}
	cfg.Defaults()
	s, err := New(cfg, upstreams.Config{Address: "127.0.0.1:1"}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	k := s.keepers[0]
	term := term{number: 1, since: time.Now()}
	old, fresh := term.since.Add(-time.Millisecond), term.since.Add(time.Millisecond)
	for i, step := range []struct {
		east, west time.Time // of the answers
		want       [2]bool   // whether they are asked for anew
	}{
		{time.Time{}, old, [2]bool{false, true}},
		{time.Time{}, old, [2]bool{false, false}},
		{old, fresh, [2]bool{true, false}},
		{old, fresh, [2]bool{false, false}},
	} {
		k.answers[0].at, k.answers[1].at = step.east, step.west
		k.step(t.Context(), term)
		for j, src := range k.sources {
			if _, anew := src.begin(t.Context()); anew != step.want[j] {
				t.Errorf("step %d: %v is asked anew: %v", i, src, anew)
			}
			src.interrupted()
		}
	}
}
