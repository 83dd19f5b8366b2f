package upstreams

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Source is who owns an upstream list.
type Source string

// The values of source in META.
const (
	SourceOperator Source = "operator" // the Consul sync never touches the list
	SourceConsul   Source = "consul"
)

// Upstream is the list of an application, `<app>:UPSTREAMS` and its META.
type Upstream struct {
	Endpoints []Endpoint // by address and port, each once
	Meta
}

// Has tells whether an endpoint has the address.
func (u *Upstream) Has(a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(u.Endpoints, a, func(e Endpoint, a netip.Addr) int { return e.Addr.Addr().Compare(a) })
	return ok
}

// equal tells whether two upstreams say the same, META included.
func (u *Upstream) equal(old *Upstream) bool {
	return u.sameList(old) && reflect.DeepEqual(u.Meta, old.Meta)
}

// sameList tells whether two upstreams have the same endpoints. Where one was made
// of the other that is seen without looking at them.
func (u *Upstream) sameList(old *Upstream) bool {
	if old == nil || len(u.Endpoints) != len(old.Endpoints) {
		return false
	}
	return len(u.Endpoints) == 0 || &u.Endpoints[0] == &old.Endpoints[0] || slices.Equal(u.Endpoints, old.Endpoints)
}

// Meta is an `<app>:UPSTREAMS:META` hash: who owns the list, and what its keeper
// has to remember of it. The zero value is that of a list without one.
type Meta struct {
	Source   Source    // "" where it does not say
	Index    uint64    // of Consul, when the list was written
	Updated  time.Time // zero where it does not say
	Keeper   string    // who keeps the list
	Epoch    uint64    // one more with every keeper that took the list over
	Baseline int       // the most endpoints that served within the hour before Updated
	Taken    int       // endpoints that left or were changed within the minute before it
	Held     *Held     // nil as long as the list is what its source wants
	Accept   *int      // an operator's word: as few serving endpoints are right; nil without
}

// Held is a change of a list that its guard does not let through as a whole.
type Held struct {
	Reason string // empty, floor or churn
	Wanted int    // serving endpoints that the source has
	Since  time.Time
}

// String is what META has in its field held.
func (h Held) String() string {
	return fmt.Sprintf("%s wanted=%d since=%s", h.Reason, h.Wanted, h.Since.UTC().Format(time.RFC3339))
}

func parseHeld(text string) (*Held, error) {
	bad := errors.New("not REASON wanted=N since=TIME")
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return nil, bad
	}
	h := &Held{Reason: fields[0]}
	wanted, ok1 := strings.CutPrefix(fields[1], "wanted=")
	since, ok2 := strings.CutPrefix(fields[2], "since=")
	var err1, err2 error
	h.Wanted, err1 = endpointCount(wanted)
	h.Since, err2 = time.Parse(time.RFC3339, since)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return nil, bad
	}
	return h, nil
}

// endpointCount reads a number of endpoints.
func endpointCount(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

// meta is the value of a META key.
type meta struct {
	Meta
	fields map[string]string // the usable fields as they were written
}

const metaWant = "source consul or operator, updated a time as 2006-01-02T15:04:05Z; all else is written by the sync"

func (p *parser) meta(hash map[string]string) *meta {
	m := &meta{fields: map[string]string{}}
	for field, text := range hash {
		if err := m.set(field, text); err != nil {
			p.bad(field+" "+text, err.Error(), metaWant)
			continue
		}
		m.fields[field] = text
	}
	return m
}

// set reads one field; one that cannot be used leaves m as it is.
func (m *Meta) set(field, text string) (err error) {
	next := *m
	switch field {
	case "source":
		if next.Source = Source(text); next.Source != SourceConsul && next.Source != SourceOperator {
			return errors.New("unknown source")
		}
	case "index":
		next.Index, err = strconv.ParseUint(text, 10, 64)
	case "epoch":
		next.Epoch, err = strconv.ParseUint(text, 10, 64)
	case "updated":
		next.Updated, err = time.Parse(time.RFC3339, text)
	case "keeper":
		next.Keeper = text
	case "baseline":
		next.Baseline, err = endpointCount(text)
	case "taken":
		next.Taken, err = endpointCount(text)
	case "held":
		next.Held, err = parseHeld(text)
	case "accept":
		var n int
		n, err = endpointCount(text)
		next.Accept = &n
	default:
		return errors.New("unknown field")
	}
	if err != nil {
		return errors.New("cannot be used")
	}
	*m = next
	return nil
}

// keptAs tells whether the list has the keeper of another META, and its owner.
func (m Meta) keptAs(was Meta) bool {
	return m.Source == was.Source && m.Epoch == was.Epoch && m.Keeper == was.Keeper
}

// after is what HSET and HDEL take to make a hash that says was say m. An accept
// that the keeper has not seen is left there, as long as it is of what is held.
func (m Meta) after(was Meta) (set []any, del []string) {
	set = []any{
		"source", string(m.Source), "index", m.Index, "keeper", m.Keeper, "epoch", m.Epoch,
		"baseline", m.Baseline, "taken", m.Taken, "updated", m.Updated.UTC().Format(time.RFC3339),
	}
	if m.Held != nil {
		set = append(set, "held", m.Held.String())
	} else {
		del = append(del, "held")
	}
	same := m.Held != nil && was.Held != nil && m.Held.Reason == was.Held.Reason
	if m.Accept == nil && (was.Accept != nil || !same) {
		del = append(del, "accept")
	}
	return set, del
}
