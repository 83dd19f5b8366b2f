package integration

import (
	"cmp"
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

// razorFile is removed when the tests end.
var razorFile = filepath.Join(os.TempDir(), fmt.Sprintf("razor-under-test-%d", os.Getpid()))

// razorBinary is the program as users have it, built once, with the race detector
// where the tests have it.
var razorBinary = sync.OnceValues(func() (string, error) {
	args := []string{"build", "-o", razorFile}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "..")...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return razorFile, err
})

// announcer is a razor gateway, or another role, on a node of a lab.
type announcer struct {
	*netlab.Process

	tb     testing.TB
	node   *netlab.Node
	config string
	role   string // another than gateway
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
	text := "gateway:\n  state_dir: " + a.stateDir() + "\n" + indent(section) + "\nlog:\n  level: debug\n"
	if err := os.WriteFile(a.config, []byte(text), 0o644); err != nil {
		a.tb.Fatal(err)
	}
}

func (a *announcer) stateDir() string { return filepath.Join(a.node.Dir, "razor") }

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

func (a *announcer) start() {
	a.tb.Helper()
	razor, err := razorBinary()
	if err != nil {
		a.tb.Fatal(err)
	}
	p := a.node.Start(razor, cmp.Or(a.role, "gateway"), "--config", a.config)
	a.Process = p
	a.tb.Cleanup(func() {
		p.Kill() // a drain at the end of a test takes long and helps nobody
		for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(p.Log(), bad) {
				a.tb.Errorf("%s in the gateway on %s", bad, a.node.Name)
			}
		}
	})
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
	s, _ := gateway.StatusLive(a.tb.Context(), a.stateDir())
	return s
}

// awaitUp waits until so many peers are up.
func (a *announcer) awaitUp(peers int) {
	a.tb.Helper()
	a.until(fmt.Sprint(peers, " peers are up"), func(s gateway.Status) bool {
		up := 0
		for _, p := range s.Peers {
			if p.State == "established" {
				up++
			}
		}
		return up == peers
	})
}

// until waits until the gateway says so.
func (a *announcer) until(what string, ok func(gateway.Status) bool) {
	a.tb.Helper()
	var s gateway.Status
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if s = a.status(); ok(s) {
			return
		}
		if !a.Alive() {
			a.tb.Fatalf("waiting until %s: the gateway has ended", what)
		}
	}
	a.tb.Fatalf("waiting until %s: timed out; %+v", what, s)
}
