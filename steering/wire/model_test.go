package wire

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNothingIsTakenTwice has agents send to a gateway, over a network that loses,
// delays, reorders and repeats, while agents start again and the gateway has room for
// fewer than there are. No datagram is ever taken twice, and what is refused is refused
// for a reason that the model sees as well.
func TestNothingIsTakenTwice(t *testing.T) {
	t.Parallel()
	keys := seven(t)
	rapid.Check(t, func(t *rapid.T) {
		var (
			now     = noon
			o       = NewOpener(gateway, keys, Limits{Senders: rapid.IntRange(1, 3).Draw(t, "room"), Sender: 1000, Total: 1000}, now)
			sealers [4]*Sealer
			skew    [4]time.Duration
			wire    []flight // all that was ever sent
		)
		address := func(i int) netip.Addr {
			b := agent.As16()
			b[7] = byte(i)
			return netip.AddrFrom16(b)
		}
		restart := func(i int) {
			sealers[i] = NewSealer(keys, LocatorOf(address(i)), gateway, now.Add(skew[i]))
		}
		for i := range sealers {
			skew[i] = time.Duration(rapid.IntRange(-20, 20).Draw(t, "skew")) * time.Second
			restart(i)
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 20_000).Draw(t, "ms")) * time.Millisecond)
			},
			"restart": func(t *rapid.T) {
				now = now.Add(time.Millisecond)
				restart(rapid.IntRange(0, 3).Draw(t, "who"))
			},
			"send": func(t *rapid.T) {
				i := rapid.IntRange(0, 3).Draw(t, "who")
				for range rapid.IntRange(1, 100).Draw(t, "n") {
					b, err := sealers[i].SealPins(nil, pins[:1], now.Add(skew[i]))
					if err != nil {
						t.Fatal(err)
					}
					wire = append(wire, flight{b, address(i), now.Add(skew[i]), false})
				}
			},
			"receive": func(t *rapid.T) {
				if len(wire) == 0 {
					t.Skip("nothing was sent")
				}
				n := rapid.IntRange(1, 20).Draw(t, "n")
				late := rapid.IntRange(0, 100).Draw(t, "late")
				for range n {
					f := &wire[max(0, len(wire)-1-rapid.IntRange(0, late).Draw(t, "which"))]
					f.receive(t, o, now)
				}
			},
		})
	})
}

// flight is a datagram on the wire.
type flight struct {
	bytes []byte
	from  netip.Addr
	sent  time.Time
	taken bool
}

func (f *flight) receive(t *rapid.T, o *Opener, now time.Time) {
	before := len(o.senders.known)
	_, err := o.Open(f.bytes, f.from, now)
	outside := f.sent.UnixMilli() < now.Add(-Window).UnixMilli() || f.sent.UnixMilli() > now.Add(Window).UnixMilli() || f.sent.Before(noon)
	switch {
	case err == nil && f.taken:
		t.Fatal("taken twice")
	case err == nil && outside:
		t.Fatalf("taken at %v, sent at %v", now, f.sent)
	case errors.Is(err, Crowded) && before < o.senders.limits.Senders:
		t.Fatalf("crowded with %d senders", before)
	case errors.Is(err, Stale) && !outside, errors.Is(err, Early) && !outside, errors.Is(err, Forged):
		t.Fatalf("%v at %v, sent at %v", err, now, f.sent)
	}
	f.taken = f.taken || err == nil
}

// TestLateOnesAreTaken: what overtakes others by fewer than 64 places costs nothing.
func TestLateOnesAreTaken(t *testing.T) {
	t.Parallel()
	keys := seven(t)
	rapid.Check(t, func(t *rapid.T) {
		s := NewSealer(keys, LocatorOf(agent), gateway, noon)
		o := NewOpener(gateway, keys, plenty, noon)
		var sent [][]byte
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			b, err := s.SealPins(nil, pins, noon)
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, b)
		}
		// Whole blocks of 32 are shuffled, so that none is 64 late.
		src := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for block := range slices.Chunk(sent, 32) {
			src.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
		}
		for i, b := range sent {
			if _, err := o.Open(b, agent, noon); err != nil {
				t.Fatalf("the datagram that came as number %d: %v", i, err)
			}
		}
		for i, b := range sent {
			if _, err := o.Open(b, agent, noon); !errors.Is(err, Repeated) {
				t.Fatalf("number %d again: %v", i, err)
			}
		}
	})
}

// FuzzOpen: bytes of anybody are never taken, unless they are a datagram as it was
// sealed. Bytes of somebody with a key are taken as they are or refused.
func FuzzOpen(f *testing.F) {
	good := goldenBytes(f)
	f.Add(good)
	f.Add(good[:atBody+sealBytes])
	f.Add(append(slices.Clone(good), make([]byte, 40)...))
	f.Add([]byte{version, byte(TypePins), 0, 7})
	keys := seven(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		o := NewOpener(gateway, keys, plenty, noon)
		_, err := o.Open(b, agent, noon)
		if r := Refusal(0); slices.Equal(b, good) != (err == nil) || err != nil && !errors.As(err, &r) {
			t.Fatalf("%x: %v", b, err)
		}
		if len(b) < atBody+sealBytes {
			return
		}
		b = reseal(t, slices.Clone(b))
		m, err := o.Open(b, agent, noon)
		if err != nil {
			return
		}
		got, err := m.AppendPins(nil)
		if err != nil {
			return
		}
		var body []byte
		for _, p := range got {
			body = p.appendTo(body)
		}
		if !slices.Equal(body, m.Body) {
			t.Errorf("%x is read as %v", m.Body, got)
		}
	})
}

// FuzzMutated: a good datagram with some bytes of it changed.
func FuzzMutated(f *testing.F) {
	f.Add([]byte{1}, uint16(0))
	f.Add([]byte{0, 0, 0x80}, uint16(100))
	keys := seven(f)
	good := goldenBytes(f)
	f.Fuzz(func(t *testing.T, mask []byte, at uint16) {
		b := slices.Clone(good)
		for i, x := range mask {
			b[(int(at)+i)%len(b)] ^= x
		}
		o := NewOpener(gateway, keys, plenty, noon)
		if _, err := o.Open(b, agent, noon); slices.Equal(b, good) != (err == nil) {
			t.Errorf("%x: %v", b, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{1, MaxPins} {
		b.Run(name(n), func(b *testing.B) {
			s := NewSealer(seven(b), LocatorOf(agent), gateway, noon)
			many := slices.Repeat(pins[:1], n)
			buf := make([]byte, 0, MaxDatagram)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.SealPins(buf, many, noon); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{1, MaxPins} {
		b.Run(name(n), func(b *testing.B) {
			const batch = 1024
			s := NewSealer(seven(b), LocatorOf(agent), gateway, noon)
			many := slices.Repeat(pins[:1], n)
			var sent [batch][]byte
			for i := range sent {
				sent[i], _ = s.SealPins(nil, many, noon)
			}
			into := make([]Pin, 0, MaxPins)
			var o *Opener
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%batch == 0 {
					o = NewOpener(gateway, seven(b), Limits{Senders: 1, Sender: batch, Total: batch}, noon)
				}
				m, err := o.Open(sent[i%batch], agent, noon)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := m.AppendPins(into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpenForged is what a datagram of somebody without the key costs.
func BenchmarkOpenForged(b *testing.B) {
	o := NewOpener(gateway, seven(b), plenty, noon)
	forged := append(goldenBytes(b), make([]byte, MaxDatagram-132)...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(forged, agent, noon); !errors.Is(err, Forged) {
			b.Fatal(err)
		}
	}
}

func name(pins int) string {
	if pins == 1 {
		return "1pin"
	}
	return "mostpins"
}
