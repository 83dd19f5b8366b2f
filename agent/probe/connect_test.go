package probe

import (
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// bound is a TCP socket on loopback until the test ends, which does not listen.
func bound(tb testing.TB) (fd int, target string) {
	tb.Helper()
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}); err != nil {
		tb.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		tb.Fatal(err)
	}
	return fd, net.JoinHostPort("::1", strconv.Itoa(at.(*syscall.SockaddrInet6).Port))
}

func TestTCP(t *testing.T) {
	t.Parallel()
	if got := measured(t, Config{Kind: kindTCP, Target: listen(t).Addr().String()}); got != "" {
		t.Errorf("a listener that never accepts: %s", got)
	}
	closing := raw(t, func(net.Conn) {})
	for range 3 {
		if got := measured(t, Config{Kind: kindTCP, Target: closing}); got != "" {
			t.Errorf("a server that closes at once: %s", got)
		}
	}
	_, refusing := bound(t)
	if got := measured(t, Config{Kind: kindTCP, Target: refusing}); got != "connect: connection refused" {
		t.Errorf("refused: %q", got)
	}
}

// TestBlackHole: a full backlog drops what comes, as a filter on the way would.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	fd, target := bound(t)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the backlog is full", func() bool {
		conn, err := net.DialTimeout("tcp", target, 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err != nil
	})
	for _, kind := range []string{kindTCP, kindHTTP, kindHTTPS} {
		runsOut(t, Config{Kind: kind, Target: target}, "connect: timed out")
	}
	runsOut(t, Config{Kind: kindDNS, Target: target, Query: "z.test", Transport: "tcp"}, "connect: timed out")
}

// TestSilent: a server that accepts and says nothing has a port, and no service.
func TestSilent(t *testing.T) {
	t.Parallel()
	target := listen(t).Addr().String()
	if got := measured(t, Config{Kind: kindTCP, Target: target}); got != "" {
		t.Errorf("tcp: %s", got)
	}
	runsOut(t, Config{Kind: kindHTTP, Target: target}, "answer: timed out")
	runsOut(t, Config{Kind: kindHTTPS, Target: target}, "handshake: timed out")
	runsOut(t, Config{Kind: kindDNS, Target: target, Query: "z.test", Transport: "tcp"}, "reply: timed out")
}

// TestDrip: a server that sends an octet at a time does not move the end.
func TestDrip(t *testing.T) {
	t.Parallel()
	target := raw(t, func(conn net.Conn) {
		for range 10_000 {
			if _, err := conn.Write([]byte("H")); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	runsOut(t, Config{Kind: kindHTTP, Target: target}, "answer: timed out")
}
