package integration

import (
	"net/netip"
	"os"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// TestIdentity is who a fresh host says it is, and that binding VIPs does not change it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	lab.Link(tor, "swp1", gw, "eth0", "2001:db8:0:12::1/64")
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
}
