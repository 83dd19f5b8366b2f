package wire

import (
	"fmt"
	"time"
)

// Sealer makes the datagrams of one sender to one receiver. It is not safe for
// concurrent use, and a sender has one at a time for a receiver and a type.
type Sealer struct {
	key      uint16
	sealing  *sealing
	sender   Locator
	receiver Locator
	sequence uint64 // of the last datagram
}

// NewSealer makes a Sealer that seals with the first of the keys. Its sequence begins
// with the time now: one that takes another's place, be it for another key or after a
// restart, is made later than that one by the wall clock.
func NewSealer(keys Keys, sender, receiver Locator, now time.Time) *Sealer {
	k := keys[0]
	return &Sealer{k.ID, newSealing(k), sender, receiver, uint64(now.UnixNano())}
}

// SealPins appends a datagram with pins, of which there are 1 to [MaxPins]. Nothing is
// appended where one of them is no flow.
func (s *Sealer) SealPins(dst []byte, pins []Pin, now time.Time) ([]byte, error) {
	if len(pins) == 0 || len(pins) > MaxPins {
		return dst, fmt.Errorf("%d pins in a datagram: want 1 to %d", len(pins), MaxPins)
	}
	for i := range pins {
		if err := pins[i].check(); err != nil {
			return dst, fmt.Errorf("pin %d: %w", i, err)
		}
	}
	start := len(dst)
	dst = s.begin(dst, TypePins, now)
	for i := range pins {
		dst = pins[i].appendTo(dst)
	}
	return append(dst, s.sealing.of(dst[start:])...), nil
}

// begin appends the header of the next datagram.
func (s *Sealer) begin(dst []byte, kind Type, now time.Time) []byte {
	s.sequence++
	h := header{version, kind, s.key, s.sender, s.receiver, now.UnixMilli(), s.sequence}
	return h.appendTo(dst)
}
