package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

func testProcess() process {
	return process{log: slog.New(slog.DiscardHandler), registry: newRegistry(), ready: newReadiness(), pages: http.NewServeMux()}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	p := testProcess()
	h := newHandler(p)
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		return w.Code, w.Body.String()
	}
	for _, tt := range []struct {
		name         string
		change       func()
		method, path string
		status       int
		body         string
	}{
		{"alive before it is ready", func() {}, "GET", "/healthz", 200, "ok\n"},
		{"not ready at first", func() {}, "GET", "/readyz", 503, "starting\n"},
		{"ready", func() { p.ready.set(true, "serving") }, "GET", "/readyz", 200, "serving\n"},
		{"not ready any more", func() { p.ready.set(false, "no lists") }, "GET", "/readyz", 503, "no lists\n"},
		{"HEAD", func() {}, "HEAD", "/healthz", 200, "ok\n"},
		{"nothing is written", func() {}, "POST", "/readyz", 405, "Method Not Allowed\n"},
		{"nothing else is there", func() {}, "GET", "/debug/pprof/", 404, "404 page not found\n"},
	} {
		tt.change()
		if status, body := ask(tt.method, tt.path); status != tt.status || body != tt.body {
			t.Errorf("%s: %d %q, want %d %q", tt.name, status, body, tt.status, tt.body)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	p := testProcess()
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	for _, want := range []string{"razor_build_info", "go_goroutines", "process_open_fds"} {
		if series[want] != 1 {
			t.Errorf("%s: %d series", want, series[want])
		}
	}
	// A broken metric hides itself alone.
	p.registry.MustRegister(brokenMetric{})
	w := httptest.NewRecorder()
	newHandler(p).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `razor_build_info{go_version="go`) {
		t.Errorf("%d %.200s", w.Code, w.Body.String())
	}
}

type brokenMetric struct{}

func (brokenMetric) Describe(ch chan<- *prometheus.Desc) {
	ch <- prometheus.NewDesc("razor_broken", "Broken.", nil, nil)
}

func (brokenMetric) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("razor_broken", "Broken.", nil, nil), context.Canceled)
}

func TestServeHTTP(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w, err := listenHTTP(ctx, endpoint{"http.listen", addr}, testProcess())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.serve(ctx) }()
	if status, body, err := get("http://" + addr + "/healthz"); status != http.StatusOK || body != "ok\n" || err != nil {
		t.Errorf("%d %q %v", status, body, err)
	}

	_, err = listenHTTP(ctx, endpoint{"http.listen", addr}, testProcess())
	want := upstreams.Defect{Key: "http.listen", Member: addr, Reason: "port in use", Want: "a free port, or the other server stopped"}
	if got, ok := errors.AsType[upstreams.Defect](err); !ok || got != want {
		t.Errorf("second listener: %v", err)
	}

	// A client that says nothing does not hold the end up for long.
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("still listening")
	}
}
