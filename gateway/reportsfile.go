package gateway

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

// reportsFile has, in the state directory, what agents said: a gateway that starts would
// take a backend whose agent is gone for one whose agent never spoke.
const reportsFile = "reports.json"

// savedReport is what an agent said of a target, and what was made of it.
type savedReport struct {
	Report wire.Report
	Silent bool
	Ahead  time.Duration                `json:",omitempty"` // its clock, as in told
	Was    map[string]steering.Standing // by service
	Echo   steering.Echo                // of its host
}

// load reads what a process before has heard. Who was silent then is so until it speaks.
func (r *reports) load(file string, now time.Time) {
	r.file, r.last, r.quiet = file, now, now
	text, err := os.ReadFile(file)
	var saved map[netip.Addr]savedReport
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("what agents said before is not known", "err", err)
		return
	}
	for sid, s := range saved {
		t := &told{Report: s.Report, at: now, ahead: min(max(-wire.Window, s.Ahead), wire.Window)}
		if s.Silent {
			t.at = time.Time{}
		}
		r.told[sid] = t
		r.hosts[wire.LocatorOf(sid)] = &asked{Echo: s.Echo}
		for service, was := range s.Was {
			of := r.judged[service]
			if of.findings == nil {
				of.findings = map[netip.Addr]steering.Finding{}
			}
			of.findings[sid] = steering.Finding{Claimed: was, Standing: was}
			r.judged[service] = of
		}
	}
}

// save writes what the next process is to know, where that is another.
func (r *reports) save() {
	r.mu.Lock()
	moved := r.moved
	r.moved = false
	defer func() {
		if moved {
			r.decider.save(time.Now())
		}
	}()
	if !r.unsaved || r.file == "" {
		r.mu.Unlock()
		return
	}
	r.unsaved = false
	saved := map[netip.Addr]savedReport{}
	for sid, t := range r.told {
		s := savedReport{Report: t.Report, Silent: !r.speaks(t), Ahead: t.ahead, Was: map[string]steering.Standing{}}
		if a := r.hosts[wire.LocatorOf(sid)]; a != nil {
			s.Echo = a.Echo
		}
		for service, j := range r.judged {
			if f, ok := j.findings[sid]; ok {
				s.Was[service] = f.Claimed
			}
		}
		saved[sid] = s
	}
	r.mu.Unlock()
	text, err := json.Marshal(saved)
	if err == nil {
		err = upstreams.ReplaceFile(r.file, text, 0o600)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.lost {
		r.log.Warn("what agents said is not kept over a restart", "err", err)
	}
	r.lost = err != nil
	r.unsaved = r.unsaved || r.lost
}
