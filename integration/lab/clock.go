package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// No namespace has a wall clock of its own. So where a topology has clocks, razor is built
// with another package time: what Now says is ahead of the kernel's clock by what a file of
// the host says, which is mapped, so that the clock of a process that runs can step. Nothing
// else of it is another, and timers are as monotonic as ever.

// clockVariable names that file in the environment.
const clockVariable = "RAZOR_LAB_CLOCK"

// Of package time, what is to stand there but once, and what takes its place.
const (
	nowAsIs   = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n"
	nowAsHere = "\tsec, nsec, mono := runtimeNow()\n\tsec, nsec = ofThisHost(sec, nsec)\n\tif mono == 0 {\n"
)

// clockSource is a further file of package time.
const clockSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// ahead is how many nanoseconds the clock of this host is ahead; nil is none.
var ahead = func() *int64 {
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(name + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&b[0]))
}()

func ofThisHost(sec int64, nsec int32) (int64, int32) {
	if ahead == nil {
		return sec, nsec
	}
	n := int64(nsec) + atomic.LoadInt64(ahead)
	sec, n = sec+n/1e9, n%1e9
	if n < 0 {
		sec, n = sec-1, n+1e9
	}
	return sec, int32(n)
}
`

// clocked builds a razor whose clock can be moved.
func clocked(ctx context.Context, out io.Writer) (string, error) {
	dir, err := os.MkdirTemp("", "razor-clock-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	overlay, err := overlayClock(ctx, dir)
	if err != nil {
		return "", fmt.Errorf("build razor with a clock: %w", err)
	}
	return buildRazor(ctx, out, "-overlay", overlay)
}

// overlayClock writes what go build is to take for package time, and returns the name of the
// file that says so.
func overlayClock(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	of := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(of, "time.go"))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), nowAsIs); n != 1 {
		return "", fmt.Errorf("%s has %d times, and not once: %q", filepath.Join(of, "time.go"), n, nowAsIs)
	}
	replace := map[string]string{}
	for name, source := range map[string]string{"time.go": strings.Replace(string(text), nowAsIs, nowAsHere, 1), "ofthishost.go": clockSource} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(of, name)] = file
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// runRazor starts razor on a host, with the clock of that host where it has one.
func (l *lab) runRazor(h *host, args ...string) {
	if !l.topology.Clocks {
		h.run(l.razor, args...)
		return
	}
	if _, err := os.Stat(h.file("clock")); err != nil {
		h.setClock(0)
	}
	h.run("env", append([]string{clockVariable + "=" + h.file("clock"), l.razor}, args...)...)
}

// setClock has the clock of a host be ahead by so much from now on.
func (h *host) setClock(ahead time.Duration) {
	f, err := os.OpenFile(h.file("clock"), os.O_WRONLY|os.O_CREATE, 0o600)
	must(err)
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(ahead)), 0)
	must(errors.Join(err, f.Close()))
	h.ahead = ahead
}

// mostAhead bounds how far clocks can be moved.
const mostAhead = 24 * time.Hour

// clock moves clocks of hosts.
func (l *lab) clock(args []string) {
	if len(args) < 2 {
		must(errors.New("want hosts, and how far their clocks are ahead, such as +5s"))
	}
	if !l.topology.Clocks {
		must(errors.New("hosts have no clocks of their own: the topology has no clocks: true"))
	}
	names, text := args[:len(args)-1], args[len(args)-1]
	ahead, err := time.ParseDuration(text)
	if err != nil || ahead.Abs() > mostAhead {
		must(fmt.Errorf("%q: want a time such as +5s or -5s, %v at most", text, mostAhead))
	}
	for _, name := range names {
		i := slices.IndexFunc(l.hosts(), func(h *host) bool { return h.name == name && h.role != roleConsul })
		if i < 0 {
			must(fmt.Errorf("no host %q that razor runs on", name))
		}
		l.hosts()[i].setClock(ahead)
	}
}
