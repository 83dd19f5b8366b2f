package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// ConsulConfig is `agent.consul:`, where this host's backends are registered.
type ConsulConfig struct {
	Address   string               `yaml:"address"`
	Token     string               `yaml:"token"`
	TokenFile string               `yaml:"token_file"`
	TLS       *upstreams.TLSConfig `yaml:"tls"`
	// Site is told to gateways, which may take backends of some sites alone.
	Site string `yaml:"site"`
	// TTL is how long after the last word of this agent its instances are critical.
	TTL time.Duration `yaml:"ttl"`
	// Services are the instances.
	Services []ConsulServiceConfig `yaml:"services"`
}

// ConsulServiceConfig is one instance of a service: a target of this host.
type ConsulServiceConfig struct {
	Service   string   `yaml:"service"`   // name in Consul
	Container int      `yaml:"container"` // the target; 0 is the host itself
	VIPs      []string `yaml:"vips"`      // whose probes count; all of the target without
	Tags      []string `yaml:"tags"`
	Weight    *int     `yaml:"weight"` // share of new flows; 1 without
}

const (
	defaultTTL           = 3 * time.Second
	shortestTTL          = time.Second
	longestTTL           = time.Hour
	mostWeight           = 1_000_000 // that gateways take
	mostServices         = 1024
	mostMeta             = 512 // bytes that Consul takes
	metricConsulThere    = "razor_agent_consul_registered"
	metricConsulFailures = "razor_agent_consul_failures_total"
	whyUp, whyUnknown    = "up", "not known yet whether it is up"
	whyDown              = "its probe says that it is down"
)

func (c *ConsulConfig) defaults() {
	at := c.at()
	at.Defaults()
	c.Address = at.Address
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	for i := range c.Services {
		if c.Services[i].Weight == nil {
			one := 1
			c.Services[i].Weight = &one
		}
	}
}

// at is the agent of Consul.
func (c *ConsulConfig) at() consul.AgentConfig {
	return consul.AgentConfig{Address: c.Address, Token: c.Token, TokenFile: c.TokenFile, TLS: c.TLS}
}

// consul names what is wrong with what is registered.
func (d *defects) consul(c *Config) {
	r := c.Consul
	if r == nil {
		return
	}
	at := r.at()
	d.list = append(d.list, at.Check("agent.consul")...)
	if len(r.Site) > mostMeta || r.Site != upstreams.Printable(r.Site) {
		d.add("consul.site", r.Site, "not a name", "a name such as east")
	}
	if r.TTL < shortestTTL || r.TTL > longestTTL {
		d.add("consul.ttl", r.TTL.String(), "out of range", fmt.Sprintf("%v to %v", shortestTTL, longestTTL))
	}
	if n := len(r.Services); n == 0 || n > mostServices {
		d.add("consul.services", "", fmt.Sprintf("%d of them", n), fmt.Sprintf("1 to %d, each with a service", mostServices))
	}
	targets, seen := c.targets(), map[string]bool{}
	for i := range r.Services {
		s, key := &r.Services[i], "consul.services["+strconv.Itoa(i)+"]"
		if why := consul.ServiceReason(s.Service); why != "" {
			d.add(key+".service", s.Service, why, consul.ServiceWant)
		}
		if id := s.id(wire.Locator{}); seen[id] {
			d.add(key+".service", s.Service, "listed twice for the same target", "each once")
		} else {
			seen[id] = true
		}
		if *s.Weight < 0 || *s.Weight > mostWeight {
			d.add(key+".weight", strconv.Itoa(*s.Weight), "out of range", fmt.Sprintf("a number from 0 to %d", mostWeight))
		}
		for j, tag := range s.Tags {
			if why := consul.TagReason(tag); why != "" {
				d.add(fmt.Sprintf("%s.tags[%d]", key, j), tag, why, consul.TagWant)
			}
		}
		of, known := targets[s.Container]
		if !known {
			d.add(key+".container", strconv.Itoa(s.Container), "unknown", "a target of agent.containers, or 0 for the host")
			continue
		}
		for j, text := range s.VIPs {
			if vip, err := parseService(text); err != nil {
				d.add(fmt.Sprintf("%s.vips[%d]", key, j), text, err.Error(), serviceWant)
			} else if !slices.Contains(of, vip.VIP) {
				d.add(fmt.Sprintf("%s.vips[%d]", key, j), text, "not a VIP of that target", "one of its vips")
			}
		}
	}
}

// targets are the VIPs of the host, 0, and of its containers.
func (c *Config) targets() map[int][]netip.Addr {
	out := map[int][]netip.Addr{0: c.parsedVIPs()}
	for i := range c.Containers {
		out[c.Containers[i].Target] = parsed(c.Containers[i].VIPs)
	}
	return out
}

// id is the instance at the agent of Consul: what an earlier process of this host with
// the same service has registered is taken over.
func (s *ConsulServiceConfig) id(of wire.Locator) string {
	return fmt.Sprintf("%s%d-%s", idPrefix(of), s.Container, s.Service)
}

// idPrefix is that of all instances of a host.
func idPrefix(of wire.Locator) string { return fmt.Sprintf("razor-agent-%x-", of[:]) }

// newRegistrar is what keeps the instances in Consul, nil where there are none.
func (a *agent) newRegistrar() (*consul.Registrar, error) {
	c := a.config.Consul
	if c == nil {
		return nil, nil
	}
	return consul.NewRegistrar(c.at(), "agent.consul", idPrefix(wire.LocatorOf(a.domain.Locator.Addr())), c.TTL, a.registrations, a.log)
}

// register keeps the instances in Consul until ctx ends.
func (a *agent) register(ctx context.Context, group *errgroup.Group, reg prometheus.Registerer) {
	if a.registrar == nil {
		return
	}
	reg.MustRegister(instances{a}, a.consulFailures())
	group.Go(func() error { a.registrar.Run(ctx); return nil })
}

func (a *agent) consulFailures() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: metricConsulFailures, Help: "Rounds in which Consul did not take all that is registered.",
	}, func() float64 { return float64(a.registrar.Failures()) })
}

// deregister takes the instances out of Consul when the agent stops.
func (a *agent) deregister() {
	if a.registrar == nil {
		return
	}
	if err := a.registrar.Leave(); err != nil {
		a.log.Warn("not deregistered from consul", "err", err)
	}
}

// registrations are the instances as they are now. One that is drained is not there: who
// is drained is sent nothing new, by whomever it is found.
func (a *agent) registrations() []consul.Registration {
	reports := map[int]wire.Report{}
	for _, r := range a.states() {
		reports[int(r.Target)] = r
	}
	locator := wire.LocatorOf(a.domain.Locator.Addr())
	var out []consul.Registration
	for i := range a.config.Consul.Services {
		s := &a.config.Consul.Services[i]
		report := reports[s.Container]
		r := consul.Registration{
			Service: s.Service, ID: s.id(locator), Address: locator.Hunt(uint16(s.Container)), Tags: s.Tags,
			Meta: map[string]string{
				"locator": a.domain.Locator.String(), "target": strconv.Itoa(s.Container), "sid": locator.Hunt(uint16(s.Container)).String(),
				"weight": strconv.Itoa(*s.Weight),
			},
		}
		if site := a.config.Consul.Site; site != "" {
			r.Meta["site"] = site
		}
		if report.Capacity > 0 {
			r.Meta["capacity"] = strconv.FormatFloat(report.Capacity, 'g', -1, 64)
		}
		r.Health, r.Why = s.health(&report)
		if report.Draining {
			r.Absent, r.Why = true, "drained: "+a.admin.why()
		}
		out = append(out, r)
	}
	return out
}

// health is that of a target's report for the VIPs of the instance, and why. What is
// loaded, or not measured yet, is there all the same, with a warning.
func (s *ConsulServiceConfig) health(r *wire.Report) (consul.Health, string) {
	var of []wire.ServiceHealth
	for _, text := range s.VIPs {
		if vip, err := parseService(text); err == nil {
			of = append(of, vip)
		}
	}
	health, why := consul.Passing, whyUp
	for _, probed := range r.Services {
		if len(of) > 0 && !slices.ContainsFunc(of, func(vip wire.ServiceHealth) bool { return overlap(&probed, &vip) }) {
			continue
		}
		switch probed.Health {
		case steering.HealthDown:
			return consul.Critical, whyDown
		case steering.HealthUnknown:
			health, why = consul.Warning, whyUnknown
		}
	}
	if r.Level >= steering.LevelWarning {
		return consul.Warning, strings.TrimPrefix(why+"; load: "+r.Level.String(), whyUp+"; ")
	}
	return health, why
}

// overlap tells whether two speak of the same packets; what is left out is any.
func overlap(a, b *wire.ServiceHealth) bool {
	any6 := netip.IPv6Unspecified()
	return (a.VIP == any6 || b.VIP == any6 || a.VIP == b.VIP) && (a.Port == 0 || b.Port == 0 || a.Port == b.Port) &&
		(a.Protocol == 0 || b.Protocol == 0 || a.Protocol == b.Protocol)
}

// InstanceStatus is an instance of a service in Consul.
type InstanceStatus struct {
	Service    string `json:"service"`
	Target     uint16 `json:"target"`
	Registered bool   `json:"registered"`
	Health     string `json:"health"`
	Why        string `json:"why"`
}

// instances are what is to be in Consul, and whether it is.
func (a *agent) instances() (out []InstanceStatus) {
	if a.registrar == nil {
		return nil
	}
	for i, r := range a.registrations() {
		out = append(out, InstanceStatus{r.Service, uint16(a.config.Consul.Services[i].Container), a.registrar.Registered(r.ID), string(r.Health), r.Why})
	}
	return out
}

// instances is a collector of what Consul has.
type instances struct{ *agent }

var descConsul = prometheus.NewDesc(metricConsulThere, "Whether Consul has a backend of this host; target 0 is the host.", []string{"service", "target"}, nil)

// Describe implements prometheus.Collector.
func (instances) Describe(ch chan<- *prometheus.Desc) { ch <- descConsul }

// Collect implements prometheus.Collector.
func (i instances) Collect(ch chan<- prometheus.Metric) {
	for _, s := range i.instances() {
		there := 0.0
		if s.Registered {
			there = 1
		}
		ch <- prometheus.MustNewConstMetric(descConsul, prometheus.GaugeValue, there, s.Service, strconv.Itoa(int(s.Target)))
	}
}
