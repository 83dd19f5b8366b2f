package gateway

import (
	"time"

	"github.com/razor-steering/razor/steering"
)

// deafPause is until it is looked again whether a gateway that nobody could reach can be.
const deafPause = time.Second

// hearing is until when a gateway knows which agents were silent. Time in which it hears
// nobody tells nothing of them: what keeps all reports away, as a drain of the gateway or a
// broken link of its own, would else have one backend after the other be dead, and their
// flows forgotten, before there are too many to believe it.
type hearing struct {
	last  time.Time // when somebody was heard
	able  time.Time // until when nobody could be, as far as known
	quiet time.Time // until then it is known who was silent

	// Of the agents that are not silent, at the last judgement:
	shortest time.Duration // interval of a report
	longest  time.Duration // time until it is silent
	due      time.Time     // when the first one is silent; zero for none

	// undecided is when it is to be looked again at the silence of some that makes nobody dead
	// yet; zero for never.
	undecided time.Time

	answer time.Time // when a gateway of another site answered an echo request, or spoke
}

// hear notes that a report has come. The time before it in which nobody was heard, though
// somebody should have been, has not passed for the others.
func (r *reports) hear(now time.Time) {
	if slack := now.Sub(r.last) - r.shortest; r.shortest > 0 && slack > 0 {
		for _, t := range r.told {
			if r.speaks(t) {
				t.at = t.at.Add(slack)
				if !t.seen.IsZero() {
					t.seen = t.seen.Add(slack)
				}
			}
		}
	}
	if r.last = now; !r.due.IsZero() && !now.Before(r.due) {
		r.poke()
	}
}

// awaits has the silence of a backend looked at again when it makes it dead, if all is as it is.
func (r *reports) awaits(b *steering.Judged, now time.Time) {
	if b.Told == nil || b.Told.SilentAt().After(r.quiet) {
		return
	}
	if left := b.DeadAt().Sub(r.quiet); left > 0 {
		r.undecided = soonest(r.undecided, now.Add(max(left, unreadPause)))
	}
}

// speaks tells whether an agent is not silent.
func (r *reports) speaks(t *told) bool { return t.silentAt().After(r.quiet) }

// listen looks who is silent, unless there are reports that were not read yet: until
// somebody was heard last, or until now where nobody was for twice as long as makes each
// of them silent, though that could be. It says when to look again; zero for never.
func (r *reports) listen(now time.Time, unread, deaf bool) time.Time {
	if deaf {
		r.able = now.Add(startGrace) // until agents have the way, should it be there now
	}
	alone := r.last
	if r.able.After(alone) {
		alone = r.able
	}
	alone = alone.Add(2 * r.longest)
	if !unread {
		if r.last.After(r.quiet) {
			r.quiet = r.last
		}
		if r.longest > 0 && !now.Before(alone) {
			r.quiet = now
		}
	}
	r.shortest, r.longest, r.due = 0, 0, time.Time{}
	for _, t := range r.told {
		if !r.speaks(t) {
			continue
		}
		if r.shortest == 0 || t.Report.Interval < r.shortest {
			r.shortest = t.Report.Interval
		}
		r.longest = max(r.longest, t.silentAt().Sub(t.at))
		r.due = soonest(r.due, t.silentAt())
	}
	switch {
	case r.due.IsZero():
		return time.Time{}
	case unread:
		return now.Add(unreadPause)
	case deaf:
		return now.Add(deafPause)
	case alone.After(r.due):
		return alone
	}
	return r.due
}
