package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// verb is a command of the prompt and of stories.
type verb struct {
	name string
	args string // as help shows them
	does string
	do   func(l *lab, args []string)
}

// verbs is the table of them, but for help and quit, which are the prompt's.
func verbs() []verb {
	return []verb{
		{"status", "", "how gateways, backends and clients are", func(l *lab, args []string) { none(args); l.show() }},
		{"picture", "", "the topology", func(l *lab, args []string) { none(args); fmt.Fprint(l.out, l.topology.picture()) }},
		{"fail", "backend|gateway|services|router|site NAME...", "hosts lose their power; decider SITE...: the gateway that decides; service BACKEND..., consul SITE...: nginx, or the server that leads, ends", (*lab).fail},
		{"drain", "backend|gateway|site NAME...", "no new flows, those that are there go on", func(l *lab, args []string) { l.drain(args, true) }},
		{"undrain", "backend|gateway|site NAME...", "end that", func(l *lab, args []string) { l.drain(args, false) }},
		{"restart", "gateway NAME...", "they end, and start, as a service manager has them", (*lab).restart},
		{"cut", "NAME NAME", "the cables between two sites, or two of routers and hosts", (*lab).cut},
		{"drop", "all|reports|summaries HOST...", "packets to it, silently: all of both ways, or what its agents tell it, or other sites", (*lab).drop},
		{"heal", "", "end all fail, drain, cut and drop", func(l *lab, args []string) { none(args); l.heal() }},
		{"shift", "CLIENT SITE", "its router prefers the way to another site", (*lab).shift},
		{"load", "SITE N%", "its clients keep so many connections, of its capacity", (*lab).load},
		{"lie", "BACKEND N", "its agent says that its load is N connections; without N the truth again", (*lab).lie},
		{"clock", "HOST... TIME", "their clocks are ahead by so much, such as +5s, from now on; the topology has clocks: true", (*lab).clock},
		{"mark", "", "count what breaks, and packets, from now on", func(l *lab, args []string) { none(args); l.mark() }},
		{"failover", "SITE", "how its new flows went elsewhere since the last mark, and when", func(l *lab, args []string) { want(args, 1, "a site"); l.failedOver(l.site(args[0])) }},
		{"outage", "OF-WHAT", "how long nothing was served since the last mark, for a table; and mark", (*lab).outage},
		{"wait", "TIME", "such as 2s", (*lab).wait},
		{"redis", "COMMAND...", "a command to the primary, as redis-cli takes it", (*lab).tell},
		{"logs", "HOST", "what its programs wrote last", (*lab).logs},
		{"exec", "HOST COMMAND...", "run a command there", (*lab).exec},
		{"expect", "HOW-MANY WHAT [of WHOM] [at PLACE]", "see below", (*lab).expect},
	}
}

const expectHelp = `
HOW-MANY is no, some, all, 3, 40%, 3-5, 20%-30%, at least 3, at most 40%, or any, which
shows it. "over 30s" at the end is the mean of that time. WHAT and its PLACE:

  new flows                     opened for this, at a site or backend
  connections                   that are kept, at a site or backend
  broken connections            since the last mark; all are asked first
  failed flows                  new ones that came to nothing, since the last mark
  active|draining|dead backends at a site, as its gateways see them
  gone backends                 whose agents are silent, and whose hosts do not answer
  announcing gateways           at a site
  deciding gateways             at a site
  sessions                      of BGP, of a site's routers and families; all are established
  paths                         of a site's gateways to their peers, by BFD; all are up
  passing instances             in Consul, at a site
  addresses                     of a name, at the nameserver of a site
  watched programs              with -prometheus, those that it has metrics of
  outgoing flows                opened for this, whose answers leave at an exit switch; at
                                exits is at each that is there
  load                          at a site, of its capacity
  spilled share                 of a site, of its clients' new flows, as was decided
  pins                          at a site or gateway
  away|entered|spilled packets  since the last mark, at a site or gateway: any result
                                of razor_gateway_packets_total
  refused|early|stale reports   of agents, since the last mark, at a site or gateway: any
                                reason of razor_gateway_report_refusals_total
  refused|early|stale summaries of other sites, likewise
`

// run does one command line.
func (l *lab) run(words []string) error {
	for _, v := range verbs() {
		if v.name == words[0] {
			return try(func() { v.do(l, words[1:]) })
		}
	}
	return fmt.Errorf("no command %q: want one of %s", words[0], strings.Join(called(verbs(), func(v verb) string { return v.name }), ", "))
}

func none(args []string) {
	if len(args) > 0 {
		must(fmt.Errorf("%q is too much", strings.Join(args, " ")))
	}
}

// want leaves unless there are so many arguments.
func want(args []string, n int, usage string) {
	if len(args) != n {
		must(errors.New("want " + usage))
	}
}

// chosen are the hosts that "backend west-1 west-2" names; sites are theirs if it names
// some.
func (l *lab) chosen(args []string) (hosts []*host, sites []*site) {
	if len(args) < 2 {
		must(errors.New("want backend, gateway or site, and a name"))
	}
	for _, name := range args[1:] {
		switch args[0] {
		case "backend", "gateway", "services":
			hosts = append(hosts, l.host(role(args[0]), name))
		case "site":
			sites = append(sites, l.site(name))
		default:
			must(fmt.Errorf("%q: want backend, gateway or site", args[0]))
		}
	}
	return hosts, sites
}

func (l *lab) fail(args []string) {
	switch {
	case len(args) < 2:
	case args[0] == "consul":
		l.failConsul(args[1:])
		return
	case args[0] == "router":
		l.failRouters(args[1:])
		return
	case args[0] == "service":
		l.failServices(args[1:])
		return
	case args[0] == "decider":
		args = append([]string{"gateway"}, l.deciders(args[1:])...)
	}
	hosts, sites := l.chosen(args)
	for _, s := range sites {
		s.lost = true
		for _, k := range s.outside {
			k.Down()
		}
		hosts = append(hosts, s.hosts()...)
	}
	var does []func()
	for _, h := range hosts {
		if !h.lost {
			does = append(does, func() { l.lose(h) })
		}
	}
	parallel(does...)
}

// restart has gateways end in order, and start again.
func (l *lab) restart(args []string) {
	if len(args) < 2 || args[0] != "gateway" {
		must(errors.New("want gateway, and a name"))
	}
	for _, name := range args[1:] {
		h := l.host(roleGateway, name)
		if h.lost {
			must(fmt.Errorf("%s is lost", h.name))
		}
		for _, p := range h.running {
			p.Terminate()
		}
		h.running = nil
		l.boot(h)
	}
}

func (l *lab) drain(args []string, on bool) {
	hosts, sites := l.chosen(args)
	var does []func()
	for _, s := range sites {
		does = append(does, func() { l.drainSite(s, on) })
	}
	for _, h := range hosts {
		does = append(does, func() { l.drainHost(h, on) })
	}
	parallel(does...)
}

// decider is the gateway that decides at a site.
func (l *lab) decider(s *site) *host {
	all, saw := l.decides(s)
	if len(all) == 0 {
		must(fmt.Errorf("no gateway of %s is there that decides %s", s.Name, saw))
	}
	return all[0]
}

// deciders are the names of those of sites.
func (l *lab) deciders(sites []string) (names []string) {
	for _, name := range sites {
		names = append(names, l.decider(l.site(name)).name)
	}
	return names
}

// drainSite tells the gateway that decides at a site.
func (l *lab) drainSite(s *site, on bool) {
	g := l.decider(s)
	ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
	defer cancel()
	var err error
	if on {
		_, err = gateway.DrainSiteLive(ctx, g.file("state"), "drained in the lab", true)
	} else {
		_, err = gateway.UndrainSiteLive(ctx, g.file("state"))
	}
	must(err)
	s.drained = on
}

func (l *lab) drainHost(h *host, on bool) {
	if h.lost {
		must(fmt.Errorf("%s is lost", h.name))
	}
	ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
	defer cancel()
	var err error
	switch {
	case h.role == roleGateway && on:
		_, err = gateway.DrainLive(ctx, h.file("state"), "drained in the lab")
	case h.role == roleGateway:
		_, err = gateway.UndrainLive(ctx, h.file("state"))
	case on:
		_, err = agent.DrainLive(ctx, h.file("state"), "drained in the lab")
	default:
		_, err = agent.UndrainLive(ctx, h.file("state"))
	}
	if err != nil {
		must(fmt.Errorf("%s: %w", h.name, err))
	}
	h.drained = on
}

// heal mends all, cables first, as hosts ask others when they start.
func (l *lab) heal() {
	for _, k := range l.cables {
		if k.cut || k.a.lost || k.b.lost {
			for _, link := range k.links {
				link.Up()
			}
			k.cut = false
		}
	}
	l.rejoin()
	l.mendLinks()
	for _, s := range l.sites {
		if !s.lost {
			continue
		}
		for _, k := range s.outside {
			k.Up()
		}
		s.lost = false
	}
	var first, then []func()
	for _, h := range l.hosts() {
		switch {
		case h.lost && (h.role == roleServices || h.role == roleConsul):
			first = append(first, func() { l.mend(h) })
		case h.consul != nil && !h.lost:
			first = append(first, func() { l.mendConsul(h) })
		case h.ill && !h.lost:
			then = append(then, h.serve)
		case h.lost:
			then = append(then, func() { l.mend(h) })
		}
		if h.drained {
			then = append(then, func() { l.drainHost(h, false) })
		}
	}
	parallel(first...)
	parallel(then...)
	for _, s := range l.sites {
		if s.drained {
			l.eventually(s.Name+" to be undrained", func() (bool, string) { // its gateway may have just started
				err := try(func() { l.drainSite(s, false) })
				return err == nil, fmt.Sprint(err)
			})
		}
	}
	for _, c := range l.clients {
		c.want(c.Keep)
	}
}

func (l *lab) shift(args []string) {
	want(args, 2, "the names of a client and a site")
	c, s := l.client(args[0]), l.site(args[1])
	c.shift(s.Name)
	l.eventually(c.Name+" to enter "+s.Name, func() (bool, string) {
		way := c.way()
		return slices.Equal(way, []string{s.Name}), fmt.Sprint("its packets go to ", way)
	})
}

func (l *lab) load(args []string) {
	want(args, 2, "the name of a site, and a share such as 150%")
	s := l.site(args[0])
	share, err := strconv.ParseFloat(strings.TrimSuffix(args[1], "%"), 64)
	if err != nil || !strings.HasSuffix(args[1], "%") || !(share >= 0 && share <= 1000) {
		must(fmt.Errorf("%q: want 0%% to 1000%%", args[1]))
	}
	if s.Capacity == 0 {
		must(fmt.Errorf("site %s has no capacity in the topology", s.Name))
	}
	near := slices.DeleteFunc(slices.Clone(l.clients), func(c *client) bool { return c.Site != s.Name })
	if len(near) == 0 {
		must(fmt.Errorf("no client is at %s", s.Name))
	}
	total := int(share / 100 * float64(s.Capacity*len(s.backends)))
	for i, c := range near {
		c.want(total*(i+1)/len(near) - total*i/len(near))
	}
}

// want has the client keep so many connections.
func (c *client) want(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep = n
}

func (l *lab) wait(args []string) {
	want(args, 1, "a time such as 2s")
	d, err := time.ParseDuration(args[0])
	if err != nil || d < 0 {
		must(fmt.Errorf("%q: want a time such as 2s", args[0]))
	}
	l.pause(d)
}

// pause lets time go by.
func (l *lab) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.ctx.Done():
		must(l.ctx.Err())
	}
}

// tell gives a command to the Redis that all others copy.
func (l *lab) tell(args []string) {
	h := l.primary()
	if h == nil || h.lost || len(args) == 0 {
		must(errors.New("want a command, and redis: primary at a site that is there"))
	}
	r := l.redis(h)
	defer r.Close()
	line := make([]any, len(args))
	for i, a := range args {
		line[i] = a
	}
	said, err := r.Do(l.ctx, line...).Result()
	must(err)
	fmt.Fprintln(l.out, said)
}

func (l *lab) logs(args []string) {
	want(args, 1, "the name of a host")
	i := slices.IndexFunc(l.hosts(), func(h *host) bool { return h.name == args[0] })
	if i < 0 {
		must(fmt.Errorf("no host %q", args[0]))
	}
	fmt.Fprint(l.out, l.hosts()[i].logs())
}

// exec runs a command on a host, router or client; vtysh finds the FRR of that router.
func (l *lab) exec(args []string) {
	if len(args) < 2 {
		must(errors.New("want the name of a host, router or client, and a command"))
	}
	node := l.node(args[0])
	command := args[1:]
	if command[0] == "vtysh" {
		dir := filepath.Join(node.Dir, "frr")
		command = append([]string{"vtysh", "--vty_socket", dir, "--config_dir", dir}, command[1:]...)
	}
	said, err := node.Command(command[0], command[1:]...).CombinedOutput()
	fmt.Fprintf(l.out, "%s", said)
	must(err)
}

// node is that of a host, router or client.
func (l *lab) node(name string) *netlab.Node {
	for _, h := range l.hosts() {
		if h.name == name {
			return h.node
		}
	}
	for _, r := range l.routers() {
		if r.name == name {
			return r.node
		}
	}
	must(fmt.Errorf("no host, router or client %q", name))
	return nil
}
