package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/razor-steering/razor/upstreams"
)

// httpConfig is the `http:` section: where each role has /metrics, /healthz and
// /readyz.
type httpConfig struct {
	Listen  string `yaml:"listen"`  // razor dns
	Sync    string `yaml:"sync"`    // razor sync
	Gateway string `yaml:"gateway"` // razor gateway
	Agent   string `yaml:"agent"`   // razor agent
}

// An endpoint is the address of one role's HTTP server, and the setting that has it.
type endpoint struct{ key, address string }

func (c *httpConfig) defaults() {
	for _, d := range []struct {
		setting *string
		address string
	}{{&c.Listen, "[::1]:8053"}, {&c.Sync, "[::1]:8054"}, {&c.Gateway, "[::1]:8055"}, {&c.Agent, "[::1]:8056"}} {
		if *d.setting == "" {
			*d.setting = d.address
		}
	}
}

func (c *httpConfig) dns() endpoint     { return endpoint{"http.listen", c.Listen} }
func (c *httpConfig) sync() endpoint    { return endpoint{"http.sync", c.Sync} }
func (c *httpConfig) gateway() endpoint { return endpoint{"http.gateway", c.Gateway} }
func (c *httpConfig) agent() endpoint   { return endpoint{"http.agent", c.Agent} }

// check lists what is wrong with the section; dns are the addresses that the
// nameserver takes, with UDP and TCP.
func (c *httpConfig) check(dns []string) []upstreams.Defect {
	var out []upstreams.Defect
	taken := map[netip.AddrPort]string{}
	for i, l := range dns {
		if addr, err := netip.ParseAddrPort(l); err == nil {
			taken[addr] = "dns.listen[" + strconv.Itoa(i) + "]"
		}
	}
	for _, e := range []endpoint{c.dns(), c.sync(), c.gateway(), c.agent()} {
		bad := func(reason, want string) {
			out = append(out, upstreams.Defect{Key: e.key, Member: e.address, Reason: reason, Want: want})
		}
		addr, err := netip.ParseAddrPort(e.address)
		switch other := taken[addr]; {
		case err != nil || addr.Port() == 0:
			bad("not an address and port", `"[::1]:8053" or "127.0.0.1:8053"`)
		case other != "":
			bad("also "+other, "a port of its own")
		}
		taken[addr] = e.key
	}
	return out
}

// newRegistry is the metrics of one process.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "razor_build_info",
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second // of a whole answer: a scrape with profiling off is far below
	idleTimeout   = time.Minute
	closeTimeout  = 2 * time.Second // for answers under way at the end
)

// A web is the HTTP server for those who watch the process.
type web struct {
	listener net.Listener
	server   *http.Server
}

// listenHTTP opens the listener; serve answers on it. A port that cannot be had
// is a Defect of the setting.
func listenHTTP(ctx context.Context, e endpoint, p process) (*web, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", e.address)
	if err != nil {
		return nil, upstreams.BindDefect(e.key, e.address, err)
	}
	return &web{listener: ln, server: &http.Server{
		Handler:           newHandler(p),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}}, nil
}

// newHandler is what the HTTP server answers, beside the pages of the role.
func newHandler(p process) http.Handler {
	mux := p.pages
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{
		Registry:            p.registry,
		ErrorLog:            slog.NewLogLogger(p.log.Handler(), slog.LevelError),
		ErrorHandling:       promhttp.ContinueOnError, // one broken metric must not hide the others
		MaxRequestsInFlight: 4,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ok, text := p.ready.get()
		if !ok {
			plain(w, http.StatusServiceUnavailable, text)
			return
		}
		plain(w, http.StatusOK, text)
	})
	return mux
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a client that went away is not our trouble
}

// serve answers until ctx ends, then lets answers under way finish.
func (w *web) serve(ctx context.Context) error {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if w.server.Shutdown(closing) != nil {
			_ = w.server.Close()
		}
	})
	err := w.server.Serve(w.listener)
	if stop() {
		return err // the listener broke, nobody asked for the end
	}
	<-closed
	return nil
}
