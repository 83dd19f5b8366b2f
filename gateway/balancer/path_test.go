package balancer

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
)

// smallerPlan are services of all kinds, with the keys of the tests' model.
func smallerPlan() (services []PlannedService) {
	hashed := service("hashed", Active)
	hashed.Fragments = true
	hashed.VIPs = []VIP{{netip.MustParsePrefix(vip6 + "/128"), 0, unix.IPPROTO_UDP}}
	web := service("web", Active, Active)
	web.VIPs = append(web.VIPs, VIP{netip.MustParsePrefix(vip6 + "/128"), 443, unix.IPPROTO_TCP})
	all := service("all", Active)
	all.VIPs = []VIP{{netip.MustParsePrefix("2001:db8:ffff::3/128"), 0, 0}}
	return []PlannedService{web, hashed, all}
}

// A router that says of a packet of ours that it is too big is believed, for ten minutes
// and within bounds; who cannot quote one is not.
func TestSmallerPaths(t *testing.T) {
	t.Parallel()
	b, k := process(t, testhost.BPFFS(t), 3)
	defer func() { _ = b.Close() }()
	m := newModel(false)
	if err := b.SetHost(m.host); err != nil {
		t.Fatal(err)
	}
	apply(t, k, smallerPlan()...)
	mtus := func() map[netip.Addr]uint16 {
		out := map[netip.Addr]uint16{}
		for sid, r := range k.backends {
			var v bpfBackend
			if err := b.objects.Backends.Lookup(uint32(r.index), &v); err != nil {
				t.Fatal(err)
			}
			out[sid] = v.Hop.Mtu
		}
		return out
	}
	// expect holds the paths to one backend and to all others.
	expect := func(when string, first netip.Addr, want, others uint16) {
		t.Helper()
		for sid, mtu := range mtus() {
			if sid == first && mtu != want || sid != first && mtu != others {
				t.Errorf("%s: MTU to %v is %d", when, sid, mtu)
			}
		}
	}
	now := time.Now()
	fragment := append([]byte{unix.IPPROTO_UDP, 0, 0, 1, 0, 0, 0, 1}, udp(31000, 443, 900)...)
	for name, packet := range map[string][]byte{
		"TCP over IPv6":      ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, ack, 1300)),
		"SYN over IPv6":      ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, syn, 1300)), // by a list of two
		"TCP over IPv4":      ip(client4, "198.51.100.3", unix.IPPROTO_TCP, tcp(31000, 443, ack, 1300)),
		"UDP, fragments too": ip(client6, vip6, unix.IPPROTO_UDP, udp(31000, 443, 900)),
		"a first fragment":   ip(client6, vip6, unix.IPPROTO_FRAGMENT, fragment),
		"SCTP":               ip(client6, "2001:db8:ffff::3", unix.IPPROTO_SCTP, make([]byte, 1000)),
	} {
		sent := b.run(t, ethernet(0, packet))
		if sent.action != xdpTX {
			t.Fatalf("%s: verdict %d", name, sent.action)
		}
		quote := bytes.Clone(sent.frame[14 : 14+256])
		o, ok := readOuter(quote)
		if !ok {
			t.Fatal(name)
		}
		o.first[9] = behaviourHunt & 0xff
		first := netip.AddrFrom16(o.first)
		expect(name+", before", first, 1500, 1500)
		k.heard(1450, quote, now)
		expect(name, first, 1450, 1500)
		k.heard(1480, quote, now)
		expect(name+", a larger one", first, 1450, 1500)
		k.heard(1280, quote, now.Add(time.Minute))
		expect(name+", below the least", first, leastPath, 1500)
		k.hopsChanged([]HopChange{{Address: first, Hop: Hop{Index: 1, MTU: 9000}}})
		expect(name+", another hop", first, leastPath, 1500)
		k.hopsChanged([]HopChange{{Address: first, Hop: Hop{Index: 1, MTU: 1500}}})
		k.forgetPaths(now.Add(10 * time.Minute))
		expect(name+", soon forgotten", first, leastPath, 1500)
		k.forgetPaths(now.Add(11 * time.Minute))
		expect(name+", forgotten", first, 1500, 1500)
		refused := k.paths.refused
		for n := range 60 { // no two IP headers
			k.heard(1400, quote[:n], now)
		}
		if k.paths.refused != refused+60 {
			t.Errorf("%s: of 60 quotes that are cut off %d were refused", name, k.paths.refused-refused)
		}
		for _, at := range []int{3, 8, 15, 21, 22, 23, len(quote) - 1} { // label, source, entropy, …
			forged := bytes.Clone(quote)
			forged[at] ^= 1
			before := k.paths.heard
			k.heard(1400, forged, now)
			if believed := k.paths.heard > before; believed != (at == len(quote)-1) {
				t.Errorf("%s: byte %d changed: believed %v", name, at, believed)
			}
		}
		k.forgetPaths(now.Add(time.Hour))
	}
	if got := k.Status()[0].Path; got != 1500 {
		t.Errorf("status has an MTU of %d", got)
	}
}

// FuzzSmallerPath: nothing that a router quotes does harm.
func FuzzSmallerPath(f *testing.F) {
	inner := ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 443, ack, 100))
	f.Add(ip(sourceSID, agentSID, unix.IPPROTO_IPV6, inner))
	f.Add(ip(sourceSID, agentSID, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_IPV6, 1, agentSID, agentSID), inner...)))
	f.Add(ip(sourceSID, agentSID, unix.IPPROTO_IPIP, ip(client4, vip4, unix.IPPROTO_UDP, udp(1, 2, 100))))
	f.Fuzz(func(t *testing.T, quote []byte) {
		o, ok := readOuter(quote)
		if !ok {
			return
		}
		if flow, ok := readFlow(o.inner, o.next); ok && (!flow.Client.IsValid() || flow.Client.Addr().Is4() != flow.VIP.Addr().Is4()) {
			t.Error(flow)
		}
	})
}
