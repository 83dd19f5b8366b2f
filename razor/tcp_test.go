package razor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/upstreams"
)

// tcpHarness is a TCP server on loopback.
type tcpHarness struct {
	tb       testing.TB
	addr     string
	registry *prometheus.Registry
	stop     func()
}

// startTCP serves until the test ends or stop is called.
func startTCP(tb testing.TB, lists lists, host string, edit func(*tcpServer)) *tcpHarness {
	tb.Helper()
	h := &tcpHarness{tb: tb, registry: prometheus.NewRegistry()}
	t := newTCPServer(newServer(lists, func(s *server) { s.metrics = newMetrics(h.registry) }))
	if edit != nil {
		edit(t)
	}
	l, err := listenTCP(tb.Context(), netip.AddrPortFrom(netip.MustParseAddr(host), 0))
	if err != nil {
		tb.Fatal(err)
	}
	h.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- t.serve(ctx, l) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				tb.Error(err)
			}
		case <-time.After(20 * time.Second):
			tb.Error("TCP does not stop")
		}
		l.Close()
		if len(t.open) != 0 || len(t.block) != 0 {
			tb.Errorf("%d connections and %d clients are counted after the end", len(t.open), len(t.block))
		}
		if got := value(tb, h.registry, metricTCP); got != 0 {
			tb.Errorf("%v connections in the metric after the end", got)
		}
	})
	tb.Cleanup(h.stop)
	return h
}

// talker is a client's connection.
type talker struct {
	tb testing.TB
	*net.TCPConn
}

func (h *tcpHarness) dial() *talker {
	h.tb.Helper()
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.tb.Fatal(err)
	}
	h.tb.Cleanup(func() { c.Close() })
	return &talker{h.tb, c.(*net.TCPConn)}
}

// framed is messages with their lengths before them.
func framed(msgs ...string) string {
	var b strings.Builder
	for _, m := range msgs {
		b.WriteString(u16(len(m)) + m)
	}
	return b.String()
}

func (c *talker) send(octets string) {
	c.tb.Helper()
	if _, err := io.WriteString(c, octets); err != nil {
		c.tb.Fatal(err)
	}
}

// receive reads one answer.
func (c *talker) receive() ([]byte, error) {
	c.tb.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	return readFramed(c)
}

func readFramed(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	out := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, out)
	return out, err
}

// answers holds that the next answer is to a query.
func (c *talker) answers(query, want string) {
	c.tb.Helper()
	out, err := c.receive()
	if err != nil {
		c.tb.Fatalf("no answer: %v", err)
	}
	if got := outcome(wellFormed(c.tb, []byte(query), out)); got != want {
		c.tb.Errorf("%s, want %s", got, want)
	}
}

// closed holds that the server ends the connection, without another answer.
func (c *talker) closed() {
	c.tb.Helper()
	if out, err := c.receive(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		c.tb.Errorf("not closed: % x, %v", out, err)
	}
}

const apexA = "NOERROR aa z.test. 60 A 192.0.2.1"

func TestTCPExchange(t *testing.T) {
	t.Parallel()
	lists := fixed{snapshotOf(t, kinds(t))}
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		c := startTCP(t, lists, host, nil).dial()
		for id := range 5 {
			q := numberedQuery(id, "z.test", dns.TypeA)
			c.send(framed(q))
			c.answers(q, apexA)
		}
		refused := numberedQuery(9, "example.org", dns.TypeA)
		c.send(framed(refused))
		c.answers(refused, "REFUSED")
	}
}

// TestTCPLarge: what UDP truncates comes whole.
func TestTCPLarge(t *testing.T) {
	t.Parallel()
	c := startTCP(t, fixed{snapshotOf(t, large(t))}, "::1", nil).dial()
	q := plain(name("z.test"), dns.TypeAAAA)
	c.send(framed(q, q))
	for range 2 {
		out, err := c.receive()
		if err != nil {
			t.Fatal(err)
		}
		if m := wellFormed(t, []byte(q), out); m.Truncated || len(m.Answer) != 255 {
			t.Errorf("%d addresses", len(m.Answer))
		}
	}
}

// TestTCPLargeQuery: a query that is larger than the buffers is one.
func TestTCPLargeQuery(t *testing.T) {
	t.Parallel()
	c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", nil).dial()
	first := numberedQuery(1, "z.test", dns.TypeA)
	padded := extended(name("z.test"), dns.TypeA, opt(1232, 0, 0, option(dns.EDNS0PADDING, string(make([]byte, 60000)))))
	c.send(framed(first, padded, first))
	c.answers(first, apexA)
	c.answers(padded, apexA)
	c.answers(first, apexA)
}

// TestTCPPipelined sends many queries in one segment (RFC 7766 §6.2.1.1).
func TestTCPPipelined(t *testing.T) {
	t.Parallel()
	c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", nil).dial()
	const queries = 200
	var all []string
	for id := range queries {
		all = append(all, numberedQuery(id, "z.test", dns.TypeA))
	}
	c.send(framed(all...))
	for _, q := range all {
		c.answers(q, apexA)
	}
}

// TestTCPPipelinedPart: answers do not wait for the rest of another query,
// which may never come.
func TestTCPPipelinedPart(t *testing.T) {
	t.Parallel()
	q, next := numberedQuery(1, "z.test", dns.TypeA), numberedQuery(2, "z.test", dns.TypeA)
	for cut := range len(framed(next)) {
		c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", func(t *tcpServer) { t.message = time.Hour }).dial()
		c.send(framed(q, q) + framed(next)[:cut])
		c.answers(q, apexA)
		c.answers(q, apexA)
		c.send(framed(next)[cut:])
		c.answers(next, apexA)
		if cut > 3 {
			break
		}
	}
}

// TestTCPOctetByOctet sends each octet alone.
func TestTCPOctetByOctet(t *testing.T) {
	t.Parallel()
	c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "::1", nil).dial()
	if err := c.SetNoDelay(true); err != nil {
		t.Fatal(err)
	}
	q := numberedQuery(1, "z.test", dns.TypeA)
	for range 2 {
		for _, octet := range []byte(framed(q)) {
			c.send(string([]byte{octet}))
		}
		c.answers(q, apexA)
	}
}

// TestTCPHalfClosed: a client that has said all still gets its answers.
func TestTCPHalfClosed(t *testing.T) {
	t.Parallel()
	q := numberedQuery(1, "z.test", dns.TypeA)
	for what, tail := range map[string]string{"whole": "", "half a query": framed(q)[:9]} {
		c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", nil).dial()
		c.send(framed(q, q, q) + tail)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.answers(q, apexA)
		}
		if out, err := c.receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: % x, %v", what, out, err)
		}
	}
}

// TestTCPNoQuery: the connection ends with what is no query, behind the answers
// to what was before it.
func TestTCPNoQuery(t *testing.T) {
	t.Parallel()
	q := numberedQuery(1, "z.test", dns.TypeA)
	for what, msg := range map[string]string{"nothing": "", "11 octets": q[:11], "a reply": header(bitQR, 1, 0, 0, 0) + question(www, 1, 1)} {
		c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", nil).dial()
		c.send(framed(q, q, msg))
		t.Log(what)
		c.answers(q, apexA)
		c.answers(q, apexA)
		c.closed()
	}
	// What is malformed is answered as such, and the connection stays.
	c := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", nil).dial()
	bad := header(0, 2, 0, 0, 0)
	c.send(framed(bad, q))
	c.answers(bad, "FORMERR")
	c.answers(q, apexA)
}

// TestTCPTimeouts: silence and slowness end a connection.
func TestTCPTimeouts(t *testing.T) {
	t.Parallel()
	q := numberedQuery(1, "z.test", dns.TypeA)
	for _, r := range []struct {
		name     string
		edit     func(*tcpServer)
		query    bool   // asked and answered before
		sends    string // and then nothing more
		trickles bool   // the same octets again and again
	}{
		{name: "idle from the start", edit: func(t *tcpServer) { t.idle, t.message = 50*time.Millisecond, time.Hour }},
		{name: "idle after a query", edit: func(t *tcpServer) { t.idle, t.message = 50*time.Millisecond, time.Hour }, query: true},
		{name: "half a length", edit: func(t *tcpServer) { t.idle, t.message = time.Hour, 50*time.Millisecond }, sends: "\x00"},
		{name: "half a query", edit: func(t *tcpServer) { t.idle, t.message = time.Hour, 50*time.Millisecond }, query: true, sends: framed(q)[:20]},
		{name: "an octet now and then", edit: func(t *tcpServer) { t.idle, t.message = time.Hour, 50*time.Millisecond }, sends: "\xff\xff", trickles: true},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			h := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", r.edit)
			c := h.dial()
			if r.query {
				c.send(framed(q))
				c.answers(q, apexA)
			}
			c.send(r.sends)
			if r.trickles {
				deadline := time.Now().Add(10 * time.Second)
				for {
					if _, err := io.WriteString(c, "\x00"); err != nil {
						break // closed: the time is for the whole query
					}
					if time.Now().After(deadline) {
						t.Fatal("an octet now and then keeps the connection")
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			c.closed()
			until(t, "it is counted out", func() bool { return value(t, h.registry, metricTCP) == 0 })
		})
	}
}

// TestTCPNeverReading: a client that takes no answers holds up none but itself,
// and not for ever.
func TestTCPNeverReading(t *testing.T) {
	t.Parallel()
	h := startTCP(t, fixed{snapshotOf(t, large(t))}, "127.0.0.1", func(t *tcpServer) { t.write = 300 * time.Millisecond })
	q := plain(name("z.test"), dns.TypeAAAA)
	deaf := h.dial()
	if err := deaf.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	var full atomic.Bool
	gone := make(chan error, 1)
	go func() {
		// Until the server gives up: it does not read either while it cannot write.
		for {
			if err := deaf.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
				gone <- err
				return
			}
			if _, err := io.WriteString(deaf, strings.Repeat(framed(q), 200)); err != nil {
				full.Store(true)
				gone <- err
				return
			}
		}
	}()
	for range 20 {
		c := h.dial()
		c.send(framed(q))
		out, err := c.receive()
		if err != nil {
			t.Fatalf("beside a client that never reads: %v", err)
		}
		if m := wellFormed(t, []byte(q), out); len(m.Answer) != 255 {
			t.Errorf("%d addresses", len(m.Answer))
		}
		c.Close()
	}
	if err := <-gone; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a client that never reads is kept")
	}
	until(t, "all are counted out", func() bool { return value(t, h.registry, metricTCP) == 0 })
}

// TestTCPLimits: too many connections are closed at once, and counted by the
// limit that they are beyond.
func TestTCPLimits(t *testing.T) {
	t.Parallel()
	q := numberedQuery(1, "z.test", dns.TypeA)
	for _, r := range []struct {
		name            string
		total, perBlock int
		refused         string
	}{
		{"of one client", 100, 3, "client"},
		{"in total", 3, 100, "total"},
	} {
		h := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", func(t *tcpServer) { t.total, t.perBlock = r.total, r.perBlock })
		var open []*talker
		for range 3 {
			c := h.dial()
			c.send(framed(q))
			c.answers(q, apexA)
			open = append(open, c)
		}
		for range 2 {
			h.dial().closed()
		}
		counted := `razor_dns_tcp_refused_total{limit="` + r.refused + `"}`
		if got := value(t, h.registry, counted); got != 2 {
			t.Errorf("%s: %v refused, want 2: %v", r.name, got, series(t, h.registry))
		}
		if got := value(t, h.registry, metricTCP); got != 3 {
			t.Errorf("%s: %v connections", r.name, got)
		}
		// The others go on, and one that goes makes room.
		open[1].send(framed(q))
		open[1].answers(q, apexA)
		open[0].Close()
		until(t, "there is room", func() bool { return value(t, h.registry, metricTCP) == 2 })
		c := h.dial()
		c.send(framed(q))
		c.answers(q, apexA)
	}
}

// TestTCPLimitPerBlock: IPv4 addresses count one by one, IPv6 by /64.
func TestTCPLimitPerBlock(t *testing.T) {
	t.Parallel()
	s := newTCPServer(newServer(fixed{}))
	s.perBlock, s.total = 2, 7
	for i, r := range []struct {
		from string
		ok   bool
	}{
		{"192.0.2.1", true},
		{"192.0.2.1", true},
		{"192.0.2.1", false},
		{"192.0.2.2", true},
		{"2001:db8:1:2::1", true},
		{"2001:db8:1:2:ffff::2", true},
		{"2001:db8:1:2::3", false},
		{"2001:db8:1:3::1", true},
		{"192.0.2.3", true},
		{"192.0.2.4", false},
	} {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		if got := s.admit(a, netip.MustParseAddr(r.from)); got != r.ok {
			t.Errorf("%d. %s: admitted is %t", i, r.from, got)
		}
	}
}

// TestTCPStop: a stopping server answers what it has read, does not wait for
// more, and ends what is idle.
func TestTCPStop(t *testing.T) {
	t.Parallel()
	h := startTCP(t, fixed{snapshotOf(t, kinds(t))}, "127.0.0.1", func(t *tcpServer) { t.idle, t.message = time.Hour, time.Hour })
	q := numberedQuery(1, "z.test", dns.TypeA)
	idle, begun, fresh := h.dial(), h.dial(), h.dial()
	idle.send(framed(q))
	idle.answers(q, apexA)
	begun.send(framed(q) + framed(q)[:5])
	begun.answers(q, apexA)
	until(t, "all are accepted", func() bool { return value(t, h.registry, metricTCP) == 3 })
	start := time.Now()
	h.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	idle.closed()
	begun.closed()
	fresh.closed()
	if c, err := net.Dial("tcp", h.addr); err == nil {
		c.Close()
		t.Error("it listens after the end")
	}
}

// stopping are lists that end a context when they are first looked at.
type stopping struct {
	fixed
	cancel context.CancelFunc
}

func (s stopping) Snapshot() *upstreams.Snapshot {
	s.cancel()
	return s.fixed.Snapshot()
}

// TestTCPStopAmidst stops the server at the first of some queries that are all
// here: they are answered.
func TestTCPStopAmidst(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := newTCPServer(newServer(stopping{fixed{snapshotOf(t, kinds(t))}, cancel}))
	client, server := net.Pipe()
	defer client.Close()
	q := numberedQuery(1, "z.test", dns.TypeA)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		s.converse(ctx, server, netip.MustParseAddr("192.0.2.1"))
	}()
	go func() { _, _ = io.WriteString(client, framed(q, q, q)+framed(q)[:7]) }()
	for i := range 3 {
		out, err := readFramed(client)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if got := outcome(wellFormed(t, []byte(q), out)); got != apexA {
			t.Error(got)
		}
	}
	<-done
	if _, err := readFramed(client); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// stoppedConn is a connection at which the server stops at the very moment that
// the time for the next query is set.
type stoppedConn struct {
	net.Conn
	stop func()
}

func (c stoppedConn) SetReadDeadline(at time.Time) error {
	c.stop()
	return c.Conn.SetReadDeadline(at)
}

// TestTCPStopRace: such a connection does not hold the server for the time that
// an idle one may take.
func TestTCPStopRace(t *testing.T) {
	t.Parallel()
	s := newTCPServer(newServer(fixed{}))
	s.idle, s.message = time.Hour, time.Hour
	for _, begun := range []string{"", "\x00"} {
		ctx, cancel := context.WithCancel(t.Context())
		client, server := net.Pipe()
		defer client.Close()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			s.converse(ctx, stoppedConn{server, cancel}, netip.MustParseAddr("192.0.2.1"))
		}()
		go func() { _, _ = io.WriteString(client, begun) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("a stopping server waits for an idle client")
		}
		cancel()
	}
}

// TestTCPAnySegments cuts a conversation at random places.
func TestTCPAnySegments(t *testing.T) {
	t.Parallel()
	s := newTCPServer(newServer(fixed{snapshotOf(t, kinds(t))}))
	var all []string
	for id := range 40 {
		all = append(all, numberedQuery(id, []string{"z.test", "no.z.test", "example.org"}[id%3], dns.TypeA))
	}
	stream := framed(all...)
	var whole []byte
	for name, reader := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "octets": iotest.OneByteReader, "halves": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		c := &scripted{r: reader(strings.NewReader(stream))}
		s.converse(t.Context(), c, netip.MustParseAddr("192.0.2.1"))
		if whole == nil {
			whole = slices.Clone(c.w.Bytes())
		}
		if !bytes.Equal(c.w.Bytes(), whole) || c.w.Len() == 0 {
			t.Errorf("%s: %d octets of answers, others got %d", name, c.w.Len(), len(whole))
		}
	}
}

// scripted is a connection that reads from one place and writes to another.
type scripted struct {
	net.Conn
	r io.Reader
	w bytes.Buffer
}

func (s *scripted) Read(p []byte) (int, error)       { return s.r.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return s.w.Write(p) }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
