package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// TestBadConfig has a row for every rule that a configuration can break, with
// all that is written for it.
func TestBadConfig(t *testing.T) {
	t.Parallel()
	const sections = "one of dns, redis, sync, gateway, agent, http, log"
	const yamlWant = `; want "key: value" lines indented by spaces, and quotes around values such as "[::]:53"`
	const addrWant = `: not an address and port; want "192.0.2.1:53" or "[2001:db8::1]:53"`
	const consulWant = `: not an address of Consul; want "http://127.0.0.1:8500", "https://consul.example.net:8501" or "unix:///run/consul/http.sock"`
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		// The file.
		{"bad syntax: bracket left open", "dns:\n  listen: [\"0.0.0.0:53\"\n", []string{`f:2: not YAML: sequence end token ']' not found` + yamlWant}},
		{"bad syntax: tab", "dns:\n\thash: even\n", []string{`f:2: not YAML: found character '\009' that cannot start any token` + yamlWant}},
		{"bad syntax: address without quotes", "dns:\n  listen: [[::]:53]\n", []string{`f:2: not YAML: ',' or ']' must be specified` + yamlWant}},
		{"bad syntax: nested too deeply", "dns:\n  zones: " + strings.Repeat("[", 500) + "\n", []string{`f:2: not YAML: nested too deeply` + yamlWant}},
		{"bad syntax: dashes nested too deeply", strings.Repeat("- ", 500) + "\n", []string{`f:1: not YAML: nested too deeply` + yamlWant}},
		{"bad document: second one", "log:\n  level: warn\n---\nlog:\n  level: info\n", []string{`f:4: a second document; want one document`}},
		{"bad document: list", "- dns\n", []string{`f:1: not a section; want settings below it: dns, redis, sync, gateway, agent, http, log`}},
		{"bad document: single value", "dns\n", []string{`f:1: "dns": not a section; want settings below it: dns, redis, sync, gateway, agent, http, log`}},

		// Keys.
		{"bad key: unknown section", "\nbgp:\n  asn: 1\n", []string{`f:2: bgp: unknown key; want ` + sections}},
		{"bad key: slip in a section", "DSN:\n  hash: even\n", []string{`f:1: DSN: unknown key; want dns`}},
		{"bad key: slip", "dns:\n  hash: even\n  lisen: []\n", []string{`f:3: dns.lisen: unknown key; want dns.listen`}},
		{"bad key: unknown", "redis:\n  proxies: x\n", []string{`f:2: redis.proxies: unknown key; want one of address, user, password, tls, stale_after, sentinel`}},
		{"bad key: number", "dns:\n  5: x\n", []string{`f:2: dns.5: unknown key; want one of listen, zones, export, export_clients, hash_method, hash, geoip, trace_txt, health, state_dir`}},
		{"bad key: unprintable", "dns:\n  \"a\\e[31mb\": x\n", []string{`f:2: dns.a\027[31mb: unknown key; want one of listen, zones, export, export_clients, hash_method, hash, geoip, trace_txt, health, state_dir`}},
		{"bad key: twice", "dns:\n  hash: even\n  trace_txt: true\n  hash: legacy\n", []string{`f:4: dns.hash: given twice, first on line 2; want it once`}},
		{"bad key: section twice", "log: {level: info}\ndns:\nlog: {level: warn}\n", []string{`f:3: log: given twice, first on line 1; want it once`}},
		{"bad key: merge", "dns: &d\n  hash: even\nlog:\n  <<: *d\n", []string{
			`f:1: dns: anchors, aliases, tags and directives are not used here; want the value itself`,
			`f:4: log.<<: unknown key; want one of level, format`,
		}},

		// Types.
		{"bad type: section is a value", "dns: 53\n", []string{`f:1: dns: "53": not a section; want settings below it: listen, zones, export, export_clients, hash_method, hash, geoip, trace_txt, health, state_dir`}},
		{"bad type: section is a list", "log:\n  - info\n", []string{`f:1: log: not a section; want settings below it: level, format`}},
		{"bad type: list is a value", "dns:\n  listen: 192.0.2.1:53\n", []string{`f:2: dns.listen: "192.0.2.1:53": not a list; want a list: ["192.0.2.1:53"]`}},
		{"bad type: list is a section", "dns:\n  listen:\n    udp: 53\n", []string{`f:2: dns.listen: not a list; want a list`}},
		{"bad type: value is a list", "dns:\n  hash: [even]\n", []string{`f:2: dns.hash: not a single value; want one text, in quotes if it has brackets or colons`}},
		{"bad type: value is a section", "http:\n  listen: {port: 8053}\n", []string{`f:2: http.listen: not a single value; want one text, in quotes if it has brackets or colons`}},
		{"bad type: item is a section", "dns:\n  zones:\n    - a.example\n    - name: b.example\n", []string{`f:4: dns.zones[1]: not a single value; want one text, in quotes if it has brackets or colons`}},
		{"bad type: item is empty", "dns:\n  zones:\n    - a.example\n    -\n", []string{`f:4: dns.zones[1]: empty; want a value, or no such item`}},
		{"bad type: switch", "dns:\n  trace_txt: yes\n", []string{`f:2: dns.trace_txt: "yes": not true or false; want true or false`}},
		{"bad type: alias", "dns:\n  hash: *h\n", []string{`f:2: dns.hash: anchors, aliases, tags and directives are not used here; want the value itself`}},
		{"bad type: tag", "dns:\n  hash: !!str even\n", []string{`f:2: dns.hash: anchors, aliases, tags and directives are not used here; want the value itself`}},

		// dns.
		{"bad dns.listen: empty", "dns:\n  listen: []\n", []string{`f:2: dns.listen: empty; want an address, or no such key for the default`}},
		{"bad dns.listen: address", "dns:\n  listen:\n    - 192.0.2.1:53\n    - localhost:53\n", []string{`f:4: dns.listen[1]: "localhost:53"` + addrWant}},
		{"bad dns.listen: no port", "dns:\n  listen: [192.0.2.1]\n", []string{`f:2: dns.listen[0]: "192.0.2.1"` + addrWant}},
		{"bad dns.listen: port 0", "dns:\n  listen: [\"[::1]:0\"]\n", []string{`f:2: dns.listen[0]: "[::1]:0"` + addrWant}},
		{"bad dns.listen: twice", "dns:\n  listen:\n    - \"[::1]:53\"\n    - \"[0::1]:53\"\n", []string{`f:4: dns.listen[1]: "[0::1]:53": listed twice; want each address once`}},
		{"bad dns.zones: twice", "dns:\n  zones:\n  - a.example\n\n  - A.example.\n", []string{`f:5: dns.zones[1]: "A.example.": listed twice; want each zone once`}},
		{"bad dns.zones: name", "dns:\n  zones: [a..example]\n", []string{`f:2: dns.zones[0]: "a..example": empty label (a final dot, or two dots in a row); want a zone such as "routes.example.org"`}},
		{"bad dns.export", "dns:\n  export: lists..internal\n", []string{`f:2: dns.export: "lists..internal": empty label (a final dot, or two dots in a row); want a zone such as "lists.internal"`}},
		{"bad dns.export: a zone", "dns:\n  zones: [a.example]\n  export: A.example.\n", []string{`f:3: dns.export: "A.example.": overlaps dns.zones[0]; want a zone of its own, such as "lists.internal"`}},
		{"bad dns.export_clients", "dns:\n  export_clients: [192.0.2.1]\n", []string{`f:2: dns.export_clients[0]: "192.0.2.1": not a prefix; want "198.51.100.0/24" or "2001:db8::/48"`}},
		{"bad dns.geoip", "dns:\n  geoip: /nonexistent.mmdb\n", []string{`f:2: dns.geoip: "/nonexistent.mmdb": stat /nonexistent.mmdb: no such file or directory; want a readable MaxMind Country or City database`}},
		{"bad dns.hash_method", "dns:\n  hash_method: ecs\n", []string{`f:2: dns.hash_method: "ecs": unknown; want "edns" or "src"`}},
		{"bad dns.hash", "dns: {hash: odd}\n", []string{`f:1: dns.hash: "odd": unknown; want "even" or "legacy"`}},
		{"bad dns.state_dir", "dns:\n  state_dir: /dev/null\n", []string{`f:2: dns.state_dir: "/dev/null": not a directory; want a directory that razor may write to`}},

		// redis.
		{"bad redis.address", "redis:\n  address: 127.0.0.1\n", []string{`f:2: redis.address: "127.0.0.1": not a host and port; want "127.0.0.1:6379", "[::1]:6379" or "unix:///run/redis/redis.sock"`}},
		{"bad redis.address: socket", "redis:\n  address: unix://redis.sock\n", []string{`f:2: redis.address: "unix://redis.sock": not an absolute path; want "unix:///run/redis/redis.sock"`}},
		{"bad redis.user", "redis:\n  user: razor\n", []string{`f:2: redis.user: "razor": has no password; want redis.password beside it`}},
		{"bad redis.stale_after", "redis:\n  stale_after: soon\n", []string{`f:2: redis.stale_after: "soon": not a duration; want one such as 30s or 5m`}},
		{"bad redis.stale_after: no unit", "redis:\n  stale_after: 30\n", []string{`f:2: redis.stale_after: "30": not a duration; want one such as 30s or 5m`}},
		{"bad redis.stale_after: none", "redis:\n  stale_after: 0s\n", []string{`f:2: redis.stale_after: "0s": not a duration; want one such as 30s or 5m`}},
		{"bad redis.tls: empty", "redis:\n  tls:\n", []string{`f:2: redis.tls: empty; want {} for the defaults, settings below it, or no such key`}},
		{"bad redis.tls: file", "redis:\n  tls:\n    ca: /nonexistent.pem\n", []string{`f:2: redis.tls: open /nonexistent.pem: no such file or directory; want readable PEM files: ca, and cert with its key`}},
		{"bad redis.sentinel: value", "redis:\n  sentinel: mymaster\n", []string{`f:2: redis.sentinel: "mymaster": not a section; want settings below it: name, addresses, user, password, tls`}},
		{"bad redis.sentinel: bare", "redis:\n  sentinel: {}\n", []string{
			`f:2: redis.sentinel.name: missing; want the name of the primary in Sentinel, such as mymaster`,
			`f:2: redis.sentinel.addresses: missing; want a list such as ["[2001:db8::1]:26379"]`,
		}},
		{"bad redis.sentinel.addresses", "redis:\n  sentinel:\n    name: x\n    user: y\n    addresses:\n    - \"[::1]:26379\"\n    - 192.0.2.1\n", []string{
			`f:4: redis.sentinel.user: "y": has no password; want redis.sentinel.password beside it`,
			`f:7: redis.sentinel.addresses[1]: "192.0.2.1": not a host and port; want "127.0.0.1:26379" or "[::1]:26379"`,
		}},

		// sync.
		{"bad sync.consul.address", "sync:\n  consul:\n    address: consul:8500\n", []string{`f:3: sync.consul.address: "consul:8500"` + consulWant}},
		{"bad sync.consul.address: path", "sync:\n  consul:\n    address: http://consul/v1\n", []string{`f:3: sync.consul.address: "http://consul/v1"` + consulWant}},
		{"bad sync.consul.address: socket", "sync:\n  consul:\n    address: unix://run/consul.sock\n", []string{`f:3: sync.consul.address: "unix://run/consul.sock": not an absolute path` + consulWant[strings.Index(consulWant, ";"):]}},
		{"bad sync.consul: token", "sync:\n  consul:\n    token: a\n    token_file: /b\n", []string{`f:4: sync.consul.token_file: "/b": beside a token; want one of the two`}},
		{"bad sync.consul: tls", "sync:\n  consul:\n    tls: {}\n", []string{`f:3: sync.consul.tls: given, and the address is not https` + consulWant[strings.Index(consulWant, ";"):]}},
		{"bad sync.lock", "sync:\n  lock: /razor\n", []string{`f:2: sync.lock: "/razor": begins or ends with a slash; want "razor/sync"`}},
		{"bad sync guards", "sync:\n  floor: 0%\n  churn: half\n", []string{
			`f:2: sync.floor: "0%": not a share; want a share such as "50%" or a number of endpoints such as 20`,
			`f:3: sync.churn: "half": not a number or share; want a share such as "50%" or a number of endpoints such as 20`,
		}},
		{"bad sync.lists", "sync:\n  lists:\n  - app: a..b\n    service: x\n  - service: y/z\n    tag: 'a\"b'\n    datacenters: ['']\n    floor: 200%\n  - {app: web, service: web}\n  - {app: WEB., churn: 0}\n", []string{
			`f:3: sync.lists[0].app: "a..b": empty label (a final dot, or two dots in a row); want the name of a list, such as "web.example.org"`,
			`f:5: sync.lists[1].app: missing; want the name of a list, such as "web.example.org"`,
			`f:5: sync.lists[1].service: "y/z": not the name of a service; want the name of a service in Consul, without slashes`,
			`f:6: sync.lists[1].tag: "a"b": has quotes; want a tag without quotes`,
			`f:7: sync.lists[1].datacenters[0]: empty; want the name of a datacenter in Consul`,
			`f:8: sync.lists[1].floor: "200%": not a share; want a share such as "50%" or a number of endpoints such as 20`,
			`f:10: sync.lists[3].app: "WEB.": listed twice; want each list once`,
			`f:10: sync.lists[3].service: missing; want the name of a service in Consul, without slashes`,
			`f:10: sync.lists[3].churn: "0": not a number or share; want a share such as "50%" or a number of endpoints such as 20`,
		}},

		// agent.
		{"bad agent", "agent:\n  interfaces: [a/b, eth0, eth0]\n  locator: 2001:db8:1::/48\n  sr_block: 2001:db8:5e::1/48\n  vips: [x, 192.0.2.0/24, ff02::1, 192.0.2.1, \"::ffff:192.0.2.1\"]\n  pins: bpf\n", []string{
			`f:2: agent.interfaces[0]: "a/b": not the name of an interface; want a name such as eth0`,
			`f:2: agent.interfaces[2]: "eth0": listed twice; want each interface once`,
			`f:3: agent.locator: "2001:db8:1::/48": not a locator; want auto, or an IPv6 /64`,
			`f:4: agent.sr_block: "2001:db8:5e::1/48": not a prefix of locators; want an IPv6 prefix such as 2001:db8:5e::/48`,
			`f:5: agent.vips[0]: "x": unable to parse IP; want an address such as 198.51.100.1 or 2001:db8::1`,
			`f:5: agent.vips[1]: "192.0.2.0/24": a prefix; want an address such as 198.51.100.1 or 2001:db8::1`,
			`f:5: agent.vips[2]: "ff02::1": not an address that clients reach; want a unicast address`,
			`f:5: agent.vips[4]: "::ffff:192.0.2.1": listed twice; want each VIP once`,
			`f:6: agent.pins: "bpf": not an absolute path; want a directory such as /sys/fs/bpf/razor`,
		}},
		{"bad agent: outside", "agent:\n  interfaces: [eth0]\n  locator: 2001:db8:1::/64\n  sr_block: 2001:db8:5e::/48\n  vips: [\"2001:db8:5e::1\"]\n", []string{
			`f:3: agent.locator: "2001:db8:1::/64": outside of agent.sr_block; want a /64 inside of it`,
			`f:5: agent.vips[0]: "2001:db8:5e::1": inside of agent.sr_block; want an address that is no SID`,
		}},
		{"bad agent.containers", "agent:\n  interfaces: [eth0]\n  sr_block: 2001:db8:5e::/48\n  vips: [192.0.2.1]\n  containers:\n  - {target: 1, netns: a, veth: v}\n  - {target: 1, netns: b, veth: v}\n  - {target: 1024, veth: a/b, vips: [x]}\n", []string{
			`f:7: agent.containers[1].target: "1": used twice; want each number once`,
			`f:7: agent.containers[1].veth: "v": used twice; want a veth for each container`,
			`f:8: agent.containers[2].target: "1024": out of range; want a number from 1 to 1023; 0 is the host`,
			`f:8: agent.containers[2].netns: missing; want the name of its network namespace, a process in it, or a path`,
			`f:8: agent.containers[2].veth: "a/b": not the name of an interface; want the host's end of its veth`,
			`f:8: agent.containers[2].vips[0]: "x": unable to parse IP; want an address such as 198.51.100.1 or 2001:db8::1`,
		}},
		{"bad agent: bare", "agent:\n  sr_block: 2001:db8:5e::/48\n", []string{
			`f:1: agent.interfaces: missing; want the interfaces where packets of gateways come in`,
			`f:1: agent.vips: missing; want the addresses whose flows end here`,
		}},
		{"bad agent: an interface alone", "agent:\n  interfaces: [eth0]\n  vips: [192.0.2.1]\n  bind: yes\n", []string{
			`f:1: agent.sr_block: not a prefix of locators; want an IPv6 prefix such as 2001:db8:5e::/48`,
			`f:4: agent.bind: "yes": not true or false; want true or false`,
		}},

		// http, log.
		{"bad http.listen", "http:\n  listen: :8053\n", []string{`f:2: http.listen: ":8053": not an address and port; want "[::1]:8053" or "127.0.0.1:8053"`}},
		{"bad http.listen: one of dns", "dns:\n  listen: [\"[::1]:8053\"]\n", []string{`f: http.listen: "[::1]:8053": also dns.listen[0]; want a port of its own`}},
		{"bad log.level", "log:\n  level: verbose\n", []string{`f:2: log.level: "verbose": unknown; want debug, info, warn or error`}},
		{"bad log.format", "log:\n  format: xml\n", []string{`f:2: log.format: "xml": unknown; want text or json`}},

		// All at once, in the order of the file.
		{"bad in many places", "redis:\n  address: x\n  addr: y\ndns:\n  hash: odd\n  trace_txt: 1\n", []string{
			`f:2: redis.address: "x": not a host and port; want "127.0.0.1:6379", "[::1]:6379" or "unix:///run/redis/redis.sock"`,
			`f:3: redis.addr: unknown key; want redis.address`,
			`f:5: dns.hash: "odd": unknown; want "even" or "legacy"`,
			`f:6: dns.trace_txt: "1": not true or false; want true or false`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := parseConfig("f", []byte(tt.yaml))
			if err == nil {
				t.Fatalf("accepted:\n%s", tt.yaml)
			}
			if got, want := err.Error(), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestGoodConfig(t *testing.T) {
	t.Parallel()
	var defaults config
	defaults.check()
	for _, tt := range []struct {
		name, yaml string
		want       func(*config)
	}{
		{"empty", "", func(*config) {}},
		{"comments alone", "# nothing\n", func(*config) {}},
		{"empty document", "---\n", func(*config) {}},
		{"empty sections", "dns:\nlog: ~\n", func(*config) {}},
		{"byte order mark", "\ufefflog:\n  level: warn\n", func(c *config) { c.Log.Level = "warn" }},
		{"carriage returns", "log:\r\n  level: warn\r\n  format: json\r\n", func(c *config) { c.Log = logConfig{"warn", "json"} }},
		{"document marks", "---\nlog: {level: warn}\n...\n", func(c *config) { c.Log.Level = "warn" }},
		{"list in brackets", "dns:\n  listen: ['192.0.2.1:53', \"[::1]:53\"]\n", func(c *config) { c.DNS.Listen = []string{"192.0.2.1:53", "[::1]:53"} }},
		{"list by dashes", "dns:\n  zones:\n  - a.example\n  - b.example.\n", func(c *config) { c.DNS.Zones = []string{"a.example", "b.example."} }},
		{"values that look like numbers", "redis:\n  user: 0x1F\n  password: 0123\n", func(c *config) { c.Redis.User, c.Redis.Password = "0x1F", "0123" }},
		{"values that look like switches", "redis:\n  password: true\n", func(c *config) { c.Redis.Password = "true" }},
		{"folded text", "redis:\n  password: >-\n    se\n    cret\n", func(c *config) { c.Redis.Password = "se cret" }},
		{"quoted key", "\"log\":\n  'level': warn\n", func(c *config) { c.Log.Level = "warn" }},
		{"tls with the defaults", "redis:\n  tls: {}\n", func(c *config) { c.Redis.TLS = &upstreams.TLSConfig{} }},
		{"duration", "redis:\n  stale_after: 1m30s\n", func(c *config) { c.Redis.StaleAfter = 90 * time.Second }},
		{"switch", "dns:\n  trace_txt: true\n", func(c *config) { c.DNS.TraceTXT = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseConfig("f", []byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			want := defaults
			tt.want(&want)
			got.file = source{}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got %+v\nwant %+v", *got, want)
			}
		})
	}
}

// TestLineOfDefect looks for the lines of settings that the file has, has a
// part of, or has not.
func TestLineOfDefect(t *testing.T) {
	t.Parallel()
	c, err := parseConfig("f", []byte("http:\n  listen: \"[::1]:9\"\ndns:\n  listen:\n    - \"[::1]:53\"\n    - \"[::1]:54\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ key, want string }{
		{"dns.listen[1]", "f:6: dns.listen[1]: bad"},
		{"dns.listen[7]", "f:4: dns.listen[7]: bad"},
		{"dns.state_dir", "f:3: dns.state_dir: bad"},
		{"http.listen", "f:2: http.listen: bad"},
		{"redis.tls.ca", "f: redis.tls.ca: bad"},
	} {
		if got := c.file.explain(upstreams.Defect{Key: tt.key, Reason: "bad"}).Error(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.key, got, tt.want)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	s := source{name: "f", lines: map[string]int{"a": 1, "b": 2}}
	if err := s.explain(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	other := errors.New("other")
	if err := s.explain(other); !errors.Is(err, other) {
		t.Errorf("an error that is no defect became %v", err)
	}
	both := s.explain(errors.Join(upstreams.Defect{Key: "a", Reason: "x"}, upstreams.Defect{Key: "b", Reason: "y"}))
	if got, want := both.Error(), "f:1: a: x\nf:2: b: y"; got != want {
		t.Errorf("joined: got %q, want %q", got, want)
	}
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxConfig+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, want string }{
		{filepath.Join(dir, "none.yaml"), ": no such file; want the configuration there, or --config with its place"},
		{dir, ": is a directory; want a readable configuration file"},
		{large, ": larger than 256 KiB; want a configuration file"},
	} {
		if _, err := loadConfig(tt.name); err == nil || err.Error() != tt.name+tt.want {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
}

// What is configured elsewhere is read as strictly as the file.
func TestReadYAML(t *testing.T) {
	t.Parallel()
	var got gateway.SiteConfig
	for _, text := range []string{
		"locators: 2001:db8:5e:e000::/56\ngateways: [\"2001:db8:5e:e001::/64\"]\ncapacity:\n  - {service: web, most: 5000}\n",
		`{"locators": "2001:db8:5e:e000::/56", "gateways": ["2001:db8:5e:e001::/64"], "capacity": [{"service": "web", "most": 5e3}]}`,
	} {
		got = gateway.SiteConfig{}
		want := gateway.SiteConfig{
			Locators: "2001:db8:5e:e000::/56", Gateways: []string{"2001:db8:5e:e001::/64"},
			Capacity: []gateway.SiteCapacityConfig{{Service: "web", Most: new(5000.0)}},
		}
		if wrong := readYAML([]byte(text), &got); len(wrong) > 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, wrong)
		}
	}
	for text, want := range map[string]string{
		"locator: x\ngateways: x":        `locator: unknown key; want locators` + "\n" + `gateways: "x": not a list; want a list: ["x"]`,
		"distance: near":                 `distance: "near": of the wrong type; want a number`,
		"{":                              `: not YAML: could not find flow mapping end token '}'; want "key: value" lines indented by spaces, and quotes around values such as "[::]:53"`,
		"east":                           `: "east": not a section; want settings below it: name, locators, gateways, distance, capacity`,
		strings.Repeat("#", maxConfig+1): ": larger than 256 KiB; want what the configuration would have",
	} {
		var said []string
		for _, d := range readYAML([]byte(text), &got) {
			said = append(said, d.String())
		}
		if strings.Join(said, "\n") != want {
			t.Errorf("%.20s: said %s\nwant %s", text, strings.Join(said, "\n"), want)
		}
	}
}

// TestReference holds deploy/razor.yaml to the structs: it is valid, says the
// defaults, and has every key, each under a comment.
func TestReference(t *testing.T) {
	t.Parallel()
	const file = "deploy/razor.yaml"
	got, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	var want config
	want.check()
	lines := got.file.lines
	got.file = source{}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("not the defaults: %+v", *got)
	}

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^( *)#((?:- )?\w+:)`).ReplaceAll(data, []byte("$1$2"))
	r, c := reader{}, config{}
	r.read(all, &c)
	for _, p := range r.problems {
		t.Errorf("with every setting on: line %d: %v", p.line, p)
	}
	text := strings.Split(string(all), "\n")
	for _, key := range keysOf("", reflect.TypeFor[config]()) {
		line, ok := r.lines[key]
		if !ok {
			t.Errorf("%s is not in the reference", key)
			continue
		}
		if !explained(text, line-1) {
			t.Errorf("line %d: %s has no comment above it", line, key)
		}
	}
	for _, key := range []string{"dns.listen[0]", "redis.address", "log.format"} {
		if lines[key] == 0 {
			t.Errorf("%s has no line", key)
		}
	}
}

// TestDataplaneExamples: the configurations of deploy/dataplane are good, each for the
// roles that its host runs.
func TestDataplaneExamples(t *testing.T) {
	t.Parallel()
	gw, err := loadConfig("deploy/dataplane/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	backend, err := loadConfig("deploy/dataplane/backend.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !gw.Gateway.Used() || gw.Agent.Used() || !backend.Gateway.Used() || !backend.Agent.Used() {
		t.Error("a role is missing, or one too many is there")
	}
	if a, b := gw.Gateway.Dataplane.SRBlock, backend.Agent.SRBlock; a != b {
		t.Errorf("blocks %s and %s", a, b)
	}
	for i, vip := range backend.Agent.VIPs {
		if p := gw.Gateway.Announce[0].Prefixes[i]; p != vip {
			t.Errorf("VIP %s of the backend, and %s is announced", vip, p)
		}
	}
}

// explained tells whether a comment stands above the setting on line i, at once
// or above the settings before it.
func explained(text []string, i int) bool {
	for i--; i >= 0 && strings.TrimSpace(text[i]) != ""; i-- {
		if strings.HasPrefix(strings.TrimSpace(text[i]), "#") {
			return true
		}
	}
	return false
}

// keysOf are the paths of all settings in a struct.
func keysOf(path string, t reflect.Type) []string {
	var out []string
	for _, name := range fieldsOf(t).names {
		field := t.Field(fieldsOf(t).index[name])
		key, ft := join(path, name), field.Type
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		out = append(out, key)
		if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
			key, ft = key+"[0]", ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			out = append(out, keysOf(key, ft)...)
		}
	}
	return out
}

// TestKindsOfSettings keeps the sections to the types that the reader fills.
func TestKindsOfSettings(t *testing.T) {
	t.Parallel()
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		if typ == reflect.TypeFor[time.Duration]() {
			return
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice:
			walk(path, typ.Elem())
		case reflect.Struct:
			for name, i := range fieldsOf(typ).index {
				walk(join(path, name), typ.Field(i).Type)
			}
			for field := range typ.Fields() {
				if field.IsExported() && field.Tag.Get("yaml") == "" {
					t.Errorf("%s: field %s has no yaml name", path, field.Name)
				}
			}
		case reflect.String, reflect.Bool, reflect.Int, reflect.Float64:
		default:
			t.Errorf("%s: a %v, which the reader does not know", path, typ)
		}
	}
	walk("", reflect.TypeFor[config]())
}

func TestFillNumbers(t *testing.T) {
	t.Parallel()
	type section struct {
		Count int     `yaml:"count"`
		Share float64 `yaml:"share"`
	}
	var s section
	r := reader{}
	r.read([]byte("count: 12\nshare: 0.5\n"), &s)
	if len(r.problems) != 0 || s != (section{12, 0.5}) {
		t.Errorf("got %+v, problems %v", s, r.problems)
	}
	r = reader{}
	r.read([]byte("count: many\n"), &s)
	if len(r.problems) != 1 || r.problems[0].String() != `count: "many": of the wrong type; want a number` {
		t.Errorf("problems %v", r.problems)
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	f := fieldsOf(reflect.TypeFor[razor.Config]())
	for _, tt := range []struct{ name, want string }{
		{"listn", "dns.listen"},
		{"Listen", "dns.listen"},
		{"hash-method", "dns.hash_method"},
		{"hahs", "dns.hash"},
		{"trace", "dns.trace_txt"},
		{"has", "dns.hash_method"},
		{"ha", "one of " + strings.Join(f.names, ", ")},
		{"x", "one of " + strings.Join(f.names, ", ")},
		{strings.Repeat("listen", 1000), "one of " + strings.Join(f.names, ", ")},
	} {
		if got := f.suggest("dns", tt.name); got != tt.want {
			t.Errorf("%.20s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// FuzzConfig: whatever the file has, it is taken or refused line by line.
func FuzzConfig(f *testing.F) {
	reference, err := os.ReadFile("deploy/razor.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(reference))
	for _, seed := range []string{
		"", "---\n---\n", "dns: {listen: [\"[::]:53\"], zones: [a, b]}\n", "dns:\n  listen:\n  - a\n  -\n",
		"? dns\n: x\n", "dns: &a\n  hash: *a\n<<: *a\n", "redis: {tls: {ca: !!binary x}}\n", "log: |\n  a\n", "\ufeff%YAML 1.2\n---\nlog:\n",
		"dns:\n  \"\\x00\": 1\n", "[[[[", "- - - -", "a: >-\n\n\n", "'", "\"\\", "dns:\r\n\thash", "*a : 1", "{a, b}: c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, yaml string) {
		if len(yaml) > 4<<10 {
			return // the parser's time grows with the square
		}
		c, err := parseConfig("f", []byte(yaml))
		if err == nil {
			if again := c.check(); len(again) != 0 {
				t.Errorf("taken, but %v", again)
			}
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !problemLine.MatchString(line) {
				t.Errorf("line %q", line)
			}
		}
	})
}

// problemLine is what a terminal can show, and begins with the file.
var problemLine = regexp.MustCompile(`^f(:[1-9]\d*)?: [ -~…]+$`)

// TestAnswersDNS: a file of another role alone is not of a nameserver.
func TestAnswersDNS(t *testing.T) {
	t.Parallel()
	const gateway = "gateway:\n  announce:\n    - {set: vips, prefixes: [192.0.2.53]}\n  bgp: {as: 64512, router_id: 192.0.2.1, peers: [{name: tor, address: 127.0.0.2, as: 64512}]}\n"
	for text, want := range map[string]bool{
		"redis: {address: 127.0.0.1:6379}\n":          true,
		"dns: {listen: [\"[::1]:5300\"]}\n" + gateway: true,
		gateway: false,
	} {
		c, err := parseConfig("razor.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.answersDNS(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
