package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
)

// ours marks the addresses that an agent made, as the gateway marks its own with 82:
// no program that iproute2 knows of has it. Addresses have it since Linux 5.18.
const ours = 83

// gatewayMark is that of the gateway on the same host.
const gatewayMark = 82

// ifaProto is the attribute with the protocol of an address (linux/if_addr.h).
const ifaProto = 11

// address is an address of the host.
type address struct {
	iface    string
	loopback bool         // of the interface
	prefix   netip.Prefix // the address itself, not masked, with the length of its network
	mark     byte         // who made it
}

// addresses are those of all interfaces in the namespace of the calling thread.
func addresses() ([]address, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	byIndex := map[int]net.Interface{}
	for _, i := range interfaces {
		byIndex[i.Index] = i
	}
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	})
	if err != nil {
		return nil, fmt.Errorf("addresses of the host: %w", err)
	}
	var out []address
	for _, m := range messages {
		a, index, err := parseAddress(m)
		if err != nil {
			return nil, fmt.Errorf("addresses of the host: %w", err)
		}
		a.iface, a.loopback = byIndex[index].Name, byIndex[index].Flags&net.FlagLoopback != 0
		out = append(out, a)
	}
	return out, nil
}

// parseAddress reads the body of an RTM_NEWADDR: the address, and the index of its
// interface.
func parseAddress(m []byte) (a address, index int, err error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return a, 0, errors.New("message cut short")
	}
	header := nl.DeserializeIfAddrmsg(m)
	attributes, err := nl.ParseRouteAttr(m[header.Len():])
	if err != nil {
		return a, 0, err
	}
	values := map[uint16][]byte{}
	for _, attribute := range attributes {
		values[attribute.Attr.Type] = attribute.Value
	}
	text := values[unix.IFA_LOCAL]
	if text == nil {
		text = values[unix.IFA_ADDRESS] // the other end where there is an IFA_LOCAL
	}
	ip, ok := netip.AddrFromSlice(text)
	if !ok {
		return a, 0, errors.New("message without an address")
	}
	if mark := values[ifaProto]; len(mark) == 1 {
		a.mark = mark[0]
	}
	a.prefix = netip.PrefixFrom(ip, int(header.Prefixlen))
	return a, int(header.Index), nil
}

// dump repeats a reading that a change of what is read came between.
func dump[T any](read func() ([]T, error)) ([]T, error) {
	for range 10 {
		out, err := read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return read()
}

// domain is the SR domain of a section that has been checked, on a host with these
// addresses. A locator that is to be found is the /64 in the block that an address on
// loopback is in, else one of the interfaces' own /64s.
func (c *Config) domain(host []address) (segment.Domain, error) {
	d := segment.Domain{Block: netip.MustParsePrefix(c.SRBlock)}
	if c.Locator != locatorAuto {
		d.Locator = netip.MustParsePrefix(c.Locator)
		return d, nil
	}
	var found []netip.Prefix
	for _, loopback := range []bool{true, false} {
		for _, a := range host {
			if a.loopback != loopback || !loopback && !slices.Contains(c.Interfaces, a.iface) {
				continue
			}
			if p, ok := a.node(); ok && d.Block.Contains(p.Addr()) && !slices.Contains(found, p) {
				found = append(found, p)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	switch len(found) {
	case 0:
		return d, defect("locator", c.Locator, "the host has no /64 in agent.sr_block, neither on loopback nor on "+strings.Join(c.Interfaces, ", "),
			"an address of "+c.SRBlock+" on lo, or the /64 here")
	case 1:
		d.Locator = found[0]
		return d, nil
	}
	var all []string
	for _, p := range found {
		all = append(all, p.String())
	}
	slices.Sort(all)
	return d, defect("locator", c.Locator, "the host has several /64s in agent.sr_block: "+strings.Join(all, ", "), "the one that is its own")
}

// node is the /64 that a says to be the host's: its own network, or, as loopback has no
// network, the one around it.
func (a address) node() (netip.Prefix, bool) {
	ip, bits := a.prefix.Addr(), a.prefix.Bits()
	ok := ip.Is6() && ip.IsGlobalUnicast() && (bits == 64 || a.loopback && bits > 64) && a.mark != ours && a.mark != gatewayMark
	return netip.PrefixFrom(ip, 64).Masked(), ok
}
