package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/razor-steering/razor/steering"
)

// named is how many prefixes a line of the log names.
const named = 8

// sayings are the lines of the log for a plan: what happens to many prefixes of a
// set for the same reason is one line.
type sayings struct {
	order []saying
	of    map[saying][]string
}

type saying struct {
	state, set, reason string
	warn               bool
}

func (s *sayings) add(state string, a *Announcement) {
	key := saying{state, a.Set, a.Reason, a.presence != steering.Announced && a.label == "health"}
	if s.of == nil {
		s.of = map[saying][]string{}
	}
	if s.of[key] == nil {
		s.order = append(s.order, key)
	}
	s.of[key] = append(s.of[key], a.Prefix.String())
}

func (s *sayings) log(log *slog.Logger) {
	for _, k := range s.order {
		level := slog.LevelInfo
		if k.warn {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "announcement", "state", k.state, "prefixes", some(s.of[k], " "), "set", k.set, "reason", k.reason)
	}
}

// some is as many of the words as a line of the log names, and how many more there are.
func some(words []string, between string) string {
	text := strings.Join(words[:min(named, len(words))], between)
	if more := len(words) - named; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
