package upstreams

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config is the `redis:` section: the edge's own replica. The zero value is
// filled by Defaults.
type Config struct {
	// Address is host:port, or unix:///path of a socket.
	Address string `yaml:"address"`
	// User and Password authenticate (ACL user, or the password alone).
	User     string `yaml:"user"`
	Password string `yaml:"password"`
	// TLS is used where it is given.
	TLS *TLSConfig `yaml:"tls"`
	// StaleAfter is the age at which the lists count as stale. A primary at rest
	// says something every 10 s (repl-ping-replica-period): more than that.
	StaleAfter time.Duration `yaml:"stale_after"`
	// Sentinel knows the primary, for those who write. Without it that is the one
	// that the server at Address follows, or is.
	Sentinel *SentinelConfig `yaml:"sentinel"`
}

const defaultStaleAfter = 30 * time.Second

// SentinelConfig says which primary writers ask the sentinels for.
type SentinelConfig struct {
	Name      string   `yaml:"name"`      // of the primary in the sentinels' configuration
	Addresses []string `yaml:"addresses"` // host:port of sentinels, asked in this order
	User      string   `yaml:"user"`      // of the sentinels themselves
	Password  string   `yaml:"password"`
	// TLS to the sentinels, where it is given.
	TLS *TLSConfig `yaml:"tls"`
}

// TLSConfig says how a server is recognised. Its zero value verifies the server
// against the system's authorities.
type TLSConfig struct {
	CA         string `yaml:"ca"`          // PEM file of the authorities; the system's when empty
	Cert       string `yaml:"cert"`        // PEM file of the client certificate, optional
	Key        string `yaml:"key"`         // PEM file of its key
	ServerName string `yaml:"server_name"` // name in the server's certificate; the host of the address when empty
}

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	if c.Address == "" {
		c.Address = "127.0.0.1:6379"
	}
	if c.StaleAfter == 0 {
		c.StaleAfter = defaultStaleAfter
	}
}

// Check lists what is wrong with the section; keys are paths below prefix.
func (c *Config) Check(prefix string) []Defect {
	var out []Defect
	bad := func(key, member, reason, want string) {
		out = append(out, Defect{Key: prefix + "." + key, Member: member, Reason: reason, Want: want})
	}
	if network, addr := c.endpoint(); network == "unix" {
		if !filepath.IsAbs(addr) {
			bad("address", c.Address, "not an absolute path", `"unix:///run/redis/redis.sock"`)
		}
	} else if !validHostPort(addr) {
		bad("address", c.Address, "not a host and port", `"127.0.0.1:6379", "[::1]:6379" or "unix:///run/redis/redis.sock"`)
	}
	if c.User != "" && c.Password == "" {
		bad("user", c.User, "has no password", "redis.password beside it")
	}
	if c.Sentinel != nil {
		out = append(out, c.Sentinel.check(prefix+".sentinel")...)
	}
	if c.TLS != nil {
		if _, err := c.tlsConfig(); err != nil {
			bad("tls", "", err.Error(), wantTLS)
		}
	}
	return out
}

// check lists what is wrong; keys are paths below prefix.
func (s *SentinelConfig) check(prefix string) []Defect {
	var out []Defect
	if s.Name == "" {
		out = append(out, Defect{Key: prefix + ".name", Reason: "missing", Want: "the name of the primary in Sentinel, such as mymaster"})
	}
	if len(s.Addresses) == 0 {
		out = append(out, Defect{Key: prefix + ".addresses", Reason: "missing", Want: `a list such as ["[2001:db8::1]:26379"]`})
	}
	for i, a := range s.Addresses {
		if !validHostPort(a) {
			out = append(out, Defect{Key: prefix + ".addresses[" + strconv.Itoa(i) + "]", Member: a, Reason: "not a host and port", Want: `"127.0.0.1:26379" or "[::1]:26379"`})
		}
	}
	if s.User != "" && s.Password == "" {
		out = append(out, Defect{Key: prefix + ".user", Member: s.User, Reason: "has no password", Want: prefix + ".password beside it"})
	}
	if _, err := s.TLS.of(""); err != nil {
		out = append(out, Defect{Key: prefix + ".tls", Reason: err.Error(), Want: wantTLS})
	}
	return out
}

// endpoint is the address as net.Dial takes it.
func (c *Config) endpoint() (network, addr string) {
	if path, ok := strings.CutPrefix(c.Address, "unix://"); ok {
		return "unix", path
	}
	return "tcp", c.Address
}

func validHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

const wantTLS = "readable PEM files: ca, and cert with its key"

// tlsConfig is nil where TLS is not configured.
func (c *Config) tlsConfig() (*tls.Config, error) { return c.TLS.of(c.Address) }

// of is the configuration of a client of the server at addr; nil where t is.
func (t *TLSConfig) of(addr string) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	host, _, _ := net.SplitHostPort(addr)
	return t.Config(host)
}

// Config is that of a client of the server called host.
func (t *TLSConfig) Config(host string) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if out.ServerName == "" {
		out.ServerName = host
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &os.PathError{Op: "parse", Path: t.CA, Err: os.ErrInvalid}
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, err
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
