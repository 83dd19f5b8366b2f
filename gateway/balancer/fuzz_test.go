package balancer

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
)

// Every fixture cut off at each length, and with each byte changed.
func TestEachLengthAndByte(t *testing.T) {
	t.Parallel()
	m := newModelOfSites(false)
	b := m.load(t)
	for _, f := range append(fixtures(), siteFixtures()...) {
		for _, vlan := range []uint16{0, 12} {
			whole := ethernet(vlan, f.packet)
			if flow, service, hash, ok := m.flowOf(whole); ok && vlan != 0 {
				m.pin(t, b, flow, service, hash, true, bpfPin{Backend: 4, Service: uint16(service), Used: uptime()})
			}
			for n := 14; n < min(len(whole), 200); n++ {
				frame := whole[:n]
				compare(t, f.name, frame, b.run(t, frame), m.run(bytes.Clone(frame)), false)
				for _, flip := range []byte{1, 0x80, 0xff} {
					frame := bytes.Clone(whole)
					frame[n] ^= flip
					compare(t, f.name, frame, b.run(t, frame), m.run(bytes.Clone(frame)), false)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
}

// Random flows and mutations: the program and the model agree on each.
func TestRandomPackets(t *testing.T) {
	t.Parallel()
	m := newModelOfSites(true)
	b := m.load(t)
	rounds := 100_000
	if os.Getenv("RAZOR_LONG") != "" {
		rounds = 10_000_000
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	all := append(fixtures(), siteFixtures()...)
	for range rounds {
		f := all[r.IntN(len(all))]
		frame := mutated(r, ethernet(uint16(r.IntN(2)), f.packet))
		if len(m.pins) == MaxPins/2 { // a full map would forget some, and the model not
			m.unpinAll(t, b)
		}
		if r.IntN(2) == 0 {
			m.pinSomehow(t, b, r, frame)
		}
		compare(t, f.name, frame, b.run(t, frame), m.run(bytes.Clone(frame)), false)
		if pinned, _, _, ok := m.flowOf(frame); ok {
			m.comparePin(t, b, f.name, pinned)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if m.hits < rounds/200 {
		t.Errorf("%d of %d packets went by a pin", m.hits, rounds)
	}
}

// mutated is a frame of another client, in which some bytes may be others and some
// missing, as the lengths in it may still tell.
func mutated(r *rand.Rand, frame []byte) []byte {
	l3 := 14
	if frame[12] == 0x81 {
		l3 = 18
	}
	at := map[byte]int{4: l3 + 12, 6: l3 + 20}[frame[l3]>>4]
	binary.BigEndian.PutUint32(frame[at:], r.Uint32())
	for range r.IntN(4) * r.IntN(2) {
		frame[r.IntN(len(frame))] = byte(r.Uint32())
	}
	if r.IntN(8) == 0 {
		frame = frame[:14+r.IntN(len(frame)-14)]
	}
	return frame
}

func FuzzBalancer(f *testing.F) {
	m := newModelOfSites(true)
	b := m.load(f)
	for _, x := range append(fixtures(), siteFixtures()...) {
		f.Add(ethernet(0, x.packet))
		if flow, service, hash, ok := m.flowOf(ethernet(0, x.packet)); ok {
			m.pin(f, b, flow, service, hash, true, bpfPin{Backend: 4, Service: uint16(service), Used: uptime()})
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 14 || len(frame) > 3000 {
			return
		}
		compare(t, "", frame, b.run(t, frame), m.run(bytes.Clone(frame)), false)
	})
}
