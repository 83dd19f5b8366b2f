package integration

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/consultest"
	"github.com/razor-steering/razor/upstreams/consul"
)

// following asks an agent of Consul for a service.
type following struct {
	tb  testing.TB
	log *syncBuffer
	all *consul.Members

	mu   sync.Mutex
	last consul.Answer
}

func followMembers(tb testing.TB, address string, q consul.Query) *following {
	tb.Helper()
	f := &following{tb: tb, log: &syncBuffer{}}
	var err error
	if f.all, err = consul.NewMembers(consul.AgentConfig{Address: address}, "gateway.consul", slog.New(slog.NewTextHandler(f.log, nil))); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.all.Follow(ctx, q, func(a consul.Answer) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.last = a
		})
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
		f.all.Close()
	})
	return f
}

// until waits until there are instances with healths, by their IDs.
func (f *following) until(what string, failing bool, want ...string) {
	f.tb.Helper()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		f.mu.Lock()
		last := f.last
		f.mu.Unlock()
		var got []string
		for _, m := range last.Members {
			got = append(got, m.ID[strings.LastIndex(m.ID, "/")+1:]+" "+string(m.Health))
		}
		if strings.Join(got, ", ") == strings.Join(want, ", ") && (last.Err != nil) == failing && !last.At.IsZero() {
			return
		}
		if time.Now().After(end) {
			f.tb.Fatalf("%s: %q, %v, want %q\n%s", what, got, last.Err, want, f.log)
		}
	}
}

// What Consul said last stays while it has no leader, and while it does not answer; and
// goes on from there.
func TestMembersFollow(t *testing.T) {
	t.Parallel()
	servers := consultest.Cluster(t, 3)
	local := servers[0].Agent("edge")
	local.Register("web", "a", addrPort(1))
	local.Register("web", "b", addrPort(2))
	f := followMembers(t, "http://"+local.Addr, consul.Query{Service: "web"})
	f.until("both", false, "a passing", "b passing")

	leader := servers[0].Leader()
	leader.Kill()
	local.Warn("b")
	f.until("another leader", false, "a passing", "b warning")
	leader.Restart()

	for _, s := range servers {
		s.Stop() // as behind a partition
	}
	f.until("no answer", true, "a passing", "b warning")
	for _, s := range servers {
		s.Continue()
	}
	local.Fail("a")
	f.until("after the partition", false, "a critical", "b warning")
	local.Deregister("b")
	f.until("one is gone", false, "a critical")
	if err := local.Client.Agent().EnableServiceMaintenance("a", "a test"); err != nil {
		t.Fatal(err)
	}
	f.until("maintenance", false, "a maintenance")

	local.Kill()
	f.until("the agent is gone", true, "a maintenance")
	if f.all.Failures() == 0 || strings.Count(f.log.String(), "consul does not answer, backends stay as they are") < 2 {
		t.Errorf("%d failures\n%s", f.all.Failures(), f.log)
	}
}

// Before every datacenter has answered there is no answer: what one has would look like all.
func TestMembersFollowDatacenters(t *testing.T) {
	t.Parallel()
	centres := consultest.WAN(t, 1, 1)
	one, two := centres[0][0], centres[1][0]
	one.Register("web", "a", addrPort(1))
	two.Register("web", "b", addrPort(2))
	both := followMembers(t, "http://"+one.Addr, consul.Query{Service: "web", Datacenters: []string{"dc1", "dc2"}})
	both.until("both", false, "a passing", "b passing")
	two.Kill()
	late := followMembers(t, "http://"+one.Addr, consul.Query{Service: "web", Datacenters: []string{"dc1", "dc2"}})
	both.until("one is away", true, "a passing", "b passing")
	for end := time.Now().Add(30 * time.Second); late.all.Failures() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("dc2 answers")
		}
	}
	late.mu.Lock()
	defer late.mu.Unlock()
	if !late.last.At.IsZero() {
		t.Errorf("an answer of a half: %+v", late.last)
	}
}
