package upstreams

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// script is a server that reads commands and answers each with the next text; it
// returns the commands when the texts or the client are at an end.
func script(conn net.Conn, replies ...string) <-chan []string {
	out := make(chan []string, 1)
	go func() {
		var got []string
		defer func() { out <- got }()
		r := bufio.NewReader(conn)
		for _, reply := range replies {
			v, err := readRESP(r)
			if err != nil {
				return
			}
			var words []string
			list, _ := v.([]any)
			for _, w := range list {
				s, _ := w.(string)
				words = append(words, s)
			}
			got = append(got, strings.Join(words, " "))
			if _, err := io.WriteString(conn, reply); err != nil {
				return
			}
		}
	}()
	return out
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	const hello, ok = "%1\r\n+server\r\n+redis\r\n", "+OK\r\n"
	for _, tt := range []struct {
		name    string
		cfg     Config
		replies []string
		sent    []string
		err     error  // nil: by text
		text    string // "" means none
	}{
		{"no password", Config{}, []string{hello, ok}, []string{"HELLO 3 SETNAME razor", "CLIENT TRACKING ON BCAST"}, nil, ""},
		{"password", Config{Password: "p"}, []string{hello, ok}, []string{"HELLO 3 AUTH default p SETNAME razor", "CLIENT TRACKING ON BCAST"}, nil, ""},
		{"user", Config{User: "u", Password: "p"}, []string{hello, ok}, []string{"HELLO 3 AUTH u p SETNAME razor", "CLIENT TRACKING ON BCAST"}, nil, ""},
		{"no HELLO", Config{}, []string{"-ERR unknown command 'HELLO'\r\n"}, []string{"HELLO 3 SETNAME razor"}, errNoTracking, ""},
		{"no RESP3", Config{}, []string{"-NOPROTO sorry\r\n"}, []string{"HELLO 3 SETNAME razor"}, errNoTracking, ""},
		{"no TRACKING", Config{}, []string{hello, "-ERR Unknown subcommand or wrong number of arguments for 'TRACKING'\r\n"}, []string{"HELLO 3 SETNAME razor", "CLIENT TRACKING ON BCAST"}, errNoTracking, ""},
		{"not permitted", Config{}, []string{hello, "-NOPERM User u has no permissions to run the 'client|tracking' command\r\n"}, []string{"HELLO 3 SETNAME razor", "CLIENT TRACKING ON BCAST"}, errNoTracking, ""},
		{"bad password", Config{Password: "x"}, []string{"-WRONGPASS invalid username-password pair or user is disabled.\r\n"}, []string{"HELLO 3 AUTH default x SETNAME razor"}, nil, "WRONGPASS invalid username-password pair or user is disabled."},
		{"bad no password", Config{}, []string{"-NOAUTH HELLO must be called with the client already authenticated\r\n"}, []string{"HELLO 3 SETNAME razor"}, nil, "NOAUTH HELLO must be called with the client already authenticated"},
		{"bad loading", Config{}, []string{"-LOADING Redis is loading the dataset in memory\r\n"}, []string{"HELLO 3 SETNAME razor"}, nil, "LOADING Redis is loading the dataset in memory"},
		{"bad protocol", Config{}, []string{"HTTP/1.1 400 Bad Request\r\n"}, []string{"HELLO 3 SETNAME razor"}, errRESP, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			defer client.Close()
			defer server.Close()
			sent := script(server, tt.replies...)
			err := handshake(client, bufio.NewReader(client), tt.cfg)
			switch {
			case tt.err != nil && !errors.Is(err, tt.err),
				tt.err == nil && tt.text == "" && err != nil,
				tt.text != "" && (err == nil || err.Error() != tt.text || errors.Is(err, errNoTracking)):
				t.Errorf("error %v; want %v %s", err, tt.err, tt.text)
			}
			if got := <-sent; !slices.Equal(got, tt.sent) {
				t.Errorf("sent %q; want %q", got, tt.sent)
			}
		})
	}
}

func TestHandshakeWithAClosedPeer(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	_ = server.Close()
	if err := handshake(client, bufio.NewReader(client), Config{}); err == nil || errors.Is(err, errNoTracking) {
		t.Errorf("error %v", err)
	}
}

func TestHandshakeWithASilentPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		start := time.Now()
		if err := handshake(client, bufio.NewReader(client), Config{}); err == nil || time.Since(start) != dialTimeout {
			t.Errorf("%v after %v; want an error after %v", err, time.Since(start), dialTimeout)
		}
	})
}

// pipeTracker is a tracker behind its handshake, and the server's end of it.
func pipeTracker() (*tracker, net.Conn) {
	client, server := net.Pipe()
	t := &tracker{conn: client, wake: make(chan struct{}, 1), done: make(chan struct{}), keys: map[string]bool{}, pong: make(chan struct{})}
	go t.listen(bufio.NewReader(client))
	return t, server
}

const (
	pushKeys = ">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"
	pushA    = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n"
	pushNull = ">2\r\n$10\r\ninvalidate\r\n_\r\n"
	pong     = "+PONG\r\n"
)

func TestTrackerTakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, said string
		keys       []string
		flushed    bool
		wakes      bool
	}{
		{"keys", pushKeys, []string{"a", "b"}, false, true},
		{"a key twice", pushA + pushKeys, []string{"a", "b"}, false, true},
		{"flush", pushNull, nil, true, true},
		{"flush of the old form", ">2\r\n$10\r\ninvalidate\r\n*-1\r\n", nil, true, true},
		{"keys and a flush", pushA + pushNull, []string{"a"}, true, true},
		{"no keys", ">2\r\n$10\r\ninvalidate\r\n*0\r\n", nil, false, true},
		{"a key that is no text", ">2\r\n$10\r\ninvalidate\r\n*2\r\n:1\r\n+a\r\n", []string{"a"}, false, true},
		{"another message", ">3\r\n+pubsub\r\n+x\r\n+y\r\n", nil, false, false},
		{"another message of two", ">2\r\n+server-cpu-usage\r\n*1\r\n+a\r\n", nil, false, false},
		{"a list as the kind of message", ">2\r\n*1\r\n+a\r\n_\r\n", nil, false, false},
		{"empty message", ">0\r\n", nil, false, false},
		{"a reply", pong, nil, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				tr, server := pipeTracker()
				defer server.Close()
				if _, err := io.WriteString(server, tt.said); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				select {
				case <-tr.wake:
					if !tt.wakes {
						t.Error("woken for nothing")
					}
				default:
					if tt.wakes {
						t.Error("not woken")
					}
				}
				keys, flushed := tr.take()
				slices.Sort(keys)
				if !slices.Equal(keys, tt.keys) || flushed != tt.flushed {
					t.Errorf("%v, %v; want %v, %v", keys, flushed, tt.keys, tt.flushed)
				}
				if keys, flushed := tr.take(); len(keys) > 0 || flushed {
					t.Errorf("taken twice: %v, %v", keys, flushed)
				}
				tr.close()
			})
		})
	}
}

func TestTrackerFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, said string
		err        error
	}{
		{"closed", "", io.EOF},
		{"closed within a message", ">2\r\n$10\r\ninval", io.ErrUnexpectedEOF},
		{"not the protocol", "HTTP/1.1\r\n", errRESP},
		{"false length", ">2\r\n$536870913\r\n", errRESP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr, server := pipeTracker()
			if _, err := io.WriteString(server, tt.said); err != nil {
				t.Fatal(err)
			}
			_ = server.Close()
			<-tr.done
			if err := tr.failure(); !errors.Is(err, tt.err) {
				t.Errorf("%v; want %v", err, tt.err)
			}
			tr.close()
		})
	}
}

// TestBarrier checks that what Redis said before the answer is noted when the
// barrier returns, and what it said later is not waited for.
func TestBarrier(t *testing.T) {
	t.Parallel()
	tr, server := pipeTracker()
	defer server.Close()
	sent := script(server, pushA+pong, pushKeys+pushNull+pong)
	if err := tr.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys, flushed := tr.take(); !slices.Equal(keys, []string{"a"}) || flushed {
		t.Errorf("%v, %v", keys, flushed)
	}
	if err := tr.barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys, flushed := tr.take(); len(keys) != 2 || !flushed {
		t.Errorf("%v, %v", keys, flushed)
	}
	if got := <-sent; !slices.Equal(got, []string{"PING", "PING"}) {
		t.Errorf("sent %q", got)
	}
	tr.close()
}

// TestBarrierWaitsForItsOwnAnswer checks that the late answer to an earlier ping
// is not taken for the barrier's.
func TestBarrierWaitsForItsOwnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, server := pipeTracker()
		defer server.Close()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		if err := tr.ping(); err != nil {
			t.Fatal(err)
		}
		passed := make(chan error, 1)
		go func() { passed <- tr.barrier(t.Context()) }()
		synctest.Wait()
		_, _ = io.WriteString(server, pong)
		synctest.Wait()
		select {
		case err := <-passed:
			t.Fatalf("passed with the answer to an earlier ping: %v", err)
		default:
		}
		_, _ = io.WriteString(server, pushA+pong)
		if err := <-passed; err != nil {
			t.Fatal(err)
		}
		if keys, _ := tr.take(); !slices.Equal(keys, []string{"a"}) {
			t.Errorf("keys %v", keys)
		}
		tr.close()
	})
}

func TestBarrierWithoutAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr, server := pipeTracker()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		start := time.Now()
		if err := tr.barrier(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != silenceLimit {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if got := tr.silence(); got != silenceLimit {
			t.Errorf("silence %v; want %v", got, silenceLimit)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := tr.barrier(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		_ = server.Close()
		<-tr.done
		if err := tr.barrier(t.Context()); err == nil {
			t.Error("a barrier on a closed connection")
		}
		tr.close()
	})
}
