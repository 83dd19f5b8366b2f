package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/razor-steering/razor/gateway"
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
	g.until("the VIPs are announced", func(s gateway.Status) bool {
		return slices.ContainsFunc(s.Announcements, func(a *gateway.Announcement) bool { return a.Set == "web" && a.Presence == "announced" })
	})
	g.awaitUp(1)
	h.await()
	h.taken()
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

// Another number of services, for which the maps are others, is a restart in which the
// tables stay: flows of a backend that drains are where nothing but those says.
func TestDataplaneWithOtherMaps(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	h.begin(40, "web1", "web2")
	g := h.gateway
	edit := func(old, next string) {
		t.Helper()
		text, err := os.ReadFile(g.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g.config, []byte(strings.Replace(string(text), old, next, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		g.Signal(syscall.SIGHUP)
	}
	edit(`locator: "2001:db8:5e:2::/64"`, `locator: "2001:db8:5e:2::/64", state: draining`)
	g.untilLog("configuration reloaded")
	h.goOn("a backend drains")
	for _, n := range []string{"200", "3"} {
		edit("sr_block:", "max_services: "+n+"\n    sr_block:")
		h.lab.Eventually("the maps are others", func() bool {
			dirs, err := filepath.Glob(filepath.Join(h.pins, g.node.Name, "balancer-[0-9]*"))
			return err == nil && len(dirs) == 1 && strings.HasSuffix(dirs[0], "-"+n)
		})
		edit("max_services: "+n+"\n    ", "")
		h.lab.Eventually("the maps are as before", func() bool {
			dirs, err := filepath.Glob(filepath.Join(h.pins, g.node.Name, "balancer-[0-9]*"))
			return err == nil && len(dirs) == 1 && strings.HasSuffix(dirs[0], "-16")
		})
		h.goOn(n + " services and back")
	}
	h.stop()
}

// taken waits until the router has forgotten what the gateway announced before it started
// again: connections to both VIPs are taken, time and again.
func (h *hosts) taken() {
	h.t.Helper()
	inRow := 0
	h.lab.Eventually("connections are taken", func() bool {
		for _, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
			c, err := h.client.Dial(h.t.Context(), "tcp", to)
			if err != nil {
				inRow = 0
				return false
			}
			_ = c.Close()
		}
		inRow++
		return inRow > 10
	})
}
