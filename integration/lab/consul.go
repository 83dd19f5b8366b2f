package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// consulPort is where a site's host of Consul answers HTTP: its only server, or where there
// are several an agent of theirs, which all other hosts ask. Servers are behind it, each with
// consulStep ports.
const (
	consulPort = 8500
	consulStep = 10
	consulHost = 0xf1 // number of its locator, within its site
)

// consulServer is one process of Consul.
type consulServer struct {
	name    string
	port    int // HTTP; the next ones are RPC and Serf
	server  bool
	running *netlab.Process
}

// consulBinary is the Consul that .ci/consul has built, or one that is installed.
func consulBinary() (string, error) {
	if dir, err := moduleDir(); err == nil {
		script := filepath.Join(dir, ".ci", "consul")
		if found, err := exec.Command(script, "find").Output(); err == nil {
			return strings.TrimSpace(string(found)), nil
		}
	}
	return exec.LookPath("consul")
}

// bootConsul starts a site's servers, and waits until they have a leader.
func (l *lab) bootConsul(h *host) {
	if h.consul == nil {
		for i := range h.site.Consul {
			h.consul = append(h.consul, &consulServer{name: fmt.Sprintf("server%d", i+1), port: consulPort + (i+1)*consulStep, server: true})
		}
		if len(h.consul) == 1 {
			h.consul[0].port = consulPort
		} else {
			h.consul = append(h.consul, &consulServer{name: "agent", port: consulPort})
		}
	}
	for _, c := range h.consul {
		l.runConsul(h, c)
	}
	l.eventually("consul on "+h.name, func() (bool, string) {
		leader, err := h.leader()
		return err == nil && leader != nil, fmt.Sprintf("%v\n%s", err, h.logs())
	})
	l.putSites(h)
}

// sitePrefix is that of keys of other sites in Consul.
const sitePrefix = "razor/sites/"

// putSites has the sites in Consul of one of them: the others as that one sees them, and
// itself.
func (l *lab) putSites(h *host) {
	must(h.putConsul(sitePrefix+h.site.Name, "this site"))
	for i, o := range l.nearest(h.site) {
		must(h.putConsul(sitePrefix+o.Name, fmt.Sprintf("{locators: \"%s\", gateways: [%s], distance: %d}", o.locators(), locators(o.gateways), i+1)))
	}
}

// runConsul starts a server, or starts it again with the data that it had.
func (l *lab) runConsul(h *host, c *consulServer) {
	var join []string
	for _, o := range h.consul {
		if o != c && o.server {
			join = append(join, strconv.Quote(net.JoinHostPort(h.address().String(), strconv.Itoa(o.port+2))))
		}
	}
	expect := ""
	if c.server {
		expect = fmt.Sprintf("bootstrap_expect = %d", h.site.Consul)
	}
	h.put(c.name+".hcl", fmt.Sprintf(`node_name = "%s-%s"
datacenter = "%s"
data_dir = "%s"
server = %t
%s
bind_addr = "%s"
client_addr = "%s"
log_level = "warn"
disable_update_check = true
leave_on_terminate = false
performance { raft_multiplier = 1 }
limits { http_max_conns_per_client = 4000 }
ports { http = %d, server = %d, serf_lan = %d, serf_wan = -1, https = -1, dns = -1, grpc = -1, grpc_tls = -1 }
retry_interval = "100ms"
retry_join = [%s]
`, h.name, c.name, h.site.Name, h.file(c.name+"-data"), c.server, expect, h.address(), h.address(), c.port, c.port+1, c.port+2, strings.Join(join, ", ")))
	h.run(l.consul, "agent", "-config-file", h.file(c.name+".hcl"))
	c.running = h.running[len(h.running)-1]
}

// consulAddress is where the hosts of a site ask Consul.
func (s *site) consulAddress() string {
	return "http://" + net.JoinHostPort(s.consul.address().String(), strconv.Itoa(consulPort))
}

// leader is the server that leads, as the one that all hosts ask says; nil if it knows none.
func (h *host) leader() (*consulServer, error) {
	var address string
	if err := h.askConsul("/v1/status/leader", &address); err != nil || address == "" {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, c := range h.consul {
		if c.server && strconv.Itoa(c.port+1) == port {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%s leads, which is no server here", address)
}

// askConsul reads an answer of the API.
func (h *host) askConsul(path string, into any) error {
	return h.callConsul(http.MethodGet, path, "", into)
}

// putConsul writes a key.
func (h *host) putConsul(key, value string) error {
	var done bool
	err := h.callConsul(http.MethodPut, "/v1/kv/"+key, value, &done)
	if err == nil && !done {
		err = fmt.Errorf("consul on %s does not write %s", h.name, key)
	}
	return err
}

// callConsul reads the answer to a request.
func (h *host) callConsul(method, path, body string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: h.node.Dial, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, method, h.site.consulAddress()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 200))
		return fmt.Errorf("consul on %s: %s: %s", h.name, answer.Status, text)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// failConsul kills the server that leads at each of the sites.
func (l *lab) failConsul(sites []string) {
	for _, name := range sites {
		h := l.site(name).consul
		if h == nil || h.lost {
			must(fmt.Errorf("site %s has no consul", name))
		}
		leader, err := h.leader()
		must(err)
		if leader == nil {
			must(fmt.Errorf("no server leads at %s", name))
		}
		leader.running.Kill()
	}
}

// mendConsul starts servers again that were killed.
func (l *lab) mendConsul(h *host) {
	for _, c := range h.consul {
		if !c.running.Alive() {
			l.runConsul(h, c)
		}
	}
}

// healths are those of a service in Consul, by the locators of its backends.
func (h *host) healths(service string) (map[string]string, error) {
	var entries []struct {
		Service struct{ Meta map[string]string }
		Checks  []struct{ Status string }
	}
	if err := h.askConsul("/v1/health/service/"+service, &entries); err != nil {
		return nil, err
	}
	rank := []string{"passing", "warning", "critical"}
	out := map[string]string{}
	for _, e := range entries {
		worst := 0
		for _, c := range e.Checks {
			worst = max(worst, slices.Index(rank, c.Status))
		}
		out[e.Service.Meta["locator"]] = rank[worst]
	}
	return out, nil
}

// decides are the gateways of a site that decide: one, of those that run.
func (l *lab) decides(s *site) (out []*host, saw string) {
	var seen []string
	for _, g := range s.gateways {
		if g.lost {
			continue
		}
		status, err := l.status(g)
		if err != nil {
			seen = append(seen, fmt.Sprintf("%s: %v", g.name, err))
			continue
		}
		if decides(g, status) {
			out = append(out, g)
		}
		if status.Decider != nil {
			seen = append(seen, fmt.Sprintf("%s: %+v", g.name, *status.Decider))
		}
	}
	return out, strings.Join(seen, "; ")
}

// decides tells whether a gateway does: where no lock says who, the first one of a site.
func decides(g *host, s gateway.Status) bool {
	if s.Decider != nil {
		return s.Decider.Decides
	}
	return g == g.site.gateways[0]
}
