// Package browser runs a headless Chromium for tests, and looks at pages as a person with
// a phone or a screen does. It speaks the DevTools protocol over a pipe.
package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds a command, which takes milliseconds on an idle machine.
const patience = time.Minute

// Browser is a Chromium that runs until the test ends.
type Browser struct {
	tb  testing.TB
	out *os.File // commands to it

	mu      sync.Mutex
	last    int
	waiting map[int]chan message // commands without an answer, by their number
	pages   map[string]*Page     // by session
	ended   error                // why there are no more answers
}

// message is a command, an answer or an event of the protocol.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start runs one. command makes it a process: exec.Command, or that of a node of a lab.
// The test is skipped without Chromium, unless RAZOR_TEST_REQUIRE is set.
func Start(tb testing.TB, command func(name string, args ...string) *exec.Cmd) *Browser {
	tb.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			tb.Fatal("required here: ", err)
		}
		tb.Skip("needs chromium (Debian: chromium)")
	}
	dir := tb.TempDir()
	log, err := os.Create(filepath.Join(dir, "chromium.log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	cmd := command(program,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-breakpad", "--mute-audio",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	theirs, out, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	in, its, err := os.Pipe()
	if err != nil {
		tb.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs, its} // 3 and 4, as the protocol has it
	b := &Browser{tb: tb, out: out, waiting: map[int]chan message{}, pages: map[string]*Page{}}
	err = cmd.Start()
	_, _ = theirs.Close(), its.Close()
	if err != nil {
		tb.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(in)
	}()
	tb.Cleanup(func() {
		if b.ask("", "Browser.close", nil, nil) != nil { // which leaves nobody who writes files
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		_ = cmd.Wait()
		<-read
		_, _ = in.Close(), out.Close()
		if tb.Failed() {
			said, _ := os.ReadFile(log.Name())
			tb.Logf("chromium:\n%s", said)
		}
	})
	return b
}

// read hands on what the browser says until it ends.
func (b *Browser) read(from io.Reader) {
	for in := bufio.NewReader(from); ; {
		text, err := in.ReadBytes(0)
		if err != nil {
			b.end(err)
			return
		}
		var m struct {
			message

			Params json.RawMessage `json:"params"`
		}
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			b.end(err)
			return
		}
		b.mu.Lock()
		waiting, page := b.waiting[m.ID], b.pages[m.Session]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		switch {
		case waiting != nil:
			waiting <- m.message
		case page != nil && m.Method != "":
			page.note(m.Method, m.Params)
		}
	}
}

// end has nobody wait any more.
func (b *Browser) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = fmt.Errorf("chromium has ended: %w", err)
	for id, w := range b.waiting {
		delete(b.waiting, id)
		close(w)
	}
}

// call has the browser, or a page of it, do something. result may be nil.
func (b *Browser) call(session, method string, params map[string]any, result any) {
	b.tb.Helper()
	if err := b.ask(session, method, params, result); err != nil {
		b.tb.Fatalf("%s: %v", method, err)
	}
}

func (b *Browser) ask(session, method string, params map[string]any, result any) error {
	b.mu.Lock()
	if b.ended != nil {
		defer b.mu.Unlock()
		return b.ended
	}
	b.last++
	id, answer := b.last, make(chan message, 1)
	b.waiting[id] = answer
	b.mu.Unlock()
	text, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: params})
	if err != nil {
		return err
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return b.ended
		case m.Error != nil:
			return errors.New(m.Error.Message)
		case result != nil:
			return json.Unmarshal(m.Result, result)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("no answer after %v", patience)
	}
}
