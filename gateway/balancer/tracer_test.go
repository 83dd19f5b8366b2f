package balancer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// traced is a balancer with the model's world, and what its tracer needs.
type traced struct {
	*Balancer

	t    *testing.T
	m    *model
	pins string
}

func newTraced(t *testing.T, m *model) *traced {
	t.Helper()
	o := Options{Services: len(m.services), Pins: testhost.BPFFS(t)}
	return &traced{m.loadWith(t, o), t, m, o.Pins}
}

// open begins to trace until the test ends.
func (b *traced) open(f TraceFilter) *Tracer {
	b.t.Helper()
	tr := b.start(f)
	b.t.Cleanup(func() { b.end(tr) })
	return tr
}

func (b *traced) end(tr *Tracer) {
	b.t.Helper()
	if err := tr.Close(); err != nil {
		b.t.Error(err)
	}
}

// start begins to trace, with names for the backends of the model, b1 and so on, and for
// its sites, s0 and so on.
func (b *traced) start(f TraceFilter) *Tracer {
	b.t.Helper()
	names := map[netip.Addr]string{}
	for i, backend := range b.m.backends {
		names[backend.SID] = fmt.Sprint("b", i)
	}
	for number, entries := range b.m.sites {
		for _, i := range entries {
			names[b.m.backends[uint32(i)].SID] = fmt.Sprint("s", number)
		}
	}
	tr, err := OpenTracer(b.pins, f, names)
	if err != nil {
		b.t.Fatal(err)
	}
	tr.lease(b.t, time.Hour) // however long a test takes
	return tr
}

// next is the record that is there, nil for none.
func (tr *Tracer) next(t *testing.T) *TraceRecord {
	t.Helper()
	for {
		var raw ringbuf.Record
		tr.reader.SetDeadline(time.Now())
		err := tr.reader.ReadInto(&raw)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := tr.decode(raw.RawSample); ok {
			return r
		}
	}
}

// lease has the program trace for some time from now.
func (tr *Tracer) lease(t *testing.T, d time.Duration) {
	t.Helper()
	tr.wanted.Until = uint64(monotonic() + d)
	if err := tr.maps[bpfMapTraces].Put(uint32(0), tr.wanted); err != nil {
		t.Fatal(err)
	}
}

// The record of each fixture says what the model says, and the packet is what it is
// without a trace.
func TestTraceOfFixtures(t *testing.T) {
	t.Parallel()
	for name, w := range map[string]struct {
		m        *model
		fixtures []fixture
		seen     string // among others
	}{
		"one site":      {newModel(false), fixtures(), "sent sent+icmp_error sent+miss echo too_big flags outsider no_backend stray smaller_path returned relay"},
		"several sites": {newModelOfSites(false), append(fixtures(), siteFixtures()...), "sent+entered sent+miss sent+away sent+spilled given_back stray entered+too_big"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			traceFixtures(t, w.m, w.fixtures, strings.Fields(w.seen))
		})
	}
}

func traceFixtures(t *testing.T, m *model, fixtures []fixture, some []string) {
	t.Helper()
	b := newTraced(t, m)
	tr := b.open(TraceFilter{})
	seen := map[string]bool{}
	for _, f := range fixtures {
		for _, vlan := range []uint16{0, 12} {
			name := fmt.Sprintf("%s, VLAN %d", f.name, vlan)
			frame := ethernet(vlan, f.packet)
			if err := tr.start(); err != nil { // with nothing counted against the limit
				t.Fatal(err)
			}
			tr.lease(t, time.Hour)
			want := b.m.run(bytes.Clone(frame))
			compare(t, name, frame, b.try(t, frame), want, true)
			if r := b.judge(name, frame, tr.next(t), want); r != nil {
				seen[strings.Join(r.Reasons, "+")] = true
			}
			if again := tr.next(t); again != nil {
				t.Errorf("%s: a second record: %v", name, again)
			}
		}
	}
	for _, some := range some {
		if !seen[some] {
			t.Errorf("no packet of %s: %v", some, seen)
		}
	}
}

// judge holds a record to what the model did.
func (b *traced) judge(name string, frame []byte, r *TraceRecord, want verdict) *TraceRecord {
	b.t.Helper()
	if r == nil || len(want.reasons) == 0 {
		if (r == nil) != (len(want.reasons) == 0) {
			b.t.Errorf("%s: record %v, want %v", name, r, want.reasons)
		}
		return nil
	}
	if got := slices.Sorted(slices.Values(r.Reasons)); !slices.Equal(got, slices.Sorted(slices.Values(want.reasons))) || r.Verdict != want.action {
		b.t.Errorf("%s: %v, want verdict %d, %v", name, r, want.action, want.reasons)
	}
	if !bytes.Equal(r.Before, frame[:min(len(frame), 256)]) || r.BeforeBytes != len(frame) {
		b.t.Errorf("%s: came %x, want %x", name, r.Before, frame)
	}
	if want.action == xdpDrop {
		if heard := slices.Contains(r.Reasons, "smaller_path"); r.After != nil || r.Action != map[bool]string{true: "heard", false: "dropped"}[heard] {
			b.t.Errorf("%s: %v: left %x", name, r, r.After)
		}
	} else if !bytes.Equal(r.After, want.frame[:min(len(want.frame), 256)]) || r.AfterBytes != len(want.frame) {
		b.t.Errorf("%s: left %x, want %x", name, r.After, want.frame)
	}
	sent := slices.Contains(r.Reasons, "sent")
	if sent && !slices.Equal(r.List, b.listOf(want.frame)) {
		b.t.Errorf("%s: list %v, want %v", name, r.List, b.listOf(want.frame))
	}
	if r.Slot >= 0 {
		b.judgeSlot(name, r)
	} else if sent {
		b.t.Errorf("%s: sent without a slot: %v", name, r)
	}
	b.judgeSites(name, r)
	b.judgeFlow(name, frame, r)
	return r
}

// judgeSites holds what a record says of other sites to its list. The second site has no
// entry.
func (b *traced) judgeSites(name string, r *TraceRecord) {
	b.t.Helper()
	if len(r.List) == 0 {
		return
	}
	want := ""
	if last := r.List[len(r.List)-1]; last[0] == 's' {
		want = last
	}
	if r.Asked != want && (r.Asked != "#1" || want != "") {
		b.t.Errorf("%s: site %q is asked, want %q", name, r.Asked, want)
	}
}

// judgeFlow holds whose a packet is said to be to what is in the frame, also in a packet
// that it encapsulates.
func (b *traced) judgeFlow(name string, frame []byte, r *TraceRecord) {
	b.t.Helper()
	p, round := read(frame), -1
	source, to := p.source.As16(), p.destination.As16()
	behaviour := uint16(0)
	if b.m.host.Locator.Contains(p.destination) {
		behaviour = binary.BigEndian.Uint16(to[8:])
	}
	switch behaviour {
	case behaviourMiss:
		round = int(to[12] & 0x7f)
	case behaviourEntry:
		round = int(source[12]&0x7f) - 1
	case behaviourReturn:
	default:
		behaviour = 0
	}
	if behaviour != 0 {
		at, kind := inside(frame, p)
		if kind == 0 || slices.Contains(r.Reasons, "outsider") {
			return
		}
		frame, p = decapsulated(frame, p, at, kind)
	}
	if p.malformed || slices.Contains(r.Reasons, "malformed") {
		return
	}
	s, ok := p.subject(frame)
	if behaviour == behaviourReturn {
		s, ok = subject{p.destination, p.source, p.ports[1], p.ports[0], p.protocol}, true
	}
	if !ok { // an echo and the like
		s = subject{p.source, p.destination, p.ports[0], p.ports[1], p.protocol}
	}
	same := r.Client.Addr() == s.client.Unmap() && r.To.Addr() == s.vip.Unmap() && r.Protocol == s.protocol
	if !r.Portless {
		same = same && r.Client.Port() == s.clientPort && r.To.Port() == s.port
	}
	if !same || r.Flags != p.flags || r.Round != round {
		b.t.Errorf("%s: %v, want the flow %+v, flags %d, round %d", name, r, s, p.flags, round)
	}
	if r.Portless {
		s.port = 0
	}
	if a, ok := b.m.find(s.vip, s.port, s.protocol, r.Portless); ok && r.Slot >= 0 && r.Named != b.name(b.m.named(p, a.Service)) {
		b.t.Errorf("%s: %v: want it named %d", name, r, b.m.named(p, a.Service))
	}
}

// judgeSlot holds what a record says of a slot to the rows of the model.
func (b *traced) judgeSlot(name string, r *TraceRecord) {
	b.t.Helper()
	port := r.To.Port()
	if r.Portless {
		port = 0
	}
	a, ok := b.m.find(r.To.Addr(), port, r.Protocol, r.Portless)
	if !ok || r.Service != fmt.Sprint(a.Service) {
		b.t.Errorf("%s: service %s, want %d, %v", name, r.Service, a.Service, ok)
		return
	}
	hash := b.m.hash(a.Service, r.Client.Addr(), r.Client.Port(), r.To.Port(), r.Protocol)
	slot := steering.FlowSlot(hash)
	row := steering.Row(b.m.rows[[2]uint32{uint32(a.Service), slot}])
	got := fmt.Sprint(r.Slot, r.Current, ",", r.Previous, ",", r.Second)
	want := fmt.Sprint(slot, b.name(uint32(row.Current())), ",", b.name(uint32(row.Previous())), ",", b.name(b.m.second(a.Service, slot, uint32(row.Current()))))
	if got != want {
		b.t.Errorf("%s: slot and row %s, want %s", name, got, want)
	}
}

func (b *traced) name(index uint32) string {
	if _, ok := b.m.backends[index]; !ok {
		return ""
	}
	return fmt.Sprint("b", index)
}

// listOf is whom a frame goes to, by the bytes that tell the backends of the model apart.
func (b *traced) listOf(frame []byte) (names []string) {
	at := 14
	if frame[12] == 0x81 {
		at = 18
	}
	sids := frame[at+24 : at+40]
	if frame[at+6] == unix.IPPROTO_ROUTING {
		sids = frame[at+48 : at+48+16*(int(frame[at+44])+1)]
	}
	for len(sids) > 0 {
		sid := sids[len(sids)-16:]
		name := fmt.Sprint("b", sid[7]-0xb0+1)
		if sid[7] < 0xb0 {
			for number, entries := range b.m.sites {
				if slices.Contains(entries, int(sid[7]-0xa0+20)) {
					name = fmt.Sprint("s", number)
				}
			}
		}
		if binary.BigEndian.Uint16(sid[8:]) == behaviourFinal {
			name += ":final"
		}
		names, sids = append(names, name), sids[:len(sids)-16]
	}
	return names
}

// Random packets are what they are to the model under a trace as well. What there is no
// record of is counted.
func TestTraceOfRandomPackets(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModelOfSites(true))
	tr := b.open(TraceFilter{})
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	all := append(fixtures(), siteFixtures()...)
	records, missing, pinned := 0, uint64(0), 0
	for range 20_000 {
		f := all[r.IntN(len(all))]
		frame := mutated(r, ethernet(uint16(r.IntN(2)), f.packet))
		if r.IntN(2) == 0 {
			b.m.pinSomehow(t, b.Balancer, r, frame)
		}
		want := b.m.run(bytes.Clone(frame))
		got := b.run(t, frame)
		compare(t, f.name, frame, got, want, false)
		record := tr.next(t)
		switch {
		case record == nil && len(want.reasons) > 0:
			missing++
		case slices.Contains(want.reasons, "smaller_path"): // of which nobody reads
		case got.action == want.action: // not where enough were told of a smaller MTU
			if b.judge(f.name, frame, record, want) != nil {
				records++
			}
			if record != nil && record.Owner != "" && record.Action == "sent" && !slices.Contains(want.reasons, "entered") {
				if pinned++; record.List[0] != record.Owner {
					t.Errorf("the list begins otherwise: %v", record)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	lost, err := tr.Losses()
	if err != nil {
		t.Fatal(err)
	}
	if lost.Limited+lost.Unseen < missing || lost.Full != 0 || missing > 0 && lost.Limited == 0 {
		t.Errorf("%d records are missing: %+v", missing, lost)
	}
	if records < 100 || pinned == 0 {
		t.Errorf("%d records, %d of pins, %d are missing", records, pinned, missing)
	}
}

// Each filter takes what it is of, and nothing else.
func TestTraceFilters(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModelOfSites(false))
	vip := func(text string) VIP {
		v, err := ParseVIP(text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		name   string
		filter TraceFilter
		want   func(*TraceRecord) bool
	}{
		{"client", TraceFilter{Client: netip.MustParsePrefix(client4 + "/32")}, func(r *TraceRecord) bool { return r.Client.Addr().String() == client4 }},
		{"clients", TraceFilter{Client: netip.MustParsePrefix("2001:db8:c::/48")}, func(r *TraceRecord) bool { return r.Client.Addr().String() == client6 }},
		{"VIP", TraceFilter{VIP: vip(vip4 + ":443/tcp")}, func(r *TraceRecord) bool {
			return r.To.Addr().String() == vip4 && (r.Protocol == unix.IPPROTO_ICMP || r.Protocol == unix.IPPROTO_TCP && (r.To.Port() == 443 || r.Portless))
		}},
		{"inside of a VIP", TraceFilter{VIP: vip("198.51.100.200:80/tcp")}, func(r *TraceRecord) bool { return r.To.Addr().String() == "198.51.100.200" }},
		{"protocol", TraceFilter{VIP: vip("[" + vip6 + "]:*/udp")}, func(r *TraceRecord) bool {
			return r.To.Addr().String() == vip6 && (r.Protocol == unix.IPPROTO_UDP || r.Protocol == unix.IPPROTO_ICMPV6)
		}},
		{"reasons", TraceFilter{Reasons: []string{"echo", "too_big"}}, func(r *TraceRecord) bool { return r.Action == "answered" }},
		{"dropped", TraceFilter{Reasons: []string{TraceDropped}}, func(r *TraceRecord) bool { return r.Action == "dropped" }},
		{"other sites", TraceFilter{Reasons: []string{"away", "spilled"}}, func(r *TraceRecord) bool {
			return r.Asked != "" && (slices.Contains(r.Reasons, "away") || slices.Contains(r.Reasons, "spilled"))
		}},
		{"entries to a VIP", TraceFilter{VIP: vip("[" + vip6 + "]:443/tcp"), Reasons: []string{"entered"}}, func(r *TraceRecord) bool {
			return r.Site != "" && r.To.String() == "["+vip6+"]:443" && r.Protocol == unix.IPPROTO_TCP && slices.Contains(r.Reasons, "entered")
		}},
	} {
		all, some := b.records(TraceFilter{}), b.records(c.filter)
		all = slices.DeleteFunc(all, func(r *TraceRecord) bool { return !c.want(r) })
		if got, want := lines(some), lines(all); len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s: %s\nwant %s", c.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	whole := len(b.records(TraceFilter{VIP: vip(vip4 + ":443/tcp")}))
	if got := len(b.records(TraceFilter{VIP: vip(vip4 + ":443/tcp"), Every: 3})); whole == 0 || got < whole/3 || got > whole/3+8 { // a rest on each CPU
		t.Errorf("one of 3: %d of %d", got, whole)
	}
}

// records are those of all fixtures.
func (b *traced) records(f TraceFilter) (out []*TraceRecord) {
	b.t.Helper()
	tr := b.start(f)
	defer b.end(tr)
	for i, f := range append(fixtures(), siteFixtures()...) {
		if i%50 == 49 {
			time.Sleep(100 * time.Millisecond) // in which there may be 100 records
		}
		b.run(b.t, ethernet(0, f.packet))
	}
	for r := tr.next(b.t); r != nil; r = tr.next(b.t) {
		out = append(out, r)
	}
	if lost, err := tr.Losses(); err != nil || lost != (TraceLosses{}) {
		b.t.Fatalf("%+v, %v", lost, err)
	}
	return out
}

// lines are those of records, without their time.
func lines(records []*TraceRecord) (out []string) {
	for _, r := range records {
		_, line, _ := strings.Cut(r.String(), " ")
		out = append(out, line)
	}
	return out
}

// A frame that is too long for one piece of memory has a record as well.
func TestTraceOfFramesInPieces(t *testing.T) {
	t.Parallel()
	m := newModel(false)
	for slot := range uint32(Slots) {
		m.rows[[2]uint32{0, slot}] = 5 // whose path takes 9,000 bytes
	}
	b := newTraced(t, m)
	tr := b.open(TraceFilter{})
	for _, to := range [][2]string{{client6, vip6}, {client4, vip4}} {
		frame := ethernet(0, ip(to[0], to[1], unix.IPPROTO_TCP, tcp(31000, 443, ack, 8000)))
		want := b.m.run(bytes.Clone(frame))
		compare(t, to[1], frame, b.try(t, frame), want, true)
		if r := b.judge(to[1], frame, tr.next(t), want); r == nil || r.Action != "sent" {
			t.Errorf("%s: %v", to[1], r)
		}
	}
}

func TestTraceFilterRefusals(t *testing.T) {
	t.Parallel()
	b := newTraced(t, newModel(false))
	for want, f := range map[string]TraceFilter{
		"vip 192.0.2.1: none of this balancer, which has 198.51.100.128/25:80/tcp, 198.51.100.1:443/tcp, ": {VIP: VIP{Prefix: netip.MustParsePrefix("192.0.2.1/32")}},
		`reason "big": unknown, want sent, icmp_error, miss, `:                                             {Reasons: []string{"big"}},
	} {
		if _, err := OpenTracer(b.pins, f, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if b.settings.at(0).Traced != 0 {
		t.Error("a trace that was refused is on")
	}
}
