package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

const (
	// maxOutput bounds what a program may write; more breaks its pipe.
	maxOutput = 64 << 10 // octets
	// leaveTime is how long the end of the output is waited for when the program
	// has ended: what it left behind may hold the pipe open.
	leaveTime = 100 * time.Millisecond
)

// environment is all that a program inherits: the role's own may have secrets, and
// sockets of systemd.
var environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}

// execProbe runs a program, which says by exit 0 that the service is up. A process
// that leaves the process group (setsid) is out of reach.
type execProbe struct{ command []string }

func (p execProbe) measure(ctx context.Context) error {
	return p.run(ctx, new(output))
}

// line is the first one that the program writes.
func (p execProbe) line(ctx context.Context) (string, error) {
	var out output
	if err := p.run(ctx, &out); err != nil {
		return "", err
	}
	return firstLine(out.head), nil
}

func (p execProbe) run(ctx context.Context, out *output) error {
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = "/", environment, leaveTime
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %s", brief(err))
	}
	err := cmd.Wait()
	// What is left of the group must not pile up from one measurement to the next.
	// While something is, nobody else can have its number.
	_ = kill()
	return out.explain(ctx, err)
}

// output is what a program wrote: the beginning is kept.
type output struct {
	head []byte
	n    int // octets in all
}

var errTooMuch = fmt.Errorf("wrote more than %d KiB", maxOutput>>10)

// Write implements io.Writer. An error of it closes the pipe.
func (o *output) Write(p []byte) (int, error) {
	o.head = append(o.head, p[:min(len(p), maxReason+1-len(o.head))]...)
	if o.n += len(p); o.n > maxOutput {
		return 0, errTooMuch
	}
	return len(p), nil
}

// explain is the error of a program in words, with the first line that it wrote.
func (o *output) explain(ctx context.Context, err error) error {
	what := ""
	switch exit, ended := errors.AsType[*exec.ExitError](err); {
	case o.n > maxOutput:
		what = errTooMuch.Error()
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // exit 0, and others hold the output
		return nil
	case ctx.Err() != nil:
		what = brief(ctx.Err())
	case ended && exit.Exited():
		what = fmt.Sprintf("exit %d", exit.ExitCode())
	default:
		what = brief(err) // "signal: killed"
	}
	if text := firstLine(o.head); text != "" {
		what += ": " + text
	}
	return errors.New(what)
}
