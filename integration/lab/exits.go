package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// answers has an exit switch count the flows whose answers leave by it.
const answers = "add table inet lab; add chain inet lab out { type filter hook forward priority 0; }; " +
	"add rule inet lab out iifname " + bridge + " tcp sport 80 tcp flags & (syn | ack) == syn | ack counter"

// counter is what nft shows of it.
var counter = regexp.MustCompile(`counter packets (\d+)`)

// answered is how many flows there were since the lab began.
func (r *router) answered() int {
	m := counter.FindStringSubmatch(r.node.Run("nft", "list", "chain", "inet", "lab", "out"))
	if m == nil {
		must(fmt.Errorf("%s does not count what leaves", r.name))
	}
	n, err := strconv.Atoi(m[1])
	must(err)
	return n
}

// exits are the exit switches of all sites.
func (l *lab) exits() (out []*router) {
	for _, s := range l.sites {
		out = append(out, s.routers[:s.Exits]...)
	}
	return out
}

// exit leaves if the place is not an exit switch, or all of them.
func (l *lab) exit(e *expectation) {
	all := append(called(l.exits(), func(r *router) string { return r.name }), "exits")
	if !slices.Contains(all, e.at) || len(all) == 1 {
		must(fmt.Errorf("no exit switch %q: want one of %s", e.at, strings.Join(all, ", ")))
	}
}

// spread is how many flows are opened to see where their answers leave. By each of four equal
// ways go then 18% to 32% of them, and by each of three 25% to 42%, but once in a million.
const spread = 1000

// seeOutgoing is how many answers to new flows leave by an exit switch. Of all that are there
// it is the one that is farthest from an equal share.
func (l *lab) seeOutgoing(e *expectation) (n, of int, saw string) {
	if len(l.clients) == 0 {
		must(errors.New("no client is there"))
	}
	before := map[*router]int{}
	for _, r := range l.exits() {
		before[r] = r.answered()
	}
	if _, err := l.clients[0].tries(spread); err != nil {
		return -1, 0, fmt.Sprintf("a new flow of %s: %v", l.clients[0].Name, err)
	}
	by, there := map[string]int{}, []string{}
	for _, r := range l.exits() {
		by[r.name] = r.answered() - before[r]
		of += by[r.name]
		if !r.lost && !r.site.lost {
			there = append(there, r.name)
		}
	}
	saw = "they leave at " + tally(by)
	if e.at != "exits" {
		return by[e.at], of, saw
	}
	n, farthest := -1, -1
	for _, name := range there {
		if far := max(by[name]*len(there)-of, of-by[name]*len(there)); far > farthest {
			n, farthest = by[name], far
		}
	}
	return n, of, saw
}
