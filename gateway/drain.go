package gateway

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// drainFile keeps what an operator drained over restarts, in the state directory.
const drainFile = "drained"

// drainedByHand is the reason of who gave none.
const drainedByHand = "drained by hand"

// A drain is how the gateway leaves and comes back. It is pure but for the file.
type drain struct {
	config DrainConfig

	byHand  string // why an operator drained this gateway; "" if not
	byList  string // why the lists say so; "" if not
	leaving string // why the process ends; "" if not

	stage  steering.Stage
	since  time.Time // of the stage
	closed bool      // the sessions were told goodbye

	// forget is for how long resolvers may answer the addresses of the edge's pool after
	// unasked, from when on they get no new ones; 0 where nobody waits for them.
	forget  time.Duration
	unasked time.Time // zero while nameservers do not know
	hurry   bool      // neither they nor the network are waited for any longer
}

// why says why nothing is to be announced; "" when all is.
func (d *drain) why() string {
	for _, why := range []string{d.leaving, d.byHand, d.byList} {
		if why != "" {
			return why
		}
	}
	return ""
}

// done tells whether the gateway is out of the way with all said.
func (d *drain) done() bool { return d.closed }

// step moves on by what is wanted and by the time, and says what is to be done
// with the sessions, and when to come back; zero if nothing is to be waited for.
// idle says that nobody has our routes, so that there is nothing to wait for.
func (d *drain) step(now time.Time, idle bool) (begin, end bool, next time.Time) {
	if d.why() == "" {
		begin = d.closed
		if d.stage != steering.InService {
			d.stage, d.since = steering.InService, now
		}
		d.closed = false
		return begin, false, time.Time{}
	}
	if d.stage == steering.InService {
		d.stage, d.since = steering.Leaving, now
	}
	if d.stage == steering.Leaving {
		if next = d.forgotten(); now.Before(next) && !idle {
			if vips := d.since.Add(d.config.Converge); now.Before(vips) {
				next = soonest(vips, next)
			}
			return false, false, next
		}
		d.stage, d.since = steering.OutOfTheWay, now
	}
	if d.closed {
		return false, false, time.Time{}
	}
	if next = d.since.Add(d.config.Settle); now.Before(next) && !idle {
		return false, false, next
	}
	d.closed = true
	return false, true, time.Time{}
}

// forgotten is when the pool may be withdrawn. An edge whose addresses resolvers still
// answer is not out of the way before they have forgotten them; nobody else has those.
func (d *drain) forgotten() time.Time {
	converged := d.since.Add(d.config.Converge)
	switch {
	case d.hurry:
		return d.since
	case d.forget == 0:
		return converged
	}
	end := d.since.Add(d.config.Forget) // nameservers that cannot be told are not waited for for ever
	if known := d.unasked.Add(d.forget); !d.unasked.IsZero() && known.Before(end) {
		end = known
	}
	if end.Before(converged) {
		return converged
	}
	return end
}

// anycast is the stage of the prefixes that others may have too: they do not wait for
// resolvers.
func (d *drain) anycast(now time.Time) steering.Stage {
	if d.stage == steering.Leaving && !now.Before(d.since.Add(d.config.Converge)) {
		return steering.OutOfTheWay
	}
	return d.stage
}

const (
	lullFor   = 2 * time.Second  // without any, and no more are to come: as long as other sites take to notice
	lullAtEnd = 10 * time.Second // for them at the longest: agents notice a silent gateway after 7 s
)

// A lull is when answers of backends, and packets of other sites, do not come by this gateway
// any more. It is pure, and begins with the first look.
type lull struct {
	began, rose time.Time
	passed      uint64 // of them
}

// over tells whether that is so, by how many came until now. Where none ever did, none are
// waited for.
func (l *lull) over(now time.Time, passed uint64) bool {
	if l.began.IsZero() {
		l.began = now
	}
	if passed > l.passed {
		l.rose, l.passed = now, passed
	}
	return l.rose.IsZero() || now.Sub(l.rose) >= lullFor || now.Sub(l.began) >= lullAtEnd
}

// load reads what an operator drained before.
func (d *drain) load(dir string) (err error) {
	d.byHand, err = loadWhy(filepath.Join(dir, drainFile))
	return err
}

// save keeps it.
func (d *drain) save(dir string) error { return saveWhy(filepath.Join(dir, drainFile), d.byHand) }

// loadWhy is why something is drained by hand, as a file keeps it; "" if it is not.
func loadWhy(file string) (string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimSpace(string(text)), drainedByHand), nil
}

// saveWhy keeps it, and no file for "".
func saveWhy(file, why string) error {
	if why != "" {
		return upstreams.ReplaceFile(file, []byte(why+"\n"), 0o644)
	}
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
