package segment

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/integration/testhost"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the hosts of the tests have.
const (
	portMPTCP = 80 // with a listener as Go has them
	portTCP   = 81 // with one of plain TCP
	container = 1  // a target whose namespace has no sockets
)

var (
	vip4 = netip.MustParseAddr("192.0.2.10")
	vip6 = netip.MustParseAddr("2001:db8:f::10")

	inContainer = Target{Level: Normal, NetNS: 7, Interface: 77, Source: net.HardwareAddr{2, 0, 0, 0, 1, 1}, MAC: net.HardwareAddr{2, 0, 0, 0, 1, 2}}
)

// host is a network namespace with the program loaded, real sockets, and a wire to their
// clients that the test has in its hands.
type host struct {
	tb    testing.TB
	e     *Endpoint
	wire  *os.File // TUN: packets to clients are read, packets from them written
	calls chan func()
	world world
	flows map[flow]*socket
	ports map[uint16]*socket

	mu    *sync.Mutex
	conns map[flow]net.Conn // accepted
}

// newHost is a host with listeners. The test is skipped without root, unless
// RAZOR_TEST_REQUIRE is set.
func newHost(tb testing.TB) *host {
	tb.Helper()
	testhost.NeedsRoot(tb)
	h := &host{
		tb: tb, calls: make(chan func()), flows: map[flow]*socket{}, ports: map[uint16]*socket{},
		mu: &sync.Mutex{}, conns: map[flow]net.Conn{},
	}
	h.world = world{
		targets: map[uint16]Target{Host: {Level: Normal}, container: inContainer},
		vips:    map[uint16][]netip.Addr{Host: {vip4, vip6}, container: {vip4, vip6}},
		socket:  h.socket,
	}
	entered := make(chan error)
	var thread sync.WaitGroup
	thread.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		entered <- err
		for f := range h.calls {
			f()
		}
	})
	tb.Cleanup(func() { close(h.calls); thread.Wait() })
	if err := <-entered; err != nil {
		tb.Fatal(err)
	}
	h.do(h.openWire)
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "set", "wire", "up"},
		{"addr", "add", vip4.String(), "dev", "lo"},
		{"-6", "route", "add", "local", vip6.String(), "dev", "lo"}, // as an address it would be there a moment later only
		{"route", "add", "default", "dev", "wire"},
		{"-6", "route", "add", "default", "dev", "wire"},
	} {
		h.do(func() error {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %v: %w: %s", args, err, out)
			}
			return nil
		})
	}
	h.do(func() (err error) { h.e, err = Load(Options{}); return err })
	tb.Cleanup(func() { _ = h.e.Close() })
	if err := h.fill(); err != nil {
		tb.Fatal(err)
	}
	h.listen(portMPTCP, true)
	h.listen(portTCP, false)
	return h
}

// do calls f in the namespace.
func (h *host) do(f func() error) {
	h.tb.Helper()
	done := make(chan error)
	h.calls <- func() { done <- f() }
	if err := <-done; err != nil {
		h.tb.Fatal(err)
	}
}

func (h *host) openWire() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq("wire")
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	h.wire = os.NewFile(uintptr(fd), "wire")
	h.tb.Cleanup(func() { _ = h.wire.Close() })
	return nil
}

func (h *host) fill() error {
	if err := h.e.SetDomain(Domain{Locator: locator, Block: block}); err != nil {
		return err
	}
	for number, t := range h.world.targets {
		if err := h.e.SetTarget(number, t); err != nil {
			return err
		}
		if err := h.e.SetVIPs(number, h.world.vips[number]); err != nil {
			return err
		}
	}
	return h.e.objects.Slots.Put(uint32(root.Endpoint), h.e.Program())
}

// level changes the load of a target.
func (h *host) level(target uint16, level Level) {
	h.tb.Helper()
	if err := h.e.SetLevel(target, level); err != nil {
		h.tb.Fatal(err)
	}
	t := h.world.targets[target]
	t.Level = level
	h.world.targets[target] = t
}

// sends changes the largest packet that a target may send.
func (h *host) sends(target uint16, packet int) {
	h.tb.Helper()
	t := h.world.targets[target]
	t.Packet = packet
	if err := h.e.SetTarget(target, t); err != nil {
		h.tb.Fatal(err)
	}
	h.world.targets[target] = t
}

// socket is the oracle of the model: what was done here, remembered.
func (h *host) socket(target uint16, f flow) *socket {
	switch s := h.flows[f]; {
	case target != Host:
		return nil
	case s != nil:
		return s
	}
	if l := h.ports[f.vip.Port()]; l != nil {
		return l
	}
	return nil
}

func (h *host) listen(port uint16, mptcp bool) {
	h.tb.Helper()
	var (
		l       net.Listener
		config  net.ListenConfig
		working sync.WaitGroup
	)
	config.SetMultipathTCP(mptcp)
	config.KeepAlive = -1 // nobody would answer
	h.do(func() (err error) {
		l, err = config.Listen(context.Background(), "tcp", fmt.Sprintf("[::]:%d", port))
		return err
	})
	h.ports[port] = &socket{state: listening, cookie: map[flow]cookie{}}
	working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			h.conns[flow{address(c.RemoteAddr()), address(c.LocalAddr())}] = c
			h.mu.Unlock()
		}
	})
	h.tb.Cleanup(func() {
		_ = l.Close()
		working.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, c := range h.conns {
			_ = c.Close()
		}
	})
}

func address(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// send has the client send a packet.
func (h *host) send(packet []byte) {
	h.tb.Helper()
	if _, err := h.wire.Write(packet); err != nil {
		h.tb.Fatal(err)
	}
}

// receive is the next packet of a flow to its client that has a flag.
func (h *host) receive(f flow, flag byte) (sequence, acked uint32) {
	h.tb.Helper()
	b := make([]byte, 2000)
	_ = h.wire.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		n, err := h.wire.Read(b)
		if err != nil {
			h.tb.Fatalf("waiting for a packet of %v: %v", f, err)
		}
		p, ok := take(b[:n], 0, n, b[0]>>4 == 6)
		if !ok || p.protocol != tcp || p.flags&flag == 0 ||
			netip.AddrPortFrom(p.to, p.toPort) != f.client || netip.AddrPortFrom(p.from, p.fromPort) != f.vip {
			continue
		}
		return binary.BigEndian.Uint32(b[p.l4+4:]), binary.BigEndian.Uint32(b[p.l4+8:])
	}
}

// first is the client's sequence number of its SYN.
const first = 1000

// request opens a connection halfway, and returns what its client would acknowledge.
func (h *host) request(f flow) cookie {
	h.tb.Helper()
	h.send(f.segment(syn, first, 0))
	isn, _ := h.receive(f, syn)
	h.flows[f] = &socket{state: requested, isn: isn}
	return cookie{first + 1, isn + 1}
}

// cookie has the listener give a SYN cookie, and keep nothing.
func (h *host) cookie(f flow) cookie {
	h.tb.Helper()
	h.cookies("2")
	defer h.cookies("1")
	c := h.request(f)
	delete(h.flows, f)
	h.ports[f.vip.Port()].cookie[f] = c
	return c
}

func (h *host) cookies(mode string) {
	h.tb.Helper()
	h.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte(mode), 0) })
}

// connect opens a connection.
func (h *host) connect(f flow) cookie {
	h.tb.Helper()
	c := h.request(f)
	h.send(f.segment(ack, c.sequence, c.acked))
	for deadline := time.Now().Add(10 * time.Second); h.conn(f) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			h.tb.Fatalf("%v is not accepted", f)
		}
	}
	h.flows[f] = &socket{state: connected}
	return c
}

func (h *host) conn(f flow) net.Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.conns[f]
}

// finish opens a connection and has the service end it: it is in TIME_WAIT.
func (h *host) finish(f flow) cookie {
	h.tb.Helper()
	c := h.connect(f)
	_ = h.conn(f).Close()
	sequence, _ := h.receive(f, fin)
	h.send(f.segment(fin|ack, c.sequence, sequence+1))
	for { // until its own end is acknowledged
		if _, acked := h.receive(f, ack); acked == c.sequence+1 {
			break
		}
	}
	h.flows[f] = &socket{state: ended}
	return cookie{c.sequence + 1, sequence + 1}
}

// run is what the program does with a frame.
func (h *host) run(in []byte) (verdict uint32, out []byte) {
	h.tb.Helper()
	out = make([]byte, len(in)+256)
	h.do(func() (err error) {
		o := &ebpf.RunOptions{Data: in, DataOut: out}
		verdict, err = h.e.Program().Run(o)
		out = o.DataOut
		return err
	})
	return verdict, out
}

// counted is how far the counters went in f.
func (h *host) counted(f func()) map[Reason]uint64 {
	h.tb.Helper()
	before, err := h.e.count()
	if err != nil {
		h.tb.Fatal(err)
	}
	f()
	after, err := h.e.count()
	if err != nil {
		h.tb.Fatal(err)
	}
	for r, n := range before {
		if after[r] -= n; after[r] == 0 {
			delete(after, r)
		}
	}
	return after
}

// expect compares the program with the model, and the model with what the test says.
func (h *host) expect(in []byte, verdict uint32, reasons ...Reason) []byte {
	h.tb.Helper()
	var (
		out []byte
		got uint32
	)
	counts := h.counted(func() { got, out = h.run(in) })
	if got != verdict {
		h.tb.Errorf("verdict %d, want %d; counted %v", got, verdict, counts)
	}
	want := map[Reason]uint64{}
	for _, r := range reasons {
		want[r]++
	}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		h.tb.Errorf("counted %v, want %v", counts, want)
	}
	m := h.world.model(in)
	if m.verdict != verdict || !slices.Equal(m.reasons, reasons) {
		h.tb.Errorf("the model says %d %v, want %d %v", m.verdict, m.reasons, verdict, reasons)
	}
	if !m.same(got, out) {
		h.tb.Errorf("out of the program\n% x\nof the model\n% x", out, m.frame)
	}
	return out
}
