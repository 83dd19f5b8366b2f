package integration

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/integration/netlab"
)

// paths are the MTUs that the gateway takes the paths to its backends for, by name.
func (k *kept) paths() map[string]int {
	out := map[string]int{}
	for _, b := range k.keeper.Status() {
		out[b.Backend] = b.Path
	}
	return out
}

// A router between gateway and backend has a smaller MTU than both: it tells the gateway,
// which tells the client. What the client writes comes whole, at once.
func TestSmallerPathInTheFabric(t *testing.T) {
	t.Parallel()
	k := newKept(t, 2)
	if got := k.paths(); got["b1"] != 1500 || got["b2"] != 1500 {
		t.Fatalf("MTUs before: %v", got)
	}
	const size, mtu = 1 << 20, 1450
	for _, end := range []*netlab.End{&k.toBackend[0].A, &k.toBackend[0].B} {
		end.Node.Run("ip", "link", "set", end.Device, "mtu", "1450")
	}
	k.plan[1].Weight = 0
	k.apply()
	for i, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
		if err := upload(k.dial(uint16(22000+i), to), size, "b1\n"); err != nil {
			t.Fatalf("%s: %v; %v, %v", to, err, k.paths(), k.counts())
		}
	}
	if got := k.paths(); got["b1"] != mtu || got["b2"] != 1500 {
		t.Errorf("MTUs: %v", got)
	}
	if c := k.counts(); c["smaller_path"] == 0 || c["too_big"] == 0 || c["outsider"] != 0 {
		t.Error(c)
	}
}

// upload writes bytes in lines, and reads the answer to each.
func upload(c net.Conn, size int, answer string) error {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	const line = 8000
	text := make([]byte, size/line*line)
	_, _ = rand.Read(text)
	for i := range text {
		text[i] |= 1 // no end of line
		if i%line == line-1 {
			text[i] = '\n'
		}
	}
	if _, err := c.Write(text); err != nil {
		return err
	}
	want := []byte(strings.Repeat(answer, size/line))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("%d bytes of answers, want %d: %w", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("answers are not those of %q", answer)
	}
	return nil
}

// Nobody has a path taken for smaller than it is by quoting what we have not sent.
func TestForgedSmallerPath(t *testing.T) {
	t.Parallel()
	k := newKept(t, 1)
	from, source := netip.MustParseAddr(clientAddress6), netip.MustParseAddr("2001:db8:5e::5205:0:1:203")
	inner := tcpPacket(netip.AddrPortFrom(from, 31000), netip.MustParseAddrPort("["+vipAddress6+"]:443"), flagACK, 400)
	quote := ipPacket(source, hunt(1), 41, 64, inner)
	icmp := append([]byte{2, 0, 0, 0, 0, 0, 1280 >> 8, 1280 & 0xff}, quote...)
	sum := internetSum(pseudoHeader(from, source, 58, len(icmp)), icmp)
	icmp[2], icmp[3] = byte(sum>>8), byte(sum)
	frame := etherFrame(ipPacket(from, source, 58, 64, icmp))
	copy(frame, k.access.A.MAC())
	copy(frame[6:], k.access.B.MAC())
	k.access.B.Send(frame)
	k.lab.Eventually("the gateway hears of it", func() bool { return k.counts()["smaller_path"] == 1 })
	k.lab.Eventually("it is refused", func() bool { return k.refusedPaths() == 1 })
	if got := k.paths(); got["b1"] != 1500 {
		t.Errorf("MTUs: %v", got)
	}
}

// refusedPaths are routers' words that were not believed.
func (k *kept) refusedPaths() (n float64) {
	k.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	k.must(registry.Register(k.keeper))
	families, err := registry.Gather()
	k.must(err)
	for _, f := range families {
		if f.GetName() == "razor_gateway_smaller_paths_total" {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == "refused" {
					n = m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
