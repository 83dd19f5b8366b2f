package integration

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// A file that has no dataplane any more takes it off the host, by a reload and after the
// process was killed.
func TestDataplaneTakenOutOfTheFile(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	g := h.gateway
	said, err := g.razor("check")
	if err != nil || !strings.HasPrefix(said, "warning: "+g.config+":") || !strings.Contains(said, `: gateway.dataplane.interfaces: "eth0": packets of clients, up to 1500 bytes, leave with up to 144 more, and the way to 2 of 2 backends takes 1500 (eth0); want 1644`) {
		t.Errorf("check: %v: %s", err, said)
	}
	with, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	from, _, _ := strings.Cut(string(with), "  dataplane:\n")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(g.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(from)
	g.Signal(syscall.SIGHUP)
	h.lab.Eventually("the reload takes it off", func() bool { return !attached(g.node) })
	g.awaitUp(1)
	write(string(with))
	g.Signal(syscall.SIGHUP)
	h.lab.Eventually("the next one puts it on", func() bool { return attached(g.node) })
	h.await()
	h.begin(20, "web1", "web2")

	g.Kill()
	h.goOn("the gateway was killed")
	write(from)
	g.start()
	g.awaitUp(1)
	if attached(g.node) {
		t.Error("a program is left")
	}
	h.stop()
}
