package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// connections are the established ones of VIPs, in a network namespace.
type connections struct {
	vips   map[netip.Addr]bool
	inside func(func() error) error // calls in the namespace
}

func newConnections(vips []netip.Addr, inside func(func() error) error) connections {
	c := connections{vips: map[netip.Addr]bool{}, inside: inside}
	for _, a := range vips {
		c.vips[a] = true
	}
	return c
}

func (c connections) measure(context.Context) (n float64, err error) {
	err = c.inside(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			of, err := c.count(family)
			if err != nil {
				return err
			}
			n += float64(of)
		}
		return nil
	})
	return n, err
}

const (
	sockDiagByFamily = 20   // linux/sock_diag.h
	established      = 1    // state, net/tcp_states.h
	sizeofDiagMsg    = 0x48 // struct inet_diag_msg of linux/inet_diag.h
	diagSource       = 8    // in it, of inet_diag_sockid.idiag_src
)

// diagRequest is struct inet_diag_req_v2: the connections of a family in some states.
type diagRequest struct {
	family, protocol uint8
	states           uint32
}

// Len implements nl.NetlinkRequestData.
func (diagRequest) Len() int { return 56 }

// Serialize implements nl.NetlinkRequestData.
func (r diagRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = r.family, r.protocol
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

// count asks the kernel. What comes and goes meanwhile may be counted or not.
func (c connections) count(family uint8) (n int, err error) {
	req := nl.NewNetlinkRequest(sockDiagByFamily, unix.NLM_F_DUMP)
	req.AddData(diagRequest{family, unix.IPPROTO_TCP, 1 << established})
	err = req.ExecuteIter(unix.NETLINK_INET_DIAG, 0, func(m []byte) bool {
		if a, ok := localOf(m); ok && c.vips[a] {
			n++
		}
		return true
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0, fmt.Errorf("connections of the host: %w", err)
	}
	return n, nil
}

// localOf is the local address of a connection that the kernel tells of.
func localOf(m []byte) (netip.Addr, bool) {
	if len(m) < sizeofDiagMsg {
		return netip.Addr{}, false
	}
	at := m[diagSource:]
	if m[0] == unix.AF_INET {
		return netip.AddrFrom4([4]byte(at)), true
	}
	return netip.AddrFrom16([16]byte(at)).Unmap(), true
}
