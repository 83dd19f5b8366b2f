package balancer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
)

const quicVIP6, quicVIP4 = "2001:db8:ffff::4", "198.51.100.4"

// quicService is the tests' service whose connection IDs name backends, by quicID.
var quicService = Service{Key: [2]uint64{5, 6}, QUIC: QUIC{Rotation: 5, ServerID: 4}}

// quicID is a connection ID of a backend, of 9 bytes.
func quicID(rotation, backend byte) []byte {
	return []byte{rotation<<5 | 8, 0xab, 0, 0, backend, 1, 2, 3, 4}
}

// short is the payload of a short header, long that of a long one.
func short(id []byte) []byte { return append(append([]byte{0x40}, id...), make([]byte, 30)...) }

func long(first byte, version uint32, id []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{first}, version)
	b = append(append(b, byte(len(id))), id...)
	return append(b, make([]byte, 40)...)
}

// quic is a packet of a client to the service.
func quic(client string, payload []byte) []byte {
	vip := quicVIP6
	if netip.MustParseAddr(client).Is4() {
		vip = quicVIP4
	}
	b := udp(31000, 443, len(payload))
	copy(b[8:], payload)
	return ip(client, vip, unix.IPPROTO_UDP, b)
}

// quicFixtures are packets, and whom they name; 0 is nobody.
func quicFixtures() (all []struct {
	fixture
	names uint32
},
) {
	add := func(name string, names uint32, payload []byte) {
		for _, client := range []string{client6, client4} {
			all = append(all, struct {
				fixture
				names uint32
			}{fixture{"QUIC from " + client + ", " + name, quic(client, payload), xdpTX, "sent"}, names})
		}
	}
	three := quicID(5, 3)
	add("short header", 3, short(three))
	add("short header without the fixed bit", 3, with(short(three), 0, 0))
	add("another backend", 2, short(quicID(5, 2)))
	add("another backend on another uplink", 4, short(quicID(5, 4)))
	add("another rotation", 0, short(quicID(4, 3)))
	add("unroutable", 0, short(quicID(7, 3)))
	add("nobody's server ID", 0, short(quicID(5, 99)))
	add("a server ID of no backend", 0, short(quicID(5, 9)))
	add("20 bytes", 3, short(append(three, make([]byte, 11)...)))
	add("shorter than any packet", 0, short(three)[:21])
	add("as short as is looked at", 3, short(three)[:22])
	add("nothing", 0, nil)
	add("Initial", 0, long(0xc0, 1, three))
	add("0-RTT", 0, long(0xd0, 1, three))
	add("Handshake", 3, long(0xe0, 1, three))
	add("Handshake with an ID that is too short", 0, long(0xe0, 1, three[:8]))
	add("Initial of version 2", 0, long(0xd0, 0x6b3343cf, three))
	add("0-RTT of version 2", 0, long(0xe0, 0x6b3343cf, three))
	add("Handshake of version 2", 3, long(0xf0, 0x6b3343cf, three))
	add("unknown version", 3, long(0xc0, 0x1a2a3a4a, three))
	return all
}

// A connection ID names a backend, whatever the row and the client's address say; what
// names none goes by the row.
func TestConnectionIDs(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	for _, f := range quicFixtures() {
		frame := ethernet(0, f.packet)
		p := read(frame)
		hash := m.hash(3, p.source, p.ports[0], p.ports[1], p.protocol)
		index, _ := m.choose(3, hash, false, false)
		if f.names != 0 {
			index = f.names
		}
		want := m.backends[index].SID.As16()
		binary.BigEndian.PutUint16(want[8:], behaviourFinal)
		before, err := b.BackendTraffic(int(index))
		if err != nil {
			t.Fatal(err)
		}
		got := b.run(t, frame)
		at := 14 + 24 // of the outer destination
		if m.backends[index].Hop.VLAN != 0 {
			at += 4
		}
		if got.action != xdpTX && got.action != xdpRedirect || !bytes.Equal(got.frame[at:at+16], want[:]) {
			t.Errorf("%s: verdict %d, to %x, want %x", f.name, got.action, got.frame[at:at+16], want)
		}
		if after, err := b.BackendTraffic(int(index)); err != nil || after.Packets != before.Packets+1 {
			t.Errorf("%s: counted %v after %v, %v", f.name, after, before, err)
		}
	}
}

func TestServerIDs(t *testing.T) {
	t.Parallel()
	sid := Hunt(netip.MustParsePrefix("2001:db8:5e:102::/64"), 0x304)
	for n, want := range map[int]string{1: "\x04", 2: "\x03\x04", 4: "\x01\x02\x03\x04", 10: "\x20\x01\x0d\xb8\x00\x5e\x01\x02\x03\x04", 12: "\x00\x00\x20\x01\x0d\xb8\x00\x5e\x01\x02\x03\x04"} {
		if got := (QUIC{ServerID: n}).Own(sid); got != want {
			t.Errorf("%d bytes: %x, want %x", n, got, want)
		}
	}
}

// quicPlanned is a service with two backends, whose own server IDs of 4 bytes are
// 00010000 and 00020000.
func quicPlanned(states ...State) PlannedService {
	s := service("web", states...)
	s.VIPs[0].Protocol, s.QUIC = unix.IPPROTO_UDP, QUIC{Rotation: 5, ServerID: 4}
	return s
}

// A backend is named as long as it has flows, also by a process that takes over.
func TestServersOfPlans(t *testing.T) {
	t.Parallel()
	dir := testhost.BPFFS(t)
	b, k := process(t, dir, 3)
	holds := func(when string, want ...string) {
		t.Helper()
		is, err := all[bpfServerKey, uint32](b.objects.Servers)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for key, index := range is {
			for _, r := range k.backends {
				if uint32(r.index) == index {
					got = append(got, fmt.Sprintf("%x %s", key.Id[:4], r.name))
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	apply(t, k, quicPlanned(Active, Draining))
	holds("derived", "00010000 b1", "00020000 b2")
	if got := k.Status(); got[1].Server != "00020000" {
		t.Errorf("status %+v", got)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b, k = process(t, dir, 3)
	defer func() { _ = b.Close() }()
	s := quicPlanned(Active, Draining)
	s.Backends[0].ServerID = "\xaa\xbb\xcc\xdd"
	apply(t, k, s)
	holds("given", "00020000 b2", "aabbccdd b1")
	for want, change := range map[string]func(s *PlannedService){
		"config rotation 7":                func(s *PlannedService) { s.QUIC.Rotation = 7 },
		"server ID of 16 bytes":            func(s *PlannedService) { s.QUIC.ServerID = 16 },
		"0102 has 2 bytes, want 4":         func(s *PlannedService) { s.Backends[0].ServerID = "\x01\x02" },
		"b1 and b2 have the server ID 000": func(s *PlannedService) { s.Backends[0].ServerID = "\x00\x02\x00\x00" },
		"have the server ID 0000":          func(s *PlannedService) { s.QUIC.ServerID = 2 },
	} {
		s := quicPlanned(Active, Active)
		change(&s)
		if err := k.Apply(Plan{Services: []PlannedService{s}}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	holds("refused plans", "00020000 b2", "aabbccdd b1")
	apply(t, k, quicPlanned(Active, Dead))
	holds("dead", "00010000 b1")
	apply(t, k, service("web", Active))
	holds("without QUIC")
}
