package agent

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams/consul"
)

// registered is a configuration with an instance for the host and one for a container.
func registered(change ...func(*Config)) *Config {
	return section(append([]func(*Config){func(c *Config) {
		c.Containers = []ContainerConfig{{Target: 1, Netns: "a", Veth: "v", VIPs: []string{"198.51.100.9"}}}
		c.Consul = &ConsulConfig{Site: "east", Services: []ConsulServiceConfig{
			{Service: "web"}, {Service: "web", Container: 1}, {Service: "dns", VIPs: []string{"198.51.100.1:53/udp"}},
		}}
	}}, change...)...)
}

func TestConsulConfig(t *testing.T) {
	t.Parallel()
	if d := registered().Check(); len(d) > 0 {
		t.Errorf("good ones: %v", d)
	}
	minus := -1
	for want, change := range map[string]func(*ConsulConfig){
		`agent.consul.address: "ftp://x": not an address of Consul`:                                   func(c *ConsulConfig) { c.Address = "ftp://x" },
		`agent.consul.token_file: "f": beside a token`:                                                func(c *ConsulConfig) { c.Token, c.TokenFile = "t", "f" },
		`agent.consul.ttl: "10ms": out of range; want 1s to 1h0m0s`:                                   func(c *ConsulConfig) { c.TTL = 10 * time.Millisecond },
		`agent.consul.site: "a\000": not a name`:                                                      func(c *ConsulConfig) { c.Site = "a\x00" },
		`agent.consul.services: 0 of them`:                                                            func(c *ConsulConfig) { c.Services = nil },
		`agent.consul.services[0].service: "a/b": not the name of a service`:                          func(c *ConsulConfig) { c.Services[0].Service = "a/b" },
		`agent.consul.services[2].service: "web": listed twice for the same target`:                   func(c *ConsulConfig) { c.Services[2].Service = "web" },
		`agent.consul.services[1].container: "2": unknown`:                                            func(c *ConsulConfig) { c.Services[1].Container = 2 },
		`agent.consul.services[0].weight: "-1": out of range`:                                         func(c *ConsulConfig) { c.Services[0].Weight = &minus },
		`agent.consul.services[0].tags[0]: "a"b": has quotes`:                                         func(c *ConsulConfig) { c.Services[0].Tags = []string{`a"b`} },
		`agent.consul.services[1].vips[0]: "198.51.100.1": not a VIP of that target`:                  func(c *ConsulConfig) { c.Services[1].VIPs = []string{"198.51.100.1"} },
		`agent.consul.services[1].vips[0]: "198.51.100.9:1": a port without a protocol; want such as`: func(c *ConsulConfig) { c.Services[1].VIPs = []string{"198.51.100.9:1"} },
	} {
		c := registered(func(c *Config) { change(c.Consul) })
		if d := c.Check(); len(d) != 1 || !strings.HasPrefix(d[0].Error(), want) {
			t.Errorf("got  %v\nwant %s", d, want)
		}
	}
}

// What is registered follows from what gateways are told.
func TestRegistrations(t *testing.T) {
	t.Parallel()
	a := newAgent(*registered(), slog.New(slog.DiscardHandler), nil)
	a.domain.Locator = netip.MustParsePrefix("2001:db8:5e:7::/64")
	a.monitors[segment.Host] = load.New(load.Config{Measure: load.Average, Capacity: 8, Interval: time.Second}, segment.Normal, nil, nil)
	all := a.registrations()
	host, container := all[0], all[1]
	if host.Address.String() != "2001:db8:5e:7:5201::" || host.ID != "razor-agent-20010db8005e0007-0-web" || host.Health != consul.Passing || host.Absent {
		t.Errorf("the host: %+v", host)
	}
	for key, want := range map[string]string{"locator": "2001:db8:5e:7::/64", "target": "0", "sid": "2001:db8:5e:7:5201::", "weight": "1", "site": "east", "capacity": "8"} {
		if got := host.Meta[key]; got != want {
			t.Errorf("meta %s of the host: %q, want %q", key, got, want)
		}
	}
	if _, has := container.Meta["capacity"]; has || container.Address.String() != "2001:db8:5e:7:5201:1::" || container.Meta["target"] != "1" {
		t.Errorf("the container: %+v", container)
	}
	a.admin.byHand = "a test"
	for _, r := range a.registrations() {
		if !r.Absent || r.Why != "drained: a test" {
			t.Errorf("drained: %+v", r)
		}
	}
}

func TestHealthInConsul(t *testing.T) {
	t.Parallel()
	service := func(health steering.Health, at string) wire.ServiceHealth {
		s, err := parseService(at)
		if err != nil {
			t.Fatal(err)
		}
		s.Health = health
		return s
	}
	web, dns := "198.51.100.1:443/tcp", "198.51.100.1:53/udp"
	for _, tt := range []struct {
		name   string
		vips   []string
		report wire.Report
		health consul.Health
		why    string
	}{
		{"nothing is probed", nil, wire.Report{}, consul.Passing, "up"},
		{"one is down", nil, wire.Report{Services: []wire.ServiceHealth{service(steering.HealthUp, web), service(steering.HealthDown, dns)}}, consul.Critical, whyDown},
		{"another is down", []string{web}, wire.Report{Services: []wire.ServiceHealth{service(steering.HealthUp, web), service(steering.HealthDown, dns)}}, consul.Passing, "up"},
		{"all of an address", []string{"198.51.100.1"}, wire.Report{Services: []wire.ServiceHealth{service(steering.HealthDown, dns)}}, consul.Critical, whyDown},
		{"a probe of all", []string{web}, wire.Report{Services: []wire.ServiceHealth{{VIP: netip.IPv6Unspecified(), Health: steering.HealthDown}}}, consul.Critical, whyDown},
		{"unknown", nil, wire.Report{Services: []wire.ServiceHealth{service(steering.HealthUnknown, web)}}, consul.Warning, whyUnknown},
		{"loaded", nil, wire.Report{Level: steering.LevelCritical}, consul.Warning, "load: critical"},
		{"unknown and loaded", nil, wire.Report{Level: steering.LevelWarning, Services: []wire.ServiceHealth{service(steering.HealthUnknown, web)}}, consul.Warning, whyUnknown + "; load: warning"},
		{"down and loaded", nil, wire.Report{Level: steering.LevelWarning, Services: []wire.ServiceHealth{service(steering.HealthDown, web)}}, consul.Critical, whyDown},
	} {
		s := ConsulServiceConfig{VIPs: tt.vips}
		if health, why := s.health(&tt.report); health != tt.health || why != tt.why {
			t.Errorf("%s: %s, %s", tt.name, health, why)
		}
	}
}
