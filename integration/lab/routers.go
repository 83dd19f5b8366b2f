package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/razor-steering/razor/integration/netlab"
)

// router is one of FRR. Its peers are at interfaces, by their link-local addresses.
type router struct {
	name  string
	as    uint32
	id    netip.Addr
	node  *netlab.Node
	ports []*port
	own   []netip.Prefix // that it announces
	frr   *netlab.FRR
	lost  bool

	evpn  bool       // it bridges the segment
	gate  netip.Addr // its address there, of an exit switch
	hosts []*host    // who are there, to an exit switch
	site  *site      // nil is that of a client
}

// port is an interface of a router.
type port struct {
	device string
	kind   kind
	link   *netlab.Link
	far    *netlab.End
	prefix netip.Prefix // of the host that it leads to
	from   string       // route map for what comes in; "" is that of its kind
}

// kind is who a port leads to.
type kind string

const (
	toGateway kind = "gateways"
	toHost    kind = "hosts" // by a static route
	toRouter  kind = "fabric"
	toFar     kind = "cables"   // of other sites
	toSwitch  kind = "switches" // of the segment, at any site
	toGuest   kind = "guests"   // gateways of other sites, in the segment
	toClient  kind = "people"
	toSite    kind = "sites" // of a client
)

// layRouters makes the router of a site, or its leaves, and spines or exit switches.
func (l *lab) layRouters(s *site) {
	add := func(name string) *router {
		r := l.router(name, s.AS+uint32(len(s.routers)), netip.AddrFrom4([4]byte{10, 0, byte(s.number), byte(1 + len(s.routers))}))
		r.site, r.evpn = s, s.Exits > 0
		s.routers = append(s.routers, r)
		return r
	}
	if s.Leaves == 0 {
		add(s.Name)
		return
	}
	for i := range s.Spines {
		add(fmt.Sprintf("%s-s%d", s.Name, i+1))
	}
	for i := range s.Exits {
		add(fmt.Sprintf("%s-exit%d", s.Name, i+1))
	}
	for i := range s.Leaves {
		leaf := add(fmt.Sprintf("%s-l%d", s.Name, i+1))
		for _, up := range s.routers[:s.Spines+s.Exits] {
			l.join(up, leaf, toRouter)
		}
	}
	s.bridge()
}

func (l *lab) router(name string, as uint32, id netip.Addr) *router {
	r := &router{name: name, as: as, id: id, node: l.net.Node(name)}
	r.node.Run("ip", "addr", "add", id.String()+"/32", "dev", "lo") // of its ICMP
	// Addresses and ports, instead of the hash that the sender's socket left on the packet:
	// this one changes when it sends again, and routers behind each other that spread by the
	// same hash give some of their ways nothing.
	for _, family := range []string{"ipv4", "ipv6"} {
		r.node.Sysctl("net."+family+".fib_multipath_hash_policy", "3")
		r.node.Sysctl("net."+family+".fib_multipath_hash_fields", "0x37")
	}
	const seed = "net.ipv4.fib_multipath_hash_seed"
	if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(seed, ".", "/")); err == nil { // Linux 6.11
		r.node.Sysctl(seed, fmt.Sprint(as))
	}
	return r
}

// racks are the routers that hosts are at.
func (s *site) racks() []*router { return s.routers[s.Spines+s.Exits:] }

// borders are the routers that lead to other sites and clients.
func (s *site) borders() []*router { return s.routers[:max(1, s.Exits)] }

// plug lays a cable from a new port of the router to a device of a node.
func (r *router) plug(l *lab, to *netlab.Node, device string, k kind, subnets ...string) *port {
	p := &port{device: fmt.Sprintf("swp%d", len(r.ports)+1), kind: k}
	p.link = l.net.Link(r.node, p.device, to, device, subnets...)
	p.far = &p.link.B
	r.ports = append(r.ports, p)
	return p
}

// join lays a cable between two routers.
func (l *lab) join(a, b *router, k kind) *netlab.Link {
	if a.evpn && b.evpn {
		k = toSwitch
	}
	device := fmt.Sprintf("swp%d", len(b.ports)+1)
	p := a.plug(l, b.node, device, k)
	b.ports = append(b.ports, &port{device: device, kind: k, link: p.link, far: &p.link.A})
	return p.link
}

// routers are all that run FRR.
func (l *lab) routers() (out []*router) {
	for _, s := range l.sites {
		out = append(out, s.routers...)
	}
	for _, c := range l.clients {
		out = append(out, c.router)
	}
	return out
}

func (l *lab) startRouters() {
	var starts []func()
	for _, r := range l.routers() {
		starts = append(starts, func() { r.frr = r.node.StartFRR(r.configuration()) })
	}
	parallel(starts...)
	l.bridging()
}

// policies are what routers take from whom: VIPs and locators from gateways, addresses of
// people from people, who hear of VIPs alone. Ways by other sites, and gateways of those, are
// for when there is none here, however many routers are in between. Switches of a segment tell
// each other where they are, and people.
const policies = `
ip prefix-list VIP4 seq 10 permit 198.51.100.0/24 ge 32
ip prefix-list PEOPLE4 seq 10 permit 203.0.113.0/24 ge 32
ipv6 prefix-list VIP6 seq 10 permit 2001:db8:ffff::/48 ge 128
ipv6 prefix-list LOCATOR6 seq 10 permit 2001:db8:5e::/48 ge 64 le 64
ipv6 prefix-list PEOPLE6 seq 10 permit 2001:db8:c::/48 ge 128
ipv6 prefix-list LINKS6 seq 10 permit 2001:db8::/48 ge 64 le 64
ip prefix-list SWITCHES4 seq 10 permit 10.0.0.0/16 ge 32
route-map GATEWAYS4 permit 10
 match ip address prefix-list VIP4
route-map GATEWAYS6 permit 10
 match ipv6 address prefix-list VIP6
route-map GATEWAYS6 permit 20
 match ipv6 address prefix-list LOCATOR6
route-map PEOPLE4 permit 10
 match ip address prefix-list PEOPLE4
route-map PEOPLE6 permit 10
 match ipv6 address prefix-list PEOPLE6
route-map WORLD4 permit 10
 match ip address prefix-list VIP4
route-map WORLD6 permit 10
 match ipv6 address prefix-list VIP6
route-map LINKS6 permit 10
 match ipv6 address prefix-list LINKS6
route-map GUESTS4 permit 10
 match ip address prefix-list VIP4
 set local-preference 50
route-map GUESTS6 permit 10
 match ipv6 address prefix-list VIP6
 set local-preference 50
route-map SWITCHES4 permit 10
 match ip address prefix-list SWITCHES4
route-map SWITCHES4 permit 20
 match ip address prefix-list PEOPLE4
route-map SWITCHES6 permit 10
 match ipv6 address prefix-list PEOPLE6
route-map FAR4 permit 10
 set local-preference 50
route-map FAR6 permit 10
 set local-preference 50
route-map NOTHING deny 10
`

// filters are the route maps of a kind of port, before the digit of the family: what is
// taken, and what is told. "" is everything.
var filters = map[kind][2]string{
	toGateway: {"GATEWAYS", "NOTHING"},
	toRouter:  {"", ""},
	toFar:     {"FAR", ""},
	toSwitch:  {"", "SWITCHES"},
	toGuest:   {"GUESTS", "NOTHING"},
	toClient:  {"PEOPLE", "WORLD"},
	toSite:    {"", "PEOPLE"},
}

// configuration is the router's frr.conf.
func (r *router) configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "frr defaults datacenter\nhostname %s\n!", r.name)
	if !r.gate.IsValid() {
		// Groups of next hops in the kernel are not filled up again when a link is back (FRR 8.4).
		// But without them IPv4 has one IPv6 next hop for each interface, and exit switches have
		// all gateways at one, which is always there.
		b.WriteString("\nzebra nexthop proto only\n!")
	}
	for _, p := range r.ports {
		if r.evpn || p.kind == toSite { // else 10 s: by them FRR finds a router that starts
			fmt.Fprintf(&b, "\ninterface %s\n ipv6 nd ra-interval 1\nexit", p.device)
		}
		if p.kind == toHost && !r.evpn {
			fmt.Fprintf(&b, "\nipv6 route %s %s %s", p.prefix, p.far.Local.WithZone(""), p.device)
		}
		if p.from != "" {
			fmt.Fprintf(&b, "\nroute-map %s permit 10\n set local-preference 100", p.from)
		}
	}
	b.WriteString(policies)
	fmt.Fprintf(&b, `!
router bgp %d
 bgp router-id %s
 no bgp default ipv4-unicast
 bgp disable-ebgp-connected-route-check
 bgp bestpath as-path multipath-relax
 bgp graceful-restart stalepath-time 120
`, r.as, r.id)
	for _, p := range r.ports {
		if p.kind != toHost {
			fmt.Fprintf(&b, " neighbor %s interface remote-as external\n neighbor %[1]s timers connect 1\n", p.device)
		}
	}
	r.gateways(&b)
	for _, family := range []string{"4", "6"} {
		r.family(&b, family)
	}
	r.l2vpn(&b)
	r.asked(&b)
	return b.String()
}

func (r *router) family(b *strings.Builder, family string) {
	fmt.Fprintf(b, " !\n address-family ipv%s unicast\n  maximum-paths 64\n", family)
	if family == "6" {
		fmt.Fprintln(b, "  redistribute static\n  redistribute connected route-map LINKS6")
	}
	for _, own := range r.own {
		if own.Addr().Is4() == (family == "4") {
			fmt.Fprintf(b, "  network %s\n", own)
		}
	}
	for _, p := range r.ports {
		if p.kind != toHost {
			activate(b, p.device, p.kind, p.from, family)
		}
	}
	for _, h := range r.hosts {
		switch {
		case h.role != roleGateway:
		case h.site == r.site:
			activate(b, h.near.String(), toGateway, "", family)
		default:
			activate(b, h.near.String(), toGuest, "", family)
		}
	}
	fmt.Fprintln(b, " exit-address-family")
}

// activate has a neighbour take part in a family, with the filters of its kind; from is a
// route map instead of the first of them.
func activate(b *strings.Builder, neighbour string, k kind, from, family string) {
	fmt.Fprintf(b, "  neighbor %s activate\n", neighbour)
	for i, direction := range []string{"in", "out"} {
		policy := filters[k][i]
		switch {
		case direction == "in" && from != "":
			policy = from
		case policy != "" && policy != "NOTHING":
			policy += family
		}
		if policy != "" {
			fmt.Fprintf(b, "  neighbor %s route-map %s %s\n", neighbour, policy, direction)
		}
	}
}
