package agent

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/razor-steering/razor/agent/segment"
)

// Rates are of the last seconds, of each target.
func TestAccepted(t *testing.T) {
	t.Parallel()
	counters := map[uint16]segment.Accepted{0: {Own: 1000, Guests: 50}, 3: {}} // before the agent
	var failed error
	reads := 0
	a := accepted{read: func() (map[uint16]segment.Accepted, error) { reads++; return maps.Clone(counters), failed }}
	now := time.Unix(1795264015, 0)
	want := func(when string, host, container rate) {
		t.Helper()
		got := a.rates(now)
		if got[0] != host || got[3] != container {
			t.Errorf("%s: %v, want %v and %v", when, got, host, container)
		}
	}
	pass := func(seconds int, host, container segment.Accepted) {
		for range seconds {
			a.rates(now)
			now = now.Add(time.Second)
			for target, more := range map[uint16]segment.Accepted{0: host, 3: container} {
				c := counters[target]
				counters[target] = segment.Accepted{Own: c.Own + more.Own, Guests: c.Guests + more.Guests}
			}
		}
	}
	want("at first", rate{}, rate{})
	pass(5, segment.Accepted{Own: 30, Guests: 2}, segment.Accepted{Own: 10})
	want("for five seconds", rate{30, 2}, rate{10, 0})
	pass(20, segment.Accepted{Own: 100}, segment.Accepted{Guests: 7})
	want("others", rate{100, 0}, rate{0, 7})
	pass(20, segment.Accepted{}, segment.Accepted{})
	want("nothing new", rate{}, rate{})
	before := reads
	for range 5 {
		now = now.Add(100 * time.Millisecond)
		a.rates(now)
	}
	if reads > before+1 {
		t.Errorf("read %d times within half a second", reads-before)
	}
	failed = errors.New("gone")
	now = now.Add(time.Minute)
	want("the counters are gone", rate{}, rate{})
	failed, counters[0] = nil, segment.Accepted{Own: 1}
	want("they begin again", rate{}, rate{})
}
