package agent

import (
	"errors"
	"maps"
	"testing"
	"time"
)

// Rates are of the last seconds, divided by what targets took.
func TestAccepted(t *testing.T) {
	t.Parallel()
	var all uint64
	taken := map[uint16]uint64{}
	var failed error
	reads := 0
	a := accepted{read: func() (uint64, map[uint16]uint64, error) { reads++; return all, maps.Clone(taken), failed }}
	now := time.Unix(1795264015, 0)
	want := func(when string, host, container float64) {
		t.Helper()
		got := a.rates(now)
		if got[0] != host || got[3] != container {
			t.Errorf("%s: %v, want %v and %v", when, got, host, container)
		}
	}
	pass := func(seconds int, connections, host, container uint64) {
		for range seconds {
			a.rates(now)
			now = now.Add(time.Second)
			all += connections
			taken[0] += host
			taken[3] += container
		}
	}
	all, taken[0] = 1000, 50_000 // before the agent
	want("at first", 0, 0)
	pass(5, 40, 30, 10)
	want("for five seconds", 30, 10)
	pass(20, 100, 50, 0)
	want("one takes nothing any more", 100, 0)
	pass(20, 0, 10, 10)
	want("nothing new", 0, 0)
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
	want("the counters are gone", 0, 0)
	failed, all = nil, 10
	want("they begin again", 0, 0)
}
