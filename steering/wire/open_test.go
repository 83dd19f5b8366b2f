package wire

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// reseal seals what was changed in a datagram with key 7.
func reseal(tb testing.TB, b []byte) []byte {
	tb.Helper()
	copy(b[len(b)-sealBytes:], newSealing(seven(tb)[0]).of(b[:len(b)-sealBytes]))
	return b
}

func TestOpen(t *testing.T) {
	t.Parallel()
	change := func(at int, to ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], to); return b }
	}
	same := func(b []byte) []byte { return b }
	sealedAgain := func(f func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return reseal(t, f(b)) }
	}
	ms := time.Millisecond
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		from   netip.Addr
		late   time.Duration // from sealing to opening
		want   error
	}{
		{"good", same, agent, 0, nil},
		{"another address of the locator", same, addr("2001:db8:a:1:ffff::"), 0, nil},
		{"an address of another locator", same, addr("2001:db8:a:2::1"), 0, Impostor},
		{"an IPv4 address", same, addr("192.0.2.1"), 0, Impostor},
		{"no address", same, netip.Addr{}, 0, Impostor},
		{"no locator, from IPv4", sealedAgain(change(atSender, 0, 0, 0, 0, 0, 0, 0, 0)), addr("192.0.2.1"), 0, Impostor},
		{"no locator, from IPv6", sealedAgain(change(atSender, 0, 0, 0, 0, 0, 0, 0, 0)), addr("::1"), 0, Impostor},
		{"empty", func([]byte) []byte { return nil }, agent, 0, Malformed},
		{"shorter than any", func(b []byte) []byte { return b[:51] }, agent, 0, Malformed},
		{"longer than any", func(b []byte) []byte { return append(b, make([]byte, MaxDatagram)...) }, agent, 0, Malformed},
		{"version 0", sealedAgain(change(atVersion, 0)), agent, 0, Version},
		{"version 2", change(atVersion, 2), agent, 0, Version},
		{"another key's id", change(atKey, 0, 8), agent, 0, UnknownKey},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, agent, 0, Forged},
		{"longer", func(b []byte) []byte { return append(b, 0) }, agent, 0, Forged},
		{"a pin less", func(b []byte) []byte { return slices.Delete(b, atBody, atBody+pinBytes) }, agent, 0, Forged},
		{"another sender", change(atSender+7, 2), addr("2001:db8:a:2::1"), 0, Forged},
		{"type 0", sealedAgain(change(atType, 0)), agent, 0, UnknownType},
		{"type 2", sealedAgain(change(atType, 2)), agent, 0, UnknownType},
		{"another receiver", sealedAgain(change(atReceiver+7, 3)), agent, 0, Misdirected},
		{"as old as may be", same, agent, Window, nil},
		{"too old", same, agent, Window + ms, Stale},
		{"as early as may be", same, agent, -Window, nil},
		{"too early", same, agent, -Window - ms, Early},
		{"the end of time", sealedAgain(change(atSent, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), agent, 0, Early},
		{"before time", sealedAgain(change(atSent, 0x80)), agent, 0, Stale},
		{"no body", sealedAgain(func(b []byte) []byte { return b[:atBody+sealBytes] }), agent, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
			o := NewOpener(gateway, seven(t), plenty, noon.Add(-time.Hour))
			b := tt.change(sealed(t, s, noon))
			before := slices.Clone(b)
			m, err := o.Open(b, tt.from, noon.Add(tt.late))
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("error is %v, want %v", err, tt.want)
			}
			if err != nil && Mistimed(err) != (m.Sender == LocatorOf(agent)) {
				t.Errorf("%v, and the message is of %v", err, m.Sender)
			}
			if err != nil && (m.Type != 0 || m.Body != nil || len(o.senders.known) > 0) {
				t.Errorf("refused and yet %+v, %d senders", m, len(o.senders.known))
			}
			if !slices.Equal(b, before) {
				t.Error("the datagram was changed")
			}
		})
	}
}

// TestNoBitMayChange: none of a datagram, and none of it is a hint at what comes first.
func TestNoBitMayChange(t *testing.T) {
	t.Parallel()
	o := NewOpener(gateway, seven(t), plenty, noon)
	b := goldenBytes(t)
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
	if len(o.senders.known) > 0 {
		t.Error("a sender is remembered of what was refused")
	}
	if _, err := o.Open(b, agent, noon); err != nil {
		t.Errorf("the datagram itself: %v", err)
	}
}

// TestRotation: no datagram is refused in any step, with agents and gateways not at the
// same one; and none is taken with a key that is gone, or twice because of it.
func TestRotation(t *testing.T) {
	t.Parallel()
	before, after := "1: "+hexKey+"\n", "2: "+otherKey+"\n"
	steps := []Keys{
		keysOf(t, before), keysOf(t, before+after), keysOf(t, after+before), keysOf(t, after),
	}
	o := NewOpener(gateway, steps[0], plenty, noon)
	now := noon
	var last []byte
	for i := range steps {
		for _, mine := range []int{i - 1, i} {
			if mine < 0 {
				continue
			}
			now = now.Add(time.Second)
			o.SetKeys(steps[i])
			last = sealed(t, NewSealer(steps[mine], LocatorOf(agent), gateway, now), now)
			if _, err := o.Open(last, agent, now); err != nil {
				t.Errorf("gateway at step %d, agent at step %d: %v", i, mine, err)
			}
			o.SetKeys(steps[i])
			if _, err := o.Open(last, agent, now); !errors.Is(err, Repeated) {
				t.Errorf("gateway at step %d, agent at step %d: again: %v", i, mine, err)
			}
		}
	}
	old := sealed(t, NewSealer(steps[0], LocatorOf(agent), gateway, now), now)
	if _, err := o.Open(old, agent, now); !errors.Is(err, UnknownKey) {
		t.Errorf("with the key that is gone: %v", err)
	}
	o.SetKeys(keysOf(t, "1: "+otherKey))
	if _, err := o.Open(old, agent, now); !errors.Is(err, Forged) {
		t.Errorf("with another key of the same id: %v", err)
	}
}

// TestReordered: whatever is at most 63 places late is taken, once.
func TestReordered(t *testing.T) {
	t.Parallel()
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	o := NewOpener(gateway, seven(t), plenty, noon)
	sent := make([][]byte, 130)
	for i := range sent {
		sent[i] = sealed(t, s, noon)
	}
	open := func(i int, want error) {
		t.Helper()
		if _, err := o.Open(sent[i], agent, noon); !errors.Is(err, want) {
			t.Errorf("datagram %d: %v, want %v", i, err, want)
		}
	}
	open(65, nil)
	open(1, Repeated) // 64 late
	for i := 2; i < 65; i++ {
		open(i, nil)
	}
	for i := range 66 {
		open(i, Repeated)
	}
	open(129, nil) // shifts all of them out
	open(66, nil)
	open(65, Repeated)
}

// TestRestarts are those of a sender and of a receiver, and of clocks.
func TestRestarts(t *testing.T) {
	t.Parallel()
	second := func(n int) time.Time { return noon.Add(time.Duration(n) * time.Second) }
	seal := func(started, now int) []byte {
		return sealed(t, NewSealer(seven(t), LocatorOf(agent), gateway, second(started)), second(now))
	}
	o := NewOpener(gateway, seven(t), plenty, noon)
	open := func(what string, b []byte, now int, want error) {
		t.Helper()
		if _, err := o.Open(b, agent, second(now)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	first := seal(0, 0)
	open("the first one", first, 0, nil)
	second1 := seal(1, 1)
	open("the sender started again", second1, 1, nil)
	open("what it said before", first, 1, Repeated)
	early := seal(20, 20)
	open("its clock is ahead", early, 1, nil)
	open("its clock is right again", seal(2, 2), 2, Repeated)
	open("it still is", seal(50, 50), 50, nil) // made later than the one ahead
	behind := seal(3, 81)
	open("a sequence that went back, the window over", behind, 81, nil)
	open("again", behind, 81, Repeated)
	open("what is out of the window", early, 81, Stale)

	s := NewSealer(seven(t), LocatorOf(agent), gateway, second(82))
	ahead := sealed(t, s, second(102))
	open("the clock is ahead while the sender runs", ahead, 82, nil)
	open("and is set back", sealed(t, s, second(83)), 83, nil)
	open("the window of the newest alone is over", ahead, 120, Repeated)

	o = NewOpener(gateway, seven(t), plenty, second(81))
	open("the receiver started again: what was sent before", seal(80, 80), 81, Stale)
	open("and after", seal(81, 81), 81, nil)
}

// TestClockOfReceiver: a leap of it and back does not have anything taken twice.
func TestClockOfReceiver(t *testing.T) {
	t.Parallel()
	s := NewSealer(seven(t), LocatorOf(agent), gateway, noon)
	o := NewOpener(gateway, seven(t), plenty, noon)
	b := sealed(t, s, noon)
	for _, tt := range []struct {
		now  time.Time
		want error
	}{
		{noon, nil},
		{noon.Add(time.Hour), Stale},
		{noon, Repeated},
		{noon.Add(-time.Hour), Early},
		{noon.Add(-time.Second), Repeated},
	} {
		if _, err := o.Open(b, agent, tt.now); !errors.Is(err, tt.want) {
			t.Errorf("at %v: %v, want %v", tt.now, err, tt.want)
		}
	}
}

// TestCrowd: a sender makes room when all it said is out of the window, not before.
func TestCrowd(t *testing.T) {
	t.Parallel()
	o := NewOpener(gateway, seven(t), Limits{Senders: 2, Sender: 10, Total: 100}, noon)
	from := func(i byte) netip.Addr {
		b := agent.As16()
		b[7] = i
		return netip.AddrFrom16(b)
	}
	say := func(i byte, after time.Duration, want error) []byte {
		t.Helper()
		now := noon.Add(after)
		b := sealed(t, NewSealer(seven(t), LocatorOf(from(i)), gateway, now), now)
		if _, err := o.Open(b, from(i), now); !errors.Is(err, want) {
			t.Errorf("sender %d after %v: %v, want %v", i, after, err, want)
		}
		return b
	}
	first := say(1, 0, nil)
	say(2, time.Second, nil)
	say(3, 2*time.Second, Crowded)
	say(3, Window, Crowded)
	if _, err := o.Open(first, from(1), noon.Add(Window)); !errors.Is(err, Repeated) {
		t.Errorf("the first one again, at the end of the window: %v", err)
	}
	say(3, Window+time.Millisecond, nil)
	if _, err := o.Open(first, from(1), noon.Add(Window+time.Millisecond)); !errors.Is(err, Stale) {
		t.Errorf("the first one again, out of the window: %v", err)
	}
	say(1, Window+time.Millisecond, Crowded)
	say(2, Window+time.Second, nil)            // known still
	say(1, 2*Window+500*time.Millisecond, nil) // in the place of 3
	say(3, 2*Window+500*time.Millisecond, Crowded)
	if len(o.senders.known) != 2 || o.senders.order.Len() != 2 {
		t.Errorf("%d senders, %d in order", len(o.senders.known), o.senders.order.Len())
	}
}

// TestLimits: one sender takes no more than its rate, all no more than theirs, and what
// is refused for any reason takes nothing.
func TestLimits(t *testing.T) {
	t.Parallel()
	o := NewOpener(gateway, seven(t), Limits{Senders: 8, Sender: 10, Total: 15}, noon)
	other := addr("2001:db8:a:2::1")
	one, two := NewSealer(seven(t), LocatorOf(agent), gateway, noon), NewSealer(seven(t), LocatorOf(other), gateway, noon)
	burst := func(s *Sealer, from netip.Addr, n int, now time.Time) map[error]int {
		results := make(map[error]int)
		for range n {
			b := sealed(t, s, now)
			_, err := o.Open(b, from, now)
			results[err]++
			if err == nil { // again, and forged
				_, again := o.Open(b, from, now)
				results[again]++
				b[50] ^= 1
				_, forged := o.Open(b, from, now)
				results[forged]++
			}
		}
		return results
	}
	check := func(got map[error]int, taken, refused int, why error) {
		t.Helper()
		if got[nil] != taken || got[why] != refused || got[Repeated] != taken || got[Forged] != taken {
			t.Errorf("got %v; want %d taken, %d times %v", got, taken, refused, why)
		}
	}
	check(burst(one, agent, 100, noon), 10, 90, SenderLimit)
	check(burst(two, other, 100, noon), 5, 95, TotalLimit)
	now := noon.Add(200 * time.Millisecond)
	check(burst(one, agent, 10, now), 2, 8, SenderLimit)
	check(burst(two, other, 10, now), 1, 9, TotalLimit) // 15 × 0.2 are 3
	now = noon.Add(time.Hour)
	o.start = 0
	check(burst(two, other, 100, now), 10, 90, SenderLimit)
	check(burst(one, agent, 100, now), 5, 95, TotalLimit)
	now = now.Add(-10 * time.Second) // the clock goes back
	check(burst(one, agent, 100, now), 0, 100, TotalLimit)
	check(burst(one, agent, 1, now.Add(time.Second)), 1, 0, TotalLimit)
}
