package bfd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/ipv4"

	"github.com/razor-steering/razor/upstreams"
)

// patience bounds the wait for what takes milliseconds on an idle machine.
const patience = time.Minute

func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("waiting for %s: timed out", what)
		}
	}
}

// loopback is an address that hardly another test has.
func loopback() netip.Addr {
	b := func() byte { return byte(1 + rand.IntN(254)) }
	return netip.AddrFrom4([4]byte{127, b(), b(), b()})
}

// host is a speaker on an address of loopback, and what it told.
type host struct {
	*Speaker
	tb       testing.TB
	addr     netip.Addr
	registry *prometheus.Registry
	stop     func()

	mu      sync.Mutex
	changes []Change
}

// newHost is a host whose speaker does not run.
func newHost(tb testing.TB, addr netip.Addr) *host {
	tb.Helper()
	h := &host{tb: tb, addr: addr, registry: prometheus.NewRegistry()}
	h.Speaker = New(Options{Listen: []netip.Addr{addr}, Changed: h.note}, slog.New(slog.DiscardHandler), h.registry)
	return h
}

func startHost(tb testing.TB, addr netip.Addr) *host {
	tb.Helper()
	h := newHost(tb, addr)
	h.start()
	return h
}

// start runs the speaker until the test ends or stop is called.
func (h *host) start() {
	h.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				h.tb.Errorf("speaker: %v", err)
			}
		case <-time.After(patience):
			h.tb.Error("the speaker does not stop")
		}
	})
	h.tb.Cleanup(h.stop)
}

func (h *host) note(c Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, c)
}

// told are the changes until now.
func (h *host) told() []Change {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.changes)
}

// last is the newest change.
func (h *host) last() Change {
	if c := h.told(); len(c) > 0 {
		return c[len(c)-1]
	}
	return Change{}
}

// calm is what a busy machine does not break, and still quick.
func (h *host) calm(peer netip.Addr) Config {
	return Config{Peer: peer, Local: h.addr, Interval: 200 * time.Millisecond, Multiplier: 10}
}

func (h *host) add(c Config) {
	h.tb.Helper()
	if err := h.Add(c); err != nil {
		h.tb.Fatal(err)
	}
}

// session is the one with a peer.
func (h *host) session(peer netip.Addr) Status {
	for _, s := range h.Sessions() {
		if s.Peer == peer {
			return s
		}
	}
	return Status{}
}

func (h *host) await(peer netip.Addr, state State) {
	h.tb.Helper()
	until(h.tb, fmt.Sprintf("%v to be %v", peer, state), func() bool { return h.session(peer).State == state && h.last().State == state })
}

// pair is two hosts whose session is up at the wanted rate.
func pair(t *testing.T) (a, b *host) {
	t.Helper()
	a, b = startHost(t, loopback()), startHost(t, loopback())
	a.add(a.calm(b.addr))
	b.add(b.calm(a.addr))
	a.agreed(b, 200*time.Millisecond)
	b.agreed(a, 200*time.Millisecond)
	return a, b
}

// agreed waits until a session is up at a rate.
func (h *host) agreed(with *host, interval time.Duration) {
	h.tb.Helper()
	until(h.tb, "an agreement", func() bool {
		s := h.session(with.addr)
		return s.State == Up && s.TransmitInterval == interval && s.ReceiveInterval == interval
	})
}

func TestSpeakers(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	s, o := a.session(b.addr), b.session(a.addr)
	if s.LocalDiscriminator == 0 || s.LocalDiscriminator != o.RemoteDiscriminator || o.LocalDiscriminator != s.RemoteDiscriminator {
		t.Errorf("discriminators of %+v and %+v", s, o)
	}
	if s.DetectionTime != 2*time.Second || s.Remote != Up || s.Received == 0 || s.Sent == 0 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	for _, h := range []*host{a, b} {
		until(t, "the changes to be told", func() bool { return h.last().State == Up })
		for _, c := range h.told() {
			if c.Failed() {
				t.Errorf("%+v on the way up", c)
			}
		}
	}
}

// TestWayDown: what a client is told when a session ends, and whether that is a
// failure of the path (RFC 5882 §4.2).
func TestWayDown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		do     func(a, b *host)
		diag   Diagnostic
		remote State
		failed bool
	}{
		{"the peer stops by will", func(_, b *host) { b.stop() }, DiagSignaled, AdminDown, false},
		{"the peer's session is removed", func(a, b *host) { b.Remove(a.addr) }, DiagSignaled, AdminDown, false},
		{"the peer takes it down", func(a, b *host) { b.AdminDown(a.addr) }, DiagSignaled, AdminDown, false},
		{"the peer is gone", func(_, b *host) { b.leaving.Store(true); b.stop() }, DiagExpired, Down, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			tt.do(a, b)
			a.await(b.addr, Down)
			c := a.last()
			if c.Was != Up || c.Diagnostic != tt.diag || c.Remote != tt.remote || c.Failed() != tt.failed {
				t.Errorf("%+v", c)
			}
			if s := a.session(b.addr); (s.Failures == 1) != tt.failed {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestAdminDownAndUp(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.AdminDown(b.addr)
	a.await(b.addr, AdminDown)
	if c := a.last(); c.Failed() || c.Diagnostic != DiagAdmin {
		t.Errorf("%+v", c)
	}
	b.await(a.addr, Down)
	a.AdminUp(b.addr)
	a.await(b.addr, Up)
	b.await(a.addr, Up)
}

// TestSettings: a session that is there takes other settings without an
// interruption.
func TestSettings(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	before := len(a.told()) + len(b.told())
	for _, interval := range []time.Duration{400 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		c := a.calm(b.addr)
		c.Interval, c.Multiplier = interval, 20
		a.add(c)
		a.agreed(b, max(interval, 200*time.Millisecond))
		b.agreed(a, max(interval, 200*time.Millisecond))
	}
	if got := b.session(a.addr).DetectionTime; got != 4*time.Second {
		t.Errorf("detection time %v with a multiplier of 20", got)
	}
	if after := len(a.told()) + len(b.told()); after != before {
		t.Errorf("changes: %v, %v", a.told(), b.told())
	}
}

// TestHandover: the peer does not notice that another process goes on.
func TestHandover(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	before, discriminator := len(b.told()), a.session(b.addr).LocalDiscriminator
	resume := a.Handover(t.Context(), 30*time.Second)
	if len(resume) != 1 || resume[0].Peer != b.addr {
		t.Fatalf("%+v", resume)
	}
	if got := b.session(a.addr).DetectionTime; got < 30*time.Second {
		t.Errorf("the peer waits for %v", got)
	}
	a.stop()
	next := newHost(t, a.addr)
	c := next.calm(b.addr)
	c.Resume = &resume[0]
	next.add(c)
	next.start()
	next.agreed(b, 200*time.Millisecond)
	b.agreed(next, 200*time.Millisecond)
	if got := next.session(b.addr).LocalDiscriminator; got != discriminator {
		t.Errorf("discriminator %d, was %d", got, discriminator)
	}
	if got := b.told(); len(got) != before {
		t.Errorf("the peer saw %v", got[before:])
	}
	until(t, "the resumed session to be told", func() bool { return next.last().State == Up })
	if got := next.told(); len(got) != 1 {
		t.Errorf("told %v", got)
	}
}

// TestHandoverPeerGone: a peer that does not answer does not hold the handover up
// for ever, and a session that is not up is not handed over.
func TestHandoverPeerGone(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	b.leaving.Store(true)
	b.stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := a.Handover(ctx, time.Second); len(got) != 1 {
		t.Errorf("%v, the session is still up", got)
	}
	a.await(b.addr, Down)
	if got := a.Handover(t.Context(), time.Second); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// stranger is a socket of a peer that is written by hand.
func stranger(t *testing.T, addr netip.Addr) *ipv4.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp4", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p := ipv4.NewPacketConn(c)
	if err := errors.Join(p.SetTTL(255), p.SetControlMessage(ipv4.FlagTTL, true)); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOnTheWire: hop limit and source port (RFC 5881 §4, §5).
func TestOnTheWire(t *testing.T) {
	t.Parallel()
	h, peer := startHost(t, loopback()), loopback()
	c := stranger(t, peer)
	h.add(h.calm(peer))
	b := make([]byte, 100)
	n, cm, from, err := c.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	source := from.(*net.UDPAddr).AddrPort()
	if cm.TTL != 255 || source.Addr() != h.addr || source.Port() < 49152 || n != 24 {
		t.Errorf("%d octets from %v, TTL %d", n, source, cm.TTL)
	}
	p, err := parse(b[:n])
	if err != nil || p.state != Down || p.minTx != time.Second || p.minRx != 200*time.Millisecond || p.multiplier != 10 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestMetrics: what is of no use is dropped and counted, and what every session
// says.
func TestMetrics(t *testing.T) {
	t.Parallel()
	h, peer := startHost(t, loopback()), loopback()
	c, other := stranger(t, peer), stranger(t, loopback())
	h.add(h.calm(peer))
	buffer := make([]byte, 100)
	if _, _, _, err := c.ReadFrom(buffer); err != nil { // it runs
		t.Fatal(err)
	}
	send := func(c *ipv4.PacketConn, b []byte) {
		t.Helper()
		if _, err := c.WriteTo(b, nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.addr, port))); err != nil {
			t.Fatal(err)
		}
	}
	ours := h.session(peer).LocalDiscriminator
	good := packet{state: Up, multiplier: 3, my: 7, your: ours, minTx: time.Second, minRx: time.Second}
	wrong := good
	wrong.your = ours + 1
	unknown := packet{state: Down, multiplier: 3, my: 7, minTx: time.Second, minRx: time.Second}

	send(c, good.octets()[:23])
	send(c, nil)
	send(c, wrong.octets())
	send(other, good.octets())
	send(other, unknown.octets())
	if err := c.SetTTL(254); err != nil {
		t.Fatal(err)
	}
	send(c, good.octets())
	if err := c.SetTTL(255); err != nil {
		t.Fatal(err)
	}
	send(c, good.octets()) // from a peer that is up, to us, who are down: no change
	until(t, "the last packet", func() bool { return h.session(peer).Received == 1 })
	h.AdminDown(peer) // nothing happens any more
	h.await(peer, AdminDown)
	sent := h.session(peer).Sent

	want := []string{
		`razor_gateway_bfd_detection_seconds{peer="PEER"} 3`,
		`razor_gateway_bfd_dropped_packets_total{reason="hop_limit"} 1`,
		`razor_gateway_bfd_dropped_packets_total{reason="malformed"} 2`,
		`razor_gateway_bfd_dropped_packets_total{reason="no_session"} 3`,
		`razor_gateway_bfd_received_packets_total{peer="PEER"} 1`,
		`razor_gateway_bfd_send_errors_total{peer="PEER"} 0`,
		`razor_gateway_bfd_sent_packets_total{peer="PEER"} SENT`,
		`razor_gateway_bfd_session_up{peer="PEER"} 0`,
		`razor_gateway_bfd_transitions_total{peer="PEER",state="admin_down"} 1`,
		`razor_gateway_bfd_transitions_total{peer="PEER",state="down"} 0`,
		`razor_gateway_bfd_transitions_total{peer="PEER",state="init"} 0`,
		`razor_gateway_bfd_transitions_total{peer="PEER",state="up"} 0`,
	}
	got := series(t, h.registry)
	for i, line := range got {
		got[i] = strings.ReplaceAll(line, peer.String(), "PEER")
		if rest, ok := strings.CutPrefix(got[i], `razor_gateway_bfd_sent_packets_total{peer="PEER"} `); ok {
			var n uint64
			if _, err := fmt.Sscan(rest, &n); err != nil || n < sent {
				t.Errorf("sent %s, at least %d", rest, sent)
			}
			got[i] = strings.TrimSuffix(got[i], rest) + "SENT"
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("series:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	h.Remove(peer)
	if got := series(t, h.registry); len(got) != 3 {
		t.Errorf("series of a removed session: %v", got)
	}
}

// series are all series of a registry as "name{label="value",…} number".
func series(tb testing.TB, reg *prometheus.Registry) []string {
	tb.Helper()
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			out = append(out, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	slices.Sort(out)
	return out
}

// TestRemovedPeerIsStranger: its packets are of no session, and no farewell is
// sent but to it.
func TestRemovedPeerIsStranger(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	a.Remove(b.addr)
	a.Remove(b.addr)
	a.AdminDown(b.addr)
	if got := a.Sessions(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	b.await(a.addr, Down)
	a.add(a.calm(b.addr))
	b.await(a.addr, Up)
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	good := Config{Peer: netip.MustParseAddr("2001:db8::1"), Interval: 50 * time.Millisecond, Multiplier: 3}
	for _, tt := range []struct {
		name string
		edit func(c *Config)
		key  string // "" where it is good
	}{
		{"good", func(*Config) {}, ""},
		{"IPv4", func(c *Config) { c.Peer = netip.MustParseAddr("192.0.2.1") }, ""},
		{"IPv4 in IPv6", func(c *Config) {
			c.Peer, c.Local = netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		}, ""},
		{"link-local", func(c *Config) { c.Peer = netip.MustParseAddr("fe80::1%eth0") }, ""},
		{"the limits", func(c *Config) { c.Interval, c.Multiplier = LeastInterval, 255 }, ""},
		{"the other limits", func(c *Config) { c.Interval, c.Multiplier = MostInterval, 1 }, ""},
		{"no peer", func(c *Config) { c.Peer = netip.Addr{} }, "peer"},
		{"all", func(c *Config) { c.Peer = netip.MustParseAddr("::") }, "peer"},
		{"multicast", func(c *Config) { c.Peer = netip.MustParseAddr("ff02::1%eth0") }, "peer"},
		{"link-local alone", func(c *Config) { c.Peer = netip.MustParseAddr("fe80::1") }, "peer"},
		{"an interface too many", func(c *Config) { c.Peer = netip.MustParseAddr("2001:db8::1%eth0") }, "peer"},
		{"two families", func(c *Config) { c.Local = netip.MustParseAddr("192.0.2.1") }, "local"},
		{"local of nobody", func(c *Config) { c.Local = netip.MustParseAddr("::") }, "local"},
		{"too short", func(c *Config) { c.Interval = LeastInterval - 1 }, "interval"},
		{"too long", func(c *Config) { c.Interval = MostInterval + 1 }, "interval"},
		{"not in microseconds", func(c *Config) { c.Interval++ }, "interval"},
		{"multiplier 0", func(c *Config) { c.Multiplier = 0 }, "multiplier"},
		{"multiplier 256", func(c *Config) { c.Multiplier = 256 }, "multiplier"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := good
			tt.edit(&c)
			h := newHost(t, loopback())
			err := h.Add(c)
			d, ok := errors.AsType[upstreams.Defect](err)
			if tt.key == "" && err != nil || tt.key != "" && (!ok || d.Key != tt.key || d.Want == "") {
				t.Errorf("got %v, want a defect of %q", err, tt.key)
			}
		})
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	a := loopback()
	stranger(t, a)
	err := newHost(t, a).Run(t.Context())
	if d, ok := errors.AsType[upstreams.Defect](err); !ok || d.Reason != upstreams.PortInUse {
		t.Errorf("%v", err)
	}
}

// TestSendErrors: what the kernel refuses is counted, and the session goes on.
func TestSendErrors(t *testing.T) {
	t.Parallel()
	h, peer := startHost(t, loopback()), loopback()
	c := h.calm(peer)
	c.Local = netip.MustParseAddr("192.0.2.77") // not of this host
	h.add(c)
	until(t, "an error", func() bool { return h.session(peer).SendErrors > 0 })
	h.add(h.calm(peer))
	until(t, "a packet", func() bool { return h.session(peer).Sent > 0 })
}

// TestBusyHost: a process that did not run looks at what has come meanwhile
// before it takes the peer for gone, and does so once.
func TestBusyHost(t *testing.T) {
	t.Parallel()
	h, peer := newHost(t, loopback()), loopback()
	h.add(h.calm(peer))
	w := h.all()[0]
	w.session = upSession(t)
	long := time.Now().Add(-time.Hour)
	w.session.heard, w.due = long, long
	if _, changes, next := w.step(); len(changes) > 0 || w.session.state != Up || time.Until(next) > grace {
		t.Fatalf("%v, %v", w.session.state, changes)
	}
	if _, _, _ = w.step(); time.Now().Before(w.excused) && w.session.state != Up {
		t.Error("down before what has come is read")
	}
	until(t, "the session to be down", func() bool {
		_, changes, next := w.step()
		time.Sleep(min(time.Until(next), grace))
		return len(changes) == 1 && changes[0].Failed()
	})
}
