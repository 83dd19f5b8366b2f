package upstreams

import (
	"strings"
	"sync"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// Embedded is a Redis inside of the process, for a machine that has none:
// redis-cli can talk to it, and the follower follows it as it does the real
// one. It keeps nothing on disk.
type Embedded struct {
	store *miniredis.Miniredis

	mu       sync.Mutex
	trackers map[*server.Peer]bool     // want to be told of changes
	inside   map[*server.Peer]bool     // whose command is being carried out
	queued   map[*server.Peer][]string // arguments of a transaction's commands; nil outside of one
}

// StartEmbedded listens on an address; port 0 takes a free one.
func StartEmbedded(addr string) (*Embedded, error) {
	e := &Embedded{
		store:    miniredis.NewMiniRedis(),
		trackers: map[*server.Peer]bool{}, inside: map[*server.Peer]bool{}, queued: map[*server.Peer][]string{},
	}
	if err := e.store.StartAddr(addr); err != nil {
		return nil, err
	}
	e.store.ClockTTL(true) // EXPIRE works; the next rescan sees it
	e.store.Server().SetPreHook(e.before)
	return e, nil
}

// Addr is where it listens.
func (e *Embedded) Addr() string { return e.store.Addr() }

// SAdd adds members to a set; for what is there before anybody follows.
func (e *Embedded) SAdd(key string, members ...string) error {
	_, err := e.store.SAdd(key, members...)
	return err
}

// HSet sets fields of a hash, given as field and value in turn.
func (e *Embedded) HSet(key string, pairs ...string) { e.store.HSet(key, pairs...) }

// Set sets a string.
func (e *Embedded) Set(key, text string) error { return e.store.Set(key, text) }

// Close ends it.
func (e *Embedded) Close() { e.store.Close() }

// ofConnection are commands that write no key, some with a password.
var ofConnection = map[string]bool{"AUTH": true, "HELLO": true, "CLIENT": true, "PING": true, "SELECT": true, "QUIT": true}

// before sees every command first. The library has no CLIENT TRACKING and no
// call after a command, so a writing command is carried out here, and what it
// names is told to those who track: too much rather than too little, as a key
// that did not change costs one reading.
func (e *Embedded) before(c *server.Peer, cmd string, args ...string) bool {
	if cmd == "CLIENT" && len(args) > 0 && strings.EqualFold(args[0], "TRACKING") {
		e.track(c, args[1:])
		return true
	}
	e.mu.Lock()
	if e.inside[c] || e.store.IsReadOnlyCommand(cmd) || ofConnection[cmd] {
		e.mu.Unlock()
		return false
	}
	e.inside[c] = true
	e.mu.Unlock()

	if s := e.store.Server(); s != nil { // nil while it is closed
		s.Dispatch(c, append([]string{cmd}, args...))
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inside, c)
	changed := append([]string{cmd}, args...)
	before, known := e.queued[c]
	switch {
	case cmd == "MULTI" && before == nil: // they cannot be nested
		if !known {
			c.OnDisconnect(func() { e.forget(c) })
		}
		e.queued[c] = []string{}
	case cmd == "EXEC" && known:
		e.queued[c] = nil
		e.tell(before)
	case cmd == "DISCARD" && known:
		e.queued[c] = nil
	case before != nil:
		e.queued[c] = append(before, changed...)
	default:
		e.tell(changed)
	}
	return true
}

func (e *Embedded) track(c *server.Peer, args []string) {
	if len(args) != 2 || !strings.EqualFold(args[0], "ON") || !strings.EqualFold(args[1], "BCAST") || !c.Resp3 {
		c.WriteError("ERR only CLIENT TRACKING ON BCAST with RESP3 is known here")
		return
	}
	e.mu.Lock()
	e.trackers[c] = true
	e.mu.Unlock()
	c.OnDisconnect(func() { e.forget(c) })
	c.WriteOK()
}

func (e *Embedded) forget(c *server.Peer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.trackers, c)
	delete(e.queued, c)
}

// tell sends an invalidation message: the words of the commands, or null for
// everything.
func (e *Embedded) tell(words []string) {
	all := false
	for _, w := range words {
		switch strings.ToUpper(w) {
		case "FLUSHALL", "FLUSHDB", "SWAPDB":
			all = true
		}
	}
	for c := range e.trackers {
		c.Block(func(w *server.Writer) {
			w.WritePushLen(2)
			w.WriteBulk("invalidate")
			if all {
				w.WriteNull()
			} else {
				w.WriteStrings(words)
			}
			w.Flush()
		})
	}
}
