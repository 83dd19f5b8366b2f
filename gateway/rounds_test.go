package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// hearsay is what a test has others say.
type hearsay struct {
	rounds

	value int
	is    int
	said  []string
}

func (h *hearsay) hear(time.Time) (bool, time.Time) {
	changed := h.is != h.value
	h.is = h.value
	return changed, time.Time{}
}

func (h *hearsay) kept() any { return h.is }

func (h *hearsay) sayLost(error) { h.said = append(h.said, "lost") }

func (h *hearsay) sayApplied(err error) {
	if err != nil {
		h.said = append(h.said, err.Error())
		return
	}
	h.said = append(h.said, "applied")
}

// What cannot be applied, or kept, is tried again until it is, and said once for each reason.
func TestRounds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	h := &hearsay{}
	h.rounds = newRounds(h, filepath.Join(dir, "kept.json"))
	var refused error
	plan := 0
	h.configure = func() error {
		if refused == nil {
			plan = h.is
		}
		return refused
	}
	for i, step := range []struct {
		value   int
		refused string
		dir     bool
		again   time.Duration
		plan    int
		kept    string
		said    []string
	}{
		{0, "", false, 0, 0, "", nil},
		{1, "", false, savePause, 1, "", []string{"lost"}},
		{1, "full", false, savePause, 1, "", nil}, // there is nothing to apply
		{2, "full", false, applyPause, 1, "", []string{"full"}},
		{2, "full", true, applyPause, 1, "2", nil},
		{3, "fuller", true, applyPause, 1, "3", []string{"fuller"}},
		{3, "", true, 0, 3, "3", []string{"applied"}},
		{3, "", true, 0, 3, "3", nil},
		{4, "", false, savePause, 4, "", []string{"lost"}},
		{4, "", true, 0, 4, "4", nil},
	} {
		h.value, refused, h.said = step.value, nil, nil
		if step.refused != "" {
			refused = errors.New(step.refused)
		}
		if step.dir {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		now := time.Unix(1e9, 0)
		again := h.round(now)
		kept, _ := os.ReadFile(h.file)
		want := now.Add(step.again)
		if step.again == 0 {
			want = time.Time{}
		}
		if !again.Equal(want) || plan != step.plan || string(kept) != step.kept || !slices.Equal(h.said, step.said) {
			t.Errorf("step %d: again %v, plan %d, kept %q, said %v", i, again, plan, kept, h.said)
		}
	}
}
