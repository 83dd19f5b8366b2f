package bgp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// hand is a peer played by hand, on one connection.
type hand struct {
	t    *testing.T
	conn *net.TCPConn
	r    *bufio.Reader
}

// handAS and handOpen are who it is.
const handAS = 64999

func handOpen() open {
	return open{
		as: handAS, fourOctet: true, hold: 9, id: netip.MustParseAddr("192.0.2.99"), families: families{true, true},
		nextHop6: true, refresh: true, restart: restart{present: true},
	}
}

// byHand starts an announcer that waits for the peer to call.
func byHand(t *testing.T, p PeerConfig, changes ...func(*Announcer)) *side {
	t.Helper()
	p.Name, p.Passive = "hand", true
	if p.Address == "" {
		p.Address = "::1"
	}
	return start(t, 65001, freePorts(t, 1)[0], p, changes...)
}

// dial calls the announcer, as soon as it listens.
func dial(t *testing.T, s *side, from string) *hand {
	t.Helper()
	network, address := "tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.port)))
	local := netip.MustParseAddr(from)
	if local.Is6() {
		network, address.IP = "tcp6", net.IPv6loopback
	}
	var conn *net.TCPConn
	until(t, "a connection", func() bool {
		var err error
		conn, err = net.DialTCP(network, &net.TCPAddr{IP: local.AsSlice()}, address)
		return err == nil
	})
	return onHand(t, conn)
}

// onHand has the peer use a connection.
func onHand(t *testing.T, conn *net.TCPConn) *hand {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &hand{t, conn, reader(conn)}
}

// establish calls until there is a session, and returns the OPEN of the announcer.
func establish(t *testing.T, s *side, o open) (*hand, open) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		h := dial(t, s, "::1")
		own, err := h.begin(o)
		if err == nil {
			return h, own
		}
		_ = h.conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("no session: %v", err)
		}
	}
}

// begin goes through the exchange that makes a session established.
func (h *hand) begin(o open) (open, error) {
	m, err := h.next(typeOpen)
	if err != nil {
		return open{}, err
	}
	own, err := parseOpen(m.body())
	if err != nil {
		return open{}, err
	}
	h.say(o.encode())
	if _, err = h.next(typeKeepalive); err == nil {
		h.say(keepalive)
	}
	return own, err
}

func (h *hand) say(m message) { _, _ = h.conn.Write(m) }

// next is the next message of a type, others are skipped. An error is a
// *notification if there was one.
func (h *hand) next(typ uint8) (message, error) {
	for {
		m, err := readMessage(h.r)
		switch {
		case err != nil:
			return nil, err
		case m.typ() == typ:
			return append(message(nil), m...), nil
		case m.typ() == typeNotification:
			return nil, parseNotification(m.body())
		}
	}
}

// end is how the announcer ends the session: by a NOTIFICATION, or nil without one.
func (h *hand) end() *notification {
	h.t.Helper()
	_, err := h.next(0)
	if n, ok := errors.AsType[*notification](err); ok {
		return n
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		h.t.Fatal("the session does not end")
	}
	return nil
}

// ends checks how the session ends.
func (h *hand) ends(code, subcode uint8) {
	h.t.Helper()
	if n := h.end(); n == nil || n.code != code || n.subcode != subcode {
		h.t.Errorf("session ended with %v, want %v", n, &notification{code: code, subcode: subcode})
	}
}

// endsWithoutAWord checks that the peer would keep the routes.
func (h *hand) endsWithoutAWord() {
	h.t.Helper()
	if n := h.end(); n != nil {
		h.t.Errorf("session ended with %v, want no word", n)
	}
}

// live answers every message, until the connection ends; the end is sent.
func (h *hand) live() <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := readMessage(h.r)
			if err == nil && m.typ() == typeNotification {
				err = parseNotification(m.body())
			}
			if err != nil {
				ended <- err
				return
			}
			h.say(keepalive)
		}
	}()
	return ended
}

// alive waits until it is time to say so; false at the end.
func (h *hand) alive(end <-chan struct{}) bool {
	select {
	case <-end:
		return false
	case <-time.After(500 * time.Millisecond):
		return true
	}
}

// closed tells whether an error is the end of a connection without a word.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}
