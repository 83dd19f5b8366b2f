package balancer

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the program says of itself is limited, of each kind apart, and goes on later.
func TestLimits(t *testing.T) {
	t.Parallel()
	b := newModel(false).load(t)
	echo := ethernet(0, ip(client6, vip6, unix.IPPROTO_ICMPV6, icmp(client6, vip6, 128, 0, 7, nil)))
	tooBig := ethernet(0, ip(client4, vip4, unix.IPPROTO_TCP, tcp(31000, 443, ack, 1460)))
	// flood sends until one is not answered: that takes more than a CPU answers at once.
	flood := func(said, unsaid string, frame []byte) {
		t.Helper()
		const most = 100_000
		before := b.counted(t)
		n := uint64(0)
		for ; n < most; n++ {
			if v := b.once(t, frame); v.action == xdpDrop {
				break
			}
		}
		after := b.counted(t)
		if after[said] != before[said]+n || after[unsaid] != before[unsaid]+1 || n < 99 { // one was told before
			t.Errorf("%s: after %d: %d, and %d", said, n, after[said]-before[said], after[unsaid]-before[unsaid])
		}
	}
	flood("echo", "echo_limit", echo)
	if v := b.once(t, tooBig); v.action != xdpTX {
		t.Error("echoes used up the limit of errors")
	}
	flood("too_big", "too_big_untold", tooBig)
	for _, frame := range [][]byte{echo, tooBig} {
		eventually(t, "more is said", func() bool { return b.once(t, frame).action == xdpTX })
	}
}

// counted are the counters by reason.
func (b *Balancer) counted(tb testing.TB) map[string]uint64 {
	tb.Helper()
	all, err := b.Counts()
	if err != nil {
		tb.Fatal(err)
	}
	by := map[string]uint64{}
	for _, c := range all {
		by[c.Reason] = c.Packets
	}
	return by
}
