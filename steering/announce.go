package steering

import (
	"fmt"
	"time"
)

// Presence is what becomes of a prefix that a gateway may announce.
type Presence uint8

// A lowered prefix is announced so that any other announcer is preferred.
const (
	Withdrawn Presence = iota
	Lowered
	Announced
)

var presenceWords = [...]string{"withdrawn", "lowered", "announced"}

// String is the presence in one word.
func (p Presence) String() string { return presenceWords[p] }

// Stage is how far a drain of the gateway has come. The zero value is none.
type Stage uint8

// The stages of a drain, in order.
const (
	InService   Stage = iota
	Leaving           // announced as leaving (RFC 8326), while the network converges
	OutOfTheWay       // nothing is announced
)

// Offer is a prefix that may be announced, with what its announcement depends on.
type Offer struct {
	// NotReady says what is missing before it could be served; empty if nothing is.
	NotReady string
	// Condition is the damped result of its probe; HealthUp where it has none.
	Condition Damped
	// Floor is how many other announcers there have to be before it is withdrawn for
	// its health alone.
	Floor int
	// Others is how many there are; negative where nobody knows.
	Others int
	// WithdrawAfter is for how long it is lowered before it is withdrawn where
	// nobody knows of others; 0 is for ever.
	WithdrawAfter time.Duration
	// Was is what became of it until now.
	Was Presence
}

// Ruling is a presence, why, and when it may be another without anything having
// happened; zero if never.
type Ruling struct {
	Presence Presence
	Reason   string // for people
	Label    string // for a metric: drain, not_ready, health, unknown, up
	Until    time.Time
}

// Judge decides about an offer. A service that is down is not withdrawn by its
// last announcer: a check that fails everywhere at once would else take it from the
// net (as on 2021-10-04 all nameservers of one operator withdrew themselves). It is
// lowered instead, so that whoever is better is preferred; where nobody knows
// whether there are others, for a time.
func (o *Offer) Judge(stage Stage, now time.Time) Ruling {
	switch {
	case stage == OutOfTheWay:
		return Ruling{Presence: Withdrawn, Reason: "the gateway is drained", Label: "drain"}
	case o.NotReady != "":
		return Ruling{Presence: Withdrawn, Reason: o.NotReady, Label: "not_ready"}
	}
	r := o.byHealth(now)
	if stage == Leaving && r.Presence == Announced {
		return Ruling{Presence: Lowered, Reason: "the gateway is draining", Label: "drain"}
	}
	return r
}

func (o *Offer) byHealth(now time.Time) Ruling {
	switch o.Condition.Health {
	case HealthUp:
		return Ruling{Presence: Announced, Reason: o.reason("always"), Label: "up"}
	case HealthUnknown:
		if o.Was != Withdrawn {
			// A probe that was changed has to say first that it is down.
			return Ruling{Presence: o.Was, Reason: "no result of the new probe yet", Label: "unknown"}
		}
		return Ruling{Presence: Withdrawn, Reason: "no health result yet", Label: "unknown"}
	}
	down := Ruling{Presence: Withdrawn, Reason: o.reason("down"), Label: "health"}
	if o.Was == Withdrawn || o.Floor == 0 || o.Others >= o.Floor {
		return down
	}
	down.Presence = Lowered
	if o.Others >= 0 {
		down.Reason += fmt.Sprintf("; kept, as %d others announce it and %d have to", o.Others, o.Floor)
		return down
	}
	if o.WithdrawAfter == 0 {
		down.Reason += "; kept, as nobody knows of others"
		return down
	}
	down.Until = o.Condition.Since.Add(o.WithdrawAfter)
	if !now.Before(down.Until) {
		return Ruling{Presence: Withdrawn, Reason: o.reason("down") + "; nobody else was seen to announce it", Label: "health"}
	}
	down.Reason += "; lowered before it is withdrawn, as nobody knows of others"
	return down
}

func (o *Offer) reason(otherwise string) string {
	if o.Condition.Reason != "" {
		return o.Condition.Reason
	}
	return otherwise
}
