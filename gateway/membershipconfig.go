package gateway

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// ConsulServiceConfig is `consul:` of a service, whose backends Consul says.
type ConsulServiceConfig struct {
	Service     string   `yaml:"service"`     // name in Consul
	Datacenters []string `yaml:"datacenters"` // of Consul; the agent's own when empty
	Tag         string   `yaml:"tag"`         // only instances that have it; all when empty
	Site        string   `yaml:"site"`        // only instances whose meta has it; all when empty
	// Floor is what stays of the backends where Consul alone says that they are gone: a
	// share or a number.
	Floor string `yaml:"floor"`
}

func (c *ConsulServiceConfig) defaults() { or(&c.Floor, "50%") }

// membership names what is wrong with where a service's backends come from. lists is
// whether those in Redis are followed.
func (d *defects) membership(key string, s *ServiceConfig, lists bool) {
	if s.Upstream != "" {
		d.upstream(key, s, lists)
	}
	c := s.Consul
	if c == nil {
		return
	}
	if len(s.Backends) > 0 {
		d.add(key+".backends", "", "beside consul", "one of the two")
	}
	key += ".consul"
	if why := consul.ServiceReason(c.Service); why != "" {
		d.add(key+".service", c.Service, why, consul.ServiceWant)
	}
	if why := consul.TagReason(c.Tag); why != "" {
		d.add(key+".tag", c.Tag, why, consul.TagWant)
	}
	for i, dc := range c.Datacenters {
		if dc == "" || slices.Contains(c.Datacenters[:i], dc) {
			d.add(key+".datacenters["+strconv.Itoa(i)+"]", dc, "empty, or listed twice", "the name of a datacenter in Consul, each once")
		}
	}
	if _, err := steering.ParseLimit(c.Floor); err != nil {
		d.add(key+".floor", c.Floor, err.Error(), `a share such as "50%" or a number of backends such as 20`)
	}
}

// upstream names what is wrong with the list that has a service's backends.
func (d *defects) upstream(key string, s *ServiceConfig, lists bool) {
	if _, err := upstreams.WireName(strings.TrimSuffix(s.Upstream, ".")); err != nil {
		d.add(key+".upstream", s.Upstream, err.Error(), "the name of an application, whose list is <name>:UPSTREAMS")
	}
	if !lists {
		d.add(key+".upstream", s.Upstream, "the lists are not followed", "gateway.lists: true")
	}
	if len(s.Backends) > 0 {
		d.add(key+".backends", "", "beside upstream", "one of the two")
	}
	if s.Consul != nil {
		d.add(key+".consul", "", "beside upstream", "one of the two")
	}
}

// checkConsul is what keeps the agent of Consul from being asked, where it is to be.
func (c *Config) checkConsul() error {
	asked := c.Dataplane.ConsulLock != "" || slices.ContainsFunc(c.Services, func(s ServiceConfig) bool { return s.Consul != nil })
	if !asked {
		return nil
	}
	m, err := consul.NewMembers(c.Consul, "gateway.consul", slog.New(slog.DiscardHandler))
	if err == nil {
		m.Close()
	}
	return err
}

// memberSource is where a service has its backends from, if that is not the file.
type memberSource struct {
	consul   *ConsulServiceConfig // nil where a list has them
	upstream string               // the application of the list; "" where Consul has them
}

// memberships are where the backends of services come from, by their names.
func (c *Config) memberships() map[string]memberSource {
	out := map[string]memberSource{}
	for i := range c.Services {
		if s := &c.Services[i]; s.Consul != nil || s.Upstream != "" {
			out[s.Name] = memberSource{s.Consul, strings.TrimSuffix(s.Upstream, ".")}
		}
	}
	return out
}
