package gateway

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// aMate is a keeper of a balancer without interfaces, with its part in a site.
func aMate(t *testing.T, key string, log *slog.Logger) *mates {
	t.Helper()
	testhost.NeedsRoot(t)
	b, err := balancer.Load(balancer.Options{Services: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	k, err := balancer.NewKeeper(b, log, time.Now(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	return newMates(k, []byte(key), log)
}

// has applies a plan with one service, whose only backend gets no flows: nobody finds
// the way to one here.
func (m *mates) has(t *testing.T, name string) {
	t.Helper()
	s := balancer.PlannedService{Service: balancer.Service{Name: name}, Backends: []balancer.PlannedBackend{
		{Name: "b1", SID: netip.MustParseAddr("2001:db8:5e:1:5201::"), State: balancer.Active},
	}}
	if err := m.keeper.Apply(balancer.Plan{Services: []balancer.PlannedService{s}}, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// A mate hears of each change at once, and nobody without the flow key hears or tells.
func TestMates(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	var said logged
	decider, mate := aMate(t, "a flow key", quiet), aMate(t, "a flow key", slog.New(slog.NewTextHandler(&said, nil)))
	decider.has(t, "web")
	mate.keeper.Follow()
	mate.has(t, "web")
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served, followed := make(chan error, 1), make(chan struct{})
	go func() { served <- decider.serve(ctx, l) }()
	at := l.Addr().String()

	first, ok, err := mate.fetch(ctx, at, steering.PlanNumber{})
	if err != nil || !ok || len(first.Services) != 1 {
		t.Fatalf("first copy: %v, %v", ok, err)
	}
	if _, _, err := aMate(t, "another key", quiet).fetch(ctx, at, steering.PlanNumber{}); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("with another key: %v", err)
	}
	resp, err := http.Get("http://" + at + tablesPath + "?after=0.0&nonce=x")
	if err != nil {
		t.Fatal(err)
	}
	if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a stranger: %s", resp.Status)
	}
	_ = resp.Body.Close()

	go func() { mate.follow(ctx, at, steering.PlanNumber{}); close(followed) }()
	copied := func(number steering.PlanNumber) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(said.String(), "plan="+number.String()); {
			if time.Now().After(deadline) {
				t.Fatalf("the mate did not copy %v: %s", number, said.String())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	copied(first.Plan)
	decider.has(t, "web")
	next, _ := decider.keeper.Number()
	copied(next)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	<-followed
}

// logged is what was logged, by any goroutine.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An answer that somebody else wrote, or an old one, is not believed.
func TestForgedTables(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	mate := aMate(t, "a flow key", quiet)
	old := ""
	forger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := `{"plan":{"Term":9,"Sequence":1},"services":[]}`
		if old == "" {
			old = mate.mac("tell", r.URL.Query().Get("nonce"), body)
		}
		w.Header().Set(macHeader, old)
		_, _ = io.WriteString(w, body)
	}))
	defer forger.Close()
	at := forger.Listener.Addr().String()
	if _, ok, err := mate.fetch(t.Context(), at, steering.PlanNumber{}); err != nil || !ok {
		t.Fatal(err)
	}
	if _, _, err := mate.fetch(t.Context(), at, steering.PlanNumber{}); err == nil || !strings.Contains(err.Error(), "not of a mate") {
		t.Errorf("a repeated answer: %v", err)
	}
}
