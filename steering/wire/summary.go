package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/razor-steering/razor/steering"
)

// ServiceID is the name of a service as summaries have it: gateways make it of the name and
// a secret that all sites share.
type ServiceID [8]byte

// Summary is what the gateway that decides at a site says of a service there to those of
// other sites: [steering.SiteSummary]. It stands in the place of what was said before.
type Summary struct {
	Service  ServiceID
	Capacity float64 // of the backends that get new flows
	Load     float64 // on these, in the unit of Capacity
	Healthy  bool
	Drained  bool
	Loaded   bool
}

// Where the parts of summaries are: see the package's text.
const (
	atSummarySequence = 8
	atSummaries       = 16

	atSummaryCapacity = 8
	atSummaryLoad     = 16
	atSummaryState    = 24
	summaryBytes      = 25

	summaryHealthy, summaryDrained, summaryLoaded = 1, 2, 4
)

// MaxSummaries is how many summaries a datagram can have.
const MaxSummaries = (MaxDatagram - atBody - sealBytes - atSummaries) / summaryBytes

// check is an error where nothing can be as the summary says.
func (s *Summary) check() error {
	switch {
	case !isFigure(s.Capacity):
		return fmt.Errorf("capacity %v: want 0 to %g", s.Capacity, mostLoad)
	case !isFigure(s.Load):
		return fmt.Errorf("load %v: want 0 to %g", s.Load, mostLoad)
	}
	return nil
}

func (s *Summary) appendTo(dst []byte) []byte {
	var state byte
	if s.Healthy {
		state |= summaryHealthy
	}
	if s.Drained {
		state |= summaryDrained
	}
	if s.Loaded {
		state |= summaryLoaded
	}
	dst = append(dst, s.Service[:]...)
	dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(s.Capacity))
	dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(s.Load))
	return append(dst, state)
}

// summaryOf reads the bytes of one summary.
func summaryOf(b []byte) (Summary, error) {
	state := b[atSummaryState]
	s := Summary{
		Service:  ServiceID(b[:atSummaryCapacity]),
		Capacity: math.Float64frombits(binary.BigEndian.Uint64(b[atSummaryCapacity:])),
		Load:     math.Float64frombits(binary.BigEndian.Uint64(b[atSummaryLoad:])),
		Healthy:  state&summaryHealthy != 0, Drained: state&summaryDrained != 0, Loaded: state&summaryLoaded != 0,
	}
	if state&^(summaryHealthy|summaryDrained|summaryLoaded) != 0 || s.check() != nil {
		return Summary{}, Malformed
	}
	return s, nil
}

// Summaries are those of a message, all or none, with the number of the plan that they
// are of. The error is [Malformed].
func (m Message) Summaries() (plan steering.PlanNumber, all []Summary, err error) {
	if m.Type != TypeSummaries || len(m.Body) <= atSummaries || (len(m.Body)-atSummaries)%summaryBytes != 0 {
		return plan, nil, Malformed
	}
	for b := m.Body[atSummaries:]; len(b) > 0; b = b[summaryBytes:] {
		s, err := summaryOf(b)
		if err != nil {
			return plan, nil, err
		}
		all = append(all, s)
	}
	plan = steering.PlanNumber{Term: binary.BigEndian.Uint64(m.Body), Sequence: binary.BigEndian.Uint64(m.Body[atSummarySequence:])}
	return plan, all, nil
}

// SealSummaries appends a datagram with as many of the summaries of a plan as it has room
// for, of which there is at least one, and returns the others. Nothing is appended where
// one of those can be of nothing.
func (s *Sealer) SealSummaries(dst []byte, plan steering.PlanNumber, all []Summary, now time.Time) (datagram []byte, others []Summary, err error) {
	if len(all) == 0 {
		return dst, all, errors.New("0 summaries: want 1 or more")
	}
	n := min(len(all), MaxSummaries)
	for i := range all[:n] {
		if err := all[i].check(); err != nil {
			return dst, all, fmt.Errorf("summary %d: %w", i, err)
		}
	}
	start := len(dst)
	dst = s.begin(dst, TypeSummaries, now)
	dst = binary.BigEndian.AppendUint64(dst, plan.Term)
	dst = binary.BigEndian.AppendUint64(dst, plan.Sequence)
	for i := range all[:n] {
		dst = all[i].appendTo(dst)
	}
	return append(dst, s.sealing.of(dst[start:])...), all[n:], nil
}
