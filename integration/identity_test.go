package integration

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// TestIdentity is who a fresh host says it is, and that binding VIPs does not change it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	link := lab.Link(tor, "swp1", gw, "eth0", "2001:db8:0:12::1/64")
	identify := func(want string) {
		t.Helper()
		var id gateway.Identity
		gw.Do(func() {
			host, err := gateway.ReadHost()
			if err != nil {
				t.Error(err)
				return
			}
			if name, _ := os.Hostname(); host.Name != name {
				t.Errorf("the host is called %q, not %q", host.Name, name)
			}
			if id, err = (gateway.IdentityConfig{Links: []string{"eth0"}}).Identify("bgp", host); err != nil {
				t.Error(err)
			}
			if err := gateway.Bind([]netip.Prefix{netip.MustParsePrefix("203.0.113.7/32"), netip.MustParsePrefix("2001:db8:ffff::7/128")}); err != nil {
				t.Error(err)
			}
		})
		if got := id.String(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	const fresh = "as 4217386223 (from the node's /64), router id 96.23.2.66 (from the node's /64), node 2001:db8:0:12::/64 (eth0)"
	identify(fresh)
	identify(fresh)
	gw.Run("ip", "addr", "add", "192.0.2.7/32", "dev", "lo")
	gw.Run("ip", "addr", "add", "2001:db8:0:44::1/64", "dev", "lo")
	identify("as 4210893000 (from the node's /64), router id 192.0.2.7 (lo), node 2001:db8:0:44::/64 (lo)")

	local := peerOf(t, link.B, link.A).Dial
	gw.Do(func() {
		for peer, want := range map[string]string{"2001:db8:0:12::1": "2001:db8:0:12::2", "127.0.0.1": "127.0.0.1"} {
			if got, err := gateway.SourceFor(t.Context(), netip.MustParseAddr(peer)); err != nil || got.String() != want {
				t.Errorf("to %s from %v (%v), want %s", peer, got, err, want)
			}
		}
		if got, err := gateway.SourceFor(t.Context(), local); err != nil || got.WithZone("") != link.B.Local.WithZone("") {
			t.Errorf("to %v from %v (%v), want %v", local, got, err, link.B.Local)
		}
		if got, err := gateway.SourceFor(t.Context(), netip.MustParseAddr("192.0.2.99")); err == nil || !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("to nowhere from %v (%v)", got, err)
		}
	})
}
