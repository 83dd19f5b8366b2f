package integration

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

// fillEdges writes a route with two edges, of which each can be drained.
func fillEdges(s *redistest.Server) {
	config(s, "z.example")
	s.Do("SADD all.z.example:EDGES east west")
	s.Do("SADD east:A 192.0.2.1")
	s.Do("SADD west:A 192.0.2.2")
}

// writer makes one that is closed with the test.
func writer(t *testing.T, cfg upstreams.Config) *upstreams.Writer {
	t.Helper()
	w := upstreams.NewWriter(cfg)
	t.Cleanup(w.Close)
	return w
}

// flip drains the edge east or puts it back, whichever changes something.
func flip(t *testing.T, w *upstreams.Writer) (word string, err error) {
	t.Helper()
	said, err := w.DrainEdge(t.Context(), nil, "east", false)
	if err == nil && strings.Contains(said, "already") {
		_, err = w.UndrainEdge(t.Context(), nil, "east")
		return "active since=", err
	}
	return "draining since=", err
}

// writes checks that the writer's next word arrives at a server. It may take some
// tries: what happened to the primary is found out by the first.
func writes(t *testing.T, w *upstreams.Writer, s *redistest.Server) {
	t.Helper()
	await(t, "a write at "+s.Addr, func() bool {
		word, err := flip(t, w)
		if err != nil {
			return false
		}
		state, _ := s.Client.Get(t.Context(), "east:STATE").Result()
		return strings.HasPrefix(state, word)
	})
}

// refused checks that nothing can be written, and that the error has all the words.
func refused(t *testing.T, w *upstreams.Writer, words ...string) {
	t.Helper()
	word, err := flip(t, w)
	if err == nil {
		t.Fatalf("written: %s", word)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

func sentinelAt(addrs ...string) *upstreams.SentinelConfig {
	return &upstreams.SentinelConfig{Name: "lists", Addresses: addrs}
}

// nobody is an address where nothing listens.
func nobody(t *testing.T) string {
	t.Helper()
	return freeAddr(t)
}

// The primary is found from whichever server the configuration names, and again
// when another one has become it.
func TestWriterFindsThePrimary(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	fillEdges(primary)
	replica := primary.Replica()
	direct, through := writer(t, upstreams.Config{Address: primary.Addr}), writer(t, upstreams.Config{Address: replica.Addr})
	for _, w := range []*upstreams.Writer{direct, through} {
		if _, err := flip(t, w); err != nil {
			t.Fatal(err)
		}
		if state := primary.Do("GET east:STATE"); !strings.Contains(state.(string), " since=20") {
			t.Errorf("state %q", state)
		}
	}
	await(t, "the last word at the replica", func() bool { return replica.Do("GET east:STATE") == primary.Do("GET east:STATE") })

	// Promoted, and the old primary follows it: both writers were connected there.
	replica.Do("REPLICAOF NO ONE")
	primary.Do("REPLICAOF " + replica.Host + " " + strconv.Itoa(replica.Port))
	primary.WaitReplica()
	writes(t, through, replica)
	writes(t, direct, replica)
}

// The same writer writes to the new primary after the old one was killed, whatever
// redis.address is and although the first sentinels of its list are dead.
func TestWriterFollowsSentinel(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	fillEdges(primary)
	replica := primary.Replica()
	sentinel := redistest.Sentinel(t, "lists", primary)
	w := writer(t, upstreams.Config{Address: nobody(t), Sentinel: sentinelAt(nobody(t), nobody(t), sentinel.Addr)})
	writes(t, w, primary)
	await(t, "the word at the replica", func() bool { return replica.Do("GET east:STATE") == primary.Do("GET east:STATE") })
	primary.Kill()
	writes(t, w, replica)
	if got := sentinel.PrimaryOf("lists"); got != replica.Addr {
		t.Errorf("the primary is %s, want %s", got, replica.Addr)
	}

	// The old one comes back, and takes itself for a primary until Sentinel tells it.
	primary.Restart()
	writes(t, w, replica)
	writes(t, writer(t, upstreams.Config{Address: primary.Addr, Sentinel: sentinelAt(sentinel.Addr)}), replica)
}

// Where there is no primary to write to, the error says what was asked, and which
// setting leads there.
func TestWriterWithoutAPrimary(t *testing.T) {
	t.Parallel()
	t.Run("sentinels that are dead", func(t *testing.T) {
		t.Parallel()
		a, b := nobody(t), nobody(t)
		refused(t, writer(t, upstreams.Config{Sentinel: sentinelAt(a, b)}), "redis.sentinel", a, b, "connection refused")
	})
	t.Run("a name that Sentinel does not know", func(t *testing.T) {
		t.Parallel()
		s := redistest.Sentinel(t, "others", redistest.Start(t))
		refused(t, writer(t, upstreams.Config{Sentinel: sentinelAt(s.Addr)}), "redis.sentinel", s.Addr, `"lists": knows no primary of that name`)
	})
	t.Run("a wrong password of Sentinel", func(t *testing.T) {
		t.Parallel()
		s := redistest.Sentinel(t, "lists", redistest.Start(t))
		s.Do("ACL SETUSER razor on >secret +@all")
		s.Do("ACL SETUSER narrow on >secret +@connection")
		for _, row := range []struct{ user, password, code, setting string }{
			{"razor", "guess", "WRONGPASS", "redis.sentinel.password"},
			{"narrow", "secret", "NOPERM", "redis.sentinel.user"},
		} {
			cfg := sentinelAt(s.Addr)
			cfg.User, cfg.Password = row.user, row.password
			_, err := flip(t, writer(t, upstreams.Config{Sentinel: cfg}))
			if setting(err) != row.setting || !strings.Contains(err.Error(), row.code) || !strings.Contains(err.Error(), s.Addr) {
				t.Errorf("%v; want %s at %s of %s", err, row.code, s.Addr, row.setting)
			}
		}
	})
	t.Run("a certificate of Sentinel from an unknown authority", func(t *testing.T) {
		t.Parallel()
		cert, key := certificate(t)
		cfg := sentinelAt(redistest.Start(t).ListenTLS(cert, key))
		cfg.TLS = &upstreams.TLSConfig{}
		if _, err := flip(t, writer(t, upstreams.Config{Sentinel: cfg})); setting(err) != "redis.sentinel.tls" {
			t.Errorf("%v", err)
		}
	})
	t.Run("a primary that is down", func(t *testing.T) {
		t.Parallel()
		primary := redistest.Start(t)
		fillEdges(primary)
		replica := primary.Replica()
		primary.Kill()
		refused(t, writer(t, upstreams.Config{Address: replica.Addr}), "redis.address", primary.Addr, "connection refused")
		refused(t, writer(t, upstreams.Config{Address: primary.Addr}), "redis.address", primary.Addr, "connection refused")
	})
	t.Run("a replica of a replica", func(t *testing.T) {
		t.Parallel()
		primary := redistest.Start(t)
		middle := primary.Replica()
		last := middle.Replica()
		refused(t, writer(t, upstreams.Config{Address: last.Addr}), "redis.address", last.Addr, middle.Addr, "which is a replica too")
	})
}

// setting is the setting that an error is about.
func setting(err error) string {
	d, _ := errors.AsType[upstreams.Defect](err)
	return d.Key
}

// The account and the server's certificate are those of the configuration; what
// the account must not do is said with its setting.
func TestWriterAccount(t *testing.T) {
	t.Parallel()
	primary, replica := redistest.Start(t), redistest.Start(t)
	cert, key := certificate(t, primary.Host, replica.Host)
	addr, replicaAddr := primary.ListenTLS(cert, key), replica.ListenTLS(cert, key)
	fillEdges(primary)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	replica.Do("CONFIG SET tls-replication yes")
	replica.Do("REPLICAOF " + host + " " + port)
	replica.WaitReplica()
	for _, s := range []*redistest.Server{primary, replica} {
		s.Do("ACL SETUSER reader on >secret ~* +@read +@connection +info")
		s.Do("ACL SETUSER writer on >secret ~* +@read +@connection +info +set +@transaction")
		s.Do("ACL SETUSER half on >secret ~* +@read +@connection +info +@transaction")
		s.Do("ACL SETUSER mute on >secret ~* +@read +@connection +set +@transaction") // cannot ask the replica for its primary
		s.Do("ACL SETUSER blind on >secret ~* +@connection +info +set +@transaction")
	}
	for _, row := range []struct{ user, password, code, setting string }{
		{"writer", "secret", "", ""},
		{"reader", "secret", "NOPERM", "redis.user"},
		{"half", "secret", "NOPERM", "redis.user"},
		{"blind", "secret", "NOPERM", "redis.user"},
		{"mute", "secret", "READONLY", "redis.sentinel"},
		{"writer", "guess", "WRONGPASS", "redis.password"},
	} {
		cfg := upstreams.Config{
			Address: replicaAddr, User: row.user, Password: row.password,
			TLS: &upstreams.TLSConfig{CA: cert, Cert: cert, Key: key},
		}
		_, err := flip(t, writer(t, cfg))
		if (err == nil) != (row.code == "") || err != nil && !strings.Contains(err.Error(), row.code) || setting(err) != row.setting {
			t.Errorf("%s, %s: %v; want %s of %s", row.user, row.password, err, row.code, row.setting)
		}
	}
	cfg := upstreams.Config{Address: addr, TLS: &upstreams.TLSConfig{Cert: cert, Key: key}}
	if _, err := flip(t, writer(t, cfg)); setting(err) != "redis.tls" {
		t.Errorf("with an unknown authority: %v", err)
	}
}

// Of two edges that are a route together, drained at once, one stays; and so of
// three.
func TestDrainsAtOnce(t *testing.T) {
	t.Parallel()
	for _, edges := range [][]string{{"east", "west"}, {"east", "west", "all.z.example"}} {
		s := redistest.Start(t)
		fillEdges(s)
		if len(edges) > 2 {
			s.Do("SADD all.z.example:A 192.0.2.3") // a route that is an edge of itself
		}
		for round := range 20 {
			errs := make([]error, len(edges))
			var wg sync.WaitGroup
			for i, edge := range edges {
				w := writer(t, upstreams.Config{Address: s.Addr})
				wg.Go(func() { _, errs[i] = w.DrainEdge(t.Context(), nil, edge, false) })
			}
			wg.Wait()
			refused := 0
			for i, err := range errs {
				switch {
				case err == nil:
					s.Do("DEL " + edges[i] + ":STATE")
				case strings.Contains(err.Error(), "is the last active edge"):
					refused++
				default:
					t.Fatal(err)
				}
			}
			if refused != 1 {
				t.Fatalf("round %d: %d of %d refused: %v", round, refused, len(edges), errs)
			}
		}
	}
}
