package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/netlab"
)

// razorBinary is the program as users have it, built once, with the race detector
// where the tests have it.
var razorBinary = sync.OnceValues(func() (string, error) {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("razor-under-test-%d", os.Getpid()))
	args := []string{"build", "-o", file}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "..")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return file, err
})

// announcer is a razor gateway on a node of a lab.
type announcer struct {
	*netlab.Process

	tb     testing.TB
	node   *netlab.Node
	config string
}

// startGateway runs a gateway on a node with what `gateway:` is to have.
func startGateway(tb testing.TB, node *netlab.Node, section string) *announcer {
	tb.Helper()
	a := &announcer{tb: tb, node: node, config: filepath.Join(node.Dir, "razor.yaml")}
	a.configure(section)
	a.start()
	return a
}

// configure writes the configuration.
func (a *announcer) configure(section string) {
	a.tb.Helper()
	text := "gateway:\n  state_dir: " + filepath.Join(a.node.Dir, "razor") + "\n" + indent(section) + "\nlog:\n  level: debug\n"
	if err := os.WriteFile(a.config, []byte(text), 0o644); err != nil {
		a.tb.Fatal(err)
	}
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func (a *announcer) start() {
	a.tb.Helper()
	razor, err := razorBinary()
	if err != nil {
		a.tb.Fatal(err)
	}
	a.Process = a.node.Start(razor, "gateway", "--config", a.config)
}

// razor runs a command of the operator on the node.
func (a *announcer) razor(args ...string) (string, error) {
	razor, _ := razorBinary()
	out, err := a.node.Command(razor, append(args, "--config", a.config)...).CombinedOutput()
	return string(out), err
}

// status is what the gateway says of itself; the zero Status while it does not
// answer.
func (a *announcer) status() gateway.Status {
	var s gateway.Status
	out, err := a.razor("status", "--json")
	if err == nil {
		_ = json.Unmarshal([]byte(out), &s)
	}
	return s
}

func (a *announcer) awaitUp(peers int) {
	a.tb.Helper()
	var s gateway.Status
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		s = a.status()
		up := 0
		for _, p := range s.Peers {
			if p.State == "established" {
				up++
			}
		}
		if up == peers {
			return
		}
	}
	a.tb.Fatalf("%d peers never came up: %+v", peers, s.Peers)
}

const torConf = `
router bgp 4200000000
 bgp router-id 10.255.0.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 1 3
 bgp graceful-restart preserve-fw-state
 neighbor NODES peer-group
 neighbor NODES remote-as external
 neighbor NODES capability extended-nexthop
 neighbor NODES advertisement-interval 0
 bgp listen range 2001:db8::/32 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
  maximum-paths 64
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
  maximum-paths 64
 exit-address-family
`

func TestGatewayTry(t *testing.T) {
	t.Parallel()
	lab := netlab.New(t)
	tor := lab.Node("tor")
	var gws []*announcer
	var nodes []*netlab.Node
	for i := 1; i <= 2; i++ {
		n := lab.Node(fmt.Sprint("g", i))
		lab.Link(tor, fmt.Sprint("swp", i), n, "eth0", fmt.Sprintf("2001:db8:%d::1/64", i))
		nodes = append(nodes, n)
	}

	frr := tor.StartFRR(torConf)
	for i := 1; i <= 2; i++ {
		gws = append(gws, startGateway(t, nodes[i-1], fmt.Sprintf(`
bgp:
  hold: 3s
  peers:
    - {name: tor, address: "2001:db8:%d::1"}
announce:
  - {set: vips, prefixes: [192.0.2.1, "2001:db8:ffff::1"], bind: true, communities: ["65000:1", "4200000000:1:2"]}
`, i)))
	}
	for _, g := range gws {
		g.awaitUp(1)
	}
	lab.Eventually("ecmp", func() bool {
		return len(tor.FIB().Devices("192.0.2.1/32")) == 2 && len(tor.FIB().Devices("2001:db8:ffff::1/128")) == 2
	})
	t.Log(frr.Vtysh("show bgp ipv4 unicast 192.0.2.1/32"))
	t.Log(gws[0].razor("status"))
	t.Log(gws[0].razor("drain", "gateway"))
	t.Log(tor.FIB())
	t.Log(gws[0].razor("status"))
	t.Log(gws[0].razor("undrain", "gateway"))
	gws[0].awaitUp(1)
	t.Log(gws[0].razor("restart", "gateway"))
	time.Sleep(time.Second)
	gws[0].awaitUp(1)
	t.Log(gws[0].razor("status"))
}
