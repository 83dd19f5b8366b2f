package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// expectation is a sentence such as: at least 30% new flows of client-1 at east.
type expectation struct {
	least, most float64 // a number, or a share where percent is
	percent     bool
	what        string
	of          string        // a client; "" is all
	at          string        // a site or backend; "" is anywhere
	over        time.Duration // it is the mean of that time; 0 is a moment
}

// things are what can be expected. What only grows is looked at once where it is not to
// be more than that; anything else has a while to become so.
var things = map[string]struct {
	see   func(l *lab, e *expectation) (n, of int, saw string)
	grows bool
	of    bool // clients have it
	site  bool // gateways of a site have it
	one   bool // or one of them
	exit  bool // exit switches have it instead: one, or each of them
	named bool // of a name in DNS
	word  bool // with a word before it
}{
	"new flows":           {see: (*lab).seeNew, of: true},
	"connections":         {see: (*lab).seeKept, of: true},
	"broken connections":  {see: (*lab).seeBroken, of: true, grows: true},
	"failed flows":        {see: (*lab).seeFailed, of: true, grows: true},
	"active backends":     {see: (*lab).seeBackends, site: true},
	"draining backends":   {see: (*lab).seeBackends, site: true},
	"dead backends":       {see: (*lab).seeBackends, site: true},
	"gone backends":       {see: (*lab).seeBackends, site: true},
	"load":                {see: (*lab).seeLoad, site: true},
	"spilled share":       {see: (*lab).seeSpilled, site: true},
	"outgoing flows":      {see: (*lab).seeOutgoing, site: true, exit: true},
	"addresses":           {see: (*lab).seeAddresses, site: true, of: true, named: true},
	"announcing gateways": {see: (*lab).seeGateways, site: true},
	"deciding gateways":   {see: (*lab).seeDeciders, site: true},
	"sessions":            {see: (*lab).seeSessions, site: true},
	"paths":               {see: (*lab).seePaths, site: true},
	"watched programs":    {see: (*lab).seeTargets},
	"passing instances":   {see: (*lab).seeInstances, site: true},
	"pins":                {see: (*lab).seeCounter, site: true, one: true},
	"packets":             {see: (*lab).seeCounter, site: true, one: true, grows: true, word: true},
	"reports":             {see: (*lab).seeCounter, site: true, one: true, grows: true, word: true},
	"summaries":           {see: (*lab).seeCounter, site: true, one: true, grows: true, word: true},
}

// tried is how many flows are opened to see where new ones go.
const tried = 40

// thing is what the words name in [things]; that of "away packets" is packets.
func (e *expectation) thing() string {
	_, last, ok := strings.Cut(e.what, " ")
	if ok && things[last].word {
		return last
	}
	return e.what
}

// parseExpectation reads the words behind expect.
func parseExpectation(words []string) (e expectation, err error) {
	rest, err := e.amount(words)
	if err != nil {
		return e, err
	}
	var what []string
	for len(rest) > 0 && !slices.Contains([]string{"of", "at", "over"}, rest[0]) {
		what, rest = append(what, rest[0]), rest[1:]
	}
	e.what = strings.Join(what, " ")
	for len(rest) > 0 {
		if len(rest) == 2 && rest[0] == "over" {
			if e.over, err = time.ParseDuration(rest[1]); err != nil || e.over < time.Second {
				return e, fmt.Errorf("%q: want a second or more", rest[1])
			}
			break
		}
		if len(rest) < 2 || rest[0] != "of" && rest[0] != "at" {
			return e, fmt.Errorf("%q: want of CLIENT, at PLACE, or over TIME at the end", strings.Join(rest, " "))
		}
		place := &e.at
		if rest[0] == "of" {
			place = &e.of
		}
		if *place != "" {
			return e, fmt.Errorf("%q is there twice", rest[0])
		}
		*place, rest = rest[1], rest[2:]
	}
	thing, ok := things[e.thing()]
	switch {
	case !ok || thing.word && e.what == e.thing():
		known := strings.Join(slices.Sorted(maps.Keys(things)), ", ")
		return e, fmt.Errorf("%q: want one of %s, with a word before packets, reports and summaries", e.what, known)
	case e.of != "" && !thing.of:
		return e, fmt.Errorf("%s are of no client", e.what)
	case e.at == "" && thing.exit:
		return e, fmt.Errorf("%s: want at EXIT, or at exits", e.what)
	case e.at == "" && thing.site:
		return e, fmt.Errorf("%s: want at SITE", e.what)
	case e.of == "" && thing.named:
		return e, fmt.Errorf("%s: want of NAME", e.what)
	case e.over > 0 && (thing.grows || thing.named):
		return e, fmt.Errorf("%s: want it now, not over a time", e.what)
	case e.percent && (thing.grows || thing.named):
		return e, fmt.Errorf("%s: want a number, not a share", e.what)
	}
	return e, nil
}

// amount reads how many there are to be, and returns the words behind it.
func (e *expectation) amount(words []string) (rest []string, err error) {
	const most = 1e12
	if len(words) < 2 {
		return nil, errors.New("want how many, and of what")
	}
	e.most = most
	switch words[0] {
	case "no":
		e.most = 0
		return words[1:], nil
	case "any":
		return words[1:], nil
	case "some":
		e.least = 1
		return words[1:], nil
	case "all":
		e.least, e.percent = 100, true
		return words[1:], nil
	}
	bound := ""
	if words[0] == "at" && (words[1] == "least" || words[1] == "most") {
		bound, words = words[1], words[2:]
	}
	if len(words) == 0 {
		return nil, errors.New("want a number")
	}
	if from, to, ok := strings.Cut(words[0], "-"); ok && bound == "" && from != "" {
		if _, err := e.amount([]string{"at", "most", to, ""}); err != nil {
			return nil, err
		}
		most, percent := e.most, e.percent
		if _, err := e.amount([]string{"at", "least", from, ""}); err != nil {
			return nil, err
		}
		if e.percent != percent || e.least > most {
			return nil, fmt.Errorf("%q: want a range such as 3-5 or 20%%-30%%", words[0])
		}
		e.most = most
		return words[1:], nil
	}
	text, percent := strings.CutSuffix(words[0], "%")
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n < most) || percent && n > 100 {
		return nil, fmt.Errorf("%q: want no, some, all, a number or a share, perhaps behind at least or at most", words[0])
	}
	e.percent = percent
	if bound != "most" {
		e.least = n
	}
	if bound != "least" {
		e.most = n
	}
	return words[1:], nil
}

// expect waits until it is so.
func (l *lab) expect(words []string) {
	e, err := parseExpectation(words)
	must(err)
	thing := things[e.thing()]
	if e.of != "" && !thing.named {
		l.client(e.of)
	}
	switch {
	case thing.exit:
		l.exit(&e)
	case thing.one:
		l.placed(&e, roleGateway)
	case thing.site:
		l.placed(&e, "")
	default:
		l.placed(&e, roleBackend)
	}
	measure := func() (float64, string) {
		n, of, saw := thing.see(l, &e)
		value := float64(n)
		if e.percent {
			value = 100 * value / max(1, float64(of))
		}
		return value, saw
	}
	see := func() (bool, string) {
		value, saw := measure()
		if words[0] == "any" {
			fmt.Fprintln(l.out, " ", saw)
		}
		return value >= e.least && value <= e.most, saw
	}
	if e.over > 0 {
		l.expectMean(&e, measure)
		return
	}
	if !thing.grows || e.least > 0 {
		l.eventually("expect "+strings.Join(words, " "), see)
		return
	}
	if ok, saw := see(); !ok {
		must(fmt.Errorf("expect %s: %s", strings.Join(words, " "), saw))
	}
}

// expectMean looks at something for a while, and says its mean, the least and the most.
func (l *lab) expectMean(e *expectation, measure func() (float64, string)) {
	sum, least, most, n := 0.0, math.Inf(1), math.Inf(-1), 0
	for end := time.Now().Add(e.over); time.Now().Before(end); n++ {
		value, saw := measure()
		if value < 0 {
			must(errors.New(saw))
		}
		sum, least, most = sum+value, min(least, value), max(most, value)
		l.pause(500 * time.Millisecond)
	}
	mean := sum / float64(n)
	text := fmt.Sprintf("%s at %s over %v: %.1f, from %.1f to %.1f", e.what, e.at, e.over, mean, least, most)
	if mean < e.least || mean > e.most {
		must(errors.New(text))
	}
	fmt.Fprintln(l.out, " ", text)
}

// placed leaves if the place is not of the lab: a site, or a host of a role.
func (l *lab) placed(e *expectation, of role) {
	if e.at != "" && !slices.ContainsFunc(l.hosts(), func(h *host) bool { return h.name == e.at && h.role == of }) {
		l.site(e.at)
	}
}

// is tells whether who answered is at the place.
func (l *lab) is(by string, e *expectation) bool {
	return e.at == "" || by == e.at || l.siteOf(by) == e.at
}

// of are the clients that are spoken of.
func (l *lab) of(e *expectation) []*client {
	if e.of == "" {
		return l.clients
	}
	return []*client{l.client(e.of)}
}

// where counts those that are at the place, and says where all are.
func (l *lab) where(all []string, e *expectation) (n, of int, saw string) {
	by := map[string]int{}
	for _, b := range all {
		by[b]++
		if l.is(b, e) {
			n++
		}
	}
	return n, len(all), "they are at " + tally(by)
}

func (l *lab) seeNew(e *expectation) (n, of int, saw string) {
	var all []string
	for _, c := range l.of(e) {
		by, err := c.tries(tried)
		if err != nil {
			return 0, tried, fmt.Sprintf("a new flow of %s: %v", c.Name, err)
		}
		all = append(all, by...)
	}
	return l.where(all, e)
}

func (l *lab) seeKept(e *expectation) (n, of int, saw string) {
	var all []string
	for _, c := range l.of(e) {
		for _, k := range c.connections() {
			all = append(all, k.by)
		}
	}
	return l.where(all, e)
}

func (l *lab) seeBroken(e *expectation) (n, of int, saw string) {
	var first string
	for _, c := range l.of(e) {
		c.askAll()
		c.mu.Lock()
		for _, b := range c.broke {
			if !l.is(b.by, e) {
				continue
			}
			if n++; first == "" {
				first = fmt.Sprintf(", the first of %s with %s: %v", c.Name, b.by, b.why)
			}
		}
		c.mu.Unlock()
	}
	return n, n, fmt.Sprint(n, " broke", first)
}

func (l *lab) seeFailed(e *expectation) (n, of int, saw string) {
	var first string
	for _, c := range l.of(e) {
		c.mu.Lock()
		for _, err := range c.failed {
			if n++; first == "" {
				first = fmt.Sprintf(", the first of %s: %v", c.Name, err)
			}
		}
		c.mu.Unlock()
	}
	return n, n, fmt.Sprint(n, " failed", first)
}

// seeBackends is how many are of a state to the gateways of the site, of which all that
// run have to agree.
func (l *lab) seeBackends(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	state, _, _ := strings.Cut(e.what, " ")
	var seen []string
	agreed := true
	for _, g := range s.gateways {
		if g.lost {
			continue
		}
		status, err := l.status(g)
		if err != nil {
			return -1, 0, err.Error()
		}
		count, said := 0, []string{}
		for _, b := range status.Backends {
			at := s.backend(b)
			if at == nil {
				continue
			}
			if string(b.State) == state || b.Agent != nil && b.Agent.Host == state {
				count++
			}
			said = append(said, strings.TrimSpace(fmt.Sprintf("%s %s %s", at.name, b.State, b.Reason)))
		}
		agreed = agreed && (seen == nil || count == n)
		n = count
		seen = append(seen, g.name+" has "+strings.Join(said, ", "))
	}
	if !agreed || seen == nil {
		n = -1
	}
	return n, len(s.backends), strings.Join(seen, "; ")
}

// seeLoad is the load of the backends of a site, and their capacity, as its gateways hear.
func (l *lab) seeLoad(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	load, capacity, err := l.loaded(s)
	if err != nil {
		return -1, 0, err.Error()
	}
	return int(load), int(capacity), fmt.Sprintf("%.0f of %.0f", load, capacity)
}

// seeSpilled is the share, in thousandths, of the new flows of a site's clients that other
// sites get, as was decided.
func (l *lab) seeSpilled(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	for _, g := range s.gateways {
		if g.lost {
			continue
		}
		status, err := l.status(g)
		if err != nil || status.Decision == nil || len(status.Decision.Services) == 0 {
			return -1, 0, fmt.Sprintf("%s has decided nothing: %v", g.name, err)
		}
		d := status.Decision.Services[0]
		away := 1 - d.Here.Share
		return int(1000 * away), 1000, fmt.Sprintf("%.1f %%, %s", 100*away, d.Reason)
	}
	return -1, 0, "no gateway runs"
}

// seeAddresses is what the nameserver of a site answers.
func (l *lab) seeAddresses(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	if !s.DNS {
		must(fmt.Errorf("site %s has no dns", s.Name))
	}
	all, err := l.lookUp(s, e.of)
	if missing, ok := errors.AsType[*net.DNSError](err); ok && missing.IsNotFound {
		err = nil
	}
	if err != nil {
		return -1, 0, err.Error()
	}
	return len(all), len(all), fmt.Sprint(all)
}

func (l *lab) seeGateways(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	var not []string
	for _, g := range s.gateways {
		status, err := l.status(g)
		if !g.lost && err == nil && announces(status) {
			n++
			continue
		}
		not = append(not, g.name)
	}
	return n, len(s.gateways), "all do but: " + strings.Join(not, ", ")
}

// seeSessions is how many sessions of a site's routers are established, of those that they
// are to have.
func (l *lab) seeSessions(e *expectation) (n, of int, saw string) {
	var not []string
	for _, r := range l.site(e.at).routers {
		if r.lost {
			continue
		}
		var all map[string]struct { // by family
			Peers map[string]struct{ State string }
		}
		r.frr.JSON("show bgp summary json", &all)
		for family, s := range all {
			for peer, is := range s.Peers {
				if of++; is.State == "Established" {
					n++
					continue
				}
				not = append(not, fmt.Sprintf("%s %s %s %s", r.name, peer, family, is.State))
			}
		}
	}
	return n, of, "all are but: " + strings.Join(not, ", ")
}

// seePaths is how many paths of gateways to their peers BFD has up, which begins to look some
// seconds after the session is established.
func (l *lab) seePaths(e *expectation) (n, of int, saw string) {
	var not []string
	for _, g := range l.site(e.at).gateways {
		if g.lost {
			continue
		}
		status, err := l.status(g)
		if err != nil {
			return -1, 0, fmt.Sprintf("%s: %v", g.name, err)
		}
		for _, p := range status.Peers {
			if p.BFD == nil {
				continue
			}
			if of++; p.BFD.State == "up" {
				n++
				continue
			}
			not = append(not, fmt.Sprintf("%s to %s is %s", g.name, p.Name, p.BFD.State))
		}
	}
	return n, of, "all are up but: " + strings.Join(not, ", ")
}

func (l *lab) seeDeciders(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	all, saw := l.decides(s)
	return len(all), len(s.gateways), saw
}

// seeInstances is how many Consul has of the service that pass.
func (l *lab) seeInstances(e *expectation) (n, of int, saw string) {
	s := l.site(e.at)
	if s.consul == nil {
		must(fmt.Errorf("site %s has no consul", s.Name))
	}
	all, err := s.consul.healths("web")
	if err != nil {
		return -1, 0, err.Error()
	}
	for _, health := range all {
		if health == "passing" {
			n++
		}
	}
	return n, len(s.backends), fmt.Sprint(all)
}

func (l *lab) seeCounter(e *expectation) (n, of int, saw string) {
	key := strings.TrimSuffix(e.what, " packets")
	gateways := []*host{}
	for _, h := range l.hosts() {
		if h.role == roleGateway && (h.name == e.at || h.site.Name == e.at) {
			gateways = append(gateways, h)
		}
	}
	n, err := l.counted(gateways, key)
	if err != nil {
		return -1, 0, err.Error()
	}
	return n, n, fmt.Sprint(n, " ", e.what)
}
