package gateway

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/razor-steering/razor/upstreams"
)

// Identity is who a gateway is to its BGP peers.
type Identity struct {
	AS       uint32
	RouterID netip.Addr   // IPv4
	Node     netip.Prefix // the node's own /64; zero where there is none, and nothing was derived from it

	asFrom, routerIDFrom, nodeFrom string
}

// String is the identity on one line, with where each part of it is from.
func (id Identity) String() string {
	node := "none"
	if id.Node.IsValid() {
		node = id.Node.String()
	}
	return fmt.Sprintf("as %d (%s), router id %v (%s), node %s (%s)", id.AS, id.asFrom, id.RouterID, id.routerIDFrom, node, id.nodeFrom)
}

// Host is what an identity is derived from.
type Host struct {
	Name      string
	addresses []address
}

// ReadHost is the host that this process runs on, in the network namespace of the
// calling thread.
func ReadHost() (Host, error) {
	name, err := os.Hostname()
	if err != nil {
		return Host{}, err
	}
	all, err := addresses()
	return Host{Name: name, addresses: all}, err
}

// Identify is the identity of a host. What the settings do not say is derived, so that
// a fresh host needs none of its own, and the same again for the same host:
//
//   - the node's /64 is that of the addresses on loopback; else of the /64s on the
//     interfaces to the peers; else of those on the others. It is an error when the
//     first of these that has any has several;
//   - the AS is made from the host name (as_template), else from the /64;
//   - the router ID is the lowest IPv4 address of loopback, else of the interfaces to
//     the peers, else of the others; else it is made from the /64.
//
// What Bind or an agent put on loopback does not count, nor what is anycast. Errors are upstreams.Defect, with keys
// below section.
func (c IdentityConfig) Identify(section string, host Host) (Identity, error) {
	r, defects := c.parse(section)
	if len(defects) > 0 {
		return Identity{}, join(defects)
	}
	places := host.places(c.Links, c.Anycast)
	var id Identity
	nodeErr := id.setNode(r, places)
	return id, errors.Join(id.setAS(r, host.Name, nodeErr), id.setRouterID(r, places, nodeErr))
}

// setNode returns why there is no /64, which is an error for who needs it.
func (id *Identity) setNode(r rules, places [][]address) error {
	if r.node.IsValid() {
		id.Node, id.nodeFrom = r.node, "as configured"
		return nil
	}
	for _, place := range places {
		found := nodesOf(place)
		if len(found) > 1 {
			id.nodeFrom = "several on the host"
			return upstreams.Defect{Key: r.section + ".node", Reason: "the host has several /64s: " + listed(found), Want: "the one that is its own"}
		}
		for p, iface := range found {
			id.Node, id.nodeFrom = p, iface
			return nil
		}
	}
	id.nodeFrom = "no /64 on the host"
	return upstreams.Defect{Key: r.section + ".node", Reason: "the host has no global or unique local IPv6 /64", Want: "an address on lo, or the /64 here"}
}

func (id *Identity) setAS(r rules, name string, nodeErr error) error {
	switch {
	case r.as != 0:
		id.AS, id.asFrom = r.as, "as configured"
	case r.template != "":
		as, err := r.fill(name)
		if err != nil {
			return err
		}
		id.AS, id.asFrom = as, "from the host name "+upstreams.Printable(name)
	case nodeErr != nil:
		return nodeErr
	default:
		id.AS, id.asFrom = asOf(id.Node), "from the node's /64"
	}
	return nil
}

func (id *Identity) setRouterID(r rules, places [][]address, nodeErr error) error {
	if r.routerID.IsValid() {
		id.RouterID, id.routerIDFrom = r.routerID, "as configured"
		return nil
	}
	for _, place := range places {
		for _, a := range place {
			if ip := a.prefix.Addr(); isRouterID(ip) && (!id.RouterID.IsValid() || ip.Less(id.RouterID)) {
				id.RouterID, id.routerIDFrom = ip, a.iface
			}
		}
		if id.RouterID.IsValid() {
			return nil
		}
	}
	if nodeErr != nil {
		return upstreams.Defect{Key: r.section + ".router_id", Reason: "the host has no IPv4 address, and no /64 of its own", Want: "an IPv4 address here, or " + r.section + ".node"}
	}
	id.RouterID, id.routerIDFrom = routerIDOf(id.Node), "from the node's /64"
	return nil
}

// places are the host's addresses on loopback, on the links, and elsewhere.
func (h Host) places(links []string, anycast []netip.Prefix) [][]address {
	out := make([][]address, 3)
	for _, a := range h.addresses {
		switch {
		case a.ours || a.agents || inside(netip.PrefixFrom(a.prefix.Addr().WithZone(""), a.prefix.Addr().BitLen()), anycast):
		case a.loopback:
			out[0] = append(out[0], a)
		case slices.Contains(links, a.iface):
			out[1] = append(out[1], a)
		default:
			out[2] = append(out[2], a)
		}
	}
	return out
}

// nodesOf are the /64s of addresses, each with an interface that has it.
func nodesOf(place []address) map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for _, a := range place {
		if p, ok := a.node(); ok && out[p] == "" {
			out[p] = a.iface
		}
	}
	return out
}

func listed(nodes map[netip.Prefix]string) string {
	var out []string
	for p, iface := range nodes {
		out = append(out, p.String()+" ("+iface+")")
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// node is the /64 that a says to be the node's: its own network, or, as loopback has
// no network, the one around it.
func (a address) node() (netip.Prefix, bool) {
	ip, bits := a.prefix.Addr(), a.prefix.Bits()
	ok := ip.Is6() && ip.IsGlobalUnicast() && (bits == 64 || a.loopback && bits > 64)
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked(), ok
}

// isRouterID tells whether ip can be a router ID that nobody takes offence at: RFC 6286
// wants it not to be 0, older speakers a unicast address.
func isRouterID(ip netip.Addr) bool {
	if !ip.Is4() || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return false
	}
	first := ip.As4()[0]
	return first != 0 && first < 224
}

// Private AS numbers (RFC 6996).
const (
	firstPrivate2, lastPrivate2 = 64512, 65534
	firstPrivate4, lastPrivate4 = 4200000000, 4294967294
)

// asOf is a private AS number for a node: SHA-256 of "as " and the prefix, its first 8
// octets modulo the 94,967,295 numbers that there are.
//
// Two of 100 nodes have the same with a probability of 0.005 %, of 1,000 with 0.5 %, of
// 10,000 with 41 %. Two such nodes work on one router, as its sessions are told apart
// by their addresses, and it spreads over both; what breaks is a route from one to the
// other, which takes it for a loop (RFC 4271 §9.1.2), and gateways take no routes.
func asOf(node netip.Prefix) uint32 {
	return firstPrivate4 + uint32(digest("as", node)%(lastPrivate4-firstPrivate4+1))
}

// routerIDOf is a router ID for a node: a unicast address, neither 0/8 nor 127/8. Two of
// 1,000 nodes have the same with a probability of 0.01 %; that matters within an AS
// alone (RFC 6286 §2.1).
func routerIDOf(node netip.Prefix) netip.Addr {
	n := uint32(digest("router id", node) % (222 << 24))
	n += 1 << 24
	if n>>24 >= 127 {
		n += 1 << 24
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func digest(what string, node netip.Prefix) uint64 {
	sum := sha256.Sum256([]byte(what + " " + node.String()))
	return binary.BigEndian.Uint64(sum[:])
}

func join(defects []upstreams.Defect) error {
	errs := make([]error, len(defects))
	for i, d := range defects {
		errs[i] = d
	}
	return errors.Join(errs...)
}
