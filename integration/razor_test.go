// Package integration tests Razor against the servers that it runs beside.
package integration

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
)

// nameserver is a razor under test.
type nameserver struct {
	tb       testing.TB
	addr     string // UDP and TCP
	stateDir string
	registry *prometheus.Registry
	log      *syncBuffer
	stop     func()

	mu    sync.Mutex
	ready bool
	state string
}

// syncBuffer is a log that the test may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// patience bounds the wait for what takes milliseconds on an idle machine, or half
// a minute where Redis does not name what it does.
const patience = time.Minute

// start runs razor on a free port of loopback until the test ends or stop is
// called. Settings are changed by edit.
func start(tb testing.TB, redis string, edit func(*razor.Config)) *nameserver {
	tb.Helper()
	return startWith(tb, upstreams.Config{Address: redis}, edit)
}

// startWith is start for a Redis that takes more than an address.
func startWith(tb testing.TB, redis upstreams.Config, edit func(*razor.Config)) *nameserver {
	tb.Helper()
	n := &nameserver{tb: tb, addr: freeAddr(tb), registry: prometheus.NewRegistry(), log: &syncBuffer{}}
	cfg := razor.Config{Listen: []string{n.addr}, StateDir: tb.TempDir()}
	if edit != nil {
		edit(&cfg)
	}
	cfg.Defaults()
	n.addr, n.stateDir = cfg.Listen[0], cfg.StateDir
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- razor.Run(ctx, cfg, redis, slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})), n.registry, n.report)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Errorf("razor: %v", err)
			}
		case <-time.After(10 * time.Second):
			tb.Error("razor does not stop")
		}
		if tb.Failed() {
			tb.Logf("razor's log:\n%s", n.log)
		}
	})
	tb.Cleanup(n.stop)
	n.until("it listens", func() bool {
		c, err := net.Dial("tcp", n.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return n
}

// startReady waits until it answers from lists.
func startReady(tb testing.TB, redis string, edit func(*razor.Config)) *nameserver {
	tb.Helper()
	n := start(tb, redis, edit)
	n.awaitReady()
	return n
}

func (n *nameserver) awaitReady() {
	n.tb.Helper()
	n.until("ready", func() bool { ok, _ := n.readiness(); return ok })
}

func (n *nameserver) report(ok bool, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ready, n.state = ok, state
}

func (n *nameserver) readiness() (bool, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready, n.state
}

func (n *nameserver) until(what string, ok func() bool) {
	n.tb.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			n.tb.Fatalf("waiting until %s: timed out\n%s", what, n.log)
		}
		time.Sleep(time.Millisecond)
	}
}

// ask sends one query over UDP.
func (n *nameserver) ask(name, qtype string, edit ...func(*dns.Msg)) *dns.Msg {
	n.tb.Helper()
	m, err := n.exchange("udp", question(name, qtype, edit...))
	if err != nil {
		n.tb.Fatalf("%s %s: %v\n%s", name, qtype, err, n.log)
	}
	return m
}

func question(name, qtype string, edit ...func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	for _, e := range edit {
		e(m)
	}
	return m
}

func (n *nameserver) exchange(network string, m *dns.Msg) (*dns.Msg, error) {
	c := dns.Client{Net: network, Timeout: 3 * time.Second, UDPSize: 4096}
	r, _, err := c.Exchange(m, n.addr)
	return r, err
}

// addresses are the A and AAAA rdata of an answer.
func addresses(m *dns.Msg) []netip.Addr {
	var out []netip.Addr
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			out = append(out, a)
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			out = append(out, a)
		}
	}
	return out
}

// outcome is an answer in one line: rcode and sorted rdata, "SOA" where a
// negative answer carries it.
func outcome(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	var data []string
	for _, rr := range m.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	words = append(words, data...)
	for _, rr := range m.Ns {
		words = append(words, "("+dns.TypeToString[rr.Header().Rrtype]+")")
	}
	return strings.Join(words, " ")
}

// subnet adds an EDNS client subnet.
func subnet(text string) func(*dns.Msg) {
	return func(m *dns.Msg) {
		p := netip.MustParsePrefix(text)
		e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
		if p.Addr().Is4() {
			e.Family = 1
		}
		opt := m.SetEdns0(1232, false).IsEdns0()
		opt.Option = append(opt.Option, e)
	}
}

// eventually waits for an answer.
func (n *nameserver) eventually(name, qtype, want string, edit ...func(*dns.Msg)) {
	n.tb.Helper()
	var got string
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if got = outcome(n.ask(name, qtype, edit...)); got == want {
			return
		}
		time.Sleep(time.Millisecond)
	}
	n.tb.Fatalf("%s %s: got %q, want %q\n%s", name, qtype, got, want, n.log)
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(tb)))
}

// metric is the value of a series, as the registry writes it without labels.
func (n *nameserver) metric(name string, labels ...string) float64 {
	n.tb.Helper()
	families, err := n.registry.Gather()
	if err != nil {
		n.tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var words []string
			for _, l := range m.GetLabel() {
				words = append(words, fmt.Sprintf("%s=%s", l.GetName(), l.GetValue()))
			}
			if len(labels) > 0 && !slices.Equal(words, labels) {
				continue
			}
			switch {
			case m.Gauge != nil:
				return m.Gauge.GetValue()
			case m.Counter != nil:
				return m.Counter.GetValue()
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return -1
}
