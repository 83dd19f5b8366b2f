package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/razor-steering/razor/gateway/balancer"
)

func TestMain(m *testing.M) {
	// The scripts run this binary as `razor`.
	testscript.Main(m, map[string]func(){"razor": main})
}

// TestScripts runs the stories in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// The systemd that may run the tests is none of their business.
			e.Setenv("NOTIFY_SOCKET", "")
			e.Setenv("WATCHDOG_USEC", "")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else a second for each process
			return nil
		},
		Condition: conditions,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"free-ports": freePorts, "hold-port": holdPort, "http": httpGet, "redis": redisDo, "redis-server": redisServer, "subst": subst,
		},
	})
}

// razorCmd runs one command line in this process.
func razorCmd(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = run(ctx, args, &out, &err)
	return status, out.String(), err.String()
}

func TestVersionInProcess(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := razorCmd(t.Context(), "version")
	if status != 0 || !strings.HasPrefix(stdout, "razor dev go1.") || stderr != "" {
		t.Errorf("version: status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

// TestEveryCommandHasHelp holds every row of the command table to a summary, a
// longer text and an example.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	c := &cli{}
	for _, cmd := range c.root().Commands() {
		for _, leaf := range append(cmd.Commands(), cmd) {
			if leaf.Short == "" || strings.HasSuffix(leaf.Short, ".") {
				t.Errorf("%s: summary %q", leaf.CommandPath(), leaf.Short)
			}
			if leaf.HasSubCommands() || leaf.Hidden || leaf.Name() == "version" {
				continue
			}
			if leaf.Long == "" || !strings.Contains(leaf.Example, leaf.CommandPath()) {
				t.Errorf("%s: no text or no example of its own", leaf.CommandPath())
			}
			for line := range strings.Lines(leaf.Long) {
				if len(line) > 81 {
					t.Errorf("%s: a line of %d columns", leaf.CommandPath(), len(line))
				}
			}
		}
	}
}

// TestTraceHelp holds the help to the words that there are.
func TestTraceHelp(t *testing.T) {
	t.Parallel()
	words := strings.FieldsFunc(traceLong, func(r rune) bool { return strings.ContainsRune(" \n,.:;", r) })
	for _, word := range append(balancer.TraceReasons(), balancer.TraceDropped) {
		if !slices.Contains(words, word) {
			t.Errorf("help: no %s", word)
		}
	}
}

// TestSIGTERM ends the server as systemd does.
func TestSIGTERM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	addrs, err := freeAddrs(3)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "razor.yaml")
	text := fmt.Sprintf("dns: {listen: [\"%v\"], state_dir: %q}\nredis: {address: \"%v\"}\nhttp: {listen: \"%v\"}\n", addrs[0], dir, addrs[1], addrs[2])
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "razor", "dns", "--config", file) // the test binary, see TestMain
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if status, _, _ := get("http://" + addrs[2].String() + "/healthz"); status == 200 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}
