package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// kept is a dataplane whose balancer follows plans, with endpoints on the backends.
type kept struct {
	*dataplane

	keeper *balancer.Keeper
	stop   func()
	plan   []balancer.PlannedBackend
	flows  []*liveFlow
	others []balancer.PlannedSite
	spills steering.Spills
	budget uint64 // of misses, for other sites

	endpoints []*segment.Endpoint // of the backends
}

// atTheEnd is when the silent flows are asked as well.
const atTheEnd = "at the end"

// liveFlow is a connection that goes on, and who answered it at first.
type liveFlow struct {
	conn   net.Conn
	reader *bufio.Reader
	by     string
}

func newKept(t *testing.T, backends int) *kept {
	t.Helper()
	return keepAll(newDataplane(t, backends))
}

// keepAll has the balancer of a dataplane follow plans, and puts endpoints on all its
// backends.
func keepAll(d *dataplane) *kept {
	d.t.Helper()
	k := &kept{dataplane: d}
	for i, b := range k.backends {
		k.toBackend[i].A.MeetXDP()
		k.endpoint(i)
		for _, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
			answerLines(d.t, b, to)
		}
		k.plan = append(k.plan, balancer.PlannedBackend{Name: b.Name, SID: hunt(d.locator(i + 1)), Weight: 1, State: balancer.Active})
	}
	k.keep()
	d.t.Cleanup(func() { k.stop() })
	return k
}

// endpoint puts the endpoint on a backend.
func (k *kept) endpoint(i int) {
	k.t.Helper()
	r := openRoot(k.t, k.backends[i], "eth0", testhost.BPFFS(k.t))
	e, err := segment.Load(segment.Options{})
	k.must(err)
	k.must(e.SetDomain(segment.Domain{Locator: locator(k.locator(i + 1)), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
	k.must(e.SetTarget(segment.Host, segment.Target{Level: segment.Normal}))
	k.must(e.SetVIPs(segment.Host, []netip.Addr{netip.MustParseAddr(vipAddress6), netip.MustParseAddr(vipAddress4)}))
	k.must(e.Join(r, "eth0"))
	k.endpoints = append(k.endpoints, e)
	k.t.Cleanup(func() {
		if err := e.Leave(r, "eth0"); err != nil {
			k.t.Error(err)
		}
		_ = e.Close()
		_ = r.Close()
	})
}

// keep starts the keeper of the balancer, and waits until all backends can be reached.
func (k *kept) keep() {
	k.t.Helper()
	k.begins()
	k.runs()
}

// begins makes the keeper.
func (k *kept) begins() {
	k.t.Helper()
	var err error
	k.keeper, err = balancer.NewKeeper(k.balancer, slog.New(slog.DiscardHandler), time.Now(), func() {})
	k.must(err)
}

// runs has it follow next hops.
func (k *kept) runs() {
	k.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go k.gateway.Do(func() { done <- k.keeper.Run(ctx) })
	k.stop = func() {
		cancel()
		if err := <-done; err != nil {
			k.t.Error(err)
		}
		k.stop = func() {}
	}
	k.apply()
	k.lab.Eventually("ways to all backends", func() bool {
		for _, b := range k.keeper.Status() {
			if b.Why != "" {
				return false
			}
		}
		return true
	})
}

// apply makes the plan of the moment the balancer's.
func (k *kept) apply() {
	k.t.Helper()
	s := balancer.PlannedService{Service: balancer.Service{Name: "web", Key: serviceKey}, Backends: slices.Clone(k.plan), Spills: k.spills}
	for _, a := range []string{vipAddress6 + "/128", vipAddress4 + "/32"} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			s.VIPs = append(s.VIPs, balancer.VIP{Prefix: netip.MustParsePrefix(a), Port: 443, Protocol: protocol})
		}
	}
	k.must(k.keeper.Apply(balancer.Plan{Sites: k.others, MissBudget: k.budget, Services: []balancer.PlannedService{s}}, time.Now()))
}

// begin opens flows, half of them over IPv4.
func (k *kept) begin(n int) {
	k.t.Helper()
	for i := range n {
		k.flows = append(k.flows, beginFlow(k.t, k.client, i))
	}
}

// beginFlow opens the flow of that number: odd ones are over IPv4.
func beginFlow(t testing.TB, client *netlab.Node, i int) *liveFlow {
	t.Helper()
	f := openFlow(t, client, i)
	var err error
	if f.by, err = f.ask(); err != nil {
		t.Fatal(err)
	}
	return f
}

// openFlow is beginFlow for a flow on which nothing was said yet.
func openFlow(t testing.TB, client *netlab.Node, i int) *liveFlow {
	t.Helper()
	to := []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"}[i%2]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := client.Dial(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &liveFlow{conn: c, reader: bufio.NewReader(c)}
}

// ask asks who is at the other end.
func (f *liveFlow) ask() (string, error) { return f.tell("who\n") }

// tell sends a line, and returns the answer to it.
func (f *liveFlow) tell(text string) (string, error) {
	_ = f.conn.SetDeadline(time.Now().Add(5 * time.Second))
	return f.exchange(text)
}

// exchange is tell until the deadline of the connection.
func (f *liveFlow) exchange(text string) (string, error) {
	if _, err := io.WriteString(f.conn, text); err != nil {
		return "", err
	}
	line, err := f.reader.ReadString('\n')
	return line, err
}

// check asks on the flows whether they are as they were, but for those of a backend. A
// quarter of them is silent until the end, when all are asked.
func (k *kept) check(when string, but string) {
	k.t.Helper()
	broken := 0
	for i, f := range k.flows {
		if i%4 == 3 && when != atTheEnd || f.by == but+"\n" {
			continue
		}
		if by, err := f.ask(); err != nil || by != f.by {
			if broken++; broken <= 3 {
				k.t.Errorf("%s: flow %d of %q is of %q, %v", when, i, f.by, by, err)
			}
		}
	}
	if broken > 0 {
		k.t.Fatalf("%s: %d of %d flows broken; %v", when, broken, len(k.flows), k.counts())
	}
}

// Flows go on through all that is done to backends and gateway, but for those of a
// backend that died.
func TestFlowsGoOn(t *testing.T) {
	t.Parallel()
	k := newKept(t, 3)
	k.plan = k.plan[:2]
	k.apply()
	k.begin(rounds(200, 2000))
	k.check("at the start", "")

	k.plan = append(k.plan, balancer.PlannedBackend{Name: "b3", SID: hunt(3), Weight: 1, State: balancer.Active})
	k.apply()
	k.check("a backend joined", "")
	k.begin(rounds(60, 300))

	k.plan[1].State = balancer.Draining
	k.apply()
	k.check("a backend drains", "")
	before := len(k.flows)
	k.begin(rounds(60, 300))
	for _, f := range k.flows[before:] {
		if f.by == "b2\n" {
			t.Error("a new flow on a backend that drains")
		}
	}
	k.plan[1].State = balancer.Active

	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 20 {
		for b := range k.plan {
			k.plan[b].Weight = 1 + r.Uint32N(10)
		}
		k.apply()
		k.check(fmt.Sprintf("weights changed, seed %d, %d", seed, i), "")
	}

	k.stop()
	k.unload()
	k.check("without a process", "")
	k.load()
	k.check("taken over", "")
	k.keep()
	k.check("kept again", "")

	k.plan[2].State = balancer.Dead
	k.apply()
	k.check("a backend died", "b3")
	k.check(atTheEnd, "b3")
	if c := k.counts(); c["no_backend"]+c["no_neighbour"]+c["malformed"]+c["outsider"]+c["stray"] != 0 {
		t.Error(c)
	}
	t.Log(k.counts())
}
