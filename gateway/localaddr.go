package gateway

import (
	"context"
	"net"
	"net/netip"
)

// SourceFor is the address that the kernel would send from to peer, with its zone where
// it is link-local. No packet is sent. It acts in the network namespace of the calling
// thread.
func SourceFor(ctx context.Context, peer netip.Addr) (netip.Addr, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(peer, 179).String())
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
