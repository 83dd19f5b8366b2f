package probe

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// A role shows a Defect as its own.
var _ = upstreams.Defect(Defect{})

func TestDefaults(t *testing.T) {
	t.Parallel()
	slow := Config{Kind: kindDNS, Interval: 10 * time.Second}
	slow.Defaults()
	fast := Config{Kind: kindHTTP, Interval: 100 * time.Millisecond}
	fast.Defaults()
	if slow.Timeout != time.Second || slow.Lease != 33*time.Second || slow.Type != "SOA" || slow.Path != "" {
		t.Errorf("slow: %+v", slow)
	}
	if fast.Timeout != 100*time.Millisecond || fast.Lease != 600*time.Millisecond || fast.Status != 200 || fast.Type != "" {
		t.Errorf("fast: %+v", fast)
	}
	if slow.Rise != 2 || slow.Fall != 3 || slow.damping().Window != 0 {
		t.Errorf("rows: %+v", slow.damping())
	}
}

// TestDefaultsOfWindow: one of its settings is enough, the others have the defaults of
// Varnish, and there are no rows beside.
func TestDefaultsOfWindow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    Config
		want [3]int
	}{
		{Config{Window: new(5)}, [3]int{5, 3, 2}},
		{Config{Threshold: new(6)}, [3]int{8, 6, 5}},
		{Config{Initial: new(0)}, [3]int{8, 3, 0}},
		{Config{Window: new(10), Threshold: new(1), Initial: new(10)}, [3]int{10, 1, 10}},
	} {
		tt.c.Defaults()
		d := tt.c.damping()
		if got := [3]int{d.Window, d.Threshold, d.Initial}; got != tt.want || d.Rise != 0 || d.Fall != 0 {
			t.Errorf("%+v, want %v", d, tt.want)
		}
	}
}

// TestCheck: each rule has its bad value, named by its key alone.
func TestCheck(t *testing.T) {
	t.Parallel()
	web := Config{Name: "web", Kind: "http", Target: "[::1]:80"}
	secure := Config{Name: "web", Kind: "https", Target: "127.0.0.1:443"}
	open := Config{Name: "open", Kind: "tcp", Target: "[fe80::1%eth0]:22"}
	ns := Config{Name: "ns", Kind: "dns", Target: "[::1]:53", Query: "routes.example.org"}
	script := Config{Name: "script-1.a_b", Kind: "exec", Command: []string{"/bin/true"}}
	type edit = func(*Config)
	for _, tt := range []struct {
		from Config
		edit edit
		keys string // of the defects
	}{
		{web, func(*Config) {}, ""},
		{secure, func(*Config) {}, ""},
		{open, func(*Config) {}, ""},
		{ns, func(*Config) {}, ""},
		{script, func(*Config) {}, ""},
		{ns, func(c *Config) { c.Query = "." }, ""},
		{web, func(c *Config) { c.Path, c.Host, c.Body = "/a?b=c&d", "www.example.org:8080", "o k\r\n" }, ""},
		{secure, func(c *Config) { c.TLSName, c.Insecure = "www.example.org", true }, ""},
		{web, func(c *Config) { c.Name = "" }, "name"},
		{web, func(c *Config) { c.Name = "a b" }, "name"},
		{web, func(c *Config) { c.Name = "ü" }, "name"},
		{web, func(c *Config) { c.Name = strings.Repeat("a", 65) }, "name"},
		{web, func(c *Config) { c.Kind = "" }, "kind"},
		{web, func(c *Config) { c.Kind = "HTTP" }, "kind"},
		{web, func(c *Config) { c.Target = "" }, "target"},
		{web, func(c *Config) { c.Target = "localhost:80" }, "target"},
		{web, func(c *Config) { c.Target = "::1:80" }, "target"},
		{web, func(c *Config) { c.Target = "[::1]" }, "target"},
		{web, func(c *Config) { c.Target = "[::1]:0" }, "target"},
		{web, func(c *Config) { c.Target = "[::]:80" }, "target"},
		{web, func(c *Config) { c.Target = "[ff02::1]:80" }, "target"},
		{web, func(c *Config) { c.Target = "[::ffff:127.0.0.1]:80" }, "target"},
		{web, func(c *Config) { c.Path = "health" }, "path"},
		{web, func(c *Config) { c.Path = "http://example.org/" }, "path"},
		{web, func(c *Config) { c.Path = "/ HTTP/1.1\r\nX: y" }, "path"},
		{web, func(c *Config) { c.Path = "/%zz" }, "path"},
		{web, func(c *Config) { c.Host = "a\r\nb" }, "host"},
		{web, func(c *Config) { c.Host = "http://a" }, "host"},
		{web, func(c *Config) { c.Status = 101 }, "status"},
		{web, func(c *Config) { c.Status = 600 }, "status"},
		{web, func(c *Config) { c.Body = strings.Repeat("a", 1025) }, "body"},
		{web, func(c *Config) { c.TLSName = "a" }, "tls_name"},
		{web, func(c *Config) { c.Insecure = true }, "insecure"},
		{secure, func(c *Config) { c.TLSName = "[::1]" }, "tls_name"},
		{open, func(c *Config) { c.Path, c.Host, c.Status, c.Body = "/", "a", 200, "b" }, "path host status body"},
		{open, func(c *Config) { c.Query, c.Type, c.Transport, c.Expect = "a", "A", "udp", "reply" }, "query type transport expect"},
		{open, func(c *Config) { c.Command = []string{"/bin/true"} }, "command"},
		{ns, func(c *Config) { c.Query = "" }, "query"},
		{ns, func(c *Config) { c.Query = strings.Repeat("a", 64) + ".example" }, "query"},
		{ns, func(c *Config) { c.Type = "ANY" }, "type"},
		{ns, func(c *Config) { c.Transport = "tls" }, "transport"},
		{ns, func(c *Config) { c.Expect = "NOERROR" }, "expect"},
		{script, func(c *Config) { c.Command = nil }, "command"},
		{script, func(c *Config) { c.Command = []string{"true"} }, "command[0]"},
		{script, func(c *Config) { c.Command = []string{"/bin/true", "a\x00"} }, "command[1]"},
		{script, func(c *Config) { c.Target = "[::1]:80" }, "target"},
		{web, func(c *Config) { c.Interval = time.Millisecond }, "interval"},
		{web, func(c *Config) { c.Interval = 2 * time.Hour }, "interval"},
		{web, func(c *Config) { c.Timeout = -1 }, "timeout"},
		{web, func(c *Config) { c.HoldDown = 2 * time.Hour }, "hold_down"},
		{web, func(c *Config) { c.Lease = 3 * time.Second }, "lease"},
		{web, func(c *Config) { c.Rise = -1 }, "rise"},
		{web, func(c *Config) { c.Fall = 101 }, "fall"},
		{web, func(c *Config) { c.Window, c.Threshold, c.Initial = new(64), new(64), new(0) }, ""},
		{web, func(c *Config) { c.Initial = new(8) }, ""},
		{web, func(c *Config) { c.Window = new(0) }, "window"},
		{web, func(c *Config) { c.Window = new(65) }, "window"},
		{web, func(c *Config) { c.Window = new(2) }, "threshold"},
		{web, func(c *Config) { c.Threshold = new(0) }, "threshold"},
		{web, func(c *Config) { c.Threshold = new(9) }, "threshold"},
		{web, func(c *Config) { c.Initial = new(-1) }, "initial"},
		{web, func(c *Config) { c.Initial = new(9) }, "initial"},
		{web, func(c *Config) { c.Window, c.Rise = new(8), 2 }, "rise"},
		{web, func(c *Config) { c.Initial, c.Rise, c.Fall = new(1), 2, 3 }, "rise fall"},
	} {
		c := tt.from
		tt.edit(&c)
		c.Defaults()
		var keys []string
		for _, d := range c.Check("gateway.probes[0]") {
			keys = append(keys, strings.TrimPrefix(d.Key, "gateway.probes[0]."))
			if d.Reason == "" || d.Want == "" {
				t.Errorf("%+v: %+v", c, d)
			}
		}
		if !slices.Equal(keys, strings.Fields(tt.keys)) {
			t.Errorf("%+v: wrong are %v, want %v", c, keys, tt.keys)
		}
	}
}
