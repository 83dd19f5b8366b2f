package steering

import (
	"net/netip"
	"testing"
)

// The vector is that of 21 bytes 00 01 02 … 14 under the key 00 01 … 0f in the
// tests of SipHasher13 in Rust's core library (library/core/tests/hash/sip.rs).
func TestFlowHashIsSipHash13(t *testing.T) {
	t.Parallel()
	got := FlowHash(FlowKey{0x0706050403020100, 0x0f0e0d0c0b0a0908}, Flow{
		Client:          netip.AddrFrom16([16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}),
		SourcePort:      0x1011,
		DestinationPort: 0x1213,
		Protocol:        0x14,
	})
	if want := uint64(0xb992abfe2b45f844); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
}

// TestFlow holds hash, slot and label to what the functions of
// gateway/bpf/include/flow.h give, compiled for the host.
func TestFlow(t *testing.T) {
	t.Parallel()
	key := FlowKey{0xfeedfacecafebeef, 0x0123456789abcdef}
	for _, tt := range []struct {
		client      string
		protocol    uint8
		hash        uint64
		slot, label uint32
	}{
		{"192.0.2.1", 6, 0xc55655b765d9b110, 26074, 0xc5565},
		{"::ffff:192.0.2.1", 6, 0xc55655b765d9b110, 26074, 0xc5565},
		{"2001:db8::42", 17, 0x2985ae6bca5b0491, 51803, 0x2985a},
	} {
		hash := FlowHash(key, Flow{netip.MustParseAddr(tt.client), 0xc001, 443, tt.protocol})
		if hash != tt.hash || FlowSlot(hash) != tt.slot || FlowLabel(hash) != tt.label {
			t.Errorf("%s: hash %#x, slot %d, label %#x; want %#x, %d, %#x", tt.client,
				hash, FlowSlot(hash), FlowLabel(hash), tt.hash, tt.slot, tt.label)
		}
	}
}

// Everything of a flow counts.
func TestFlowHashTakesAll(t *testing.T) {
	t.Parallel()
	key := FlowKey{1, 2}
	flow := Flow{netip.MustParseAddr("2001:db8::1"), 1, 2, 6}
	seen := map[uint64]string{FlowHash(key, flow): "the flow itself"}
	for what, hash := range map[string]uint64{
		"first half of the key":  FlowHash(FlowKey{2, 2}, flow),
		"second half of the key": FlowHash(FlowKey{1, 1}, flow),
		"start of the address":   FlowHash(key, Flow{netip.MustParseAddr("2001:db9::1"), 1, 2, 6}),
		"end of the address":     FlowHash(key, Flow{netip.MustParseAddr("2001:db8::2"), 1, 2, 6}),
		"ports swapped":          FlowHash(key, Flow{flow.Client, 2, 1, 6}),
		"bytes of ports swapped": FlowHash(key, Flow{flow.Client, 256, 512, 6}),
		"protocol":               FlowHash(key, Flow{flow.Client, 1, 2, 17}),
	} {
		if other, ok := seen[hash]; ok {
			t.Errorf("%s: hash like that of %s", what, other)
		}
		seen[hash] = what
	}
}

func TestFlowSlotAndLabelAtTheEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		hash        uint64
		slot, label uint32
	}{
		{0, 0, 1},
		{^uint64(0), TableSlots - 1, 0xfffff},
		{0x00000fff_00000000, 0, 1},
		{0x00001000_00000000, 0, 1},
		{0x00002000_80000000, 32768, 2},
	} {
		if slot, label := FlowSlot(tt.hash), FlowLabel(tt.hash); slot != tt.slot || label != tt.label {
			t.Errorf("%#x: slot %d, label %d; want %d, %d", tt.hash, slot, label, tt.slot, tt.label)
		}
	}
}

// Neighbouring clients spread over the slots as by chance.
func TestFlowSlotsAreBalanced(t *testing.T) {
	t.Parallel()
	counts := make([]int, TableSlots)
	for i := range 1 << 21 {
		client := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		counts[FlowSlot(FlowHash(FlowKey{3, 4}, Flow{client, uint16(i >> 16), 443, 6}))]++
	}
	uniform(t, "flows in slots", counts)
}

func BenchmarkFlowHash(b *testing.B) {
	flow := Flow{netip.MustParseAddr("2001:db8::1"), 49153, 443, 6}
	b.ReportAllocs()
	for b.Loop() {
		FlowHash(FlowKey{1, 2}, flow)
	}
}
