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

// accepted measures how many new connections the targets of a host take, by the packets
// that end a handshake. What clients send right behind that may count as well: rates are
// rather too high, by which less moves at once.
type accepted struct {
	// read has the count of all targets, and how many packets each of them took, by which
	// the former is divided.
	read func() (all uint64, taken map[uint16]uint64, err error)

	mu    sync.Mutex
	looks []look // oldest first
}

// look is the counters at a time.
type look struct {
	at    time.Time
	all   uint64
	taken map[uint16]uint64
}

// rates are new connections a second, by target; none until it was looked twice.
func (a *accepted) rates(now time.Time) map[uint16]float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.looks); n == 0 || now.Sub(a.looks[n-1].at) >= acceptedEvery {
		all, taken, err := a.read()
		if err != nil {
			return nil // the counters are gone only when the endpoint is
		}
		a.looks = append(a.looks, look{now, all, taken})
	}
	for len(a.looks) > 2 && now.Sub(a.looks[1].at) >= acceptedWithin {
		a.looks = a.looks[1:]
	}
	first, last := a.looks[0], a.looks[len(a.looks)-1]
	past := last.at.Sub(first.at).Seconds()
	if past <= 0 || last.all < first.all {
		return nil
	}
	sum := 0.0
	parts := map[uint16]float64{}
	for target, n := range last.taken {
		if n > first.taken[target] {
			parts[target] = float64(n - first.taken[target])
			sum += parts[target]
		}
	}
	for target := range parts {
		parts[target] *= float64(last.all-first.all) / past / sum
	}
	return parts
}

// readAccepted reads the counters of the endpoint.
func (a *agent) readAccepted() (all uint64, taken map[uint16]uint64, err error) {
	packets, err := a.endpoint.Packets()
	if err != nil {
		return 0, nil, err
	}
	taken = map[uint16]uint64{}
	targets := []uint16{segment.Host}
	for i := range a.config.Containers {
		targets = append(targets, uint16(a.config.Containers[i].Target))
	}
	for _, target := range targets {
		h, err := a.endpoint.Handled(target)
		if err != nil {
			return 0, nil, err
		}
		taken[target] = h.Taken
	}
	return packets[segment.TakenRequest] + packets[segment.TakenCookie], taken, nil
}
