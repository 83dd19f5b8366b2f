package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// takePatience is for how long the kernel may take for the routes of IPv6 addresses.
const takePatience = time.Second

// bind has the VIPs, and none that an earlier call made and this one does not name, on
// loopback, also one of a process that was killed, and returns when the host takes
// their packets. What others put there is never touched, and serves as well; before
// Linux 5.18 ours cannot be told from that, and stays. The host never chooses a VIP as
// the source of what it asks itself: answers would go to another host.
//
// It acts in the network namespace of the calling thread.
func bind(vips []netip.Addr) error {
	lo, err := loopback()
	if err != nil {
		return err
	}
	host, err := addresses()
	if err != nil {
		return err
	}
	there, wanted := map[netip.Addr]byte{}, map[netip.Addr]bool{}
	for _, a := range host {
		if a.loopback {
			there[a.prefix.Addr()] = a.mark
		}
	}
	var failed error
	for _, vip := range vips {
		wanted[vip] = true
		if _, is := there[vip]; !is {
			err := changeAddress(lo, unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, vip)
			if err == nil {
				err = awaitTaken(vip)
			}
			failed = errors.Join(failed, explain("bind", vip, err, unix.EEXIST))
		}
	}
	for a, mark := range there {
		if mark == ours && !wanted[a] {
			failed = errors.Join(failed, explain("unbind", a, changeAddress(lo, unix.RTM_DELADDR, 0, a), unix.EADDRNOTAVAIL))
		}
	}
	return failed
}

// explain says what was done to a VIP when err happened; nil, and what says that all is
// as it should be, are nil.
func explain(verb string, vip netip.Addr, err error, done unix.Errno) error {
	switch {
	case err == nil || errors.Is(err, done):
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s %v on loopback: not permitted; want CAP_NET_ADMIN", verb, vip)
	}
	return fmt.Errorf("%s %v on loopback: %w", verb, vip, err)
}

// loopback is the index of lo.
func loopback() (int, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 {
			return i.Index, nil
		}
	}
	return 0, errors.New("no loopback interface")
}

// awaitTaken waits until the host takes packets to an address: the kernel makes the
// route of an IPv6 one when it gets round to it, after it has said that it is there.
func awaitTaken(vip netip.Addr) error {
	for deadline := time.Now().Add(takePatience); ; time.Sleep(time.Millisecond) {
		taken, err := isLocal(vip)
		switch {
		case err != nil || taken:
			return err
		case time.Now().After(deadline):
			return errors.New("the kernel has no route to it; is loopback up?")
		}
	}
}

// isLocal tells whether the host takes packets to an address.
func isLocal(a netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(a.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL):
		return false, nil // no route, or one that refuses
	case err != nil:
		return false, fmt.Errorf("route to %v: %w", a, err)
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
}

// changeAddress sends a message about a VIP on loopback.
func changeAddress(lo, message, flags int, vip netip.Addr) error {
	header := nl.NewIfAddrmsg(unix.AF_INET)
	header.Index, header.Prefixlen = uint32(lo), uint8(vip.BitLen())
	req := nl.NewNetlinkRequest(message, flags|unix.NLM_F_ACK)
	req.AddData(header)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, vip.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, vip.AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{ours}))
	// Never a source by the kernel's choice: IPv4 by the scope, IPv6 as deprecated
	// (RFC 6724 §5 rule 3).
	header.Scope = unix.RT_SCOPE_HOST
	if vip.Is6() {
		header.Family, header.Scope = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)))
		forever := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: 1<<32 - 1}}
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, forever.Serialize()))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
