package razor

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	var c Config
	c.Defaults()
	want := Config{Listen: []string{"0.0.0.0:53", "[::]:53"}, ExportClients: []string{"127.0.0.0/8", "::1/128"}, HashMethod: "edns", Hash: "even", Health: HealthConfig{2, 2, 15 * time.Second}, StateDir: "/var/lib/razor"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, want %+v", c, want)
	}
	given := Config{
		Listen: []string{"[::1]:53"}, Zones: []string{"z.test"}, Export: "lists", ExportClients: []string{"::/0"},
		HashMethod: "src", Hash: "legacy", Health: HealthConfig{3, 1, time.Minute}, GeoIP: "x", TraceTXT: true, StateDir: "y",
	}
	c = given
	c.Defaults()
	if !reflect.DeepEqual(c, given) {
		t.Errorf("%+v, want %+v", c, given)
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	database := mmdbFile(t, false, clients)
	for _, r := range []struct {
		name string
		edit func(*Config)
		want []string // "key: member: reason" of each defect; none where it is good
	}{
		{"defaults", func(*Config) {}, nil},
		{"everything", func(c *Config) {
			c.Listen = []string{"192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%lo]:5353", "0.0.0.0:53"}
			c.Zones = []string{"z.test", "Y.test.", "a.z.test", `x\.y.test`}
			c.HashMethod, c.Hash, c.GeoIP, c.TraceTXT, c.StateDir = "src", "legacy", database, true, dir
		}, nil},
		{"state_dir to be made", func(c *Config) { c.StateDir = filepath.Join(dir, "new") }, nil},

		{"bad host name to listen on", func(c *Config) { c.Listen = []string{"localhost:53"} }, []string{"dns.listen[0]: localhost:53: not an address and port"}},
		{"bad address without port", func(c *Config) { c.Listen = []string{"192.0.2.1"} }, []string{"dns.listen[0]: 192.0.2.1: not an address and port"}},
		{"bad port alone", func(c *Config) { c.Listen = []string{":53"} }, []string{"dns.listen[0]: :53: not an address and port"}},
		{"bad port 0", func(c *Config) { c.Listen = []string{"192.0.2.1:0"} }, []string{"dns.listen[0]: 192.0.2.1:0: not an address and port"}},
		{"bad port 65536", func(c *Config) { c.Listen = []string{"192.0.2.1:65536"} }, []string{"dns.listen[0]: 192.0.2.1:65536: not an address and port"}},
		{"bad IPv6 without brackets", func(c *Config) { c.Listen = []string{"2001:db8::1"} }, []string{"dns.listen[0]: 2001:db8::1: not an address and port"}},
		{"bad IPv6", func(c *Config) { c.Listen = []string{"[::1]:53", "[2001::dead::1]:53"} }, []string{"dns.listen[1]: [2001::dead::1]:53: not an address and port"}},
		{"bad empty address", func(c *Config) { c.Listen = []string{""} }, []string{"dns.listen[0]: : not an address and port"}},
		{"bad address twice", func(c *Config) { c.Listen = []string{"[2001:db8::1]:53", "192.0.2.1:53", "[2001:DB8:0::1]:53"} }, []string{"dns.listen[2]: [2001:DB8:0::1]:53: listed twice"}},

		{"bad zone, two dots", func(c *Config) { c.Zones = []string{"z.test", "a..test"} }, []string{"dns.zones[1]: a..test: empty label (a final dot, or two dots in a row)"}},
		{"bad zone, empty", func(c *Config) { c.Zones = []string{""} }, []string{"dns.zones[0]: : empty name"}},
		{"bad zone, the root", func(c *Config) { c.Zones = []string{"."} }, []string{"dns.zones[0]: .: empty name"}},
		{"bad zone, a space", func(c *Config) { c.Zones = []string{"z. test"} }, []string{"dns.zones[0]: z. test: space or control character in a name"}},
		{"bad zone, long label", func(c *Config) { c.Zones = []string{strings.Repeat("x", 64)} }, []string{"dns.zones[0]: " + strings.Repeat("x", 64) + ": label longer than 63 octets"}},
		{"bad zone twice", func(c *Config) { c.Zones = []string{"z.test", "Z.TEST."} }, []string{"dns.zones[1]: Z.TEST.: listed twice"}},

		{"export", func(c *Config) { c.Zones, c.Export = []string{"z.test", "lists"}, "Lists.internal." }, nil},
		{"export beside a zone of like octets", func(c *Config) { c.Zones, c.Export = []string{`x\001z\004test`}, "z.test" }, nil},
		{"export to others", func(c *Config) { c.ExportClients = []string{"0.0.0.0/0", "2001:db8::1/128"} }, nil},
		{"bad export, the root", func(c *Config) { c.Export = "." }, []string{"dns.export: .: empty name"}},
		{"bad export, a zone", func(c *Config) { c.Zones, c.Export = []string{"a.test", "z.test."}, "Z.test" }, []string{"dns.export: Z.test: overlaps dns.zones[1]"}},
		{"bad export, below a zone", func(c *Config) { c.Zones, c.Export = []string{"z.test"}, "lists.z.test" }, []string{"dns.export: lists.z.test: overlaps dns.zones[0]"}},
		{"bad export, above a zone", func(c *Config) { c.Zones, c.Export = []string{"a.z.test"}, "z.test" }, []string{"dns.export: z.test: overlaps dns.zones[0]"}},
		{"bad export_clients", func(c *Config) {
			c.ExportClients = []string{"::/0", "192.0.2.1", "192.0.2.1/24", "::ffff:192.0.2.0/120"}
		}, []string{
			"dns.export_clients[1]: 192.0.2.1: not a prefix", "dns.export_clients[2]: 192.0.2.1/24: not a prefix", "dns.export_clients[3]: ::ffff:192.0.2.0/120: not a prefix",
		}},

		{"bad hash_method", func(c *Config) { c.HashMethod = "ECS" }, []string{"dns.hash_method: ECS: unknown"}},
		{"bad hash", func(c *Config) { c.Hash = "Legacy" }, []string{"dns.hash: Legacy: unknown"}},
		{"bad geoip, no file", func(c *Config) { c.GeoIP = filepath.Join(dir, "no.mmdb") }, []string{"dns.geoip: " + filepath.Join(dir, "no.mmdb") + ": …"}},
		{"bad geoip, no database", func(c *Config) { c.GeoIP = file }, []string{"dns.geoip: " + file + ": …"}},
		{"bad geoip, a directory", func(c *Config) { c.GeoIP = dir }, []string{"dns.geoip: " + dir + ": …"}},
		{"bad state_dir", func(c *Config) { c.StateDir = file }, []string{"dns.state_dir: " + file + ": not a directory"}},

		{"health", func(c *Config) { c.Health = HealthConfig{1, 100, 10 * time.Second} }, nil},
		{"bad health", func(c *Config) { c.Health = HealthConfig{-1, 101, 9 * time.Second} }, []string{
			"dns.health.rise: -1: out of range", "dns.health.fall: 101: out of range", "dns.health.lost_after: 9s: out of range",
		}},

		{"several", func(c *Config) { c.Listen, c.Zones, c.HashMethod, c.Hash = []string{"x"}, []string{"."}, "y", "z" }, []string{
			"dns.listen[0]: x: not an address and port", "dns.zones[0]: .: empty name", "dns.hash_method: y: unknown", "dns.hash: z: unknown",
		}},
	} {
		var c Config
		r.edit(&c)
		c.Defaults()
		var got []string
		for _, d := range c.Check() {
			if d.Want == "" || d.Reason == "" {
				t.Errorf("%s: %v says too little", r.name, d)
			}
			if d.Key == "dns.geoip" { // the words are the system's
				d.Reason = "…"
			}
			got = append(got, d.Key+": "+d.Member+": "+d.Reason)
		}
		if !slices.Equal(got, r.want) {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func TestRedisZones(t *testing.T) {
	t.Parallel()
	for _, r := range []struct {
		zones  []string
		export string
		want   []string
	}{
		{nil, "", nil},
		{nil, "lists", nil}, // every CONFIG makes a zone
		{[]string{"z.test"}, "", []string{"z.test"}},
		{[]string{"z.test"}, "lists", []string{"z.test", "lists"}},
	} {
		c := Config{Zones: r.zones, Export: r.export}
		if got := c.RedisZones(); !slices.Equal(got, r.want) {
			t.Errorf("%+v: %q, want %q", r, got, r.want)
		}
	}
}
