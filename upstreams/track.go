package upstreams

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// errNoTracking is a server without CLIENT TRACKING; it has to be rescanned.
var errNoTracking = errors.New("server has no CLIENT TRACKING")

// tracker is a connection of its own on which Redis names every key that
// changes (RESP3, CLIENT TRACKING in broadcasting mode). It must be open before
// the keys are read: what changes meanwhile is then named again.
type tracker struct {
	conn net.Conn
	wake chan struct{} // has an element when there is something to take
	done chan struct{} // closed when the connection has failed

	mu      sync.Mutex
	keys    map[string]bool
	flushed bool          // everything may have changed
	since   time.Time     // when the first ping was sent that is not answered
	asked   int           // pings sent
	replied int           // and answered
	pong    chan struct{} // closed and renewed at each answer
	err     error
}

// track opens the connection.
func track(ctx context.Context, cfg Config) (*tracker, error) {
	conn, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	if err := handshake(conn, r, cfg); err != nil {
		_ = conn.Close()
		return nil, err
	}
	t := &tracker{conn: conn, wake: make(chan struct{}, 1), done: make(chan struct{}), keys: map[string]bool{}, pong: make(chan struct{})}
	go t.listen(r)
	return t, nil
}

func dial(ctx context.Context, cfg Config) (net.Conn, error) {
	tlsConfig, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	network, addr := cfg.endpoint()
	d := &net.Dialer{Timeout: dialTimeout}
	if tlsConfig != nil {
		return (&tls.Dialer{NetDialer: d, Config: tlsConfig}).DialContext(ctx, network, addr)
	}
	return d.DialContext(ctx, network, addr)
}

func handshake(conn net.Conn, r *bufio.Reader, cfg Config) error {
	hello := []string{"HELLO", "3"}
	if cfg.Password != "" {
		user := cfg.User
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, cfg.Password)
	}
	hello = append(hello, "SETNAME", "razor")
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	for _, cmd := range [][]string{hello, {"CLIENT", "TRACKING", "ON", "BCAST"}} {
		if _, err := conn.Write(appendCommand(nil, cmd...)); err != nil {
			return err
		}
		reply, err := readRESP(r)
		if err != nil {
			return err
		}
		if e, ok := reply.(respError); ok {
			return trackingError(e)
		}
	}
	return conn.SetDeadline(time.Time{})
}

// trackingError tells a server that cannot track from one that does not want to
// talk to us now.
func trackingError(e respError) error {
	for _, word := range []string{"unknown command", "unknown subcommand", "NOPROTO", "NOPERM", "syntax error", "wrong number"} {
		if strings.Contains(strings.ToLower(string(e)), strings.ToLower(word)) {
			return fmt.Errorf("%w: %s", errNoTracking, string(e))
		}
	}
	return e
}

// listen takes what Redis says until the connection fails.
func (t *tracker) listen(r *bufio.Reader) {
	defer close(t.done)
	for {
		v, err := readRESP(r)
		t.mu.Lock()
		if err != nil {
			t.err = err
			t.mu.Unlock()
			return
		}
		push, ok := v.(respPush)
		switch {
		case !ok:
			t.replied++
			t.since = time.Now() // of those that may still be under way
			close(t.pong)
			t.pong = make(chan struct{})
		case t.invalidate(push):
			select {
			case t.wake <- struct{}{}:
			default:
			}
		}
		t.mu.Unlock()
	}
}

// invalidate notes the keys of a message; null instead of keys is a flush.
func (t *tracker) invalidate(push respPush) bool {
	if len(push) != 2 || push[0] != "invalidate" {
		return false
	}
	keys, ok := push[1].([]any)
	if !ok {
		t.flushed = true
		return true
	}
	for _, k := range keys {
		if s, ok := k.(string); ok {
			t.keys[s] = true
		}
	}
	return true
}

// take is what changed since the last call.
func (t *tracker) take() (keys []string, flushed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.keys {
		keys = append(keys, k)
	}
	flushed = t.flushed
	clear(t.keys)
	t.flushed = false
	return keys, flushed
}

// flushPending tells whether the next take will say that all may have changed.
func (t *tracker) flushPending() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flushed
}

// barrier returns when all that Redis named before the call has been noted.
func (t *tracker) barrier(ctx context.Context) error {
	if err := t.ping(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, silenceLimit)
	defer cancel()
	t.mu.Lock()
	target := t.asked
	t.mu.Unlock()
	for {
		t.mu.Lock()
		reached, pong := t.replied >= target, t.pong
		t.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-pong:
		case <-t.done:
			return t.failure()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ping asks for a sign of life; silence tells how long one is owed.
func (t *tracker) ping() error {
	t.mu.Lock()
	if t.asked == t.replied {
		t.since = time.Now()
	}
	t.asked++
	t.mu.Unlock()
	_ = t.conn.SetWriteDeadline(time.Now().Add(dialTimeout))
	_, err := t.conn.Write(appendCommand(nil, "PING"))
	return err
}

func (t *tracker) silence() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.asked == t.replied {
		return 0
	}
	return time.Since(t.since)
}

func (t *tracker) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// close ends the connection and waits for its goroutine.
func (t *tracker) close() {
	_ = t.conn.Close()
	<-t.done
}
