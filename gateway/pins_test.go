package gateway

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering/wire"
)

const (
	oneKey     = "1: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	anotherKey = "1: ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

func parseKeys(t *testing.T, text string) wire.Keys {
	t.Helper()
	keys, err := wire.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Datagrams of agents: what is believed is pinned, all else is counted by its reason.
func TestPinsTake(t *testing.T) {
	t.Parallel()
	now := time.Now()
	gateway, agent := netip.MustParsePrefix("2001:db8:5e::/64"), netip.MustParsePrefix("2001:db8:5e:7::/64")
	to, from := wire.LocatorOf(gateway.Addr()), wire.LocatorOf(agent.Addr())
	flow := wire.Pin{
		Client: netip.MustParseAddrPort("203.0.113.9:31000"), VIP: netip.MustParseAddrPort("198.51.100.1:443"),
		Protocol: unix.IPPROTO_TCP, Target: 3,
	}
	other := flow
	other.VIP = netip.MustParseAddrPort("198.51.100.2:443")
	seal := func(key string, receiver wire.Locator, sent time.Time, pins ...wire.Pin) []byte {
		d, err := wire.NewSealer(parseKeys(t, key), from, receiver, sent).SealPins(nil, pins, sent)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	whole := seal(oneKey, to, now, flow)
	flipped := slices.Clone(whole)
	flipped[50] ^= 1
	for name, c := range map[string]struct {
		datagrams [][]byte
		from      netip.Addr
		pinned    int
		refused   map[string]float64
	}{
		"one":                      {[][]byte{whole}, from.Address(), 1, nil},
		"replayed":                 {[][]byte{whole, whole}, from.Address(), 1, map[string]float64{"repeated": 1}},
		"forged":                   {[][]byte{flipped}, from.Address(), 0, map[string]float64{"forged": 1}},
		"another key":              {[][]byte{seal(anotherKey, to, now, flow)}, from.Address(), 0, map[string]float64{"forged": 1}},
		"a key nobody knows":       {[][]byte{seal(strings.Replace(oneKey, "1", "2", 1), to, now, flow)}, from.Address(), 0, map[string]float64{"unknown_key": 1}},
		"from somebody else":       {[][]byte{whole}, netip.MustParseAddr("2001:db8:5e:8:5205::"), 0, map[string]float64{"impostor": 1}},
		"for another gateway":      {[][]byte{seal(oneKey, from, now, flow)}, from.Address(), 0, map[string]float64{"misdirected": 1}},
		"old":                      {[][]byte{seal(oneKey, to, now.Add(-time.Minute), flow)}, from.Address(), 0, map[string]float64{"stale": 1}},
		"cut off":                  {[][]byte{whole[:40], nil}, from.Address(), 0, map[string]float64{"malformed": 2}},
		"one of two":               {[][]byte{seal(oneKey, to, now, flow, other)}, from.Address(), 1, map[string]float64{"vip": 1}},
		"what the kernel does not": {[][]byte{seal(oneKey, to, now, wire.Pin{Client: flow.Client, VIP: flow.VIP, Protocol: unix.IPPROTO_UDP})}, from.Address(), 0, map[string]float64{"kernel": 1}},
	} {
		pinned := 0
		p := newPins(gateway, parseKeys(t, oneKey), func(f balancer.Flow, owner netip.Addr) error {
			switch {
			case f.VIP == other.VIP:
				return balancer.NotAVIP
			case f.Protocol == unix.IPPROTO_UDP:
				return errors.New("no memory")
			}
			if f.Client != flow.Client || owner != netip.MustParseAddr("2001:db8:5e:7:5201:3::") {
				t.Errorf("%s: %v of %v", name, f, owner)
			}
			pinned++
			return nil
		}, now)
		for _, d := range c.datagrams {
			p.take(nil, d, c.from, now)
		}
		if pinned != c.pinned {
			t.Errorf("%s: %d pinned, want %d", name, pinned, c.pinned)
		}
		if got := refusals(t, p); !maps.Equal(got, c.refused) {
			t.Errorf("%s: refused %v, want %v", name, got, c.refused)
		}
	}
}

// refusals are the counts of p, by reason, that are not 0. Each reason has one.
func refusals(t *testing.T, p *Pins) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(p)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "razor_gateway_pin_refusals_total" {
		t.Fatal(families, err)
	}
	out := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		if n := m.GetCounter().GetValue(); n != 0 {
			out[m.GetLabel()[0].GetValue()] = n
		}
	}
	if got, want := len(families[0].GetMetric()), int(wire.Refusals)+len(balancer.PinRefusals)+1; got != want {
		t.Errorf("%d reasons, want %d", got, want)
	}
	return out
}

// New keys open what old ones do not.
func TestPinsSetKeys(t *testing.T) {
	t.Parallel()
	now, pinned := time.Now(), 0
	gateway := netip.MustParsePrefix("2001:db8:5e::/64")
	from := wire.LocatorOf(netip.MustParseAddr("2001:db8:5e:7::"))
	p := newPins(gateway, parseKeys(t, oneKey), func(balancer.Flow, netip.Addr) error { pinned++; return nil }, now)
	d, err := wire.NewSealer(parseKeys(t, anotherKey), from, wire.LocatorOf(gateway.Addr()), now).SealPins(nil, []wire.Pin{{
		Client: netip.MustParseAddrPort("[2001:db8::9]:31000"), VIP: netip.MustParseAddrPort("[2001:db8::1]:443"), Protocol: unix.IPPROTO_TCP,
	}}, now)
	if err != nil {
		t.Fatal(err)
	}
	p.take(nil, d, from.Address(), now)
	p.SetKeys(parseKeys(t, anotherKey))
	p.take(nil, d, from.Address(), now)
	if pinned != 1 {
		t.Errorf("%d pinned, want 1", pinned)
	}
}

// A key file is refused with its reason, and without what stands in it.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for file, want := range map[string]string{
		"":                                        "",
		write("good", oneKey, 0o600):              "",
		write("open", oneKey, 0o640):              "others may read it (mode 0640)",
		write("short", "1: 00112233", 0o600):      "key 1 has 4 bytes",
		write("empty", "# nothing\n", 0o400):      "no key",
		filepath.Join(dir, "none"):                "no such file",
		write("text", "1: hunter2hunter2", 0o600): "neither hexadecimal nor base64",
	} {
		keys, err := (&DataplaneConfig{KeyFile: file}).keys()
		switch {
		case want == "" && (err != nil || (file == "") != (keys == nil)):
			t.Errorf("%s: %v", file, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "gateway.dataplane.key_file")):
			t.Errorf("%s: %v, want %q", file, err, want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("the error tells the key: %v", err)
		}
	}
}
