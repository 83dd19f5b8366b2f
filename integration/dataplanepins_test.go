package integration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	datagrams "github.com/razor-steering/razor/steering/wire"
)

// pinning is a dataplane whose backends tell the gateway of the flows that they have.
type pinning struct {
	*kept

	keys     datagrams.Keys
	listener *gateway.Pins
	agents   []*agent.Pinner
}

func pinKeys(t *testing.T, id, secret int) datagrams.Keys {
	t.Helper()
	keys, err := datagrams.ParseKeys(fmt.Sprintf("%d: %064x", id, secret))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newPinning(t *testing.T, backends int) *pinning {
	t.Helper()
	p := listen(newKept(t, backends), pinKeys(t, 1, 1))
	p.tell()
	return p
}

// listen has a gateway hear of flows.
func listen(k *kept, keys datagrams.Keys) *pinning {
	k.t.Helper()
	p := &pinning{kept: k, keys: keys}
	var err error
	p.gateway.Do(func() {
		p.listener, err = gateway.ListenPins(locator(k.number), keys, func(f balancer.Flow, owner netip.Addr) error {
			return p.keeper.Pin(f, owner)
		})
	})
	p.must(err)
	p.during(p.listener.Run)
	return p
}

// during runs something until the test ends.
func (p *pinning) during(run func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

// tell has the agents of all backends tell gateways of their flows.
func (p *pinning) tell() {
	p.t.Helper()
	for i, b := range p.backends {
		var pinner *agent.Pinner
		var err error
		b.Do(func() { pinner, err = agent.NewPinner(locator(p.locator(i+1)), p.keys) })
		p.must(err)
		p.agents = append(p.agents, pinner)
		p.during(pinner.Run)
		p.during(func(ctx context.Context) error { return p.endpoints[i].Events(ctx, pinner.Tell) })
	}
}

// metric is the sum of a metric of gateway and agents, or of what has a label.
func (p *pinning) metric(name, label string) (sum float64) {
	p.t.Helper()
	for _, c := range append([]prometheus.Collector{p.keeper, p.listener}, p.collectors()...) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(c)
		families, err := registry.Gather()
		p.must(err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && (label == "" || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label) {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}

func (p *pinning) collectors() (out []prometheus.Collector) {
	for _, a := range p.agents {
		out = append(out, a)
	}
	return out
}

// pinned waits for some pins to be made in all, for at most a second.
func (p *pinning) pinned(when string, want int) {
	p.t.Helper()
	made := 0.0
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if made = p.metric("razor_gateway_pins_told_total", "pinned"); int(made) >= want {
			return
		}
	}
	p.t.Fatalf("%s: %v pins made within a second, want %d; told %v, lost %v, refused %v", when, made, want,
		p.metric("razor_agent_pins_told_total", ""), p.metric("razor_agent_pins_lost_total", ""), p.metric("razor_gateway_pin_refusals_total", ""))
}

// moved opens flows and then gives all slots to the last backend: all flows are behind
// their row's current backend.
func (p *pinning) moved(n int) {
	p.t.Helper()
	last := len(p.plan) - 1
	for i := range p.plan {
		p.plan[i].State = balancer.Active
	}
	p.plan[last].State = balancer.Draining
	p.apply()
	p.begin(n)
	for i := range p.plan {
		p.plan[i].State = balancer.Draining
	}
	p.plan[last].State = balancer.Active
	p.apply()
}

// alive asks on flows.
func (p *pinning) alive(when string, flows []*liveFlow) {
	p.t.Helper()
	for i, f := range flows {
		if by, err := f.ask(); err != nil || by != f.by {
			p.t.Fatalf("%s: flow %d of %q is of %q, %v; %v", when, i, f.by, by, err, p.counts())
		}
	}
}

// forget has rows with nobody but who is current, and no histories.
func (p *pinning) forget() {
	for slot := range balancer.Slots {
		const current, mark = 0x7fff, 1 << 30
		p.balancer.SetRow(0, slot, p.balancer.Row(0, slot)&(current|mark))
		p.balancer.SetHistory(0, slot, 0)
	}
}

// A flow that its row does not find first is pinned within a second, and lives on when
// row and history have forgotten who has it, through a restart as well.
func TestPinsKeepFlows(t *testing.T) {
	t.Parallel()
	p := newPinning(t, 3)
	const flows, silent = 40, 2
	p.moved(flows + silent)
	asked, others := p.flows[:flows], p.flows[flows:]
	p.alive("hunted for", asked)
	p.pinned("hunted for", flows)
	p.forget()
	before := p.counts()
	p.alive("by their pins", asked)
	if now := p.counts(); now["miss"] != before["miss"] {
		t.Errorf("%d misses of flows with pins", now["miss"]-before["miss"])
	}
	if got := p.metric("razor_gateway_pins_told_total", ""); got != flows {
		t.Errorf("told of %v flows, want %d: those with pins are found first", got, flows)
	}
	for _, f := range others { // or the pins would be for nothing
		if by, err := f.ask(); err == nil {
			t.Errorf("a flow without a pin, of %q, still is of %q", f.by, by)
		}
	}

	p.stop()
	p.unload()
	p.alive("without a process", asked)
	p.load()
	p.alive("taken over", asked)
	p.keep()
	p.forget() // what the keeper knows is what it read
	p.alive("kept again", asked)
	if got := p.metric("razor_gateway_pins", ""); got != flows {
		t.Errorf("%v pins after a restart, want %d", got, flows)
	}
	if refused := p.metric("razor_gateway_pin_refusals_total", ""); refused != 0 {
		t.Errorf("%v refused", refused)
	}
}

// The pins are lost: flows live by row and history, and are pinned again.
func TestPinsLost(t *testing.T) {
	t.Parallel()
	p := newPinning(t, 3)
	const flows = 40
	p.moved(flows)
	p.alive("hunted for", p.flows)
	p.pinned("hunted for", flows)
	losePins(t, p.pins)
	time.Sleep(1100 * time.Millisecond) // an agent tells of a flow once in a second
	p.alive("pins lost", p.flows)
	p.pinned("pins lost", 2*flows)
	p.forget()
	p.alive("by their new pins", p.flows)
}

// losePins empties the table of pins that a gateway has below a directory.
func losePins(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "balancer-*", "pins"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	m, err := ebpf.LoadPinnedMap(files[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var key, next []byte
	for err = m.NextKey(nil, &key); err == nil; key, next = next, nil {
		err = m.NextKey(key, &next)
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which the gateway ended itself
			t.Fatal(err)
		}
	}
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
}

// datagram sends one to the gateway, from an address that a host need not have.
func (p *pinning) datagram(from *netlab.Node, source netip.Addr, b []byte) {
	p.t.Helper()
	c, err := from.ListenPacket("udp6", netip.AddrPortFrom(source, 0).String())
	p.must(err)
	defer c.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(datagrams.LocatorOf(locator(0).Addr()).Address(), datagrams.Port))
	_, err = c.WriteTo(b, to)
	p.must(err)
}

// seal is a datagram of a backend with one flow.
func (p *pinning) seal(keys datagrams.Keys, backend int, vip string) []byte {
	p.t.Helper()
	now := time.Now()
	s := datagrams.NewSealer(keys, datagrams.LocatorOf(locator(backend).Addr()), datagrams.LocatorOf(locator(0).Addr()), now)
	d, err := s.SealPins(nil, []datagrams.Pin{{
		Client: netip.AddrPortFrom(netip.MustParseAddr("2001:db8:c::9"), 20000), VIP: netip.MustParseAddrPort(vip), Protocol: unix.IPPROTO_TCP,
	}}, now)
	p.must(err)
	return d
}

// What is not an agent's, or not its own flow, is refused and counted, and what does not
// come from the SR domain is not even heard.
func TestPinsRefused(t *testing.T) {
	t.Parallel()
	p := newPinning(t, 3)
	p.plan = p.plan[:2]
	p.apply()
	const vip = "[" + vipAddress6 + "]:443"
	address := func(i int) netip.Addr { return datagrams.LocatorOf(locator(i).Addr()).Address() }
	forged := p.seal(p.keys, 1, vip)
	forged[60] ^= 1
	for _, c := range []struct {
		reason   string
		from     int
		datagram []byte
	}{
		{"forged", 1, forged},
		{"forged", 1, p.seal(pinKeys(t, 1, 2), 1, vip)},
		{"unknown_key", 1, p.seal(pinKeys(t, 2, 2), 1, vip)},
		{"impostor", 2, p.seal(p.keys, 1, vip)},
		{"malformed", 1, []byte("who")},
		{"vip", 1, p.seal(p.keys, 1, "[2001:db8:ffff::2]:443")},
		{"backend", 3, p.seal(p.keys, 3, vip)}, // of no plan
	} {
		before := p.metric("razor_gateway_pin_refusals_total", c.reason)
		p.datagram(p.backends[c.from-1], address(c.from), c.datagram)
		p.lab.Eventually("refused as "+c.reason, func() bool { return p.metric("razor_gateway_pin_refusals_total", c.reason) == before+1 })
	}
	outsiders := p.counts()["outsider"]
	p.datagram(p.client, netip.MustParseAddr(clientAddress6), p.seal(p.keys, 1, vip))
	p.lab.Eventually("a stranger's datagram dropped", func() bool { return p.counts()["outsider"] == outsiders+1 })
	if got := p.metric("razor_gateway_pins_told_total", ""); got != 0 {
		t.Fatalf("%v believed", got)
	}

	good := p.seal(p.keys, 1, vip)
	p.datagram(p.backends[0], address(1), good)
	p.lab.Eventually("one believed", func() bool { return p.metric("razor_gateway_pins_told_total", "") == 1 })
	p.datagram(p.backends[0], address(1), good)
	p.lab.Eventually("refused as repeated", func() bool { return p.metric("razor_gateway_pin_refusals_total", "repeated") == 1 })
	if got := p.metric("razor_gateway_pins_told_total", ""); got != 1 {
		t.Errorf("%v believed, want 1", got)
	}
}

// spoofed is a segment without data from anybody to the VIP.
func spoofed(flags byte) []byte {
	source, vip := [4]byte{203, 0, 113, byte(rand.Uint32())}, netip.MustParseAddr(vipAddress4).As4()
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, uint16(1024+rand.Uint32N(60000)))
	binary.BigEndian.PutUint16(tcp[2:], 443)
	binary.BigEndian.PutUint32(tcp[4:], rand.Uint32())
	binary.BigEndian.PutUint32(tcp[8:], rand.Uint32())
	tcp[12], tcp[13], tcp[14] = 5<<4, flags, 0xff
	sum := uint32(unix.IPPROTO_TCP + len(tcp))
	for _, part := range [][]byte{source[:], vip[:], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum+sum>>16))
	ip := append([]byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0}, source[:]...) // the kernel sums it
	return append(append(ip, vip[:]...), tcp...)
}

// A flood of spoofed segments makes no pins, whatever the rows are, and ends none.
func TestFloodMakesNoPins(t *testing.T) {
	t.Parallel()
	p := newPinning(t, 3)
	const flows, flood = 20, 20_000
	p.moved(flows)
	p.alive("hunted for", p.flows)
	p.pinned("hunted for", flows)
	var fd int
	var err error
	p.client.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW) })
	p.must(err)
	defer unix.Close(fd)
	before := p.counts()["sent"]
	const syn, ack = 2, 16
	for i := range flood {
		flags := byte(syn)
		if i%4 == 0 {
			flags = ack
		}
		if err := unix.Sendto(fd, spoofed(flags), 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(vipAddress4).As4()}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			t.Fatal(err)
		}
	}
	p.alive("flooded", p.flows)
	if sent := p.counts()["sent"] - before; sent < flood/2 {
		t.Fatalf("%d packets of the flood were sent on, of %d: %v", sent, flood, p.counts())
	}
	if got := p.metric("razor_gateway_pins", ""); got != flows {
		t.Errorf("%v pins, want %d", got, flows)
	}
	if got := p.metric("razor_agent_pins_told_total", ""); got != flows {
		t.Errorf("agents told of %v flows, want %d", got, flows)
	}
}

// The processes of users: a backend drains, and its agent has the gateway pin its flows.
func TestPinsOfProcesses(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	h.begin(40, "web1", "web2")
	text, err := os.ReadFile(h.gateway.config)
	if err != nil {
		t.Fatal(err)
	}
	const web1 = `locator: "2001:db8:5e:2::/64"`
	if err := os.WriteFile(h.gateway.config, []byte(strings.Replace(string(text), web1, web1+", state: draining", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	h.gateway.Signal(syscall.SIGHUP)
	h.gateway.untilLog("configuration reloaded")
	h.goOn("a backend drains")
	old := 0
	for _, f := range h.flows {
		if f.by == "web1\n" {
			old++
		}
	}
	pinned := fmt.Sprintf(`razor_gateway_pins_told_total{result="pinned"} %d`+"\n", old)
	h.lab.Eventually("its flows are pinned", func() bool { return strings.Contains(h.gateway.metrics(), pinned) })
	if told := fmt.Sprintf("razor_agent_pins_told_total %d\n", old); !strings.Contains(get(h.agents[0], "/metrics"), told) {
		t.Errorf("the agent's metrics are without %q", told)
	}
	h.gateway.Kill()
	h.goOn("the gateway was killed")
	h.gateway.start()
	h.gateway.awaitUp(1)
	h.goOn("the gateway runs again")
	if got, want := h.gateway.metrics(), fmt.Sprintf("razor_gateway_pins %d\n", old); !strings.Contains(got, want) {
		t.Errorf("the gateway's metrics are without %q", want)
	}
	h.stop()
}
