package gateway

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// savePause is until it is tried again to keep what could not be kept.
const savePause = 10 * time.Second

// rounds have the plan be of what others say, Consul or lists, and keep that for the next
// process.
type rounds struct {
	of   heard
	file string // in the state directory
	// configure has the plan be of what there is now.
	configure func() error
	wake      chan struct{}

	mu sync.Mutex // of what was heard; the rest is the loop's

	unsaved bool
	lost    bool   // the last save failed
	untold  bool   // the plan has others
	refuses string // why the plan does not have them, as it was logged
}

// heard is what others say.
type heard interface {
	// hear brings it up to date, logs what is new, and tells whether it is another now, and
	// when to hear again, if that is not when somebody says so.
	hear(now time.Time) (changed bool, again time.Time)
	// kept is what is kept of it, as JSON. The lock is held.
	kept() any
	// sayLost and sayApplied log that it is not kept, and whether the plan has it.
	sayLost(err error)
	sayApplied(err error)
}

func newRounds(of heard, file string) rounds {
	return rounds{of: of, file: file, wake: make(chan struct{}, 1)}
}

// poke has a round be made.
func (r *rounds) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// loop makes rounds until ctx ends.
func (r *rounds) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := r.round(time.Now())
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// round hears, and has the plan and the file be of that where they are not. What fails is
// logged once for each reason, and tried again.
func (r *rounds) round(now time.Time) (again time.Time) {
	changed, again := r.of.hear(now)
	r.unsaved, r.untold = r.unsaved || changed, r.untold || changed
	if r.untold {
		err, why := r.configure(), ""
		if err != nil {
			why, again = err.Error(), soonest(again, now.Add(applyPause))
		}
		if why != r.refuses {
			r.of.sayApplied(err)
		}
		r.untold, r.refuses = err != nil, why
	}
	if r.unsaved {
		err := r.save()
		if err != nil {
			again = soonest(again, now.Add(savePause))
		}
		if err != nil && !r.lost {
			r.of.sayLost(err)
		}
		r.unsaved, r.lost = err != nil, err != nil
	}
	return again
}

func (r *rounds) save() error {
	r.mu.Lock()
	text, err := json.Marshal(r.of.kept())
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return upstreams.ReplaceFile(r.file, text, 0o600)
}

// readKept reads what a process has kept as JSON.
func readKept(file string, into any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
