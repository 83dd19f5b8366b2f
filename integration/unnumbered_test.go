package integration

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/ra"
	"github.com/razor-steering/razor/integration/netlab"
)

// watch is an ra.Watch on an interface of a node.
type watch struct {
	log syncBuffer

	mu    sync.Mutex
	peers []ra.Peer // every change
}

func startWatch(t *testing.T, node *netlab.Node, device string) *watch {
	t.Helper()
	w := &watch{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		node.Do(func() {
			if err := ra.Watch(ctx, device, slog.New(slog.NewTextHandler(&w.log, nil)), w.change); err != nil {
				t.Error(err)
			}
		})
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if t.Failed() {
			t.Logf("%s of %s:\n%s", device, node.Name, w.log.String())
		}
		if w.last() != (ra.Peer{}) {
			t.Error("a peer after the end")
		}
	})
	return w
}

func (w *watch) change(p ra.Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers = append(w.peers, p)
}

// last is the peer, or the zero one.
func (w *watch) last() ra.Peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.peers) == 0 {
		return ra.Peer{}
	}
	return w.peers[len(w.peers)-1]
}

// changes is the number of changes.
func (w *watch) changes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.peers)
}

// peerOf is who a watch at one end of a link has to find.
func peerOf(t *testing.T, here, there netlab.End) ra.Peer {
	t.Helper()
	addr := there.Local.WithZone(here.Device)
	return ra.Peer{Addr: addr, Dial: addr.WithZone(strconv.Itoa(index(t, here)))}
}

func index(t testing.TB, e netlab.End) int {
	t.Helper()
	var links []struct {
		Index int `json:"ifindex"`
	}
	if err := json.Unmarshal([]byte(e.Node.Run("ip", "-j", "link", "show", "dev", e.Device)), &links); err != nil {
		t.Fatal(err)
	}
	return links[0].Index
}

const unnumberedFRR = `
hostname tor
interface swp1
 no ipv6 nd suppress-ra
 ipv6 nd ra-interval 3
exit
router bgp 4200000000
 bgp router-id 192.0.2.1
 neighbor swp1 interface remote-as external
`

// TestUnnumberedFRR: each end learns the other, and neither a default router.
func TestUnnumberedFRR(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	link := lab.Link(tor, "swp1", gw, "eth0")
	for _, e := range []netlab.End{link.A, link.B} {
		e.Node.Sysctl("net.ipv6.conf."+e.Device+".accept_ra", "2") // also where it forwards
	}
	w := startWatch(t, gw, "eth0")
	frr := tor.StartFRR(unnumberedFRR)
	lab.Eventually("the gateway knows the router", func() bool { return w.last() == peerOf(t, link.B, link.A) })
	want := "BGP neighbor on swp1: " + link.B.Local.WithZone("").String() + ","
	lab.Eventually("the router knows the gateway", func() bool { return strings.Contains(frr.Vtysh("show bgp neighbors swp1"), want) })
	if routes := tor.Run("ip", "-6", "route", "show", "default"); routes != "" {
		t.Errorf("the router takes the gateway for its default router: %s", routes)
	}

	gw.Run("ip", "addr", "add", "fe80::55/64", "dev", "eth0") // changes nothing

	// Another router in the place of the first, without a loss of the link.
	other := netip.MustParseAddr("fe80::99")
	tor.Run("ip", "addr", "add", other.String()+"/64", "dev", "swp1")
	tor.Run("ip", "addr", "del", link.A.Local.WithZone("").String()+"/64", "dev", "swp1")
	link.A.Local = other.WithZone("swp1")
	lab.Eventually("the gateway knows the new router", func() bool { return w.last() == peerOf(t, link.B, link.A) })
	if n := w.changes(); n != 2 {
		t.Errorf("%d changes", n)
	}
	if n := strings.Count(w.log.String(), "another router on an unnumbered link"); n != 1 {
		t.Errorf("said %d times that there is another router", n)
	}
}

// TestUnnumberedLink is an interface that comes late, goes, returns and is made anew.
func TestUnnumberedLink(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	a, b := startWatch(t, tor, "swp1"), startWatch(t, gw, "eth0")
	met := func(link *netlab.Link) {
		t.Helper()
		lab.Eventually("each end knows the other", func() bool {
			return a.last() == peerOf(t, link.A, link.B) && b.last() == peerOf(t, link.B, link.A)
		})
	}
	gone := func() {
		t.Helper()
		lab.Eventually("nobody is there", func() bool { return a.last() == ra.Peer{} && b.last() == ra.Peer{} })
	}
	lab.Eventually("it is said", func() bool { return strings.Contains(b.log.String(), `reason="no such interface"`) })
	link := lab.Link(tor, "swp1", gw, "eth0")
	met(link)
	link.Down()
	gone()
	link.Up()
	met(link)

	gw.Run("ip", "link", "del", "eth0")
	gone()
	gw.Run("ip", "link", "add", "spare", "type", "veth") // takes a number
	met(lab.Link(tor, "swp1", gw, "eth0"))
	if n := strings.Count(b.log.String(), `reason="no such interface"`); n != 2 {
		t.Errorf("said %d times that there is no interface", n)
	}
}

// TestUnnumberedUnsent: what hinders us from sending does not unmake the peer.
func TestUnnumberedUnsent(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	link := lab.Link(tor, "swp1", gw, "eth0")
	gw.Run("nft", "add table ip6 filter; add chain ip6 filter output { type filter hook output priority 0; }; add rule ip6 filter output icmpv6 type nd-router-advert drop")
	a, b := startWatch(t, tor, "swp1"), startWatch(t, gw, "eth0")
	lab.Eventually("the gateway knows the router", func() bool { return b.last() == peerOf(t, link.B, link.A) })
	lab.Eventually("it is said", func() bool {
		return strings.Contains(b.log.String(), `reason="send a router advertisement: write`)
	})
	if a.changes() != 0 || b.changes() != 1 {
		t.Errorf("%d changes at the router, %d at the gateway", a.changes(), b.changes())
	}
}

// TestUnnumberedSpoof: who is not a router on this link is none.
func TestUnnumberedSpoof(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	link := lab.Link(tor, "swp1", gw, "eth0", "2001:db8:0:1::1/64")
	w := startWatch(t, gw, "eth0")
	lab.Eventually("it listens", func() bool { return strings.Contains(w.log.String(), "sending router advertisements") })
	device := index(t, link.A)
	advertise := func(hops int, source string) {
		t.Helper()
		lab.Eventually("it can be sent from "+source, func() (sent bool) { // the kernel takes a moment for a new address
			tor.Do(func() {
				err := sendAdvertisement(hops, source, device)
				if sent = err == nil; !sent && !errors.Is(err, unix.EADDRNOTAVAIL) {
					t.Error(err)
				}
			})
			return sent
		})
	}
	advertise(64, link.A.Local.WithZone("").String())
	advertise(255, "2001:db8:0:1::1")
	tor.Run("ip", "addr", "add", "fe80::77/64", "dev", "swp1")
	advertise(255, "fe80::77")
	lab.Eventually("the real one is found", func() bool { return w.last() != ra.Peer{} })
	if p := w.last(); p.Addr != netip.MustParseAddr("fe80::77%eth0") || w.changes() != 1 {
		t.Errorf("found %v in %d changes", p, w.changes())
	}
}

// sendAdvertisement sends a Router Advertisement that need not be a valid one.
func sendAdvertisement(hops int, source string, device int) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	from := &unix.SockaddrInet6{Addr: netip.MustParseAddr(source).As16()}
	if strings.HasPrefix(source, "fe80") {
		from.ZoneId = uint32(device)
	}
	to := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(device)}
	if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, hops), unix.Bind(fd, from)); err != nil {
		return err
	}
	return unix.Sendto(fd, append([]byte{134}, make([]byte, 15)...), 0, to)
}

func TestUnnumberedNotPermitted(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor, gw := lab.Node("tor"), lab.Node("gw")
	lab.Link(tor, "swp1", gw, "eth0")
	var err error
	without(t, gw, unix.CAP_NET_RAW, func() {
		err = ra.Watch(t.Context(), "eth0", slog.New(slog.DiscardHandler), func(ra.Peer) {})
	})
	if want := "router advertisements on eth0 are not permitted; want CAP_NET_RAW"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// without calls f on a node without one of root's capabilities.
func without(t *testing.T, node *netlab.Node, capability uint, f func()) {
	t.Helper()
	node.Do(func() { // on a thread of its own
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data, less [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		less = data
		less[0].Effective &^= 1 << capability
		if err := unix.Capset(&header, &less[0]); err != nil {
			t.Error(err)
			return
		}
		defer func() {
			if err := unix.Capset(&header, &data[0]); err != nil {
				t.Error(err)
			}
		}()
		f()
	})
}
