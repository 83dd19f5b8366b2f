package integration

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
)

// quicPort is of a service of UDP whose connection IDs name backends.
const quicPort = 8443

// applyQUIC makes the backends of the moment those of the service.
func (k *kept) applyQUIC() {
	k.t.Helper()
	s := balancer.PlannedService{Service: balancer.Service{Name: "quic", Key: serviceKey, QUIC: balancer.QUIC{Rotation: 1, ServerID: 4}}, Backends: k.plan}
	for _, a := range []string{vipAddress6 + "/128", vipAddress4 + "/32"} {
		s.VIPs = append(s.VIPs, balancer.VIP{Prefix: netip.MustParsePrefix(a), Port: quicPort, Protocol: unix.IPPROTO_UDP})
	}
	k.must(k.keeper.Apply(balancer.Plan{Services: []balancer.PlannedService{s}}, time.Now()))
}

// answered is who answers a packet with a short header from an address and some port of
// the client. A router may lose one while neighbours are asked for.
func (k *kept) answered(from, to string, backend int) string {
	k.t.Helper()
	id := append([]byte{1<<5 | 8}, (balancer.QUIC{ServerID: 4}).Own(hunt(backend))...)
	packet := append(append([]byte{0x40}, id...), make([]byte, 40)...)
	var c net.PacketConn
	var err error
	k.client.Do(func() { c, err = net.ListenPacket("udp", net.JoinHostPort(from, "0")) }) //nolint:noctx // it does not wait
	k.must(err)
	defer c.Close()
	answer := make([]byte, 64)
	for range 20 {
		_, err := c.WriteTo(packet, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(net.JoinHostPort(to, fmt.Sprint(quicPort)))))
		k.must(err)
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := c.ReadFrom(answer); err == nil {
			return string(answer[:n])
		}
	}
	return ""
}

// Who changes the address stays with the backend that the connection ID names, whatever
// becomes of rows, as long as that backend lives.
func TestConnectionIDsNameBackends(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	for _, b := range k.backends {
		b.Sysctl("net.ipv6.ip_nonlocal_bind", "1") // the VIPs are routes, not addresses
		b.Echo(netip.MustParseAddrPort(fmt.Sprintf("[%s]:%d", vipAddress6, quicPort)))
		b.Echo(netip.MustParseAddrPort(fmt.Sprintf("%s:%d", vipAddress4, quicPort)))
	}
	k.client.Run("ip", "addr", "add", "2001:db8:0:9::3/64", "dev", "eth0", "nodad")
	check := func(when string, backend int, want bool) {
		t.Helper()
		name := k.backends[backend-1].Name + "\n"
		for _, way := range [][2]string{{"2001:db8:0:9::2", vipAddress6}, {"2001:db8:0:9::3", vipAddress6}, {"192.0.2.129", vipAddress4}} {
			for range 5 {
				if by := k.answered(way[0], way[1], backend); by == "" || by == name != want {
					t.Errorf("%s: from %s for b%d: answered by %q", when, way[0], backend, by)
				}
			}
		}
	}
	k.applyQUIC()
	for i := range 3 {
		check("at the start", i+1, true)
	}
	k.plan[0].Weight, k.plan[1].State = 9, balancer.Draining
	k.applyQUIC()
	for i := range 3 {
		check("a backend drains", i+1, true)
	}
	k.stop()
	k.unload()
	check("without a process", 2, true)
	k.load()
	k.keep()
	k.applyQUIC()
	check("taken over", 2, true)
	k.plan[1].State = balancer.Dead
	k.applyQUIC()
	check("dead", 2, false)
	check("others", 1, true)
}
