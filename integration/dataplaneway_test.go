package integration

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/integration/netlab"
)

// A gateway behind another interface than the one that answers leave by gets them, also
// where both lead to clients.
func TestWayToGateway(t *testing.T) {
	t.Parallel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lab := netlab.New(t)
	host, clients, fabric := lab.Node("host"), lab.Node("clients"), lab.Node("fabric")
	lab.Link(host, "eth0", clients, "a0", "2001:db8:1::1/64")
	link := lab.Link(host, "eth1", fabric, "b0", "2001:db8:2::1/64")
	for _, route := range []string{
		"default nexthop via 2001:db8:1::2 dev eth0 nexthop via 2001:db8:2::2 dev eth1",
		"2001:db8:5e::/48 via 2001:db8:2::2 dev eth1",
	} {
		host.Run("ip", append([]string{"-6", "route", "add"}, strings.Fields(route)...)...)
	}
	vip, block := netip.MustParseAddr("2001:db8:f::10"), netip.MustParsePrefix("2001:db8:5e::/48")
	host.Run("ip", "-6", "addr", "add", vip.String()+"/128", "dev", "lo", "nodad")
	frames := link.B.Capture()
	const answers = 64
	host.Do(func() {
		r, err := reply.Load(reply.Options{})
		must(err)
		t.Cleanup(func() { _ = r.Close() })
		must(r.SetVIPs([]netip.Addr{vip}))
		must(r.Set(reply.Setting{
			Locator: netip.MustParsePrefix("2001:db8:5e:7::/64"), Block: block,
			Gateways: []netip.Prefix{netip.MustParsePrefix("2001:db8:5e:1::/64"), netip.MustParsePrefix("2001:db8:5e:2::/64")},
		}))
		for _, name := range []string{"eth0", "eth1"} {
			device, err := net.InterfaceByName(name)
			must(err)
			must(r.Join(device))
		}
		for port := range answers {
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: vip.AsSlice()}, &net.UDPAddr{IP: net.ParseIP("2001:db8:c::1"), Port: 1000 + port})
			must(err)
			_, err = c.Write([]byte("answer"))
			must(errors.Join(err, c.Close()))
		}
	})
	lab.Eventually("all answers are on their way to gateways", func() bool {
		got := 0
		for _, f := range frames.Frames() {
			if len(f) > 54 && f[20] == 41 && block.Contains(netip.AddrFrom16([16]byte(f[38:]))) { // IPv6 in IPv6
				got++
			}
		}
		return got == answers
	})
}
