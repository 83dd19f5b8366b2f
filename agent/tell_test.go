package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
)

const keyLine = "1: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// A key file is refused with its reason.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for file, want := range map[string]string{
		"":                             "",
		write("good", keyLine, 0o600):  "",
		write("open", keyLine, 0o640):  "others may read it (mode 0640)",
		write("short", "1: 00", 0o600): "key 1 has 1 bytes",
		filepath.Join(dir, "none"):     "no such file or directory",
	} {
		keys, err := (&Config{KeyFile: file}).keys()
		d, isDefect := errors.AsType[upstreams.Defect](err)
		switch {
		case want == "" && (err != nil || (file == "") != (keys == nil)):
			t.Errorf("%s: %v", file, err)
		case want != "" && (!isDefect || d.Key != "agent.key_file" || !strings.Contains(d.Reason, want)):
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

// An agent with keys has a gateway told of the events that come.
func TestAgentTells(t *testing.T) {
	t.Parallel()
	pins := newHost(t)
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(keyLine), 0o600); err != nil {
		t.Fatal(err)
	}
	c := section(func(c *Config) { c.Pins, c.KeyFile = pins, file })
	a := &agent{config: *c, log: slog.New(slog.DiscardHandler), ready: func(bool, string) {}, on: map[string]*attached{}}
	if err := a.open(); err != nil {
		t.Fatal(err)
	}
	keys, err := c.keys()
	if err != nil {
		t.Fatal(err)
	}
	gateway := netip.MustParsePrefix("2001:db8:5e:1::/64")
	l := listenAsGateway(t, gateway, keys)
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	registry := prometheus.NewRegistry()
	a.tell(ctx, group, registry)
	e := eventOf(gateway, 5)
	a.pinner.Tell(e)
	if told, _ := l.take(t, 1); told[e.Client] != (wire.Pin{Client: e.Client, VIP: e.VIP, Protocol: e.Protocol, Target: e.Target}) {
		t.Errorf("told %v, want %v", told, e)
	}
	if families, err := registry.Gather(); err != nil || len(families) != 2 {
		t.Errorf("metrics %v, %v", families, err)
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(a.remove(), a.close()); err != nil {
		t.Error(err)
	}
}
