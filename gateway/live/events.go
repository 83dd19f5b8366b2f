package live

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	mostEvents     = 200
	mostAttributes = 16
	mostText       = 300 // octets of a value
)

// Event is something that happened, as the log has it.
type Event struct {
	Number     uint64      `json:"number"` // counts up
	Time       time.Time   `json:"time"`
	Level      string      `json:"level"` // info, warn, error
	Text       string      `json:"text"`
	Reason     string      `json:"reason,omitempty"`
	Attributes []Attribute `json:"attributes,omitempty"`
}

// Attribute is what an event is of.
type Attribute struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Events are the last of a log. The zero value has none. It is safe for concurrent use.
type Events struct {
	mu   sync.Mutex
	last uint64
	ring [mostEvents]Event
}

// add has an event be the last.
func (e *Events) add(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	ev.Number = e.last
	e.ring[e.last%mostEvents] = ev
}

// Since are the events behind a number, the last first, of those that are kept.
func (e *Events) Since(number uint64) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []Event{}
	for n := e.last; n > number && e.last-n < mostEvents; n-- {
		out = append(out, e.ring[n%mostEvents])
	}
	return out
}

// Handler is a handler of a log that notes what is at least of level info, and hands all
// that next wants to next.
func (e *Events) Handler(next slog.Handler) slog.Handler { return &noting{events: e, next: next} }

// noting is such a handler, with the attributes and groups that it was given.
type noting struct {
	events     *Events
	next       slog.Handler
	attributes []Attribute
	group      string
}

// Enabled implements slog.Handler.
func (h *noting) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.next.Enabled(ctx, l)
}

// Handle implements slog.Handler.
func (h *noting) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		h.events.add(h.event(r))
	}
	if h.next.Enabled(ctx, r.Level) {
		return h.next.Handle(ctx, r)
	}
	return nil
}

func (h *noting) event(r slog.Record) Event {
	out := Event{Time: r.Time, Text: cut(r.Message), Level: "info"}
	switch {
	case r.Level >= slog.LevelError:
		out.Level = "error"
	case r.Level >= slog.LevelWarn:
		out.Level = "warn"
	}
	all := slices.Clip(h.attributes)
	r.Attrs(func(a slog.Attr) bool {
		all = appendAttribute(all, h.group, a)
		return true
	})
	for _, a := range all {
		if a.Key == "reason" || a.Key == "why" || a.Key == "err" {
			out.Reason = a.Value
		} else {
			out.Attributes = append(out.Attributes, a)
		}
	}
	return out
}

func appendAttribute(all []Attribute, group string, a slog.Attr) []Attribute {
	if len(all) >= mostAttributes {
		return all
	}
	return append(all, Attribute{group + a.Key, cut(a.Value.Resolve().String())})
}

// cut bounds what others put into a log.
func cut(text string) string {
	if len(text) > mostText {
		return text[:mostText] + "…"
	}
	return text
}

// WithAttrs implements slog.Handler.
func (h *noting) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.next = h.next.WithAttrs(attrs)
	out.attributes = slices.Clip(out.attributes)
	for _, a := range attrs {
		out.attributes = appendAttribute(out.attributes, h.group, a)
	}
	return &out
}

// WithGroup implements slog.Handler.
func (h *noting) WithGroup(name string) slog.Handler {
	out := *h
	out.next = h.next.WithGroup(name)
	out.group = h.group + name + "."
	return &out
}
