package netlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program that runs on a node until the test ends. What it wrote is
// shown when the test has failed.
type Process struct {
	PID   int
	Ended <-chan struct{} // closed when the process is no more

	tb      T
	cmd     *exec.Cmd
	logName string
}

// Start runs a program on the node.
func (n *Node) Start(name string, args ...string) *Process {
	n.lab.tb.Helper()
	return n.start(filepath.Base(name), name, args...)
}

// start is Start with the name of the log, to which it appends.
func (n *Node) start(as, name string, args ...string) *Process {
	tb := n.lab.tb
	tb.Helper()
	p := &Process{tb: tb, cmd: n.Command(name, args...), logName: filepath.Join(n.Dir, as+".log")}
	log, err := os.OpenFile(p.logName, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // not ended by a Control-C
	tb.Log(quoted(p.cmd.Args))
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = p.cmd.Wait()
	}()
	p.PID, p.Ended = p.cmd.Process.Pid, ended
	tb.Cleanup(func() {
		p.Terminate()
		if tb.Failed() {
			tb.Logf("%s on %s:\n%s", as, n.Name, p.Log())
		}
	})
	return p
}

// Terminate ends the process as an operator does (SIGTERM), and after ten seconds by
// force.
func (p *Process) Terminate() {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	select {
	case <-p.Ended:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Kill ends the process at once (SIGKILL).
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.Ended
}

// Stop halts the process (SIGSTOP): its connections stay, nothing is answered.
func (p *Process) Stop() { p.signal(syscall.SIGSTOP) }

// Continue ends Stop.
func (p *Process) Continue() { p.signal(syscall.SIGCONT) }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) { p.signal(s) }

func (p *Process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Log is what the process wrote until now, with what ran before under its name.
func (p *Process) Log() string {
	text, _ := os.ReadFile(p.logName)
	return string(text)
}

// Alive says whether the process runs, or is stopped.
func (p *Process) Alive() bool {
	select {
	case <-p.Ended:
		return false
	default:
		return true
	}
}
