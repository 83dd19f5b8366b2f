// Package netlab builds networks for tests out of namespaces: nodes, links, routers
// of others (FRR, BIRD), faults and traffic. Every lab is private, and ends with
// the test whatever happens.
//
//	lab := netlab.New(t)
//	tor, gw := lab.Node("tor"), lab.Node("gw1")
//	link := lab.Link(tor, "swp1", gw, "eth0", "2001:db8:0:1::1/64")
//	frr := tor.StartFRR("deploy/routers/frr-tor.conf")
//
// Every command that changes something is logged as it can be typed.
package netlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// T is what a lab needs of who has it: every [testing.TB] does, and the program in
// integration/lab.
type T interface {
	Helper()
	Log(args ...any)
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
	Failed() bool
	Cleanup(f func())
	Context() context.Context
}

// Lab is a network of its own: no packet leaves it, and it has no way to the
// network of the machine. Its methods, and those of what is in it, are for the
// goroutine of the test where not said otherwise.
type Lab struct {
	Dir string // files of what runs in it; everybody may read them

	tb    T
	name  string // of the lab; its namespaces begin with it
	nodes []*Node
	links int
}

var (
	labs  atomic.Int64
	swept sync.Once
)

// New is an empty lab. The test is skipped without root or ip, unless
// RAZOR_TEST_REQUIRE is set.
func New(tb T) *Lab {
	tb.Helper()
	if os.Geteuid() != 0 {
		missing(tb, "root, for network namespaces")
	}
	program(tb, "ip", "iproute2")
	swept.Do(func() { sweep(tb) })
	l := &Lab{tb: tb, name: fmt.Sprintf("rz%d-%d", os.Getpid(), labs.Add(1))}
	// Not in the folder of the test, which only root may enter, and whose name is too
	// long for sockets.
	l.Dir = filepath.Join("/run", l.name)
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	l.endAfterwards()
	return l
}

// end removes the lab whose name is $1, with all processes in it, when its input ends.
const end = `
cat >/dev/null
for ns in /run/netns/"$1"-*; do
	[ -e "$ns" ] || continue
	ns=${ns##*/}
	kill -9 $(ip netns pids "$ns")
	ip netns del "$ns"
done
! mountpoint -q "/run/$1/bpf" || umount -l "/run/$1/bpf"
rm -rf "/run/$1"
`

// endAfterwards has the lab removed with the test, and with this process, should it
// die before: routers outlive that, as they change their user.
func (l *Lab) endAfterwards() {
	l.tb.Helper()
	cmd := ending(l.name)
	alive, err := cmd.StdinPipe()
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.tb.Fatal(err)
	}
	l.tb.Cleanup(func() {
		for _, n := range l.nodes {
			n.close()
		}
		_ = alive.Close()
		if err := cmd.Wait(); err != nil {
			l.tb.Errorf("removing the lab: %v", err)
		}
		if left, _ := filepath.Glob("/run/netns/" + l.name + "-*"); left != nil {
			l.tb.Errorf("namespaces are left: %v", left)
		}
	})
}

func ending(lab string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", end, "sh", lab)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // not ended by a Control-C
	return cmd
}

// BPFFS is a directory, not made yet, on a BPF file system of the lab's own.
func (l *Lab) BPFFS() string {
	l.tb.Helper()
	dir := filepath.Join(l.Dir, "bpf")
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.tb.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		l.tb.Fatalf("mount bpf at %s: %v", dir, err)
	}
	return filepath.Join(dir, "razor")
}

// sweep removes the labs of processes that are no more.
func sweep(tb T) {
	tb.Helper()
	if _, err := Sweep(); err != nil {
		tb.Log(err)
	}
}

// Sweep removes the labs of processes that are no more, and returns their names.
func Sweep() (removed []string, err error) {
	spaces, _ := filepath.Glob("/run/netns/rz*-*-*")
	dirs, _ := filepath.Glob("/run/rz*-*")
	labOf := regexp.MustCompile(`^(rz(\d+)-\d+)(-|$)`)
	for _, f := range append(spaces, dirs...) {
		m := labOf.FindStringSubmatch(filepath.Base(f))
		if m == nil || exists("/proc/"+m[2]) || !exists(f) {
			continue
		}
		if e := ending(m[1]).Run(); e != nil {
			err = errors.Join(err, fmt.Errorf("remove %s, which is left over: %w", m[1], e))
			continue
		}
		removed = append(removed, m[1])
	}
	return removed, err
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// program is the path of a program, also where the PATH lacks the folders of
// administrators. The test is skipped without it, unless RAZOR_TEST_REQUIRE is set.
func program(tb T, name, debian string) string {
	tb.Helper()
	if file, err := exec.LookPath(name); err == nil {
		return file
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/lib/frr", "/usr/libexec/frr"} {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return file
		}
	}
	missing(tb, name+" (Debian: "+debian+")")
	return ""
}

func missing(tb T, what string) {
	tb.Helper()
	if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
		tb.Fatal("required here: " + what)
	}
	tb.Skip("needs " + what)
}

// wait asks until it is so; said is what helps to find out why it is not.
func (l *Lab) wait(what string, ok func() bool, said func() string) {
	l.tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			l.tb.Fatalf("waiting for %s: timed out\n%s", what, said())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Eventually waits until it is so, and fails the test after a minute.
func (l *Lab) Eventually(what string, ok func() bool) {
	l.tb.Helper()
	l.wait(what, ok, func() string { return "" })
}

// write keeps a text, or the text of a file, as a file of the lab: what is one line
// is the name of a file.
func (l *Lab) write(file, text string) {
	l.tb.Helper()
	if !strings.Contains(text, "\n") {
		b, err := os.ReadFile(text)
		if err != nil {
			l.tb.Fatal(err)
		}
		text = string(b)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.tb.Fatal(err)
	}
}

func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if strings.ContainsAny(a, " \t\n\"'$;|&{}<>*") {
			out[i] = strconv.Quote(a)
		}
	}
	return strings.Join(out, " ")
}
