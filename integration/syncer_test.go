package integration

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// syncer is a razor sync under test.
type syncer struct {
	*consul.Sync
	tb       testing.TB
	log      *syncBuffer
	registry *prometheus.Registry
	stop     func()

	mu    sync.Mutex
	state string
}

// syncConfig keeps some lists, written "app=service".
func syncConfig(address string, lists ...string) consul.Config {
	cfg := consul.Config{Consul: consul.AgentConfig{Address: "http://" + address}}
	for _, l := range lists {
		app, service, _ := strings.Cut(l, "=")
		cfg.Lists = append(cfg.Lists, consul.ListConfig{App: app, Service: service})
	}
	return cfg
}

// newSync makes a sync that does not run yet.
func newSync(tb testing.TB, cfg consul.Config, redis upstreams.Config) *syncer {
	tb.Helper()
	cfg.Defaults()
	if bad := cfg.Check(); len(bad) > 0 {
		tb.Fatal(bad)
	}
	s := &syncer{tb: tb, log: &syncBuffer{}, registry: prometheus.NewPedanticRegistry()}
	var err error
	if s.Sync, err = consul.New(cfg, redis, slog.New(slog.NewTextHandler(s.log, nil)), s.registry); err != nil {
		tb.Fatal(err)
	}
	return s
}

// startSync runs one until the test ends or stop is called.
func startSync(tb testing.TB, cfg consul.Config, redis string) *syncer {
	tb.Helper()
	return startSyncAs(tb, cfg, upstreams.Config{Address: redis})
}

// startSyncAs is startSync with an account of Redis.
func startSyncAs(tb testing.TB, cfg consul.Config, redis upstreams.Config) *syncer {
	tb.Helper()
	s := newSync(tb, cfg, redis)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, s.report) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("sync: %v", err)
			}
		case <-time.After(10 * time.Second):
			tb.Error("the sync does not stop")
		}
		if tb.Failed() {
			tb.Logf("sync's log:\n%s", s.log)
		}
	})
	tb.Cleanup(s.stop)
	return s
}

func (s *syncer) report(_ bool, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

func (s *syncer) says() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *syncer) until(what string, ok func() bool) {
	s.tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.tb.Fatalf("waiting until %s: timed out; it says %q\n%s", what, s.says(), s.log)
		}
		time.Sleep(time.Millisecond)
	}
}

// members are those of an upstream list, sorted.
func members(r *redistest.Server, app string) []string {
	out := r.Client.SMembers(context.Background(), app+":UPSTREAMS").Val()
	slices.Sort(out)
	return out
}

// has waits until the list has just these members.
func (s *syncer) has(r *redistest.Server, app string, want ...string) {
	s.tb.Helper()
	s.until(fmt.Sprintf("%s has %q", app, want), func() bool { return slices.Equal(members(r, app), want) })
}

// metric is the value of a series, such as `razor_sync_held{app="x"}`.
func (s *syncer) metric(series string) string {
	s.tb.Helper()
	var b bytes.Buffer
	families, err := s.registry.Gather()
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := f.GetName()
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			fmt.Fprintf(&b, "%s %v\n", name, m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	for line := range strings.Lines(b.String()) {
		if v, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func addrPort(n int) netip.AddrPort {
	return netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%x]:80", n))
}

func addrPorts(n int) []netip.AddrPort {
	var out []netip.AddrPort
	for i := range n {
		out = append(out, addrPort(i+1))
	}
	return out
}
