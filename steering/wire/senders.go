package wire

import "container/list"

// senders is what is remembered of those whose datagrams were taken. Times are
// milliseconds since 1970.
type senders struct {
	limits Limits
	known  map[Locator]*list.Element
	order  list.List // of *sender; who was heard last is at the back
	total  bucket
}

func newSenders(limits Limits) *senders {
	return &senders{limits: limits, known: make(map[Locator]*list.Element), total: newBucket(limits.Total)}
}

// take remembers a datagram of a sender, or refuses it and remembers nothing.
func (t *senders) take(who Locator, sequence uint64, sent, now int64) error {
	e := t.known[who]
	if e == nil {
		return t.welcome(who, sequence, sent, now)
	}
	s := e.Value.(*sender)
	switch {
	case s.repeats(sequence, now):
		return Repeated
	case !s.allowance.ready(t.limits.Sender, now):
		return SenderLimit
	case !t.total.ready(t.limits.Total, now):
		return TotalLimit
	}
	t.total.left--
	s.take(sequence, sent, now)
	t.order.MoveToBack(e)
	return nil
}

// welcome is take for a sender that is not known.
func (t *senders) welcome(who Locator, sequence uint64, sent, now int64) error {
	full := len(t.known) >= max(t.limits.Senders, 1)
	if full && !t.oldest().over(now) {
		return Crowded
	}
	s := &sender{locator: who, allowance: newBucket(t.limits.Sender)}
	switch {
	case !s.allowance.ready(t.limits.Sender, now):
		return SenderLimit
	case !t.total.ready(t.limits.Total, now):
		return TotalLimit
	}
	if full {
		delete(t.known, t.oldest().locator)
		t.order.Remove(t.order.Front())
	}
	t.total.left--
	s.take(sequence, sent, now)
	t.known[who] = t.order.PushBack(s)
	return nil
}

// oldest is who was heard least lately.
func (t *senders) oldest() *sender { return t.order.Front().Value.(*sender) }

// sender is what is remembered of one: its newest sequence number, and which of the 64
// up to it were taken (RFC 4303 §3.4.3). A sender has one socket, and datagrams overtake
// each other by a few places only.
type sender struct {
	locator   Locator
	highest   uint64
	seen      uint64 // bit i: highest - i was taken
	newest    int64  // when the newest of them was sent, by the sender's clock
	allowance bucket
}

// over tells whether nothing that was taken can pass the window again.
func (s *sender) over(now int64) bool { return s.newest < now-window }

// repeats tells whether a sequence number was taken, or may have been.
func (s *sender) repeats(sequence uint64, now int64) bool {
	if sequence > s.highest || s.over(now) {
		return false
	}
	behind := s.highest - sequence
	return behind >= 64 || s.seen>>behind&1 == 1
}

// take remembers a sequence number that does not repeat.
func (s *sender) take(sequence uint64, sent, now int64) {
	switch {
	case s.over(now): // also when nothing was taken yet
		s.highest, s.seen = sequence, 1
	case sequence > s.highest:
		s.seen = s.seen<<(sequence-s.highest) | 1
		s.highest = sequence
	default:
		s.seen |= 1 << (s.highest - sequence)
	}
	s.newest = max(s.newest, sent)
	s.allowance.left--
}

// bucket is a token bucket that a second fills.
type bucket struct {
	left float64
	at   int64
}

func newBucket(rate int) bucket { return bucket{left: float64(rate)} }

// ready fills the bucket up to now, and tells whether there is a token in it. A clock
// that went back fills nothing.
func (b *bucket) ready(rate int, now int64) bool {
	passed := min(max(now-b.at, 0), 1000)
	b.left = min(b.left+float64(passed)*float64(rate)/1000, float64(rate))
	b.at = now
	return b.left >= 1
}
