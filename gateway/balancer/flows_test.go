package balancer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// tally is the flow that a packet counts for: of a VIP by its number, and of the backend
// that is the first choice, 0 for nobody.
type tally struct {
	hash    uint64
	vip     int
	backend uint32
	fresh   bool // else it counts once in a second
}

// seenSlots and seenPart are of gateway/bpf/flows.h.
const (
	seenSlots = 1 << 18
	seenPart  = int64(time.Second) / seenSlots // from the second of a slot to that of the next one
)

func (y *tally) slot() int64 { return int64(y.hash >> 32 % seenSlots) }

// second is that of the flow's slot.
func (y *tally) second(tb testing.TB) int64 {
	tb.Helper()
	return (coarse(tb) + y.slot()*seenPart) / int64(time.Second)
}

// coarse is the clock of the program, in ns.
func coarse(tb testing.TB) int64 {
	tb.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		tb.Fatal(err)
	}
	return now.Nano()
}

// flowCounts are the flows of all VIPs and backends of the model, new ones and old ones.
type flowCounts struct{ vips, backends map[int][2]uint64 }

func (m *model) flowCounts(tb testing.TB, b *Balancer) flowCounts {
	tb.Helper()
	c := flowCounts{map[int][2]uint64{}, map[int][2]uint64{}}
	add := func(to map[int][2]uint64, i int, t Traffic, err error) {
		if err != nil {
			tb.Fatal(err)
		}
		to[i] = [2]uint64{t.NewFlows, t.OldFlows}
	}
	for _, a := range m.vips {
		t, err := b.VIPTraffic(a.Number)
		add(c.vips, a.Number, t, err)
	}
	for i := range m.backends {
		t, err := b.BackendTraffic(int(i))
		add(c.backends, int(i), t, err)
	}
	return c
}

// The flows of each packet count where the model says, and old ones once in a second.
func TestFlowsCounted(t *testing.T) {
	t.Parallel()
	m := newModelOfSites(true)
	b := m.load(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	all := append(fixtures(), siteFixtures()...)
	seen := map[int64]int64{} // by slot
	var fresh, old, again int
	var frame []byte
	for range 3000 {
		f := all[r.IntN(len(all))]
		if frame == nil || r.IntN(3) > 0 { // else the same again
			frame = mutated(r, ethernet(uint16(r.IntN(2)), f.packet))
			if r.IntN(2) == 0 {
				m.pinSomehow(t, b, r, frame)
			}
		}
		m.run(bytes.Clone(frame)) // a pin that a SYN ends may not be there the next time
		of := m.tally
		var before int64
		if of != nil {
			before = of.second(t)
		}
		was := m.flowCounts(t, b)
		b.run(t, frame)
		is := m.flowCounts(t, b)
		want := [2]uint64{}
		switch {
		case of == nil:
		case of.fresh:
			want[0]++
			fresh++
		default:
			if of.second(t) != before { // it is not known which one the packet had
				s, err := readSeen(b)
				if err != nil {
					t.Fatal(err)
				}
				seen[of.slot()] = int64(s.At[of.slot()])
				continue
			}
			if seen[of.slot()] != before {
				seen[of.slot()] = before
				want[1]++
				old++
			} else {
				again++
			}
		}
		for i, n := range is.vips {
			m.compareFlows(t, "VIP", i, of != nil && i == of.vip, was.vips[i], n, want)
		}
		for i, n := range is.backends {
			m.compareFlows(t, "backend", i, of != nil && i == int(of.backend), was.backends[i], n, want)
		}
		if t.Failed() {
			t.Fatalf("%s, seed %d, sample %d: %x", f.name, seed, b.Sample(), frame)
		}
	}
	if fresh < 20 || old < 100 || again < 100 {
		t.Errorf("%d new flows, %d old ones and %d of them again", fresh, old, again)
	}
}

func (m *model) compareFlows(t *testing.T, what string, i int, counts bool, was, is, want [2]uint64) {
	t.Helper()
	if !counts {
		want = [2]uint64{}
	}
	if got := [2]uint64{is[0] - was[0], is[1] - was[1]}; got != want {
		t.Errorf("%s %d: %d new flows and %d old ones, want %d and %d", what, i, got[0], got[1], want[0], want[1])
	}
}

func readSeen(b *Balancer) (*bpfSeen, error) {
	s := new(bpfSeen)
	return s, b.objects.Seen.Lookup(uint32(0), s)
}

// oldFlow is a packet of one of many old flows, and its hash.
func (m *model) oldFlow(number uint32) (frame []byte, hash uint64) {
	client := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+number)))
	frame = ethernet(0, ip(client.String(), vip4, unix.IPPROTO_TCP, tcp(31000, 443, ack, 10)))
	return frame, m.hash(0, client, 31000, 443, unix.IPPROTO_TCP)
}

// Where one of several flows is looked at, it counts for all of them.
func TestFlowsSampled(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	const sample, flows = 16, 8192
	b.settings.at(0).Sample = sample - 1
	want := uint64(0)
	slots := map[int64]bool{}
	for i, sent := uint32(0), 0; sent < flows; i++ {
		frame, hash := m.oldFlow(i)
		of := tally{hash: hash}
		if slots[of.slot()] {
			continue // it would count where the second is another one by now
		}
		slots[of.slot()] = true
		if hash%sample == 0 {
			want += sample
		}
		sent++
		b.settings.at(0).Sample = sample - 1 // there are few: the program would look at more
		b.once(t, frame)
	}
	got, err := b.VIPTraffic(1)
	if err != nil || got.Packets != flows {
		t.Fatalf("%+v, %v", got, err)
	}
	if got.OldFlows != want {
		t.Errorf("%d flows counted, want %d of %d", got.OldFlows, want, flows)
	}
	if want < flows*8/10 || want > flows*12/10 {
		t.Errorf("the sample stands for %d of %d flows", want, flows)
	}
}

// Many looks in a second have fewer flows looked at, and few ones more again.
func TestSampleFits(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	if s := b.Sample(); s != 1 {
		t.Fatalf("at first 1 of %d", s)
	}
	for _, c := range []struct {
		name           string
		sample, looks  uint32
		ago            uint32 // seconds since these looks
		want, wantLeft uint32
	}{
		{"a look", 1, 7, 0, 1, 8},
		{"the most", 1, seenSlots/8 - 1, 0, 1, seenSlots / 8},
		{"too many", 1, seenSlots / 8, 0, 2, seenSlots / 16},
		{"too many of half", 2, seenSlots / 8, 0, 4, seenSlots / 16},
		{"too many of the least", 1 << 16, seenSlots / 8, 0, 1 << 16, seenSlots/8 + 1},
		{"enough in the second before", 8, seenSlots / 32, 1, 8, 0},
		{"few in the second before", 8, seenSlots/32 - 1, 1, 4, 0},
		{"none for seconds", 1 << 16, 0, 2, 1, 0},
		{"few, of all", 1, 0, 1, 1, 0},
	} {
		s := &bpfSeen{Looks: c.looks}
		var before, after uint32
		for before, after = 0, 1; before != after; after = uint32(coarse(t) / int64(time.Second)) { // in one second
			before = uint32(coarse(t) / int64(time.Second))
			s.Second = before - c.ago
			if err := b.objects.Seen.Put(uint32(0), s); err != nil {
				t.Fatal(err)
			}
			b.settings.at(0).Sample = c.sample - 1
			b.once(t, m.flowWith(func(hash uint64) bool { return hash%(1<<16) == 0 }))
		}
		got, err := readSeen(b)
		if err != nil {
			t.Fatal(err)
		}
		if b.Sample() != c.want || got.Looks != c.wantLeft || got.Second != after {
			t.Errorf("%s: 1 of %d and %d looks in second %d of %d, want 1 of %d and %d looks", c.name, b.Sample(), got.Looks, got.Second, after, c.want, c.wantLeft)
		}
	}
}

// Where no flow is left of those that are looked at, others have more looked at again.
func TestSampleIsLeft(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	b := m.load(t)
	b.settings.at(0).Sample = 1<<16 - 1
	frame := m.flowWith(func(hash uint64) bool { return hash%2 == 1 })
	for range 1024 * ebpf.MustPossibleCPU() { // packets of a CPU
		if b.once(t, frame); b.Sample() == 1 {
			break
		}
	}
	if got := b.Sample(); got != 1 {
		t.Errorf("1 of %d flows is looked at", got)
	}
	b.once(t, frame)
	if got, err := b.VIPTraffic(1); err != nil || got.OldFlows != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// flowWith is a packet of an old flow with a hash that is as it is to be.
func (m *model) flowWith(is func(hash uint64) bool) []byte {
	for i := uint32(0); ; i++ {
		if frame, hash := m.oldFlow(i); is(hash) {
			return frame
		}
	}
}
