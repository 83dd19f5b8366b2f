package bgp

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// between are two announcers that call each other, with these settings each. The
// changes are for the first.
func between(t *testing.T, one, other PeerConfig, changes ...func(*Announcer)) (a, b *side) {
	t.Helper()
	ports := freePorts(t, 2)
	one.Name, one.Port, other.Name, other.Port = "b", ports[1], "a", ports[0]
	for _, p := range []*PeerConfig{&one, &other} {
		if p.Address == "" {
			p.Address = "::1"
		}
	}
	return start(t, 65001, ports[0], one, changes...), start(t, 65002, ports[1], other)
}

// Passwords and hop limits that fit make a session, whoever calls.
func TestSocketsFit(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ one, other PeerConfig }{
		"passwords":             {PeerConfig{Password: "word"}, PeerConfig{Password: "word"}},
		"passwords, passive":    {PeerConfig{Password: "word", Passive: true}, PeerConfig{Password: "word"}},
		"passwords over IPv4":   {PeerConfig{Password: "word", Address: "127.0.0.1"}, PeerConfig{Password: "word", Address: "127.0.0.1"}},
		"password in a file":    {PeerConfig{Password: "word"}, PeerConfig{PasswordFile: file}},
		"GTSM":                  {PeerConfig{TTLSecurity: 1}, PeerConfig{TTLSecurity: 1}},
		"GTSM over IPv4":        {PeerConfig{TTLSecurity: 1, Address: "127.0.0.1"}, PeerConfig{TTLSecurity: 1, Address: "127.0.0.1"}},
		"GTSM, one wants it":    {PeerConfig{TTLSecurity: 1}, PeerConfig{}},
		"GTSM and multihop 255": {PeerConfig{TTLSecurity: 1, Passive: true}, PeerConfig{Multihop: 255}},
		"GTSM and a password":   {PeerConfig{TTLSecurity: 1, Password: "word"}, PeerConfig{TTLSecurity: 1, Password: "word"}},
		"local address":         {PeerConfig{Address: "127.0.0.1"}, PeerConfig{Address: "127.0.0.1", Local: "127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := between(t, c.one, c.other)
			until(t, "established", func() bool { return a.state() == Established && b.state() == Established })
		})
	}
}

// Those that do not fit make none, and the reason is said.
func TestSocketsDoNotFit(t *testing.T) {
	t.Parallel()
	const noAnswer = "no answer, as when the passwords differ"
	soon := func(a *Announcer) { a.peers["b"].openWait = time.Second }
	list := []struct {
		name, want string
		one, other PeerConfig
		a, b       *side
	}{
		{name: "other password", want: noAnswer, one: PeerConfig{Password: "word"}, other: PeerConfig{Password: "sword"}},
		{
			name: "other password over IPv4", want: noAnswer,
			one: PeerConfig{Password: "word", Address: "127.0.0.1"}, other: PeerConfig{Password: "sword", Address: "127.0.0.1"},
		},
		{name: "password here alone", want: noAnswer, one: PeerConfig{Password: "word"}},
		{name: "password there alone", want: "no answer", other: PeerConfig{Password: "word"}},
		{name: "too far for GTSM", want: "no OPEN within 1s", one: PeerConfig{TTLSecurity: 1}, other: PeerConfig{Passive: true, Multihop: 64}},
	}
	for i := range list { // all at once: they wait
		c := &list[i]
		c.a, c.b = between(t, c.one, c.other, soon)
	}
	for _, c := range list {
		until(t, c.name+" is said and counted", func() bool {
			return c.a.log.has("level=WARN", c.want) && c.a.fault(endedConnection)+c.a.fault(endedOpen) > 0
		})
		if c.a.metric(`peer_sessions_total{peer="b"}`)+c.b.metric(`peer_sessions_total{peer="a"}`) != 0 {
			t.Errorf("%s: there was a session", c.name)
		}
	}
}

// A file without a password is noticed at the start, and before.
func TestPasswordFile(t *testing.T) {
	t.Parallel()
	cfg := Config{Port: freePorts(t, 1)[0], Peers: []PeerConfig{{Address: "::1", PasswordFile: "/dev/null"}}}
	cfg.Defaults()
	if d := cfg.CheckFiles(); len(d) != 1 || d[0].Key != "gateway.bgp.peers[0].password_file" || d[0].Reason != "not a password" {
		t.Error(d)
	}
	a := New(cfg, Identity{AS: 65001}, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not a password") {
		t.Error(err)
	}
}

// Two that call each other at the same time agree on one connection.
func TestBothCall(t *testing.T) {
	t.Parallel()
	for range 5 {
		a, b := between(t, PeerConfig{}, PeerConfig{})
		up := func() bool {
			_, upA, openA := a.Sessions()
			_, upB, openB := b.Sessions()
			return upA == 1 && upB == 1 && openA == 1 && openB == 1
		}
		until(t, "one session each", up)
		if n := a.metric(`peer_sessions_total{peer="b"}`) + b.metric(`peer_sessions_total{peer="a"}`); n != 2 {
			t.Errorf("%v sessions until one stayed", n)
		}
		a.stop()
		b.stop()
	}
}

// A password that the kernel refuses is the peer's fault, not the port's.
func TestPasswordRefused(t *testing.T) {
	t.Parallel()
	cfg := Config{AS: "65001", Port: freePorts(t, 1)[0], Peers: []PeerConfig{{Name: "b", Address: "::1", AS: "65002", Password: strings.Repeat("x", maxMD5+1)}}}
	cfg.Defaults()
	a := New(cfg, Identity{AS: 65001}, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	err := a.Listen(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `gateway.bgp.peers: "b": setsockopt TCP_MD5SIG: `) {
		t.Error(err)
	}
}
