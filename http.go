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

// httpConfig is the `http:` section.
type httpConfig struct {
	// Listen is the address of /metrics, /healthz and /readyz.
	Listen string `yaml:"listen"`
}

func (c *httpConfig) defaults() {
	if c.Listen == "" {
		c.Listen = "[::1]:8053"
	}
}

// check lists what is wrong with the section; dns are the addresses that the
// nameserver takes, with UDP and TCP.
func (c *httpConfig) check(dns []string) []upstreams.Defect {
	bad := func(reason, want string) []upstreams.Defect {
		return []upstreams.Defect{{Key: "http.listen", Member: c.Listen, Reason: reason, Want: want}}
	}
	addr, err := netip.ParseAddrPort(c.Listen)
	if err != nil || addr.Port() == 0 {
		return bad("not an address and port", `"[::1]:8053" or "127.0.0.1:8053"`)
	}
	for i, l := range dns {
		if other, err := netip.ParseAddrPort(l); err == nil && other == addr {
			return bad("also dns.listen["+strconv.Itoa(i)+"]", "a port of its own")
		}
	}
	return nil
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
// is a Defect of http.listen.
func listenHTTP(ctx context.Context, cfg httpConfig, p process) (*web, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, upstreams.BindDefect("http.listen", cfg.Listen, err)
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

// newHandler is what the HTTP server answers.
func newHandler(p process) http.Handler {
	mux := http.NewServeMux()
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
