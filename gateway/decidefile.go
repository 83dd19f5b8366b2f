package gateway

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

const (
	// planFile has, in the state directory, the last plan and what it was made of that no
	// agent tells again: shares go on where they were when a gateway starts again.
	planFile = "plan.json"
	// planKeeps is for how long a plan is of any use to the next process.
	planKeeps = 10 * time.Minute
)

// savedPlan is a plan, and what other sites had said.
type savedPlan struct {
	Plan      *steering.Plan
	Summaries map[string]map[string]wire.Summary // by site and service
}

// load reads what a process before decided. What other sites said then counts as heard now.
func (d *decider) load(dir, site string, now time.Time) error {
	d.dir = dir
	if err := d.loadDrain(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, planFile))
	var saved savedPlan
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("what was decided before is not known", "err", err)
		return nil
	}
	if saved.Plan != nil && now.Sub(saved.Plan.At) < planKeeps {
		d.summaries.begin(saved.Summaries, now)
	}
	d.begin(saved.Plan, site, now)
	return nil
}

// save writes what the next process is to know.
func (d *decider) save(now time.Time) {
	d.mu.Lock()
	saved, dir := savedPlan{Plan: d.plan}, d.dir
	d.mu.Unlock()
	if dir == "" {
		return
	}
	saved.Summaries = d.summaries.known(now, wire.Window)
	text, err := json.Marshal(saved)
	if err == nil {
		err = upstreams.ReplaceFile(filepath.Join(dir, planFile), text, 0o600)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && !d.lost {
		d.log.Warn("what is decided is not kept over a restart", "err", err)
	}
	d.lost = err != nil
}
