package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/upstreams"
)

// takePatience is for how long the kernel may take for the routes of IPv6 addresses.
const takePatience = time.Second

var errNotTaken = errors.New("the kernel has no route to it; is loopback up?")

// errNotAllowed is the want of the capability that changing addresses takes.
var errNotAllowed = errors.New("binding on loopback is not permitted; want CAP_NET_ADMIN")

// Bind makes the host take the packets to prefixes, and no longer those to what
// an earlier call bound and this one does not name, also one of a process that was
// killed. What is bound already stays untouched; what somebody removed is bound again.
//
// A VIP becomes an address of lo, so that programs can listen on it; the host never
// chooses it as the source of what it asks itself, as answers to an anycast address
// may go to another site. A shorter prefix becomes a local route: programs can listen
// on an IPv4 address in it, on an IPv6 one with IP_FREEBIND. Local routes come before
// all others, so that nothing in the prefix can be reached by way of this host.
//
// Addresses and routes that others made are never touched, and serve where they do
// what was asked for; before Linux 5.18 the addresses of Bind cannot be told from
// those, and stay. A prefix that cannot be bound hinders no other: the error is then
// a *BindError. One gateway runs in a network namespace: another one's would be
// removed. It acts in the namespace of the calling thread, for milliseconds, and returns
// when packets are taken.
func Bind(prefixes []netip.Prefix) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	bound, err := lo.bound()
	if err != nil {
		return err
	}
	var failed BindError
	patience := time.Duration(0) // what is bound already is taken already
	wanted := map[netip.Prefix]bool{}
	for _, p := range prefixes {
		p = p.Masked()
		if wanted[p] {
			continue
		}
		wanted[p] = true
		if _, there := bound[p]; !there {
			failed.bind(p, lo.bind(p))
			patience = takePatience
		}
	}
	if err := lo.awaitTaken(wanted, &failed, patience); err != nil {
		return err
	}
	for p, mine := range bound {
		if mine && !wanted[p] {
			failed.err = errors.Join(failed.err, explain("unbind", p, lo.unbind(p)))
		}
	}
	if failed.err == nil {
		return nil
	}
	return &failed
}

// A BindError is why some prefixes are not bound, or still are.
type BindError struct {
	Failed map[netip.Prefix]string // what is not bound, and why
	err    error
}

// Error is the errors of all prefixes; that there is no right to bind, once.
func (e *BindError) Error() string {
	if errors.Is(e.err, unix.EPERM) {
		return errNotAllowed.Error()
	}
	return e.err.Error()
}

// Unwrap is the errors of all prefixes.
func (e *BindError) Unwrap() error { return e.err }

// bind notes that p was not bound, if err says so.
func (e *BindError) bind(p netip.Prefix, err error) {
	if err == nil {
		return
	}
	if e.Failed == nil {
		e.Failed = map[netip.Prefix]string{}
	}
	e.Failed[p] = err.Error()
	if errors.Is(err, unix.EPERM) {
		e.Failed[p] = "not permitted; want CAP_NET_ADMIN"
	}
	e.err = errors.Join(e.err, explain("bind", p, err))
}

// Bound are the prefixes that Bind made local, also in a process before this one.
func Bound() ([]netip.Prefix, error) {
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	all, err := lo.bound()
	var out []netip.Prefix
	for p, mine := range all {
		if mine {
			out = append(out, p)
		}
	}
	return out, err
}

// awaitTaken waits until the host takes the packets to all that is wanted and has not
// failed, and notes what it does not take: the kernel makes the route of an IPv6 address
// when it gets round to it, after it has said that the address is there.
func (l loopbackLink) awaitTaken(wanted map[netip.Prefix]bool, failed *BindError, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		taken, err := l.taken()
		if err != nil {
			return err
		}
		late := time.Now().After(deadline)
		missing := false
		for p := range wanted {
			if taken[p] || failed.Failed[p] != "" || p.Addr().Is4() {
				continue
			}
			if missing = true; late {
				failed.bind(p, errNotTaken)
			}
		}
		if !missing || late {
			return nil
		}
	}
}

// explain says what was done to p when err happened; nil stays nil.
func explain(verb string, p netip.Prefix, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %v on loopback: %w", verb, p, err)
}

// loopbackLink is lo, and the addresses of the host as they were when it was read.
type loopbackLink struct {
	index     int
	name      string
	addresses []address
}

func loopback() (loopbackLink, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return loopbackLink{}, err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			all, err := addresses()
			return loopbackLink{index: i.Index, name: i.Name, addresses: all}, err
		}
	}
	return loopbackLink{}, errors.New("no loopback interface")
}

// bound are the prefixes that the host takes packets to by way of l, and whether a
// gateway made them so.
func (l loopbackLink) bound() (map[netip.Prefix]bool, error) {
	out := map[netip.Prefix]bool{}
	for _, a := range l.addresses {
		if a.iface == l.name {
			out[host(a.prefix.Addr())] = a.ours
		}
	}
	routes, err := l.routes()
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if p := destination(r); p.IsValid() && !p.IsSingleIP() {
			out[p] = int(r.Protocol) == ours
		}
	}
	return out, nil
}

// taken are the prefixes of local routes by way of l.
func (l loopbackLink) taken() (map[netip.Prefix]bool, error) {
	routes, err := l.routes()
	out := map[netip.Prefix]bool{}
	for _, r := range routes {
		out[destination(r)] = true
	}
	return out, err
}

// destination is the prefix of a route; the zero Prefix of a default route.
func destination(r netlink.Route) netip.Prefix {
	if r.Dst == nil {
		return netip.Prefix{}
	}
	ip, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits)
}

// routes are the local routes by way of l.
func (l loopbackLink) routes() ([]netlink.Route, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	// The kernel then sends the local table alone, and not all that it has.
	if err := h.SetStrictCheck(true); err != nil {
		return nil, err
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, LinkIndex: l.index}
	return dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_OIF)
	})
}

func (l loopbackLink) bind(p netip.Prefix) error {
	if p.IsSingleIP() {
		return unless(unix.EEXIST, l.changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.Addr()))
	}
	if err := l.safe(p); err != nil {
		return err
	}
	return unless(unix.EEXIST, netlink.RouteAdd(l.route(p)))
}

func (l loopbackLink) unbind(p netip.Prefix) error {
	if p.IsSingleIP() {
		return unless(unix.EADDRNOTAVAIL, l.changeAddress(unix.RTM_DELADDR, 0, p.Addr()))
	}
	return unless(unix.ESRCH, netlink.RouteDel(l.route(p)))
}

// safe refuses to bind a prefix that the host reaches others in, as its own peers.
func (l loopbackLink) safe(p netip.Prefix) error {
	for _, a := range l.addresses {
		if network := a.prefix.Masked(); !network.IsSingleIP() && p.Bits() <= network.Bits() && p.Overlaps(network) {
			return upstreams.Defect{Key: "bind", Member: p.String(), Reason: fmt.Sprintf("has the network %v of %s in it", network, a.iface), Want: "a longer prefix, or bind: false"}
		}
	}
	return nil
}

// changeAddress sends a message about a VIP on l.
func (l loopbackLink) changeAddress(message, flags int, ip netip.Addr) error {
	header := nl.NewIfAddrmsg(unix.AF_INET)
	header.Index, header.Prefixlen = uint32(l.index), uint8(ip.BitLen())
	req := nl.NewNetlinkRequest(message, flags|unix.NLM_F_ACK)
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip.AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{ours}))
	// Never a source by the kernel's choice: IPv4 by the scope, IPv6 as deprecated
	// (RFC 6724 §5 rule 3).
	header.Scope = unix.RT_SCOPE_HOST
	if ip.Is6() {
		header.Family, header.Scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)))
		forever := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: 1<<32 - 1}}
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, forever.Serialize()))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// route is the local route that binds p.
func (l loopbackLink) route(p netip.Prefix) *netlink.Route {
	r := &netlink.Route{
		LinkIndex: l.index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: ours,
		Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
	}
	if p.Addr().Is4() {
		r.Scope = netlink.SCOPE_HOST
	}
	return r
}

// host is the prefix that has ip alone in it.
func host(ip netip.Addr) netip.Prefix { return netip.PrefixFrom(ip, ip.BitLen()) }

// unless is err, or nil where it says that all is as it should be.
func unless(done unix.Errno, err error) error {
	if errors.Is(err, done) {
		return nil
	}
	return err
}
