package integration

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/harness"
)

// Services of the balancer that is measured: VIPs of TCP with a port each, the first with
// UDP as well; that of QUIC has UDP alone.
const (
	benchCommon  = iota // rows have a previous backend
	benchAlone          // rows have none
	benchPinned         // flows have pins
	benchSpilled        // new flows go to another site
	benchQUIC           // connection IDs name the backend
	benchServices
)

// Backends of the balancer beside those that rows have.
const (
	benchOwner = benchBackends + 1 + iota // of pins, and of a connection ID
	benchEntry                            // of the other site
)

// A flood of ACKs of flows that nobody has comes back from backends and other sites.
const (
	floodACK  = "ACK, flood of flows that nobody has"
	floodHere = "their misses, to those who left the row"
	floodAway = "their misses, to another site"
	floodFull = "their misses, not to another site: budget full"
	floodLast = "their misses, asked for everywhere"
)

// floods are what becomes of such a packet in the end.
var floods = []struct {
	name   string
	passes []string
}{
	{"ACK that nobody has, all passes", []string{floodACK, floodHere, floodAway, floodLast}},
	{"ACK that nobody has, all passes, budget full", []string{floodACK, floodHere, floodFull}},
}

// benchPins is how many flows have pins: a map that is nearly full forgets some.
const benchPins = 1 << 15

// benchServerID is what the owner calls itself.
const benchServerID = "\x00\x00\x00\x65"

// benchVIPOf is the VIP of a service.
func benchVIPOf(service int) netip.AddrPort {
	return netip.AddrPortFrom(benchVIP6.Addr(), benchVIP6.Port()+uint16(service))
}

// over6 is traffic from clients of IPv6.
func over6(packet []byte) harness.Traffic {
	return harness.Traffic{Frame: etherFrame(packet), Address: source6, Port: l6}
}

// inside is traffic of clients behind outer headers of some bytes.
func inside(packet []byte, headers int) harness.Traffic {
	return harness.Traffic{Frame: etherFrame(packet), Address: source6 + headers, Port: l6 + headers}
}

// balancerCases are those of the balancer's common path.
func balancerCases() []benchCase {
	syn := over6(tcpPacket(benchClient6, benchVIP6, flagSYN, benchData))
	ack := over6(tcpPacket(benchClient6, benchVIP6, flagACK, benchData))
	alone := over6(tcpPacket(benchClient6, benchVIPOf(benchAlone), flagACK, benchData))
	udp := over6(udpPacket(benchClient6, benchVIP6, benchData))
	ack4 := harness.Traffic{Frame: etherFrame(tcpPacket(benchClient4, benchVIP4, flagACK, benchData)), Address: source4, Port: l4}
	other := over6(tcpPacket(benchClient6, benchNoVIP, flagACK, benchData))
	return []benchCase{
		{"SYN, flood of new flows", syn.Flows(1 << 32), harness.TX, nil},
		{"SYN, 64k flows", syn.Flows(1 << 16), harness.TX, nil},
		{"SYN, 512k flows", syn.Flows(1 << 19), harness.TX, nil},
		{floodACK, ack.Flows(1 << 32), harness.TX, nil},
		{"ACK, 1 flow", ack.Flows(1), harness.TX, nil},
		{"ACK, 64k flows", ack.Flows(1 << 16), harness.TX, nil},
		{"ACK, 512k flows", ack.Flows(1 << 19), harness.TX, nil},
		{"ACK without previous, 1 flow", alone.Flows(1), harness.TX, nil},
		{"ACK without previous, 64k flows", alone.Flows(1 << 16), harness.TX, nil},
		{"ACK without previous, 512k flows", alone.Flows(1 << 19), harness.TX, nil},
		{"UDP, 64k flows", udp.Flows(1 << 16), harness.TX, nil},
		{"ACK over IPv4, 64k flows", ack4.Flows(1 << 16), harness.TX, nil},
		{"no VIP, 64k flows", other.Flows(1 << 16), harness.Pass, nil},
	}
}

// missed is a packet that nobody in its list had, as an agent bounces it.
func missed(round int, inner []byte) harness.Traffic {
	packet := encapsulated(hunt(2), 0, []netip.Addr{hunt(1), hunt(2)}, inner)
	to := netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:0:5204:0:%x:203", round<<8|1)).As16()
	copy(packet[24:], to[:])
	return inside(packet, 40+8+2*16).Flows(1 << 32)
}

// entered is a packet of the gateway of another site, which missed so often.
func entered(round int, inner []byte) harness.Traffic {
	from := netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:99:5205:0:%x:203", round<<8|1))
	return inside(ipPacket(from, balancer.Entry(locator(0)), unix.IPPROTO_IPV6, 64, inner), 40).Flows(1 << 16)
}

// rareCases are packets for which the balancer has more steps.
func (d *dataplaneBench) rareCases(r *balancer.Balancer, s *harness.Subject) []benchCase {
	d.b.Helper()
	to := func(service int, flags byte) []byte {
		return tcpPacket(benchClient6, benchVIPOf(service), flags, benchData)
	}
	ack := to(benchCommon, flagACK)
	pinned := over6(to(benchPinned, flagACK)).Flows(benchPins)
	d.pin(s, pinned)
	return []benchCase{
		{"ACK with a pin, 32k flows", pinned, harness.TX, sentTo(r, benchOwner)},
		{"UDP with a connection ID, 64k flows", over6(quicPacket()).Flows(1 << 16), harness.TX, sentTo(r, benchOwner)},
		{"SYN, the slot spills, 64k flows", over6(to(benchSpilled, flagSYN)).Flows(1 << 16), harness.TX, counted(r, "spilled")},
		{"ACK, the slot spills, 64k flows", over6(to(benchSpilled, flagACK)).Flows(1 << 16), harness.TX, counted(r, "sent")},
		{"SYN of another site, 64k flows", entered(0, to(benchCommon, flagSYN)), harness.TX, counted(r, "entered")},
		{"ACK of another site that missed there, 64k flows", entered(2, ack), harness.TX, counted(r, "entered")},
		{floodHere, missed(0, ack), harness.TX, counted(r, "miss")},
		{floodAway, missed(1, ack), harness.TX, counted(r, "away")},
		{floodLast, missed(2, ack), harness.TX, counted(r, "miss")},
	}
}

// overBudget is a miss that would go to another site.
func (d *dataplaneBench) overBudget(r *balancer.Balancer) benchCase {
	miss := missed(1, tcpPacket(benchClient6, benchVIP6, flagACK, benchData))
	return benchCase{floodFull, miss, harness.Drop, counted(r, "budget")}
}

// counted is how many packets had a reason.
func counted(r *balancer.Balancer, reason string) func() (uint64, error) {
	return func() (uint64, error) {
		counts, err := r.Counts()
		for _, c := range counts {
			if c.Reason == reason {
				return c.Packets, err
			}
		}
		return 0, fmt.Errorf("no reason %s: %w", reason, err)
	}
}

// sentTo is how many packets were for a backend before others.
func sentTo(r *balancer.Balancer, backend int) func() (uint64, error) {
	return func() (uint64, error) {
		t, err := r.BackendTraffic(backend)
		return t.Packets, err
	}
}

// quicPacket has a short header with a connection ID that names the owner (RFC 9000
// §17.3.1).
func quicPacket() []byte {
	packet := udpPacket(benchClient6, benchVIPOf(benchQUIC), benchData)
	id := append([]byte{0x40, 8}, benchServerID...)
	copy(packet[40+8:], id)
	return packet
}

// pin has the owner have all flows of some traffic.
func (d *dataplaneBench) pin(s *harness.Subject, t harness.Traffic) {
	d.b.Helper()
	var now unix.Timespec
	d.must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	pin := binary.NativeEndian.AppendUint32(nil, benchOwner)
	pin = binary.NativeEndian.AppendUint32(pin, 0)
	pin = binary.NativeEndian.AppendUint32(pin, uint32(now.Sec))
	pin = binary.NativeEndian.AppendUint16(pin, benchPinned)
	pin = binary.NativeEndian.AppendUint16(pin, 0)
	for client, port := range t.Clients() {
		key := append(append([]byte{}, t.Frame[etherHeader+8:etherHeader+40]...), t.Frame[l6:l6+4]...)
		key = append(key, unix.IPPROTO_TCP, 0, 0, 0)
		copy(key[12:], client[:])
		copy(key[32:], port[:])
		d.must(s.Map("pins").Put(key, pin))
	}
}

// benchRowOf is the backends of a slot.
func benchRowOf(slot int) (current, previous uint32) {
	current = uint32(slot) * 2654435761 >> 7 % benchBackends
	return current + 1, (current+7)%benchBackends + 1
}

// balancer is ours, which may ask another site about so many misses in a second.
func (d *dataplaneBench) balancer(misses uint64) (*balancer.Balancer, *harness.Subject) {
	d.b.Helper()
	r, err := balancer.Load(balancer.Options{Services: benchServices})
	d.must(err)
	d.b.Cleanup(func() { _ = r.Close() })
	d.must(r.SetHost(balancer.Host{Locator: locator(0), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	d.fill(r, balancer.Hop{Destination: [6]byte{2, 0, 0, 0, 0, 3}, Source: [6]byte{2, 0, 0, 0, 0, 1}, Index: 1, MTU: 1500})
	d.must(r.SetMissBudget(misses))
	s, err := harness.Loaded(filepath.Join("..", "gateway", "balancer", "bpf_bpfel.o"), "balancer", r.Program())
	d.must(err)
	d.b.Cleanup(s.Close)
	return r, s
}

// fill gives a balancer its services, and backends that are all behind one hop.
func (d *dataplaneBench) fill(r *balancer.Balancer, hop balancer.Hop) {
	d.b.Helper()
	for i := range benchBackends {
		d.must(r.SetBackend(i+1, balancer.Backend{SID: hunt(i + 1), Hop: hop, Found: true}))
	}
	d.must(r.SetBackend(benchOwner, balancer.Backend{SID: hunt(benchOwner), Hop: hop, Found: true}))
	d.must(r.SetBackend(benchEntry, balancer.Backend{SID: balancer.Entry(locator(0x99)), Hop: hop}))
	d.must(r.SetSites([][]int{{benchEntry}}))
	d.must(r.SetServers(map[balancer.Server]int{{Service: benchQUIC, ID: benchServerID}: benchOwner}))
	vips := map[balancer.VIP]balancer.Assignment{}
	vip := func(a netip.AddrPort, protocol uint8, service int) {
		v := balancer.VIP{Prefix: netip.PrefixFrom(a.Addr(), a.Addr().BitLen()), Port: a.Port(), Protocol: protocol}
		vips[v] = balancer.Assignment{Service: service, Number: len(vips)}
	}
	vip(benchVIP4, unix.IPPROTO_TCP, benchCommon)
	vip(benchVIP6, unix.IPPROTO_UDP, benchCommon)
	for service := range benchQUIC {
		vip(benchVIPOf(service), unix.IPPROTO_TCP, service)
	}
	vip(benchVIPOf(benchQUIC), unix.IPPROTO_UDP, benchQUIC)
	d.must(r.SetVIPs(vips))
	for service := range benchServices {
		s := balancer.Service{Name: fmt.Sprint(service), Key: serviceKey}
		switch service {
		case benchSpilled:
			s.Spills = []balancer.Spill{{Site: 0, Slots: balancer.Slots}}
		case benchQUIC:
			s.QUIC = balancer.QUIC{ServerID: len(benchServerID)}
		}
		d.must(r.SetService(service, s))
		fillRows(r, service)
	}
}

// fillRows gives a service its rows and histories.
func fillRows(r *balancer.Balancer, service int) {
	for slot := range balancer.Slots {
		row, previous := benchRowOf(slot)
		if service != benchAlone {
			row |= previous << 15
		}
		if service == benchPinned {
			row |= 1 << 30 // the mark (gateway/bpf/include/flow.h)
		}
		r.SetRow(service, slot, row)
		former := uint64(row&0x7fff+20)%benchBackends + 1
		r.SetHistory(service, slot, former|((former+2)%benchBackends+1)<<16)
	}
}
