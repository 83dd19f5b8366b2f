package agent

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

// Config is the `agent:` section. The zero value is filled by Defaults.
type Config struct {
	Interfaces []string `yaml:"interfaces"` // where encapsulated packets come in
	Locator    string   `yaml:"locator"`    // /64 of this host's SIDs; auto is the one that the host has in the block
	SRBlock    string   `yaml:"sr_block"`   // that all locators are in
	KeyFile    string   `yaml:"key_file"`   // shared with gateways; "" tells them nothing
	VIPs       []string `yaml:"vips"`       // whose flows end here
	Bind       *bool    `yaml:"bind"`       // have the VIPs on loopback while the agent runs
	Pins       string   `yaml:"pins"`       // directory on a BPF file system
	Return     string   `yaml:"return"`     // how answers go to clients: direct or gateway
	// Gateways are the locators of those of the site: with a KeyFile they are told how this
	// host is, and answers go by them where Return says so.
	Gateways []string `yaml:"gateways"`
	// Load is how the host's load is measured; without it the level is always normal.
	Load *load.Config `yaml:"load"`
	// Containers are targets beside the host itself.
	Containers []ContainerConfig `yaml:"containers"`
	// ReportInterval is between what gateways are told of this host.
	ReportInterval time.Duration `yaml:"report_interval"`
	// Probes are of what runs here; gateways are told of their health.
	Probes []ProbeConfig `yaml:"probes"`
	// DrainOnStop is for how long gateways are told that this host drains, before the
	// endpoint is taken off.
	DrainOnStop time.Duration `yaml:"drain_on_stop"`
	StateDir    string        `yaml:"state_dir"` // of the control socket, and of what was drained
	// Consul is where gateways may learn of the backends here; without it nowhere.
	Consul *ConsulConfig `yaml:"consul"`
}

// ProbeConfig is one of `agent.probes:`, a probe of what a target has at VIPs.
type ProbeConfig struct {
	Container int      `yaml:"container"` // its target; 0 is the host itself
	VIPs      []string `yaml:"vips"`      // all of the target's without; with port and protocol, or all of them
	// Probe is made in the namespace of the host.
	Probe probe.Config `yaml:"probe"`
}

// ContainerConfig is one of `agent.containers:`, a namespace that ends flows of its own.
type ContainerConfig struct {
	Target int      `yaml:"target"` // number in its SID
	Netns  string   `yaml:"netns"`  // name, process or path of its network namespace
	Veth   string   `yaml:"veth"`   // the host's end
	VIPs   []string `yaml:"vips"`   // the host's without
	// Load is how its load is measured; without it its level is the host's.
	Load *load.Config `yaml:"load"`
}

const (
	locatorAuto = "auto"
	// How answers go to clients.
	returnDirect, returnGateway = "direct", "gateway"
	// mostVIPs keeps the check of loopback short; the endpoint has room for more.
	mostVIPs = 4096
	// Bounds of the interval of reports: gateways take three of them for a death.
	shortestReport, longestReport = 50 * time.Millisecond, 10 * time.Second
	longestDrain                  = time.Hour
	defaultStateDir               = "/var/lib/razor-agent"
)

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	if c.Locator == "" {
		c.Locator = locatorAuto
	}
	if c.Return == "" {
		c.Return = returnDirect
	}
	if c.Bind == nil {
		yes := true
		c.Bind = &yes
	}
	for i := range c.Containers {
		if t := &c.Containers[i]; t.VIPs == nil {
			t.VIPs = c.VIPs
		}
		if l := c.Containers[i].Load; l != nil {
			l.Defaults()
		}
	}
	if c.Load != nil {
		c.Load.Defaults()
	}
	if c.Pins == "" {
		c.Pins = root.DefaultPins
	}
	if c.ReportInterval == 0 {
		c.ReportInterval = 200 * time.Millisecond
	}
	if c.StateDir == "" {
		c.StateDir = defaultStateDir
	}
	for i := range c.Probes {
		c.Probes[i].Probe.Defaults()
	}
	if c.Consul != nil {
		c.Consul.defaults()
	}
}

// Used tells whether there is anything in the section: the file of a host that is no
// backend has none.
func (c *Config) Used() bool { return len(c.Interfaces)+len(c.VIPs) > 0 || c.SRBlock != "" }

// Check lists what is wrong with the section; keys are paths below "agent".
func (c *Config) Check() []upstreams.Defect {
	d := &defects{}
	d.interfaces(c.Interfaces)
	block, err := netip.ParsePrefix(c.SRBlock)
	if err != nil || !block.Addr().Is6() || block.Bits() > 64 || block.Bits() == 0 || block != block.Masked() {
		d.add("sr_block", c.SRBlock, "not a prefix of locators", "an IPv6 prefix such as 2001:db8:5e::/48")
		block = netip.Prefix{}
	}
	if c.Locator != locatorAuto {
		d.locator("locator", c.Locator, block)
	}
	d.returns(c, block)
	d.vips("vips", c.VIPs, block)
	if c.Load != nil {
		d.list = append(d.list, c.Load.Check("agent.load")...)
	}
	d.containers(c.Containers, block)
	d.reporting(c)
	d.consul(c)
	if !filepath.IsAbs(c.StateDir) {
		d.add("state_dir", c.StateDir, "not an absolute path", "a directory such as "+defaultStateDir)
	}
	if !filepath.IsAbs(c.Pins) {
		d.add("pins", c.Pins, "not an absolute path", "a directory such as "+root.DefaultPins)
	}
	return d.list
}

func defectOf(d probe.Defect) upstreams.Defect { return upstreams.Defect(d) }

type defects struct{ list []upstreams.Defect }

func (d *defects) add(key, member, reason, want string) {
	d.list = append(d.list, defect(key, member, reason, want))
}

func defect(key, member, reason, want string) upstreams.Defect {
	return upstreams.Defect{Key: "agent." + key, Member: member, Reason: reason, Want: want}
}

func (d *defects) interfaces(names []string) {
	if len(names) == 0 {
		d.add("interfaces", "", "missing", "the interfaces where packets of gateways come in")
	}
	seen := map[string]bool{}
	for i, name := range names {
		key := "interfaces[" + strconv.Itoa(i) + "]"
		switch {
		case name == "" || strings.Contains(name, "/"):
			d.add(key, name, "not the name of an interface", "a name such as eth0")
		case seen[name]:
			d.add(key, name, "listed twice", "each interface once")
		}
		seen[name] = true
	}
}

func (d *defects) returns(c *Config, block netip.Prefix) {
	switch {
	case c.Return != returnDirect && c.Return != returnGateway:
		d.add("return", c.Return, "unknown", "direct or gateway")
	case c.Return == returnGateway && len(c.Gateways) == 0:
		d.add("gateways", "", "missing", "the locators of the gateways that answers go by, or agent.return: direct")
	case len(c.Gateways) > reply.MaxGateways:
		d.add("gateways", "", "more than "+strconv.Itoa(reply.MaxGateways), "fewer of them")
	}
	seen := map[string]bool{}
	for i, text := range c.Gateways {
		key := "gateways[" + strconv.Itoa(i) + "]"
		d.locator(key, text, block)
		if seen[text] {
			d.add(key, text, "listed twice", "each gateway once")
		}
		seen[text] = true
	}
}

func (d *defects) locator(key, text string, block netip.Prefix) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !p.Addr().Is6() || p.Bits() != 64 || p != p.Masked():
		want := "an IPv6 /64"
		if key == "locator" {
			want = "auto, or an IPv6 /64"
		}
		d.add(key, text, "not a locator", want)
	case block.IsValid() && !block.Contains(p.Addr()):
		d.add(key, text, "outside of agent.sr_block", "a /64 inside of it")
	}
}

func (d *defects) containers(all []ContainerConfig, block netip.Prefix) {
	targets, veths := map[int]bool{}, map[string]bool{}
	for i := range all {
		t, key := &all[i], "containers["+strconv.Itoa(i)+"]"
		switch {
		case t.Target < 1 || t.Target >= segment.MaxTargets:
			d.add(key+".target", strconv.Itoa(t.Target), "out of range", "a number from 1 to "+strconv.Itoa(segment.MaxTargets-1)+"; 0 is the host")
		case targets[t.Target]:
			d.add(key+".target", strconv.Itoa(t.Target), "used twice", "each number once")
		}
		if t.Netns == "" {
			d.add(key+".netns", "", "missing", "the name of its network namespace, a process in it, or a path")
		}
		switch {
		case t.Veth == "" || strings.Contains(t.Veth, "/"):
			d.add(key+".veth", t.Veth, "not the name of an interface", "the host's end of its veth")
		case veths[t.Veth]:
			d.add(key+".veth", t.Veth, "used twice", "a veth for each container")
		}
		targets[t.Target], veths[t.Veth] = true, true
		if len(t.VIPs) > 0 {
			d.vips(key+".vips", t.VIPs, block)
		}
		if t.Load != nil {
			d.list = append(d.list, t.Load.Check("agent."+key+".load")...)
		}
	}
}

func (d *defects) vips(list string, texts []string, block netip.Prefix) {
	switch {
	case len(texts) == 0:
		d.add(list, "", "missing", "the addresses whose flows end here")
	case len(texts) > mostVIPs:
		d.add(list, "", "more than "+strconv.Itoa(mostVIPs), "fewer of them on a host")
	}
	seen := map[netip.Addr]bool{}
	for i, text := range texts {
		key := list + "[" + strconv.Itoa(i) + "]"
		vip, err := parseVIP(text)
		switch {
		case err != nil:
			d.add(key, text, err.Error(), "an address such as 198.51.100.1 or 2001:db8::1")
		case !vip.IsGlobalUnicast():
			d.add(key, text, "not an address that clients reach", "a unicast address")
		case block.IsValid() && block.Contains(vip):
			d.add(key, text, "inside of agent.sr_block", "an address that is no SID")
		case seen[vip]:
			d.add(key, text, "listed twice", "each VIP once")
		}
		seen[vip] = true
	}
}

// parseVIP reads an address in any form that the lists may have.
func parseVIP(text string) (netip.Addr, error) {
	p, err := upstreams.ParseMember(steering.IPv4, text)
	if six, err6 := upstreams.ParseMember(steering.IPv6, text); err6 == nil {
		p, err = six, nil
	}
	switch {
	case err != nil:
		return netip.Addr{}, err
	case !p.IsSingleIP():
		return netip.Addr{}, errors.New("a prefix")
	}
	return p.Addr(), nil
}

// serviceWant is what parseService reads.
const serviceWant = "such as 198.51.100.1, 198.51.100.1:443/tcp or [2001:db8::1]:443/udp"

// parseService reads a VIP of a probe, with port and protocol or without.
func parseService(text string) (s wire.ServiceHealth, err error) {
	at, protocol, ok := strings.Cut(text, "/")
	if !ok {
		if _, err := netip.ParseAddrPort(text); err == nil {
			return s, errors.New("a port without a protocol")
		}
		s.VIP, err = parseVIP(text)
		return s, err
	}
	where, err := netip.ParseAddrPort(at)
	s.Protocol = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[protocol]
	if err != nil || where.Port() == 0 || s.Protocol == 0 {
		return s, errors.New("not an address with port and protocol")
	}
	s.Port = where.Port()
	s.VIP, err = parseVIP(where.Addr().String())
	return s, err
}

func (c *Config) parsedVIPs() []netip.Addr { return parsed(c.VIPs) }

// allVIPs are those of the host and of its containers.
func (c *Config) allVIPs() []netip.Addr {
	all := c.parsedVIPs()
	for i := range c.Containers {
		all = append(all, parsed(c.Containers[i].VIPs)...)
	}
	return all
}

// parsed are the VIPs of a section that has been checked.
func parsed(texts []string) []netip.Addr {
	out := make([]netip.Addr, 0, len(texts))
	for _, text := range texts {
		if vip, err := parseVIP(text); err == nil {
			out = append(out, vip)
		}
	}
	return out
}
