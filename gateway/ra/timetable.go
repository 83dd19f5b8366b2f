package ra

import "time"

// When advertisements are sent. The first few come faster than RFC 4861 §6.2.4 has it:
// there is one router to hear them, the first may come before its port is ready, and a
// session waits for them.
const (
	burst    = 3                      // advertisements at the start
	pause    = 500 * time.Millisecond // between those, and the least between any two
	interval = 3 * time.Second        // afterwards, and up to spread more
	spread   = time.Second
)

// timetable says when the next advertisement is due. The zero value: at once.
type timetable struct {
	next  time.Time
	last  time.Time
	count int
}

func (t *timetable) due(now time.Time) bool { return !now.Before(t.next) }

// sent is to be called with each advertisement; random is at least 0 and below 1.
func (t *timetable) sent(now time.Time, random float64) {
	t.last = now
	t.count++
	if t.count < burst {
		t.next = now.Add(pause)
		return
	}
	t.next = now.Add(interval + time.Duration(random*float64(spread)))
}

// hurry makes the next one come as soon as may be: somebody waits for it.
func (t *timetable) hurry() {
	if soon := t.last.Add(pause); soon.Before(t.next) {
		t.next = soon
	}
}
