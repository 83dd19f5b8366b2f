package upstreams

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ControlSocket is the Unix socket in the state directory on which a running
// server takes an operator's word. Who may write to it may speak.
const ControlSocket = "control.sock"

const (
	controlTimeout = 30 * time.Second
	maxAnswer      = 16 << 20
	acceptPath     = "/upstreams/accept"
	pingPath       = "/ping"
)

// ErrRunning is a state directory that another server uses.
var ErrRunning = errors.New("another razor uses this state directory")

// ListenControl opens the control socket in dir. ErrRunning tells that a server
// answers there already.
func ListenControl(ctx context.Context, dir string) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if ControlAnswers(ctx, dir) {
		return nil, ErrRunning
	}
	path := filepath.Join(dir, ControlSocket)
	// Nobody answers: what is there was left by a server that was killed.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// ControlVerbs are what an operator may ask of a process that follows the lists; f
// is nil in one that does not. A role adds its own.
func ControlVerbs(f *Follower) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pingPath, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "razor")
	})
	if f == nil {
		return mux
	}
	mux.HandleFunc("POST "+acceptPath, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), controlTimeout)
		defer cancel()
		if err := f.Accept(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		s := f.Snapshot()
		fmt.Fprintf(w, "accepted: %d zones, %d names, %d members\n", s.ZoneCount(), s.NameCount, s.MemberCount)
	})
	return mux
}

// ServeControl answers on the control socket until ctx ends.
func ServeControl(ctx context.Context, l net.Listener, verbs *http.ServeMux) error {
	srv := &http.Server{Handler: verbs, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ControlAnswers tells whether a server with this state directory runs.
func ControlAnswers(ctx context.Context, dir string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := ControlCall(ctx, dir, http.MethodGet, pingPath)
	return err == nil
}

// AcceptLive ends the hold of the running server with this state directory and
// returns what it says.
func AcceptLive(ctx context.Context, dir string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	return ControlCall(ctx, dir, http.MethodPost, acceptPath)
}

// ControlCall asks the running process with this state directory for a verb, and
// returns what it says.
func ControlCall(ctx context.Context, dir, method, path string) (string, error) {
	socket := filepath.Join(dir, ControlSocket)
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return "", fmt.Errorf("%s: permission denied; ask as root, or as the user of that razor", socket)
		}
		if dial, ok := errors.AsType[*net.OpError](err); ok {
			return "", fmt.Errorf("%s: no razor answers there: %w", socket, dial.Err)
		}
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode == http.StatusNotFound {
		return "", fmt.Errorf("%s: the razor there has another role, and no answer to this", socket)
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(text)
	}
	return text, nil
}
