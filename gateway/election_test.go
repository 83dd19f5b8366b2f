package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
)

// A gateway that has copied the tables of who decides at its start asks it for what is new,
// not for the same again and again.
func TestElectionFollowsAfterTheFirstCopy(t *testing.T) {
	t.Parallel()
	var said logged
	log := slog.New(slog.NewTextHandler(&said, nil))
	decider, mate := aMate(t, "a flow key", slog.New(slog.DiscardHandler)), aMate(t, "a flow key", log)
	decider.has(t, "web")
	mate.keeper.Follow()
	mate.has(t, "web")
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		decider.tables(w, r)
	}))
	defer server.Close()
	at := server.Listener.Addr().String()
	p := &dataplane{Keeper: mate.keeper, mates: mate, followed: at}
	if err := p.firstCopy(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	stop := (&election{log: log}).follow(t.Context(), p, at)
	for asked.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	decider.has(t, "web") // is new
	number, _ := decider.keeper.Number()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(said.String(), "plan="+number.String()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never copied: %s", said.String())
		}
	}
	stop()
	if strings.Contains(said.String(), "no tables") {
		t.Error(said.String())
	}
}

// A gateway that does not decide tells of the plan of who does, and nothing of its own.
func TestElectionStatus(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	c := balanced(t)
	c.Dataplane.ConsulLock, c.Dataplane.TablesListen = "razor/west/decider", "[2001:db8::1]:5206"
	c.Consul.Address = "http://127.0.0.1:1"
	e, err := newElection(&c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	d := newDecider(quiet, newSummaries(func() {}), nil, time.Now())
	d.leads = e.leads
	mine := func(sequence uint64, share float64) *steering.Plan {
		return &steering.Plan{Number: steering.PlanNumber{Term: 1, Sequence: sequence}, Services: []steering.ServicePlan{{Name: "web", Here: steering.SiteShare{Site: "west", Share: share}}}}
	}
	d.plan = mine(1, 0.25)
	p := &dataplane{Keeper: aMate(t, "a flow key", quiet).keeper, decider: d, election: e}
	want := func(when, plan, mate string, shares int) {
		t.Helper()
		if s := p.decisionStatus(); s == nil || s.Plan != plan || s.Mate != mate {
			t.Errorf("%s: %+v", when, s)
		}
		if got := testutil.CollectAndCount(d, "razor_gateway_site_share"); got != shares {
			t.Errorf("%s: %d shares", when, got)
		}
	}
	e.set(true, "")
	want("it decides", "1.1", "", 1)
	e.set(false, "")
	p.Follow()
	want("nobody decides", "1.1", "", 0)
	e.set(false, "[2001:db8::2]:5206")
	if err := p.Adopt(balancer.Copy{Plan: steering.PlanNumber{Term: 2}, Decision: mine(7, 0.5)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	want("a mate decides", "1.7", "[2001:db8::2]:5206", 0)
	e.set(true, "")
	want("it decides again", "1.1", "", 1)
}
