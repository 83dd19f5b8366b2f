package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/redistest"
	"github.com/razor-steering/razor/upstreams"
)

// Backends join, change and leave by edits of a list in Redis, and stay whatever happens to
// Redis. What in the list cannot be a backend is left out, and said once.
func TestDataplaneUpstream(t *testing.T) {
	t.Parallel()
	const web1, web2 = "[2001:db8:5e:2::1]:443", "[2001:db8:5e:3::1]:443"
	socket := filepath.Join(t.TempDir(), "redis.sock")
	redis := redistest.Start(t, "--unixsocket", socket)
	redis.Do("SADD web:UPSTREAMS " + web1)
	h := newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{"gateway": {
			`      backends:
        - {name: web1, locator: "2001:db8:5e:2::/64"}
        - {name: web2, locator: "2001:db8:5e:3::/64"}
`, "      upstream: web\nredis: {address: \"unix://" + socket + "\"}\n",
			"  services:\n", "  lists: true\n  services:\n",
		}}
		for _, name := range []string{"web1", "web2"} {
			h.edit[name] = []string{"interfaces: [eth0]\n  sr_block:", "interfaces: [eth0]\n  gateways: [\"2001:db8:5e:1::/64\"]\n  sr_block:"}
		}
	})
	h.await()
	h.has("2 active")
	h.begin(10, "web1")

	redis.Do("SADD web:UPSTREAMS " + web2)
	h.has("2 active", "3 active")
	h.begin(40, "web1", "web2")
	h.goOn("web2 has joined")

	redis.Do("SADD web:UPSTREAMS 192.0.2.7:443 [2001:db8:6e:9::1]:443 [2001:db8:5e:2::2]:443")
	h.lab.Eventually("what cannot be a backend is left out", func() bool { return len(h.membership().LeftOut) == 3 })
	h.lab.Eventually("its metric", func() bool {
		return strings.Contains(h.gateway.metrics(), `razor_gateway_membership_left_out{service="web"} 3`)
	})
	if said, err := h.gateway.razor("status"); err != nil || !strings.Contains(said, "\nlists: service web: 2 backends from web:UPSTREAMS, 3 endpoints left out: 192.0.2.7:443: an IPv4 address") {
		t.Errorf("status: %v: %s", err, said)
	}
	redis.Do("SREM web:UPSTREAMS [2001:db8:6e:9::1]:443 [2001:db8:5e:2::2]:443")
	h.lab.Eventually("one is left", func() bool { return len(h.membership().LeftOut) == 1 })
	if n := strings.Count(h.gateway.Log(), `msg="endpoint left out, it cannot be a backend" service=web list=web:UPSTREAMS member=192.0.2.7:443 reason="an IPv4 address: `); n != 1 {
		t.Errorf("said %d times", n)
	}

	redis.DoArgs("SADD", "web:UPSTREAMS", web2+" weight=0")
	redis.Do("SREM web:UPSTREAMS " + web2)
	h.weighs(map[string]uint32{"2": 1, "3": 0})
	h.begin(20, "web1")
	h.goOn("web2 has no weight")
	redis.DoArgs("SADD", "web:UPSTREAMS", web2+" weight=3")
	redis.DoArgs("SREM", "web:UPSTREAMS", web2+" weight=0")
	h.weighs(map[string]uint32{"2": 1, "3": 3})
	h.begin(60, "web1", "web2")

	h.lab.Eventually("the snapshot on disk to have that", func() bool {
		kept, err := os.ReadFile(filepath.Join(h.gateway.stateDir(), upstreams.SnapshotFile))
		return err == nil && strings.Contains(string(kept), web2+" weight=3") && !strings.Contains(string(kept), "weight=0")
	})
	redis.Kill()
	h.gateway.untilStatus("that Redis is away", func(s gateway.Status) bool { return s.Lists.Link == "down" })
	h.has("2 active", "3 active")
	h.gateway.Kill()
	h.gateway.start()
	h.gateway.awaitUp(1)
	h.has("2 active", "3 active")
	h.weighs(map[string]uint32{"2": 1, "3": 3})
	h.goOn("the gateway starts without Redis")
	h.begin(60, "web1", "web2")
	redis.Restart() // with nothing in it
	h.gateway.untilStatus("a hold", func(s gateway.Status) bool { return s.Lists != nil && s.Lists.Hold != "" })
	h.has("2 active", "3 active")
	h.begin(60, "web1", "web2")
	// All that the snapshot on disk may have, which is a moment older than the last edits.
	redis.DoArgs("SADD", "web:UPSTREAMS", web1, web2+" weight=3", "192.0.2.7:443", "[2001:db8:6e:9::1]:443", "[2001:db8:5e:2::2]:443")
	h.gateway.untilStatus("the end of the hold", func(s gateway.Status) bool { return s.Lists.Hold == "" && s.Lists.Link == "tracking" })
	redis.Do("SREM web:UPSTREAMS [2001:db8:6e:9::1]:443 [2001:db8:5e:2::2]:443")
	h.has("2 active", "3 active")
	h.goOn("Redis has lost all, and has it again")

	redis.Do("SREM web:UPSTREAMS " + web1)
	h.has("2 draining", "3 active")
	h.begin(20, "web2")
	h.goOn("web1 drains")
	h.gateway.untilStatus("the agent of web1 speaks", func(s gateway.Status) bool {
		return len(s.Backends) == 2 && s.Backends[0].Agent != nil && s.Backends[1].Agent != nil
	})
	redis.Do("SADD web:UPSTREAMS " + web1)
	h.has("2 active", "3 active")
	redis.Do("SREM web:UPSTREAMS " + web1)
	h.has("2 draining", "3 active")
	h.goOn("web1 drains again")
	h.agents[0].Kill()
	h.has("3 active") // its agent is silent
	h.forget("web1")
	h.begin(20, "web2")
	h.goOn("web1 is gone")
	redis.Do("DEL web:UPSTREAMS") // an edit, also of the last one
	h.has("3 draining")
	h.goOn("the list is empty")
}

// weighs waits until the backends have weights, by the hosts' numbers.
func (h *hosts) weighs(want map[string]uint32) {
	h.t.Helper()
	h.lab.Eventually(fmt.Sprint("the backends weigh ", want), func() bool {
		all := h.gateway.status().Backends
		for _, b := range all {
			number := strings.TrimSuffix(strings.TrimPrefix(b.SID, "2001:db8:5e:"), ":5201::")
			if weight, ok := want[number]; !ok || b.Weight != weight || (b.Share > 0) != (weight > 0) {
				return false
			}
		}
		return len(all) == len(want)
	})
}
