package integration

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// dataplane is a router with a client, a gateway whose balancer the test fills by
// hand, and backends:
//
//	client ── router ── gateway
//	             ├── b1, b2, …
type dataplane struct {
	t        testing.TB
	lab      *netlab.Lab
	client   *netlab.Node
	router   *netlab.Node
	gateway  *netlab.Node
	access   *netlab.Link // from the router to the client
	toward   *netlab.Link // from the router to the gateway
	site     int          // 0 alone has VIPs from the start
	number   int          // of the gateway's locator
	pins     string
	root     *root.Root
	balancer *balancer.Balancer
	backends []*netlab.Node

	toBackend []*netlab.Link // from the router
}

const (
	vipAddress6 = "2001:db8:ffff::1"
	vipAddress4 = "198.51.100.1"
)

// siteLocators is how many locators a site has: those of site 1 begin there.
const siteLocators = 0x100

// locator is that of the gateway (0) or a backend.
func locator(i int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8:5e:%x::/64", i))
}

// hunt is the SID of a backend, with another function if one is given.
func hunt(i int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("2001:db8:5e:%x:5201::", i))
}

func newDataplane(t testing.TB, backends int) *dataplane {
	t.Helper()
	lab := netlab.New(t)
	d := &dataplane{t: t, lab: lab, client: lab.Node("client"), router: lab.Node("router")}
	d.access = lab.Link(d.router, "swp9", d.client, "eth0", "2001:db8:0:9::1/64", "192.0.2.128/31")
	d.access.B.WholeChecksums()
	d.by(d.client, "2001:db8:0:9::1", "192.0.2.128", "::/0", "0.0.0.0/0")
	d.build("gateway", "b", backends)
	d.by(d.router, "2001:db8:0:100::2", "192.0.2.1", vipAddress6+"/128", vipAddress4+"/32")
	return d
}

// build makes a gateway and backends of a site, with names.
func (d *dataplane) build(gateway, backend string, backends int) {
	d.t.Helper()
	net6 := func(i int) string { return fmt.Sprintf("2001:db8:0:%x::", 0x1000*d.site+0x100+i) }
	net4 := func(i int) string { return fmt.Sprintf("192.0.%d.%d", 2+d.site, 2*i) }
	port := func(i int) string { return fmt.Sprint("swp", 20*d.site+i) }
	d.gateway, d.number = d.lab.Node(gateway), d.locator(0)
	d.toward = d.lab.Link(d.router, port(0), d.gateway, "eth0", net6(0)+"1/64", net4(0)+"/31")
	d.connect(net6(0), net4(0))
	for i := 1; i <= backends; i++ {
		b := d.lab.Node(fmt.Sprint(backend, i))
		l := d.lab.Link(d.router, port(i), b, "eth0", net6(i)+"1/64", net4(i)+"/31")
		l.B.WholeChecksums()
		d.toBackend = append(d.toBackend, l)
		d.by(b, net6(i)+"1", net4(i), "::/0", "0.0.0.0/0")
		d.by(d.router, net6(i)+"2", "", locator(d.locator(i)).String())
		b.Own(vipAddress6 + "/128")
		b.Own(vipAddress4 + "/32")
		d.backends = append(d.backends, b)
	}
	d.start()
}

// locator is the number of that of the site's gateway (0) or a backend.
func (d *dataplane) locator(i int) int { return siteLocators*d.site + i }

// must ends the test with an error.
func (d *dataplane) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// connect routes between the router and the gateway, which are at ::1 and ::2, and at
// an address of IPv4 and the next.
func (d *dataplane) connect(net6, router4 string) {
	d.t.Helper()
	d.toward.A.MeetXDP()
	d.by(d.gateway, net6+"1", router4, "::/0", "0.0.0.0/0")
	d.by(d.router, net6+"2", "", locator(d.number).String())
}

// by routes prefixes by way of a next hop of their family.
func (d *dataplane) by(n *netlab.Node, hop6, hop4 string, prefixes ...string) {
	d.t.Helper()
	for _, p := range prefixes {
		hop := hop6
		if netip.MustParsePrefix(p).Addr().Is4() {
			hop = hop4
		}
		n.Run("ip", "route", "add", p, "via", hop)
	}
}

// start puts a balancer on the gateway, which forwards all until it is told more.
func (d *dataplane) start() {
	d.t.Helper()
	d.pins = testhost.BPFFS(d.t)
	d.load()
	d.t.Cleanup(func() {
		if err := d.balancer.Remove(); err != nil {
			d.t.Error(err)
		}
		d.unload()
	})
}

// load has this process take the balancer over, or make it.
func (d *dataplane) load() {
	d.t.Helper()
	d.root = openRoot(d.t, d.gateway, "eth0", d.pins)
	var err error
	d.balancer, err = balancer.Load(balancer.Options{Services: 2, Pins: d.pins})
	d.must(err)
	d.must(d.balancer.Join(d.root, "eth0"))
	d.must(d.balancer.SetHost(balancer.Host{Locator: locator(d.number), Block: netip.MustParsePrefix("2001:db8:5e::/48")}))
}

// unload has this process let go of the balancer, as if it ended.
func (d *dataplane) unload() {
	d.t.Helper()
	d.must(d.balancer.Close())
	d.must(d.root.Close())
}

// openRoot is the root program of an interface of a host.
func openRoot(tb testing.TB, n *netlab.Node, name, pins string) *root.Root {
	tb.Helper()
	var r *root.Root
	var err error
	n.Do(func() {
		var device *net.Interface
		if device, err = net.InterfaceByName(name); err == nil {
			r, err = root.Open(pins, device)
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// fill has two services by hand, of the VIP of each family.
func (d *dataplane) fill() {
	d.t.Helper()
	for i := range d.backends {
		d.must(d.balancer.SetBackend(i+1, balancer.Backend{SID: hunt(i + 1), Hop: d.hop()}))
	}
	vips := map[balancer.VIP]balancer.Assignment{}
	for i, a := range []string{vipAddress6 + "/128", vipAddress4 + "/32"} {
		d.must(d.balancer.SetService(i, balancer.Service{Name: fmt.Sprint(i), Key: serviceKey}))
		for j, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			vips[balancer.VIP{Prefix: netip.MustParsePrefix(a), Port: 443, Protocol: protocol}] = balancer.Assignment{Service: i, Number: 2*i + j}
		}
	}
	d.must(d.balancer.SetVIPs(vips))
}

// hop is the way from the gateway to the router.
func (d *dataplane) hop() balancer.Hop {
	d.t.Helper()
	h := balancer.Hop{MTU: 1500}
	for _, end := range []struct {
		*netlab.End
		mac *[6]byte
	}{{&d.toward.A, &h.Destination}, {&d.toward.B, &h.Source}} {
		var l netlink.Link
		var err error
		end.Node.Do(func() { l, err = netlink.LinkByName(end.Device) })
		if err != nil {
			d.t.Fatal(err)
		}
		copy(end.mac[:], l.Attrs().HardwareAddr)
		h.Index = l.Attrs().Index // the last is the gateway's own
	}
	return h
}

// rows gives all slots of a service the same row.
func (d *dataplane) rows(service int, row uint32) {
	for slot := range balancer.Slots {
		d.balancer.SetRow(service, slot, row)
	}
}

// The kernel of Linux takes what the balancer sends: behind one segment (H.Encaps.Red)
// and behind two, of which the first is an End.
func TestLinuxTakesWhatTheBalancerSends(t *testing.T) {
	t.Parallel()
	d := newDataplane(t, 3)
	d.fill()
	for i, b := range d.backends {
		b.Sysctl("net.ipv6.conf.all.seg6_enabled", "1")
		b.Sysctl("net.ipv6.conf.eth0.seg6_enabled", "1")
		b.Echo(netip.MustParseAddrPort("[" + vipAddress6 + "]:443"))
		b.Echo(netip.MustParseAddrPort(vipAddress4 + ":443"))
		action := [][]string{{"End.DT6", "table", "255"}, {"End.DX4", "nh4", "0.0.0.0"}, {"End"}}[i]
		for _, function := range []string{"5201", "5202"} {
			sid := fmt.Sprintf("2001:db8:5e:%x:%s::/96", i+1, function)
			b.Run("ip", append(append([]string{"-6", "route", "add", sid, "encap", "seg6local", "action"}, action...), "dev", "eth0")...)
		}
	}
	const decapsulates6, decapsulates4, end = 1, 2, 3
	for _, c := range []struct {
		name    string
		service int
		row     uint32
		network string
		to      string
		by      string
	}{
		{"IPv6, one segment", 0, decapsulates6, "tcp", "[" + vipAddress6 + "]:443", "b1"},
		{"IPv4, one segment", 1, decapsulates4, "tcp", vipAddress4 + ":443", "b2"},
		{"UDP over IPv6", 0, decapsulates6, "udp", "[" + vipAddress6 + "]:443", "b1"},
		{"UDP over IPv4", 1, decapsulates4, "udp", vipAddress4 + ":443", "b2"},
	} {
		d.rows(c.service, c.row)
		f := d.client.Flows(c.network, netip.MustParseAddrPort(c.to), 20)
		if len(f.Failed) > 0 || f.To[c.by] != 20 {
			t.Errorf("%s: %v, %v", c.name, f.To, f.Failed)
		}
	}
	// A flow of two segments: to an End, and on to who takes it. SYN and the rest have
	// the same list here, as the next slot's backend is the previous one of this.
	for slot := range balancer.Slots {
		row := uint32(end | decapsulates6<<15)
		if slot%2 == 1 {
			row = decapsulates6
		}
		d.balancer.SetRow(0, slot, row)
	}
	for flows, port := 0, uint16(20000); flows < 20; port++ {
		if slot := d.slot(port); slot%2 == 1 || slot == balancer.Slots-1 {
			continue
		}
		flows++
		c := d.dial(port, "["+vipAddress6+"]:443")
		if said := d.ask(c); said != "b1\n" {
			t.Errorf("two segments, from port %d: %q", port, said)
		}
	}
	counts := d.counts()
	if counts["sent"] == 0 || counts["flags"]+counts["no_backend"]+counts["no_neighbour"]+counts["malformed"] != 0 {
		t.Error(counts)
	}
}

const clientAddress6 = "2001:db8:0:9::2"

// slot is that of a flow over IPv6 from a port of the client.
func (d *dataplane) slot(port uint16) uint32 {
	f := steering.Flow{Client: netip.MustParseAddr(clientAddress6), SourcePort: port, DestinationPort: 443, Protocol: unix.IPPROTO_TCP}
	return steering.FlowSlot(steering.FlowHash(serviceKey, f))
}

// serviceKey is that of all services.
var serviceKey = [2]uint64{7, 8}

// dial connects from a port of the client.
func (d *dataplane) dial(port uint16, to string) net.Conn {
	d.t.Helper()
	var c net.Conn
	var err error
	d.client.Do(func() {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: int(port)}, Timeout: 10 * time.Second}
		c, err = dialer.DialContext(d.t.Context(), "tcp", to)
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask asks who is at the other end.
func (d *dataplane) ask(c net.Conn) string {
	d.t.Helper()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "who\n"); err != nil {
		d.t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(b)
}

func (d *dataplane) counts() map[string]uint64 {
	d.t.Helper()
	counts, err := d.balancer.Counts()
	if err != nil {
		d.t.Fatal(err)
	}
	by := map[string]uint64{}
	for _, c := range counts {
		by[c.Reason] = c.Packets
	}
	return by
}

// Writes of 8,000 bytes where all links have an MTU of 1500: the client is told of
// the smaller one, and what it sends then comes whole.
func TestLargeWrites(t *testing.T) {
	t.Parallel()
	d := newDataplane(t, 2)
	d.fill()
	const size = 4 << 20
	for i, b := range d.backends {
		action := [][]string{{"End.DT6", "table", "255"}, {"End.DX4", "nh4", "0.0.0.0"}}[i]
		b.Sysctl("net.ipv6.conf.all.seg6_enabled", "1")
		b.Sysctl("net.ipv6.conf.eth0.seg6_enabled", "1")
		b.Run("ip", append(append([]string{"-6", "route", "add", locator(i + 1).String(), "encap", "seg6local", "action"}, action...), "dev", "eth0")...)
		d.rows(i, uint32(i+1))
	}
	for i, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
		sums := make(chan [sha256.Size]byte, 1)
		l, err := d.backends[i].Listen("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			h := sha256.New()
			_, _ = io.Copy(h, c)
			sums <- [sha256.Size]byte(h.Sum(nil))
		}()
		data := make([]byte, size)
		_, _ = rand.Read(data)
		c := d.dial(uint16(21000+i), to)
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		for part := range slices.Chunk(data, 8000) {
			if _, err := c.Write(part); err != nil {
				t.Fatalf("%s: %v", to, err)
			}
		}
		_ = c.Close()
		select {
		case got := <-sums:
			if got != sha256.Sum256(data) {
				t.Errorf("%s: other bytes came", to)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not all came", to)
		}
	}
	if counts := d.counts(); counts["too_big"] < 2 {
		t.Error("nobody was told: ", counts)
	}
}
