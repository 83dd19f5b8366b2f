package bgp

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// sound is a section in which nothing is wrong.
func sound() Config {
	return Config{
		Unnumbered: []string{"eth0"},
		Peers:      []PeerConfig{{Name: "tor1", Address: "2001:db8::1"}, {Address: "192.0.2.1", AS: "65001.1"}},
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	c := sound()
	c.Hold, c.Peers[0].Hold, c.Blackhole, c.TTLSecurity = 30*time.Second, 6*time.Second, true, 2
	c.Peers[0].Multihop = 3
	c.BFD = &BFDConfig{Multiplier: 5}
	c.Peers[1].BFD = &BFDConfig{Interval: time.Second}
	c.Defaults()
	if d := c.Check(); len(d) > 0 {
		t.Fatal(d)
	}
	want := []PeerConfig{
		{
			Name: "tor1", Address: "2001:db8::1", AS: external, Port: 179, Hold: 6 * time.Second, Keepalive: 2 * time.Second, Multihop: 3,
			BFD: &BFDConfig{300 * time.Millisecond, 5},
		},
		{
			Name: "192.0.2.1", Address: "192.0.2.1", AS: "65001.1", Port: 179, Hold: 30 * time.Second, Keepalive: 10 * time.Second,
			BFD: &BFDConfig{time.Second, 3}, TTLSecurity: 2,
		},
		{
			Name: "eth0", AS: external, Port: 179, Hold: 30 * time.Second, Keepalive: 10 * time.Second,
			BFD: &BFDConfig{300 * time.Millisecond, 5}, TTLSecurity: 2, iface: "eth0",
		},
	}
	for i, got := range c.AllPeers() {
		w := &want[i]
		w.ConnectRetry, w.GracefulRestart, w.MaxPrefixes, w.Blackhole = time.Second, "30s", 10_000, w.iface != ""
		if *got.BFD != *w.BFD {
			t.Errorf("%s: BFD %+v, want %+v", w.Name, *got.BFD, *w.BFD)
		}
		got.BFD, w.BFD = nil, nil
		if got != *w {
			t.Errorf("%+v\nwant %+v", got, *w)
		}
	}
}

// Each rule has a row that breaks it, and nothing else.
func TestConfigDefects(t *testing.T) {
	t.Parallel()
	peer := func(change func(*PeerConfig)) func(*Config) {
		return func(c *Config) { change(&c.Peers[0]) }
	}
	for _, c := range []struct {
		want  string // key, member, reason
		spoil func(*Config)
	}{
		{"port 70000 out of range", func(c *Config) { c.Port = 70000; c.Peers[0].Port = 179; c.Peers[1].Port = 179 }},
		{"hold 2s not a hold time", func(c *Config) { c.Hold = 2 * time.Second; explicit(c) }},
		{"hold 3.5s not a hold time", func(c *Config) { c.Hold = 3500 * time.Millisecond; explicit(c) }},
		{"hold 65536s not a hold time", func(c *Config) { c.Hold = 65536 * time.Second; explicit(c) }},
		{"keepalive 5s does not fit the hold time", func(c *Config) { c.Keepalive = 5 * time.Second; explicit(c) }},
		{"keepalive 500ms does not fit the hold time", func(c *Config) { c.Keepalive = 500 * time.Millisecond; explicit(c) }},
		{"graceful_restart 0s not a restart time", func(c *Config) { c.GracefulRestart = "0s"; explicit(c) }},
		{"graceful_restart 4096s not a restart time", func(c *Config) { c.GracefulRestart = "4096s"; explicit(c) }},
		{"graceful_restart no not a restart time", func(c *Config) { c.GracefulRestart = "no"; explicit(c) }},
		{"connect_retry 10ms out of range", func(c *Config) { c.ConnectRetry = 10 * time.Millisecond; explicit(c) }},
		{"max_prefixes -1 out of range", func(c *Config) { c.MaxPrefixes = -1; explicit(c) }},
		{"ttl_security 255 out of range", func(c *Config) {
			c.TTLSecurity = 255
			explicit(c)
			c.Peers[0].TTLSecurity, c.Peers[1].TTLSecurity = 1, 1
		}},
		{"bfd.interval 1ms out of range", func(c *Config) { c.BFD = &BFDConfig{Interval: time.Millisecond}; explicit(c) }},
		{"bfd.multiplier 256 out of range", func(c *Config) { c.BFD = &BFDConfig{Multiplier: 256}; explicit(c) }},
		{"peers  no peer", func(c *Config) { c.Peers, c.Unnumbered = nil, nil }},
		{"unnumbered[0]  not the name of an interface", func(c *Config) { c.Unnumbered[0] = "" }},
		{"unnumbered[0] fe80::1%eth0 not the name of an interface", func(c *Config) { c.Unnumbered[0] = "fe80::1%eth0" }},
		{"unnumbered[0] sixteen-letters- not the name of an interface", func(c *Config) { c.Unnumbered[0] = "sixteen-letters-" }},
		{"unnumbered[1] eth0 used twice", func(c *Config) { c.Unnumbered = []string{"eth0", "eth0"} }},
		{"peers[0].name eth0 used twice", peer(func(p *PeerConfig) { p.Name = "eth0" })},
		{"peers[1].name tor1 used twice", func(c *Config) { c.Peers[1].Name = "tor1" }},
		{"peers[0].address  missing", peer(func(p *PeerConfig) { p.Address = "" })},
		{"peers[0].address tor1 not the address of a peer", peer(func(p *PeerConfig) { p.Address = "tor1" })},
		{"peers[0].address :: not the address of a peer", peer(func(p *PeerConfig) { p.Address = "::" })},
		{"peers[0].address ff02::1 not the address of a peer", peer(func(p *PeerConfig) { p.Address = "ff02::1" })},
		{"peers[0].address ::ffff:192.0.2.2 not the address of a peer", peer(func(p *PeerConfig) { p.Address = "::ffff:192.0.2.2" })},
		{"peers[0].address fe80::1 link-local without its interface, or an interface that does not belong there", peer(func(p *PeerConfig) { p.Address = "fe80::1" })},
		{"peers[0].address 2001:db8::1%eth0 link-local without its interface, or an interface that does not belong there", peer(func(p *PeerConfig) { p.Address = "2001:db8::1%eth0" })},
		{"peers[1].address 2001:db8:0::1 used twice", func(c *Config) { c.Peers[1].Address = "2001:db8:0::1" }},
		{"peers[0].as 0 not the number of an AS", peer(func(p *PeerConfig) { p.AS = "0" })},
		{"peers[0].as 23456 not the number of an AS", peer(func(p *PeerConfig) { p.AS = "23456" })},
		{"peers[0].as 65535 not the number of an AS", peer(func(p *PeerConfig) { p.AS = "65535" })},
		{"peers[0].as 4294967295 not the number of an AS", peer(func(p *PeerConfig) { p.AS = "4294967295" })},
		{"peers[0].as 65536.1 not the number of an AS", peer(func(p *PeerConfig) { p.AS = "65536.1" })},
		{"peers[0].as any not the number of an AS", peer(func(p *PeerConfig) { p.AS = "any" })},
		{"peers[0].local 192.0.2.2 not an address of the peer's family", peer(func(p *PeerConfig) { p.Local = "192.0.2.2" })},
		{"peers[0].local eth0 not an address of the peer's family", peer(func(p *PeerConfig) { p.Local = "eth0" })},
		{"peers[0].port -1 out of range", peer(func(p *PeerConfig) { p.Port = -1 })},
		{"peers[0].ttl_security 255 out of range", peer(func(p *PeerConfig) { p.TTLSecurity = 255 })},
		{"peers[0].multihop 256 out of range", peer(func(p *PeerConfig) { p.Multihop = 256 })},
		{"peers[0].multihop 2 beside ttl_security, which sends 255", peer(func(p *PeerConfig) { p.Multihop, p.TTLSecurity = 2, 1 })},
		{"peers[0].password_file /etc/key beside a password", peer(func(p *PeerConfig) { p.Password, p.PasswordFile = "x", "/etc/key" })},
		{"peers[0].password  too long", peer(func(p *PeerConfig) { p.Password = strings.Repeat("x", 81) })},
		{"peers[0].hold 1s not a hold time", peer(func(p *PeerConfig) { p.Hold = time.Second })},
		{"peers[0].keepalive 5s does not fit the hold time", peer(func(p *PeerConfig) { p.Keepalive = 5 * time.Second })},
		{"peers[0].graceful_restart never not a restart time", peer(func(p *PeerConfig) { p.GracefulRestart = "never" })},
		{"peers[0].connect_retry -1s out of range", peer(func(p *PeerConfig) { p.ConnectRetry = -time.Second })},
		{"peers[0].max_prefixes 10000001 out of range", peer(func(p *PeerConfig) { p.MaxPrefixes = 10_000_001 })},
		{"peers[0].bfd.interval 1h0m0s out of range", peer(func(p *PeerConfig) { p.BFD = &BFDConfig{Interval: time.Hour} })},
		{"peers[0].bfd.multiplier -1 out of range", peer(func(p *PeerConfig) { p.BFD = &BFDConfig{Multiplier: -1} })},
	} {
		cfg := sound()
		c.spoil(&cfg)
		cfg.Defaults()
		var got []string
		for _, d := range cfg.Check() {
			key, ok := strings.CutPrefix(d.Key, "gateway.bgp.")
			if !ok || d.Want == "" {
				t.Errorf("%+v", d)
			}
			got = append(got, key+" "+d.Member+" "+d.Reason)
		}
		if want := strings.Replace(c.want, "65536s", (65536 * time.Second).String(), 1); !slices.Equal(got, []string{want}) {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
}

// explicit gives peers what they would have from the section.
func explicit(c *Config) {
	for i := range c.Peers {
		p := &c.Peers[i]
		p.Hold, p.Keepalive, p.ConnectRetry, p.GracefulRestart = 9*time.Second, 3*time.Second, time.Second, off
		p.MaxPrefixes, p.BFD = 1, &BFDConfig{time.Second, 3}
	}
}

func TestParseAS(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint32{
		"1": 1, "65001": 65001, "4200000000": 4200000000, "4294967294": 4294967294, "1.0": 65536, "64086.59904": 4200000000, "0.100": 100,
		"": 0, "+1": 0, "-1": 0, " 1": 0, "1 ": 0, "0x1": 0, "1e3": 0, "4294967296": 0, "0.0": 0, "0.23456": 0, "65535.65535": 0, "1.": 0, ".1": 0, "1.2.3": 0, "1.+2": 0,
	} {
		if got, err := ParseAS(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}
