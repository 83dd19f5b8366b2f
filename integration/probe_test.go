package integration

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/steering"
)

// startProbe runs a probe until the test ends, which measures all the time and is
// patient with a busy machine.
func startProbe(tb testing.TB, cfg probe.Config) *probe.Prober {
	tb.Helper()
	cfg.Name, cfg.Interval, cfg.Timeout, cfg.HoldDown = "test", 20*time.Millisecond, 10*time.Second, time.Millisecond
	cfg.Defaults()
	p, err := probe.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Run(ctx)
	}()
	tb.Cleanup(func() { cancel(); <-done })
	return p
}

// awaitHealth waits for a health whose last measurement failed by, or not.
func awaitHealth(tb testing.TB, p *probe.Prober, want steering.Health, failure string) {
	tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := p.Status()
		if s.Health == want && strings.Contains(s.Last.Failure, failure) {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("never %v by %q: %+v", want, failure, s)
		}
	}
}

// TestProbeRazor: the queries by which a gateway knows that its razor answers.
func TestProbeRazor(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	n := start(t, redis.Addr, nil)
	query := func(name, qtype, transport string) *probe.Prober {
		return startProbe(t, probe.Config{Kind: "dns", Target: n.addr, Query: name, Type: qtype, Transport: transport, Expect: "records"})
	}
	zone, stream, route := query("z.test", "SOA", "udp"), query("z.test", "SOA", "tcp"), query("node.z.test", "A", "udp")
	all := []*probe.Prober{zone, stream, route}
	for _, p := range all {
		awaitHealth(t, p, steering.HealthDown, "rcode ") // no zone to answer for
	}
	redis.DoArgs("SADD", "node.z.test:A", "192.0.2.1")
	redis.DoArgs("HSET", "z.test:CONFIG", "SOA", "ns.z.test. host.z.test. 1 7200 1800 86400 60")
	redis.DoArgs("HSET", "node.z.test:CONFIG", "SOA", "ns.z.test. host.z.test. 1 7200 1800 86400 60")
	for _, p := range all {
		awaitHealth(t, p, steering.HealthUp, "")
	}
	redis.DoArgs("SREM", "node.z.test:A", "192.0.2.1")
	awaitHealth(t, route, steering.HealthDown, "no record of type A")
	awaitHealth(t, zone, steering.HealthUp, "")
	n.stop()
	for _, p := range all {
		awaitHealth(t, p, steering.HealthDown, "connection refused")
	}
	start(t, redis.Addr, func(c *razor.Config) { c.Listen = []string{n.addr} })
	awaitHealth(t, zone, steering.HealthUp, "")
	awaitHealth(t, stream, steering.HealthUp, "")
}

// TestProbeNginx: a server that would keep every connection.
func TestProbeNginx(t *testing.T) {
	t.Parallel()
	path, dir, port := program(t, "nginx"), t.TempDir(), redistest.FreePort(t)
	target := net.JoinHostPort("::1", strconv.Itoa(port))
	query := func(path, body string) *probe.Prober {
		return startProbe(t, probe.Config{Kind: "http", Target: target, Host: "www.example.org", Path: path, Body: body})
	}
	well, moved := query("/well?a=b", "well at www.example.org"), query("/moved", "")
	t.Run("running", func(t *testing.T) {
		cfg := writeFile(t, filepath.Join(dir, "nginx.conf"), "daemon off;\nmaster_process off;\npid "+filepath.Join(dir, "pid")+`;
error_log stderr;
events {}
http {
	access_log off;
	keepalive_timeout 1h;
	client_body_temp_path `+dir+`/body; proxy_temp_path `+dir+`/proxy; fastcgi_temp_path `+dir+`/fastcgi;
	uwsgi_temp_path `+dir+`/uwsgi; scgi_temp_path `+dir+`/scgi;
	server {
		listen `+target+`;
		location = /well { return 200 "well at $http_host"; }
		location = /moved { return 301 /well; }
	}
}
`)
		startProxy(t, dir, port, path, "-c", cfg, "-p", dir, "-e", "stderr")
		awaitHealth(t, well, steering.HealthUp, "")
		awaitHealth(t, moved, steering.HealthDown, "status 301 instead of 200")
	})
	awaitHealth(t, well, steering.HealthDown, "connection refused")
}
