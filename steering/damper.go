package steering

import (
	"fmt"
	"slices"
	"time"
)

// Health is the damped result of probes.
type Health uint8

// A health is unknown until enough measurements agree for the first time.
const (
	HealthUnknown Health = iota
	HealthUp
	HealthDown
)

var healthWords = [...]string{"unknown", "up", "down"}

// String is the health in one word.
func (h Health) String() string { return healthWords[h] }

// MarshalText is the health in one word.
func (h Health) MarshalText() ([]byte, error) {
	if h > HealthDown {
		return nil, fmt.Errorf("health %d is not unknown, up or down", uint8(h))
	}
	return []byte(healthWords[h]), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *Health) UnmarshalText(text []byte) error {
	i := slices.Index(healthWords[:], string(text))
	if i < 0 {
		return fmt.Errorf("health %q is not unknown, up or down", text)
	}
	*h = Health(i)
	return nil
}

// Damping says how measurements make a health: by rows of them, or by a window.
type Damping struct {
	Rise int // measurements in a row that must pass for up; at least 1
	Fall int // measurements in a row that must fail for down; at least 1

	Window    int // the last measurements that count, instead of rows; 0 is none, MaxWindow the most
	Threshold int // of them that must pass for up, 1 to Window
	Initial   int // of them that count as passed at the start, 0 to Window

	HoldDown time.Duration // the shortest time from up→down until it may be up again; 0 is none
	Lease    time.Duration // without a measurement for so long it is down; 0 never ends
}

// holdDoublings bounds a hold-down: it lasts HoldDown × 32 at most.
const holdDoublings = 5

// Damped is what a Damper has made of the measurements so far.
type Damped struct {
	Health    Health
	Since     time.Time // of the last change, or the start
	Reason    string    // of that; empty while it is unknown
	HeldUntil time.Time // while down after up: it may not be up before
}

// Damper makes a health of single measurements. An unknown health is up after
// Rise measurements in a row that passed, or down after Fall that failed; from
// then on it changes by the same numbers, and down again whenever there was no
// measurement for the time of the lease: a dead checker is not a healthy service.
//
// With a window it is up while at least Threshold of the last Window measurements
// passed, and else down: one that fails now and then is up. At the start Initial of
// them count as passed, and the others as nothing: it is up after Threshold - Initial
// measurements that pass, at once if that is none, and down after Window - Threshold + 1
// that fail. After a lease that ended there is nothing in the window.
//
// Against flapping a service that was up and goes down is held down: the first
// time for HoldDown, and each further time for twice as long, up to 32 times
// HoldDown (the longest hold). Measurements count meanwhile, so that the first
// one after the hold can make it up. Each longest hold that it stays up without a
// break takes one doubling back. Within any time T there are thus no more than
// T / (longest hold) + 6 changes from up to down. The idea is that of RFC 2439
// (penalty, half-life, longest suppression), in whole steps, so that an operator
// can tell the next hold in advance.
//
// What it decides depends on the measurements and their times alone, not on how
// often it is asked. A time before that of the last measurement counts as that
// one. It is not safe for concurrent use.
type Damper struct {
	rules     Damping
	now       Damped
	heard     time.Time // the last measurement, or the start
	passed    bool      // the last measurement
	row       int       // measurements in a row with that result
	window    window
	doublings int // of HoldDown, in the next hold
}

// NewDamper makes a damper whose health is unknown, unless Initial makes it up, and
// whose lease begins at start. HoldDown is below 9 years, or 32 times it would be no
// Duration.
func NewDamper(rules Damping, start time.Time) *Damper {
	rules.Rise, rules.Fall = max(rules.Rise, 1), max(rules.Fall, 1)
	d := &Damper{rules: rules, now: Damped{Since: start}, heard: start}
	if rules.Window > 0 {
		d.window = newWindow(rules.Window, rules.Threshold, rules.Initial)
		if d.window.up() {
			d.turn(start, HealthUp, d.found())
		}
	}
	return d
}

// Damped is the health as of the last call of Result or Expire.
func (d *Damper) Damped() Damped { return d.now }

// Window is the window of the last measurements as "6/8 ++-+++-+": how many passed, and
// which, the newest last, with a dot for each that there was not yet. It is empty where
// rows count.
func (d *Damper) Window() string {
	if d.rules.Window == 0 {
		return ""
	}
	return d.window.String()
}

// Result takes one measurement that ended at a time, with what failed if it did,
// and tells whether the health is another now. It expires the lease first: call
// Expire before to learn of that change on its own.
func (d *Damper) Result(at time.Time, passed bool, failure string) bool {
	expired := d.Expire(at)
	if at.Before(d.heard) {
		at = d.heard
	}
	d.heard = at
	if passed != d.passed {
		d.passed, d.row = passed, 0
	}
	d.row++
	d.window.add(passed)
	up, down := d.counts()
	switch {
	case up && d.now.Health != HealthUp && !at.Before(d.now.HeldUntil):
		d.turn(at, HealthUp, d.found())
	case down && d.now.Health != HealthDown:
		d.turn(at, HealthDown, d.found()+": "+failure)
	default:
		return expired
	}
	return true
}

// counts tells whether there are enough measurements for up, or for down.
func (d *Damper) counts() (up, down bool) {
	if d.rules.Window > 0 {
		return d.window.up(), d.window.down()
	}
	return d.passed && d.row >= d.rules.Rise, !d.passed && d.row >= d.rules.Fall
}

// Expire makes the health down if the lease has ended by now, as of when it
// ended, and tells whether that changed it.
func (d *Damper) Expire(now time.Time) bool {
	if d.rules.Lease == 0 || now.Before(d.LeaseEnd()) {
		return false
	}
	d.row = 0
	d.window.clear()
	if d.now.Health == HealthDown {
		return false
	}
	d.turn(d.LeaseEnd(), HealthDown, fmt.Sprintf("no result for %v", d.rules.Lease))
	return true
}

// LeaseEnd is when the lease ends, or ended, without a further measurement.
func (d *Damper) LeaseEnd() time.Time { return d.heard.Add(d.rules.Lease) }

func (d *Damper) turn(at time.Time, to Health, reason string) {
	var held time.Time
	if d.now.Health == HealthUp {
		held = at.Add(d.hold(at))
	}
	d.now = Damped{to, at, reason, held}
}

// hold is how long a service that was up until a time is held down.
func (d *Damper) hold(at time.Time) time.Duration {
	if d.rules.HoldDown == 0 {
		return 0
	}
	quiet := at.Sub(d.now.Since) / (d.rules.HoldDown << holdDoublings)
	d.doublings -= min(d.doublings, int(quiet))
	hold := d.rules.HoldDown << d.doublings
	d.doublings = min(d.doublings+1, holdDoublings)
	return hold
}

// found is what the measurements were, in words.
func (d *Damper) found() string {
	if d.rules.Window > 0 {
		return d.window.count() + " passed"
	}
	word := "failed"
	if d.passed {
		word = "passed"
	}
	if d.row == 1 {
		return word
	}
	return fmt.Sprintf("%s %d times", word, d.row)
}
