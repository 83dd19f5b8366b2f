package steering

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limit is a number of members, or a share of them.
type Limit struct {
	number int
	share  float64 // 0 where a number is given
}

// ParseLimit reads "50%" or "20". A limit is above 0; a share is at most 100 %.
func ParseLimit(text string) (Limit, error) {
	if digits, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(p > 0 && p <= 100) {
			return Limit{}, errors.New("not a share")
		}
		return Limit{share: p / 100}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return Limit{}, errors.New("not a number or share")
	}
	return Limit{number: n}, nil
}

// Of is the limit for a list of n members, in whole members, rounded up.
func (l Limit) Of(n int) int {
	if l.share == 0 {
		return l.number
	}
	return int(math.Ceil(l.share*float64(n) - 1e-9)) // 0.07 × 100 is 7.000000000000001
}

const (
	// baselineWindow is how long a guard remembers how long a list was.
	baselineWindow = time.Hour
	churnWindow    = time.Minute
	// churnLeast is the least that a share allows: in a short list everything is a
	// large one, and there the floor is guard enough.
	churnLeast = 10
)

// Guard decides how much of what a source of truth takes out of a list is
// believed: a mistake there shall not empty the list here. Members are counted as
// long as they serve (their weight is not 0). The zero value has no limits set
// and holds nothing below one member. It is not safe for concurrent use.
type Guard struct {
	Floor Limit // members that stay, of the most that the list had within an hour
	Churn Limit // members that may leave or change within a minute, of the same; 10 at least of a share

	seen  []tally // lengths of the list, falling, the older first
	taken []tally // members taken or changed within the last minute
	held  bool    // the last decision kept members that should have left
}

// tally is a number since a time, or at it.
type tally struct {
	at time.Time
	n  int
}

// Change is what a new list would do to the old one, in numbers of members.
type Change struct {
	Serving  int // serve now
	Wanted   int // would serve after all of it
	Losing   int // serve now, and would not
	Changing int // would serve on, with other attributes
}

// Hold is why a change is not let through as a whole.
type Hold uint8

// The reasons of a guard.
const (
	HoldNone  Hold = iota
	HoldEmpty      // nothing that serves would be left: nothing is changed
	HoldFloor      // fewer than the floor would be left
	HoldChurn      // too much within a minute; the rest follows by itself
)

var holdWords = [...]string{"", "empty", "floor", "churn"}

// String is the reason in one word, empty for HoldNone.
func (h Hold) String() string { return holdWords[h] }

// Verdict is how much of a change may be made now.
type Verdict struct {
	Lose     int           // of those that would leave
	Change   int           // of those that would change
	Hold     Hold          // why it is not all
	Baseline int           // members that the limits are a share of
	Floor    int           // members that have to stay
	Again    time.Duration // after which the churn limit lets more through; 0 where it is not in the way
}

// Decide is the verdict on a change at a time.
func (g *Guard) Decide(now time.Time, c Change) Verdict {
	g.forget(now)
	v := Verdict{Lose: c.Losing, Change: c.Changing, Baseline: max(g.Baseline(), c.Serving)}
	v.Floor = min(max(g.Floor.Of(v.Baseline), 1), v.Baseline)
	switch {
	case c.Wanted == 0 && c.Serving > 0:
		v.Lose, v.Change, v.Hold = 0, 0, HoldEmpty
	case c.Wanted < v.Floor && c.Losing > 0:
		v.Lose, v.Hold = max(0, c.Losing-(v.Floor-c.Wanted)), HoldFloor
	}
	g.held = v.Hold != HoldNone
	g.churn(now, &v)
	return v
}

// churn cuts a verdict down to what is left of the minute's limit. Who leaves goes
// before who changes.
func (g *Guard) churn(now time.Time, v *Verdict) {
	if g.Churn == (Limit{}) || v.Lose+v.Change == 0 {
		return
	}
	left := g.Churn.Of(v.Baseline)
	if g.Churn.share > 0 {
		left = max(left, churnLeast)
	}
	left = max(0, left-g.Taken(now))
	if v.Lose+v.Change <= left {
		return
	}
	v.Lose = min(v.Lose, left)
	v.Change = min(v.Change, left-v.Lose)
	if v.Hold == HoldNone {
		v.Hold = HoldChurn
	}
	v.Again = churnWindow
	if len(g.taken) > 0 {
		v.Again -= now.Sub(g.taken[0].at)
	}
}

// Took tells the guard that members left or were changed.
func (g *Guard) Took(now time.Time, n int) {
	if n > 0 {
		g.taken = append(g.taken, tally{now, n})
	}
}

// Serves tells the guard how many members serve.
func (g *Guard) Serves(now time.Time, n int) {
	for len(g.seen) > 0 && g.seen[len(g.seen)-1].n < n {
		g.seen = g.seen[:len(g.seen)-1]
	}
	if len(g.seen) == 0 || g.seen[len(g.seen)-1].n > n {
		g.seen = append(g.seen, tally{now, n})
	}
}

// Accepted tells the guard that a list of a length is right, whatever it was.
func (g *Guard) Accepted(now time.Time, serving int) {
	g.seen, g.taken, g.held = []tally{{now, serving}}, nil, false
}

// Restore gives a guard what another one knew when it changed the list last: its
// baseline, what it took within a minute, the members that serve since, and whether
// some are held. What the guard took itself it does not forget.
func (g *Guard) Restore(at time.Time, baseline, taken, serving int, held bool) {
	g.seen, g.held = nil, held
	g.Serves(at, max(baseline, serving))
	g.Serves(at, serving)
	if more := taken - g.Taken(at); more > 0 {
		g.taken = slices.Insert(g.taken, 0, tally{at, more})
	}
}

// Taken is how many members left or changed within the minute before now.
func (g *Guard) Taken(now time.Time) int {
	n := 0
	for _, t := range g.taken {
		if now.Sub(t.at) < churnWindow {
			n += t.n
		}
	}
	return n
}

// Baseline is the most members that the list had within the window.
func (g *Guard) Baseline() int {
	if len(g.seen) == 0 {
		return 0
	}
	return g.seen[0].n
}

// forget drops what is too old. While members are held the baseline stays: else
// the floor of a held list would sink from hour to hour.
func (g *Guard) forget(now time.Time) {
	for !g.held && len(g.seen) > 1 && now.Sub(g.seen[1].at) > baselineWindow {
		g.seen = g.seen[1:]
	}
	for len(g.taken) > 0 && now.Sub(g.taken[0].at) >= churnWindow {
		g.taken = g.taken[1:]
	}
}
