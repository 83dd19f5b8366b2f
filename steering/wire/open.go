package wire

import (
	"crypto/hmac"
	"errors"
	"net/netip"
	"time"
)

// Limits bounds what an [Opener] takes. Rates are datagrams a second, and as many may
// come at once; they count what would have been taken, so that a stranger cannot use
// up what is there for agents.
type Limits struct {
	Senders int // remembered at a time; at least 1
	Sender  int // rate of one sender
	Total   int // rate of all
}

// Opener tells the datagrams of agents and gateways from others. It is not safe for concurrent use.
type Opener struct {
	receiver  Locator
	keys      map[uint16]*sealing
	senders   *senders // of pins
	reports   *senders // nil takes none
	summaries *senders // nil takes none
	start     int64    // milliseconds since 1970
}

// NewOpener makes an Opener of the receiver with a locator, as of now. It takes pins,
// within limits.
func NewOpener(receiver Locator, keys Keys, limits Limits, now time.Time) *Opener {
	o := &Opener{receiver: receiver, senders: newSenders(limits), start: now.UnixMilli()}
	o.SetKeys(keys)
	return o
}

// TakeReports has reports taken as well, within limits of their own: neither kind keeps
// the other out.
func (o *Opener) TakeReports(limits Limits) { o.reports = newSenders(limits) }

// TakeSummaries is TakeReports for summaries.
func (o *Opener) TakeSummaries(limits Limits) { o.summaries = newSenders(limits) }

// SetKeys replaces the keys that are accepted. What was taken stays remembered.
func (o *Opener) SetKeys(keys Keys) {
	o.keys = make(map[uint16]*sealing, len(keys))
	for _, k := range keys {
		o.keys[k.ID] = newSealing(k)
	}
}

// Open takes a datagram that came from an address, or refuses it. The seal is looked at
// before anything is believed or remembered. The error is a [Refusal]. The message is in
// the memory of the datagram. Of a datagram that is Stale, Early or Repeated it has the
// sender and the time alone, as that much is proved: the sender sealed it for this receiver.
func (o *Opener) Open(datagram []byte, from netip.Addr, now time.Time) (Message, error) {
	if len(datagram) < atBody+sealBytes || len(datagram) > MaxDatagram {
		return Message{}, Malformed
	}
	h := headerOf(datagram)
	if h.version != version {
		return Message{}, Version
	}
	k := o.keys[h.key]
	if k == nil {
		return Message{}, UnknownKey
	}
	end := len(datagram) - sealBytes
	if !hmac.Equal(k.of(datagram[:end]), datagram[end:]) {
		return Message{}, Forged
	}
	err := o.check(&h, from, now.UnixMilli())
	if err == nil {
		err = o.of(h.kind).take(h.sender, h.sequence, h.sent, now.UnixMilli())
	}
	switch {
	case Mistimed(err):
		return Message{Sender: h.sender, Sent: time.UnixMilli(h.sent)}, err
	case err != nil:
		return Message{}, err
	}
	return Message{h.kind, h.sender, time.UnixMilli(h.sent), h.sequence, datagram[atBody:end]}, nil
}

// Mistimed tells whether an error of [Opener.Open] is of a datagram that its sender sealed,
// and that is not for now: the clock of one of the two is wrong or was set back, or somebody
// sends again what was sent before.
func Mistimed(err error) bool {
	return errors.Is(err, Stale) || errors.Is(err, Early) || errors.Is(err, Repeated)
}

// of is what is remembered of the senders of a type, nil where it is not taken.
func (o *Opener) of(kind Type) *senders {
	switch kind {
	case TypePins:
		return o.senders
	case TypeReports:
		return o.reports
	case TypeSummaries:
		return o.summaries
	}
	return nil
}

// check is an error where what a known key sealed is not for here and now.
func (o *Opener) check(h *header, from netip.Addr, now int64) error {
	switch {
	case o.of(h.kind) == nil:
		return UnknownType
	case h.receiver != o.receiver:
		return Misdirected
	case LocatorOf(from) != h.sender || h.sender == Locator{}:
		return Impostor
	case h.sent < now-window || h.sent < o.start:
		return Stale
	case h.sent > now+window:
		return Early
	}
	return nil
}

// window is Window in milliseconds.
const window = int64(Window / time.Millisecond)
