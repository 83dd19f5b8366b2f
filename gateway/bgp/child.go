package bgp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	setupTimeout = 10 * time.Second // for a speaker to listen, on a machine that is busy
	tailLines    = 40               // of what a speaker said are kept
)

// A child is a speaker process as its parent sees it.
type child struct {
	cmd    *exec.Cmd
	in     *os.File // changes to it
	lines  *json.Encoder
	conn   net.Conn // BGP with it
	said   tail
	routes []Route // of the setup

	exited  chan struct{} // closed when the process is gone
	mu      sync.Mutex
	stopped bool // by us
}

// startChild starts a speaker and connects to it. It ends when stop is called.
func startChild(ctx context.Context, command []string, s setup) (*child, error) {
	s.Peer, s.Key = randomLoopback(), rand.Text()
	in, out, err := pipes()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(command[0], command[1:]...), in: in.write, routes: s.Routes, exited: make(chan struct{})}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = in.read, out.write, &c.said
	// MPTCP, in which Go listens since 1.24, has no TCP MD5.
	c.cmd.Env = append(os.Environ(), "GODEBUG=multipathtcp=0")
	c.cmd.WaitDelay = time.Second
	c.lines = json.NewEncoder(c.in)
	err = c.cmd.Start()
	_, _ = in.read.Close(), out.write.Close()
	defer out.read.Close()
	if err != nil {
		_ = c.in.Close()
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.exited)
	}()
	defer context.AfterFunc(ctx, c.kill)()
	if err := c.connect(ctx, s, out.read); err != nil {
		c.stop()
		return nil, fmt.Errorf("%w%s", err, c.said.explain())
	}
	return c, nil
}

// connect sends the setup, and calls the speaker where it says that it listens.
func (c *child) connect(ctx context.Context, s setup, out *os.File) error {
	deadline := time.Now().Add(setupTimeout)
	_ = out.SetReadDeadline(deadline)
	if err := c.write(s); err != nil {
		return fmt.Errorf("speaker not set up: %w", err)
	}
	var l listening
	if err := json.NewDecoder(out).Decode(&l); err != nil {
		return fmt.Errorf("speaker did not begin: %w", err)
	}
	d := net.Dialer{
		Deadline: deadline, LocalAddr: &net.TCPAddr{IP: s.Peer.AsSlice()},
		Control: socket{peer: l.Address.Addr(), key: s.Key}.control,
	}
	var err error
	c.conn, err = d.DialContext(ctx, "tcp4", l.Address.String())
	return err
}

// change tells the speaker what else to announce and withdraw.
func (c *child) change(ch change) error { return c.write(ch) }

func (c *child) write(v any) error {
	_ = c.in.SetWriteDeadline(time.Now().Add(setupTimeout))
	return c.lines.Encode(v)
}

// stop ends the process, and returns when it is gone.
func (c *child) stop() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	_ = c.in.Close()
	c.kill()
	<-c.exited
}

// kill ends the process at once: it has nothing to tidy up.
func (c *child) kill() { _ = c.cmd.Process.Kill() }

// crash is what the speaker said at its end, where that was not our doing; false
// where it lives or was stopped.
func (c *child) crash() (string, bool) {
	select {
	case <-c.exited:
	case <-time.After(time.Second): // its connection ends before it does
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return "", false
	}
	return c.cmd.ProcessState.String() + c.said.explain(), true
}

// A tail keeps the last lines of a process.
type tail struct {
	mu    sync.Mutex
	lines []string
	part  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, b...)
	for {
		line, rest, ok := bytes.Cut(t.part, []byte("\n"))
		if !ok {
			break
		}
		// The first lines of a panic say the most.
		if len(t.lines) >= tailLines && isPanic(string(line)) {
			t.lines = nil
		}
		if len(t.lines) < tailLines {
			t.lines = append(t.lines, string(line))
		}
		t.part = rest
	}
	if len(t.part) > 4096 {
		t.part = nil
	}
	return len(b), nil
}

// explain is the line that says the most, behind a colon; "" without one.
func (t *tail) explain() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, line := range t.lines {
		if isPanic(line) {
			return ": " + line + t.where(i)
		}
	}
	if n := len(t.lines); n > 0 {
		return ": " + t.lines[n-1]
	}
	return ""
}

// isPanic tells whether a process of Go says in a line why it dies.
func isPanic(line string) bool {
	for _, first := range []string{"panic: ", "fatal error: ", "SIG"} {
		if strings.HasPrefix(line, first) {
			return true
		}
	}
	return false
}

// where is the function in which the panic of line i was.
func (t *tail) where(i int) string {
	for _, line := range t.lines[i+1:] {
		if strings.Contains(line, "gobgp") && strings.HasSuffix(line, ")") {
			return " in " + line
		}
	}
	return ""
}

// a pipe whose ends take deadlines.
type pipe struct{ read, write *os.File }

func pipes() (in, out pipe, err error) {
	if in.read, in.write, err = os.Pipe(); err != nil {
		return in, out, err
	}
	if out.read, out.write, err = os.Pipe(); err != nil {
		_, _ = in.read.Close(), in.write.Close()
	}
	return in, out, err
}

// randomLoopback is an address that hardly anyone else calls from.
func randomLoopback() netip.Addr {
	var b [3]byte
	_, _ = rand.Read(b[:])
	return netip.AddrFrom4([4]byte{127, 64 | b[0]>>1, b[1], 1 | b[2]>>1})
}

var errSilent = errors.New("silent")

// reader is buffered for whole messages.
func reader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 64<<10) }
