package netlab

import (
	"encoding/json"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FRR is a router of FRRouting, without watchfrr: what is killed stays so.
type FRR struct {
	node    *Node
	dir     string
	daemons []string
	running map[string]*Process
}

// StartFRR runs FRR on the node, with the daemons that the configuration needs: its
// text, or the name of its file. It returns when they answer and have taken it; a
// line that FRR does not know fails the test.
func (n *Node) StartFRR(conf string) *FRR {
	tb := n.lab.tb
	tb.Helper()
	program(tb, "vtysh", "frr")
	f := &FRR{node: n, dir: filepath.Join(n.Dir, "frr"), running: map[string]*Process{}}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	f.giveAway()
	f.write("vtysh.conf", "\n") // vtysh complains without
	f.write("frr.conf", conf)
	text, err := os.ReadFile(f.file("frr.conf"))
	if err != nil {
		tb.Fatal(err)
	}
	f.daemons = needed(string(text))
	f.Restart()
	return f
}

// giveAway makes the folder that of FRR's user, which the daemons change to.
func (f *FRR) giveAway() {
	f.node.lab.tb.Helper()
	u, err := user.Lookup("frr")
	if err != nil {
		f.node.lab.tb.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(f.dir, uid, gid); err != nil {
		f.node.lab.tb.Fatal(err)
	}
}

// needed are the daemons of a configuration, in the order of their start.
func needed(conf string) []string {
	daemons := []string{"zebra"}
	for _, d := range []struct{ daemon, line string }{
		{"staticd", "ip route "},
		{"staticd", "ipv6 route "},
		{"bgpd", "router bgp "},
		{"bfdd", "bfd"},
	} {
		has := func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), d.line) }
		if d.daemon == "bfdd" { // neighbor … bfd
			has = func(line string) bool { return slices.Contains(strings.Fields(line), d.line) }
		}
		if slices.ContainsFunc(strings.Split(conf, "\n"), has) && !slices.Contains(daemons, d.daemon) {
			daemons = append(daemons, d.daemon)
		}
	}
	return daemons
}

// Restart runs the daemons again that do not run, and has them take the
// configuration.
func (f *FRR) Restart() {
	f.node.lab.tb.Helper()
	var started []string
	for _, d := range f.daemons {
		if p := f.running[d]; p == nil || !p.Alive() {
			f.start(d)
			started = append(started, d)
		}
	}
	if len(started) == len(f.daemons) {
		f.load()
		return
	}
	for _, d := range started {
		f.load("-d", d)
	}
}

func (f *FRR) start(daemon string) {
	tb := f.node.lab.tb
	tb.Helper()
	args := []string{
		"-f", "/dev/null", "-i", f.file(daemon + ".pid"), "-z", f.file("zserv.api"),
		"--vty_socket", f.dir, "-P", "0", "--log", "stdout",
	}
	switch daemon {
	case "bfdd":
		args = append(args, "--bfdctl", f.file("bfdd.sock"))
	case "zebra": // else an IPv6 route is deleted, and added again, at each change
		args = append(args, "--v6-rr-semantics")
	}
	p := f.node.start(daemon, program(tb, daemon, "frr"), args...)
	f.running[daemon] = p
	f.node.lab.wait(daemon+" to answer", func() bool {
		if !p.Alive() {
			tb.Fatalf("%s ended at its start\n%s", daemon, p.Log())
		}
		return f.vtysh("-d", daemon, "-c", "show version").Run() == nil
	}, p.Log)
}

// load has daemons take the configuration, as at the boot of a router.
func (f *FRR) load(args ...string) {
	f.node.lab.tb.Helper()
	if said := f.node.lab.run(f.vtysh(append(args, "-b")...)); said != "" {
		f.node.lab.tb.Fatalf("frr does not like its configuration\n%s", said)
	}
}

// Vtysh runs a command as an operator types it, several separated by line feeds, and
// returns what FRR says. A command that it does not know fails the test.
func (f *FRR) Vtysh(command string) string {
	f.node.lab.tb.Helper()
	return f.node.lab.run(f.vtysh("-c", command))
}

// JSON is Vtysh for a command that ends in json.
func (f *FRR) JSON(command string, v any) {
	f.node.lab.tb.Helper()
	said := f.Vtysh(command)
	if err := json.Unmarshal([]byte(said), v); err != nil {
		f.node.lab.tb.Fatalf("%s: %v\n%s", command, err, said)
	}
}

func (f *FRR) vtysh(args ...string) *exec.Cmd {
	return exec.Command("vtysh", append([]string{"--vty_socket", f.dir, "--config_dir", f.dir}, args...)...)
}

// Kill ends daemons at once (SIGKILL), all of them where none is named.
func (f *FRR) Kill(daemons ...string) { f.each(daemons, (*Process).Kill) }

// Terminate ends daemons as an operator does (SIGTERM).
func (f *FRR) Terminate(daemons ...string) { f.each(daemons, (*Process).Terminate) }

// Stop halts daemons (SIGSTOP): connections stay, nothing is answered.
func (f *FRR) Stop(daemons ...string) { f.each(daemons, (*Process).Stop) }

// Continue ends Stop.
func (f *FRR) Continue(daemons ...string) { f.each(daemons, (*Process).Continue) }

func (f *FRR) each(daemons []string, do func(*Process)) {
	if len(daemons) == 0 {
		daemons = f.daemons
	}
	for _, d := range slices.Backward(daemons) {
		do(f.running[d])
	}
}

// Log is what a daemon wrote.
func (f *FRR) Log(daemon string) string { return f.running[daemon].Log() }

func (f *FRR) file(name string) string { return filepath.Join(f.dir, name) }

func (f *FRR) write(name, text string) {
	f.node.lab.tb.Helper()
	f.node.lab.write(f.file(name), text)
}
