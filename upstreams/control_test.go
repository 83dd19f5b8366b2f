package upstreams

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serveControl serves the control socket in dir until the test ends or stop is
// called.
func serveControl(t *testing.T, dir string, f *Follower) (stop func()) {
	t.Helper()
	l, err := ListenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ServeControl(ctx, l, ControlVerbs(f)) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServeControl: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestAcceptOverTheSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	stop := serveControl(t, dir, w.Follower)
	if said, err := AcceptLive(t.Context(), dir); said != "" || err == nil || err.Error() != "nothing is on hold" {
		t.Errorf("without a hold: %q, %v", said, err)
	}
	w.fill(5)
	w.waitFilled(5)
	w.do("FLUSHALL")
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	w.zone("r.example")
	w.do("SADD n.r.example:A 192.0.2.1 192.0.2.2 192.0.2.3")
	said, err := AcceptLive(t.Context(), dir)
	if err != nil || said != "accepted: 1 zones, 2 names, 3 members" {
		t.Errorf("%q, %v", said, err)
	}
	if w.Health().Hold != "" {
		t.Errorf("hold %q", w.Health().Hold)
	}
	stop()
	if ControlAnswers(t.Context(), dir) {
		t.Error("it answers after its end")
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, ControlSocket)
	want := socket + ": no razor answers there: "
	if _, err := AcceptLive(t.Context(), dir); err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v; want %s…", err, want)
	}
	if ControlAnswers(t.Context(), dir) {
		t.Error("nobody answers")
	}
	deadSocket(t, socket)
	if _, err := AcceptLive(t.Context(), dir); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("dead socket: %v; want %s…", err, want)
	}
}

// deadSocket leaves a socket as a server that was killed does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
}

func TestListenControl(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	f, err := NewFollower(Config{Address: "127.0.0.1:1"}, Options{}, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := serveControl(t, dir, f)
	info, err := os.Stat(filepath.Join(dir, ControlSocket))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("permissions %o; want 600", got)
	}
	if !ControlAnswers(t.Context(), dir) {
		t.Error("it does not answer")
	}
	if l, err := ListenControl(t.Context(), dir); !errors.Is(err, ErrRunning) || l != nil {
		t.Errorf("a second server: %v", err)
	}
	if !ControlAnswers(t.Context(), dir) {
		t.Error("the second server took the socket of the first")
	}
	stop()
	deadSocket(t, filepath.Join(dir, ControlSocket))
	stop = serveControl(t, dir, f)
	if !ControlAnswers(t.Context(), dir) {
		t.Error("the socket of a dead server was not replaced")
	}
	stop()
	if left := entries(t, dir); len(left) != 0 {
		t.Errorf("left in the directory: %v", left)
	}
}

func TestListenControlFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := writeFile(t, dir, "file", nil)
	if l, err := ListenControl(t.Context(), file); err == nil {
		_ = l.Close()
		t.Error("a file as the directory")
	}
	if err := os.MkdirAll(filepath.Join(dir, ControlSocket, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenControl(t.Context(), dir); err == nil {
		_ = l.Close()
		t.Error("a directory in place of the socket")
	}
}

// TestControlMethods checks that reading changes nothing.
func TestControlMethods(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := follow(t, startEmbedded(t).Addr(), Options{})
	w.waitLink(LinkTracking)
	w.fill(5)
	w.waitFilled(5)
	serveControl(t, dir, w.Follower)
	w.do("FLUSHALL")
	w.wait("hold", func() bool { return w.Health().Hold != "" })
	for _, tt := range []struct{ method, path string }{
		{http.MethodGet, acceptPath},
		{http.MethodHead, acceptPath},
		{http.MethodPost, pingPath},
		{http.MethodPost, "/"},
		{http.MethodPost, acceptPath + "/"},
	} {
		if said, err := ControlCall(t.Context(), dir, tt.method, tt.path); err == nil {
			t.Errorf("%s %s: %q", tt.method, tt.path, said)
		}
	}
	if w.Health().Hold == "" {
		t.Error("the hold ended")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AcceptLive(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
