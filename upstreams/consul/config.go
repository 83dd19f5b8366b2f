package consul

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// Config is the `sync:` section. The zero value is filled by Defaults.
type Config struct {
	// Consul is the agent that is asked.
	Consul AgentConfig `yaml:"consul"`
	// Lock is the key in Consul's KV store that the active sync holds.
	Lock string `yaml:"lock"`
	// Floor and Churn are the guards of every list that does not have its own:
	// a share ("50%") or a number of endpoints.
	Floor string `yaml:"floor"`
	Churn string `yaml:"churn"`
	// Lists are the upstream lists that are kept.
	Lists []ListConfig `yaml:"lists"`
}

// AgentConfig says where Consul is.
type AgentConfig struct {
	Address   string               `yaml:"address"`    // http://, https:// or unix://
	Token     string               `yaml:"token"`      // ACL token
	TokenFile string               `yaml:"token_file"` // file that has it instead
	TLS       *upstreams.TLSConfig `yaml:"tls"`
}

// ListConfig is one upstream list and the service that it is filled from.
type ListConfig struct {
	App         string   `yaml:"app"`         // `<app>:UPSTREAMS`
	Service     string   `yaml:"service"`     // name in Consul
	Datacenters []string `yaml:"datacenters"` // of Consul; the agent's own when empty
	Tag         string   `yaml:"tag"`         // only instances that have it; all when empty
	Address     string   `yaml:"address"`     // name of a tagged address; IPv6 first when empty
	Floor       string   `yaml:"floor"`
	Churn       string   `yaml:"churn"`
}

// Defaults fills what the operator left out.
func (c *Config) Defaults() {
	c.Consul.Defaults()
	if c.Lock == "" {
		c.Lock = "razor/sync"
	}
	if c.Floor == "" {
		c.Floor = "50%"
	}
	if c.Churn == "" {
		c.Churn = "30%"
	}
	for i := range c.Lists {
		l := &c.Lists[i]
		if l.Floor == "" {
			l.Floor = c.Floor
		}
		if l.Churn == "" {
			l.Churn = c.Churn
		}
	}
}

// Check lists what is wrong with the section; keys are paths below "sync".
func (c *Config) Check() []upstreams.Defect {
	out := defects(c.Consul.Check("sync.consul"))
	if c.Lock != strings.Trim(c.Lock, "/") {
		out.add("lock", c.Lock, "begins or ends with a slash", `"razor/sync"`)
	}
	out.limit("floor", c.Floor)
	out.limit("churn", c.Churn)
	apps := map[string]bool{}
	for i, l := range c.Lists {
		key := "lists[" + strconv.Itoa(i) + "]"
		wire, err := upstreams.WireName(strings.TrimSuffix(l.App, "."))
		switch {
		case l.App == "":
			out.add(key+".app", "", "missing", `the name of a list, such as "web.example.org"`)
		case err != nil:
			out.add(key+".app", l.App, err.Error(), `the name of a list, such as "web.example.org"`)
		case apps[wire]:
			out.add(key+".app", l.App, "listed twice", "each list once")
		}
		apps[wire] = true
		if why := ServiceReason(l.Service); why != "" {
			out.add(key+".service", l.Service, why, ServiceWant)
		}
		if why := TagReason(l.Tag); why != "" {
			out.add(key+".tag", l.Tag, why, TagWant)
		}
		for j, dc := range l.Datacenters {
			if dc == "" {
				out.add(key+".datacenters["+strconv.Itoa(j)+"]", "", "empty", "the name of a datacenter in Consul")
			}
		}
		if l.Floor != c.Floor {
			out.limit(key+".floor", l.Floor)
		}
		if l.Churn != c.Churn {
			out.limit(key+".churn", l.Churn)
		}
	}
	return out
}

// defects are those of the section.
type defects []upstreams.Defect

func (d *defects) add(key, member, reason, want string) {
	*d = append(*d, upstreams.Defect{Key: "sync." + key, Member: member, Reason: reason, Want: want})
}

func (d *defects) limit(key, text string) {
	if _, err := steering.ParseLimit(text); err != nil {
		d.add(key, text, err.Error(), `a share such as "50%" or a number of endpoints such as 20`)
	}
}

// Defaults fills what the operator left out.
func (c *AgentConfig) Defaults() {
	if c.Address == "" {
		c.Address = "http://127.0.0.1:8500"
	}
}

// Check lists what is wrong with the section; keys are paths below prefix.
func (c *AgentConfig) Check(prefix string) (out []upstreams.Defect) {
	const want = `"http://127.0.0.1:8500", "https://consul.example.net:8501" or "unix:///run/consul/http.sock"`
	bad := func(key, member, reason, want string) {
		out = append(out, upstreams.Defect{Key: prefix + "." + key, Member: member, Reason: reason, Want: want})
	}
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		bad("address", c.Address, "not an address of Consul", want)
	case u.Scheme == "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			bad("address", c.Address, "not an absolute path", want)
		}
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/":
		bad("address", c.Address, "not an address of Consul", want)
	case c.TLS != nil && u.Scheme != "https":
		bad("tls", "", "given, and the address is not https", want)
	}
	if c.Token != "" && c.TokenFile != "" {
		bad("token_file", c.TokenFile, "beside a token", "one of the two")
	}
	if c.TLS != nil {
		if _, err := c.TLS.Config(""); err != nil {
			bad("tls", "", err.Error(), "readable PEM files: ca, and cert with its key")
		}
	}
	return out
}

// What is wanted where [ServiceReason] and [TagReason] find something.
const (
	ServiceWant = "the name of a service in Consul, without slashes"
	TagWant     = "a tag without quotes"
)

// ServiceReason says why a text cannot be the name of a service in Consul; "" if it can.
func ServiceReason(name string) string {
	switch {
	case name == "":
		return "missing"
	case strings.ContainsAny(name, "/?#"):
		return "not the name of a service"
	}
	return ""
}

// TagReason says why a text cannot be a tag that instances are chosen by; "" if it can.
func TagReason(tag string) string {
	if strings.ContainsAny(tag, "\"`\\") {
		return "has quotes"
	}
	return ""
}

// hostPort is where the agent of an http or https address listens.
func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := map[string]string{"http": "8500", "https": "8501"}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), port)
}
