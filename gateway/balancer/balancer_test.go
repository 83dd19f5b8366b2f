package balancer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
)

const (
	vip6, vip4       = "2001:db8:ffff::1", "198.51.100.1"
	client6, client4 = "2001:db8:c::9", "203.0.113.9"
	gatewaySID       = "2001:db8:5e:1:5204::" // miss
	sourceSID        = "2001:db8:5e:1:5205::1:203"
	agentSID         = "2001:db8:5e:b1:5201::"
	outsider         = "2001:db8:6::1"

	fin, syn, rst, ack = 1, 2, 4, 16
)

// The world of the tests: services that hash by all and by addresses, VIPs of all
// kinds, and rows, some with a previous backend and a history, among few backends. In
// a messy one some are none, or not resolved.
func newModel(messy bool) *model {
	prefix := netip.MustParsePrefix
	m := &model{
		host:    Host{Locator: prefix("2001:db8:5e:1::/64"), Block: prefix("2001:db8:5e::/48")},
		ingress: 1,
		vips: map[VIP]Assignment{
			{prefix(vip6 + "/128"), 443, unix.IPPROTO_TCP}:          {0, 0, false},
			{prefix(vip4 + "/32"), 443, unix.IPPROTO_TCP}:           {0, 1, false},
			{prefix(vip6 + "/128"), 443, unix.IPPROTO_UDP}:          {1, 2, true},
			{prefix(vip4 + "/32"), 53, unix.IPPROTO_UDP}:            {1, 3, true},
			{prefix("2001:db8:ffff::2/128"), 0, unix.IPPROTO_TCP}:   {0, 4, false},
			{prefix("2001:db8:ffff::3/128"), 0, 0}:                  {1, 5, true},
			{prefix("198.51.100.128/25"), 80, unix.IPPROTO_TCP}:     {0, 6, false},
			{prefix("2001:db8:ffff:1::/64"), 0, 0}:                  {1, 7, true},
			{prefix("2001:db8:ffff:2::1/128"), 0, 0}:                {2, 8, false},
			{prefix("198.51.100.3/32"), 443, unix.IPPROTO_UDP}:      {0, 9, false},
			{prefix(quicVIP6 + "/128"), 0, 0}:                       {3, 10, false},
			{prefix(quicVIP4 + "/32"), 443, unix.IPPROTO_UDP}:       {3, 11, false},
			{prefix("2001:db8:ffff::5/128"), 443, unix.IPPROTO_UDP}: {0, 12, false},
			{prefix("2001:db8:ffff::5/128"), 53, unix.IPPROTO_UDP}:  {1, 13, true},
			{prefix("2001:db8:ffff::6/128"), 443, unix.IPPROTO_UDP}: {0, 14, false},
			{prefix("2001:db8:ffff::6/128"), 0, 0}:                  {1, 15, true},
			{prefix("2001:db8:ffff::7/128"), 443, unix.IPPROTO_TCP}: {0, 16, false},
			{prefix("2001:db8:ffff::7/128"), 0, 0}:                  {1, 17, true},
		},
		services: []Service{{Key: [2]uint64{1, 2}}, {Key: [2]uint64{3, 4}, Fragments: true}, {}, quicService},
		servers:  map[Server]int{{3, "\xab\x00\x00\x09"}: 9}, // where no backend is
		backends: map[uint32]Backend{},
		rows:     map[[2]uint32]uint32{},
		former:   map[[2]uint32]uint64{},
		pins:     map[Flow]*bpfPin{},
	}
	for i := range uint32(7) {
		a := netip.MustParseAddr("2001:db8:5e:b0:5201::").As16()
		a[7] += byte(i)
		hop := Hop{Destination: [6]byte{2, 1, 0, 0, 0, byte(i)}, Source: [6]byte{2, 2, 0, 0, 0, byte(i)}, Index: 1, MTU: 1500}
		switch i {
		case 3:
			hop.Index = 7 // another uplink
		case 4:
			hop.VLAN, hop.MTU = 12, 9000
		case 5:
			if messy {
				hop.Index = 0 // not resolved
			}
		}
		m.servers[Server{3, string(quicID(5, byte(i+1))[1:5])}] = int(i + 1)
		m.backends[i+1] = Backend{SID: netip.AddrFrom16(a), Hop: hop, Found: true}
	}
	r := rand.New(rand.NewPCG(1, 2))
	one := func() uint32 {
		if !messy {
			return 1 + r.Uint32N(3)
		}
		return r.Uint32N(8)
	}
	for _, service := range []uint32{0, 1, 3} {
		for slot := range uint32(Slots) {
			at := [2]uint32{service, slot}
			m.rows[at] = one()
			if r.IntN(2) == 0 {
				m.rows[at] |= one() << 15
			}
			for i, backend := range r.Perm(len(m.backends))[:r.IntN(5)] { // each once, as user space has them
				m.former[at] |= uint64(backend+1) << (16 * i)
			}
		}
	}
	return m
}

// load is the program with the model's world.
func (m *model) load(tb testing.TB) *Balancer {
	tb.Helper()
	return m.loadWith(tb, Options{Services: len(m.services)})
}

func (m *model) loadWith(tb testing.TB, o Options) *Balancer {
	tb.Helper()
	testhost.NeedsRoot(tb)
	b, err := Load(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	m.fill(tb, b)
	return b
}

// fill makes the world of a program the model's.
func (m *model) fill(tb testing.TB, b *Balancer) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	must(b.SetHost(m.host))
	for i, s := range m.services {
		must(b.SetService(i, s))
	}
	must(b.SetVIPs(m.vips))
	must(b.SetServers(m.servers))
	for i, backend := range m.backends {
		must(b.SetBackend(int(i), backend))
	}
	must(b.SetSites(m.sites))
	must(b.SetMissBudget(1 << 40))
	for at, row := range m.rows {
		b.SetRow(int(at[0]), int(at[1]), row)
	}
	for at, former := range m.former {
		b.SetHistory(int(at[0]), int(at[1]), former)
	}
}

// try runs the program on a frame, and tells the reasons that it counted.
func (b *Balancer) try(tb testing.TB, frame []byte) verdict {
	tb.Helper()
	before, err := b.Counts()
	if err != nil {
		tb.Fatal(err)
	}
	v := b.run(tb, frame)
	after, err := b.Counts()
	if err != nil {
		tb.Fatal(err)
	}
	for i, c := range after {
		for range c.Packets - before[i].Packets {
			v.reasons = append(v.reasons, c.Reason)
		}
	}
	return v
}

// run runs the program on a frame, of at least an Ethernet header, as if it had told
// nobody anything lately.
func (b *Balancer) run(tb testing.TB, frame []byte) verdict {
	tb.Helper()
	if err := b.objects.Scratch.Put(uint32(0), make([]bpfScratch, ebpf.MustPossibleCPU())); err != nil {
		tb.Fatal(err)
	}
	return b.once(tb, frame)
}

// once runs the program on a frame.
func (b *Balancer) once(tb testing.TB, frame []byte) verdict {
	tb.Helper()
	o := &ebpf.RunOptions{Data: bytes.Clone(frame), DataOut: make([]byte, len(frame)+256)}
	action, err := b.Program().Run(o)
	if err != nil {
		tb.Fatal(err)
	}
	return verdict{action: action, frame: o.DataOut}
}

// compare holds what the program did to what the model does.
func compare(tb testing.TB, name string, frame []byte, got, want verdict, counted bool) {
	tb.Helper()
	switch {
	case got.action != want.action:
		tb.Errorf("%s: verdict %d, want %d (%v)\n%x", name, got.action, want.action, want.reasons, frame)
	case want.action != xdpDrop && !bytes.Equal(got.frame, want.frame):
		tb.Errorf("%s: (%v) from\n%x got\n%x want\n%x", name, want.reasons, frame, got.frame, want.frame)
	case counted:
		slices.Sort(got.reasons)
		slices.Sort(want.reasons)
		if !slices.Equal(got.reasons, want.reasons) {
			tb.Errorf("%s: counted %v, want %v", name, got.reasons, want.reasons)
		}
	}
}

// fixture is a packet and what is to become of it.
type fixture struct {
	name   string
	packet []byte
	action uint32
	reason string // the last one
}

func fixtures() []fixture {
	const tx, pass = xdpTX, xdpPass
	t6 := func(flags byte, payload int) []byte { return tcp(31000, 443, flags, payload) }
	embedded6 := ip(vip6, client6, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))
	embedded4 := ip(vip4, client4, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))
	inner := ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 10))
	missed := func(left int) []byte {
		return ip(agentSID, gatewaySID, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_IPV6, left, agentSID, agentSID), inner...))
	}
	fragment := func(vip string, offset uint16) []byte { // of UDP; the first one says 443
		b := binary.BigEndian.AppendUint16([]byte{unix.IPPROTO_UDP, 0}, offset|1)
		return ip(client6, vip, unix.IPPROTO_FRAGMENT, append(append(b, 0, 0, 0, 1), udp(31000, 443, 32)...))
	}
	answer6 := ip(vip6, client6, unix.IPPROTO_TCP, tcp(443, 31000, syn|ack, 0))
	answer4 := ip(vip4, client4, unix.IPPROTO_UDP, udp(53, 31000, 30))
	const returnSID = "2001:db8:5e:1:5206::abcd"
	later := ip(client6, vip6, unix.IPPROTO_FRAGMENT, append([]byte{unix.IPPROTO_UDP, 0, 0, 0x40, 0, 0, 0, 1}, make([]byte, 32)...))
	var quics []fixture
	for _, f := range quicFixtures() {
		quics = append(quics, f.fixture)
	}
	// What a router on the way to a backend quotes, with a MTU that it says it has.
	quoted := func(from, source string, mtu uint32, bytes int) []byte {
		sent := ip(source, agentSID, unix.IPPROTO_IPV6, ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 1400)))
		return ip(from, sourceSID, unix.IPPROTO_ICMPV6, icmp(from, sourceSID, 2, 0, mtu, sent[:bytes]))
	}
	chained := func(from string, headers int, next byte, rest []byte) []byte {
		for range headers {
			rest, next = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, rest...), unix.IPPROTO_DSTOPTS
		}
		return ip(from, vip6, next, rest)
	}
	hidden := append(srh(unix.IPPROTO_IPV6, 1, vip6, vip6), inner...)
	options := append([]byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, t6(ack, 0)...)
	return append(quics, []fixture{
		{"SYN over IPv6", ip(client6, vip6, unix.IPPROTO_TCP, t6(syn, 0)), tx, "sent"},
		{"ACK over IPv6", ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 100)), tx, "sent"},
		{"SYN over IPv4", ip(client4, vip4, unix.IPPROTO_TCP, t6(syn, 0)), tx, "sent"},
		{"FIN over IPv4", ip(client4, vip4, unix.IPPROTO_TCP, t6(fin|ack, 7)), tx, "sent"},
		{"RST", ip(client6, vip6, unix.IPPROTO_TCP, t6(rst, 0)), tx, "sent"},
		{"UDP over IPv6", ip(client6, vip6, unix.IPPROTO_UDP, udp(31000, 443, 20)), tx, "sent"},
		{"any port", ip(client6, "2001:db8:ffff::2", unix.IPPROTO_TCP, tcp(31000, 8080, ack, 0)), tx, "sent"},
		{"any protocol", ip(client6, "2001:db8:ffff::3", unix.IPPROTO_UDP, udp(31000, 9999, 0)), tx, "sent"},
		{"prefix", ip(client4, "198.51.100.200", unix.IPPROTO_TCP, tcp(31000, 80, ack, 0)), tx, "sent"},
		{"prefix, another port", ip(client4, "198.51.100.200", unix.IPPROTO_TCP, tcp(31000, 81, ack, 0)), pass, ""},
		{"prefix of any protocol, SCTP", ip(client6, "2001:db8:ffff:1::7", unix.IPPROTO_SCTP, make([]byte, 12)), tx, "sent"},
		{"another port", ip(client6, vip6, unix.IPPROTO_TCP, tcp(31000, 80, syn, 0)), pass, ""},
		{"another address", ip(client6, outsider, unix.IPPROTO_TCP, t6(syn, 0)), pass, ""},
		{"destination options", ip(client6, vip6, unix.IPPROTO_DSTOPTS, options), tx, "sent"},
		{"SYN and ACK", ip(client6, vip6, unix.IPPROTO_TCP, t6(syn|ack, 0)), xdpDrop, "flags"},
		{"no flags", ip(client6, vip6, unix.IPPROTO_TCP, t6(0, 0)), xdpDrop, "flags"},
		{"FIN alone", ip(client6, vip6, unix.IPPROTO_TCP, t6(fin, 0)), xdpDrop, "flags"},
		{"hop limit 1", with(ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 0)), 7, 1), xdpDrop, "hop_limit"},
		{"later fragment of UDP that is hashed by addresses", later, tx, "sent"},
		{"fragment of TCP", with(ip(client4, vip4, unix.IPPROTO_TCP, t6(ack, 0)), 6, 0x20), xdpDrop, "fragment"},
		{"fragment of UDP that is hashed by ports", with(ip(client4, "198.51.100.3", unix.IPPROTO_UDP, udp(1, 443, 9)), 6, 0x20), xdpDrop, "fragment"},
		{"first fragment, another service of the address takes it", fragment("2001:db8:ffff::5", 0), tx, "sent"},
		{"later fragment, another service of the address takes it", fragment("2001:db8:ffff::5", 64), tx, "sent"},
		{"first fragment, the service of all others takes it", fragment("2001:db8:ffff::6", 0), tx, "sent"},
		{"later fragment, the service of all others takes it", fragment("2001:db8:ffff::6", 64), tx, "sent"},
		{"later fragment, the service of all others takes it, TCP aside", fragment("2001:db8:ffff::7", 64), tx, "sent"},
		{"whole, beside what stands aside", ip(client6, "2001:db8:ffff::6", unix.IPPROTO_UDP, udp(31000, 9999, 0)), tx, "sent"},
		{"no backends", ip(client6, "2001:db8:ffff:2::1", unix.IPPROTO_UDP, udp(31000, 1, 0)), xdpDrop, "no_backend"},
		{"too big over IPv6", ip(client6, vip6, unix.IPPROTO_TCP, t6(ack, 1440)), tx, "too_big"},
		{"too big over IPv4", ip(client4, vip4, unix.IPPROTO_TCP, t6(ack, 1460)), tx, "too_big"},
		{"too big, may be fragmented", with(ip(client4, vip4, unix.IPPROTO_TCP, t6(ack, 1460)), 6, 0), tx, "too_big"},
		{"echo over IPv6", ip(client6, vip6, unix.IPPROTO_ICMPV6, icmp(client6, vip6, 128, 0, 7, []byte("abcdefgh"))), tx, "echo"},
		{"echo over IPv4", ip(client4, vip4, unix.IPPROTO_ICMP, icmp(client4, vip4, 8, 0, 7, []byte("abcdefgh"))), tx, "echo"},
		{"echo to another", ip(client6, outsider, unix.IPPROTO_ICMPV6, icmp(client6, outsider, 128, 0, 7, nil)), pass, ""},
		{"packet too big", ip("2001:db8:7::1", vip6, unix.IPPROTO_ICMPV6, icmp("2001:db8:7::1", vip6, 2, 0, 1400, embedded6)), tx, "sent"},
		{"packet too big below the least", ip("2001:db8:7::1", vip6, unix.IPPROTO_ICMPV6, icmp("2001:db8:7::1", vip6, 2, 0, 1279, embedded6)), xdpDrop, "malformed"},
		{"unreachable with 8 bytes", ip("203.0.113.1", vip4, unix.IPPROTO_ICMP, icmp("203.0.113.1", vip4, 3, 4, 1400, embedded4[:28])), tx, "sent"},
		{"unreachable with 6 bytes", ip("203.0.113.1", vip4, unix.IPPROTO_ICMP, icmp("203.0.113.1", vip4, 3, 4, 1400, embedded4[:26])), xdpDrop, "malformed"},
		{"packet too big from a router", quoted(outsider, sourceSID, 1450, 1232), xdpDrop, "smaller_path"},
		{"packet too big from a router of the domain", quoted(agentSID, sourceSID, 1280, 256), xdpDrop, "smaller_path"},
		{"packet too big with a short quote", quoted(outsider, sourceSID, 1450, 254), xdpDrop, "smaller_path_unheard"},
		{"packet too big that quotes another's", quoted(outsider, gatewaySID, 1450, 1232), xdpDrop, "malformed"},
		{"packet too big from a router, below the least", quoted(outsider, sourceSID, 1279, 1232), xdpDrop, "malformed"},
		{"unreachable from outside to a source", ip(outsider, sourceSID, unix.IPPROTO_ICMPV6, icmp(outsider, sourceSID, 1, 0, 0, inner)), xdpDrop, "outsider"},
		{"echo from the domain to a source", ip(agentSID, sourceSID, unix.IPPROTO_ICMPV6, icmp(agentSID, sourceSID, 128, 0, 0, inner)), pass, ""},
		{"pins of an agent", ip(agentSID, sourceSID, unix.IPPROTO_UDP, udp(31000, 5205, 20)), pass, ""},
		{"SID from outside", ip(outsider, gatewaySID, unix.IPPROTO_IPV6, inner), xdpDrop, "outsider"},
		{"SRH from outside", ip(outsider, vip6, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_IPV6, 1, vip6, vip6), inner...)), xdpDrop, "outsider"},
		{"SRH from outside behind three headers", chained(outsider, 3, unix.IPPROTO_ROUTING, hidden), xdpDrop, "outsider"},
		{"SRH from outside behind four headers", chained(outsider, 4, unix.IPPROTO_ROUTING, hidden), xdpDrop, "outsider"},
		{"SRH from outside behind six headers", chained(outsider, 6, unix.IPPROTO_ROUTING, hidden), xdpDrop, "outsider"},
		{"SRH from the domain behind six headers", chained(agentSID, 6, unix.IPPROTO_ROUTING, hidden), pass, ""},
		{"chain from outside that is cut off", chained(outsider, 2, unix.IPPROTO_DSTOPTS, []byte{6, 0, 1, 4}), xdpDrop, "outsider"},
		{"four headers", chained(client6, 4, unix.IPPROTO_TCP, t6(ack, 0)), tx, "sent"},
		{"miss", missed(0), tx, "sent"},
		{"miss with segments left", missed(1), xdpDrop, "malformed"},
		{"miss of the next round", ip(agentSID, "2001:db8:5e:1:5204::100:0", unix.IPPROTO_IPV6, inner), tx, "sent"},
		{"miss of nobody's", ip(agentSID, gatewaySID, unix.IPPROTO_IPV6, ip(client6, outsider, unix.IPPROTO_TCP, t6(ack, 0))), xdpDrop, "stray"},
		{"return over IPv6", ip(agentSID, returnSID, unix.IPPROTO_IPV6, answer6), pass, "returned"},
		{"return over IPv4", ip(agentSID, returnSID, unix.IPPROTO_IPIP, answer4), pass, "returned"},
		{"return from a prefix of VIPs", ip(agentSID, returnSID, unix.IPPROTO_IPIP, ip("198.51.100.200", client4, unix.IPPROTO_TCP, tcp(80, 31000, ack, 9))), pass, "returned"},
		{"return of an ICMP error", ip(agentSID, returnSID, unix.IPPROTO_IPV6, ip(vip6, client6, unix.IPPROTO_ICMPV6, icmp(vip6, client6, 1, 4, 0, embedded6))), pass, "returned"},
		{"return of a fragment", ip(agentSID, returnSID, unix.IPPROTO_IPIP, with(ip(vip4, client4, unix.IPPROTO_UDP, udp(53, 31000, 30)), 7, 9)), pass, "returned"},
		{"return with congestion", with(ip(agentSID, returnSID, unix.IPPROTO_IPIP, with(bytes.Clone(answer4), 1, 2)), 1, 0xb0), pass, "returned"},
		{"return with congestion over IPv6", with(ip(agentSID, returnSID, unix.IPPROTO_IPV6, with(bytes.Clone(answer6), 1, 0x10)), 1, 0xb0), pass, "returned"},
		{"return with congestion that nobody knows of", with(ip(agentSID, returnSID, unix.IPPROTO_IPIP, answer4), 1, 0xb0), xdpDrop, "congested"},
		{"return from outside", ip(outsider, returnSID, unix.IPPROTO_IPV6, answer6), xdpDrop, "outsider"},
		{"return of what is from no VIP", ip(agentSID, returnSID, unix.IPPROTO_IPV6, ip(outsider, client6, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))), xdpDrop, "relay"},
		{"return of what is from no VIP of IPv4", ip(agentSID, returnSID, unix.IPPROTO_IPIP, ip("203.0.113.4", client4, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))), xdpDrop, "relay"},
		{"return from an IPv4 VIP in IPv6", ip(agentSID, returnSID, unix.IPPROTO_IPV6, ip("::ffff:"+vip4, client6, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))), xdpDrop, "relay"},
		{"return to a SID", ip(agentSID, returnSID, unix.IPPROTO_IPV6, ip(vip6, agentSID, unix.IPPROTO_TCP, tcp(443, 31000, ack, 0))), xdpDrop, "relay"},
		{"return with a list", ip(agentSID, returnSID, unix.IPPROTO_IPV6, ip(vip6, client6, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_TCP, 0, client6), tcp(443, 31000, ack, 0)...))), xdpDrop, "relay"},
		{"return with segments left", ip(agentSID, returnSID, unix.IPPROTO_ROUTING, append(srh(unix.IPPROTO_IPV6, 1, returnSID, returnSID), answer6...)), xdpDrop, "malformed"},
		{"return at the end of its hops", ip(agentSID, returnSID, unix.IPPROTO_IPV6, with(bytes.Clone(answer6), 7, 1)), xdpDrop, "hop_limit"},
	}...)
}

func TestFixtures(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	for _, f := range fixtures() {
		for _, vlan := range []uint16{0, 12} {
			name := fmt.Sprintf("%s, VLAN %d", f.name, vlan)
			frame := ethernet(vlan, f.packet)
			want := m.run(bytes.Clone(frame))
			got := b.try(t, frame)
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

// last is a reason if it is among some, else what they are.
func last(of []string, want string) string {
	if slices.Contains(of, want) || len(of) == 0 && want == "" {
		return want
	}
	return fmt.Sprint(of)
}
