package razor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of TCP (RFC 7766 §6.2, RFC 9210 §4): a client that is slow, silent or
// many takes nothing from the others.
const (
	tcpIdle     = 10 * time.Second // without a query
	tcpMessage  = 5 * time.Second  // for a query that has begun
	tcpWrite    = 5 * time.Second  // for an answer to be taken
	tcpTotal    = 4096             // connections
	tcpPerBlock = 128              // of one IPv4 address, or one IPv6 /64
	tcpBuffer   = 4096             // octets of a connection, for each direction
)

// tcpServer answers over TCP. A connection's queries are answered in order as
// they come; none waits for anything but the processor.
type tcpServer struct {
	*server
	total    int
	perBlock int
	idle     time.Duration
	message  time.Duration
	write    time.Duration
	workers  sync.Pool

	mu    sync.Mutex
	open  map[net.Conn]bool
	block map[netip.Prefix]int
}

func newTCPServer(s *server) *tcpServer {
	t := &tcpServer{
		server: s, total: tcpTotal, perBlock: tcpPerBlock, idle: tcpIdle, message: tcpMessage, write: tcpWrite,
		open: map[net.Conn]bool{}, block: map[netip.Prefix]int{},
	}
	t.workers.New = func() any { return s.newAnswerer() }
	return t
}

func listenTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// serve accepts connections until ctx ends, and then lets them finish the query
// they are at.
func (t *tcpServer) serve(ctx context.Context, l *net.TCPListener) error {
	stop := context.AfterFunc(ctx, func() {
		_ = l.Close()
		t.mu.Lock()
		defer t.mu.Unlock()
		for c := range t.open {
			_ = c.SetReadDeadline(time.Now().Add(drain))
		}
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	failing := false
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				_ = c.Close()
			}
			return nil
		case err != nil:
			// Out of files, most likely: that passes as connections end.
			if !failing {
				t.log.Error("no TCP connection can be accepted, trying on", "err", err)
			}
			failing = true
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		failing = false
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !t.admit(c, from) {
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer t.release(c, from)
			t.converse(ctx, c, from)
		})
	}
}

// blockOf is what the limit per client counts by.
func blockOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a.WithZone(""), bits).Masked()
}

// admit counts a connection in unless there are too many.
func (t *tcpServer) admit(c net.Conn, from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := blockOf(from)
	switch {
	case len(t.open) >= t.total:
		t.metrics.refused.WithLabelValues("total").Inc()
		return false
	case t.block[b] >= t.perBlock:
		t.metrics.refused.WithLabelValues("client").Inc()
		return false
	}
	t.open[c] = true
	t.block[b]++
	t.metrics.tcp.Inc()
	return true
}

func (t *tcpServer) release(c net.Conn, from netip.Addr) {
	_ = c.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, c)
	b := blockOf(from)
	if t.block[b]--; t.block[b] <= 0 {
		delete(t.block, b)
	}
	t.metrics.tcp.Dec()
}

// converse answers the queries of one connection until it is idle, slow, closed
// or says something that is no query. What was answered until then goes out.
func (t *tcpServer) converse(ctx context.Context, c net.Conn, from netip.Addr) {
	r, w := bufio.NewReaderSize(c, tcpBuffer), bufio.NewWriterSize(c, tcpBuffer)
	for ctx.Err() == nil || whole(r) {
		msg, err := t.readMessage(ctx, c, r)
		if err != nil {
			return
		}
		// A full buffer is written out by the reply already.
		if c.SetWriteDeadline(time.Now().Add(t.write)) != nil {
			return
		}
		more := t.reply(w, msg, from)
		if more && whole(r) {
			continue // another query is here: their answers go out together
		}
		if w.Flush() != nil || !more {
			return
		}
	}
}

// whole tells whether all of a query is here. Of one that is not, the rest may
// never come, and answers must not wait for it.
func whole(r *bufio.Reader) bool {
	n := r.Buffered()
	if n < 2 {
		return false
	}
	length, _ := r.Peek(2)
	return n >= 2+int(binary.BigEndian.Uint16(length))
}

// readMessage reads a query with the two octets of its length before it.
func (t *tcpServer) readMessage(ctx context.Context, c net.Conn, r *bufio.Reader) ([]byte, error) {
	if r.Buffered() == 0 {
		if err := readWithin(ctx, c, t.idle); err != nil {
			return nil, err
		}
		if _, err := r.Peek(1); err != nil {
			return nil, err
		}
	}
	if err := readWithin(ctx, c, t.message); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	// What is announced costs memory only as it comes.
	var msg bytes.Buffer
	_, err := io.CopyN(&msg, r, int64(binary.BigEndian.Uint16(length[:])))
	return msg.Bytes(), err
}

// readWithin sets the time for what is read next, which is short once the server
// stops: also where it stops at this very moment, and the short time that it set
// was overwritten here.
func readWithin(ctx context.Context, c net.Conn, d time.Duration) error {
	err := c.SetReadDeadline(time.Now().Add(d))
	if err == nil && ctx.Err() != nil {
		err = c.SetReadDeadline(time.Now().Add(drain))
	}
	return err
}

// reply writes the answer to one query.
func (t *tcpServer) reply(w *bufio.Writer, msg []byte, from netip.Addr) bool {
	a := t.workers.Get().(*answerer)
	defer t.workers.Put(a)
	out := a.handle(msg, from, transportTCP)
	if out == nil {
		return false
	}
	_, err := w.Write(binary.BigEndian.AppendUint16(nil, uint16(len(out))))
	if err == nil {
		_, err = w.Write(out)
	}
	return err == nil
}
