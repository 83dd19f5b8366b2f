package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ours marks the addresses and routes that a gateway made: the protocol number of
// routes (`ip route show table local proto 82`) and addresses, which no program that
// iproute2 knows of has. Addresses have it since Linux 5.18.
const ours = 82

// agents marks the addresses that the agent on the same host made: VIPs.
const agents = 83

// ifaProto is the attribute with the protocol of an address (linux/if_addr.h).
const ifaProto = 11

// address is an address of the host.
type address struct {
	iface    string
	loopback bool         // of the interface
	prefix   netip.Prefix // the address itself, not masked, with the length of its network
	ours     bool         // Bind made it
	agents   bool         // the agent made it
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
	var local, other []byte
	for _, attribute := range attributes {
		switch attribute.Attr.Type {
		case unix.IFA_LOCAL:
			local = attribute.Value
		case unix.IFA_ADDRESS:
			other = attribute.Value
		case ifaProto:
			a.ours = len(attribute.Value) == 1 && attribute.Value[0] == ours
			a.agents = len(attribute.Value) == 1 && attribute.Value[0] == agents
		}
	}
	if local == nil {
		local = other // IFA_ADDRESS is the other end where there is an IFA_LOCAL
	}
	ip, ok := netip.AddrFromSlice(local)
	if !ok {
		return a, 0, errors.New("message without an address")
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
