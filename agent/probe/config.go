package probe

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/razor-steering/razor/steering"
)

// The kinds of probes.
const (
	kindHTTP  = "http"
	kindHTTPS = "https"
	kindTCP   = "tcp"
	kindDNS   = "dns"
	kindExec  = "exec"
)

// Config is one probe. Defaults fills what was left out, and Check says what
// cannot be used.
type Config struct {
	// Name is the probe in log and metrics; no two of a process have the same.
	Name string `yaml:"name"`
	// Kind is http, https, tcp, dns or exec.
	Kind string `yaml:"kind"`
	// Target is the address and port that is asked; all kinds but exec.
	Target string `yaml:"target"`

	// Interval is the time from the start of a measurement to that of the next,
	// ±10 %. No two of a probe are ever under way at once.
	Interval time.Duration `yaml:"interval"`
	// Timeout ends a measurement, which failed then.
	Timeout time.Duration `yaml:"timeout"`
	// Rise and Fall are the measurements in a row that make it up and down.
	Rise int `yaml:"rise"`
	Fall int `yaml:"fall"`
	// Window are the last measurements, of which Threshold have to pass, instead of
	// Rise and Fall; Initial of them count as passed at the start. One of the three is
	// enough, the others have the defaults of Varnish (8, 3, Threshold - 1) then.
	Window    *int `yaml:"window"`
	Threshold *int `yaml:"threshold"`
	Initial   *int `yaml:"initial"`
	// HoldDown is the shortest time from up→down until it may be up again; it
	// doubles up to 32 times HoldDown while the service flaps.
	HoldDown time.Duration `yaml:"hold_down"`
	// Lease is the time without a measurement after which it is down.
	Lease time.Duration `yaml:"lease"`

	// Path, with query, is what http and https ask for.
	Path string `yaml:"path"`
	// Host is the Host header; the target without it.
	Host string `yaml:"host"`
	// Status is the one that has to come.
	Status int `yaml:"status"`
	// Body is a text that has to be in the first 64 KiB of the answer; any body
	// will do, and is not waited for, without it.
	Body string `yaml:"body"`
	// TLSName is the name in the certificate of https; without it the name of Host,
	// or the address.
	TLSName string `yaml:"tls_name"`
	// Insecure takes any certificate.
	Insecure bool `yaml:"insecure"`

	// Query is the name that dns asks for.
	Query string `yaml:"query"`
	// Type is its type: A, AAAA, SOA, NS or TXT.
	Type string `yaml:"type"`
	// Transport is udp or tcp.
	Transport string `yaml:"transport"`
	// Expect is noerror (whether or not with records), records (NOERROR with a
	// record of the type) or reply (whatever it says).
	Expect string `yaml:"expect"`

	// Command is the program of exec, by its full path, and its arguments. It has
	// no input, an environment of PATH and LANG alone, and is killed with its
	// process group at the timeout, or when it left others behind.
	Command []string `yaml:"command"`
}

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	or(&c.Interval, time.Second)
	or(&c.Timeout, min(c.Interval, time.Second))
	if c.windowed() {
		or(&c.Window, new(8))
		or(&c.Threshold, new(3))
		or(&c.Initial, new(*c.Threshold-1))
	} else {
		or(&c.Rise, 2)
		or(&c.Fall, 3)
	}
	or(&c.HoldDown, 5*time.Second)
	or(&c.Lease, 3*(c.Interval+c.Timeout))
	switch c.Kind {
	case kindHTTP, kindHTTPS:
		or(&c.Path, "/")
		or(&c.Status, 200)
	case kindDNS:
		or(&c.Type, "SOA")
		or(&c.Transport, "udp")
		or(&c.Expect, expectNoError)
	}
}

func or[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// windowed tells whether a window makes the health.
func (c *Config) windowed() bool { return c.Window != nil || c.Threshold != nil || c.Initial != nil }

func (c *Config) damping() steering.Damping {
	d := steering.Damping{Rise: c.Rise, Fall: c.Fall, HoldDown: c.HoldDown, Lease: c.Lease}
	if c.windowed() {
		d.Window, d.Threshold, d.Initial = *c.Window, *c.Threshold, *c.Initial
	}
	return d
}

// hostOf is the host of a Host header without its port and brackets.
func hostOf(header string) string {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return host
	}
	if n := len(header); n > 1 && header[0] == '[' && header[n-1] == ']' {
		return header[1 : n-1]
	}
	return header
}

// authority is a target as a Host header has it: a zone means nothing there.
func authority(target string) string {
	at, err := netip.ParseAddrPort(target)
	if err != nil {
		return target
	}
	return net.JoinHostPort(at.Addr().WithZone("").String(), strconv.Itoa(int(at.Port())))
}
