package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/razor-steering/razor/integration/netlab"
)

// Secrets of a network that no packet leaves.
var (
	flowKey = strings.Repeat("5e", 16)
	keyFile = "1: " + strings.Repeat("a5", 32)
)

// startHosts starts what runs on all hosts, at once.
func (l *lab) startHosts() {
	var starts []func()
	for _, h := range l.hosts() {
		starts = append(starts, func() { l.boot(h) })
	}
	parallel(starts...)
}

// boot starts all that is to run on a host.
func (l *lab) boot(h *host) {
	switch h.role {
	case roleBackend:
		if l.topology.overlay() {
			h.leave(l.exits())
		}
		h.put("dataplane.keys", keyFile)
		h.put("razor.yaml", l.backendConfig(h))
		h.put("nginx.conf", h.nginx())
		h.serve()
		l.runRazor(h, "agent", "--config", h.file("razor.yaml"))
		h.agent = h.running[len(h.running)-1]
	case roleGateway:
		h.put("dataplane.keys", keyFile)
		h.put("flow.key", flowKey)
		h.put("razor.yaml", l.gatewayConfig(h))
		l.runRazor(h, "gateway", "--config", h.file("razor.yaml"))
	case roleServices:
		l.bootServices(h)
	case roleConsul:
		l.bootConsul(h)
	}
}

// put writes a file that nobody else may read.
func (h *host) put(name, text string) { must(os.WriteFile(h.file(name), []byte(text), 0o600)) }

func (h *host) run(program string, args ...string) {
	h.running = append(h.running, h.node.Start(program, args...))
}

// serve starts the service of a backend.
func (h *host) serve() {
	h.run("prlimit", "--nofile=16384", "nginx", "-c", h.file("nginx.conf"), "-p", h.node.Dir)
	h.web, h.ill = h.running[len(h.running)-1], false
}

// fall ends the service of a backend, whose agent notices it.
func (h *host) fall() {
	h.web.Kill()
	h.ill = true
}

// kill ends all that runs on the host, at once.
func (h *host) kill() {
	for _, p := range h.running {
		p.Kill()
	}
	h.running = nil
}

// pinned is where what outlives the host's processes is.
func (l *lab) pinned(h *host) string { return filepath.Join(l.pins, h.name) }

// lose has the host lose its power: it is not there any more, and knows nothing when it
// comes back.
func (l *lab) lose(h *host) {
	h.link.Down()
	h.kill()
	h.node.Run("ip", "-6", "route", "flush", "table", "local", "proto", "static") // what razor took for itself
	must(os.RemoveAll(l.pinned(h)))
	h.lost = true
}

// mend has the host be there again.
func (l *lab) mend(h *host) {
	h.link.Up()
	l.route(h)
	l.boot(h)
	h.lost = false
}

// nginx is its configuration: it says its host's name, as often as it is asked on a
// connection. One process is all of it.
func (h *host) nginx() string {
	return fmt.Sprintf(`daemon off; master_process off; user root; pid %[1]s/nginx.pid; error_log stderr;
events { worker_connections 8192; }
http {
  access_log off; keepalive_timeout 1h; keepalive_requests 1000000000; lingering_close off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen [::]:80 ipv6only=on backlog=4096; listen 80 backlog=4096; location / { return 200 "%[2]s\n"; } }
}
`, h.node.Dir, h.name)
}

// backendConfig is razor.yaml of a backend.
func (l *lab) backendConfig(h *host) string {
	more := ""
	switch {
	case h.lies != "":
		more = fmt.Sprintf("\n  load: {measure: probe, capacity: %d, probe: {kind: exec, command: [/bin/echo, \"%s\"]}}", h.site.Capacity, h.lies)
	case h.site.Capacity > 0:
		more = fmt.Sprintf("\n  load: {measure: connections, capacity: %d}", h.site.Capacity)
	}
	if h.site.consul != nil {
		more += fmt.Sprintf("\n  consul: {address: \"%s\", site: %s, services: [{service: web}]}", h.site.consulAddress(), h.site.Name)
	}
	return fmt.Sprintf(`agent:
  interfaces: [eth0]
  sr_block: "%s"
  key_file: %s
  pins: %s
  state_dir: %s
  vips: [%s, "%s"]
  gateways: [%s]
  report_interval: 1s # a small machine has many hosts here, and may keep them waiting
  probes:
    - probe: {name: web, kind: http, target: "[::1]:80", interval: 1s, hold_down: 1s}%s
`, block, h.file("dataplane.keys"), l.pinned(h), h.file("state"), vip4, vip6, locators(h.site.gateways), more)
}

// locators are those of hosts, as a list in YAML has them.
func locators(hosts []*host) string {
	return strings.Join(called(hosts, func(h *host) string { return `"` + locator(h.number).String() + `"` }), ", ")
}

// gatewayConfig is razor.yaml of a gateway.
func (l *lab) gatewayConfig(h *host) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	s := h.site
	line("gateway:\n  name: %s\n  site: %s\n  state_dir: %s\n  drain: {converge: 500ms, settle: 200ms}", h.name, s.Name, h.file("state"))
	line("  allowed: [198.51.100.0/24, \"2001:db8:ffff::/48\"]")
	if s.services != nil {
		line("  lists: true\n  health: {report: true}")
	}
	if exits := l.exits(); len(exits) > 0 {
		line("  bgp:\n    peers:")
		for _, r := range exits {
			line("      - {name: %s, address: \"%s\", bfd: {interval: %dms, multiplier: %d}}", r.name, r.gate, bfdInterval, bfdMultiplier)
		}
	} else {
		line("  bgp: {unnumbered: [eth0]}")
	}
	line("  announce:\n    - {set: web, prefixes: [%s, \"%s\"]}\n    - {from: node}", vip4, vip6)
	line("  dataplane:\n    interfaces: [eth0]\n    max_services: 2\n    sr_block: \"%s\"", block)
	line("    flow_key_file: %s\n    key_file: %s\n    pins: %s", h.file("flow.key"), h.file("dataplane.keys"), l.pinned(h))
	line("    tables_listen: \"%s\"", tables(h))
	mates := slices.DeleteFunc(slices.Clone(s.gateways), func(o *host) bool { return o == h })
	switch {
	case s.consul != nil:
		line("    consul_lock: razor/%s/decider", s.Name)
	case h != s.gateways[0]:
		line("    follow: \"%s\"", tables(s.gateways[0]))
	}
	if len(mates) > 0 && (h == s.gateways[0] || s.consul != nil) {
		line("    mates: [%s]", strings.Join(called(mates, func(h *host) string { return fmt.Sprintf("%q", tables(h)) }), ", "))
	}
	if s.consul != nil {
		line("  consul: {address: \"%s\"}", s.consulAddress())
	}
	line("  services:\n    - name: web\n      vips: [\"%s:80/tcp\", \"[%s]:80/tcp\"]", vip4, vip6)
	if s.MinHealthy != nil {
		line("      min_healthy: %v", *s.MinHealthy)
	}
	if s.SlowStart > 0 {
		line("      slow_start: %v", s.SlowStart)
	}
	switch {
	case s.consul != nil:
		line("      consul: {service: web, site: %s}", s.Name)
	case len(s.backends) > 0:
		line("      backends:")
		for _, b := range s.backends {
			line("        - {name: %s, locator: \"%s\"}", b.name, locator(b.number))
		}
	}
	if len(s.Spill) > 0 {
		line("      spill:")
	}
	for _, to := range s.Spill {
		line("        - {site: %s, share: %v}", to.To, to.Share)
	}
	switch {
	case s.consul != nil:
		line("  consul_sites: {prefix: %s}", sitePrefix)
	case len(l.sites) > 1:
		line("  sites:")
		for _, o := range l.nearest(s) {
			line("    - {name: %s, locators: \"%s\", gateways: [%s]}", o.Name, o.locators(), locators(o.gateways))
		}
	}
	if s.services != nil {
		line("redis: {address: \"%s\"}", netip.AddrPortFrom(s.services.address(), redisPort))
	}
	line("http: {gateway: \"%s\"}", httpAddress)
	return b.String()
}

// httpAddress is where a gateway has its metrics and pages, on its host.
const httpAddress = "[::1]:8055"

// tables is where a gateway's mates copy from.
func tables(h *host) string { return fmt.Sprintf("[%s]:5206", h.near) }

// nearest are the other sites with gateways: those that a cable leads to first, then as
// they stand in the file.
func (l *lab) nearest(s *site) (out []*site) {
	var far []*site
	for _, o := range l.sites {
		switch {
		case o == s || len(o.gateways) == 0:
		case slices.ContainsFunc(l.cables, func(c *cable) bool { return c.a == s && c.b == o || c.a == o && c.b == s }):
			out = append(out, o)
		default:
			far = append(far, o)
		}
	}
	return append(out, far...)
}

// logs is the end of what the programs on a host wrote.
func (h *host) logs() string {
	var b strings.Builder
	seen := map[*netlab.Process]bool{}
	for _, p := range h.running {
		if seen[p] {
			continue
		}
		seen[p] = true
		text := strings.TrimSpace(p.Log())
		lines := strings.Split(text, "\n")
		fmt.Fprintf(&b, "%s\n", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	return b.String()
}
