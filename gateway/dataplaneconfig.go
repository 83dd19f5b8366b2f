package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/upstreams"
)

// DataplaneConfig is `gateway.dataplane:`, how packets of the services are sent to
// backends. Without interfaces there is none.
type DataplaneConfig struct {
	Interfaces  []string `yaml:"interfaces"`    // where packets of VIPs come in
	Locator     string   `yaml:"locator"`       // /64 of our SIDs; auto is the node's
	SRBlock     string   `yaml:"sr_block"`      // that all locators are in
	FlowKeyFile string   `yaml:"flow_key_file"` // the same at all sites
	KeyFile     string   `yaml:"key_file"`      // shared with agents; "" for no pins and reports
	MaxServices int      `yaml:"max_services"`
	// MissBudget is how many packets that nobody here has other sites are asked about, a
	// second; 0 is none.
	MissBudget *int   `yaml:"miss_budget"`
	Pins       string `yaml:"pins"` // directory on a BPF file system
	// TablesListen is where mates copy the tables of this gateway from, "" nowhere.
	TablesListen string `yaml:"tables_listen"`
	// Follow is the mate that decides, whose tables are copied; "" decides here.
	Follow string `yaml:"follow"`
	// ConsulLock is the key in Consul's KV store that the gateway of the site that decides
	// holds; "" where Follow says it.
	ConsulLock string `yaml:"consul_lock"`
	// Mates are whom a gateway that decides, and has no tables when it starts, asks for
	// theirs.
	Mates []string `yaml:"mates"`
}

// ServiceConfig is one of `gateway.services:`.
type ServiceConfig struct {
	Name      string          `yaml:"name"`
	VIPs      []string        `yaml:"vips"`
	Fragments bool            `yaml:"fragments"`
	QUIC      *QUICConfig     `yaml:"quic"` // nil: connection IDs are not looked at
	Backends  []BackendConfig `yaml:"backends"`
	// Consul is where backends are that are not Backends; nil for none.
	Consul *ConsulServiceConfig `yaml:"consul"`
	// Upstream is the application whose list in Redis has the backends; "" for none.
	Upstream string `yaml:"upstream"`
	// Spill is what other sites get of new flows, whatever their load and that here; without
	// it that is decided.
	Spill []SpillConfig `yaml:"spill"`
	// MinHealthy is the share of the active backends that agents never take together;
	// without it half of them, or a quarter where there are other sites.
	MinHealthy *float64 `yaml:"min_healthy"`
	// What decides about new flows by load, with gateway.site: [steering.ServiceSettings].
	Limit      float64       `yaml:"limit"`
	Accept     float64       `yaml:"accept"`
	SlowStart  time.Duration `yaml:"slow_start"`
	StaleAfter time.Duration `yaml:"stale_after"`
	// Policy says which sites get new flows; nil is the default one. Not beside Spill.
	Policy *PolicyConfig `yaml:"policy"`
}

// BackendConfig is a backend of a service.
type BackendConfig struct {
	Name    string `yaml:"name"`
	Locator string `yaml:"locator"` // /64 of its host
	Target  int    `yaml:"target"`  // 0 is the host itself, else one of its containers
	Weight  *int   `yaml:"weight"`
	State   string `yaml:"state"` // active, draining, dead
	// ServerID is its name in connection IDs, in hexadecimal; "" is that of its SID.
	ServerID string `yaml:"server_id"`
}

const (
	locatorAuto  = "auto"
	leastFlowKey = 16 // bytes
	mostWeight   = 1_000_000
	mostTarget   = 1<<16 - 1
	leastHealthy = 0.5 // share of the backends
)

func (c *DataplaneConfig) defaults() {
	or(&c.Locator, locatorAuto)
	or(&c.Pins, root.DefaultPins)
	or(&c.MaxServices, 16)
	if c.MissBudget == nil {
		n := defaultMissBudget
		c.MissBudget = &n
	}
}

func (c *ServiceConfig) defaults() {
	if c.QUIC != nil {
		or(&c.QUIC.ServerIDLength, defaultServerIDLength)
	}
	if c.Consul != nil {
		c.Consul.defaults()
	}
	for i := range c.Backends {
		b := &c.Backends[i]
		or(&b.State, string(balancer.Active))
		or(&b.Name, b.Locator)
		if b.Weight == nil {
			one := 1
			b.Weight = &one
		}
	}
}

func (c *DataplaneConfig) used() bool { return len(c.Interfaces) > 0 }

// dataplane names what is wrong with the dataplane and the services.
func (d *defects) dataplane(c *Config) {
	p := &c.Dataplane
	if !p.used() {
		if len(c.Services)+len(c.Sites) > 0 || c.ConsulSites != nil {
			d.add("dataplane.interfaces", "", "missing, and there are services or sites", "the interfaces where packets of VIPs come in")
		}
		return
	}
	for i, name := range p.Interfaces {
		if name == "" || strings.Contains(name, "/") {
			d.add("dataplane.interfaces["+strconv.Itoa(i)+"]", name, "not the name of an interface", "a name such as eth0")
		}
	}
	block, err := netip.ParsePrefix(p.SRBlock)
	if err != nil || !block.Addr().Is6() || block.Bits() > 64 || block.Bits() == 0 || block != block.Masked() {
		d.add("dataplane.sr_block", p.SRBlock, "not a prefix of locators", "an IPv6 prefix such as 2001:db8:5e::/48")
		block = netip.Prefix{}
	}
	if p.Locator != locatorAuto {
		d.locator("dataplane.locator", p.Locator, block, "auto, or an IPv6 /64")
	}
	if p.FlowKeyFile == "" {
		d.add("dataplane.flow_key_file", "", "missing", "a file with 32 or more hexadecimal digits, the same at all sites")
	}
	d.number("dataplane.max_services", p.MaxServices, max(1, len(c.Services)), balancer.MaxServices)
	if !filepath.IsAbs(p.Pins) {
		d.add("dataplane.pins", p.Pins, "not an absolute path", "a directory such as "+root.DefaultPins)
	}
	if p.Follow != "" && p.Follow == p.TablesListen {
		d.add("dataplane.follow", p.Follow, "this gateway itself", "another gateway of the site, or nothing where this one decides")
	}
	addresses := map[string]string{"dataplane.tables_listen": p.TablesListen, "dataplane.follow": p.Follow}
	for i, mate := range p.Mates {
		key := "dataplane.mates[" + strconv.Itoa(i) + "]"
		if mate == "" {
			d.add(key, "", "missing", "what tables_listen of another gateway of the site is")
		}
		addresses[key] = mate
	}
	for key, text := range addresses {
		if a, err := netip.ParseAddrPort(text); text != "" && (err != nil || a.Port() == 0) {
			d.add(key, text, "not an address and port", `one such as "[2001:db8:5e:1::1]:5206"`)
		}
	}
	d.election(p)
	d.services(c.Services, block, c.Lists)
	d.sites(c, block)
}

func (d *defects) locator(key, text string, block netip.Prefix, want string) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || !p.Addr().Is6() || p.Bits() != 64 || p != p.Masked():
		d.add(key, text, "not a locator", want)
	case block.IsValid() && !block.Contains(p.Addr()):
		d.add(key, text, "outside of gateway.dataplane.sr_block", "a /64 inside of it")
	}
}

func (d *defects) services(services []ServiceConfig, block netip.Prefix, lists bool) {
	names, vips, takers := map[string]bool{}, map[balancer.VIP]string{}, map[string]bool{}
	for i := range services {
		s, key := &services[i], "services["+strconv.Itoa(i)+"]"
		switch {
		case s.Name == "" || len(s.Name) > balancer.MaxServiceName:
			d.add(key+".name", s.Name, "not a name", fmt.Sprintf("1 to %d bytes", balancer.MaxServiceName))
		case names[s.Name]:
			d.add(key+".name", s.Name, "used twice", "each name once")
		}
		names[s.Name], takers[s.Name] = true, s.Fragments
		for j, text := range s.VIPs {
			key := key + ".vips[" + strconv.Itoa(j) + "]"
			v, err := balancer.ParseVIP(text)
			if err != nil {
				d.add(key, text, err.Error(), "such as 198.51.100.1:443/tcp or [2001:db8::1]:443/udp")
			} else if other, twice := vips[v]; twice {
				d.add(key, text, "also in service "+other, "each VIP in one service")
			}
			for other, of := range vips {
				if err != nil {
					break
				}
				if v.Nested(other) {
					d.add(key, text, fmt.Sprintf("nested with vip %s of service %s", other, of), "prefixes none of which is in another one")
					break
				}
				if of != s.Name && balancer.Disputed(v, other, s.Fragments, takers[of]) {
					d.add(key, text, fmt.Sprintf("its fragments may be of vip %s of service %s", other, of), "one service with fragments: true on an address, and none of any port beside it")
					break
				}
			}
			vips[v] = s.Name
		}
		d.backends(key, s.Backends, block)
		d.membership(key, s, lists)
		if share := s.MinHealthy; share != nil && !(*share >= 0 && *share <= 1) {
			d.add(key+".min_healthy", number64(*share), "not a share", "a number from 0 to 1, such as 0.5")
		}
		d.quic(key, s)
	}
	if len(vips) > balancer.MaxVIPs {
		d.add("services", strconv.Itoa(len(vips))+" vips", "too many", fmt.Sprintf("at most %d", balancer.MaxVIPs))
	}
}

func (d *defects) backends(key string, backends []BackendConfig, block netip.Prefix) {
	sids := map[netip.Addr]bool{}
	for i := range backends {
		b, key := &backends[i], key+".backends["+strconv.Itoa(i)+"]"
		d.locator(key+".locator", b.Locator, block, "the /64 of its host")
		d.number(key+".target", b.Target, 0, mostTarget)
		d.number(key+".weight", *b.Weight, 0, mostWeight)
		switch balancer.State(b.State) {
		case balancer.Active, balancer.Draining, balancer.Dead:
		default:
			d.add(key+".state", b.State, "unknown", "active, draining or dead")
		}
		if sid, ok := b.sid(); ok && sids[sid] {
			d.add(key+".locator", b.Locator, "used twice with the same target", "each backend once")
		} else {
			sids[sid] = ok
		}
	}
}

// sid is the SID that a backend takes its own packets at.
func (b *BackendConfig) sid() (netip.Addr, bool) {
	p, err := netip.ParsePrefix(b.Locator)
	if err != nil || !p.Addr().Is6() {
		return netip.Addr{}, false
	}
	return balancer.Hunt(p, uint16(b.Target)), true
}

// CheckFiles lists what of the section's files and interfaces cannot be used on this
// host. It is apart from Check, as the configuration may be judged elsewhere.
func (c *Config) CheckFiles() []upstreams.Defect {
	list := c.BGP.CheckFiles()
	if !c.Dataplane.used() {
		return list
	}
	_, wrong := c.Dataplane.flowKey()
	_, wrongToo := c.Dataplane.keys()
	for _, err := range []error{wrong, wrongToo} {
		if d, ok := errors.AsType[upstreams.Defect](err); ok {
			list = append(list, d)
		}
	}
	if d, ok := errors.AsType[upstreams.Defect](c.checkConsul()); ok {
		list = append(list, d)
	}
	for i, name := range c.Dataplane.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			list = append(list, upstreams.Defect{
				Key: "gateway.dataplane.interfaces[" + strconv.Itoa(i) + "]", Member: name, Reason: "no such interface", Want: "one of this host",
			})
		}
	}
	return list
}

// locator is that of this gateway, on a host with a /64.
func (c *Config) locator(node netip.Prefix) (netip.Prefix, error) {
	if c.Dataplane.Locator != locatorAuto {
		node = netip.MustParsePrefix(c.Dataplane.Locator)
	}
	if block := netip.MustParsePrefix(c.Dataplane.SRBlock); !node.IsValid() || !block.Contains(node.Addr()) {
		return node, upstreams.Defect{
			Key: "gateway.dataplane.locator", Member: c.Dataplane.Locator,
			Reason: fmt.Sprintf("the node's /64 is %v, outside of sr_block", node), Want: "a /64 inside of " + c.Dataplane.SRBlock,
		}
	}
	return node, c.elsewhere(node)
}

// listenForMates opens the port that mates find tables at; nil where they find none.
func (c *Config) listenForMates() (net.Listener, error) {
	at := c.Dataplane.TablesListen
	if !c.Dataplane.used() || at == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return nil, upstreams.BindDefect("gateway.dataplane.tables_listen", at, err)
	}
	return l, nil
}

// CheckListen lists the ports of the section that cannot be had now.
func (c *Config) CheckListen(ctx context.Context) []upstreams.Defect {
	list := c.BGP.CheckListen(ctx)
	l, err := c.listenForMates()
	if d, ok := errors.AsType[upstreams.Defect](err); ok {
		return append(list, d)
	}
	if l != nil {
		_ = l.Close()
	}
	return list
}

// balance is what the balancer is to do.
func (c *Config) balance(flowKey []byte) balancer.Plan {
	p := balancer.Plan{MissBudget: uint64(*c.Dataplane.MissBudget)}
	for i := range c.Sites {
		p.Sites = append(p.Sites, c.Sites[i].plan())
	}
	for i := range c.Services {
		s := &c.Services[i]
		next := balancer.PlannedService{Service: balancer.Service{Name: s.Name, Key: keyOf(flowKey, s.Name), Fragments: s.Fragments, QUIC: s.QUIC.plan()}, Spills: c.spills(s)}
		for _, text := range s.VIPs {
			if v, err := balancer.ParseVIP(text); err == nil {
				next.VIPs = append(next.VIPs, v)
			}
		}
		for j := range s.Backends {
			b := &s.Backends[j]
			if sid, ok := b.sid(); ok {
				next.Backends = append(next.Backends, balancer.PlannedBackend{
					Name: b.Name, SID: sid, Weight: uint32(*b.Weight), State: balancer.State(b.State), ServerID: b.serverID(),
				})
			}
		}
		p.Services = append(p.Services, next)
	}
	return p
}
