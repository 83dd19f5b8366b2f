package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// visit is a new flow that was answered, or not.
type visit struct {
	began, ended time.Time
	by           string
	err          error
}

// mostVisits is how many a client remembers.
const mostVisits = 50_000

// visits are those of the clients of a site, or all, that ended since a time, the first begun
// first.
func (l *lab) visits(since time.Time, of string) (out []visit) {
	for _, c := range l.clients {
		if of != "" && c.Site != of {
			continue
		}
		c.mu.Lock()
		for _, v := range c.visits {
			if v.ended.After(since) {
				out = append(out, v)
			}
		}
		c.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b visit) int { return a.began.Compare(b.began) })
	return out
}

// said is when a host's razor wrote a line since a time that the pattern matches; the last
// one of several.
func (h *host) said(since time.Time, pattern *regexp.Regexp) (last time.Time) {
	for _, p := range h.running {
		for line := range strings.Lines(p.Log()) {
			text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			at, err := time.Parse(time.RFC3339Nano, text)
			at = at.Add(-h.ahead)
			if err == nil && at.After(since) && at.After(last) && pattern.MatchString(line) {
				last = at
			}
		}
	}
	return last
}

var (
	saidDown   = regexp.MustCompile(`msg="health changed" .* to=down `)
	saidShares = regexp.MustCompile(`msg="shares of new flows" .* reason="?failover`)
	saidCopied = regexp.MustCompile(`msg="tables copied"`)
	saidLeft   = regexp.MustCompile(`msg="backend changed" .* to=(draining|dead) `)
)

// failedOver says how the new flows of a site's clients went elsewhere since the last mark:
// what happened when, from the moment that the last agent said that its service is down.
func (l *lab) failedOver(s *site) {
	var down time.Time
	for _, h := range s.backends {
		if at := h.said(l.since, saidDown); at.After(down) {
			down = at
		}
	}
	if down.IsZero() {
		must(fmt.Errorf("no agent of %s has said that its service is down, since the last mark", s.Name))
	}
	t := tabwriter.NewWriter(l.out, 0, 8, 2, ' ', 0)
	row := func(at time.Time, what string) {
		if !at.IsZero() {
			fmt.Fprintf(t, "  %+.0f ms\t%s\n", 1000*at.Sub(down).Seconds(), what)
		}
	}
	row(down, "the last agent says that its service is down")
	for _, g := range s.gateways {
		row(g.said(down.Add(-time.Millisecond), saidLeft), g.name+" takes its backend out")
		row(g.said(down, saidShares), g.name+" decides that all go elsewhere")
		row(g.said(down, saidCopied), g.name+" has the tables of the one that decides")
	}
	all := l.visits(l.since, s.Name)
	first, lost := time.Time{}, lastLost{}
	for _, v := range all {
		switch {
		case v.err != nil:
			lost.add(v, down)
		case v.began.After(down) && l.siteOf(v.by) != s.Name && (first.IsZero() || v.ended.Before(first)):
			first = v.ended
		}
	}
	row(first, "the first new flow is answered elsewhere")
	row(lost.last, "the last one began that failed")
	_ = t.Flush()
	fmt.Fprintf(l.out, "  %d new flows failed before, %d after the agent's word, of %d\n", lost.before, lost.after, len(all))
	if first.IsZero() {
		must(errors.New("no new flow was answered elsewhere"))
	}
	if first.Sub(down) > generous || lost.last.Sub(down) > generous {
		must(fmt.Errorf("more than %v, which even a loaded machine does not take", generous))
	}
}

// generous is for figures that a slow machine has too.
const generous = 3 * time.Second

// lastLost counts new flows that failed.
type lastLost struct {
	before, after int
	last          time.Time // when one began
}

func (c *lastLost) add(v visit, at time.Time) {
	if v.began.After(c.last) {
		c.last = v.began
	}
	if v.began.Before(at) {
		c.before++
		return
	}
	c.after++
}

// outage is what people noticed of an event.
type outage struct {
	what           string
	without        time.Duration // the longest time without an answer to a new flow
	slowest        time.Duration // answer
	flows          int
	failed, broken int
}

// outage notes what there was since the last mark, and marks.
func (l *lab) outage(args []string) {
	if len(args) == 0 {
		must(errors.New("want what happened"))
	}
	o := outage{what: strings.Join(args, " ")}
	broken, _, saw := l.seeBroken(&expectation{})
	o.broken = broken
	all := l.visits(l.since, "")
	slices.SortFunc(all, func(a, b visit) int { return a.ended.Compare(b.ended) })
	last := l.since
	for _, v := range all {
		if v.err != nil {
			o.failed++
			continue
		}
		o.flows++
		o.without, o.slowest = max(o.without, v.ended.Sub(last)), max(o.slowest, v.ended.Sub(v.began))
		last = v.ended
	}
	o.without = max(o.without, time.Since(last))
	l.outages = append(l.outages, o)
	fmt.Fprintf(l.out, "  %v without service, %s\n", o.without.Round(time.Millisecond), saw)
	l.mark()
}

// showOutages writes the table of all that were noted.
func (l *lab) showOutages() {
	if l.outages == nil {
		return
	}
	t := tabwriter.NewWriter(l.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nEVENT\tWITHOUT SERVICE\tNEW FLOWS\tSLOWEST\tFAILED\tBROKEN")
	for _, o := range l.outages {
		fmt.Fprintf(t, "%s\t%d ms\t%d\t%d ms\t%d\t%d\n", o.what, o.without.Milliseconds(), o.flows, o.slowest.Milliseconds(), o.failed, o.broken)
	}
	_ = t.Flush()
}
