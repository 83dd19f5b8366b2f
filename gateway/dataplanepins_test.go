package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering/wire"
)

// ownHost makes the test's thread a host of its own, with eth0. It returns a directory
// on a BPF file system.
func ownHost(t *testing.T) string {
	t.Helper()
	testhost.Enter(t)
	pins := testhost.BPFFS(t)
	for _, line := range []string{"ip link set lo up", "ip link add eth0 type veth peer name peer", "ip link set eth0 up"} {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	return pins
}

// series are the counters of a collector that are not 0, with the value of their label.
func series(t *testing.T, c prometheus.Collector, name string) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if n := m.GetCounter().GetValue() + m.GetGauge().GetValue(); f.GetName() == name && n != 0 {
				out[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return out
}

// eventually waits for a counter.
func eventually(t *testing.T, c prometheus.Collector, name, label string, want float64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); series(t, c, name)[label] != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v, want %v of %s", name, series(t, c, name), want, label)
		}
	}
}

// A dataplane with keys takes what a backend says; a reload takes other keys, and none
// that others may read.
func TestDataplaneTakesPins(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth0"}
	c.Dataplane.KeyFile = filepath.Join(t.TempDir(), "keys")
	keep := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(c.Dataplane.KeyFile)
		if err := os.WriteFile(c.Dataplane.KeyFile, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	keep(oneKey, 0o600)
	p, err := openDataplane(&c, netip.Prefix{}, nil, nil, slog.New(slog.DiscardHandler), func() {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.pins.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.remove(); err != nil {
			t.Error(err)
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()

	from, to := wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:b1::")), wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:1::"))
	if err := own(from.Address()); err != nil {
		t.Fatal(err)
	}
	free := net.ListenConfig{Control: freely}
	agent, err := free.ListenPacket(ctx, "udp6", netip.AddrPortFrom(from.Address(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	tell := func(key string) {
		t.Helper()
		now := time.Now()
		d, err := wire.NewSealer(parseKeys(t, key), from, to, now).SealPins(nil, []wire.Pin{{
			Client: netip.MustParseAddrPort("203.0.113.9:31000"), VIP: netip.MustParseAddrPort("198.51.100.1:443"), Protocol: unix.IPPROTO_TCP,
		}}, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := agent.WriteTo(d, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Address(), wire.Port))); err != nil {
			t.Fatal(err)
		}
	}
	const told, refused = "razor_gateway_pins_told_total", "razor_gateway_pin_refusals_total"
	tell(oneKey)
	eventually(t, p, told, "pinned", 1)
	tell(anotherKey)
	eventually(t, p, refused, "forged", 1)

	keep(anotherKey, 0o600)
	if err := p.reload(&c, time.Now()); err != nil {
		t.Fatal(err)
	}
	tell(anotherKey)
	eventually(t, p, told, "pinned", 2)
	keep(oneKey, 0o644)
	if err := p.reload(&c, time.Now()); err == nil || len(c.CheckFiles()) != 1 || c.CheckFiles()[0].Key != "gateway.dataplane.key_file" {
		t.Errorf("keys that others may read: %v, %v", err, c.CheckFiles())
	}
	tell(anotherKey)
	eventually(t, p, told, "pinned", 3)
}
