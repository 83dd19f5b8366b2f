package integration

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// bulk is what a server of serveBulk says, in bytes.
const bulk = 1 << 20

// serveBulk is a server that says much to whoever connects.
func serveBulk(t *testing.T, n *netlab.Node, to string) {
	t.Helper()
	l, err := n.Listen("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				_, _ = c.Write(make([]byte, bulk))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
}

// refuse has the router drop what backends answer from VIPs, or no longer.
func (h *hosts) refuse(verb string) {
	h.t.Helper()
	for _, device := range []string{"swp2", "swp3"} {
		h.tor.Run("ip", "rule", verb, "iif", device, "from", vipAddress4, "blackhole")
		h.tor.Run("ip", "-6", "rule", verb, "iif", device, "from", vipAddress6, "blackhole")
	}
}

// Answers go by the gateway where the network takes none from a VIP of backends: over
// TCP and UDP, of both families, of containers too, much of them, also while the agent is
// away. Of two gateways one is dead, and left out once the other one is heard alone. A
// configuration that says direct ends it.
func TestReturnByTheGateway(t *testing.T) {
	t.Parallel()
	const (
		services = `vips: ["198.51.100.1:443/tcp", "[2001:db8:ffff::1]:443/tcp"]`
		last     = `        - {name: web2, locator: "2001:db8:5e:3::/64"}`
	)
	var c1 *netlab.Node
	by := []string{"sr_block:", "return: gateway\n  gateways: [\"2001:db8:5e:1::/64\", \"2001:db8:5e:99::/64\"]\n  sr_block:"}
	h := newHosts(t, func(h *hosts) {
		c1 = h.lab.Node("c1")
		h.edit = map[string][]string{
			"gateway": {
				services, `vips: ["198.51.100.1", "2001:db8:ffff::1"]`,
				last, last + "\n" + `        - {name: c1, locator: "2001:db8:5e:2::/64", target: 1}`,
			},
			"web1": append([]string{"interfaces:", "containers: [{target: 1, netns: " + c1.Namespace + ", veth: veth-c1}]\n  interfaces:"}, by...),
			"web2": by,
		}
	})
	h.plug(c1)
	h.agents[0].node.Sysctl("net.ipv4.conf.all.accept_local", "1")
	for _, vip := range []string{vipAddress6, vipAddress4} {
		c1.Own(vip)
		answerLines(t, c1, net.JoinHostPort(vip, "443"))
	}
	gateway := h.gateway.node
	gateway.Sysctl("net.ipv4.ip_forward", "1")
	gateway.Sysctl("net.ipv6.conf.all.forwarding", "1")
	h.refuse("add")
	h.await()
	for _, n := range []*netlab.Node{h.agents[0].node, h.agents[1].node, c1} {
		for _, vip := range []string{"[" + vipAddress6 + "]", vipAddress4} {
			n.Echo(netip.MustParseAddrPort(vip + ":53"))
			serveBulk(t, n, vip+":80")
		}
	}
	h.lab.Eventually("the dead gateway is left out", func() bool {
		h.knock(30)
		for _, a := range h.agents {
			if !strings.Contains(a.Log(), `msg="answers go by other gateways" gateways=[2001:db8:5e:1::/64] of=2`) ||
				!strings.Contains(get(a, "/metrics"), "\nrazor_agent_reply_gateways 1\n") {
				return false
			}
		}
		return true
	})
	h.begin(30, "c1", "web1", "web2")
	for _, vip := range []string{"[" + vipAddress6 + "]", vipAddress4} {
		f := h.client.Flows("udp", netip.MustParseAddrPort(vip+":53"), 30)
		if len(f.Failed) > 0 || f.To["web1"] == 0 || f.To["web2"] == 0 || f.To["c1"] == 0 {
			t.Errorf("UDP to %s: %v, %v", vip, f.To, f.Failed)
		}
		for range 8 {
			if n, err := h.download(vip + ":80"); n != bulk || err != nil {
				t.Errorf("from %s: %d bytes, %v", vip, n, err)
			}
		}
	}
	for _, reason := range []string{"relay", "congested", "malformed", "too_big"} {
		if n := h.balanced(reason); n != "0" {
			t.Errorf("%s packets were %s", n, reason)
		}
	}
	for _, a := range h.agents {
		got := get(a, "/metrics")
		for _, want := range []string{`{reason="dropped_too_big"} 0`, `{reason="dropped_room"} 0`} {
			if !strings.Contains(got, "razor_agent_reply_packets_total"+want+"\n") {
				t.Errorf("%s: no %s in %s", a.node.Name, want, got)
			}
		}
	}

	h.agents[0].Kill()
	h.goOn("an agent was killed")
	h.begin(30, "c1", "web1", "web2")
	h.agents[0].start()
	h.ready(h.agents[0], 2)
	h.goOn("the agent runs again")

	h.refuse("del")
	for i, a := range h.agents {
		text, err := os.ReadFile(a.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.config, []byte(strings.Replace(string(text), "return: gateway", "return: direct", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		was := strings.Count(a.Log(), `msg="endpoint attached"`)
		a.Signal(syscall.SIGHUP)
		h.lab.Eventually("the agent starts again", func() bool { return strings.Count(a.Log(), `msg="endpoint attached"`) > was })
		h.ready(a, i+2)
	}
	h.goOn("answers go straight to clients")
	before := h.balanced("returned")
	h.begin(30, "c1", "web1", "web2")
	if after := h.balanced("returned"); before == "0" || after != before {
		t.Errorf("%s packets were returned, then %s", before, after)
	}
	h.stop()
}

// knock sends datagrams that nobody waits for the answers of.
func (h *hosts) knock(n int) {
	h.t.Helper()
	for range n {
		c, err := h.client.Dial(h.t.Context(), "udp", "["+vipAddress6+"]:53")
		if err != nil {
			h.t.Fatal(err)
		}
		_, _ = io.WriteString(c, "who\n")
		_ = c.Close()
	}
}

// download is how much a server says.
func (h *hosts) download(from string) (int64, error) {
	c, err := h.client.Dial(h.t.Context(), "tcp", from)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func(c net.Conn) { _ = c.Close() }(c)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return io.Copy(io.Discard, c)
}
