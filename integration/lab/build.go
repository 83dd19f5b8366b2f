package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// lab is a topology that runs.
type lab struct {
	*ground

	topology *Topology
	out      io.Writer
	razor    string // path of the binary
	consul   string // path of Consul; "" where the topology has none
	net      *netlab.Lab
	pins     string
	sites    []*site
	cables   []*cable
	clients  []*client
	marked   map[string]int // counters at the last mark, by gateway and series
	since    time.Time      // of the last mark
	outages  []outage       // that were asked for
	down     []*netlab.Link // that were cut

	together   string // address of the page of all gateways; "" without
	prometheus string // address; "" without
}

// site is one that runs.
type site struct {
	*Site

	number   int
	routers  []*router
	gateways []*host
	backends []*host
	services *host // nil without
	consul   *host // nil without
	outside  []*netlab.Link
	lost     bool // its links to the outside are down
	drained  bool
}

// cable is what joins two sites: a link, or one for each of their exit switches.
type cable struct {
	a, b  *site
	links []*netlab.Link
	cut   bool
}

// host is a machine at a router.
type host struct {
	name    string
	site    *site
	role    role
	number  int // of its locator
	node    *netlab.Node
	link    *netlab.Link
	running []*netlab.Process
	web     *netlab.Process // of them, the service of a backend
	ill     bool            // that is not there
	agent   *netlab.Process // of them, of a backend
	lies    string          // what its agent says of its load; "" is the truth
	consul  []*consulServer // that run there
	near    netip.Addr      // its address on the link, which is there before its locator is known
	lost    bool
	drained bool
	dropped bool // packets to it, of some kind

	ahead time.Duration // of the machine's is the clock of the host
}

type role string

const (
	roleGateway  role = "gateway"
	roleBackend  role = "backend"
	roleServices role = "services"
	roleConsul   role = "consul"
)

// What is the same in all labs.
const (
	vip4     = "198.51.100.1"
	vip6     = "2001:db8:ffff::1"
	block    = "2001:db8:5e::/48"
	perSite  = 0x100 // locators
	backends = 0x10  // number of the first one's locator, within its site
	services = 0xf0
)

// locator is the /64 of a host of that number.
func locator(number int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%x::/64", number))
}

// address is that of the host in its locator.
func (h *host) address() netip.Addr { return locator(h.number).Addr().Next() }

// locators is the prefix of all of a site's hosts.
func (s *site) locators() netip.Prefix {
	return netip.PrefixFrom(locator(s.number*perSite).Addr(), 56)
}

// file is a path on the host's own part of the disk.
func (h *host) file(name string) string { return filepath.Join(h.node.Dir, name) }

// start builds the lab and starts all that is in it. Where it cannot, it leaves nothing.
func start(ctx context.Context, t *Topology, razor string, out, log io.Writer) (*lab, error) {
	l := &lab{ground: &ground{ctx: ctx, log: log}, topology: t, out: out, razor: razor}
	if t.needsConsul() {
		var err error
		if l.consul, err = consulBinary(); err != nil {
			return nil, err
		}
	}
	ready := false
	defer func() { // also where it panics
		if !ready {
			l.stop()
		}
	}()
	began := time.Now()
	for _, phase := range []struct {
		what string
		do   func()
	}{
		{"namespaces and cables", l.lay},
		{"routers (FRR)", l.startRouters},
		{"razor and what it asks", l.startHosts},
		{"routes and health", l.settle},
		{"connections", l.connect},
	} {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("interrupted before: %s", phase.what)
		}
		from := time.Now()
		if err := try(phase.do); err != nil {
			return nil, fmt.Errorf("%s: %w", phase.what, err)
		}
		fmt.Fprintf(out, "%-28s %5.1f s\n", phase.what, time.Since(from).Seconds())
	}
	fmt.Fprintf(out, "%-28s %5.1f s\n\n", "ready after", time.Since(began).Seconds())
	ready, l.since = true, time.Now()
	return l, nil
}

// stop ends all, and leaves nothing. All processes die at once, so that none waits for
// another one.
func (l *lab) stop() {
	var ends []func()
	for _, c := range l.clients {
		ends = append(ends, c.stop)
	}
	for _, h := range l.hosts() {
		ends = append(ends, h.kill)
	}
	for _, r := range l.routers() {
		if r.frr != nil {
			ends = append(ends, func() { r.frr.Kill() })
		}
	}
	_ = try(func() { parallel(ends...) })
	l.end()
}

// lay makes nodes and cables.
func (l *lab) lay() {
	l.net = netlab.New(l.ground)
	l.pins = l.net.BPFFS()
	must(os.MkdirAll(l.pins, 0o700))
	for i := range l.topology.Sites {
		s := &site{Site: &l.topology.Sites[i], number: i}
		l.sites = append(l.sites, s)
		l.layRouters(s)
		for j := range s.Gateways {
			s.gateways = append(s.gateways, l.layHost(s, roleGateway, fmt.Sprintf("%s-gw%d", s.Name, j+1), 1+j, j))
		}
		for j := range s.Backends {
			s.backends = append(s.backends, l.layHost(s, roleBackend, fmt.Sprintf("%s-%d", s.Name, j+1), backends+j, j))
		}
		if s.Redis != "" {
			s.services = l.layHost(s, roleServices, s.Name+"-svc", services, 0)
		}
		if s.Consul > 0 {
			s.consul = l.layHost(s, roleConsul, s.Name+"-consul", consulHost, 0)
		}
	}
	for _, c := range l.topology.Cables {
		nameA, nameB, _ := ends(c)
		a, b := l.site(nameA), l.site(nameB)
		k := &cable{a: a, b: b}
		for i := range max(len(a.borders()), len(b.borders())) {
			k.links = append(k.links, l.join(a.borders()[i%len(a.borders())], b.borders()[i%len(b.borders())], toFar))
		}
		a.outside, b.outside = append(a.outside, k.links...), append(b.outside, k.links...)
		l.cables = append(l.cables, k)
	}
	for i := range l.topology.Clients {
		l.layClient(&l.topology.Clients[i], i)
	}
	l.meet()
	for _, h := range l.hosts() {
		l.route(h)
	}
}

// layHost makes a host at one of the site's racks.
func (l *lab) layHost(s *site, of role, name string, number, turn int) *host {
	racks := s.racks()
	r := racks[turn%len(racks)]
	h := &host{name: name, site: s, role: of, number: s.number*perSite + number, node: l.net.Node(name)}
	kind := toHost
	if of == roleGateway {
		kind = toGateway
	}
	subnets := []string{fmt.Sprintf("2001:db8:0:%x::1/64", h.number)}
	if s.Exits > 0 {
		kind, subnets = toHost, nil
	}
	p := r.plug(l, h.node, "eth0", kind, subnets...)
	p.prefix = locator(h.number)
	h.link = p.link
	h.link.A.MeetXDP()
	h.link.B.WholeChecksums()
	if s.Exits > 0 {
		h.bridged(r, p)
	} else {
		h.near = h.link.B.Addrs[0]
	}
	h.node.Run("ip", "addr", "add", h.address().String()+"/64", "dev", "lo")
	return h
}

// route has the host send all to its router, as after each loss of its link.
func (l *lab) route(h *host) {
	if l.topology.overlay() {
		l.routeOverlay(h)
		return
	}
	router := h.link.A.Local.WithZone("").String()
	h.node.Run("ip", "-6", "route", "replace", "default", "via", router, "dev", "eth0")
	h.node.Run("ip", "-4", "route", "replace", "default", "via", "inet6", router, "dev", "eth0")
}

// site is the one of that name.
func (l *lab) site(name string) *site {
	i := slices.IndexFunc(l.sites, func(s *site) bool { return s.Name == name })
	if i < 0 {
		must(fmt.Errorf("no site %q: want one of %s", name, strings.Join(called(l.sites, func(s *site) string { return s.Name }), ", ")))
	}
	return l.sites[i]
}

// host is the one of that name and role.
func (l *lab) host(of role, name string) *host {
	all := slices.DeleteFunc(l.hosts(), func(h *host) bool { return h.role != of })
	i := slices.IndexFunc(all, func(h *host) bool { return h.name == name })
	if i < 0 {
		must(fmt.Errorf("no %s %q: want one of %s", of, name, strings.Join(called(all, func(h *host) string { return h.name }), ", ")))
	}
	return all[i]
}

// client is the one of that name.
func (l *lab) client(name string) *client {
	i := slices.IndexFunc(l.clients, func(c *client) bool { return c.Name == name })
	if i < 0 {
		must(fmt.Errorf("no client %q: want one of %s", name, strings.Join(called(l.clients, func(c *client) string { return c.Name }), ", ")))
	}
	return l.clients[i]
}

func called[E any](all []E, name func(E) string) (out []string) {
	for _, e := range all {
		out = append(out, name(e))
	}
	return out
}

// hosts are those of all sites.
func (l *lab) hosts() (out []*host) {
	for _, s := range l.sites {
		out = append(out, s.hosts()...)
	}
	return out
}

func (s *site) hosts() []*host {
	out := slices.Concat(s.gateways, s.backends)
	for _, h := range []*host{s.services, s.consul} {
		if h != nil {
			out = append(out, h)
		}
	}
	return out
}

// soon is how long things have to become as they are to be: a loaded machine takes long.
const soon = 2 * time.Minute

// eventually asks until it is so, and leaves with what was seen if it does not come to be,
// or when the lab is interrupted.
func (l *lab) eventually(what string, seen func() (ok bool, saw string)) {
	for deadline := time.Now().Add(soon); ; {
		ok, saw := seen()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			must(fmt.Errorf("%s: not within %v: %s", what, soon, saw))
		}
		select {
		case <-l.ctx.Done():
			must(fmt.Errorf("%s: interrupted", what))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
