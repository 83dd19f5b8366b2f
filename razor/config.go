package razor

import (
	"net/netip"
	"os"
	"strings"

	"github.com/razor-steering/razor/upstreams"
)

// Config is the `dns:` section. The zero value is filled by Defaults.
type Config struct {
	// Listen are the addresses answered on, UDP and TCP each.
	Listen []string `yaml:"listen"`
	// Zones are the zones this server is authoritative for. Without any, every
	// name with a CONFIG in Redis is a zone of its own.
	Zones []string `yaml:"zones"`
	// HashMethod says which address hashing and geography go by: "edns" (client
	// subnet, the source address without one) or "src" (the source address).
	HashMethod string `yaml:"hash_method"`
	// Hash is "even", or "legacy" for the formula of pdns-razor.
	Hash string `yaml:"hash"`
	// GeoIP is a MaxMind database with countries or cities; none when empty.
	GeoIP string `yaml:"geoip"`
	// TraceTXT answers TXT queries with the client, its place and a draw.
	TraceTXT bool `yaml:"trace_txt"`
	// StateDir holds the last good snapshot and the control socket.
	StateDir string `yaml:"state_dir"`
}

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	if len(c.Listen) == 0 {
		c.Listen = []string{"0.0.0.0:53", "[::]:53"}
	}
	if c.HashMethod == "" {
		c.HashMethod = "edns"
	}
	if c.Hash == "" {
		c.Hash = "even"
	}
	if c.StateDir == "" {
		c.StateDir = "/var/lib/razor"
	}
}

// Check lists what is wrong with the section; keys are paths below "dns".
func (c *Config) Check() []upstreams.Defect {
	var out []upstreams.Defect
	bad := func(key, member, reason, want string) {
		out = append(out, upstreams.Defect{Key: "dns." + key, Member: member, Reason: reason, Want: want})
	}
	seen := map[string]bool{}
	for i, l := range c.Listen {
		ap, err := netip.ParseAddrPort(l)
		switch {
		case err != nil || ap.Port() == 0 || ap.Addr().Is4In6():
			bad(index("listen", i), l, "not an address and port", `"192.0.2.1:53" or "[2001:db8::1]:53"`)
		case seen[ap.String()]:
			bad(index("listen", i), l, "listed twice", "each address once")
		}
		seen[ap.String()] = true
	}
	for i, z := range c.Zones {
		wire, err := upstreams.WireName(strings.TrimSuffix(z, "."))
		switch {
		case err != nil:
			bad(index("zones", i), z, err.Error(), `a zone such as "routes.example.org"`)
		case seen[wire]:
			bad(index("zones", i), z, "listed twice", "each zone once")
		}
		seen[wire] = true
	}
	if c.HashMethod != "edns" && c.HashMethod != "src" {
		bad("hash_method", c.HashMethod, "unknown", `"edns" or "src"`)
	}
	if c.Hash != "even" && c.Hash != "legacy" {
		bad("hash", c.Hash, "unknown", `"even" or "legacy"`)
	}
	if c.GeoIP != "" {
		if _, err := openGeo(c.GeoIP); err != nil {
			bad("geoip", c.GeoIP, err.Error(), "a readable MaxMind Country or City database")
		}
	}
	if st, err := os.Stat(c.StateDir); err == nil && !st.IsDir() {
		bad("state_dir", c.StateDir, "not a directory", "a directory that razor may write to")
	}
	return out
}
