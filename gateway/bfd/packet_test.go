package bfd

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wellFormed is a packet of a peer that is up.
var wellFormed = packet{state: Up, multiplier: 3, my: 7, your: 9, minTx: 50 * time.Millisecond, minRx: 50 * time.Millisecond}

func TestParse(t *testing.T) {
	t.Parallel()
	good := wellFormed.octets()
	for _, tt := range []struct {
		name string
		edit func(b []byte) []byte
		want error
	}{
		{"as it is", func(b []byte) []byte { return b }, nil},
		{"more UDP payload than packet", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil},
		{"a longer packet without authentication", func(b []byte) []byte { b[3] = 26; return append(b, 1, 2) }, nil},
		{"an echo interval", func(b []byte) []byte { b[23] = 1; return b }, nil},
		{"control plane independent", func(b []byte) []byte { b[1] |= 0x08; return b }, nil},
		{"unknown diagnostic", func(b []byte) []byte { b[0] |= 0x1f; return b }, nil},
		{"down without our discriminator", func(b []byte) []byte { b[1] = 1 << 6; clear(b[8:12]); return b }, nil},
		{"admin down without our discriminator", func(b []byte) []byte { b[1] = 0; clear(b[8:12]); return b }, nil},

		{"empty", func([]byte) []byte { return nil }, errShort},
		{"23 octets", func(b []byte) []byte { return b[:23] }, errShort},
		{"version 0", func(b []byte) []byte { b[0] &= 0x1f; return b }, errVersion},
		{"version 2", func(b []byte) []byte { b[0] = 2 << 5; return b }, errVersion},
		{"length 23", func(b []byte) []byte { b[3] = 23; return b }, errLength},
		{"length 25 with authentication", func(b []byte) []byte { b[1] |= 4; b[3] = 25; return append(b, 1) }, errLength},
		{"length beyond the payload", func(b []byte) []byte { b[3] = 25; return b }, errLength},
		{"multiplier 0", func(b []byte) []byte { b[2] = 0; return b }, errMultiplier},
		{"multipoint", func(b []byte) []byte { b[1] |= 1; return b }, errMultipoint},
		{"no discriminator of theirs", func(b []byte) []byte { clear(b[4:8]); return b }, errDiscriminator},
		{"init without our discriminator", func(b []byte) []byte { b[1] = 2 << 6; clear(b[8:12]); return b }, errUnaddressed},
		{"up without our discriminator", func(b []byte) []byte { clear(b[8:12]); return b }, errUnaddressed},
		{"authentication", func(b []byte) []byte { b[1] |= 4; b[3] = 26; return append(b, 1, 2) }, errAuthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := parse(tt.edit(slices.Clone(good))); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// The octets of RFC 5880 §4.1, written out by hand.
func TestPacketOctets(t *testing.T) {
	t.Parallel()
	p := packet{
		diag: DiagSignaled, state: Init, poll: true, demand: true, multiplier: 5, my: 0x01020304, your: 0x05060708,
		minTx: time.Second, minRx: 50 * time.Millisecond,
	}
	want := []byte{
		0x23, 0xa2, 5, 24,
		1, 2, 3, 4,
		5, 6, 7, 8,
		0x00, 0x0f, 0x42, 0x40,
		0x00, 0x00, 0xc3, 0x50,
		0, 0, 0, 0,
	}
	if got := p.octets(); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got, err := parse(want); got != p || err != nil {
		t.Errorf("got %+v, %v, want %+v", got, err, p)
	}
}

// anyPacket draws what can be on the wire and parses.
func anyPacket(t *rapid.T) packet {
	return packet{
		diag:       Diagnostic(rapid.Uint8Range(0, diagBits).Draw(t, "diag")),
		state:      State(rapid.Uint8Range(0, 3).Draw(t, "state")),
		poll:       rapid.Bool().Draw(t, "poll"),
		final:      rapid.Bool().Draw(t, "final"),
		demand:     rapid.Bool().Draw(t, "demand"),
		multiplier: rapid.Uint8Range(1, 255).Draw(t, "multiplier"),
		my:         rapid.Uint32Min(1).Draw(t, "my"),
		your:       rapid.Uint32Min(1).Draw(t, "your"),
		minTx:      time.Duration(rapid.Uint32().Draw(t, "minTx")) * time.Microsecond,
		minRx:      time.Duration(rapid.Uint32().Draw(t, "minRx")) * time.Microsecond,
	}
}

func TestPacketRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := anyPacket(t)
		if got, err := parse(p.octets()); got != p || err != nil {
			t.Fatalf("%+v became %+v, %v", p, got, err)
		}
	})
}

// FuzzParse: what parses says the same when it is written again, and no octets
// harm a session.
func FuzzParse(f *testing.F) {
	f.Add(wellFormed.octets())
	f.Add((&packet{state: Down, multiplier: 1, my: 1, minTx: slow, minRx: 1}).octets())
	f.Add([]byte{0x20, 0xc0, 3, 24})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parse(b)
		if err != nil {
			return
		}
		again, err := parse(p.octets())
		if err != nil || again != p {
			t.Fatalf("%x: %+v, again %+v, %v", b, p, again, err)
		}
		s := upSession(t)
		now := start
		for range 3 {
			s.receive(now, p)
			for {
				out, ok := s.transmit(now)
				if !ok {
					break
				}
				if _, err := parse(out.octets()); err != nil {
					t.Fatalf("%+v made us send %+v: %v", p, out, err)
				}
			}
			now = s.wake()
			if now.IsZero() {
				break // silenced, which its own detection time ends
			}
			s.expire(now)
		}
	})
}
