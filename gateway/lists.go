package gateway

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// watchLists wakes a loop at once, and when the lists in Redis change.
func watchLists(ctx context.Context, lists *upstreams.Follower, poke func()) {
	for {
		snapshot := lists.Snapshot()
		poke()
		select {
		case <-lists.Changed(snapshot):
		case <-ctx.Done():
			return
		}
	}
}

// edge is what the lists say of the edge that this gateway is; nil if nothing.
func (g *Gateway) edge() *upstreams.Name {
	snapshot := g.lists.Snapshot()
	if snapshot == nil {
		return nil
	}
	wire, _ := upstreams.WireName(strings.TrimSuffix(g.config.Name, "."))
	return snapshot.Name([]byte(wire))
}

// listState is what the lists want of this gateway, and in words where that is a drain.
func (g *Gateway) listState() (state upstreams.AdminState, why string) {
	if g.lists == nil {
		return upstreams.Active, ""
	}
	e := g.edge()
	if e == nil || e.State == upstreams.Active {
		return upstreams.Active, ""
	}
	return e.State, fmt.Sprintf("%s:STATE is %s", g.config.Name, e.State)
}

// pool are the members of this edge's pools.
func (g *Gateway) pool() []netip.Prefix {
	var out []netip.Prefix
	e := g.edge()
	for _, f := range []steering.Family{steering.IPv4, steering.IPv6} {
		if p := e.Own(f); p != nil {
			out = append(out, slices.Collect(p.Members())...)
		}
	}
	return out
}

// Unannounced are the members of this edge's pool that nobody would announce. The
// section has been checked.
func (c *Config) Unannounced(pool []netip.Prefix) []upstreams.Defect {
	usesPool, allowed, written := c.usesPool(), parsed(c.Allowed), slices.Collect(maps.Keys(c.written()))
	var out []upstreams.Defect
	for _, p := range pool {
		d := upstreams.Defect{Key: strings.TrimSuffix(c.Name, ".") + ":A", Member: upstreams.MemberText(p)}
		if p.Addr().Is6() {
			d.Key += "AAA"
		}
		switch why, want := unannounceable(p, allowed); {
		case inside(p, written):
			continue
		case !usesPool:
			d.Reason, d.Want = "this gateway does not announce it", "from: pool in gateway.announce, or a set with it"
		case why != "":
			d.Reason, d.Want = why, want
		default:
			continue
		}
		out = append(out, d)
	}
	return out
}

// holes are the prefixes that are attacked, since when they are announced as
// blackholes here.
type holes map[netip.Prefix]*hole

type hole struct {
	since time.Time
	until time.Time // zero without an end of its own
}

// end is when it is no longer announced.
func (h *hole) end(longest time.Duration) time.Time {
	if h.until.IsZero() {
		return h.since.Add(longest)
	}
	return h.until
}

// next is when the first of them ends; zero if none does.
func (hs holes) next(now time.Time, longest time.Duration) time.Time {
	var out time.Time
	for _, h := range hs {
		if end := h.end(longest); end.After(now) {
			out = soonest(out, end)
		}
	}
	return out
}

// update takes over what the lists have now, and returns what is to be announced:
// at most limit, those that have been for the longest first. Others are counted
// and named.
func (hs holes) update(wanted map[netip.Prefix]time.Time, now time.Time, limit int, longest time.Duration) (out []netip.Prefix, beyond int) {
	for p := range hs {
		if _, ok := wanted[p]; !ok {
			delete(hs, p)
		}
	}
	for p, until := range wanted {
		if h := hs[p]; h == nil || !until.Equal(h.until) && !now.Before(h.end(longest)) {
			hs[p] = &hole{since: now} // also one that was over, and has another end
		}
		hs[p].until = until
		if now.Before(hs[p].end(longest)) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := hs[a].since.Compare(hs[b].since); c != 0 {
			return c
		}
		return a.Compare(b)
	})
	if len(out) > limit {
		out, beyond = out[:limit], len(out)-limit
	}
	slices.SortFunc(out, bgp.ComparePrefixes)
	return out, beyond
}

// wantedHoles are the attacked prefixes that this gateway answers for, each with its
// end, and those of them that are too wide.
func wantedHoles(lists iter.Seq2[string, []upstreams.Blackhole], allowed []netip.Prefix, now time.Time) (wanted map[netip.Prefix]time.Time, refused []string) {
	wanted = map[netip.Prefix]time.Time{}
	for _, list := range lists {
		for _, b := range list {
			switch {
			case !inside(b.Prefix, allowed) || !b.Until.IsZero() && !now.Before(b.Until):
				continue // another gateway's, or over
			case tooWide(b.Prefix, widestHole4, widestHole6):
				refused = append(refused, fmt.Sprintf("blackhole %s: too wide", b.Prefix))
				continue
			}
			if until, twice := wanted[b.Prefix]; !twice || !until.IsZero() && (b.Until.IsZero() || b.Until.After(until)) {
				wanted[b.Prefix] = b.Until
			}
		}
	}
	return wanted, refused
}

// blackholes are the attacked prefixes to announce, and those that must not be.
func (g *Gateway) blackholes(now time.Time) (out []netip.Prefix, refused []string) {
	snapshot := g.lists.Snapshot()
	if snapshot == nil {
		return nil, nil
	}
	wanted, refused := wantedHoles(snapshot.Blackholes(), parsed(g.config.Allowed), now)
	out, beyond := g.holes.update(wanted, now, g.config.Blackhole.Limit, g.config.Blackhole.Longest)
	g.sayHoles(out, beyond)
	return out, refused
}

// takesHoles tells whether a peer is told of blackholes.
func (c *Config) takesHoles() bool {
	return slices.ContainsFunc(c.BGP.AllPeers(), func(p bgp.PeerConfig) bool { return p.Blackhole })
}

// sayHoles logs each blackhole that begins or ends, and those beyond the limit.
func (g *Gateway) sayHoles(holes []netip.Prefix, beyond int) {
	for _, p := range holes {
		if !slices.Contains(g.announcedHoles, p) {
			g.log.Warn("blackhole announced", "prefix", p.String(), "until", g.holes[p].end(g.config.Blackhole.Longest).UTC().Format(time.RFC3339))
		}
	}
	for _, p := range g.announcedHoles {
		if !slices.Contains(holes, p) {
			reason := "no longer in the lists"
			if g.holes[p] != nil {
				reason = "its time is over"
			}
			g.log.Warn("blackhole ended", "prefix", p.String(), "reason", reason)
		}
	}
	if len(holes) > 0 && len(g.announcedHoles) == 0 && !g.config.takesHoles() {
		g.log.Error("no peer takes blackholes", "want", "blackhole: true at a peer in gateway.bgp")
	}
	if beyond > 0 && beyond != g.beyond {
		g.log.Error("more blackholes than gateway.blackhole.limit, the later ones are not announced", "not_announced", beyond, "limit", g.config.Blackhole.Limit)
	}
	g.announcedHoles, g.beyond = holes, beyond
}
