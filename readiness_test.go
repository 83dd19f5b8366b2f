package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeSystemd is a notify socket; what it is told comes out of the channel.
func fakeSystemd(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	said := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	return said
}

// expect takes notices until the wanted one comes, and returns those before it.
func expect(t *testing.T, said <-chan string, want string) (before []string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-said:
			if got == want {
				return before
			}
			before = append(before, got)
		case <-timeout:
			t.Fatalf("no %q, but %q", want, before)
		}
	}
}

func TestNotifySystemd(t *testing.T) {
	said := fakeSystemd(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newReadiness()
	ended := make(chan struct{})
	go func() { notifySystemd(ctx, r, slog.New(slog.DiscardHandler)); close(ended) }()

	expect(t, said, "STATUS=starting")
	r.set(false, "no lists")
	before := expect(t, said, "STATUS=no lists")
	expect(t, said, "WATCHDOG=1")
	r.set(true, "serving")
	before = append(before, expect(t, said, "READY=1")...)
	r.set(false, "no lists")
	r.set(true, "serving again")
	after := expect(t, said, "STATUS=serving again")
	cancel()
	after = append(after, expect(t, said, "STOPPING=1")...)
	<-ended
	for _, s := range before {
		if strings.HasPrefix(s, "READY") {
			t.Errorf("%s too early", s)
		}
	}
	for _, s := range after {
		if s == "READY=1" {
			t.Error("ready said twice")
		}
	}
}

func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	notifySystemd(t.Context(), newReadiness(), slog.New(slog.DiscardHandler)) // returns
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	r := newReadiness()
	r.set(true, "a")
	r.set(true, "b")
	if ready, text := r.get(); !ready || text != "b" {
		t.Errorf("%v %q", ready, text)
	}
	<-r.changed
	r.set(true, "b")
	select {
	case <-r.changed:
		t.Error("the same state is no change")
	default:
	}
}
