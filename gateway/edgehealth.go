package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// HealthConfig is `gateway.health:`, what nameservers are told of the edge.
type HealthConfig struct {
	Report bool          `yaml:"report"` // write <name>:HEALTH in Redis
	Every  time.Duration `yaml:"every"`  // from one word to the next
	// Settle is from the announcement of the pool to the word that the edge is up: the
	// network has the routes before nameservers answer the addresses.
	Settle time.Duration `yaml:"settle"`
}

const (
	leastEvery  = 500 * time.Millisecond
	mostEvery   = 3 * time.Second // a third of the least dns.health.lost_after
	mostSettle  = 10 * time.Minute
	tellTimeout = 2 * time.Second
	// firstWord is how long a gateway that has started says nothing rather than that the
	// edge is down: what it said before stands, as peers keep its routes too.
	firstWord = startWait + 5*time.Second
)

// A herald tells nameservers how the edge is, by its key in Redis: at once when that is
// another, and again and again, as silence counts as down. Redis may be away; nothing
// waits for it but the drain, for its first word of that.
type herald struct {
	edge   string
	config HealthConfig
	writer *upstreams.Writer
	log    *slog.Logger
	poke   func() // told when drains are known

	wake chan struct{}

	mu      sync.Mutex
	said    upstreams.EdgeSaid // what is to be said; no Health: nothing yet
	good    time.Time          // since when the edge could be up; zero while it cannot
	written time.Time          // when Redis last took a word
	told    time.Time          // when it took the first word of this drain; zero without one
	failure string             // of the last write; "" where it was taken
}

func newHerald(cfg *Config, redis upstreams.Config, log *slog.Logger, poke func()) *herald {
	return &herald{
		edge: cfg.Name, config: cfg.Health, writer: upstreams.NewWriter(redis), log: log, poke: poke, wake: make(chan struct{}, 1),
	}
}

// run writes until ctx ends. What was said last stands: that it drains, or, where the
// process starts again with the routes kept, that it is up.
func (h *herald) run(ctx context.Context) {
	defer h.writer.Close()
	tick := time.NewTicker(h.config.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.wake:
			tick.Reset(h.config.Every) // who counts words in a row shall not count this one twice
		}
		h.mu.Lock()
		said := h.said
		h.mu.Unlock()
		if said.Health == "" {
			continue
		}
		said.At = time.Now().UTC().Truncate(time.Millisecond)
		write, cancel := context.WithTimeout(ctx, tellTimeout)
		err := h.writer.SayHealth(write, h.edge, said)
		cancel()
		if ctx.Err() == nil {
			h.note(said, err)
		}
	}
}

// note takes what became of a word.
func (h *herald) note(said upstreams.EdgeSaid, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.failure
	if err != nil {
		if h.failure = err.Error(); was == "" {
			h.log.Warn("nameservers cannot be told how this edge is", "edge", h.edge, "err", err)
		}
		return
	}
	if h.failure, h.written = "", time.Now(); was != "" {
		h.log.Info("nameservers are told again how this edge is", "edge", h.edge)
	}
	if said.Health == upstreams.EdgeDraining && h.said.Health == said.Health && h.told.IsZero() {
		h.told = h.written
		h.poke()
	}
}

// judge takes how the edge is, and says when to come back; zero where that is not needed.
// cannot is why it cannot be answered, "" where it can; before is what nameservers were
// told by the gateway before this one.
func (h *herald) judge(now, started time.Time, draining, cannot string, before upstreams.EdgeHealth) (next time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.said.Health
	if was == "" {
		was = before
	}
	if cannot != "" || draining != "" {
		h.good = time.Time{}
	} else if h.good.IsZero() {
		h.good = now
	}
	settled := h.good.Add(h.config.Settle)
	switch {
	case draining != "":
		h.say(upstreams.EdgeDraining, draining, now)
	case cannot != "" && h.said.Health == "" && now.Before(started.Add(firstWord)):
		return started.Add(firstWord)
	case cannot != "":
		h.say(upstreams.EdgeDown, cannot, now)
	case was == upstreams.EdgeUp || !now.Before(settled):
		h.say(upstreams.EdgeUp, "in service", now)
	case h.said.Health == "": // its last word stands meanwhile
		return settled
	default:
		h.say(upstreams.EdgeDown, "announced again, waiting for the network", now)
		return settled
	}
	return time.Time{}
}

// say has something said, at once if it is news.
func (h *herald) say(health upstreams.EdgeHealth, reason string, now time.Time) {
	if health == h.said.Health && reason == h.said.Reason {
		return
	}
	since := h.said.Since
	if health != h.said.Health {
		since, h.told = now.UTC().Truncate(time.Second), time.Time{}
		h.log.Info("nameservers are told how this edge is", "edge", h.edge, "is", string(health), "reason", reason)
	}
	h.said = upstreams.EdgeSaid{Health: health, Since: since, Reason: reason}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// drainKnown is since when nameservers know of the drain; zero while they do not.
func (h *herald) drainKnown() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}

// EdgeStatus is what nameservers are told of the edge.
type EdgeStatus struct {
	upstreams.EdgeSaid

	Written time.Time `json:"written,omitzero"`  // when Redis last took it; zero if never
	Failure string    `json:"failure,omitempty"` // why it was not taken last; "" if it was
}

func (h *herald) status() *EdgeStatus {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &EdgeStatus{h.said, h.written, h.failure}
}

// String is the status in a line.
func (s *EdgeStatus) String() string {
	switch {
	case s.Health == "":
		return "nameservers are told nothing of this edge yet"
	case s.Written.IsZero():
		return fmt.Sprintf("nameservers are to be told: %s, %s", s.Health, s.Reason)
	}
	return fmt.Sprintf("nameservers are told: %s, %s", s.Health, s.Reason)
}

// judgeEdge tells the herald how the edge is, by the plan in force. The loop's.
func (g *Gateway) judgeEdge(now time.Time) time.Time {
	if g.herald == nil {
		return time.Time{}
	}
	cannot := g.current.poolAway()
	if _, up, _ := g.announcer.Sessions(); up == 0 {
		cannot = "no session is up"
	}
	before := upstreams.EdgeUnknown
	if e := g.edge(); e != nil {
		before = e.Said
	}
	return g.herald.judge(now, g.started, g.drain.why(), cannot, before)
}

// poolAway is why the pool of this edge cannot be answered: less than half of what it has
// in a family is announced as it should be. A member that is not there alone, as one that
// cannot be bound, does not take the others with it.
func (p *plan) poolAway() string {
	var there, all [2]int
	why := ""
	for _, a := range p.announcements {
		if !a.pool {
			continue
		}
		f := steering.FamilyOf(a.Prefix.Addr())
		if all[f]++; a.presence == steering.Announced {
			there[f]++
		} else if why == "" {
			why = fmt.Sprintf("%s is %s: %s", a.Prefix, a.Presence, a.Reason)
		}
	}
	for f := range all {
		if 2*there[f] < all[f] {
			return why
		}
	}
	return ""
}

// askResolvers tells the drain for how long resolvers may answer the addresses of the
// pool, and since when they get no new ones. state is what the lists say of the edge.
func (g *Gateway) askResolvers(now time.Time, state upstreams.AdminState) {
	d := &g.drain
	if d.why() == "" {
		d.unasked, d.hurry = time.Time{}, false
	}
	d.forget = 0
	byWord := g.herald != nil && (d.byHand != "" || d.leaving != "")
	if g.lists == nil || g.lists.Snapshot() == nil || state == upstreams.Drained || !g.config.usesPool() || state != upstreams.Draining && !byWord {
		return
	}
	d.forget = time.Duration(g.lists.Snapshot().LargestTTL()+1) * time.Second
	switch {
	case !d.unasked.IsZero():
	case state == upstreams.Draining:
		d.unasked = now
	default:
		d.unasked = g.herald.drainKnown()
	}
}
