package agent

import (
	"sync"
	"time"

	"github.com/razor-steering/razor/agent/segment"
)

const (
	acceptedEvery  = time.Second      // from one look at the counters to the next, at least
	acceptedWithin = 10 * time.Second // that rates are the mean of
)

// accepted measures how many connections begin at the targets of a host. Its counters are
// rather too high, by which less moves at once.
type accepted struct {
	read func() (map[uint16]segment.Accepted, error)

	mu    sync.Mutex
	looks []look // oldest first
}

// look is the counters at a time, by target.
type look struct {
	at      time.Time
	targets map[uint16]segment.Accepted
}

// rate is connections a second.
type rate struct{ own, guests float64 }

// rates are those of the last seconds, by target; none until it was looked twice.
func (a *accepted) rates(now time.Time) map[uint16]rate {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.looks); n == 0 || now.Sub(a.looks[n-1].at) >= acceptedEvery {
		targets, err := a.read()
		if err != nil {
			return nil // the counters are gone only when the endpoint is
		}
		a.looks = append(a.looks, look{now, targets})
	}
	for len(a.looks) > 2 && now.Sub(a.looks[1].at) >= acceptedWithin {
		a.looks = a.looks[1:]
	}
	first, last := a.looks[0], a.looks[len(a.looks)-1]
	past := last.at.Sub(first.at).Seconds()
	if past <= 0 {
		return nil
	}
	out := map[uint16]rate{}
	for target, is := range last.targets {
		if was, ok := first.targets[target]; ok && is.Own >= was.Own && is.Guests >= was.Guests {
			out[target] = rate{float64(is.Own-was.Own) / past, float64(is.Guests-was.Guests) / past}
		}
	}
	return out
}

// readAccepted reads the counters of the endpoint.
func (a *agent) readAccepted() (map[uint16]segment.Accepted, error) {
	targets := []uint16{segment.Host}
	for i := range a.config.Containers {
		targets = append(targets, uint16(a.config.Containers[i].Target))
	}
	out := map[uint16]segment.Accepted{}
	for _, target := range targets {
		var err error
		if out[target], err = a.endpoint.Accepted(target); err != nil {
			return nil, err
		}
	}
	return out, nil
}
