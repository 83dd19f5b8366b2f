package balancer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

// pin has a flow pinned in the model and in the program, and its slot marked or not.
func (m *model) pin(tb testing.TB, b *Balancer, f Flow, service int, hash uint64, marked bool, pin bpfPin) {
	tb.Helper()
	at := [2]uint32{uint32(service), steering.FlowSlot(hash)}
	m.rows[at] &^= rowMark
	if marked {
		m.rows[at] |= rowMark
	}
	b.SetRow(int(at[0]), int(at[1]), m.rows[at])
	m.pins[f] = &pin
	if _, err := b.pinTo(f.key(), pin); err != nil {
		tb.Fatal(err)
	}
}

// unpinAll has no flow pinned.
func (m *model) unpinAll(tb testing.TB, b *Balancer) {
	tb.Helper()
	for f := range m.pins {
		if err := b.unpin(f.key()); err != nil {
			tb.Fatal(err)
		}
	}
	clear(m.pins)
}

// pinSomehow pins the flow of a frame, if it has one, to any backend, also to one that
// is not there or cannot be reached, for any time.
func (m *model) pinSomehow(tb testing.TB, b *Balancer, r *rand.Rand, frame []byte) {
	tb.Helper()
	f, service, hash, ok := m.flowOf(frame)
	if !ok {
		return
	}
	ages := []uint32{0, 30, 90, 500, 700} // none within reach of a limit while the test runs
	pin := bpfPin{Backend: r.Uint32N(10), Used: uptime() - ages[r.IntN(len(ages))], Service: uint16(service), Closing: uint16(r.IntN(2))}
	if r.IntN(8) == 0 {
		pin.Service++
	}
	m.pin(tb, b, f, service, hash, r.IntN(4) != 0, pin)
}

// Packets of a flow with a pin: who gets them, and what becomes of the pin.
func TestPinnedPackets(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	const owner, current, previous = 4, 2, 3
	for name, c := range map[string]struct {
		row    uint32
		pin    bpfPin
		packet []byte   // nil: an ACK
		want   []uint32 // whom it is sent to
		gone   bool     // the pin
	}{
		"an ACK":                            {current | previous<<15 | rowMark, bpfPin{Backend: owner}, nil, []uint32{owner, current, previous}, false},
		"no previous":                       {current | rowMark, bpfPin{Backend: owner}, nil, []uint32{owner, current}, false},
		"the owner is current":              {current | previous<<15 | rowMark, bpfPin{Backend: current}, nil, []uint32{current, previous}, false},
		"the owner is previous":             {current | previous<<15 | rowMark, bpfPin{Backend: previous}, nil, []uint32{previous, current}, false},
		"nobody is current, but next to it": {rowMark, bpfPin{Backend: owner}, nil, []uint32{owner, 1}, false},
		"no mark":                           {current, bpfPin{Backend: owner}, nil, []uint32{current}, false},
		"no backend":                        {current | rowMark, bpfPin{Backend: 30}, nil, []uint32{current}, false},
		"a service with another number":     {current | rowMark, bpfPin{Backend: owner, Service: 1}, nil, []uint32{current}, false},
		"idle for nearly 10 minutes":        {current | rowMark, bpfPin{Backend: owner, Used: 590}, nil, []uint32{owner, current}, false},
		"idle for more than 10 minutes":     {current | rowMark, bpfPin{Backend: owner, Used: 602}, nil, []uint32{current}, false},
		"closing, idle for nearly a minute": {current | rowMark, bpfPin{Backend: owner, Used: 50, Closing: 1}, nil, []uint32{owner, current}, false},
		"closing, idle for more":            {current | rowMark, bpfPin{Backend: owner, Used: 62, Closing: 1}, nil, []uint32{current}, false},
		"a clock that is ahead":             {current | rowMark, bpfPin{Backend: owner, Used: ^uint32(1)}, nil, []uint32{owner, current}, false},
		"a FIN":                             {current | rowMark, bpfPin{Backend: owner}, tcp(31000, 443, fin|ack, 0), []uint32{owner, current}, false},
		"a RST":                             {current | rowMark, bpfPin{Backend: owner}, tcp(31000, 443, rst, 0), []uint32{owner, current}, false},
		"a SYN without a mark":              {current, bpfPin{Backend: owner}, tcp(31000, 443, syn, 0), []uint32{current, 1}, false},
		"a SYN":                             {current | rowMark, bpfPin{Backend: owner}, tcp(31000, 443, syn, 0), []uint32{current, 1}, true},
	} {
		packet := c.packet
		if packet == nil {
			packet = tcp(31000, 443, ack, 30)
		}
		frame := ethernet(0, ip(client6, vip6, unix.IPPROTO_TCP, packet))
		f, service, hash, ok := m.flowOf(frame)
		if !ok {
			t.Fatal(name)
		}
		slot := steering.FlowSlot(hash)
		m.rows[[2]uint32{0, slot}] = c.row
		m.rows[[2]uint32{0, slot + 1}] = 1
		b.SetRow(0, int(slot+1), 1)
		c.pin.Used = uptime() - c.pin.Used
		m.pin(t, b, f, service, hash, c.row&rowMark != 0, c.pin)
		want := m.run(bytes.Clone(frame))
		got := b.try(t, frame)
		compare(t, name, frame, got, want, true)
		if list := m.path(got.frame); !slices.Equal(list, c.want) {
			t.Errorf("%s: went to %v, want %v", name, list, c.want)
		}
		m.comparePin(t, b, name, f)
		if (m.pins[f] == nil) != c.gone {
			t.Errorf("%s: the pin is %v", name, m.pins[f])
		}
	}
}

// Pins are kept under the slot that the program finds for their packets.
func TestSlotOfPin(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	f := Flow{netip.MustParseAddrPort("[" + client6 + "]:31000"), netip.MustParseAddrPort("[" + vip6 + "]:443"), unix.IPPROTO_TCP}
	for i, s := range m.services {
		want := m.hash(i, f.Client.Addr(), f.Client.Port(), f.VIP.Port(), f.Protocol)
		if got := steering.FlowHash(s.Key, f.hashed(s)); got != want {
			t.Errorf("service %d, %+v: hash %x, want %x", i, s, got, want)
		}
	}
}

// path is whom an encapsulated frame goes to, one after another.
func (m *model) path(frame []byte) []uint32 {
	list := [][]byte{frame[14+24 : 14+40]}
	if frame[14+6] == unix.IPPROTO_ROUTING {
		list = nil
		for segment := range slices.Chunk(frame[14+48:14+48+8*int(frame[14+41])], 16) {
			list = append([][]byte{segment}, list...)
		}
	}
	var out []uint32
	for _, sid := range list {
		for index, backend := range m.backends {
			if bytes.Equal(backend.SID.AsSlice(), sid) {
				out = append(out, index)
			}
		}
	}
	return out
}

// comparePin holds the pin of a flow to what the model has.
func (m *model) comparePin(tb testing.TB, b *Balancer, name string, f Flow) {
	tb.Helper()
	var got bpfPin
	switch err := b.objects.Pins.Lookup(f.key(), &got); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		if m.pins[f] != nil {
			tb.Errorf("%s: the pin is gone, want %v", name, *m.pins[f])
		}
	case err != nil:
		tb.Fatal(err)
	case m.pins[f] == nil:
		tb.Errorf("%s: a pin is left: %v", name, got)
	default:
		want := *m.pins[f]
		if late := int32(want.Used - got.Used); late == 1 || late == -1 {
			got.Used = want.Used // the second went by
		}
		if got != want {
			tb.Errorf("%s: pin %v, want %v", name, got, want)
		}
	}
}
