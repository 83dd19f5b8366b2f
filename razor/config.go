package razor

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

const (
	maxRow       = 100
	maxLostAfter = time.Hour
)

// Config is the `dns:` section. The zero value is filled by Defaults.
type Config struct {
	// Listen are the addresses answered on, UDP and TCP each.
	Listen []string `yaml:"listen"`
	// Zones are the zones this server is authoritative for. Without any, every
	// name with a CONFIG in Redis is a zone of its own.
	Zones []string `yaml:"zones"`
	// Export is a zone with names for the upstream lists; none when empty.
	Export string `yaml:"export"`
	// ExportClients are the prefixes that may ask for names of it.
	ExportClients []string `yaml:"export_clients"`
	// HashMethod says which address hashing and geography go by: "edns" (client
	// subnet, the source address without one) or "src" (the source address).
	HashMethod string `yaml:"hash_method"`
	// Hash is "even", or "legacy" for the formula of pdns-razor.
	Hash string `yaml:"hash"`
	// GeoIP is a MaxMind database with countries or cities; none when empty.
	GeoIP string `yaml:"geoip"`
	// TraceTXT answers TXT queries with the client, its place and a draw.
	TraceTXT bool `yaml:"trace_txt"`
	// Health is when it is believed what gateways say of their edges.
	Health HealthConfig `yaml:"health"`
	// StateDir holds the last good snapshot and the control socket.
	StateDir string `yaml:"state_dir"`
}

// HealthConfig is `dns.health:`.
type HealthConfig struct {
	Rise      int           `yaml:"rise"`       // times in a row that a gateway has to say up
	Fall      int           `yaml:"fall"`       // and down
	LostAfter time.Duration `yaml:"lost_after"` // silence, while others are heard, that counts as down
}

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	if len(c.Listen) == 0 {
		c.Listen = []string{"0.0.0.0:53", "[::]:53"}
	}
	if len(c.ExportClients) == 0 {
		c.ExportClients = []string{"127.0.0.0/8", "::1/128"}
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
	rules := upstreams.HealthRules(c.Health)
	rules.Defaults()
	c.Health = HealthConfig(rules)
}

// RedisZones are the zones that may have a CONFIG in Redis, the export among them;
// none where every CONFIG makes a zone.
func (c *Config) RedisZones() []string {
	if len(c.Zones) == 0 || c.Export == "" {
		return c.Zones
	}
	return append(slices.Clone(c.Zones), c.Export)
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
	out = append(out, c.checkExport()...)
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
	for _, n := range []struct {
		key string
		n   int
	}{{"rise", c.Health.Rise}, {"fall", c.Health.Fall}} {
		if n.n < 1 || n.n > maxRow {
			bad("health."+n.key, strconv.Itoa(n.n), "out of range", "a number from 1 to "+strconv.Itoa(maxRow))
		}
	}
	if l := c.Health.LostAfter; l < upstreams.LeastLostAfter || l > maxLostAfter {
		bad("health.lost_after", l.String(), "out of range", "a time from "+upstreams.LeastLostAfter.String()+" to "+maxLostAfter.String())
	}
	if st, err := os.Stat(c.StateDir); err == nil && !st.IsDir() {
		bad("state_dir", c.StateDir, "not a directory", "a directory that razor may write to")
	}
	return out
}

func (c *Config) checkExport() []upstreams.Defect {
	var out []upstreams.Defect
	for i, text := range c.ExportClients {
		if p, err := netip.ParsePrefix(text); err != nil || p.Addr().Is4In6() || p != p.Masked() {
			out = append(out, upstreams.Defect{Key: "dns." + index("export_clients", i), Member: text, Reason: "not a prefix", Want: `"198.51.100.0/24" or "2001:db8::/48"`})
		}
	}
	if c.Export == "" {
		return out
	}
	bad := func(reason, want string) {
		out = append(out, upstreams.Defect{Key: "dns.export", Member: c.Export, Reason: reason, Want: want})
	}
	export, err := upstreams.WireName(strings.TrimSuffix(c.Export, "."))
	if err != nil {
		bad(err.Error(), `a zone such as "lists.internal"`)
		return out
	}
	for i, z := range c.Zones {
		zone, err := upstreams.WireName(strings.TrimSuffix(z, "."))
		if err == nil && (within([]byte(export), zone) || within([]byte(zone), export)) {
			bad("overlaps dns."+index("zones", i), `a zone of its own, such as "lists.internal"`)
		}
	}
	return out
}
