package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/razor-steering/razor/gateway/bpf/root"
)

// Clients of the tests.
var (
	client4 = netip.MustParseAddr("198.51.100.7")
	client6 = netip.MustParseAddr("2001:db8:c::7")
)

// flows of a client to a port, of both families.
func flowTo(v6 bool, from, to uint16) flow {
	if v6 {
		return flow{netip.AddrPortFrom(client6, from), netip.AddrPortFrom(vip6, to)}
	}
	return flow{netip.AddrPortFrom(client4, from), netip.AddrPortFrom(vip4, to)}
}

// sent is a packet of a gateway: hunt here, and then at another host.
func sent(change ...func(*outer)) outer {
	o := outer{
		source:   sid(gateway, source, 0, 0, 1, 2, 3),
		segments: []netip.Addr{sid(locator, hunt, Host, 9), sid(neighbor, hunt, Host)},
		left:     1,
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func to(segments ...netip.Addr) func(*outer) {
	return func(o *outer) { o.segments, o.left = segments, len(segments)-1 }
}

func left(n int) func(*outer)             { return func(o *outer) { o.left = n } }
func hops(n byte) func(*outer)            { return func(o *outer) { o.hops = n } }
func class(n byte) func(*outer)           { return func(o *outer) { o.class = n } }
func from(a netip.Addr) func(*outer)      { return func(o *outer) { o.source = a } }
func reduced(o *outer)                    { o.red = true }
func tagged(o *outer)                     { o.vlan = true }
func edit(at int, b ...byte) func([]byte) { return func(f []byte) { copy(f[at:], b) } }

// fixture is a frame, and what becomes of it on a host without connections.
type fixture struct {
	name    string
	in      []byte
	verdict uint32
	reasons []Reason
}

func fixtures() []fixture {
	here, there := sid(locator, hunt, Host), sid(neighbor, hunt, Host)
	last := sid(locator, final, Host)
	plain := netip.MustParseAddr("2001:db8:5200:3::1") // in the domain, takes no miss
	outside := netip.MustParseAddr("2001:db8:bad::1")
	var all []fixture
	add := func(name string, in []byte, verdict uint32, reasons ...Reason) {
		all = append(all, fixture{name, in, verdict, reasons})
	}
	with := func(in []byte, change ...func([]byte)) []byte {
		for _, f := range change {
			f(in)
		}
		return in
	}
	const srh = etherLen + ip6Len
	for _, v6 := range []bool{false, true} {
		f := flowTo(v6, 4000, portMPTCP)
		name := map[bool]string{false: "IPv4, ", true: "IPv6, "}[v6]
		data, synAlone := f.segment(ack, 5, 6), f.segment(syn, 5, 0)
		add(name+"final", sent(to(last)).wrap(data), pass, TakenFinal)
		add(name+"final, no SRH", sent(to(last), reduced).wrap(data), pass, TakenFinal)
		add(name+"final, VLAN", sent(to(last), tagged).wrap(data), pass, TakenFinal)
		add(name+"final of a container", sent(to(sid(locator, final, container))).wrap(data), redirect, TakenFinal)
		add(name+"final of a container, VLAN", sent(to(sid(locator, final, container)), tagged).wrap(data), redirect, TakenFinal)
		add(name+"final, segments left", sent(to(last, there)).wrap(data), drop, DroppedSegments)
		add(name+"final, last of three", sent(to(there, here, last), left(0)).wrap(data), pass, TakenFinal)
		add(name+"final, reduced list", sent(to(there, last), left(0), reduced).wrap(data), pass, TakenFinal)
		add(name+"final, UDP", sent(to(last)).wrap(f.datagram(0)), pass, TakenFinal)
		add(name+"final, hop limit 1", sent(to(last), hops(1)).wrap(data), pass, TakenFinal)

		add(name+"hunt, SYN", sent().wrap(synAlone), pass, TakenSYN)
		add(name+"hunt, SYN, no listener", sent().wrap(flowTo(v6, 4000, 99).segment(syn, 5, 0)), tx, HandedOn)
		add(name+"hunt, SYN and ECN", sent().wrap(f.segment(syn|0xc0, 5, 0)), pass, TakenSYN)
		add(name+"hunt, SYN and ACK", sent().wrap(f.segment(syn|ack, 5, 6)), tx, HandedOn)
		add(name+"hunt, SYN and FIN", sent().wrap(f.segment(syn|fin, 5, 6)), tx, HandedOn)
		add(name+"hunt, stray ACK", sent().wrap(data), tx, HandedOn)
		add(name+"hunt, stray RST", sent().wrap(f.segment(rst, 5, 0)), tx, HandedOn)
		add(name+"hunt, VLAN", sent(tagged).wrap(data), tx, HandedOn)
		add(name+"hunt, reduced list", sent(to(here, there), left(1), reduced).wrap(data), tx, HandedOn)
		add(name+"hunt, hop limit 2", sent(hops(2)).wrap(data), tx, HandedOn)
		add(name+"hunt, hop limit 1", sent(hops(1)).wrap(data), drop, DroppedHops)
		add(name+"hunt, hop limit 0", sent(hops(0), func(o *outer) { o.hops = 1 }).wrap(data), drop, DroppedHops)
		add(name+"hunt, next outside", sent(to(here, outside)).wrap(data), drop, DroppedSegments)
		add(name+"hunt, six segments", sent(to(here, there, there, there, there, there)).wrap(data), tx, HandedOn)
		add(name+"hunt, seven segments", sent(to(here, there, there, there, there, there, there)).wrap(data), drop, DroppedMalformed)
		add(name+"hunt, next is here", sent(to(here, here, there)).wrap(data), tx, HandedOn, HandedOn)
		add(name+"hunt, next is a container", sent(to(here, sid(locator, final, container))).wrap(data), redirect, HandedOn, TakenFinal)
		add(name+"hunt, six times here", sent(to(here, here, here, here, here, here)).wrap(data), tx,
			HandedOn, HandedOn, HandedOn, HandedOn, HandedOn, Bounced)
		add(name+"hunt, here until the hop limit", sent(to(here, here, here), hops(2)).wrap(data), drop, HandedOn, DroppedHops)
		add(name+"hunt, gateway is here", sent(to(here), from(sid(locator, source, 0))).wrap(data), pass, Bounced)
		add(name+"hunt, container without sockets", sent(to(sid(locator, hunt, container), there)).wrap(synAlone), tx, HandedOn)

		add(name+"bounce", sent(left(0), to(there, here), left(0)).wrap(data), tx, Bounced)
		add(name+"bounce, no SRH", sent(to(here), reduced).wrap(data), tx, Bounced)
		add(name+"bounce, VLAN", sent(to(here), tagged).wrap(data), tx, Bounced)
		add(name+"bounce, hop limit 1", sent(to(here), hops(1)).wrap(data), drop, DroppedHops)
		add(name+"stray of who takes no miss", sent(to(here), from(plain)).wrap(data), pass, TakenStray)
		add(name+"SYN to the last", sent(to(here)).wrap(synAlone), pass, TakenSYN)
		add(name+"SYN to the last, no listener", sent(to(here)).wrap(flowTo(v6, 4000, 99).segment(syn, 5, 0)), tx, Bounced)

		add(name+"hunt, UDP", sent().wrap(f.datagram(0)), pass, TakenUnhunted)
		add(name+"hunt, UDP to the last", sent(to(here)).wrap(f.datagram(0)), pass, TakenUnhunted)
		router := map[bool]netip.Addr{false: netip.MustParseAddr("203.0.113.1"), true: netip.MustParseAddr("2001:db8:e::1")}[v6]
		add(name+"ICMP error about nobody's", sent().wrap(f.unreachable(router, 1, 8)), tx, HandedOn)
		add(name+"ICMP error of 7 bytes", sent().wrap(f.unreachable(router, 1, 7)), pass, TakenUnhunted)
		stranger := flowTo(v6, 4000, portMPTCP)
		stranger.vip = netip.AddrPortFrom(router, portMPTCP)
		forged := stranger.unreachable(router, 1, 8)
		copy(forged[map[bool]int{false: 16, true: 24}[v6]:], f.vip.Addr().AsSlice())
		add(name+"ICMP error about another's packet", sent().wrap(forged), pass, TakenUnhunted)

		if !v6 { // what is as it was keeps its checksum, also a wrong one that is not written so
			marked := with(f.datagram(0x4b), edit(10, 0xff), edit(11, 0xff))
			add(name+"congestion on congestion, a checksum of 0xffff", sent(to(last), class(0xbb)).wrap(marked), pass, TakenFinal)
		}
		for outerECN := range byte(4) {
			for innerECN := range byte(4) {
				in := sent(to(last), class(0xb8|outerECN)).wrap(f.datagram(0x48 | innerECN))
				if outerECN == 3 && innerECN == 0 {
					add(fmt.Sprintf("%scongestion bits %02b on %02b", name, outerECN, innerECN), in, drop, DroppedCongested)
				} else {
					add(fmt.Sprintf("%scongestion bits %02b on %02b", name, outerECN, innerECN), in, pass, TakenFinal)
				}
			}
		}

		add(name+"from outside", sent(from(outside)).wrap(data), drop, DroppedOutsider)
		add(name+"from outside, no SRH", sent(from(outside), to(last), reduced).wrap(data), drop, DroppedOutsider)
		add(name+"SRH from outside to somebody", sent(from(outside), to(outside)).wrap(data), drop, DroppedOutsider)
		add(name+"SRH within the domain to somebody", sent(to(there)).wrap(data), pass)
		add(name+"no such target", sent(to(sid(locator, hunt, 5))).wrap(data), drop, DroppedTarget)
		add(name+"target beyond all", sent(to(sid(locator, final, 0xffff))).wrap(data), drop, DroppedTarget)
		for _, b := range []uint16{entry, miss, source, 0x5206, 0x5200, 0} {
			add(name+"behaviour of another", sent(to(sid(locator, b, 0))).wrap(data), pass)
		}
		no := flow{f.client, netip.AddrPortFrom(f.vip.Addr().Next(), portMPTCP)}
		add(name+"no VIP", sent(to(last)).wrap(no.segment(ack, 1, 1)), drop, DroppedVIP)
		add(name+"no VIP, hunt", sent().wrap(no.segment(syn, 1, 0)), drop, DroppedVIP)

		add(name+"other routing type", with(sent(to(last)).wrap(data), edit(srh+2, 3)), drop, DroppedMalformed)
		add(name+"Segments Left beyond the list", with(sent().wrap(data), edit(srh+3, 4)), drop, DroppedMalformed)
		add(name+"Last Entry beyond the list", with(sent().wrap(data), edit(srh+4, 2)), drop, DroppedMalformed)
		add(name+"a list with something behind", with(sent().wrap(data), edit(srh+1, 5)), drop, DroppedMalformed)
		add(name+"inside is something else", with(sent().wrap(data), edit(srh, udp)), drop, DroppedMalformed)
		add(name+"inside is the other family", with(sent().wrap(data), edit(srh, map[bool]byte{false: ipv6, true: ipip}[v6])), drop, DroppedMalformed)
		long := sent(to(last)).wrap(data)
		n := binary.BigEndian.Uint16(long[etherLen+4:])
		add(name+"inner packet longer than the outer", with(append(long, make([]byte, 100)...),
			func(b []byte) { binary.BigEndian.PutUint16(b[etherLen+4:], n-1) }), drop, DroppedMalformed)
		add(name+"padding behind", append(sent(to(last)).wrap(data), make([]byte, 30)...), pass, TakenFinal)
		add(name+"not encapsulated", frame(data, false), pass)
	}

	data := flowTo(true, 4000, portMPTCP).segment(ack, 5, 6)
	fragmented := func(next byte, offset uint16) []byte {
		return append([]byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}, data[ip6Len:]...)
	}
	chained := func(headers ...byte) []byte {
		b := data[ip6Len:]
		for i, header := range slices.Backward(headers) {
			next := byte(tcp)
			if i+1 < len(headers) {
				next = headers[i+1]
			}
			x := []byte{next, 0, 1, 4, 0, 0, 0, 0}
			if header == routing {
				x = slices.Concat([]byte{next, 2, 4, 0, 0, 0, 0, 0}, sid(gateway, hunt, 0).AsSlice())
			}
			b = append(x, b...)
		}
		return b
	}
	six := func(next byte, payload []byte) []byte { return ip(client6, vip6, next, 0, payload) }
	add("first fragment of TCP", sent().wrap(six(fragment, fragmented(tcp, 1))), pass, TakenUnhunted)
	add("later fragment of TCP", sent().wrap(six(fragment, fragmented(tcp, 0x100))), pass, TakenUnhunted)
	add("atomic fragment of TCP", sent().wrap(six(fragment, fragmented(tcp, 0))), tx, HandedOn)
	add("extension headers inside", sent().wrap(six(hopByHop, chained(hopByHop, dstOpts))), tx, HandedOn)
	add("a chain that is too long inside", sent().wrap(six(dstOpts, chained(dstOpts, dstOpts, dstOpts, dstOpts, dstOpts))), drop, DroppedMalformed)
	add("SRH inside", sent().wrap(six(routing, chained(routing))), drop, DroppedOutsider)
	add("SRH from outside behind options", frame(six(hopByHop, chained(hopByHop, dstOpts, routing)), false), drop, DroppedOutsider)
	add("SRH from outside in a fragment", frame(six(fragment, slices.Concat([]byte{routing, 0, 0, 1, 0, 0, 0, 1}, chained(routing))), false), drop, DroppedOutsider)
	add("SRH from outside, hidden by a long chain", frame(six(dstOpts, chained(dstOpts, dstOpts, dstOpts, dstOpts, routing)), false), drop, DroppedMalformed)
	add("options from outside", frame(six(hopByHop, chained(hopByHop, dstOpts)), false), pass)
	mapped := ip(client6, netip.AddrFrom16(vip4.As16()), tcp, 0, data[ip6Len:])
	add("IPv4 written in IPv6", sent(to(last)).wrap(mapped), drop, DroppedVIP)
	add("ping to a SID", frame(ip(sid(gateway, source, 0), last, icmp6, 0, []byte{128, 0, 0, 0, 0, 0, 0, 0}), false), drop, DroppedMalformed)
	options := flowTo(false, 4000, portMPTCP).segment(ack, 5, 6)
	options = slices.Concat(options[:20], []byte{1, 1, 1, 1}, options[20:])
	options[0], options[3] = 0x46, options[3]+4
	add("IPv4 options", sent().wrap(options), tx, HandedOn)
	arp := slices.Concat(mac, router, []byte{8, 6}, make([]byte, 28))
	add("ARP", arp, pass)
	add("two VLAN tags", slices.Concat(mac, router, []byte{0x81, 0, 0, 7, 0x81, 0, 0, 8, 0x86, 0xdd}, data), pass)
	return all
}

func TestFixtures(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			h := *h
			h.tb = t
			h.expect(f.in, f.verdict, f.reasons...)
		})
	}
}

// What is cut off is never taken, as the packet inside is then longer than the frame.
func TestTruncatedFixtures(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, f := range fixtures() {
		whole := etherLen + ip6Len + int(binary.BigEndian.Uint16(f.in[etherLen+4:]))
		for n := etherLen; n < len(f.in); n++ {
			in := f.in[:n]
			verdict, out := h.run(in)
			m := h.world.model(in)
			if !m.same(verdict, out) {
				t.Fatalf("%s, %d bytes: verdict %d, the model says %d %v", f.name, n, verdict, m.verdict, m.reasons)
			}
			if verdict == aborted {
				t.Fatalf("%s, %d bytes: aborted", f.name, n)
			}
			if n < whole && f.in[12] == 0x86 && !bytes.Equal(in, out) {
				t.Fatalf("%s, %d of %d bytes: taken or sent", f.name, n, whole)
			}
		}
	}
}

// Before the agent knows its domain nothing is the endpoint's.
func TestNoDomain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := h.e.objects.Domains.Put(uint32(0), endpointDomain{}); err != nil {
		t.Fatal(err)
	}
	for _, f := range fixtures() {
		var verdict uint32
		var out []byte
		counts := h.counted(func() { verdict, out = h.run(f.in) })
		if verdict != pass || !bytes.Equal(out, f.in) || len(counts) > 0 {
			t.Errorf("%s: verdict %d, counted %v", f.name, verdict, counts)
		}
	}
}

// Without the program in its slot the router brings back what is for another SID here.
func TestNextSegmentHereWithoutSlots(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if err := h.e.objects.Slots.Delete(uint32(root.Endpoint)); err != nil {
		t.Fatal(err)
	}
	here := sid(locator, hunt, Host)
	in := sent(to(here, sid(locator, final, Host))).wrap(flowTo(true, 4000, portMPTCP).segment(ack, 5, 6))
	verdict, out := h.run(in)
	if verdict != tx || !bytes.Equal(out[:12], slices.Concat(router, mac)) || out[etherLen+ip6Len+3] != 0 {
		t.Fatalf("verdict %d, % x", verdict, out)
	}
	copy(out, in[:12]) // as the router sends it
	if verdict, out := h.run(out); verdict != pass || len(out) != len(in)-ip6Len-8-32 {
		t.Errorf("when it is back: verdict %d, %d bytes", verdict, len(out))
	}
}
