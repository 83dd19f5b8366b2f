package agent

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// TestCheckHost has a row for everything that may be wrong about a host. Each mends what
// it did, by the command that is told.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	newHost(t)
	unbound := func(c *Config) { no := false; c.Bind = &no }
	for _, tt := range []struct {
		name   string
		harm   []string // commands
		change func(*Config)
		want   []string
		mend   []string
	}{
		{name: "all is well"},
		{
			name: "strict", harm: []string{"sysctl -w net.ipv4.conf.all.rp_filter=1"},
			want: []string{`agent.interfaces[0]: "eth0": rp_filter is strict: packets of clients to whom another way leads are dropped without a word; want sysctl -w net.ipv4.conf.eth0.rp_filter=2`},
			mend: []string{"sysctl -w net.ipv4.conf.eth0.rp_filter=2"},
		},
		{name: "strict, no VIP of IPv4", harm: []string{"sysctl -w net.ipv4.conf.all.rp_filter=1"}, change: func(c *Config) { c.VIPs = c.VIPs[1:] }},
		{
			name: "checksums", harm: []string{"ethtool -K eth0 tx on"},
			want: []string{`agent.interfaces[0]: "eth0": a veth that leaves checksums to its other end: they are wrong where an XDP program is there; want ethtool -K eth0 tx off, at both ends`},
			mend: []string{"ethtool -K eth0 tx off"},
		},
		{
			// Answers go by eth0: the agent tells clients.
			name: "small MTU", harm: []string{"ip link set dev eth0 mtu 1500"},
		},
		{
			name: "small MTU, answers by another interface",
			harm: []string{"ip route change default via 192.0.2.1 dev peer onlink", "ip -6 route change default dev peer"},
			want: []string{`agent.interfaces[0]: "eth0": its MTU is 1500: packets of clients, up to 1500 bytes, come with up to 144 more; want 1644 from the gateways to here (ip link set dev eth0 mtu 1644), or clients that are told less (ip route change default ... advmss 1316, ip -6 route change default ... advmss 1296)`},
			mend: []string{"ip route change default via 192.0.2.1 dev peer onlink advmss 1316", "ip -6 route change default dev peer advmss 1296"},
		},
		{
			name: "small MTU, told of for one family", harm: []string{"ip -6 route change default dev peer"},
			want: []string{`agent.interfaces[0]: "eth0": its MTU is 1500: packets of clients, up to 1500 bytes, come with up to 144 more; want 1644 from the gateways to here (ip link set dev eth0 mtu 1644), or clients that are told less (ip route change default ... advmss 1316, ip -6 route change default ... advmss 1296)`},
			mend: []string{"ip link set dev eth0 mtu 1644"},
		},
		{
			name: "answers by another interface than the gateway's", change: func(c *Config) { c.Return, c.VIPs = "gateway", c.VIPs[:1] },
			harm: []string{"ip route change default via 192.0.2.1 dev peer onlink"},
			want: []string{`agent.return: "gateway": answers leave by peer, where there is no agent: straight to clients; want a default route by one of agent.interfaces, or peer among them`},
			mend: []string{"ip route change default via 192.0.2.1"},
		},
		{
			name: "answers by the gateway's interface", change: func(c *Config) { c.Return = "gateway" },
			harm: []string{"ip -6 route change default via 2001:db8:1::1"},
		},
		{
			name: "no way to gateways where answers leave", change: func(c *Config) { c.Return, c.Gateways = "gateway", []string{"2001:db8:5e:1::/64"} },
			harm: []string{
				"ip link set dev eth0 mtu 1644", "ip route change default via 192.0.2.1 mtu 1500", "ip -6 route change default via 2001:db8:1::1 mtu 1500",
				"ip -6 route add 2001:db8:5e:1::/64 dev peer", "ip -6 route add unreachable 2001:db8:5e::/48",
			},
			want: []string{`agent.return: "gateway": answers leave by eth0, which neither leads to 2001:db8:5e:1::/64 nor forwards: they go astray; want sysctl -w net.ipv6.conf.eth0.forwarding=1, and accept_ra=2 where its routes are of router advertisements`},
			mend: []string{"sysctl -w net.ipv6.conf.eth0.forwarding=1"},
		},
		{
			name: "no way to gateways, mended otherwise",
			harm: []string{"sysctl -w net.ipv6.conf.eth0.forwarding=0", "ip -6 route del 2001:db8:5e:1::/64 dev peer"},
		},
		{
			name: "answers that do not fit", change: func(c *Config) { c.Return = "gateway" },
			harm: []string{"ip link set dev eth0 mtu 1500"},
			want: []string{
				`agent.return: "gateway": answers of more than 1460 bytes, of others than TCP, do not fit through eth0 with 40 more, and are dropped; want ip route change default ... mtu 1460, or an MTU of 1540 from here to the gateways`,
				`agent.return: "gateway": answers of more than 1460 bytes, of others than TCP, do not fit through eth0 with 40 more, and are dropped; want ip -6 route change default ... mtu 1460, or an MTU of 1540 from here to the gateways`,
			},
			mend: []string{"ip route change default via 192.0.2.1 mtu 1460", "ip -6 route change default via 2001:db8:1::1 mtu 1460"},
		},
		{
			name: "not local", change: unbound,
			want: []string{
				`agent.vips[0]: "198.51.100.1": not an address of this host, and agent.bind is false; want ip addr add 198.51.100.1/32 dev lo, or agent.bind: true`,
				`agent.vips[1]: "2001:db8:ffff::1": not an address of this host, and agent.bind is false; want ip addr add 2001:db8:ffff::1/128 dev lo, or agent.bind: true`,
			},
			mend: []string{"ip addr add 198.51.100.1/32 dev lo", "ip route add local 2001:db8:ffff::/64 dev lo"},
		},
		{
			name: "answers ARP", change: func(c *Config) { c.VIPs = []string{"198.51.100.1", "192.0.2.80"} },
			want: []string{`agent.vips[1]: "192.0.2.80": in the network of eth0: this host tells neighbours who look for the gateway that it is here; want sysctl -w net.ipv4.conf.eth0.arp_ignore=1`},
			mend: []string{"sysctl -w net.ipv4.conf.eth0.arp_ignore=1"},
		},
		{
			name: "no such interface", change: func(c *Config) { c.Interfaces = append(c.Interfaces, "eth9") },
			want: []string{`agent.interfaces[1]: "eth9": no such interface; want one of this host`},
		},
		{
			name: "no locator", change: func(c *Config) { c.SRBlock = "2001:db8:5f::/48" },
			want: []string{`agent.locator: "auto": the host has no /64 in agent.sr_block, neither on loopback nor on eth0; want an address of 2001:db8:5f::/48 on lo, or the /64 here`},
		},
		{
			name: "several locators", harm: []string{"ip addr add 2001:db8:5e:8::1/128 dev lo"},
			want: []string{`agent.locator: "auto": the host has several /64s in agent.sr_block: 2001:db8:5e:7::/64, 2001:db8:5e:8::/64; want the one that is its own`},
			mend: []string{"ip addr del 2001:db8:5e:8::1/128 dev lo"},
		},
	} {
		if tt.change == nil {
			tt.change = func(*Config) {}
		}
		for _, line := range tt.harm {
			run(t, line)
		}
		c := section(tt.change)
		compare(t, tt.name, c, tt.want)
		for _, line := range tt.mend {
			run(t, line)
		}
		if tt.mend != nil {
			compare(t, tt.name+", mended", c, nil)
		}
	}
}

func compare(t *testing.T, name string, c *Config, want []string) {
	t.Helper()
	var got []string
	for _, d := range c.CheckHost() {
		got = append(got, d.String())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: got\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An interface whose program is behind its driver is slower, and said to be.
func TestCheckHostGeneric(t *testing.T) {
	t.Parallel()
	newHost(t)
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: eth0.Attrs().Index, Flags: link.XDPGenericMode})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	compare(t, "generic", section(), []string{
		`agent.interfaces[0]: "eth0": its driver (veth) has no XDP: the endpoint is behind it (generic), several times slower; want a driver with XDP (ethtool -i eth0 says which one it is)`,
	})
}

// The locator is loopback's, else the interface's, whatever else the host has.
func TestLocator(t *testing.T) {
	t.Parallel()
	newHost(t)
	locator := func(c *Config) string {
		t.Helper()
		host, err := addresses()
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.domain(host)
		if err != nil {
			return err.Error()
		}
		return d.Locator.String()
	}
	run(t, "ip addr add 2001:db8:5e:5::9/64 dev eth0 nodad")
	run(t, "ip addr add 2001:db8:5e:6::9/64 dev peer nodad")
	if got := locator(section()); got != "2001:db8:5e:7::/64" {
		t.Error("loopback and interfaces: ", got)
	}
	run(t, "ip addr del 2001:db8:5e:7::1/128 dev lo")
	if got := locator(section()); got != "2001:db8:5e:5::/64" {
		t.Error("interfaces: ", got)
	}
	if got := locator(section(func(c *Config) { c.Locator = "2001:db8:5e:9::/64" })); got != "2001:db8:5e:9::/64" {
		t.Error("as configured: ", got)
	}
}
