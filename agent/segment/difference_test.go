package segment

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// inhabited is a host with flows in all states, and what a client would say next in them.
func inhabited(tb testing.TB) (h *host, next map[flow]cookie) {
	tb.Helper()
	h, next = newHost(tb), map[flow]cookie{}
	for _, port := range []uint16{portMPTCP, portTCP} {
		for _, v6 := range []bool{false, true} {
			for i, open := range []func(flow) cookie{h.connect, h.request, h.finish, h.cookie} {
				f := flowTo(v6, uint16(4000+i), port)
				next[f] = open(f)
			}
		}
	}
	return h, next
}

// maker makes frames that are nearly right.
type maker struct {
	*rand.Rand
	flows []flow
	next  map[flow]cookie
}

func newMaker(seed uint64, next map[flow]cookie) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 0)), next: next}
	for f := range next {
		m.flows = append(m.flows, f)
	}
	slices.SortFunc(m.flows, func(a, b flow) int { return a.compare(b) })
	return m
}

func (f flow) compare(o flow) int {
	if c := f.vip.Compare(o.vip); c != 0 {
		return c
	}
	return f.client.Compare(o.client)
}

func (m *maker) one(chance float64) bool { return m.Float64() < chance }

func pick[T any](m *maker, of ...T) T { return of[m.IntN(len(of))] }

func (m *maker) sid() netip.Addr {
	host := pick(m, locator, locator, neighbor, gateway, netip.MustParsePrefix("2001:db8:bad::/64"))
	target := pick[uint16](m, Host, Host, Host, container, 2, MaxTargets)
	return sid(host, pick[uint16](m, hunt, hunt, hunt, hunt, final, miss, 0), target, byte(m.Uint32()))
}

func (m *maker) outer() outer {
	n := 1 + m.IntN(pick(m, 1, 3, 7))
	o := outer{
		source: pick(m, sid(gateway, source, 0), sid(gateway, source, 0, 3), sid(locator, source, 0), sid(gateway, 1, 0)),
		left:   m.IntN(n), hops: pick[byte](m, 1, 2, 3, 64, 64, 255), class: byte(m.Uint32()),
		red: m.one(0.3), vlan: m.one(0.2),
	}
	if m.one(0.05) {
		o.source = netip.MustParseAddr("2001:db8:bad::1")
	}
	for range n {
		o.segments = append(o.segments, m.sid())
	}
	o.segments[n-1-o.left] = sid(locator, pick[uint16](m, hunt, hunt, hunt, final), pick[uint16](m, Host, Host, Host, container), 1)
	return o
}

func (m *maker) flow() flow {
	if m.one(0.8) {
		return pick(m, m.flows...)
	}
	f := flowTo(m.one(0.5), uint16(m.Uint32()), pick[uint16](m, portMPTCP, portTCP, 99))
	if m.one(0.1) {
		f.vip = netip.AddrPortFrom(f.vip.Addr().Next(), f.vip.Port())
	}
	return f
}

func (m *maker) inner() []byte {
	f := m.flow()
	c := m.next[f]
	if m.one(0.2) {
		c.acked += m.Uint32() >> m.IntN(32)
	}
	flags := pick[byte](m, ack, ack, syn, fin|ack, rst, rst|ack, syn|ack, byte(m.Uint32()))
	router := netip.MustParseAddr("203.0.113.1")
	if f.vip.Addr().Is6() {
		router = netip.MustParseAddr("2001:db8:e::1")
	}
	b := f.segment(flags, c.sequence, c.acked)
	if m.one(0.5) {
		b = m.options(f, b)
	}
	switch m.IntN(10) {
	case 0:
		b = f.datagram(byte(m.Uint32()))
	case 1, 2:
		b = f.unreachable(router, c.acked-uint32(m.IntN(2)), m.IntN(24))
	case 3:
		b = m.extended(b)
	}
	return b
}

// options puts options into a packet of TCP, most of them one that tells of the largest
// segment.
func (m *maker) options(f flow, b []byte) []byte {
	all := pick(m, nil, []byte{1}, []byte{1, 1}, []byte{3, 3, 7}, []byte{4, 2}, []byte{0}, []byte{8, 0})
	all = append(slices.Clone(all), 2, pick[byte](m, 4, 4, 4, 3), byte(m.Uint32()>>m.IntN(8)), byte(m.Uint32()))
	for range m.IntN(6) {
		all = append(all, byte(m.Uint32()>>m.IntN(8)))
	}
	for len(all)%4 > 0 {
		all = append(all, 1)
	}
	l4 := ip4Len
	if f.vip.Addr().Is6() {
		l4 = ip6Len
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)+len(all)-ip6Len))
	} else {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(all)))
	}
	b[l4+12] = byte(tcpLen+len(all)) << 2
	return slices.Insert(b, l4+tcpLen, all...)
}

// extended puts extension headers, or options, into a packet.
func (m *maker) extended(b []byte) []byte {
	if b[0]>>4 == 4 {
		n := 1 + m.IntN(10)
		b = slices.Concat(b[:ip4Len], make([]byte, 4*n), b[ip4Len:])
		b[0] += byte(n)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		return b
	}
	for range 1 + m.IntN(5) {
		x := make([]byte, 8*(1+m.IntN(3)))
		x[0], x[1] = b[6], byte(len(x)/8-1)
		b[6] = pick[byte](m, hopByHop, dstOpts, dstOpts, routing, fragment)
		switch b[6] {
		case fragment:
			x = x[:8]
			x[1] = 0
			x[3] = pick[byte](m, 0, 0, 1, 8)
		case routing:
			x[2] = pick[byte](m, 0, 0, 0, 4)
		}
		b = slices.Concat(b[:ip6Len], x, b[ip6Len:])
	}
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ip6Len))
	return b
}

// frame is a frame: right, or with a few bytes that are not.
func (m *maker) frame() []byte {
	b := m.outer().wrap(m.inner())
	if m.one(0.05) {
		b = frame(m.inner(), m.one(0.5))
	}
	if m.one(0.5) {
		return b
	}
	for range 1 + m.IntN(3) {
		at := m.IntN(len(b))
		if m.one(0.7) {
			at = 12 + m.IntN(min(len(b)-12, 120)) // where headers are
		}
		b[at] = pick(m, byte(m.Uint32()), b[at]^1<<m.IntN(8), 0, 0xff)
	}
	switch m.IntN(8) {
	case 0:
		b = b[:etherLen+m.IntN(len(b)-etherLen)]
	case 1:
		b = append(b, make([]byte, m.IntN(64))...)
	}
	return b
}

// differ compares the program with the model for one frame.
func (h *host) differ(in []byte) outcome {
	h.tb.Helper()
	verdict, out := h.run(in)
	m := h.world.model(in)
	if verdict == aborted || !m.same(verdict, out) {
		h.tb.Fatalf("in\n% x\nverdict %d\n% x\nthe model says %d %v\n% x", in, verdict, out, m.verdict, m.reasons, m.frame)
	}
	return m
}

// frames is how many frames are tried.
func frames() int {
	if os.Getenv("RAZOR_LONG") != "" {
		return 10_000_000
	}
	return 200_000
}

func TestProgramIsTheModel(t *testing.T) {
	t.Parallel()
	var (
		seen [reasons]int
		done int
	)
	for seed := 0; done < frames() && !t.Failed(); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			h, next := inhabited(t)
			m := newMaker(uint64(seed), next)
			// What is half open, or has ended, is no more after a minute.
			built := time.Now()
			for i := 0; i < 50 && time.Since(built) < 20*time.Second; i++ {
				h.level(Host, pick(m, Normal, Warning, Critical))
				h.sends(Host, pick(m, 0, 30, 576, 1460, 9000))
				h.sends(container, pick(m, 0, 1460))
				h.differAll(m, 1000, &seen)
				done += 1000
			}
		})
	}
	for r, n := range seen {
		// No frame of a test is too long to have its headers taken off.
		if n == 0 && Reason(r) != DroppedRoom && Reason(r) != eventLost {
			t.Errorf("no frame is %v", Reason(r))
		}
	}
	t.Log(seen)
}

// differAll compares many frames, and the counters.
func (h *host) differAll(m *maker, n int, seen *[reasons]int) {
	h.tb.Helper()
	want := map[Reason]uint64{}
	got := h.counted(func() {
		for range n {
			for _, r := range h.differ(m.frame()).reasons {
				want[r]++
				seen[r]++
			}
		}
	})
	delete(got, eventLost)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.tb.Fatalf("counted %v, the model %v", got, want)
	}
}

func FuzzEndpoint(f *testing.F) {
	h := newHost(f)
	next := map[flow]cookie{}
	for _, v6 := range []bool{false, true} {
		open := flowTo(v6, 4000, portMPTCP)
		next[open] = h.connect(open) // which alone lasts as long as the test
	}
	for _, x := range fixtures() {
		f.Add(x.in)
	}
	m := newMaker(1, next)
	for range 100 {
		f.Add(m.frame())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < etherLen || len(in) > 3000 {
			t.Skip("no frame of a test run")
		}
		h := *h
		h.tb = t
		h.differ(in)
	})
}
