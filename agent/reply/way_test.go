package reply

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/razor-steering/razor/integration/netlab"
)

// A gateway behind another interface than the one that answers leave by gets them, also
// where both lead to clients.
func TestWayToGateway(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	host, clients, fabric := lab.Node("host"), lab.Node("clients"), lab.Node("fabric")
	lab.Link(host, "eth0", clients, "a0", "2001:db8:1::1/64")
	link := lab.Link(host, "eth1", fabric, "b0", "2001:db8:2::1/64")
	for _, to := range []string{"default nexthop via 2001:db8:1::2 dev eth0 nexthop via 2001:db8:2::2 dev eth1", "2001:db8:5e::/48 via 2001:db8:2::2 dev eth1"} {
		host.Run("ip", append([]string{"-6", "route", "add"}, strings.Fields(to)...)...)
	}
	host.Run("ip", "-6", "addr", "add", vip6.String()+"/128", "dev", "lo", "nodad")
	frames := link.B.Capture()
	var r *Replies
	const answers = 64
	host.Do(func() {
		r = loaded(t, "")
		must(t, r.SetVIPs([]netip.Addr{vip6}))
		must(t, r.Set(byGateways()))
		for _, name := range []string{"eth0", "eth1"} {
			device, err := net.InterfaceByName(name)
			must(t, err)
			must(t, r.Join(device))
		}
		for port := range answers {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: vip6.AsSlice()}, &net.UDPAddr{IP: client6.AsSlice(), Port: 1000 + port})
			must(t, err)
			_, err = c.Write([]byte("answer"))
			must(t, errors.Join(err, c.Close()))
		}
	})

	lab.Eventually("all answers are on their way to gateways", func() bool {
		got := 0
		for _, f := range frames.Frames() {
			if len(f) > etherLen+ip6Len && f[etherLen+6] == ipv6 && byGateways().Block.Contains(netip.AddrFrom16([16]byte(f[etherLen+24:]))) {
				got++
			}
		}
		return got == answers
	})
}
