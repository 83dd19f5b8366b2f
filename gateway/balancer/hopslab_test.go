package balancer

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain checks that nothing that a test started is left running.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The lab of next hops:
//
//	             u0 ── r0 (fe80::ff:fe00:10, 02:00:00:00:00:10)
//	gateway host │
//	             u1 ── r1 (fe80::ff:fe00:11, 02:00:00:00:00:11)
//
// The host has 2001:db8:0::a on u0 and 2001:db8:1::a on u1, the routers ::b.
type hopLab struct {
	t        *testing.T
	host     *hopHost
	routers  [2]*hopHost
	index    [2]int // of u0 and u1
	uplink   [2][6]byte
	routerOf [2][6]byte
}

// hopHost is a network namespace without a name: it ends with who is in it.
type hopHost struct {
	t    *testing.T
	name string
	ns   netns.NsHandle
}

func newHopLab(t *testing.T) *hopLab {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root, for network namespaces"
	} else if _, err := exec.LookPath("ip"); err != nil {
		missing = "ip (Debian: iproute2)"
	}
	if missing != "" && os.Getenv("RAZOR_TEST_REQUIRE") != "" {
		t.Fatal("required here: " + missing)
	} else if missing != "" {
		t.Skip("needs " + missing)
	}
	l := &hopLab{t: t, host: newHopHost(t, "gateway")}
	for i := range 2 {
		r := newHopHost(t, fmt.Sprintf("r%d", i))
		l.routers[i] = r
		l.uplink[i], l.routerOf[i] = [6]byte{2, 0, 0, 0, 0, byte(i)}, [6]byte{2, 0, 0, 0, 0, 0x10 + byte(i)}
		l.join(i)
		l.host.ip("addr add 2001:db8:%d::a/64 dev u%d", i, i)
		r.ip("addr add 2001:db8:%d::b/64 dev e0", i)
	}
	return l
}

// join lays the cable of u0 or u1.
func (l *hopLab) join(i int) {
	l.t.Helper()
	name := fmt.Sprintf("u%d", i)
	err := l.host.kernel().LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: l.uplink[i][:]},
		PeerName:  "e0", PeerHardwareAddr: l.routerOf[i][:], PeerNamespace: netlink.NsFd(l.routers[i].ns),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.host.ip("link set %s up", name)
	l.routers[i].ip("link set e0 up")
	link, err := l.host.kernel().LinkByName(name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.index[i] = link.Attrs().Index
	// The kernel tells of carriers once a second at most.
	eventually(l.t, name+" runs", func() bool {
		link, err := l.host.kernel().LinkByName(name)
		return err == nil && link.Attrs().RawFlags&unix.IFF_RUNNING != 0
	})
}

// hop is the one by an uplink.
func (l *hopLab) hop(i, mtu int) Hop {
	return Hop{Destination: l.routerOf[i], Source: l.uplink[i], Index: l.index[i], MTU: uint16(mtu)}
}

func newHopHost(t *testing.T, name string) *hopHost {
	t.Helper()
	h := &hopHost{t: t, name: name}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var err error
		h.ns, err = netns.New()
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.ns.Close() })
	for _, device := range []string{"all", "default"} {
		h.sysctl("ipv6/conf/"+device+"/accept_dad", "0")
		h.sysctl("ipv6/conf/"+device+"/ndisc_notify", "1")
		h.sysctl("ipv6/conf/"+device+"/forwarding", "1")
		h.sysctl("ipv6/conf/"+device+"/keep_addr_on_down", "1")
	}
	h.ip("link set lo up")
	return h
}

// within calls f in the namespace.
func (h *hopHost) within(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := netns.Set(h.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (h *hopHost) kernel() *netlink.Handle {
	h.t.Helper()
	k, err := netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(k.Close)
	return k
}

func (h *hopHost) sysctl(key, value string) {
	h.t.Helper()
	if err := h.within(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) }); err != nil {
		h.t.Fatal(err)
	}
}

// ip runs a command and returns what it said.
func (h *hopHost) ip(format string, args ...any) (said string) {
	h.t.Helper()
	command := fmt.Sprintf(format, args...)
	h.t.Logf("%s: ip %s", h.name, command)
	err := h.within(func() error {
		out, err := exec.Command("ip", strings.Fields("-6 "+command)...).CombinedOutput()
		said = string(out)
		return err
	})
	if err != nil {
		h.t.Fatalf("ip %s: %v\n%s", command, err, said)
	}
	return said
}

// batch runs many commands by one ip, and waits until it has ended.
func (h *hopHost) batch(commands string) {
	h.t.Helper()
	err := h.within(func() error {
		cmd := exec.Command("ip", "-6", "-batch", "-")
		cmd.Stdin = strings.NewReader(commands)
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// watched is a Hops that runs, and what it told.
type watched struct {
	*Hops
	t     *testing.T
	mu    sync.Mutex
	told  map[netip.Addr]HopChange
	again bool          // addresses were no longer wanted, and are again
	hold  chan struct{} // each call of changed takes from it, where it is not nil
}

// watch runs a Hops on the host until the test ends.
func (l *hopLab) watch(addresses ...string) *watched {
	l.t.Helper()
	return l.watchWith(func(*Hops) {}, addresses...)
}

// watchWith is watch of a Hops that is prepared.
func (l *hopLab) watchWith(prepare func(*Hops), addresses ...string) *watched {
	l.t.Helper()
	w := &watched{t: l.t, told: map[netip.Addr]HopChange{}}
	w.Hops = NewHops(slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), w.changed)
	prepare(w.Hops)
	w.set(addresses...)
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error)
	go func() { done <- l.host.within(func() error { return w.Run(ctx) }) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("next hops: %v", err)
		}
	})
	return w
}

func (w *watched) set(addresses ...string) {
	w.mu.Lock()
	w.again = len(w.told) > 0
	w.mu.Unlock()
	parsed := make([]netip.Addr, len(addresses))
	for i, a := range addresses {
		parsed[i] = netip.MustParseAddr(a)
	}
	w.Set(parsed)
}

func (w *watched) changed(changes []HopChange) {
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-w.t.Context().Done():
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if w.told[c.Address] == c && !w.again {
			w.t.Errorf("told twice: %+v", c)
		}
		if (c.Hop.Index == 0) != (c.Reason != "") || c.Hop.Index == 0 && c.Hop != (Hop{}) {
			w.t.Errorf("told %+v", c)
		}
		w.told[c.Address] = c
		w.t.Logf("told: %+v", c)
	}
}

func (w *watched) last(address string) HopChange {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told[netip.MustParseAddr(address)]
}

// wait waits until an address has a hop, and returns for how long.
func (w *watched) wait(address string, hop Hop) time.Duration {
	w.t.Helper()
	start := time.Now()
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s has %+v", address, w.last(address))
		}
	}()
	eventually(w.t, fmt.Sprintf("%s by %+v", address, hop), func() bool { return w.last(address).Hop == hop })
	return time.Since(start)
}

// lacks waits until an address has no hop, for a reason.
func (w *watched) lacks(address, reason string) {
	w.t.Helper()
	eventually(w.t, address+": "+reason, func() bool {
		return strings.Contains(w.last(address).Reason, reason)
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: timed out", what)
		}
	}
}

func (h *hopHost) read(file string) (text string) {
	h.t.Helper()
	err := h.within(func() error {
		b, err := os.ReadFile(file)
		text = string(b)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}
