package bgp

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// Config is the `gateway.bgp:` section. The zero value is filled by Defaults.
type Config struct {
	// AS is the autonomous system of this gateway: a number, or auto.
	AS string `yaml:"as"`
	// ASTemplate and HostPattern make the number of auto from the host's name.
	ASTemplate  string `yaml:"as_template"`
	HostPattern string `yaml:"host_pattern"`
	// RouterID is the BGP identifier, written as an IPv4 address, or auto.
	RouterID string `yaml:"router_id"`
	// Node is the /64 of this host, or auto: what auto makes the others from.
	Node string `yaml:"node"`
	// Port is where peers are called and listened for.
	Port int `yaml:"port"`
	// Unnumbered are interfaces whose peer is learnt from its router advertisements.
	Unnumbered []string `yaml:"unnumbered"`
	// Peers are those with an address. What they leave out is as here.
	Peers []PeerConfig `yaml:"peers"`

	// PeerSettings hold for the unnumbered, and for peers without their own.
	Hold            time.Duration `yaml:"hold"`
	Keepalive       time.Duration `yaml:"keepalive"`
	ConnectRetry    time.Duration `yaml:"connect_retry"`
	GracefulRestart string        `yaml:"graceful_restart"` // restart time, or off
	MaxPrefixes     int           `yaml:"max_prefixes"`
	TTLSecurity     int           `yaml:"ttl_security"`
	BFD             *BFDConfig    `yaml:"bfd"`
	Blackhole       bool          `yaml:"blackhole"` // unnumbered peers take blackhole routes
}

// PeerConfig is one of `gateway.bgp.peers:`.
type PeerConfig struct {
	Name    string `yaml:"name"`    // in logs, metrics and announcements; the address when empty
	Address string `yaml:"address"` // of the peer; a link-local one with its interface: fe80::1%eth0
	AS      string `yaml:"as"`      // number, external or internal
	Port    int    `yaml:"port"`
	// Passive peers are not called: they call.
	Passive bool `yaml:"passive"`
	// Local is the source address; the kernel's choice when empty.
	Local        string `yaml:"local"`
	Password     string `yaml:"password"`      // of TCP MD5 (RFC 2385)
	PasswordFile string `yaml:"password_file"` // file that has it instead
	// TTLSecurity is how many hops away a peer may be (RFC 5082); 0 is off.
	TTLSecurity int `yaml:"ttl_security"`
	// Multihop is the hop limit that packets to the peer start with; 255 when 0, so
	// that it may demand that (RFC 5082).
	Multihop int `yaml:"multihop"`

	Hold            time.Duration `yaml:"hold"`
	Keepalive       time.Duration `yaml:"keepalive"`
	ConnectRetry    time.Duration `yaml:"connect_retry"`
	GracefulRestart string        `yaml:"graceful_restart"`
	MaxPrefixes     int           `yaml:"max_prefixes"`
	BFD             *BFDConfig    `yaml:"bfd"`
	Blackhole       bool          `yaml:"blackhole"` // takes blackhole routes (RFC 7999)

	iface string // of an unnumbered peer, whose address is learnt
}

// BFDConfig says how fast a dead peer is noticed: after Interval times Multiplier.
type BFDConfig struct {
	Interval   time.Duration `yaml:"interval"`
	Multiplier int           `yaml:"multiplier"`
}

const (
	off      = "off"
	auto     = "auto"
	external = "external"
	internal = "internal"

	defaultPort        = 179
	defaultHold        = 9 * time.Second
	defaultRetry       = time.Second
	defaultRestart     = 30 * time.Second
	defaultMaxPrefixes = 10_000

	leastRetry = 100 * time.Millisecond
	mostRetry  = time.Hour
	maxHold    = 65535 * time.Second
	maxRestart = 4095 * time.Second // twelve bits (RFC 4724 §3)
	maxMD5     = 80                 // octets that the kernel takes
)

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	set(&c.AS, auto)
	set(&c.RouterID, auto)
	set(&c.Node, auto)
	set(&c.Port, defaultPort)
	set(&c.Hold, defaultHold)
	set(&c.Keepalive, c.Hold/3)
	set(&c.ConnectRetry, defaultRetry)
	set(&c.GracefulRestart, defaultRestart.String())
	set(&c.MaxPrefixes, defaultMaxPrefixes)
	c.BFD.defaults()
	for i := range c.Peers {
		p := &c.Peers[i]
		set(&p.Name, p.Address)
		set(&p.AS, external)
		set(&p.Port, c.Port)
		p.BFD.defaults()
		c.inherit(p)
	}
}

// inherit fills the settings that a peer has from the section.
func (c *Config) inherit(p *PeerConfig) {
	if p.Hold != 0 {
		set(&p.Keepalive, p.Hold/3)
	}
	set(&p.Hold, c.Hold)
	set(&p.Keepalive, c.Keepalive)
	set(&p.ConnectRetry, c.ConnectRetry)
	set(&p.GracefulRestart, c.GracefulRestart)
	set(&p.MaxPrefixes, c.MaxPrefixes)
	if p.Multihop == 0 {
		set(&p.TTLSecurity, c.TTLSecurity)
	}
	if p.BFD == nil {
		p.BFD = c.BFD
	}
	p.Blackhole = p.Blackhole || p.iface != "" && c.Blackhole
}

func (c *BFDConfig) defaults() {
	if c != nil {
		set(&c.Interval, 300*time.Millisecond)
		set(&c.Multiplier, 3)
	}
}

// set gives a setting its default where it has no value.
func set[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// AllPeers are the peers of the section, the unnumbered with all their settings.
// The section has been checked.
func (c *Config) AllPeers() []PeerConfig {
	out := append([]PeerConfig{}, c.Peers...)
	for _, name := range c.Unnumbered {
		p := PeerConfig{Name: name, AS: external, Port: c.Port, iface: name}
		c.inherit(&p)
		out = append(out, p)
	}
	return out
}

// Interface is where an unnumbered peer is looked for; "" of one with an address.
func (p *PeerConfig) Interface() string { return p.iface }

// restartTime is how long the peer keeps our routes while we are away; 0 is not.
func (p *PeerConfig) restartTime() time.Duration {
	d, _ := time.ParseDuration(p.GracefulRestart) // off is 0
	return d
}

// remoteAS is the number that the peer has to have; 0 where external or internal
// says it.
func (p *PeerConfig) remoteAS() uint32 {
	n, _ := ParseAS(p.AS)
	return n
}

// ParseAS reads the number of an autonomous system: plain, or in two halves with a
// dot (RFC 5396). 0, the AS of the transition and the last are not for use.
func ParseAS(text string) (uint32, error) {
	high, low, dotted := strings.Cut(text, ".")
	if !dotted {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || reservedAS(uint32(n)) {
			return 0, errNotAS
		}
		return uint32(n), nil
	}
	h, err1 := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 16)
	n := uint32(h<<16 | l)
	if err1 != nil || err2 != nil || reservedAS(n) {
		return 0, errNotAS
	}
	return n, nil
}

// reservedAS are those that no speaker has (RFC 7607, 6793, 7300).
func reservedAS(n uint32) bool {
	return n == 0 || n == 23456 || n == 65535 || n == 1<<32-1
}

// ParsePeer reads the address of a peer. A link-local address has its interface.
func ParsePeer(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || a.IsUnspecified() || a.IsMulticast() || a.Is4In6():
		return netip.Addr{}, errNotAddress
	case a.Is6() && a.IsLinkLocalUnicast() != (a.Zone() != ""), strings.Trim(a.Zone(), "0123456789") != a.Zone():
		return netip.Addr{}, errZone
	}
	return a, nil
}

// Check lists what is wrong with the section but for who the gateway is; keys are
// paths below "gateway.bgp".
func (c *Config) Check() []upstreams.Defect {
	d := defects{prefix: "gateway.bgp."}
	d.port("port", c.Port)
	d.timers("", c.Hold, c.Keepalive, c.GracefulRestart)
	d.retry("connect_retry", c.ConnectRetry)
	d.number("max_prefixes", c.MaxPrefixes, 1, 10_000_000)
	d.number("ttl_security", c.TTLSecurity, 0, 254)
	d.bfd("bfd", c.BFD)
	if len(c.Peers)+len(c.Unnumbered) == 0 {
		d.add("peers", "", "no peer", "peers with an address, or unnumbered: [eth0]")
	}
	names := map[string]bool{}
	for i, name := range c.Unnumbered {
		key := "unnumbered[" + strconv.Itoa(i) + "]"
		if name == "" || len(name) > 15 || strings.ContainsAny(name, "/ %:") {
			d.add(key, name, "not the name of an interface", "a name such as eth0")
		}
		d.unique(names, key, name)
	}
	addresses := map[netip.Addr]bool{}
	for i := range c.Peers {
		d.peer("peers["+strconv.Itoa(i)+"]", &c.Peers[i], names, addresses)
	}
	return d.list
}

// CheckFiles lists the password files that cannot be used. It is apart from Check, as
// other roles may read the configuration and not these.
func (c *Config) CheckFiles() []upstreams.Defect {
	d := defects{prefix: "gateway.bgp."}
	for i := range c.Peers {
		p := &c.Peers[i]
		if _, err := p.socket(netip.Addr{}); err != nil {
			d.add("peers["+strconv.Itoa(i)+"].password_file", p.PasswordFile, plainError(err), "a file with a password of 1 to "+strconv.Itoa(maxMD5)+" octets")
		}
	}
	return d.list
}

type defects struct {
	prefix string
	list   []upstreams.Defect
}

func (d *defects) add(key, member, reason, want string) {
	d.list = append(d.list, upstreams.Defect{Key: d.prefix + key, Member: member, Reason: reason, Want: want})
}

func (d *defects) unique(seen map[string]bool, key, name string) {
	if seen[name] {
		d.add(key, name, "used twice", "each name once")
	}
	seen[name] = true
}

func (d *defects) number(key string, n, least, most int) {
	if n < least || n > most {
		d.add(key, strconv.Itoa(n), "out of range", "a number from "+strconv.Itoa(least)+" to "+strconv.Itoa(most))
	}
}

func (d *defects) port(key string, n int) { d.number(key, n, 1, 65535) }

func (d *defects) timers(key string, hold, keepalive time.Duration, restart string) {
	switch {
	case hold < 3*time.Second || hold > maxHold || hold%time.Second != 0:
		d.add(key+"hold", hold.String(), "not a hold time", "whole seconds, at least 3s")
	case keepalive < time.Second || keepalive > hold/2:
		d.add(key+"keepalive", keepalive.String(), "does not fit the hold time", "a third of "+hold.String()+", at least 1s")
	}
	if r, err := time.ParseDuration(restart); restart != off && (err != nil || r < time.Second || r > maxRestart) {
		d.add(key+"graceful_restart", restart, "not a restart time", "off, or one from 1s to "+maxRestart.String())
	}
}

func (d *defects) retry(key string, pause time.Duration) {
	if pause < leastRetry || pause > mostRetry {
		d.add(key, pause.String(), "out of range", "a pause from "+leastRetry.String()+" to "+mostRetry.String())
	}
}

func (d *defects) bfd(key string, c *BFDConfig) {
	if c == nil {
		return
	}
	if c.Interval < 10*time.Millisecond || c.Interval > time.Minute {
		d.add(key+".interval", c.Interval.String(), "out of range", "an interval from 10ms to 1m")
	}
	d.number(key+".multiplier", c.Multiplier, 1, 255)
}

func (d *defects) peer(key string, p *PeerConfig, names map[string]bool, addresses map[netip.Addr]bool) {
	addr, err := ParsePeer(p.Address)
	switch {
	case p.Address == "":
		d.add(key+".address", "", "missing", "the address of the peer")
	case err != nil:
		d.add(key+".address", p.Address, err.Error(), "an address such as 2001:db8::1 or fe80::1%eth0")
	case addresses[addr]:
		d.add(key+".address", p.Address, "used twice", "each peer once")
	case addr.Zone() != "" && names[addr.Zone()]:
		d.add(key+".address", p.Address, "its interface is one of gateway.bgp.unnumbered", "one of the two")
	}
	addresses[addr] = true
	d.unique(names, key+".name", p.Name)
	if p.AS != external && p.AS != internal {
		if _, err := ParseAS(p.AS); err != nil {
			d.add(key+".as", p.AS, err.Error(), "external, internal, or a number such as 4200000000")
		}
	}
	if p.Local != "" {
		if l, err := netip.ParseAddr(p.Local); err != nil || l.Is4() != addr.Is4() {
			d.add(key+".local", p.Local, "not an address of the peer's family", "an address of this host")
		}
	}
	d.port(key+".port", p.Port)
	d.number(key+".ttl_security", p.TTLSecurity, 0, 254)
	d.number(key+".multihop", p.Multihop, 0, 255)
	if p.TTLSecurity > 0 && p.Multihop > 0 {
		d.add(key+".multihop", strconv.Itoa(p.Multihop), "beside ttl_security, which sends 255", "one of the two")
	}
	if p.Password != "" && p.PasswordFile != "" {
		d.add(key+".password_file", p.PasswordFile, "beside a password", "one of the two")
	}
	if len(p.Password) > maxMD5 {
		d.add(key+".password", "", "too long", "at most "+strconv.Itoa(maxMD5)+" octets")
	}
	d.timers(key+".", p.Hold, p.Keepalive, p.GracefulRestart)
	d.retry(key+".connect_retry", p.ConnectRetry)
	d.number(key+".max_prefixes", p.MaxPrefixes, 1, 10_000_000)
	d.bfd(key+".bfd", p.BFD)
}
