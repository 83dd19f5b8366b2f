package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/gateway"
)

// settle waits until gateways announce the VIPs and hear all backends, and have ways to
// those of other sites.
func (l *lab) settle() {
	l.eventually("gateways and backends", func() (bool, string) {
		l.alive()
		var wrong []string
		for _, s := range l.sites {
			if why := l.unresolved(s); why != "" {
				wrong = append(wrong, why)
			}
			for _, g := range s.gateways {
				if why := l.unsettled(g); why != "" {
					wrong = append(wrong, g.name+": "+why)
				}
			}
		}
		for _, r := range l.exits() {
			if why := r.unsettled(); why != "" {
				wrong = append(wrong, r.name+": "+why)
			}
		}
		if len(wrong) == 0 {
			return true, ""
		}
		return false, strings.Join(wrong, "; ")
	})
}

// alive leaves with what a program said that has ended by itself.
func (l *lab) alive() {
	for _, h := range l.hosts() {
		for _, p := range h.running {
			if !p.Alive() {
				must(fmt.Errorf("a program on %s has ended\n%s", h.name, h.logs()))
			}
		}
	}
}

// unsettled is what a gateway waits for; "" if nothing.
func (l *lab) unsettled(g *host) string {
	s, err := l.status(g)
	if err != nil {
		return err.Error()
	}
	here := 0
	for _, b := range s.Backends {
		h := g.site.backend(b)
		if h == nil {
			continue
		}
		here++
		if b.Agent == nil || b.Agent.Health != "up" || b.Why != "" {
			return fmt.Sprintf("backend %s is not up %s", h.name, b.Why)
		}
	}
	if here < len(g.site.backends) {
		return fmt.Sprintf("it has %d of %d backends", here, len(g.site.backends))
	}
	if s.Decider != nil && !s.Decider.Heard {
		return "consul does not tell it who decides"
	}
	if why := unheard(s); why != "" {
		return why
	}
	if others := len(l.nearest(g.site)); len(s.Sites) < others {
		return fmt.Sprintf("it knows %d of %d other sites", len(s.Sites), others)
	}
	for _, o := range s.Sites {
		for _, e := range o.Gateways {
			if e.Why != "" {
				return "no way to " + e.SID + " of " + o.Site + ": " + e.Why
			}
		}
	}
	if !announces(s) {
		return "does not announce the VIPs"
	}
	return ""
}

// unheard is another site that a gateway knows nothing of yet; "" if there is none.
func unheard(s gateway.Status) string {
	switch {
	case s.Decision == nil:
		return "decided nothing"
	case s.Decider != nil && s.Decider.Decides != (s.Decision.Mate == ""):
		return fmt.Sprintf("what was decided is of %q, and %s", s.Decision.Mate, s.Decider)
	}
	for _, d := range s.Decision.Services {
		for _, o := range d.Sites {
			if strings.HasPrefix(o.Reason, "not believed") {
				return o.Site + " is " + o.Reason
			}
		}
	}
	return ""
}

// status is what a gateway says of itself.
func (l *lab) status(g *host) (gateway.Status, error) {
	ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
	defer cancel()
	return gateway.StatusLive(ctx, g.file("state"))
}

// announces tells whether a gateway announces the VIPs, to a peer that hears it.
func announces(s gateway.Status) bool {
	n := 0
	for _, a := range s.Announcements {
		if a.Set == "web" && a.Presence == "announced" {
			n++
		}
	}
	return n == 2 && slices.ContainsFunc(s.Peers, func(p gateway.PeerStatus) bool { return p.State == "established" })
}

// backend is the site's host that a gateway speaks of; nil if it is none of it. What comes
// from Consul has no other name than that of Consul's node.
func (s *site) backend(b gateway.BackendStatus) *host {
	sid, err := netip.ParseAddr(b.SID)
	if err != nil {
		return nil
	}
	i := slices.IndexFunc(s.backends, func(h *host) bool { return locator(h.number).Contains(sid) })
	if i < 0 {
		return nil
	}
	return s.backends[i]
}

// has tells whether a host of that name is at the site.
func (s *site) has(name string) bool {
	return slices.ContainsFunc(s.hosts(), func(h *host) bool { return h.name == name })
}

// series is a line of /metrics with a number without a fraction.
var series = regexp.MustCompile(`^(razor_gateway_pins|razor_gateway_packets_total\{dropped="(?:true|false)",result="([a-z_]+)"\}) ([0-9.e+]+)$`)

// refusals is one of datagrams that were not believed.
var refusals = regexp.MustCompile(`^razor_gateway_(report|site)_refusals_total\{reason="([a-z_]+)"\} ([0-9.e+]+)$`)

// counters are those of a gateway: packets by what became of them, "pins", and "early reports"
// and the like.
func (l *lab) counters(g *host) (map[string]int, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: g.node.Dial, DisableKeepAlives: true}}
	answer, err := client.Get("http://" + httpAddress + "/metrics")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g.name, err)
	}
	defer answer.Body.Close()
	return readCounters(answer.Body)
}

func readCounters(r io.Reader) (map[string]int, error) {
	out := map[string]int{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if m := refusals.FindStringSubmatch(lines.Text()); m != nil {
			v, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				return nil, err
			}
			of := map[string]string{"report": "reports", "site": "summaries"}[m[1]]
			out["refused "+of] += int(v)
			out[m[2]+" "+of] += int(v)
			continue
		}
		m := series.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		key := m[2]
		if key == "" {
			key = "pins"
		}
		out[key] += int(v)
	}
	return out, lines.Err()
}

// counted is the sum of a counter of gateways that run, since the last mark; pins are those
// of now.
func (l *lab) counted(gateways []*host, key string) (int, error) {
	sum := 0
	for _, g := range gateways {
		if g.lost {
			continue
		}
		c, err := l.counters(g)
		if err != nil {
			return 0, err
		}
		n := c[key]
		if was := l.marked[g.name+" "+key]; key != "pins" && n >= was { // else it began anew
			n -= was
		}
		sum += n
	}
	return sum, nil
}

// loaded is the load of the backends of a site that are not dead, and their capacity, as
// its first gateway that runs hears.
func (l *lab) loaded(s *site) (load, capacity float64, err error) {
	i := slices.IndexFunc(s.gateways, func(g *host) bool { return !g.lost })
	if i < 0 {
		return 0, 0, fmt.Errorf("no gateway of %s runs", s.Name)
	}
	status, err := l.status(s.gateways[i])
	if err != nil {
		return 0, 0, err
	}
	for _, b := range status.Backends {
		if b.Agent != nil && b.State != "dead" && s.backend(b) != nil {
			load, capacity = load+b.Agent.Load, capacity+b.Agent.Capacity
		}
	}
	return load, capacity, nil
}

// mark has what is counted count from now.
func (l *lab) mark() {
	l.marked, l.since = map[string]int{}, time.Now()
	for _, s := range l.sites {
		for _, g := range s.gateways {
			if g.lost {
				continue
			}
			c, err := l.counters(g)
			must(err)
			for key, n := range c {
				l.marked[g.name+" "+key] = n
			}
		}
	}
	for _, c := range l.clients {
		c.mu.Lock()
		c.broke, c.failed = nil, nil
		c.mu.Unlock()
	}
}

// show writes how all is.
func (l *lab) show() {
	t := tabwriter.NewWriter(l.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "GATEWAY\tSTATE\tANNOUNCES\tBACKENDS\tPINS\tSENT\tSPILLED\tAWAY\tENTERED")
	for _, s := range l.sites {
		for _, g := range s.gateways {
			l.showGateway(t, g)
		}
	}
	fmt.Fprintln(t, "\nBACKEND\tSTATE\tAGENT\tLOAD\tNEW FLOWS\tWHY")
	for _, s := range l.sites {
		l.showBackends(t, s)
	}
	fmt.Fprintln(t, "\nCLIENTS OF\tGO TO\tSHARE\tWHY")
	for _, s := range l.sites {
		l.showDecision(t, s)
	}
	for _, k := range l.cables {
		if k.cut {
			fmt.Fprintf(t, "\ncut: %s %s", k.a.Name, k.b.Name)
		}
	}
	fmt.Fprintln(t, "\nCLIENT\tENTERS\tKEPT\tWHERE\tBROKEN\tNEW/s\tWHERE\tFAILED")
	for _, c := range l.clients {
		c.show(t)
	}
	_ = t.Flush()
}

func (l *lab) showGateway(w io.Writer, g *host) {
	if g.lost {
		fmt.Fprintf(w, "%s\tlost\t-\t-\t-\t-\t-\t-\t-\n", g.name)
		return
	}
	s, err := l.status(g)
	if err != nil {
		fmt.Fprintf(w, "%s\t%v\n", g.name, err)
		return
	}
	active, announced := 0, "no"
	for _, b := range s.Backends {
		if b.State == "active" {
			active++
		}
	}
	if announces(s) {
		announced = "yes"
	}
	c, _ := l.counters(g)
	fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%d\t%d\t%d\t%d\t%d\n", g.name, s.Stage, announced, active, len(g.site.backends), c["pins"], c["sent"], c["spilled"], c["away"], c["entered"])
}

// showBackends writes the backends of a site, as its first gateway that runs sees them.
func (l *lab) showBackends(w io.Writer, s *site) {
	i := slices.IndexFunc(s.gateways, func(g *host) bool { return !g.lost })
	if i < 0 {
		fmt.Fprintf(w, "%s: no gateway runs\n", s.Name)
		return
	}
	status, err := l.status(s.gateways[i])
	if err != nil {
		fmt.Fprintf(w, "%s: %v\n", s.Name, err)
		return
	}
	for _, b := range status.Backends {
		at := s.backend(b)
		if at == nil {
			continue
		}
		agent, load := "-", "-"
		if b.Agent != nil {
			agent = b.Agent.Health
			switch {
			case b.Agent.Silent:
				agent = "silent"
			case b.Agent.Draining:
				agent = "draining"
			}
			if b.Agent.Capacity > 0 {
				load = fmt.Sprintf("%.0f %%", 100*b.Agent.Load/b.Agent.Capacity)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f %%\t%s\n", at.name, b.State, agent, load, 100*b.Share, strings.Trim(b.Reason+"; "+b.Why, "; "))
	}
}

// showDecision writes where a site's gateways send new flows.
func (l *lab) showDecision(w io.Writer, s *site) {
	for _, g := range s.gateways {
		if g.lost {
			continue
		}
		status, err := l.status(g)
		if err != nil || status.Decision == nil {
			continue
		}
		for _, d := range status.Decision.Services {
			fmt.Fprintf(w, "%s\t%s\t%.0f %%\t%s\n", s.Name, d.Here.Site, 100*d.Here.Share, d.Reason)
			for _, to := range d.Sites {
				fmt.Fprintf(w, "%s\t%s\t%.0f %%\t%s\n", s.Name, to.Site, 100*to.Share, to.Reason)
			}
		}
		return
	}
}

func (c *client) show(w io.Writer) {
	kept := map[string]int{}
	for _, k := range c.connections() {
		kept[c.lab.siteOf(k.by)]++
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	visits, total := map[string]int{}, 0
	for _, v := range c.visits {
		if v.err == nil && time.Since(v.ended) < recently {
			visits[c.lab.siteOf(v.by)]++
			total++
		}
	}
	all := 0
	for _, n := range kept {
		all += n
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%.1f\t%s\t%d\n", c.Name, strings.Join(c.way(), ", "), all, tally(kept), len(c.broke), float64(total)/recently.Seconds(), tally(visits), len(c.failed))
}

// tally is how many of what there are: 3 west, 1 east.
func tally(by map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(by)) {
		out = append(out, fmt.Sprint(by[k], " ", k))
	}
	if out == nil {
		return "-"
	}
	return strings.Join(out, ", ")
}

// siteOf is the site of a host.
func (l *lab) siteOf(name string) string {
	for _, s := range l.sites {
		if s.has(name) {
			return s.Name
		}
	}
	return name
}
