package reply

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/integration/tshark"
	"github.com/razor-steering/razor/steering"
)

// TC_ACT_SHOT and TC_ACT_REDIRECT.
const dropped, redirected = 2, 7

var prefix = netip.MustParsePrefix

// byGateways has answers go by two gateways.
func byGateways() Setting {
	return Setting{
		Locator: prefix("2001:db8:5e:7::/64"), Block: prefix("2001:db8:5e::/48"),
		Gateways: []netip.Prefix{prefix("2001:db8:5e:1::/64"), prefix("2001:db8:5e:2::/64")},
	}
}

// encapsulated is what is sent of a frame from a VIP, written anew: H.Encaps.Red of RFC
// 8986 §5.2.
func encapsulated(in []byte, s Setting) []byte {
	ip := in[etherLen:]
	f := steering.Flow{}
	header, whole := ip4Len, true
	next, class := byte(ipip), ip[1]
	protocol := ip[9]
	if ip[0]>>4 == 6 {
		header, next, class, protocol = ip6Len, ipv6, ip[0]<<4|ip[1]>>4, ip[6]
		f.Client = netip.AddrFrom16([16]byte(ip[24:]))
	} else {
		f.Client = netip.AddrFrom4([4]byte(ip[16:]))
		whole = binary.BigEndian.Uint16(ip[6:])&0x3fff == 0
	}
	if whole {
		f.Protocol = protocol
		if protocol == tcp || protocol == udp {
			f.SourcePort = binary.BigEndian.Uint16(ip[header+2:])
			f.DestinationPort = binary.BigEndian.Uint16(ip[header:])
		}
	}
	hash := steering.FlowHash([2]uint64{}, f)
	gateway := s.Gateways[hash&0xffffffff*uint64(len(s.Gateways))>>32].Addr().As16()
	binary.BigEndian.PutUint16(gateway[8:], behaviourReturn)
	source := s.Locator.Addr().As16()
	binary.BigEndian.PutUint16(source[8:], 0x5205)
	copy(source[13:], []byte{byte(hash >> 20), byte(hash >> 28), byte(hash >> 36)})
	out := make([]byte, ip6Len)
	binary.BigEndian.PutUint32(out, 6<<28|uint32(class)<<20|steering.FlowLabel(hash))
	binary.BigEndian.PutUint16(out[4:], uint16(len(ip)))
	out[6], out[7] = next, 64
	copy(out[8:], source[:])
	copy(out[24:], gateway[:])
	return slices.Concat(in[:12], []byte{0x86, 0xdd}, out, ip)
}

func datagram(from, to netip.Addr, port uint16, payload int) []byte {
	b := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(b, 53)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], sum(append(pseudo(from, to, udp, len(b)), b...)))
	return frame(from, to, udp, 0xb8, b)
}

// What VIPs answer to clients goes to a gateway, and nothing else does. Wireshark reads
// it.
func TestReturn(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip4, vip6}))
	s := byGateways()
	must(t, r.Set(s))
	inside := netip.MustParseAddr("2001:db8:5e:1::1")
	fragment := datagram(vip4, client4, 7, 40)
	fragment[etherLen+6] = 0x20
	binary.BigEndian.PutUint16(fragment[etherLen+10:], 0)
	binary.BigEndian.PutUint16(fragment[etherLen+10:], sum(fragment[etherLen:etherLen+ip4Len]))
	icmp := func(kind byte) []byte {
		b := make([]byte, 24)
		b[0] = kind
		binary.BigEndian.PutUint16(b[2:], sum(append(pseudo(vip6, client6, 58, len(b)), b...)))
		return frame(vip6, client6, 58, 0, b)
	}
	var frames []tshark.Frame
	for _, tt := range []struct {
		name   string
		in     []byte
		direct bool
	}{
		{"TCP over IPv4", segment(vip4, client4, ack, nil), false},
		{"TCP over IPv6", segment(vip6, client6, ack, nil), false},
		{"UDP over IPv4", datagram(vip4, client4, 50000, 30), false},
		{"UDP over IPv6", datagram(vip6, client6, 50001, 30), false},
		{"fragment", fragment, false},
		{"echo reply", icmp(129), false},
		{"Neighbour Discovery", icmp(135), true},
		{"from no VIP", segment(client6, vip6, ack, nil), true},
		{"to the domain", segment(vip6, inside, ack, nil), true},
	} {
		want, wanted := encapsulated(tt.in, s), uint32(redirected)
		if tt.direct {
			want, wanted = tt.in, goesOn
		}
		verdict, got := run(t, r, tt.in)
		if verdict != wanted || !bytes.Equal(got, want) {
			t.Errorf("%s: verdict %d, want %d\n%x, want\n%x", tt.name, verdict, wanted, got, want)
		}
		frames = append(frames, tshark.Frame{Name: tt.name, Data: got})
		for n := etherLen + ip6Len; n < len(tt.in); n++ {
			if verdict, got := run(t, r, tt.in[:n]); verdict != goesOn || !bytes.Equal(got, tt.in[:n]) {
				t.Errorf("%s, %d bytes of it: verdict %d, %x", tt.name, n, verdict, got)
			}
		}
	}
	tshark.Judge(t, frames)
	counts, err := r.Counts()
	must(t, err)
	if counts["returned"] != 6 || counts["dropped_too_big"]+counts["dropped_room"] != 0 {
		t.Error(counts)
	}
	must(t, r.Set(Setting{}))
	in := segment(vip4, client4, ack, nil)
	if verdict, got := run(t, r, in); verdict != goesOn || !bytes.Equal(got, in) {
		t.Errorf("direct again: verdict %d, %x", verdict, got)
	}
}

// Whatever the flow is, program and model agree, and all gateways get some.
func TestReturnRandomly(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip4, vip6}))
	s := byGateways()
	must(t, r.Set(s))
	by := map[byte]int{}
	rapid.Check(t, func(t *rapid.T) {
		from, to := vip4, netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "client")))
		if rapid.Bool().Draw(t, "IPv6") {
			from, to = vip6, netip.AddrFrom16([16]byte(append([]byte{0x2a}, rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, "client")...)))
		}
		in := datagram(from, to, rapid.Uint16().Draw(t, "port"), rapid.IntRange(0, 1400).Draw(t, "payload"))
		want := encapsulated(in, s)
		if verdict, got := run(t, r, in); verdict != redirected || !bytes.Equal(got, want) {
			t.Fatalf("verdict %d\n%x, want\n%x", verdict, got, want)
		}
		by[want[etherLen+24+7]]++
	})
	if len(by) != 2 {
		t.Errorf("flows went by %s", fmt.Sprint(by))
	}
}

// An answer of which segments are yet to be made is dropped where those do not fit with
// the outer header; the kernel runs none here that is to be encapsulated.
func TestReturnOfSegments(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip4, vip6}))
	must(t, r.Set(byGateways()))
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "eth0", 1500
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
	device, err := net.InterfaceByName("eth0")
	must(t, err)
	must(t, netlink.LinkSetUp(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: device.Index}}))
	for _, tt := range []struct {
		name string
		in   []byte
		size uint32
		want string
	}{
		{"IPv6", segment(vip6, client6, ack, nil), 1500 - 40 - headers6, "dropped_room"},
		{"IPv6, too big", segment(vip6, client6, ack, nil), 1500 - 40 - headers6 + 1, "dropped_too_big"},
		{"IPv4", segment(vip4, client4, ack, nil), 1500 - 40 - headers4, "dropped_room"},
		{"IPv4, too big", segment(vip4, client4, ack, nil), 1500 - 40 - headers4 + 1, "dropped_too_big"},
		{"with options", segment(vip4, client4, ack, []byte{1, 1, 1, 1}), 1500 - 40 - headers4 - 4, "dropped_room"},
		{"with options, too big", segment(vip4, client4, ack, []byte{1, 1, 1, 1}), 1500 - 40 - headers4 - 3, "dropped_too_big"},
	} {
		before, err := r.Counts()
		must(t, err)
		skb := make([]byte, 192) // struct __sk_buff
		binary.NativeEndian.PutUint32(skb[40:], uint32(device.Index))
		binary.NativeEndian.PutUint32(skb[164:], 2) // gso_segs
		binary.NativeEndian.PutUint32(skb[176:], tt.size)
		o := ebpf.RunOptions{Data: tt.in, DataOut: make([]byte, len(tt.in)+256), Context: skb}
		verdict, err := r.Program().Run(&o)
		must(t, err)
		after, err := r.Counts()
		must(t, err)
		if verdict != dropped || after[tt.want] != before[tt.want]+1 {
			t.Errorf("%s: verdict %d, %v, before %v", tt.name, verdict, after, before)
		}
	}
}

// What cannot be read goes straight on, and is counted.
func TestReturnOfUnread(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	must(t, r.SetVIPs([]netip.Addr{vip6}))
	in := frame(vip6, client6, 60, 0, slices.Concat(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 4), []byte{59, 0, 1, 4, 0, 0, 0, 0}))
	for i, s := range []Setting{{}, byGateways()} {
		must(t, r.Set(s))
		if verdict, got := run(t, r, in); verdict != goesOn || !bytes.Equal(got, in) {
			t.Errorf("verdict %d, %x", verdict, got)
		}
		if counts, err := r.Counts(); err != nil || counts["unread"] != uint64(i) {
			t.Error(counts, err)
		}
	}
}

// What answers cannot go by.
func TestSettingThatIsNone(t *testing.T) {
	t.Parallel()
	r := loaded(t, "")
	for name, change := range map[string]func(*Setting){
		"a block of IPv4":           func(s *Setting) { s.Block = prefix("192.0.2.0/24") },
		"no block":                  func(s *Setting) { s.Block = netip.Prefix{} },
		"a locator outside":         func(s *Setting) { s.Locator = prefix("2001:db8:6::/64") },
		"a gateway outside":         func(s *Setting) { s.Gateways[1] = prefix("2001:db8:6::/64") },
		"a gateway of another size": func(s *Setting) { s.Gateways[0] = prefix("2001:db8:5e:1::/96") },
		"too many gateways":         func(s *Setting) { s.Gateways = make([]netip.Prefix, MaxGateways+1) },
	} {
		s := byGateways()
		change(&s)
		if err := r.Set(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
