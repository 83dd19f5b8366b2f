package wire

import (
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/razor-steering/razor/steering"
)

var (
	summaries = []Summary{
		{Service: ServiceID{1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, Capacity: 20000, Load: 18.5, Healthy: true, Loaded: true},
		{Service: ServiceID{0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10}, Drained: true},
	}
	planNumber = steering.PlanNumber{Term: 0x18ea0f1c00000000, Sequence: 42}
)

// goldenSummaries is a datagram with summaries, of 250 ms after noon, that Python has made:
// struct and hmac.
const goldenSummaries = `
	01 03 0007
	20010db8000a0001
	20010db8000f0002
	000001a1fe12eb92
	18ea0f1c241dd601
	18ea0f1c00000000 000000000000002a
	0123456789abcdef 40d3880000000000 4032800000000000 05
	fedcba9876543210 0000000000000000 0000000000000000 02
	aa1e87bcb7ca6e81446b49fd27bbcacb`

func goldenSummaryBytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(goldenSummaries), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// hearer is an Opener of all types.
func hearer(tb testing.TB) *Opener {
	tb.Helper()
	o := taker(tb, noon)
	o.TakeSummaries(plenty)
	return o
}

func TestGoldenSummaries(t *testing.T) {
	t.Parallel()
	now := noon.Add(250 * time.Millisecond)
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	want := append([]byte("before"), goldenSummaryBytes(t)...)
	got, others, err := s.SealSummaries([]byte("before"), planNumber, summaries, now)
	if err != nil || len(others) > 0 || !slices.Equal(got, want) {
		t.Errorf("sealed %x, %v, %v\nwant %x", got, others, err, want)
	}
	m, err := hearer(t).Open(goldenSummaryBytes(t), agent, now)
	if err != nil || m.Type != TypeSummaries || m.Sender != LocatorOf(agent) {
		t.Fatalf("opened %+v, %v", m, err)
	}
	if number, got, err := m.Summaries(); err != nil || number != planNumber || !slices.Equal(got, summaries) {
		t.Errorf("summaries %v of plan %v, %v; want %v", got, number, err, summaries)
	}
	if _, err := m.Reports(); !errors.Is(err, Malformed) {
		t.Errorf("as reports: %v", err)
	}
	if _, err := taker(t, noon).Open(goldenSummaryBytes(t), agent, now); !errors.Is(err, UnknownType) {
		t.Errorf("of whom no summaries are taken: %v", err)
	}
}

// Of a datagram no bit may change and no byte be missing, and it is taken once.
func TestSummaryBits(t *testing.T) {
	t.Parallel()
	o, b := hearer(t), goldenSummaryBytes(t)
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

func TestBadSummaries(t *testing.T) {
	t.Parallel()
	for want, all := range map[string][]Summary{
		"0 summaries":                  nil,
		"summary 1: capacity -1: want": {summaries[0], {Capacity: -1}},
		"summary 0: load +Inf: want":   {{Load: math.Inf(1)}},
		"summary 0: load NaN: want":    {{Load: math.NaN()}},
		"capacity -0: want":            {{Capacity: math.Copysign(0, -1)}},
	} {
		s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
		b, others, err := s.SealSummaries([]byte("before"), planNumber, all, noon)
		if err == nil || !strings.Contains(err.Error(), want) || string(b) != "before" || len(others) != len(all) {
			t.Errorf("%x, %v, %v; want %q", b, others, err, want)
		}
	}
}

// What a known key sealed and is no list of summaries, is none, and nothing of it is taken.
func TestBadSummaryBodies(t *testing.T) {
	t.Parallel()
	good := summaries[1].appendTo(summaries[0].appendTo(make([]byte, atSummaries)))
	change := func(at int, to ...byte) []byte {
		b := slices.Clone(good)
		copy(b[atSummaries+summaryBytes+at:], to)
		return b
	}
	for name, tt := range map[string]struct {
		body []byte
		ok   bool
	}{
		"good":             {good, true},
		"any service":      {change(0, 0, 0, 0, 0, 0, 0, 0, 0), true},
		"all states":       {change(atSummaryState, 7), true},
		"unknown state":    {change(atSummaryState, 8), false},
		"capacity":         {change(atSummaryCapacity, 0x7f, 0xf8), false},
		"load below 0":     {change(atSummaryLoad, 0xc0), false},
		"number alone":     {good[:atSummaries], false},
		"nothing":          {nil, false},
		"more than a list": {append(slices.Clone(good), 0), false},
	} {
		_, got, err := Message{Type: TypeSummaries, Body: tt.body}.Summaries()
		if tt.ok && (err != nil || len(got) != 2) || !tt.ok && (!errors.Is(err, Malformed) || got != nil) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for n := range good {
		if _, got, err := (Message{Type: TypeSummaries, Body: good[:n]}).Summaries(); (err == nil) != (n == atSummaries+summaryBytes) {
			t.Errorf("cut to %d bytes: %v, %v", n, got, err)
		}
	}
}

// All that is said of however many services arrives, in order, in datagrams that are not
// too long, and none of them is taken twice.
func TestSummariesArrive(t *testing.T) {
	t.Parallel()
	figure := rapid.Float64Range(0, mostLoad).Filter(isFigure)
	one := rapid.Custom(func(t *rapid.T) Summary {
		return Summary{
			Service: ServiceID(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "service")), Capacity: figure.Draw(t, "capacity"), Load: figure.Draw(t, "load"),
			Healthy: rapid.Bool().Draw(t, "healthy"), Drained: rapid.Bool().Draw(t, "drained"), Loaded: rapid.Bool().Draw(t, "loaded"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		o, s := hearer(t), NewSealer(seven(t), LocatorOf(agent), gateway, noon)
		want := rapid.SliceOfN(one, 1, 256).Draw(rt, "summaries")
		var got []Summary
		n := 0
		for left := want; len(left) > 0; n++ {
			b, others, err := s.SealSummaries(nil, planNumber, left, noon)
			if err != nil || len(b) > MaxDatagram {
				rt.Fatalf("%d bytes, %v", len(b), err)
			}
			left = others
			m, err := o.Open(b, agent, noon)
			if err != nil {
				rt.Fatal(err)
			}
			number, all, err := m.Summaries()
			if err != nil || number != planNumber {
				rt.Fatalf("plan %v, %v", number, err)
			}
			got = append(got, all...)
			if _, err := o.Open(b, agent, noon); !errors.Is(err, Repeated) {
				rt.Fatalf("again: %v", err)
			}
		}
		if !slices.Equal(got, want) || n > 6 {
			rt.Fatalf("%d datagrams with %v\nwant %v", n, got, want)
		}
	})
}

// FuzzSummaries: bytes of somebody with a key are summaries as they are, or none.
func FuzzSummaries(f *testing.F) {
	good := goldenSummaryBytes(f)
	f.Add(good)
	f.Add(good[:atBody+atSummaries+summaryBytes+sealBytes])
	f.Add(append(slices.Clone(good), make([]byte, 40)...))
	f.Add([]byte{version, byte(TypeSummaries), 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := hearer(t).Open(b, agent, noon); slices.Equal(b, good) != (err == nil) {
			t.Fatalf("%x: %v", b, err)
		}
		if len(b) < atBody+sealBytes {
			return
		}
		m, err := hearer(t).Open(reseal(t, slices.Clone(b)), agent, noon)
		if err != nil {
			return
		}
		_, got, err := m.Summaries()
		if err != nil {
			return
		}
		body := slices.Clone(m.Body[:atSummaries])
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
