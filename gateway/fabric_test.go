package gateway

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// run runs commands, one on each line.
func run(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

// The MTU of the way to each backend and gateway of another site is looked at, whoever makes it small.
func TestCheckFabric(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	ownHost(t)
	c.Dataplane.Interfaces = []string{"eth0"}
	addVeth(t, "eth1")
	run(t, "ip link set peer up", "ip link set eth1 up", "ip link set eth1p up", "ip addr add 2001:db8:1::a/64 dev eth0 nodad",
		"ip -6 route add 2001:db8:5e:b1::/64 via 2001:db8:1::b dev eth0")
	check := func(when, want string) {
		t.Helper()
		var got []string
		for _, d := range c.CheckFabric() {
			got = append(got, d.Error())
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	const from = `gateway.dataplane.interfaces: "eth0": packets of clients, up to 1500 bytes, leave with up to 144 more, and the way to `
	check("small, a backend without a way", from+`1 of 2 backends takes 1500 (eth0); want 1644 from here to there (ip link set dev eth0 mtu 1644); `+
		`or for TCP agents on Linux 6.6, which tell clients less, or backends that do (ip route change default ... advmss 1316, ip -6 route change default ... advmss 1296)`)
	run(t, "ip link set eth0 mtu 1644")
	check("large", "")
	run(t, "ip -6 route add 2001:db8:5e:b2::/64 dev eth1 mtu 1400")
	c.Services[0].VIPs = c.Services[0].VIPs[:1]
	check("a route with an MTU, IPv4 alone", from+`1 of 2 backends takes 1400 (eth1); want 1644 from here to there (ip link set dev eth1 mtu 1644); `+
		`or for TCP agents on Linux 6.6, which tell clients less, or backends that do (ip route change default ... advmss 1216)`)
	c.Services[0].Backends[1].State = "dead"
	check("to a dead backend", "")
	c.Sites = []SiteConfig{{Name: "east", Locators: "2001:db8:5e:e000::/56", Gateways: []string{"2001:db8:5e:e001::/64", "2001:db8:5e:e002::/64"}}}
	run(t, "ip -6 route add 2001:db8:5e:e001::/64 dev eth1 mtu 1500")
	check("to a gateway of another site", from+`1 of 2 gateways of other sites takes 1500 (eth1); want 1644 from here to there (ip link set dev eth1 mtu 1644); `+
		`or for TCP agents on Linux 6.6, which tell clients less, or backends that do (ip route change default ... advmss 1316)`)
	c.Services[0].Backends[1].State = "active"
	check("to both", from+`1 of 2 backends and 1 of 2 gateways of other sites takes 1400 (eth1); want 1644 from here to there (ip link set dev eth1 mtu 1644); `+
		`or for TCP agents on Linux 6.6, which tell clients less, or backends that do (ip route change default ... advmss 1216)`)
	c.Services[0].Backends[1].State, c.Sites = "dead", nil
	run(t, "ip link set eth0 mtu 1400")
	check("clients of a small network", strings.Replace(from, "1500", "1400", 1)+`1 of 1 backends takes 1400 (eth0); want 1544 from here to there (ip link set dev eth0 mtu 1544); `+
		`or for TCP agents on Linux 6.6, which tell clients less, or backends that do (ip route change default ... advmss 1216)`)
}

// The way to another site has to be a route of its own, unless its gateways are asked for
// echoes.
func TestCheckEntries(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	ownHost(t)
	addVeth(t, "eth1")
	run(t, "ip link set peer up", "ip link set eth1 up", "ip link set eth1p up", "ip addr add 2001:db8:1::a/64 dev eth0 nodad")
	c.Sites = []SiteConfig{{Name: "east", Locators: "2001:db8:5e:e000::/56", Gateways: []string{"2001:db8:5e:e001::/64", "2001:db8:5e:e002::/64"}}}
	check := func(when string, want ...string) {
		t.Helper()
		var got []string
		for _, d := range c.checkEntries() {
			got = append(got, d.Key+" "+d.Member)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	check("no route")
	run(t, "ip -6 route add default via 2001:db8:1::b dev eth0")
	check("a default route", "gateway.sites[0].gateways[0] 2001:db8:5e:e001::/64", "gateway.sites[0].gateways[1] 2001:db8:5e:e002::/64")
	c.Dataplane.KeyFile = "keys"
	check("echoes")
	c.Dataplane.KeyFile = ""
	run(t, "ip -6 route add 2001:db8:5e:e001::/64 via 2001:db8:1::b dev eth0")
	check("a route to one", "gateway.sites[0].gateways[1] 2001:db8:5e:e002::/64")
	run(t, "ip -6 route add unreachable 2001:db8:5e:e002::/64")
	check("no way to the other")
}
