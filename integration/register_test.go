package integration

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/upstreams/consul"
)

// registering is a registrar of instances that a test changes.
type registering struct {
	*consul.Registrar
	tb     testing.TB
	consul *consultest.Server
	log    *syncBuffer
	end    func() // Run has returned then

	mu  sync.Mutex
	are []consul.Registration
}

const registeringPrefix = "razor-agent-test-"

func newRegistering(tb testing.TB, c *consultest.Server, are ...consul.Registration) *registering {
	tb.Helper()
	r := &registering{tb: tb, consul: c, log: &syncBuffer{}, are: are}
	var err error
	r.Registrar, err = consul.NewRegistrar(consul.AgentConfig{Address: "http://" + c.Addr}, "agent.consul", registeringPrefix, 1500*time.Millisecond,
		func() []consul.Registration {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Clone(r.are)
		}, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.end = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			tb.Error("the registrar does not stop")
		}
	}
	tb.Cleanup(func() {
		r.end()
		if tb.Failed() {
			tb.Logf("the registrar says:\n%s", r.log)
		}
	})
	return r
}

func registration(i int, health consul.Health) consul.Registration {
	return consul.Registration{
		Service: "web", ID: fmt.Sprint(registeringPrefix, i), Address: netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:%x:5201::", i)),
		Tags: []string{"canary"}, Meta: map[string]string{"target": "0", "weight": "3"}, Health: health, Why: "as the test says",
	}
}

// set changes an instance.
func (r *registering) set(i int, change func(*consul.Registration)) {
	r.mu.Lock()
	change(&r.are[i])
	r.mu.Unlock()
	r.Poke()
}

// healths are what a server of Consul says of the service, sorted.
func (r *registering) healths() string {
	entries, _, err := r.consul.Client.Health().Service("web", "", false, nil)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimPrefix(e.Service.ID, registeringPrefix)+" "+e.Checks.AggregatedStatus())
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func (r *registering) until(want string) {
	r.tb.Helper()
	got := ""
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if got = r.healths(); got == want {
			return
		}
		if time.Now().After(end) {
			r.tb.Fatalf("consul has %q, want %q\n%s", got, want, r.log)
		}
	}
}

// What is registered is what it is to be, whatever becomes of Consul and of the process.
func TestRegister(t *testing.T) {
	t.Parallel()
	c := consultest.Start(t)
	c.Register("web", registeringPrefix+"9", netip.MustParseAddrPort("[2001:db8::9]:1")) // of an earlier process
	c.Register("web", "other", netip.MustParseAddrPort("[2001:db8::8]:1"))
	r := newRegistering(t, c, registration(1, consul.Passing), registration(2, consul.Warning))
	r.until("1 passing, 2 warning, other passing")
	c.Deregister("other")
	entries, _, err := c.Client.Health().Service("web", "canary", true, nil)
	if err != nil || len(entries) != 1 {
		t.Fatal(len(entries), err)
	}
	if s := entries[0].Service; s.Address != "2001:db8:5e:1:5201::" || s.Meta["weight"] != "3" {
		t.Errorf("registered: %+v", s)
	}

	r.set(0, func(is *consul.Registration) { is.Health = consul.Critical })
	r.until("1 critical, 2 warning")
	checks, err := c.Client.Agent().Checks()
	if check := checks["service:"+registeringPrefix+"1"]; err != nil || check == nil || check.Output != "as the test says" {
		t.Errorf("the check: %+v, %v", check, err)
	}
	r.set(0, func(is *consul.Registration) { is.Health, is.Meta = consul.Passing, map[string]string{"weight": "7"} })
	r.until("1 passing, 2 warning")
	r.set(1, func(is *consul.Registration) { is.Absent = true })
	r.until("1 passing")
	r.set(1, func(is *consul.Registration) { is.Absent = false })
	r.until("1 passing, 2 warning")

	c.Deregister(registeringPrefix + "1") // by somebody else
	r.until("1 passing, 2 warning")

	c.Kill()
	r.set(0, func(is *consul.Registration) { is.Health = consul.Critical })
	for r.Failed() == "" {
		time.Sleep(time.Millisecond)
	}
	c.Restart() // and it is empty
	r.until("1 critical, 2 warning")
	if n := strings.Count(r.log.String(), "consul does not take what is registered"); n != 1 || r.Failures() == 0 {
		t.Errorf("said %d times, %d failures", n, r.Failures())
	}

	r.end() // as one that is killed
	r.until("1 critical, 2 critical")
	again := newRegistering(t, c, registration(1, consul.Passing))
	again.until("1 passing")
	again.end()
	if err := again.Leave(); err != nil {
		t.Error(err)
	}
	again.until("")
}

// A registrar that is stopped while Consul does not answer leaves nothing there, once it
// does again.
func TestRegisterStopped(t *testing.T) {
	t.Parallel()
	c := consultest.Start(t)
	c.Stop()
	r := newRegistering(t, c, registration(1, consul.Passing))
	deadline := time.AfterFunc(500*time.Millisecond, c.Continue) // while a request waits
	defer deadline.Stop()
	r.end()
	c.Continue()
	if err := r.Leave(); err != nil {
		t.Error(err)
	}
	r.until("")
	var services map[string]*api.AgentService
	services, err := c.Client.Agent().Services()
	if err != nil || len(services) != 0 {
		t.Error(services, err)
	}
}
