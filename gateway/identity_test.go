package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// at is an address of an interface.
func at(iface, prefix string) address {
	return address{iface: iface, loopback: iface == "lo", prefix: netip.MustParsePrefix(prefix)}
}

func bound(prefix string) address {
	a := at("lo", prefix)
	a.ours = true
	return a
}

// system is what every host has.
var system = []address{at("lo", "127.0.0.1/8"), at("lo", "::1/128"), at("eth0", "fe80::1/64"), at("eth0", "169.254.7.7/16")}

func TestIdentify(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config IdentityConfig
		host   string
		addrs  []address
		want   string
	}{
		{
			name:  "nothing but a /64 on the link",
			addrs: []address{at("eth0", "2001:db8:0:12::1/64")},
			want:  "as 4217386223 (from the node's /64), router id 96.23.2.66 (from the node's /64), node 2001:db8:0:12::/64 (eth0)",
		}, {
			name:  "an address on loopback comes before the links",
			addrs: []address{at("eth0", "2001:db8:0:1::2/64"), at("lo", "2001:db8:0:12::1/128")},
			want:  "as 4217386223 (from the node's /64), router id 96.23.2.66 (from the node's /64), node 2001:db8:0:12::/64 (lo)",
		}, {
			name:  "unique local, several addresses of one network",
			addrs: []address{at("eth0", "fd00:0:0:12::1/64"), at("eth0", "fd00:0:0:12::2/64"), at("eth1", "fd00:0:0:12::3/64")},
			want:  "as 4227799234 (from the node's /64), router id 82.91.159.34 (from the node's /64), node fd00:0:0:12::/64 (eth0)",
		}, {
			name:  "the links come before other interfaces",
			addrs: []address{at("docker0", "fd00:0:0:99::1/64"), at("docker0", "172.17.0.1/16"), at("eth0", "2001:db8:0:12::1/64"), at("eth0", "192.0.2.9/31")},
			want:  "as 4217386223 (from the node's /64), router id 192.0.2.9 (eth0), node 2001:db8:0:12::/64 (eth0)",
		}, {
			name:  "other interfaces",
			addrs: []address{at("node0", "2001:db8:0:12::1/64"), at("node0", "10.9.9.9/32")},
			want:  "as 4217386223 (from the node's /64), router id 10.9.9.9 (node0), node 2001:db8:0:12::/64 (node0)",
		}, {
			name:  "the lowest address of loopback, without what is bound there",
			addrs: []address{at("lo", "10.0.0.9/32"), at("lo", "10.0.0.7/32"), bound("10.0.0.1/32"), bound("2001:db8:ffff::1/128"), at("eth0", "2001:db8:0:12::1/64")},
			want:  "as 4217386223 (from the node's /64), router id 10.0.0.7 (lo), node 2001:db8:0:12::/64 (eth0)",
		}, {
			name:   "from the host name",
			config: IdentityConfig{AS: "auto", ASTemplate: "42{rack:4}{host:4}", HostPattern: `^r(?P<rack>\d+)h(?P<host>\d+)\.`},
			host:   "r011h3.example.net", addrs: []address{at("lo", "10.0.0.7/32")},
			want: "as 4200110003 (from the host name r011h3.example.net), router id 10.0.0.7 (lo), node none (no /64 on the host)",
		}, {
			name:   "two octets, without a width",
			config: IdentityConfig{ASTemplate: "645{host}", HostPattern: `(?P<host>\d\d)$`},
			host:   "gw12", addrs: []address{at("lo", "10.0.0.7/32"), at("eth0", "2001:db8:0:12::1/64"), at("eth0", "2001:db8:0:13::1/64")},
			want: "as 64512 (from the host name gw12), router id 10.0.0.7 (lo), node none (several on the host)",
		}, {
			name:   "as configured",
			config: IdentityConfig{AS: "64496", RouterID: "192.0.2.1", Node: "2001:db8:0:44::/64"},
			addrs:  []address{at("eth0", "2001:db8:0:12::1/64"), at("lo", "10.0.0.7/32")},
			want:   "as 64496 (as configured), router id 192.0.2.1 (as configured), node 2001:db8:0:44::/64 (as configured)",
		}, {
			name: "nothing to go by",
			want: "bgp.node: the host has no global or unique local IPv6 /64; want an address on lo, or the /64 here\n" +
				"bgp.router_id: the host has no IPv4 address, and no /64 of its own; want an IPv4 address here, or bgp.node",
		}, {
			name:  "lengths that say nothing",
			addrs: []address{at("eth0", "2001:db8:0:12::1/128"), at("lo", "2001:db8::1/48"), at("lo", "10.0.0.7/32")},
			want:  "bgp.node: the host has no global or unique local IPv6 /64; want an address on lo, or the /64 here",
		}, {
			name:  "several",
			addrs: []address{at("eth0", "2001:db8:0:13::1/64"), at("eth0", "2001:db8:0:12::1/64"), at("lo", "10.0.0.7/32")},
			want:  "bgp.node: the host has several /64s: 2001:db8:0:12::/64 (eth0), 2001:db8:0:13::/64 (eth0); want the one that is its own",
		}, {
			name:   "another host name",
			config: IdentityConfig{ASTemplate: "42{rack:4}", HostPattern: `^r(?P<rack>\d+)`},
			host:   "edge7", addrs: []address{at("lo", "10.0.0.7/32")},
			want: `bgp.host_pattern: "^r(?P<rack>\d+)": does not match the host name "edge7"; want a pattern that does`,
		}, {
			name:   "too many digits",
			config: IdentityConfig{ASTemplate: "42{rack:2}", HostPattern: `^r(?P<rack>\d+)`},
			host:   "r123", addrs: []address{at("lo", "10.0.0.7/32")},
			want: `bgp.as_template: "42{rack:2}": of the host name "r123": rack is 123, of more than 2 digits; want a private AS: 64512 to 65534, or 4200000000 to 4294967294`,
		}, {
			name:   "no number",
			config: IdentityConfig{ASTemplate: "42{rack:2}", HostPattern: `^r(?P<rack>.+)`},
			host:   "red", addrs: []address{at("lo", "10.0.0.7/32")},
			want: `bgp.as_template: "42{rack:2}": of the host name "red": rack is "ed", not a number; want a private AS: 64512 to 65534, or 4200000000 to 4294967294`,
		}, {
			name:   "somebody else's number",
			config: IdentityConfig{ASTemplate: "13{rack}", HostPattern: `^r(?P<rack>\d+)`},
			host:   "r335", addrs: []address{at("lo", "10.0.0.7/32")},
			want: `bgp.as_template: "13{rack}": of the host name "r335": the AS is 13335; want a private AS: 64512 to 65534, or 4200000000 to 4294967294`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.config.Links = []string{"eth0", "eth1"}
			id, err := tt.config.Identify("bgp", Host{Name: tt.host, addresses: append(system[:4:4], tt.addrs...)})
			got := id.String()
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestIdentityConfig(t *testing.T) {
	t.Parallel()
	const pattern = `(?P<rack>\d+)`
	for _, good := range []IdentityConfig{
		{},
		{AS: "auto", RouterID: "auto", Node: "auto"},
		{AS: "1"},
		{AS: "4294967294"},
		{AS: "65536"},
		{ASTemplate: "{rack:9}", HostPattern: pattern},
		{ASTemplate: "64512"},
		{Node: "fd00:1:2:3::/64"},
	} {
		if defects := good.Check("bgp"); defects != nil {
			t.Errorf("%+v: %v", good, defects)
		}
	}
	for _, tt := range []struct {
		config IdentityConfig
		want   string // begin of the defect
	}{
		{IdentityConfig{AS: "0"}, `bgp.as: "0": not the number`},
		{IdentityConfig{AS: "23456"}, `bgp.as: "23456"`},
		{IdentityConfig{AS: "65535"}, `bgp.as: "65535"`},
		{IdentityConfig{AS: "4294967295"}, `bgp.as: "4294967295"`},
		{IdentityConfig{AS: "4294967296"}, `bgp.as: "4294967296"`},
		{IdentityConfig{AS: "-1"}, `bgp.as: "-1"`},
		{IdentityConfig{AS: "AS64512"}, `bgp.as: "AS64512"`},
		{IdentityConfig{RouterID: "0.0.0.0"}, `bgp.router_id: "0.0.0.0": not a router ID`},
		{IdentityConfig{RouterID: "224.0.0.1"}, `bgp.router_id: "224.0.0.1"`},
		{IdentityConfig{RouterID: "240.0.0.1"}, `bgp.router_id: "240.0.0.1"`},
		{IdentityConfig{RouterID: "127.0.0.1"}, `bgp.router_id: "127.0.0.1"`},
		{IdentityConfig{RouterID: "2001:db8::1"}, `bgp.router_id: "2001:db8::1"`},
		{IdentityConfig{RouterID: "7"}, `bgp.router_id: "7"`},
		{IdentityConfig{Node: "2001:db8::/48"}, `bgp.node: "2001:db8::/48": not the /64`},
		{IdentityConfig{Node: "2001:db8::1/64"}, `bgp.node: "2001:db8::1/64"`},
		{IdentityConfig{Node: "fe80::/64"}, `bgp.node: "fe80::/64"`},
		{IdentityConfig{Node: "2001:db8::"}, `bgp.node: "2001:db8::"`},
		{IdentityConfig{HostPattern: pattern}, `bgp.host_pattern: "(?P<rack>\d+)": nothing uses it`},
		{IdentityConfig{AS: "64512", ASTemplate: "42{rack}", HostPattern: pattern}, `bgp.as_template: "42{rack}": the AS is given`},
		{IdentityConfig{ASTemplate: "42{rack:0}", HostPattern: pattern}, `bgp.as_template: "42{rack:0}": not a template`},
		{IdentityConfig{ASTemplate: "AS{rack}", HostPattern: pattern}, `bgp.as_template: "AS{rack}": not a template`},
		{IdentityConfig{ASTemplate: "42{host}", HostPattern: pattern}, `bgp.as_template: "42{host}": host_pattern has no group host`},
		{IdentityConfig{ASTemplate: "42{rack}"}, `bgp.as_template: "42{rack}": host_pattern has no group rack`},
		{IdentityConfig{ASTemplate: "42{rack}", HostPattern: "("}, `bgp.host_pattern: "(": error parsing regexp`},
	} {
		defects := tt.config.Check("bgp")
		if len(defects) != 1 || !strings.HasPrefix(defects[0].String(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.config, defects, tt.want)
		}
	}
}

// TestDerived holds whatever is derived to what may be used.
func TestDerived(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b [16]byte
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "prefix"))
		node := netip.PrefixFrom(netip.AddrFrom16(b), 64)
		if as := asOf(node); !isPrivateAS(uint64(as)) || as < firstPrivate4 {
			t.Errorf("as %d", as)
		}
		if id := routerIDOf(node); !isRouterID(id) {
			t.Errorf("router id %v", id)
		}
	})
}
