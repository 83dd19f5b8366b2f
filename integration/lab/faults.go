package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/razor-steering/razor/steering/wire"
)

// failServices ends nginx on backends.
func (l *lab) failServices(names []string) {
	for _, name := range names {
		h := l.host(roleBackend, name)
		if h.lost {
			must(fmt.Errorf("%s is lost", h.name))
		}
		h.fall()
	}
}

// failRouters has routers lose their power.
func (l *lab) failRouters(names []string) {
	for _, name := range names {
		all := l.routers()
		i := slices.IndexFunc(all, func(r *router) bool { return r.name == name })
		if i < 0 {
			must(fmt.Errorf("no router %q: want one of %s", name, strings.Join(called(all, func(r *router) string { return r.name }), ", ")))
		}
		r := all[i]
		if r.lost {
			continue
		}
		r.lost = true
		ends := []func(){func() { r.frr.Kill() }}
		for _, p := range r.ports {
			ends = append(ends, p.link.Down)
			l.down = append(l.down, p.link)
		}
		parallel(ends...)
	}
}

// cut takes cables away: those between two sites, or two of routers and hosts.
func (l *lab) cut(args []string) {
	want(args, 2, "the names of two sites, or of two that a cable joins")
	i := slices.IndexFunc(l.cables, func(k *cable) bool {
		return k.a.Name == args[0] && k.b.Name == args[1] || k.b.Name == args[0] && k.a.Name == args[1]
	})
	if i >= 0 {
		l.cables[i].cut = true
		for _, k := range l.cables[i].links {
			k.Down()
		}
		return
	}
	found := false
	for _, r := range l.routers() {
		for _, p := range r.ports {
			ends := []string{p.link.A.Node.Name, p.link.B.Node.Name}
			if slices.Contains(ends, args[0]) && slices.Contains(ends, args[1]) && !slices.Contains(l.down, p.link) {
				p.link.Down()
				l.down = append(l.down, p.link)
				found = true
			}
		}
	}
	if !found {
		must(fmt.Errorf("no cable between %s and %s", args[0], args[1]))
	}
}

// rejoin mends what cut and failRouters broke, and hosts have their ways again.
func (l *lab) rejoin() {
	for _, k := range l.down {
		k.Up()
	}
	var starts []func()
	for _, r := range l.routers() {
		if r.lost {
			r.lost = false
			starts = append(starts, r.frr.Restart)
		}
	}
	parallel(starts...)
	for _, h := range l.hosts() {
		if slices.Contains(l.down, h.link) && !h.lost {
			l.route(h)
		}
	}
	l.down = nil
}

// drop loses packets on the cables of hosts without a word: all, or datagrams to gateways.
func (l *lab) drop(args []string) {
	if len(args) < 2 {
		must(errors.New("want all, reports or summaries, and hosts"))
	}
	for _, name := range args[1:] {
		i := slices.IndexFunc(l.hosts(), func(h *host) bool { return h.name == name })
		if i < 0 {
			must(fmt.Errorf("no host %q", name))
		}
		h := l.hosts()[i]
		datagrams := fmt.Sprintf("ip6 saddr %%s %s udp dport %d", h.site.locators(), wire.Port)
		switch args[0] {
		case "all":
			h.link.Drop()
		case "reports":
			h.link.DropTo(h.node, fmt.Sprintf(datagrams, "=="))
		case "summaries":
			h.link.DropTo(h.node, fmt.Sprintf(datagrams, "!="))
		default:
			must(fmt.Errorf("%q: want all, reports or summaries", args[0]))
		}
		h.dropped = true
	}
}

// lie has an agent say something else of its load than the truth.
func (l *lab) lie(args []string) {
	if len(args) < 1 || len(args) > 2 {
		must(errors.New("want a backend, and a number of connections"))
	}
	h := l.host(roleBackend, args[0])
	if h.site.Capacity == 0 || h.lost {
		must(fmt.Errorf("%s is lost, or has no capacity in the topology", h.name))
	}
	h.lies = ""
	if len(args) == 2 {
		if n, err := strconv.Atoi(args[1]); err != nil || n < 0 {
			must(fmt.Errorf("%q: want a number of connections", args[1]))
		}
		h.lies = args[1]
	}
	h.put("razor.yaml", l.backendConfig(h))
	h.agent.Signal(syscall.SIGHUP)
}

// mendLinks ends drop.
func (l *lab) mendLinks() {
	for _, h := range l.hosts() {
		if h.dropped {
			h.link.Heal()
			h.dropped = false
		}
	}
}
