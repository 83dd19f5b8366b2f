package wire

import (
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
)

var reports = []Report{
	{
		Draining: true, Level: 3, Load: 18.5, Capacity: 20000, Accepted: 31.25, Guests: 2, FlowLoad: 1.5, Interval: 200 * time.Millisecond,
		Services: []ServiceHealth{
			{netip.MustParseAddr("2001:db8:53::1"), 443, 6, steering.HealthDown},
			{netip.MustParseAddr("198.51.100.1"), 0, 0, steering.HealthUp},
		},
	},
	{Target: 513, Level: 1, Interval: time.Minute},
}

// goldenReports is a datagram of agent to gateway with reports, of 250 ms after noon, that
// Python has made: struct and hmac.
const goldenReports = `
	01 02 0007
	20010db8000a0001
	20010db8000f0002
	000001a1fe12eb92
	18ea0f1c241dd601
	0000 00c8 02 03 02 00 4032800000000000 40d3880000000000
	403f400000000000 4000000000000000 3ff8000000000000
	20010db8005300000000000000000001 01bb 06 02
	00000000000000000000ffffc6336401 0000 00 01
	0201 ea60 01 01 00 00 0000000000000000 0000000000000000
	0000000000000000 0000000000000000 0000000000000000
	97ff53a6d231a5cbe27e817b2f8e5882`

func goldenReportBytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(goldenReports), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// taker is an Opener of both types.
func taker(tb testing.TB, start time.Time) *Opener {
	tb.Helper()
	o := NewOpener(gateway, seven(tb), plenty, start)
	o.TakeReports(plenty)
	return o
}

func TestGoldenReports(t *testing.T) {
	t.Parallel()
	now := noon.Add(250 * time.Millisecond)
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	want := append([]byte("before"), goldenReportBytes(t)...)
	got, others, err := s.SealReports([]byte("before"), reports, now)
	if err != nil || len(others) > 0 || !slices.Equal(got, want) {
		t.Errorf("sealed %x, %v, %v\nwant %x", got, others, err, want)
	}
	m, err := taker(t, noon).Open(goldenReportBytes(t), agent, now)
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != TypeReports || m.Sequence != s.sequence || m.Sender != LocatorOf(agent) {
		t.Errorf("opened %+v", m)
	}
	if got, err := m.Reports(); err != nil || !reflect.DeepEqual(got, reports) {
		t.Errorf("reports %v, %v; want %v", got, err, reports)
	}
	if _, err := m.AppendPins(nil); !errors.Is(err, Malformed) {
		t.Errorf("as pins: %v", err)
	}
	if _, err := NewOpener(gateway, seven(t), plenty, noon).Open(goldenReportBytes(t), agent, now); !errors.Is(err, UnknownType) {
		t.Errorf("of whom no reports are taken: %v", err)
	}
}

// TestReportBits: of a datagram no bit may change and no byte be missing, and it is taken
// once.
func TestReportBits(t *testing.T) {
	t.Parallel()
	o := taker(t, noon)
	b := goldenReportBytes(t)
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := o.Open(b, agent, noon); err == nil {
			t.Errorf("taken with bit %d changed", bit)
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := range b {
		if _, err := o.Open(b[:n], agent, noon); err == nil {
			t.Errorf("taken when cut to %d bytes", n)
		}
	}
	for _, want := range []error{nil, Repeated} {
		if _, err := o.Open(b, agent, noon); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

func TestBadReports(t *testing.T) {
	t.Parallel()
	with := func(edit func(*Report)) []Report {
		r := reports[0]
		r.Services = slices.Clone(r.Services)
		edit(&r)
		return []Report{r}
	}
	for name, tt := range map[string]struct {
		reports []Report
		want    string
	}{
		"none":                {nil, "0 reports"},
		"level 0":             {with(func(r *Report) { r.Level = 0 }), "level 0: want 1 to 3"},
		"level 4":             {with(func(r *Report) { r.Level = 4 }), "level 4: want"},
		"no interval":         {with(func(r *Report) { r.Interval = 0 }), "interval 0s: want"},
		"short interval":      {with(func(r *Report) { r.Interval = 9 * time.Millisecond }), "interval 9ms: want"},
		"long interval":       {with(func(r *Report) { r.Interval = time.Minute + time.Millisecond }), "want 10ms to 1m0s"},
		"broken interval":     {with(func(r *Report) { r.Interval += time.Microsecond }), "in whole milliseconds"},
		"load below 0":        {with(func(r *Report) { r.Load = -1 }), "load -1: want"},
		"load of minus 0":     {with(func(r *Report) { r.Load = math.Copysign(0, -1) }), "load -0: want"},
		"load is no number":   {with(func(r *Report) { r.Load = math.NaN() }), "load NaN: want"},
		"endless capacity":    {with(func(r *Report) { r.Capacity = math.Inf(1) }), "capacity +Inf: want"},
		"accepted below 0":    {with(func(r *Report) { r.Accepted = -1 }), "accepted -1: want"},
		"guests below 0":      {with(func(r *Report) { r.Guests = -1 }), "guests -1: want"},
		"endless flow load":   {with(func(r *Report) { r.FlowLoad = math.Inf(1) }), "flow load +Inf: want"},
		"too many services":   {with(func(r *Report) { r.Services = make([]ServiceHealth, MaxServices+1) }), "with too many services"},
		"no VIP":              {with(func(r *Report) { r.Services[1].VIP = netip.Addr{} }), "service 1: VIP invalid IP: want"},
		"multicast":           {with(func(r *Report) { r.Services[0].VIP = netip.MustParseAddr("ff02::1") }), "service 0: VIP ff02::1"},
		"any IPv4 address":    {with(func(r *Report) { r.Services[0].VIP = netip.IPv4Unspecified() }), "VIP 0.0.0.0: want"},
		"ICMP":                {with(func(r *Report) { r.Services[0].Protocol = 58 }), "protocol 58: want"},
		"a health of its own": {with(func(r *Report) { r.Services[0].Health = 3 }), "health 3: want"},
	} {
		s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
		b, others, err := s.SealReports([]byte("before"), tt.reports, noon)
		if err == nil || !strings.Contains(err.Error(), tt.want) || string(b) != "before" || len(others) != len(tt.reports) {
			t.Errorf("%s: %x, %v, %v; want %q", name, b, others, err, tt.want)
		}
	}
}

// TestBadReportBodies: what a known key sealed and is no list of reports, is none, and
// nothing of it is taken.
func TestBadReportBodies(t *testing.T) {
	t.Parallel()
	good := reports[0].appendTo(reports[1].appendTo(nil))
	change := func(at int, to ...byte) []byte {
		b := slices.Clone(good)
		copy(b[reportBytes+at:], to)
		return b
	}
	for name, tt := range map[string]struct {
		body []byte
		ok   bool
	}{
		"good":                    {good, true},
		"any target":              {change(atReportTarget, 0xff, 0xff), true},
		"any VIP":                 {change(reportBytes, make([]byte, 16)...), true},
		"none":                    {nil, false},
		"spare":                   {change(atReportSpare, 1), false},
		"admin 0":                 {change(atReportAdmin, 0), false},
		"admin 3":                 {change(atReportAdmin, 3), false},
		"level 0":                 {change(atReportLevel, 0), false},
		"no interval":             {change(atReportInterval, 0, 0), false},
		"more services":           {change(atReportServices, 3), false},
		"fewer services":          {change(atReportServices, 1), false},
		"load":                    {change(atReportLoad, 0x7f, 0xf8), false},
		"capacity below 0":        {change(atReportCapacity, 0xc0), false},
		"accepted":                {change(atReportAccepted, 0x7f, 0xf8), false},
		"guests":                  {change(atReportGuests, 0x7f, 0xf8), false},
		"flow load below 0":       {change(atReportFlowLoad, 0x80), false},
		"protocol":                {change(reportBytes+atServiceProtocol, 1), false},
		"health":                  {change(reportBytes+atServiceHealth, 3), false},
		"a VIP that is IPv4's ::": {change(reportBytes, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0), false},
	} {
		got, err := Message{Type: TypeReports, Body: tt.body}.Reports()
		if tt.ok && (err != nil || len(got) != 2) || !tt.ok && (!errors.Is(err, Malformed) || got != nil) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for n := range good {
		if got, err := (Message{Type: TypeReports, Body: good[:n]}).Reports(); (err == nil) != (n == reportBytes) {
			t.Errorf("cut to %d bytes: %v, %v", n, got, err)
		}
	}
	if _, err := (Message{Type: TypePins, Body: good}).Reports(); !errors.Is(err, Malformed) {
		t.Errorf("as pins: %v", err)
	}
}

// anyReport is one that can be sent.
func anyReport() *rapid.Generator[Report] {
	figure := rapid.Float64Range(0, mostLoad).Filter(isFigure)
	service := rapid.Custom(func(t *rapid.T) ServiceHealth {
		vip := netip.AddrFrom4([4]byte(append([]byte{198, 51}, rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "v4")...)))
		if rapid.Bool().Draw(t, "six") {
			vip = netip.AddrFrom16([16]byte(append([]byte{0x20, 1}, rapid.SliceOfN(rapid.Byte(), 14, 14).Draw(t, "v6")...)))
		}
		return ServiceHealth{
			rapid.SampledFrom([]netip.Addr{vip, netip.IPv6Unspecified()}).Draw(t, "VIP"), rapid.Uint16().Draw(t, "port"),
			rapid.SampledFrom([]uint8{0, 6, 17}).Draw(t, "protocol"), steering.Health(rapid.IntRange(0, 2).Draw(t, "health")),
		}
	})
	return rapid.Custom(func(t *rapid.T) Report {
		return Report{
			Target: rapid.Uint16().Draw(t, "target"), Draining: rapid.Bool().Draw(t, "draining"), Level: steering.Level(rapid.IntRange(1, 3).Draw(t, "level")),
			Load: figure.Draw(t, "load"), Capacity: figure.Draw(t, "capacity"), Accepted: figure.Draw(t, "accepted"), Guests: figure.Draw(t, "guests"), FlowLoad: figure.Draw(t, "flow load"),
			Interval: time.Duration(rapid.IntRange(10, 60_000).Draw(t, "ms")) * time.Millisecond,
			Services: rapid.SliceOfN(service, 0, MaxServices).Draw(t, "services"),
		}
	})
}

// TestReportsArrive: all that is said of however many targets arrives, in order, in
// datagrams that are not too long, and none of them is taken twice or for pins, whatever
// comes between.
func TestReportsArrive(t *testing.T) {
	t.Parallel()
	keys := seven(t)
	rapid.Check(t, func(t *rapid.T) {
		o := NewOpener(gateway, keys, plenty, noon)
		o.TakeReports(plenty)
		pinning, reporting := NewSealer(keys, LocatorOf(agent), gateway, noon), NewSealer(keys, LocatorOf(agent), gateway, noon.Add(time.Millisecond))
		want := rapid.SliceOfN(anyReport(), 1, 80).Draw(t, "reports")
		var got []Report
		last, n := uint64(0), 0
		for left := want; len(left) > 0; n++ {
			b, others, err := reporting.SealReports(nil, left, noon)
			if err != nil || len(b) > MaxDatagram {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			left = others
			m, err := o.Open(b, agent, noon)
			if err != nil || m.Sequence <= last {
				t.Fatalf("sequence %d after %d, %v", m.Sequence, last, err)
			}
			last = m.Sequence
			all, err := m.Reports()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, all...)
			if _, err := o.Open(b, agent, noon); !errors.Is(err, Repeated) {
				t.Fatalf("again: %v", err)
			}
			// Of a lower sequence: each type has its own.
			p, err := pinning.SealPins(nil, pins, noon)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Open(p, agent, noon); err != nil {
				t.Fatalf("pins beside reports: %v", err)
			}
		}
		if n != Datagrams(want) {
			t.Fatalf("%d datagrams, %d were to be expected", n, Datagrams(want))
		}
		for i := range want {
			if len(want[i].Services) == 0 {
				want[i].Services = nil
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	})
}

// TestLimitsOfTypes: reports that are too many take nothing from pins, nor pins from them.
func TestLimitsOfTypes(t *testing.T) {
	t.Parallel()
	o := NewOpener(gateway, seven(t), Limits{Senders: 8, Sender: 2, Total: 2}, noon)
	o.TakeReports(Limits{Senders: 8, Sender: 3, Total: 3})
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	taken := map[Type]int{}
	for range 5 {
		b, _, err := s.SealReports(nil, reports, noon)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range [][]byte{b, sealed(t, s, noon)} {
			if m, err := o.Open(d, agent, noon); err == nil {
				taken[m.Type]++
			} else if !errors.Is(err, SenderLimit) {
				t.Error(err)
			}
		}
	}
	if taken[TypePins] != 2 || taken[TypeReports] != 3 {
		t.Errorf("taken %v", taken)
	}
}

// FuzzReports: bytes of somebody with a key are reports as they are, or none.
func FuzzReports(f *testing.F) {
	good := goldenReportBytes(f)
	f.Add(good)
	f.Add(good[:atBody+reportBytes+sealBytes])
	f.Add(append(slices.Clone(good), make([]byte, 40)...))
	f.Add([]byte{version, byte(TypeReports), 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := taker(t, noon).Open(b, agent, noon); slices.Equal(b, good) != (err == nil) {
			t.Fatalf("%x: %v", b, err)
		}
		if len(b) < atBody+sealBytes {
			return
		}
		m, err := taker(t, noon).Open(reseal(t, slices.Clone(b)), agent, noon)
		if err != nil {
			return
		}
		got, err := m.Reports()
		if err != nil {
			return
		}
		var body []byte
		for i := range got {
			if err := got[i].check(); err != nil {
				t.Errorf("%x is read as %v: %v", m.Body, got[i], err)
			}
			body = got[i].appendTo(body)
		}
		if !slices.Equal(body, m.Body) {
			t.Errorf("%x is read as %v", m.Body, got)
		}
	})
}
