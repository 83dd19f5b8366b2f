package gateway

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bgp"
)

// balanced is a configuration with one service on loopback.
func balanced(t *testing.T) Config {
	t.Helper()
	key := filepath.Join(t.TempDir(), "flow.key")
	if err := os.WriteFile(key, []byte("000102030405060708090a0b0c0d0e0f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Config{
		Name: "edge1", StateDir: "/var/lib/x", BGP: bgp.Config{Unnumbered: []string{"eth0"}},
		Dataplane: DataplaneConfig{Interfaces: []string{"lo"}, SRBlock: "2001:db8:5e::/48", FlowKeyFile: key, Locator: "2001:db8:5e:1::/64"},
		Services: []ServiceConfig{{
			Name: "web", VIPs: []string{"198.51.100.1:443/tcp", "[2001:db8:ffff::1]:443/tcp"},
			Backends: []BackendConfig{{Locator: "2001:db8:5e:b1::/64"}, {Name: "b2", Locator: "2001:db8:5e:b2::/64", Target: 3, Weight: new(5), State: "draining"}},
		}},
	}
	c.Defaults()
	return c
}

func TestDataplaneDefects(t *testing.T) {
	t.Parallel()
	if c := balanced(t); len(c.Check()) > 0 || len(c.CheckFiles()) > 0 {
		t.Fatal(c.Check(), c.CheckFiles())
	}
	for want, change := range map[string]func(c *Config){
		"gateway.dataplane.interfaces":    func(c *Config) { c.Dataplane.Interfaces = nil },
		"gateway.dataplane.interfaces[0]": func(c *Config) { c.Dataplane.Interfaces = []string{"a/b"} },
		"gateway.dataplane.sr_block":      func(c *Config) { c.Dataplane.SRBlock = "2001:db8:5e::/65" },
		"gateway.dataplane.locator":       func(c *Config) { c.Dataplane.Locator = "2001:db8:5f::/64" },
		"gateway.dataplane.flow_key_file": func(c *Config) { c.Dataplane.FlowKeyFile = "" },
		"gateway.dataplane.max_services":  func(c *Config) { c.Dataplane.MaxServices = 257 },
		"gateway.dataplane.pins":          func(c *Config) { c.Dataplane.Pins = "pins" },
		"gateway.dataplane.mates[1]":      func(c *Config) { c.Dataplane.Mates = []string{"[::1]:5206", "[::1]"} },
		"gateway.dataplane.consul_lock":   func(c *Config) { c.Dataplane.ConsulLock, c.Dataplane.TablesListen = "/razor", "[::1]:5206" },
		"gateway.dataplane.tables_listen": func(c *Config) { c.Dataplane.ConsulLock, c.Dataplane.TablesListen = "razor", "[::]:5206" },
		"gateway.dataplane.mates[0]":      func(c *Config) { c.Dataplane.Mates = []string{""} },
		"gateway.services[0].min_healthy": func(c *Config) { c.Services[0].MinHealthy = new(1.5) },
		"gateway.services[0].name":        func(c *Config) { c.Services[0].Name = "" },
		"gateway.services[0].vips[1]":     func(c *Config) { c.Services[0].VIPs[1] = "2001:db8::1:443" + "/tcp" },
		"gateway.services[1].name":        func(c *Config) { c.Services = append(c.Services, ServiceConfig{Name: "web"}) },
		"gateway.services[1].vips[0]": func(c *Config) {
			c.Services = append(c.Services, ServiceConfig{Name: "two", VIPs: c.Services[0].VIPs[:1]})
		},
		"gateway.services[2].vips[0]": func(c *Config) { // two that take fragments
			c.Services = append(
				c.Services, ServiceConfig{Name: "one", Fragments: true, VIPs: []string{"198.51.100.1:53/udp"}},
				ServiceConfig{Name: "two", Fragments: true, VIPs: []string{"198.51.100.1:123/udp"}},
			)
		},
		"gateway.services[2].vips[1]": func(c *Config) { // one that does beside one of any port
			c.Services = append(
				c.Services, ServiceConfig{Name: "one", Fragments: true, VIPs: []string{"198.51.100.1:53/udp"}},
				ServiceConfig{Name: "two", VIPs: []string{"198.51.100.1:443/udp", "198.51.100.1:*/udp"}},
			)
		},
		"gateway.services[1].vips[1]": func(c *Config) { // one in another
			c.Services = append(c.Services, ServiceConfig{Name: "two", VIPs: []string{"192.0.2.0/24:443/tcp", "192.0.2.0/25:80/tcp"}})
		},
		"gateway.services[0].backends[0].locator":   func(c *Config) { c.Services[0].Backends[0].Locator = "2001:db8:5e:b1::1" },
		"gateway.services[0].backends[1].target":    func(c *Config) { c.Services[0].Backends[1].Target = 65536 },
		"gateway.services[0].backends[1].weight":    func(c *Config) { c.Services[0].Backends[1].Weight = new(-1) },
		"gateway.services[0].backends[1].state":     func(c *Config) { c.Services[0].Backends[1].State = "drained" },
		"gateway.services[0].backends[1].locator":   func(c *Config) { b := c.Services[0].Backends; b[1].Locator, b[1].Target = b[0].Locator, 0 },
		"gateway.services[0].quic.rotation":         func(c *Config) { c.Services[0].QUIC = &QUICConfig{Rotation: 7, ServerIDLength: 4} },
		"gateway.services[0].quic.server_id_length": func(c *Config) { c.Services[0].QUIC = &QUICConfig{ServerIDLength: 16} },
		"gateway.services[0].backends[0].server_id": func(c *Config) { c.Services[0].Backends[0].ServerID = "01020304" },
		"gateway.services[0].backends[1].server_id": func(c *Config) { // what the first one has of its SID
			c.Services[0].QUIC, c.Services[0].Backends[1].ServerID = &QUICConfig{ServerIDLength: 4}, "00b10000"
		},
	} {
		c := balanced(t)
		change(&c)
		var keys []string
		for _, d := range c.Check() {
			keys = append(keys, d.Key)
		}
		if !slices.Equal(keys, []string{want}) {
			t.Errorf("%s: defects of %v", want, keys)
		}
	}
}

// Server IDs are hexadecimal of one length, and those of two backends differ.
func TestServerIDs(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"0102":      "not a server ID",
		"0102030x":  "not a server ID",
		"010203040": "not a server ID",
		"00B10000":  "also that of backend 2001:db8:5e:b1::/64",
		"01020304":  "",
		"":          "",
	} {
		c := balanced(t)
		c.Services[0].QUIC, c.Services[0].Backends[1].ServerID = &QUICConfig{}, id
		c.Defaults()
		got := ""
		if d := c.Check(); len(d) > 0 {
			got = d[0].Reason
		}
		if got != want {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
}

func TestDataplaneFiles(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(c *Config){
		"not a key":                      func(c *Config) { _ = os.WriteFile(c.Dataplane.FlowKeyFile, []byte("0001"), 0o600) },
		"others may read it (mode 0644)": func(c *Config) { _ = os.Chmod(c.Dataplane.FlowKeyFile, 0o644) },
		"no such file or directory":      func(c *Config) { _ = os.Remove(c.Dataplane.FlowKeyFile) },
		"is a directory": func(c *Config) { // and no token
			c.Services[0].Backends, c.Services[0].Consul = nil, &ConsulServiceConfig{Service: "web"}
			c.Consul.Address, c.Consul.TokenFile = "http://[::1]:8500", t.TempDir()
		},
		"no such interface": func(c *Config) { c.Dataplane.Interfaces = []string{"nowhere0"} },
	} {
		c := balanced(t)
		change(&c)
		if d := c.CheckFiles(); len(d) != 1 || d[0].Reason != want {
			t.Errorf("%v, want %s", d, want)
		}
	}
}

// What a file says is what the balancer is to do; services hash by keys of their own.
func TestBalance(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Services = append(c.Services, ServiceConfig{Name: "mail"})
	key, err := c.Dataplane.flowKey()
	if err != nil {
		t.Fatal(err)
	}
	p := c.balance(key)
	want := []balancer.PlannedBackend{
		{Name: "2001:db8:5e:b1::/64", SID: netip.MustParseAddr("2001:db8:5e:b1:5201::"), Weight: 1, State: balancer.Active},
		{Name: "b2", SID: netip.MustParseAddr("2001:db8:5e:b2:5201:3::"), Weight: 5, State: balancer.Draining},
	}
	if len(p.Services) != 2 || !slices.Equal(p.Services[0].Backends, want) || len(p.Services[0].VIPs) != 2 {
		t.Errorf("%+v", p)
	}
	if p.Services[0].Key == p.Services[1].Key || p.Services[0].Key != c.balance(key).Services[0].Key {
		t.Error("keys of services: ", p.Services[0].Key, p.Services[1].Key)
	}
	c.Services[0].QUIC, c.Services[0].Backends[1].ServerID = &QUICConfig{Rotation: 3, ServerIDLength: 2}, "a0b1"
	if s := c.balance(key).Services[0]; s.QUIC != (balancer.QUIC{Rotation: 3, ServerID: 2}) || s.Backends[1].ServerID != "\xa0\xb1" {
		t.Errorf("%+v", s)
	}
	other := slices.Clone(key)
	other[0]++
	if c.balance(other).Services[0].Key == p.Services[0].Key {
		t.Error("another secret, the same key")
	}
}
