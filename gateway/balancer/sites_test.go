package balancer

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

const entrySID = "2001:db8:5e:1:5203::"

// newModelOfSites is newModel with three other sites, of which the second cannot be
// reached. Of the first service some slots spill, and of the third, which has no
// backends, all.
func newModelOfSites(messy bool) *model {
	m := newModel(messy)
	for i := range uint32(4) {
		a := netip.MustParseAddr("2001:db8:5e:a0:5203::").As16()
		a[7] += byte(i)
		m.backends[20+i] = Backend{SID: netip.AddrFrom16(a), Hop: Hop{Destination: [6]byte{2, 3, 0, 0, 0, byte(i)}, Index: 1, MTU: 1500}}
	}
	m.sites = [][]int{{20, 21}, {}, {22}}
	if messy { // a way that was lost in this moment
		gone := m.backends[21]
		gone.Hop.Index = 0
		m.backends[21] = gone
	}
	m.services[0].Spills = []Spill{{Site: 0, Slots: 20000}, {Site: 2, Slots: 10000}, {Site: 1, Slots: 5000}}
	m.services[1].Spills = []Spill{{Site: 2, Slots: 30000}}
	m.services[2].Spills = []Spill{{Site: 0, Slots: Slots}}
	return m
}

// siteFixtures are what comes from other sites, and goes there.
func siteFixtures() []fixture {
	const tx = xdpTX
	t6 := func(flags byte, payload int) []byte { return tcp(31000, 443, flags, payload) }
	entered := func(round byte, inner []byte) []byte {
		next := byte(unix.IPPROTO_IPV6)
		if inner[0]>>4 == 4 {
			next = unix.IPPROTO_IPIP
		}
		return ip(otherGateway(round), entrySID, next, inner)
	}
	inner := ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 10))
	list := func(left int) []byte {
		return ip(otherGateway(0), entrySID, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_IPV6, left, agentSID, agentSID, entrySID), inner...))
	}
	missed := func(round byte, inner []byte) []byte {
		return ip(agentSID, fmt.Sprintf("2001:db8:5e:1:5204::%x00:0", round), unix.IPPROTO_IPV6, inner)
	}
	embedded := ip(vip6, client6, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))
	tooBig := ip("2001:db8:7::1", vip6, unix.IPPROTO_ICMPV6, icmp("2001:db8:7::1", vip6, 2, 0, 1400, embedded))
	later := ip(client6, vip6, unix.IPPROTO_FRAGMENT, append([]byte{unix.IPPROTO_UDP, 0, 0, 0x40, 0, 0, 0, 1}, make([]byte, 32)...))
	return []fixture{
		{"ACK enters", entered(0, inner), tx, "entered"},
		{"SYN enters", entered(0, ip(client4, vip4, unix.IPPROTO_TCP, t6(syn, 0))), tx, "entered"},
		{"ACK that missed enters", entered(2, inner), tx, "entered"},
		{"SYN that missed enters", entered(2, ip(client6, vip6, unix.IPPROTO_TCP, t6(syn, 0))), tx, "entered"},
		{"at the end of a list", list(0), tx, "entered"},
		{"in the middle of a list", list(1), xdpDrop, "malformed"},
		{"UDP enters", entered(0, ip(client6, vip6, unix.IPPROTO_UDP, udp(31000, 443, 20))), tx, "entered"},
		{"fragment of UDP enters", entered(0, later), tx, "entered"},
		{"fragment of TCP enters", entered(0, with(ip(client4, vip4, unix.IPPROTO_TCP, t6(ack, 0)), 6, 0x20)), xdpDrop, "fragment"},
		{"no VIP of this site", entered(1, ip(client6, outsider, unix.IPPROTO_TCP, t6(ack, 0))), tx, "given_back"},
		{"no backends at this site", entered(1, ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_TCP, t6(ack, 0))), tx, "given_back"},
		{"the last hop", with(entered(1, ip(client6, outsider, unix.IPPROTO_TCP, t6(ack, 0))), 7, 1), xdpDrop, "hop_limit"},
		{"flags of no client enter", entered(0, ip(client6, vip6, unix.IPPROTO_TCP, t6(syn|ack, 0))), xdpDrop, "flags"},
		{"own packet enters", ip("2001:db8:5e:1:5205::", entrySID, unix.IPPROTO_IPV6, inner), xdpDrop, "malformed"},
		{"backend's packet enters", ip(agentSID, entrySID, unix.IPPROTO_IPV6, inner), xdpDrop, "malformed"},
		{"outsider enters", ip(outsider, entrySID, unix.IPPROTO_IPV6, inner), xdpDrop, "outsider"},
		{"error enters", entered(1, tooBig), tx, "entered"},
		{"echo enters", entered(1, ip(client6, vip6, unix.IPPROTO_ICMPV6, icmp(client6, vip6, 128, 0, 7, nil))), xdpDrop, "malformed"},
		{"too big enters", entered(0, ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 1440))), tx, "too_big"},
		{"ACK misses", missed(0, inner), tx, "miss"},
		{"ACK misses once more", missed(1, inner), tx, "away"},
		{"ACK misses at one site", missed(2, inner), tx, "away"},
		{"ACK misses at all sites", missed(4, inner), tx, "miss"},
		{"ACK misses too often", missed(0x7f, inner), tx, "miss"},
		{"returned ACK", missed(0x82, inner), tx, "away"},
		{"RST misses", missed(1, ip(client6, vip6, unix.IPPROTO_TCP, t6(rst, 0))), tx, "miss"},
		{"SYN misses", missed(0, ip(client6, vip6, unix.IPPROTO_TCP, t6(syn, 0))), tx, "miss"},
		{"error misses", missed(1, tooBig), tx, "away"},
		{"ACK of no backends misses at all sites", missed(4, ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_TCP, t6(ack, 0))), xdpDrop, "stray"},
		{"UDP without backends", ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_UDP, udp(31000, 1, 0)), tx, "spilled"},
		{"SYN without backends", ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_TCP, t6(syn, 0)), tx, "spilled"},
		{"ACK without backends", ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_TCP, t6(ack, 0)), tx, "sent"},
	}
}

// Fixtures of several sites, and those that have nothing to do with other sites.
func TestSiteFixtures(t *testing.T) {
	t.Parallel()
	m := newModelOfSites(false)
	b := m.load(t)
	for _, f := range siteFixtures() {
		for _, vlan := range []uint16{0, 12} {
			name := fmt.Sprintf("%s, VLAN %d", f.name, vlan)
			frame := ethernet(vlan, f.packet)
			want, got := m.run(bytes.Clone(frame)), b.try(t, frame)
			compare(t, name, frame, got, want, true)
			action := got.action
			if action == xdpRedirect {
				action = xdpTX
			}
			if reason := last(got.reasons, f.reason); action != f.action || reason != f.reason {
				t.Errorf("%s: verdict %d, %v; want %d, %s", name, got.action, got.reasons, f.action, f.reason)
			}
		}
	}
}
