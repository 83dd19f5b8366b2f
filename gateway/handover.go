package gateway

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/steering"
)

const (
	// handoverFile has, in the state directory, what a gateway leaves to the one that
	// the same process becomes.
	handoverFile = "handover.json"
	// handoverAge is for how long that is of use.
	handoverAge = 30 * time.Second
)

// A handover is what a gateway that starts again has to know of itself before.
type handover struct {
	At        time.Time                  `json:"at"`
	BFD       []bfd.Resume               `json:"bfd"`
	Announced map[netip.Prefix]presence  `json:"announced"` // what was not withdrawn
	Holes     map[netip.Prefix]time.Time `json:"holes"`     // since when
}

type presence struct {
	Set      string            `json:"set"`
	Presence steering.Presence `json:"presence"`
	Since    time.Time         `json:"since"`
}

// takeHandover reads what the gateway before left, once; nil if there was none just
// now.
func takeHandover(dir string, now time.Time) *handover {
	file := filepath.Join(dir, handoverFile)
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	_ = os.Remove(file)
	var h handover
	if json.Unmarshal(text, &h) != nil || now.Sub(h.At).Abs() > handoverAge {
		return nil
	}
	return &h
}

// leave writes it for the gateway that comes.
func (h *handover) leave(dir string) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, handoverFile), text, 0o600)
}

// handOver leaves what the next gateway has to know. The peers bear silence for a
// while then.
func (g *Gateway) handOver() {
	h := handover{BFD: g.paths.handover(), Announced: map[netip.Prefix]presence{}, Holes: map[netip.Prefix]time.Time{}}
	g.mu.Lock()
	for _, a := range g.current.announcements {
		if a.presence != steering.Withdrawn {
			h.Announced[a.Prefix] = presence{a.Set, a.presence, a.Since}
		}
	}
	for p, hole := range g.holes {
		h.Holes[p] = hole.since
	}
	dir := g.config.StateDir
	g.mu.Unlock()
	h.At = time.Now()
	if err := h.leave(dir); err != nil {
		g.log.Error("nothing handed over to the gateway that comes", "err", err)
	}
}

// resume takes over what the gateway before left: what it announced is announced on
// until its probe says that it is down.
func (g *Gateway) resume(h *handover) {
	for prefix, p := range h.Announced {
		g.current.announcements = append(g.current.announcements, &Announcement{
			Prefix: prefix, Set: p.Set, Presence: p.Presence.String(), Since: p.Since, presence: p.Presence, label: "handover",
		})
	}
	for prefix, since := range h.Holes {
		g.holes[prefix] = &hole{since: since}
	}
	if len(h.Announced) > 0 { // of one that was drained nobody has anything
		g.announcer.Kept()
	}
}
