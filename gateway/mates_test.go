package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
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

	first, ok, err := mate.fetch(ctx, at, steering.PlanNumber{}, false)
	if err != nil || !ok || len(first.Services) != 1 {
		t.Fatalf("first copy: %v, %v", ok, err)
	}
	if _, _, err := aMate(t, "another key", quiet).fetch(ctx, at, steering.PlanNumber{}, false); err == nil || !strings.Contains(err.Error(), "403") {
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

	go func() { mate.follow(ctx, at); close(followed) }()
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

// An answer that somebody else wrote or changed, or an old one, is not believed, and none
// of its body is read that no mate has spoken of.
func TestForgedTables(t *testing.T) {
	t.Parallel()
	mate := aMate(t, "a flow key", slog.New(slog.DiscardHandler))
	const body = `{"plan":{"Term":9,"Sequence":1},"services":[]}`
	var old http.Header
	nonce := func(r *http.Request) string { return r.URL.Query().Get("nonce") }
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request)
		wrong  string
	}{
		{"a mate's", func(w http.ResponseWriter, r *http.Request) {
			mate.tell(w, nonce(r), http.StatusOK, []byte(body))
			old = w.Header().Clone()
		}, ""},
		{"repeated", func(w http.ResponseWriter, _ *http.Request) {
			maps.Copy(w.Header(), old)
			_, _ = io.WriteString(w, body)
		}, "not of a mate"},
		{"nothing new, of nobody", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "not of a mate"},
		{"nothing new, of another key", func(w http.ResponseWriter, r *http.Request) {
			aMate(t, "another key", slog.New(slog.DiscardHandler)).tell(w, nonce(r), http.StatusNoContent, nil)
		}, "not of a mate"},
		{"nothing new where there was something", func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			mate.tell(recorded, nonce(r), http.StatusOK, []byte(body))
			maps.Copy(w.Header(), recorded.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(http.StatusNoContent)
		}, "not of a mate"},
		{"another body", func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			mate.tell(recorded, nonce(r), http.StatusOK, []byte(body))
			maps.Copy(w.Header(), recorded.Header())
			_, _ = io.WriteString(w, strings.Replace(body, "9", "8", 1))
		}, "not what the mate said"},
		{"without an end", func(w http.ResponseWriter, r *http.Request) {
			for block := make([]byte, 1<<20); ; {
				if _, err := w.Write(block); err != nil || r.Context().Err() != nil {
					return // who asked has gone
				}
			}
		}, "not of a mate"},
		{"longer than any copy", func(w http.ResponseWriter, r *http.Request) {
			length := mate.keeper.MostCopied() + 1
			w.Header().Set(sumHeader, "00")
			w.Header().Set(macHeader, mate.macOf(nonce(r), http.StatusOK, length, "00"))
			w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
			w.WriteHeader(http.StatusOK)
		}, "is max_services of the mate larger?"},
		{"a refusal without an end", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			for block := bytes.Repeat([]byte("no "), 1<<10); ; {
				if _, err := w.Write(block); err != nil || r.Context().Err() != nil {
					return
				}
			}
		}, "403 Forbidden: no no"},
	} {
		forger := httptest.NewServer(http.HandlerFunc(c.answer))
		_, ok, err := mate.fetch(t.Context(), forger.Listener.Addr().String(), steering.PlanNumber{}, false)
		if c.wrong == "" && (err != nil || !ok) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v, %v, want %q", c.name, ok, err, c.wrong)
		}
		forger.Close()
	}
}

// A whole copy of as many services and backends as there may be is not too long.
func TestMostCopied(t *testing.T) {
	t.Parallel()
	mate := aMate(t, "a flow key", slog.New(slog.DiscardHandler))
	s := balancer.ServiceCopy{Name: strings.Repeat("\x01", balancer.MaxServiceName), Table: make([]byte, steering.TableCopySize), Backends: map[uint16]netip.Addr{}}
	made := steering.ServicePlan{Name: s.Name}
	for i := range uint16(balancer.MaxBackends) {
		a := netip.MustParseAddr("2001:db8:1111:1111:1111:1111:1111:1111").As16()
		a[14], a[15] = byte(i>>8)|0x10, byte(i)|0x10
		s.Backends[i+1] = netip.AddrFrom16(a)
		made.Backends = append(made.Backends, steering.BackendPlan{
			Name: strings.Repeat("n", 60), SID: netip.AddrFrom16(a), Weight: 4_000_000, Since: time.Now(), Reason: "unknown, not believed, slow start at 1/4, critical: counts as full",
		})
	}
	number := steering.PlanNumber{Term: math.MaxUint64, Sequence: math.MaxUint64}
	body, err := json.Marshal(balancer.Copy{Plan: number, Services: []balancer.ServiceCopy{s}, Decision: &steering.Plan{Number: number, Services: []steering.ServicePlan{made}}})
	if err != nil {
		t.Fatal(err)
	}
	if most := mate.keeper.MostCopied(); int64(len(body)) > most || most > 2*int64(len(body)) {
		t.Errorf("at most %d bytes, and one has %d", most, len(body))
	}
}

// Where nothing is new, a mate says so, and is believed.
func TestNothingNew(t *testing.T) {
	t.Parallel()
	decider := aMate(t, "a flow key", slog.New(slog.DiscardHandler))
	decider.hold = 10 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(decider.tables))
	defer server.Close()
	number, _ := decider.keeper.Number()
	if _, ok, err := decider.fetch(t.Context(), server.Listener.Addr().String(), number, false); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	decider.hold = time.Hour
	if _, ok, err := decider.fetch(t.Context(), server.Listener.Addr().String(), number, true); ok || err != nil {
		t.Errorf("soon: %v, %v", ok, err)
	}
}

// owners are the SIDs that the slots of a service have, current and previous, by a copy.
func owners(t *testing.T, k *balancer.Keeper) (out [steering.TableSlots][2]netip.Addr) {
	t.Helper()
	c, err := k.Copy()
	if err != nil || len(c.Services) != 1 {
		t.Fatalf("%d services, %v", len(c.Services), err)
	}
	table, err := steering.UnmarshalTable(c.Services[0].Table, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	sids := c.Services[0].Backends
	for slot := range out {
		row := table.Row(uint32(slot))
		out[slot] = [2]netip.Addr{sids[row.Current()], sids[row.Previous()]}
	}
	return out
}

// history is a copy of the table that a service's backends have after other weights.
func history(t *testing.T, service string, backends []balancer.PlannedBackend) balancer.Copy {
	t.Helper()
	now := time.Now()
	table, next := steering.NewTable(now), new(steering.Assignment)
	s := balancer.ServiceCopy{Name: service, Backends: map[uint16]netip.Addr{}}
	for _, more := range []uint32{20, 3, 0} {
		var serving []steering.Backend
		for i, b := range backends {
			serving = append(serving, steering.Backend{Index: uint16(i + 1), Key: b.SID.String(), Weight: b.Weight + more*uint32(i)})
			s.Backends[uint16(i+1)] = b.SID
		}
		var err error
		if next, err = steering.Maglev(next, serving); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Apply(nil, next, nil, now); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.Table, err = table.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	return balancer.Copy{Plan: steering.PlanNumber{Term: 1, Sequence: 1}, Services: []balancer.ServiceCopy{s}}
}

// A gateway that decides, and starts without tables, has those of its mate before
// anything is announced; one with tables asks nobody.
func TestDeciderCopiesFromAMate(t *testing.T) {
	t.Parallel()
	c := balanced(t)
	c.Services[0].Backends[1].State = string(balancer.Active)
	key, err := c.Dataplane.flowKey()
	if err != nil {
		t.Fatal(err)
	}
	plan := c.balance(key)
	mate := aMate(t, string(key), slog.New(slog.DiscardHandler))
	mate.keeper.Follow()
	if err := mate.keeper.Apply(plan, time.Now()); err != nil {
		t.Fatal(err)
	}
	backends := plan.Services[0].Backends
	if err := mate.keeper.Adopt(history(t, "web", backends), time.Now()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(mate.tables)) // dialled from its own host
	defer server.Close()
	c.Dataplane.Pins, c.Dataplane.Interfaces = ownHost(t), []string{"eth0"}
	c.Dataplane.Mates = []string{"127.0.0.1:1", server.Listener.Addr().String()}

	var said logged
	start := func() *dataplane {
		t.Helper()
		p, err := openDataplane(&c, netip.Prefix{}, nil, nil, slog.New(slog.NewTextHandler(&said, nil)), func() {})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	stop := func(p *dataplane) {
		t.Helper()
		if err := p.remove(); err != nil {
			t.Error(err)
		}
		mustClose(t, p)
	}
	p := start()
	if !strings.Contains(said.String(), `msg="no tables of a mate: own ones, until it answers" mate=127.0.0.1:1`) || !strings.Contains(said.String(), "tables copied") {
		t.Error(said.String())
	}
	want := owners(t, mate.keeper)
	if owners(t, p.Keeper) != want || !want[0][0].IsValid() {
		t.Error("other tables than the mate's")
	}
	mustClose(t, p)
	p = start()
	if strings.Count(said.String(), "tables copied") != 1 || owners(t, p.Keeper) != want {
		t.Error("tables of its own, and a mate was asked, or they are others")
	}
	stop(p)

	// It decides again: who drains has no slots, but flows.
	c.Services[0].Backends[1].State = string(balancer.Draining)
	p = start()
	for slot, o := range owners(t, p.Keeper) {
		if o[0] != backends[0].SID || want[slot][0] != o[0] && o[1] != want[slot][0] {
			t.Fatalf("slot %d: %v after %v", slot, o, want[slot])
		}
	}
	stop(p)
}
