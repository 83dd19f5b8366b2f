package balancer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

// variant compiles the program with another maps.h: old and new texts in turn.
func variant(t *testing.T, changes ...string) *ebpf.CollectionSpec {
	t.Helper()
	clang, err := exec.LookPath("clang-14")
	if err != nil && os.Getenv("RAZOR_TEST_REQUIRE") != "" {
		t.Fatal("required here: clang-14")
	} else if err != nil {
		t.Skip("needs clang-14")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../bpf")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "maps.h")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	maps := regexp.MustCompile(`(?m)^_Static_assert\(sizeof.*\n`).ReplaceAllString(string(text), "")
	for i := 0; i < len(changes); i += 2 {
		if strings.Count(maps, changes[i]) != 1 {
			t.Fatalf("%q is %d times in maps.h", changes[i], strings.Count(maps, changes[i]))
		}
		maps = strings.Replace(maps, changes[i], changes[i+1], 1)
	}
	if err := os.WriteFile(file, []byte(maps), 0o600); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(dir, "balancer.o")
	cmd := exec.CommandContext(t.Context(), clang, "-O2", "-g", "-target", "bpfel", "-mcpu=v3", "-I/usr/include/x86_64-linux-gnu",
		"-c", filepath.Join(dir, "balancer.c"), "-o", object)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// newerMaps are changes to each kind of map and field.
var newerMaps = []string{
	"#define SERVICE_NAME 44", "#define SERVICE_NAME 60",
	"	__u64 key[2]; /* of the hash */", "	__u32 newer;\n	__u64 key[2];",
	"	union sid sid; /* hunt, or entry of another site's gateway */\n	struct hop hop;", "	__u64 newer;\n	struct hop hop;\n	union sid sid;",
	"	__u16 vlan;    /* 0: no tag */\n	__u16 mtu;", "	__u32 mtu;\n	__u16 newer, vlan;",
	"	__u16 service;\n	__u16 closing;", "	__u16 newer, closing;\n	__u32 service;",
	"	__u16 service;\n	__u16 number;", "	__u32 newer;\n	__u16 number;\n	__u16 service;",
	"	SENT,\n", "	NEWER,\n	SENT,\n",
	"struct host {\n", "struct host {\n	__u64 newer;\n",
	"	__u64 new_flows;\n	__u64 old_flows;", "	__u64 old_flows, newer, new_flows;",
}

// state is what a balancer has that the next one needs.
type state struct {
	host     bpfHost
	services []bpfService
	rows     []uint32
	former   []uint64
	vips     map[bpfVipKey]bpfVip
	prefixes map[bpfPrefixKey]bpfPrefixKey
	backends []bpfBackend
	pins     map[bpfPinKey]bpfPin
}

func (b *Balancer) state(t *testing.T) state {
	t.Helper()
	b.host.Sample = 0 // as the program has it at the moment
	s := state{host: b.host, services: make([]bpfService, b.services), backends: make([]bpfBackend, 10), pins: map[bpfPinKey]bpfPin{}}
	var err error
	check := func(e error) { err = errors.Join(err, e) }
	for i := range s.services {
		check(b.objects.Services.Lookup(uint32(i), &s.services[i]))
		s.rows = append(s.rows, b.tables.at(i).Rows[:]...)
		s.former = append(s.former, b.histories.at(i).Former[:]...)
	}
	for i := range s.backends {
		check(b.objects.Backends.Lookup(uint32(i), &s.backends[i]))
	}
	var e error
	s.vips, e = all[bpfVipKey, bpfVip](b.objects.Vips)
	check(e)
	s.prefixes, e = all[bpfPrefixKey, bpfPrefixKey](b.objects.Prefixes)
	check(e)
	check(b.eachPin(func(k bpfPinKey, p bpfPin) {
		p.Used = 0 // goes on
		s.pins[k] = p
	}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// crossing is the other end of the interface of a balancer. It sends packets of flows, and
// holds that each comes back, to the backend that the flow had first.
type crossing struct {
	t     *testing.T
	fd    int
	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	sent  uint64
	came  map[uint64]bool
	first map[uint16]netip.Addr // SID, by port of the client
}

const crossed = 0xbeef // begins what the packets carry

// newCrossing makes it, and the interface, eth0.
func newCrossing(t *testing.T) (*crossing, *net.Interface) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
	var ends [2]*net.Interface
	for i, name := range []string{"eth0", "peer"} {
		l, err := netlink.LinkByName(name)
		must(err)
		must(netlink.LinkSetUp(l))
		ends[i], err = net.InterfaceByName(name)
		must(err)
	}
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, AttachType: ebpf.AttachXDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	must(err)
	t.Cleanup(func() { _ = pass.Close() })
	attached, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: ends[1].Index})
	must(err)
	t.Cleanup(func() { _ = attached.Close() })
	const ipv6 = 0xdd86 // in the order of the wire
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, ipv6)
	must(err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	must(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: ends[1].Index}))
	return &crossing{t: t, fd: fd, stop: make(chan struct{}), came: map[uint64]bool{}, first: map[uint16]netip.Addr{}}, ends[0]
}

// begin sends packets of flows in turn, until end.
func (c *crossing) begin(ports []uint16) {
	stopped := make(chan struct{})
	c.done.Go(func() {
		defer close(stopped)
		for n := uint64(0); ; n++ {
			select {
			case <-c.stop:
				return
			default:
			}
			segment := tcp(ports[int(n)%len(ports)], 443, ack, 10)
			binary.BigEndian.PutUint16(segment[20:], crossed)
			binary.BigEndian.PutUint64(segment[22:], n)
			if err := unix.Send(c.fd, ethernet(0, ip(client6, vip6, unix.IPPROTO_TCP, segment)), 0); err != nil {
				c.t.Errorf("packet %d: %v", n, err)
				return
			}
			c.mu.Lock()
			c.sent = n + 1
			c.mu.Unlock()
			if n%16 == 15 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	c.done.Go(func() {
		frame := make([]byte, 2048)
		for {
			n, from, err := unix.Recvfrom(c.fd, frame, 0)
			switch {
			case errors.Is(err, unix.EAGAIN):
				select {
				case <-stopped:
					return // nothing came for a while
				default:
				}
			case errors.Is(err, unix.EINTR):
			case err != nil:
				c.t.Error(err)
				return
			case from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING:
				c.take(frame[:n])
			}
		}
	})
}

// take notes a packet that came back.
func (c *crossing) take(frame []byte) {
	const ethernet, ipv6, tcp, data = 14, 40, 20, 10
	if len(frame) < ethernet+2*ipv6+tcp+data {
		return
	}
	segment := frame[len(frame)-tcp-data:]
	if binary.BigEndian.Uint16(segment[tcp:]) != crossed {
		return
	}
	port, n := binary.BigEndian.Uint16(segment), binary.BigEndian.Uint64(segment[tcp+2:])
	sid := netip.AddrFrom16([16]byte(frame[ethernet+24:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.came[n] {
		c.t.Errorf("packet %d came twice", n)
	}
	c.came[n] = true
	if first, ok := c.first[port]; !ok {
		c.first[port] = sid
	} else if first != sid {
		c.t.Errorf("packet %d from port %d went to %v, and others to %v", n, port, sid, first)
	}
}

// more waits until some more packets have come.
func (c *crossing) more(n uint64) {
	c.t.Helper()
	c.mu.Lock()
	until := c.sent + n
	c.mu.Unlock()
	eventually(c.t, "packets", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.sent >= until
	})
}

// end holds that none was lost.
func (c *crossing) end() {
	c.t.Helper()
	close(c.stop)
	c.done.Wait()
	if lost := int(c.sent) - len(c.came); lost != 0 || c.sent == 0 {
		c.t.Errorf("%d of %d packets lost", lost, c.sent)
	}
	c.t.Logf("%d packets", c.sent)
}

// A newer program, whose maps are others, takes over from an older one, and an older one
// again, and one that needs more: they know all that was known, and no packet of a flow is
// lost or goes elsewhere. Where the maps cannot be copied, all stays as it is.
func TestMigration(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	pins := testhost.BPFFS(t)
	newer := variant(t, newerMaps...)
	other := variant(t, "	__u64 key[2]; /* of the hash */", "	__u32 key[4];")
	traffic, device := newCrossing(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	attach := func(b *Balancer) {
		t.Helper()
		r, err := root.Open(pins, device)
		must(err)
		must(b.Join(r, device.Name))
		must(b.RemoveOthers())
		must(r.Close())
	}

	b, err := Load(Options{Services: 4, Pins: pins})
	must(err)
	m := newModel(false)
	m.services[0].Name, m.services[1].Name = "web", strings.Repeat("n", MaxServiceName)
	for i, backend := range m.backends {
		backend.Hop.Index, backend.Hop.VLAN = device.Index, 0
		m.backends[i] = backend
	}
	m.fill(t, b)
	flow := Flow{Client: netip.AddrPortFrom(netip.MustParseAddr(client6), 20000), VIP: netip.MustParseAddrPort("[" + vip6 + "]:443"), Protocol: unix.IPPROTO_TCP}
	slot := steering.FlowSlot(steering.FlowHash(m.services[0].Key, flow.hashed(m.services[0])))
	_, err = b.pinTo(flow.key(), bpfPin{Backend: 7, Slot: slot, Used: uptime(), Service: 0})
	must(err)
	b.SetRow(0, int(slot), b.Row(0, int(slot))|1<<30)
	attach(b)
	var ports []uint16
	for port := uint16(20000); port < 20200; port++ {
		ports = append(ports, port)
	}
	traffic.begin(ports)
	traffic.more(5000)
	want := b.state(t)
	counted, err := b.Counts()
	must(err)
	vip, err := b.VIPTraffic(0)
	must(err)
	must(b.Close())
	traffic.more(5000)

	if failed, err := load(Options{Services: 4, Pins: pins}, other, layout+1); err == nil || !strings.Contains(err.Error(), "service.key had 2 elements and has 4") {
		t.Errorf("maps that cannot be copied: %v", err)
	} else {
		must(failed.Close())
	}
	left, err := filepath.Glob(filepath.Join(pins, "balancer-*"))
	must(err)
	if want := []string{filepath.Join(pins, fmt.Sprintf("balancer-%d-4", layout)), filepath.Join(pins, lockName)}; !reflect.DeepEqual(left, want) {
		t.Errorf("left: %v, want %v", left, want)
	}
	traffic.more(5000)

	half, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(err)
	must(os.Mkdir(filepath.Join(pins, next), 0o700))
	must(half.Pin(filepath.Join(pins, next, bpfMapTables))) // one was killed in the middle
	must(half.Close())
	b, err = load(Options{Services: 5, Pins: pins}, newer, layout+1)
	must(err)
	attach(b)
	traffic.more(20000)
	must(b.Close())
	b, err = Load(Options{Services: 1, Pins: pins})
	must(err)
	got := b.state(t)
	attach(b)
	traffic.more(5000)
	traffic.end()
	if !reflect.DeepEqual(got.services, want.services) {
		t.Errorf("services %v, want %v", got.services, want.services)
	}
	got.services, want.services = nil, nil
	want.rows, want.former = want.rows[:len(got.rows)], want.former[:len(got.former)]
	if !reflect.DeepEqual(got, want) {
		t.Error("something got lost on the way")
	}
	if traffic.first[20000] != m.backends[7].SID {
		t.Errorf("the flow with a pin went to %v, want %v", traffic.first[20000], m.backends[7].SID)
	}
	now, err := b.Counts()
	must(err)
	for i, c := range now { // the variant has other numbers for them
		more := c.Packets - counted[i].Packets
		if c.Reason == "sent" && more < 20000 || c.Reason != "sent" && more != 0 {
			t.Errorf("%d packets %s, and %d before", c.Packets, c.Reason, counted[i].Packets)
		}
	}
	if more, err := b.VIPTraffic(0); err != nil || more.Packets < vip.Packets+10000 || more.NewFlows < vip.NewFlows || more.OldFlows < vip.OldFlows || vip.OldFlows == 0 {
		t.Errorf("%+v of the VIP, and %+v before, %v", more, vip, err)
	}
	must(errors.Join(b.Remove(), b.Close()))
	if left, err := os.ReadDir(pins); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Two processes cannot have the same pins.
func TestPinsOfAnother(t *testing.T) {
	t.Parallel()
	pins := testhost.BPFFS(t)
	b, err := Load(Options{Services: 1, Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Services: 1, Pins: pins}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err = Load(Options{Services: 1, Pins: pins}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Options{Services: 1, Pins: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "not on a BPF file system") {
		t.Errorf("elsewhere: %v", err)
	}
}

// A lock is had that a process which began meanwhile keeps until its program runs.
func TestLockOfStartedProgram(t *testing.T) {
	t.Parallel()
	pins := testhost.BPFFS(t)
	l, err := lock(pins)
	if err != nil {
		t.Fatal(err)
	}
	still, err := unix.FcntlInt(l.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Millisecond, func() { _ = unix.Close(still) })
	if l, err = lock(pins); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
