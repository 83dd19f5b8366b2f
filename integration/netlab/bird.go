package netlab

import (
	"os/exec"
	"path/filepath"
	"strings"
)

// BIRD is a router of the BIRD project, version 2. It can be killed, stopped and
// continued as a process.
type BIRD struct {
	*Process

	node *Node
}

// StartBIRD runs BIRD on the node, with the text of a configuration or the name of
// its file. It returns when BIRD answers.
func (n *Node) StartBIRD(conf string) *BIRD {
	n.lab.tb.Helper()
	b := &BIRD{node: n}
	n.lab.write(b.file("bird.conf"), conf)
	b.Restart()
	return b
}

// Restart runs BIRD again where it does not run, as a restart that is graceful to its
// peers where the configuration says so.
func (b *BIRD) Restart() {
	tb := b.node.lab.tb
	tb.Helper()
	if b.Process != nil && b.Alive() {
		return
	}
	args := []string{"-d", "-c", b.file("bird.conf"), "-s", b.file("bird.ctl")}
	if b.Process != nil {
		args = append(args, "-R")
	}
	b.Process = b.node.start("bird", program(tb, "bird", "bird2"), args...)
	b.node.lab.wait("bird to answer", func() bool {
		if !b.Alive() {
			tb.Fatalf("bird ended at its start\n%s", b.Log())
		}
		out, err := b.birdc("show status").Output()
		return err == nil && strings.Contains(string(out), "Daemon is up and running")
	}, b.Log)
}

// Birdc runs a command as an operator types it, and returns what BIRD says. A
// command that it does not know fails the test.
func (b *BIRD) Birdc(command string) string {
	b.node.lab.tb.Helper()
	said := b.node.lab.run(b.birdc(command))
	if strings.Contains(said, "syntax error") {
		b.node.lab.tb.Fatalf("%s: %s", command, said)
	}
	return said
}

func (b *BIRD) birdc(command string) *exec.Cmd {
	birdc := program(b.node.lab.tb, "birdc", "bird2")
	return exec.Command(birdc, append([]string{"-s", b.file("bird.ctl")}, strings.Fields(command)...)...)
}

func (b *BIRD) file(name string) string { return filepath.Join(b.node.Dir, name) }
