package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
)

// While one of two gateways drains and comes back, every new connection is taken, and
// no packet goes to a gateway that has withdrawn.
func TestDrainLosesNothing(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"frr-tor.conf", "bird-tor.conf"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, file)
			const section = "drain: {converge: 2s, settle: 1s}" + sharedSection
			for _, way := range []string{byPassword, byAddress} {
				f.gateway(way, section).open(t)
			}
			f.until(f.devices(), vip4, vip6)
			f.drainsUnseen()
		})
	}
}

// drainsUnseen drains the second gateway, and takes it back.
func (f *front) drainsUnseen() {
	f.t.Helper()
	g := f.gateways[1]
	seen := g.countPackets(f.t)
	end := f.openings()
	drained := make(chan error, 1)
	go func() {
		_, err := gateway.DrainLive(f.t.Context(), g.stateDir(), "maintenance")
		drained <- err
	}()
	left := f.until([]string{"swp1"}, vip4, vip6)
	var withdrawn time.Time
	f.lab.Eventually("the withdrawal", func() bool {
		s := g.status()
		withdrawn = s.Since
		return s.Stage == "drained" && !strings.Contains(f.paths(), g.address)
	})
	if !left.Before(withdrawn) {
		f.t.Errorf("in use until %v, withdrawn at %v", left, withdrawn)
	}
	before := seen()
	if before == 0 {
		f.t.Error("no packet to the VIPs was seen")
	}
	if err := <-drained; err != nil {
		f.t.Error(err)
	}
	if n := seen() - before; n != 0 {
		f.t.Errorf("%d packets after the withdrawal", n)
	}
	g.undrain()
	f.until(f.devices(), vip4, vip6)
	f.lab.Eventually("packets for the gateway that is back", func() bool { return seen() > before })
	end()
}

// paths is what the router says of the VIPs.
func (f *front) paths() string {
	f.t.Helper()
	if f.bird != nil {
		return f.bird.Birdc("show route all")
	}
	return f.frr.Vtysh("show bgp ipv4 unicast json") + f.frr.Vtysh("show bgp ipv6 unicast json")
}

// open has a node take connections at the VIPs' port 81, and end them.
func (g *behind) open(tb testing.TB) {
	tb.Helper()
	var wg sync.WaitGroup
	tb.Cleanup(wg.Wait)
	for _, vip := range []string{vip4, vip6} {
		l, err := g.node.Listen("tcp", net.JoinHostPort(service(vip).Addr().String(), "81"))
		if err != nil {
			tb.Fatal(err)
		}
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		})
		tb.Cleanup(func() { _ = l.Close() })
	}
}

// countPackets counts the packets to the VIPs that reach a node.
func (g *behind) countPackets(tb testing.TB) func() int {
	tb.Helper()
	rules := `add table netdev seen; add counter netdev seen vips; add chain netdev seen ingress { type filter hook ingress device "eth0" priority 0; }`
	for _, vip := range []string{vip4, vip6} {
		family := "ip"
		if service(vip).Addr().Is6() {
			family = "ip6"
		}
		rules += fmt.Sprintf("; add rule netdev seen ingress %s daddr %s counter name vips", family, service(vip).Addr())
	}
	g.node.Run("nft", rules)
	number := regexp.MustCompile(`packets (\d+)`)
	return func() int {
		tb.Helper()
		n, _ := strconv.Atoi(number.FindStringSubmatch(g.node.Run("nft", "list counter netdev seen vips"))[1])
		return n
	}
}

// openings has the client open connections and send datagrams to the VIPs all the while.
// The function that it returns ends that, and holds that all were taken; a datagram is
// sent once. What is said on a connection after it was opened is not judged: without a
// balancer behind it, it moves with the router's choice.
func (f *front) openings() (end func()) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		opened int
		failed []error
	)
	note := func(n int, errs ...error) {
		mu.Lock()
		defer mu.Unlock()
		opened += n
		failed = append(failed, errs...)
	}
	for _, vip := range []string{vip4, vip6} {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := f.client.Dial(context.Background(), "tcp", net.JoinHostPort(service(vip).Addr().String(), "81"))
				switch {
				case err == nil:
					_ = c.Close()
				case errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
					// It was taken and ended, and what the client said to that went to
					// the other gateway: the router moves flows.
				default:
					note(0, err)
					continue
				}
				note(1)
			}
		})
		wg.Go(func() {
			for ctx.Err() == nil {
				flows := f.client.Flows("udp", service(vip), 4)
				note(flows.To["gw1"]+flows.To["gw2"], flows.Failed...)
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	f.t.Cleanup(stop)
	return func() {
		f.t.Helper()
		stop()
		if failed != nil {
			f.t.Errorf("%d of %d failed, the first with: %v", len(failed), opened+len(failed), failed[0])
		}
		f.t.Logf("%d connections and datagrams were taken", opened)
	}
}
