package upstreams

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// EdgeHealth is how an edge is, as its gateway says in <edge>:HEALTH or as razor
// judges it by that.
//
// The key is a string: a word, and behind it attributes of which each may be missing,
// the reason last, as it may have spaces:
//
//	up at=2026-11-21T05:31:04.5Z since=2026-11-21T05:30:00Z reason=in service
//
// The gateway writes it again every few seconds with another at, so that its silence is
// noticed ([HealthRules]). What has no at does not age: a script of an operator may say
// down, and take the key away again. An edge without the key is unknown, which is never
// held against it.
type EdgeHealth string

// The values of EdgeHealth. Only the last three stand in Redis.
const (
	EdgeUnknown  EdgeHealth = "unknown"
	EdgeUp       EdgeHealth = "up"       // in service, and its pool is announced
	EdgeDown     EdgeHealth = "down"     // not so
	EdgeDraining EdgeHealth = "draining" // its gateway leaves or has left, as somebody wants
)

var edgeHealths = [...]EdgeHealth{EdgeUnknown, EdgeUp, EdgeDown, EdgeDraining}

// answers tells whether an edge is answered before FLOOR is looked at.
func (h EdgeHealth) answers() bool { return h == EdgeUnknown || h == EdgeUp }

// EdgeSaid is what the gateway of an edge says of it.
type EdgeSaid struct {
	Health EdgeHealth `json:"health"`         // up, down or draining
	At     time.Time  `json:"at,omitzero"`    // when it said so, by its clock; zero where that does not age
	Since  time.Time  `json:"since,omitzero"` // when it began; zero where it does not say
	Reason string     `json:"reason"`
}

const (
	healthWant = "up, down or draining, with at= and since= and a time such as 2006-01-02T15:04:05Z, and reason= at the end"

	// maxReason bounds the reason, in octets; the rest is cut off.
	maxReason = 256
)

// String is the value as it is written in Redis.
func (s *EdgeSaid) String() string { return s.text(withTime(string(s.Health), "at", s.At)) }

// words are what it says without the time at which it does.
func (s *EdgeSaid) words() string { return s.text(string(s.Health)) }

func (s *EdgeSaid) text(begin string) string {
	begin = withTime(begin, "since", s.Since)
	if s.Reason == "" {
		return begin
	}
	return begin + " reason=" + oneLine(s.Reason)
}

// same tells whether two say the same, if not at the same time.
func (s *EdgeSaid) same(t *EdgeSaid) bool {
	return s.words() == t.words() && s.At.IsZero() == t.At.IsZero()
}

// oneLine is a reason as it may stand in the value, not too long.
func oneLine(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, reason)
	for i, r := range reason {
		if i+utf8.RuneLen(r) > maxReason {
			reason = reason[:i]
			break
		}
	}
	return strings.TrimSpace(reason)
}

// health reads a HEALTH. An attribute that cannot be used is left out alone.
func (p *parser) health(text string) (*EdgeSaid, bool) {
	head, reason, _ := strings.Cut(text, " reason=")
	word, attributes := splitWord(head)
	s := &EdgeSaid{Health: EdgeHealth(word), Reason: oneLine(reason)}
	if s.Health == EdgeUnknown || !slices.Contains(edgeHealths[:], s.Health) {
		p.bad(text, "unknown health", healthWant)
		return nil, false
	}
	at, since := timeAttribute("at", &s.At), timeAttribute("since", &s.Since)
	p.attributes(text, attributes, healthWant, func(attribute string) error {
		if strings.HasPrefix(attribute, "since=") {
			return since(attribute)
		}
		return at(attribute)
	})
	return s, true
}
