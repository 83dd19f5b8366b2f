package steering

import (
	"fmt"
	"math"
	"time"
)

// Level is how loaded something is.
type Level uint8

// The levels. From LevelWarning on new flows had better go elsewhere.
const (
	LevelNormal Level = 1 + iota
	LevelWarning
	LevelCritical
)

var levelWords = [...]string{"unknown", "normal", "warning", "critical"}

// String is the level in one word.
func (l Level) String() string {
	if l > LevelCritical {
		l = 0
	}
	return levelWords[l]
}

// Leveling says how measurements of a load make a level. Loads are shares of a
// capacity: 1 is all of it, and more is possible.
type Leveling struct {
	Warning  float64       // load from which on the level is LevelWarning
	Critical float64       // load from which on it is LevelCritical; not below Warning
	Slack    float64       // how far below that a load is which ends the level
	Smooth   time.Duration // time constant of the mean; 0 takes loads as they are
	Hold     time.Duration // the shortest time from a change until a lower level
	Failures int           // measurements in a row that must fail for LevelWarning; at least 1
}

// Leveled is what a Leveler has made of the measurements so far.
type Leveled struct {
	Level  Level
	Load   float64   // the mean
	Since  time.Time // of the last change of the level, or the start
	Reason string    // of the last change; empty before the first
}

// Leveler makes a level of single measurements of a load, of which it takes the
// exponential mean. The level rises as soon as the mean reaches a threshold, and
// falls when the mean is below by the slack and the level has lasted for the hold.
//
// Whose load cannot be measured again and again is taken for loaded, as what
// answers its measurement late often is, but not for critical, or no longer after the
// hold.
//
// What it decides depends on the measurements and their times alone. A time before
// that of the last one counts as that. It is not safe for concurrent use.
type Leveler struct {
	rules  Leveling
	now    Leveled
	last   time.Time // of the last measurement that did not fail; zero for none
	failed int       // measurements in a row
}

// NewLeveler makes a leveler that begins with a level at start.
func NewLeveler(rules Leveling, level Level, start time.Time) *Leveler {
	rules.Failures = max(rules.Failures, 1)
	return &Leveler{rules: rules, now: Leveled{Level: level, Since: start}}
}

// Leveled is the level as of the last measurement.
func (l *Leveler) Leveled() Leveled { return l.now }

// Load takes one measurement, and tells whether the level is another now. A load that
// is none, such as one below 0, is a failure.
func (l *Leveler) Load(at time.Time, load float64) bool {
	if !(load >= 0) || math.IsInf(load, 1) {
		return l.Failed(at, fmt.Sprintf("%v is no load", load))
	}
	l.mean(at, load)
	l.failed = 0
	to := l.level()
	switch {
	case to > l.now.Level:
		return l.turn(at, to, fmt.Sprintf("load %.3g, %v from %.3g", l.now.Load, to, l.threshold(to)))
	case to < l.now.Level && at.Sub(l.now.Since) >= l.rules.Hold:
		return l.turn(at, to, fmt.Sprintf("load %.3g, below %.3g", l.now.Load, l.threshold(to+1)-l.rules.Slack))
	}
	return false
}

// Failed takes a measurement that failed, and why, and tells whether the level is
// another now.
func (l *Leveler) Failed(at time.Time, why string) bool {
	l.last = time.Time{} // a mean of what was before would be old
	l.failed++
	held := l.now.Level < LevelWarning || at.Sub(l.now.Since) >= l.rules.Hold
	if l.failed < l.rules.Failures || l.now.Level == LevelWarning || !held {
		return false
	}
	return l.turn(at, LevelWarning, fmt.Sprintf("failed %d times: %s", l.failed, why))
}

// mean has a load in the mean, by the time since the last one.
func (l *Leveler) mean(at time.Time, load float64) {
	share := 1.0
	if !l.last.IsZero() && l.rules.Smooth > 0 {
		share = -math.Expm1(-float64(max(0, at.Sub(l.last))) / float64(l.rules.Smooth))
	}
	l.now.Load += share * (load - l.now.Load)
	if l.last.Before(at) {
		l.last = at
	}
}

// level is the one that the mean makes of the level now.
func (l *Leveler) level() Level {
	for _, to := range []Level{LevelCritical, LevelWarning} {
		from := l.threshold(to)
		if to <= l.now.Level {
			from -= l.rules.Slack
		}
		if l.now.Load >= from {
			return to
		}
	}
	return LevelNormal
}

func (l *Leveler) threshold(of Level) float64 {
	if of == LevelCritical {
		return l.rules.Critical
	}
	return l.rules.Warning
}

func (l *Leveler) turn(at time.Time, to Level, reason string) bool {
	l.now.Level, l.now.Since, l.now.Reason = to, at, reason
	return true
}
