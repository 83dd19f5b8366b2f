package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/integration/netlab"
	"github.com/razor-steering/razor/integration/testhost"
)

// hosts is deploy/dataplane as its README draws it, with the processes of users:
//
//	client eth0 ── swp9 tor ┬─ swp1 ── eth0 gateway
//	                        ├─ swp2 ── eth0 web1
//	                        └─ swp3 ── eth0 web2
type hosts struct {
	*front

	pins    string              // a directory for each host
	edit    map[string][]string // of an example, by host: old and new texts in turn
	gateway *announcer
	ways    []*announcer // of the backends
	agents  []*announcer
	flows   []*liveFlow
}

// newHosts starts all; prepare may set edit, and make further nodes, before.
func newHosts(t *testing.T, prepare func(*hosts)) *hosts {
	t.Helper()
	h := &hosts{front: newFront(t, "cumulus-tor.conf"), pins: testhost.BPFFS(t)}
	prepare(h)
	h.client.Run("ethtool", "-K", "eth0", "tx", "off")
	for i, name := range []string{"gateway", "web1", "web2"} {
		node := h.host(name, i+1, i+1)
		if i == 0 {
			h.gateway = h.process(node, "gateway", "gateway.yaml")
			continue
		}
		h.backend(node)
	}
	return h
}

// host is one of the hosts at a port of the router, with the locator of a number.
func (h *hosts) host(name string, port, number int) *netlab.Node {
	h.t.Helper()
	node := h.lab.Node(name)
	link := h.lab.Link(h.tor, fmt.Sprint("swp", port), node, "eth0")
	link.A.MeetXDP()
	link.B.WholeChecksums()
	router := link.A.Local.WithZone("").String()
	node.Run("ip", "addr", "add", nodePrefix(number).Addr().Next().String()+"/64", "dev", "lo")
	node.Run("ip", "-6", "route", "add", "default", "via", router, "dev", "eth0")
	node.Run("ip", "-4", "route", "add", "default", "via", "inet6", router, "dev", "eth0")
	return node
}

// backend has a host be a backend.
func (h *hosts) backend(node *netlab.Node) {
	h.t.Helper()
	for _, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
		answerLines(h.t, node, to)
	}
	h.ways = append(h.ways, h.process(node, "gateway", "backend.yaml"))
	h.agents = append(h.agents, h.process(node, "agent", "backend.yaml"))
}

// process runs a role with an example, in which the places of files are the test's.
func (h *hosts) process(node *netlab.Node, role, example string) *announcer {
	h.t.Helper()
	text, err := os.ReadFile("../deploy/dataplane/" + example)
	if err != nil {
		h.t.Fatal(err)
	}
	a := &announcer{tb: h.t, node: node, config: filepath.Join(node.Dir, example)}
	key, keys := filepath.Join(node.Dir, "flow.key"), filepath.Join(node.Dir, "dataplane.keys")
	pins := "pins: " + filepath.Join(h.pins, node.Name)
	for file, text := range map[string]string{
		key:  strings.Repeat("5e", 16),
		keys: "1: " + strings.Repeat("a5", 32),
		a.config: strings.NewReplacer(append(h.edit[node.Name],
			"/etc/razor/flow.key", key, "/etc/razor/dataplane.keys", keys, "dataplane:\n", "dataplane:\n    "+pins+"\n", "agent:\n", "agent:\n  "+pins+"\n  state_dir: "+filepath.Join(node.Dir, "agent")+"\n",
			"gateway:\n", "gateway:\n  drain: {converge: 100ms, settle: 100ms}\n  state_dir: "+a.stateDir()+"\n",
		)...).Replace(string(text)),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
	a.role = role
	a.start()
	return a
}

// begin opens flows, of which some reach each of the backends.
func (h *hosts) begin(n int, backends ...string) {
	h.t.Helper()
	by := map[string]int{}
	for i := range n {
		f := beginFlow(h.t, h.client, i)
		by[strings.TrimSpace(f.by)]++
		h.flows = append(h.flows, f)
	}
	if got := slices.Sorted(maps.Keys(by)); !slices.Equal(got, backends) {
		h.t.Errorf("flows went to %v", by)
	}
}

// goOn holds that all flows are as they were.
func (h *hosts) goOn(when string) {
	h.t.Helper()
	for i, f := range h.flows {
		if by, err := f.ask(); err != nil || by != f.by {
			h.t.Fatalf("%s: flow %d of %q is of %q, %v", when, i, f.by, by, err)
		}
	}
}

// get asks the agent on a backend for one of its pages; "" while it does not answer.
func get(a *announcer, path string) string { return page(a, "http://[::1]:8056"+path) }

// ready waits until an agent says that it is.
func (h *hosts) ready(a *announcer, number int) {
	h.t.Helper()
	want := fmt.Sprintf("2 VIPs, locator %v, on eth0\n", nodePrefix(number))
	h.lab.Eventually(a.node.Name+" is ready", func() bool { return get(a, "/readyz") == want })
}

// attached tells whether an XDP program is on a host's eth0.
func attached(n *netlab.Node) bool {
	return strings.Contains(n.Run("ip", "link", "show", "dev", "eth0"), "prog/xdp")
}

// await waits until all is there that clients need.
func (h *hosts) await() {
	h.t.Helper()
	for i, a := range h.agents {
		h.ready(a, i+2)
	}
	h.until([]string{"swp1"}, vip4, vip6)
	for i, device := range []string{"swp1", "swp2", "swp3"} {
		h.until([]string{device}, nodePrefix(i+1).String())
	}
	h.lab.Eventually("new flows go to all backends", func() bool {
		return !slices.ContainsFunc(h.gateway.status().Backends, func(b gateway.BackendStatus) bool {
			return b.State == balancer.Active && b.Weight > 0 && b.Share == 0
		})
	})
}

// Flows to the VIPs of both families reach the backends, and go on while processes are
// killed and started again. Those that stop leave nothing.
func TestDataplaneOfProcesses(t *testing.T) {
	t.Parallel()
	h := newHosts(t, func(*hosts) {})
	h.await()
	h.begin(40, "web1", "web2")

	h.agents[0].Kill()
	h.goOn("an agent was killed")
	h.begin(20, "web1", "web2")
	h.agents[0].start()
	h.ready(h.agents[0], 2)
	h.goOn("the agent runs again")

	h.agents[1].Signal(syscall.SIGHUP)
	h.lab.Eventually("the agent starts again", func() bool { return strings.Count(h.agents[1].Log(), `msg="endpoint attached"`) == 2 })
	h.ready(h.agents[1], 3)
	h.goOn("an agent started again")

	h.ways[0].Kill()
	h.ways[0].start() // beside VIPs on loopback
	h.ways[0].awaitUp(1)
	h.goOn("what announces a backend runs again")

	h.gateway.Kill()
	h.goOn("the gateway was killed")
	h.begin(20, "web1", "web2")
	h.gateway.start()
	h.gateway.awaitUp(1)
	h.goOn("the gateway runs again")
	h.begin(20, "web1", "web2")

	if said, err := h.agents[0].razor("check"); err != nil {
		t.Errorf("check: %v: %s", err, said)
	}
	h.agents[0].node.Sysctl("net.ipv4.conf.eth0.rp_filter", "1")
	said, err := h.agents[0].razor("check")
	if err == nil || !strings.Contains(said, `agent.interfaces[0]: "eth0": rp_filter is strict: `) || strings.Contains(said, "port in use") {
		t.Errorf("check: %v: %s", err, said)
	}
	h.agents[0].Signal(syscall.SIGHUP)
	h.lab.Eventually("the agent tells of the host", func() bool {
		return strings.Contains(h.agents[0].Log(), `level=WARN msg="the host is not as it should be" setting=agent.interfaces[0] of=eth0 what="rp_filter is strict: `)
	})
	h.ready(h.agents[0], 2)
	taken := regexp.MustCompile(`(?m)^razor_agent_segment_packets_total\{reason="taken_socket"\} [1-9]`)
	h.lab.Eventually("its metrics", func() bool { return taken.MatchString(get(h.agents[0], "/metrics")) })
	h.stop()
}

// stop ends all, which leaves nothing.
func (h *hosts) stop() {
	h.t.Helper()
	for _, a := range slices.Concat(h.agents, h.ways, []*announcer{h.gateway}) {
		a.Terminate()
		if a.role == "gateway" && a != h.gateway {
			continue
		}
		if attached(a.node) {
			h.t.Errorf("%s: a program is left", a.node.Name)
		}
		if left, err := os.ReadDir(filepath.Join(h.pins, a.node.Name)); err != nil || len(left) > 0 {
			h.t.Errorf("%s: pins are left: %v, %v", a.node.Name, left, err)
		}
		if got := a.node.Run("ip", "addr", "show", "dev", "lo"); strings.Contains(got, vipAddress4) || strings.Contains(got, vipAddress6) {
			h.t.Errorf("%s: a VIP is left: %s", a.node.Name, got)
		}
	}
}

// A container on a backend is a backend of its own. It may come after the agent, and get
// another veth.
func TestDataplaneOfContainers(t *testing.T) {
	t.Parallel()
	const last = `        - {name: web2, locator: "2001:db8:5e:3::/64"}`
	var c1 *netlab.Node
	h := newHosts(t, func(h *hosts) {
		c1 = h.lab.Node("c1")
		h.edit = map[string][]string{
			"gateway": {last, last + "\n" + `        - {name: c1, locator: "2001:db8:5e:2::/64", target: 1}`},
			"web1":    {"sr_block:", "containers: [{target: 1, netns: " + c1.Namespace + ", veth: veth-c1}]\n  sr_block:"},
		}
	})
	agent := h.agents[0]
	h.lab.Eventually("the container is missed", func() bool { return strings.HasPrefix(get(agent, "/readyz"), "container 1: ") })
	h.plug(c1)
	for _, to := range []string{"[" + vipAddress6 + "]:443", vipAddress4 + ":443"} {
		answerLines(t, c1, to)
	}
	h.await()
	said, _ := agent.razor("check")
	for _, want := range []string{
		`agent.containers[0].vips[0]: "198.51.100.1": not an address of the container; want ip addr add 198.51.100.1/32 dev lo, in the namespace ` + c1.Namespace,
		`agent.containers[0].vips[0]: "198.51.100.1": also a VIP of the host, which drops what the container answers; want sysctl -w net.ipv4.conf.veth-c1.accept_local=1`,
		`agent.containers[0].vips[1]: "2001:db8:ffff::1": not an address of the container; want `,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("check: %s: want %s", said, want)
		}
	}
	agent.node.Sysctl("net.ipv4.conf.all.accept_local", "1")
	c1.Own(vip4)
	c1.Own(vip6)
	if said, _ := agent.razor("check"); strings.Contains(said, "containers") {
		t.Errorf("check: %s", said)
	}
	h.begin(60, "c1", "web1", "web2")

	agent.Kill()
	h.goOn("the agent was killed")
	agent.start()
	h.ready(agent, 2)
	h.goOn("the agent runs again")

	agent.node.Run("ip", "link", "del", "veth-c1")
	h.plug(c1)
	h.lab.Eventually("the container is found again", func() bool {
		return strings.Count(agent.Log(), `msg="container taken up"`) == 3 && strings.HasPrefix(get(agent, "/readyz"), "2 VIPs")
	})
	h.goOn("it has another veth")
	h.begin(60, "c1", "web1", "web2")
	h.stop()
	if attached(c1) {
		t.Error("a program is left in the container")
	}
}

// plug lays the veth from web1 to a container.
func (h *hosts) plug(c *netlab.Node) {
	h.t.Helper()
	link := h.lab.Link(h.agents[0].node, "veth-c1", c, "eth0")
	host := link.A.Local.WithZone("").String()
	c.Run("ip", "-6", "route", "add", "default", "via", host, "dev", "eth0")
	c.Run("ip", "-4", "route", "add", "default", "via", "inet6", host, "dev", "eth0")
}
