package integration

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// agreement is a front whose two gateways are the edges of one route, each with a pool
// of its own. The router's node has a Redis primary, the replica that everybody reads,
// and the nameserver.
type agreement struct {
	*front

	primary, replica, names *netlab.Process
	startPrimary            func() *netlab.Process
}

const (
	agreeTTL    = 3 // seconds
	agreeRoute  = "r.z.example."
	agreeServer = "2001:db8:0:9::1"

	// agreeSection is of each gateway, by its name.
	agreeSection = `
name: %s
lists: true
allowed: [198.51.100.0/24, "2001:db8:ffff::/48"]
health: {report: true, every: 500ms, settle: 2s}
drain: {converge: 1s, settle: 500ms}
announce:
  - {from: pool, bind: true, when: well, floor: 0}
  - {set: vips, prefixes: [198.51.100.1, "2001:db8:ffff::1"], bind: true}
  - {from: node}
probes: [{name: well, kind: exec, command: [/bin/sh, -c, "test -e $SERVICE"], interval: 200ms, hold_down: 100ms}]
`
)

// pools are those of the edges, of the first and second gateway.
var pools = map[string][]string{
	"west": {"198.51.100.10", "2001:db8:ffff::10"},
	"east": {"198.51.100.20", "2001:db8:ffff::20"},
}

func newAgreement(t *testing.T) *agreement {
	t.Helper()
	a := &agreement{front: newFront(t, "frr-tor.conf")}
	dir := a.tor.Dir
	a.startPrimary = func() *netlab.Process {
		return a.tor.Start("redis-server", "--bind", "::", "--protected-mode", "no", "--unixsocket", a.socket("primary"), "--unixsocketperm", "777",
			"--dir", dir, "--appendonly", "yes", "--save", "", "--repl-diskless-sync-delay", "0")
	}
	a.primary = a.startPrimary()
	a.lab.Eventually("the primary", func() bool { return a.answers("primary") })
	a.replica = a.tor.Start("redis-server", "--port", "6380", "--bind", "::1", "--unixsocket", a.socket("replica"), "--unixsocketperm", "777",
		"--dir", filepath.Dir(a.socket("replica")), "--save", "", "--dbfilename", "replica.rdb", "--replicaof", agreeServer, "6379")
	a.lab.Eventually("the replica", func() bool {
		return a.answers("replica") && strings.Contains(a.tor.Run("redis-cli", "-s", a.socket("replica"), "info", "replication"), "master_link_status:up")
	})
	a.redis("HSET", "z.example:CONFIG", "SOA", "ns. host. 1 2 3 4 5", "TTL", fmt.Sprint(agreeTTL))
	a.redis("SADD", "r.z.example:EDGES", "west", "east")
	for edge, pool := range pools {
		a.redis("SADD", edge+":A", pool[0])
		a.redis("SADD", edge+":AAAA", pool[1])
	}
	redis := "redis: {address: \"unix://" + a.socket("replica") + "\"}\n"
	for i, edge := range []string{"west", "east"} {
		way := []string{byPassword, byAddress}[i]
		g := a.gatewayWith(way, fmt.Sprintf(agreeSection, edge), redis+"dns: {zones: [z.example]}\n")
		for _, addr := range pools[edge] {
			g.node.Echo(netip.AddrPortFrom(netip.MustParseAddr(addr), 80))
		}
	}
	config := filepath.Join(dir, "dns.yaml")
	text := redis + "dns: {zones: [z.example], listen: [\"[::]:53\"], state_dir: " + filepath.Join(dir, "names") + ", health: {lost_after: 10s}}\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	server := &announcer{tb: t, node: a.tor, config: config, role: "dns"}
	server.start()
	a.names = server.Process
	return a
}

func (a *agreement) socket(name string) string { return filepath.Join(a.lab.Dir, name+".sock") }

func (a *agreement) answers(name string) bool {
	out, err := a.tor.Command("redis-cli", "-s", a.socket(name), "ping").CombinedOutput()
	return err == nil && strings.TrimSpace(string(out)) == "PONG"
}

// redis writes on the primary.
func (a *agreement) redis(args ...string) {
	a.t.Helper()
	if said := a.tor.Run("redis-cli", append([]string{"-s", a.socket("primary")}, args...)...); strings.Contains(said, "ERR") {
		a.t.Fatal(args, said)
	}
}

// resolve asks the nameserver once, as a resolver near the client does.
func (a *agreement) resolve(qtype uint16) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := a.client.Dial(ctx, "tcp", "["+agreeServer+"]:53")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m := new(dns.Msg).SetQuestion(agreeRoute, qtype)
	conn := &dns.Conn{Conn: c}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if err := conn.WriteMsg(m); err != nil {
		return nil, err
	}
	r, err := conn.ReadMsg()
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, errors.New(dns.RcodeToString[r.Rcode])
	}
	var out []string
	for _, addr := range addresses(r) {
		out = append(out, addr.String())
	}
	return out, nil
}

// edges are those that the route is answered with, in as many queries as leave none out.
func (a *agreement) edges() string {
	seen := map[string]bool{}
	for range 40 {
		for i, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			got, err := a.resolve(qtype)
			if err != nil {
				return err.Error()
			}
			for edge, pool := range pools {
				if slices.Contains(got, pool[i]) {
					seen[edge] = true
				}
			}
		}
	}
	var out []string
	for _, edge := range []string{"east", "west"} {
		if seen[edge] {
			out = append(out, edge)
		}
	}
	return strings.Join(out, " ")
}

// answered waits until the route is answered with these edges, and returns when that was
// seen.
func (a *agreement) answered(want string) time.Time {
	a.t.Helper()
	a.lab.Eventually("answers from "+want, func() bool { return a.edges() == want })
	return time.Now()
}

// announced waits until the router has the pools of these edges and no others, and
// returns since when.
func (a *agreement) announced(edges ...string) time.Time {
	a.t.Helper()
	return a.fib.Until(fmt.Sprint("the pools of ", edges), func(f netlab.FIB) bool {
		for edge, pool := range pools {
			for _, addr := range pool {
				p := netip.MustParseAddr(addr)
				if got := len(f.Devices(netip.PrefixFrom(p, p.BitLen()).String())) > 0; got != slices.Contains(edges, edge) {
					return false
				}
			}
		}
		return true
	})
}

// customers resolve the route and connect to what they are told for as long as they may,
// all the while. The function that it returns ends that, and holds that nothing was lost.
func (a *agreement) customers() (end func()) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		taken  = map[string]int{}
		failed []error
	)
	note := func(name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", time.Now().Format("05.000"), err))
		} else {
			taken[name]++
		}
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeA, dns.TypeAAAA} {
		wg.Go(func() {
			for ctx.Err() == nil {
				asked := time.Now()
				told, err := a.resolve(qtype)
				if err == nil && len(told) == 0 {
					err = errors.New("no data")
				}
				if err != nil {
					note("", err)
					continue
				}
				// Not to the last moment: a slow machine shall not be judged.
				for ctx.Err() == nil && time.Since(asked) < agreeTTL*time.Second-500*time.Millisecond {
					flows := a.client.Flows("tcp", netip.AddrPortFrom(netip.MustParseAddr(told[0]), 80), 2)
					for name, n := range flows.To {
						for range n {
							note(name, nil)
						}
					}
					for _, err := range flows.Failed {
						note("", fmt.Errorf("%s, told at %s: %w", told[0], asked.Format("05.000"), err))
					}
				}
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	a.t.Cleanup(stop)
	a.lab.Eventually("customers of both gateways", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(taken) == 2 || len(failed) > 0
	})
	return func() {
		a.t.Helper()
		stop()
		if len(failed) > 0 {
			a.t.Errorf("%d lost, the first: %v", len(failed), failed[0])
		}
		a.t.Logf("taken: %v", taken)
	}
}

// TestRazorAndGatewayAgree: an edge whose gateway cannot serve leaves the answers, and
// what nobody can tell of leaves nothing. DNS comes first on the way out, and last on the
// way back.
func TestRazorAndGatewayAgree(t *testing.T) {
	t.Parallel()
	a := newAgreement(t)
	west, east := a.gateways[0], a.gateways[1]
	vips := func(devices ...string) time.Time { return a.until(devices, vip4, vip6) }
	a.announced("west", "east")
	a.answered("east west")
	for _, g := range a.gateways {
		g.until("it says that it is up", func(s gateway.Status) bool { return s.Edge != nil && s.Edge.Health == "up" && !s.Edge.Written.IsZero() })
	}

	a.drain(west, vips)

	// VIPs are withdrawn as a probe fails: routes at once, then the answers.
	west.serve(t, false)
	gone := a.announced("east")
	a.answered("east")
	west.untilLog(`msg="nameservers are told how this edge is" edge=west is=down`)
	west.serve(t, true)
	if back := a.announced("west", "east"); !back.After(gone) {
		t.Error("the pool was never gone")
	}
	a.answered("east west")

	// Redis is away for longer than silence is borne: nobody leaves.
	a.primary.Kill()
	west.until("it cannot tell", func(s gateway.Status) bool { return s.Edge.Failure != "" })
	for since := time.Now(); time.Since(since) < 12*time.Second; {
		if got := a.edges(); got != "east west" {
			t.Fatalf("without a primary the answers are from %q", got)
		}
	}
	a.primary = a.startPrimary()
	west.until("it can tell again", func(s gateway.Status) bool { return s.Edge.Failure == "" })
	if got := a.edges(); got != "east west" {
		t.Fatalf("with the primary back the answers are from %q", got)
	}

	// The host of a gateway is gone, and back.
	west.link.Down()
	west.Kill()
	a.answered("east")
	a.names.Terminate() // what it knew outlives it
	server := &announcer{tb: t, node: a.tor, config: filepath.Join(a.tor.Dir, "dns.yaml"), role: "dns"}
	server.start()
	a.lab.Eventually("answers", func() bool { _, err := a.resolve(dns.TypeA); return err == nil })
	if got := a.edges(); got != "east" {
		t.Errorf("after a restart the answers are from %q", got)
	}
	west.link.Up()
	west.start()
	a.announced("west", "east")
	a.answered("east west")

	// Nobody works: what is answered then is the operator's choice.
	west.serve(t, false)
	east.serve(t, false)
	a.announced()
	a.lab.Eventually("both to be down", func() bool {
		out, _ := server.razor("edges")
		return strings.Count(out, " down, heard") == 2
	})
	a.lab.Eventually("the log", func() bool { return strings.Contains(server.Log(), "less of a route is healthy than FLOOR") })
	a.answered("east west")
	a.redis("HSET", "r.z.example:CONFIG", "ON_EMPTY", "closed")
	a.answered("")
	west.serve(t, true)
	a.announced("west")
	a.answered("west")
	east.serve(t, true)
	a.answered("east west")

	// A gateway is stopped: its pool waits for resolvers, what both have does not. Who
	// cannot wait says so twice.
	a.redis("HSET", "z.example:CONFIG", "TTL", "3600")
	a.lab.Eventually("the new TTL", func() bool {
		return strings.Contains(a.tor.Run("redis-cli", "-s", a.socket("replica"), "hget", "z.example:CONFIG", "TTL"), "3600")
	})
	east.Signal(syscall.SIGTERM)
	a.answered("west")
	for left := vips("swp1"); time.Since(left) < 2*time.Second; { // it waits, and signals at once are one
		a.announced("west", "east")
	}
	east.Signal(syscall.SIGTERM)
	a.announced("west")
	east.ended()
}

// drain drains a gateway by hand, and takes it back.
func (a *agreement) drain(g *behind, vips func(...string) time.Time) {
	a.t.Helper()
	end := a.customers()
	began := time.Now()
	drained := make(chan error, 1)
	go func() {
		_, err := gateway.DrainLive(a.t.Context(), g.stateDir(), "cables")
		drained <- err
	}()
	a.answered("east")
	shared := vips("swp2")
	if err := <-drained; err != nil {
		a.t.Fatal(err)
	}
	alone := a.announced("east")
	if least := began.Add((agreeTTL + 1) * time.Second); alone.Before(least) || !shared.Before(alone) {
		a.t.Errorf("VIPs withdrawn %v after the beginning, the pool %v", shared.Sub(began), alone.Sub(began))
	}
	g.untilStatus("what is told", func(s gateway.Status) bool { return s.Edge.Health == "draining" && s.Edge.Reason == "cables" })

	g.undrain()
	answered := a.answered("east west")
	if back := a.announced("west", "east"); !back.Before(answered) {
		a.t.Errorf("answered %v before it was announced", back.Sub(answered))
	}
	vips("swp1", "swp2")
	end()
}
