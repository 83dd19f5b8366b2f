package wire

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	hexKey   = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	otherKey = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=" // 32 bytes
)

var (
	noon    = time.Unix(1795264015, 0)
	agent   = netip.MustParseAddr("2001:db8:a:1::1")
	gateway = LocatorOf(netip.MustParseAddr("2001:db8:f:2::"))

	plenty = Limits{Senders: 8, Sender: 1000, Total: 1000}

	pins = []Pin{
		{netip.MustParseAddrPort("[2001:db8:c::9]:54321"), netip.MustParseAddrPort("[2001:db8:53::1]:443"), 6, 0},
		{netip.MustParseAddrPort("192.0.2.9:1024"), netip.MustParseAddrPort("198.51.100.1:53"), 17, 513},
	}
)

// golden is a datagram of agent to gateway with pins, of 250 ms after noon, whose seal
// other software has made: hmac of Python.
const golden = `
	01 01 0007
	20010db8000a0001
	20010db8000f0002
	000001a1fe12eb92
	18ea0f1c241dd601
	20010db8000c00000000000000000009 20010db8005300000000000000000001 d431 01bb 06 00 0000
	00000000000000000000ffffc0000209 00000000000000000000ffffc6336401 0400 0035 11 00 0201
	57ab61591c20bc4b1a098feef675fe0f`

func goldenBytes(tb testing.TB) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(golden), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func keysOf(tb testing.TB, file string) Keys {
	tb.Helper()
	keys, err := ParseKeys(file)
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

func seven(tb testing.TB) Keys {
	tb.Helper()
	return keysOf(tb, "7: "+hexKey)
}

// sealed is a datagram with pins.
func sealed(tb testing.TB, s *Sealer, now time.Time) []byte {
	tb.Helper()
	b, err := s.SealPins(nil, pins, now)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	t.Parallel()
	now := noon.Add(250 * time.Millisecond)
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	want := append([]byte("before"), goldenBytes(t)...)
	got, err := s.SealPins([]byte("before"), pins, now)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("sealed %x, %v\nwant %x", got, err, want)
	}

	o := NewOpener(gateway, seven(t), plenty, noon)
	m, err := o.Open(goldenBytes(t), agent, now)
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != TypePins || m.Sender != LocatorOf(agent) || !m.Sent.Equal(now) {
		t.Errorf("opened %+v", m)
	}
	if got, err := m.AppendPins(nil); err != nil || !slices.Equal(got, pins) {
		t.Errorf("pins %v, %v; want %v", got, err, pins)
	}
}

func TestMostPins(t *testing.T) {
	t.Parallel()
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	o := NewOpener(gateway, seven(t), plenty, noon)
	most := slices.Repeat(pins[:1], MaxPins)
	b, err := s.SealPins(nil, most, noon)
	if err != nil || len(b) > MaxDatagram || len(b)+pinBytes <= MaxDatagram {
		t.Fatalf("%d bytes with %d pins, %v", len(b), MaxPins, err)
	}
	m, err := o.Open(b, agent, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.AppendPins(pins[1:]); err != nil || !slices.Equal(got, append(pins[1:], most...)) {
		t.Errorf("got %d pins, %v", len(got), err)
	}
	for _, n := range []int{0, MaxPins + 1} {
		if b, err := s.SealPins([]byte("before"), slices.Repeat(pins[:1], n), noon); err == nil || string(b) != "before" {
			t.Errorf("%d pins: sealed as %x, %v", n, b, err)
		}
	}
}

func TestLocator(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"2001:db8:a:1:2:3:4:5":     "2001:db8:a:1::/64",
		"2001:db8::":               "2001:db8::/64",
		"fe80::1%eth0":             "fe80::/64",
		"192.0.2.1":                "::/64",
		"::ffff:192.0.2.1":         "::/64",
		"2001:db8:ffff:ffff:1::ff": "2001:db8:ffff:ffff::/64",
	} {
		if got := LocatorOf(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is in %s, want %s", addr, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	labels := make(map[string]bool)
	for r := range Refusals {
		if r.Label() == "" || r.Error() == "" || labels[r.Label()] {
			t.Errorf("refusal %d has the label %q and the text %q", r, r.Label(), r.Error())
		}
		labels[r.Label()] = true
	}
}
