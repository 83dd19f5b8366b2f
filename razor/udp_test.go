package razor

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/upstreams"
)

// startUDP serves one socket on a free port until the test ends, and returns
// the port.
func startUDP(tb testing.TB, s *server, host string) uint16 {
	tb.Helper()
	c, err := listenUDP(tb.Context(), netip.AddrPortFrom(netip.MustParseAddr(host), 0))
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.serveUDP(ctx, c) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		c.conn.Close()
	})
	return c.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// speaker is a client's socket, on loopback.
type speaker struct {
	tb testing.TB
	*net.UDPConn
	to netip.AddrPort
}

func newSpeaker(tb testing.TB, to netip.AddrPort) *speaker {
	tb.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return &speaker{tb, c, to}
}

func (s *speaker) send(msg string) {
	s.tb.Helper()
	if _, err := s.WriteToUDPAddrPort([]byte(msg), s.to); err != nil {
		s.tb.Fatal(err)
	}
}

// receive waits for an answer, and tells from where it came.
func (s *speaker) receive(within time.Duration) ([]byte, netip.AddrPort, error) {
	s.tb.Helper()
	buf := make([]byte, 65535)
	if err := s.SetReadDeadline(time.Now().Add(within)); err != nil {
		s.tb.Fatal(err)
	}
	n, from, err := s.ReadFromUDPAddrPort(buf)
	return buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// numberedQuery is a query with an id of its own.
func numberedQuery(id int, n string, qtype uint16) string {
	return u16(id) + plain(name(n), qtype)[2:]
}

// TestUDPSource: the answer comes from the address that was asked, also where
// one socket has them all.
func TestUDPSource(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, kinds(t))})
	for _, r := range []struct {
		listen string
		asked  []string
	}{
		{"0.0.0.0", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.255.255.254"}},
		{"::", []string{"::1"}},
		{"127.0.0.2", []string{"127.0.0.2"}},
		{"::1", []string{"::1"}},
	} {
		port := startUDP(t, s, r.listen)
		for _, asked := range r.asked {
			to := netip.AddrPortFrom(netip.MustParseAddr(asked), port)
			c := newSpeaker(t, to)
			for id := range 3 {
				q := numberedQuery(id, "Z.test", dns.TypeA)
				c.send(q)
				out, from, err := c.receive(10 * time.Second)
				if err != nil {
					t.Errorf("%s on %s: %v", asked, r.listen, err)
					continue
				}
				if from != to {
					t.Errorf("%s on %s: the answer is from %v", asked, r.listen, from)
				}
				if got, want := outcome(wellFormed(t, []byte(q), out)), "NOERROR aa Z.test. 60 A 192.0.2.1"; got != want {
					t.Errorf("%s on %s: %s", asked, r.listen, got)
				}
			}
		}
	}
}

// TestUDPSilence: some messages are not answered, and hinder none behind them.
func TestUDPSilence(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, kinds(t))})
	c := newSpeaker(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), startUDP(t, s, "127.0.0.1")))
	silent := []string{
		"", "x", header(0, 1, 0, 0, 0)[:11], header(bitQR, 1, 0, 0, 0) + question(www, dns.TypeA, 1),
		// Larger than what is read, however well-formed.
		numberedQuery(1, "z.test", dns.TypeA)[:10] + u16(1) + question(name("z.test"), dns.TypeA, 1) + opt(1232, 0, 0, option(dns.EDNS0PADDING, string(make([]byte, maxUDP)))),
	}
	for _, msg := range silent {
		c.send(msg)
	}
	const last = 4711
	c.send(numberedQuery(last, "z.test", dns.TypeA))
	out, _, err := c.receive(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	// One socket is served by one worker: this would have come after the others.
	if id := binary.BigEndian.Uint16(out); id != last {
		t.Errorf("an answer to what is none: % x", out)
	}
	// As large as can be read.
	msg := extended(name("z.test"), dns.TypeA, opt(1232, 0, 0, option(dns.EDNS0PADDING, "")))
	pad := maxUDP - len(msg)
	msg = extended(name("z.test"), dns.TypeA, opt(1232, 0, 0, option(dns.EDNS0PADDING, string(make([]byte, pad)))))
	c.send(msg)
	if out, _, err = c.receive(10 * time.Second); err != nil || len(msg) != maxUDP {
		t.Errorf("%d octets: %v", len(msg), err)
	} else if got := outcome(wellFormed(t, []byte(msg), out)); got != "NOERROR aa z.test. 60 A 192.0.2.1" {
		t.Errorf("%d octets: %s", len(msg), got)
	}
}

// large writes a zone whose answers do not fit into UDP.
func large(tb testing.TB) fill {
	return func(s *upstreams.Embedded) {
		zoneConfig(s, "z.test", "COUNT", "255")
		set(tb, s, "z.test:AAAA", numbered("2001:db8::1", 255)...)
	}
}

// TestUDPTruncates holds the sizes on the wire.
func TestUDPTruncates(t *testing.T) {
	t.Parallel()
	s := newServer(fixed{snapshotOf(t, large(t))})
	c := newSpeaker(t, netip.AddrPortFrom(netip.MustParseAddr("::1"), startUDP(t, s, "::1")))
	for _, msg := range []string{plain(name("z.test"), dns.TypeAAAA), extended(name("z.test"), dns.TypeAAAA, opt(65535, 0, 0))} {
		c.send(msg)
		out, _, err := c.receive(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m := wellFormed(t, []byte(msg), out); !m.Truncated || len(out) > plainUDP {
			t.Errorf("%d octets: %s", len(out), outcome(m))
		}
	}
}

// slow are lists that take their time.
type slow struct{ fixed }

func (s slow) Snapshot() *upstreams.Snapshot {
	time.Sleep(time.Millisecond)
	return s.fixed.Snapshot()
}

// TestUDPStop: what has arrived when the server is told to stop is answered.
func TestUDPStop(t *testing.T) {
	t.Parallel()
	s := newServer(slow{fixed{snapshotOf(t, kinds(t))}})
	sock, err := listenUDP(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer sock.conn.Close()
	c := newSpeaker(t, sock.conn.LocalAddr().(*net.UDPAddr).AddrPort())
	const queries = 10
	for id := range queries {
		c.send(numberedQuery(id, "z.test", dns.TypeA))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	if err := s.serveUDP(ctx, sock); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	answered := map[uint16]bool{}
	for len(answered) < queries {
		out, _, err := c.receive(time.Second)
		if err != nil {
			break
		}
		answered[binary.BigEndian.Uint16(out)] = true
	}
	if len(answered) != queries {
		t.Errorf("%d of %d queries that had arrived were answered", len(answered), queries)
	}
	if _, _, err := c.receive(10 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another answer: %v", err)
	}
}

// TestReplyFrom are control messages as the kernel gives and takes them.
func TestReplyFrom(t *testing.T) {
	t.Parallel()
	info4 := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: 7, Spec_dst: [4]byte{192, 0, 2, 1}, Addr: [4]byte{192, 0, 2, 1}})
	cleared4 := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{192, 0, 2, 1}, Addr: [4]byte{192, 0, 2, 1}})
	info6 := func(addr string, index uint32) []byte {
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: netip.MustParseAddr(addr).As16(), Ifindex: index})
	}
	other := append([]byte(nil), info4...)
	binary.NativeEndian.PutUint32(other[12:], unix.IP_TTL)
	for _, r := range []struct {
		name     string
		in, want []byte
	}{
		{"IPv4", info4, cleared4},
		{"IPv6", info6("2001:db8::1", 7), info6("2001:db8::1", 0)},
		{"link-local", info6("fe80::1", 7), info6("fe80::1", 7)},
		{"nothing", nil, nil},
		{"short", info4[:10], nil},
		{"cut", info4[:20], nil},
		{"of another kind", other, nil},
	} {
		got := replyFrom(append([]byte(nil), r.in...))
		if string(got) != string(r.want) || (got == nil) != (r.want == nil) {
			t.Errorf("%s: % x, want % x", r.name, got, r.want)
		}
	}
}
