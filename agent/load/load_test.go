package load

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/agent/probe"
	"github.com/razor-steering/razor/integration/testhost"
	"github.com/razor-steering/razor/steering"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

// Established connections of the VIPs count, of both families and whatever the socket of
// the listener is; others, and those that ended, do not.
func TestConnections(t *testing.T) {
	t.Parallel()
	testhost.Enter(t)
	for _, line := range []string{ // the route of an address of IPv6 would come a moment later
		"ip link set lo up", "ip addr add 192.0.2.80/32 dev lo", "ip addr add 2001:db8::80/128 dev lo nodad", "ip addr add 2001:db8::81/128 dev lo nodad",
		"ip -6 route replace local 2001:db8::80 dev lo", "ip -6 route replace local 2001:db8::81 dev lo",
	} {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	vips := []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}
	c := newConnections(vips, func(f func() error) error { return f() })
	counted := func() float64 {
		n, err := c.measure(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := counted(); n != 0 {
		t.Errorf("%v before the first", n)
	}
	var open []net.Conn
	for _, at := range []string{"[::]:80", "192.0.2.80:81", "[2001:db8::80]:81", "[2001:db8::81]:82", "127.0.0.1:83"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	for i, to := range []string{"192.0.2.80:80", "[2001:db8::80]:80", "192.0.2.80:81", "[2001:db8::80]:81", "[2001:db8::81]:82", "127.0.0.1:83"} {
		conn, err := (&net.Dialer{LocalAddr: from(to)}).DialContext(t.Context(), "tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		open = append(open, conn)
		want := float64(min(i+1, 4))
		eventually(t, fmt.Sprintf("%v connections with %s, but %v", want, to, counted()), func() bool { return counted() == want })
	}
	_ = open[0].Close()
	eventually(t, "3 connections", func() bool { return counted() == 3 })
}

// from is another address of the host than the VIPs: the client's end counts as well.
func from(to string) net.Addr {
	if strings.HasPrefix(to, "[") {
		return &net.TCPAddr{IP: net.IPv6loopback}
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
}

// spin keeps a CPU busy until the test ends.
func spin(t *testing.T) *os.Process {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process
}

func TestBusy(t *testing.T) {
	t.Parallel()
	b, n := new(busy), float64(cpus())
	if _, err := b.measure(t.Context()); err != nil { // since the start
		t.Fatal(err)
	}
	spin(t)
	eventually(t, "a busy CPU", func() bool {
		time.Sleep(100 * time.Millisecond)
		got, err := b.measure(t.Context())
		if err != nil || got < 0 || got > n {
			t.Fatalf("%v of %v, %v", got, n, err)
		}
		return got > 0.5
	})
}

// A group is as busy as what runs in it.
func TestGroup(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	idle, one := filepath.Join(dir, "razor-idle"), filepath.Join(dir, "razor-one")
	for _, d := range []string{idle, one} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eventually(t, "an empty group", func() bool { return os.Remove(d) == nil }) })
	}
	process := spin(t)
	if err := os.WriteFile(filepath.Join(one, "cgroup.procs"), fmt.Append(nil, process.Pid), 0); err != nil {
		t.Fatal(err)
	}
	quiet, g := newGroup(idle), newGroup(one)
	if _, err := g.measure(t.Context()); err != errNoTime { //nolint:errorlint // never wrapped
		t.Error("the first: ", err)
	}
	_, _ = quiet.measure(t.Context())
	eventually(t, "a busy group", func() bool {
		time.Sleep(100 * time.Millisecond)
		if got, err := quiet.measure(t.Context()); got != 0 || err != nil {
			t.Fatalf("idle: %v, %v", got, err)
		}
		got, err := g.measure(t.Context())
		if err != nil || got > 1.1 { // it has one process
			t.Fatalf("%v, %v", got, err)
		}
		return got > 0.2
	})
	if _, err := newGroup(filepath.Join(dir, "razor-none")).measure(t.Context()); !os.IsNotExist(err) {
		t.Error("none: ", err)
	}
}

// The average is the kernel's.
func TestAverage(t *testing.T) {
	t.Parallel()
	eventually(t, "the kernel's load average", func() bool {
		var info unix.Sysinfo_t
		if err := unix.Sysinfo(&info); err != nil {
			t.Fatal(err)
		}
		got, err := average(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		diff := got - float64(info.Loads[0])/65536
		return diff > -0.02 && diff < 0.02
	})
}

// A monitor tells of levels as a program's figure changes, also of one that is gone.
func TestMonitor(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "load")
	say := func(figure string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(figure), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	say("10")
	c := Config{Measure: Probe, Capacity: 100, Interval: shortest, Probe: probe.GaugeConfig{Kind: "exec", Timeout: 30 * time.Second, Command: []string{"/bin/cat", file}}}
	c.Defaults()
	if wrong := c.Check("load"); len(wrong) > 0 {
		t.Fatal(wrong)
	}
	m := New(c, steering.LevelNormal, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan steering.Leveled, 10), make(chan struct{})
	go func() { defer close(done); m.Run(ctx, func(now steering.Leveled) { changes <- now }) }()
	defer func() { cancel(); <-done }()
	eventually(t, "a load of 0.1", func() bool { return m.Leveled().Load > 0 && len(changes) == 0 })
	for _, step := range []struct {
		figure, reason string
		want           steering.Level
	}{
		{"900", "critical from 0.95", steering.LevelCritical},
		{"10", "below 0.7", steering.LevelNormal},
		{"many", `"many" is no figure`, steering.LevelWarning},
		{"10", "below 0.7", steering.LevelNormal},
	} {
		say(step.figure)
		for {
			now := <-changes
			if now.Level == step.want {
				if !strings.Contains(now.Reason, step.reason) {
					t.Errorf("%s: %q", step.figure, now.Reason)
				}
				break
			}
		}
	}
	if m.Failures() == 0 {
		t.Error("no measurement failed")
	}
}

// What cannot be measured, by the keys of what is wrong.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		c    Config
		keys string
	}{
		{Config{Measure: Connections, Capacity: 20000}, ""},
		{Config{Measure: CPU}, ""},
		{Config{Measure: CPU, Cgroup: "/sys/fs/cgroup/web", Capacity: 0.5}, ""},
		{Config{Measure: Average}, ""},
		{Config{Measure: Probe, Capacity: 1, Probe: probe.GaugeConfig{Kind: "exec", Command: []string{"/bin/true"}}}, ""},
		{Config{}, "load.measure"},
		{Config{Measure: "memory"}, "load.measure"},
		{Config{Measure: Connections}, "load.capacity"},
		{Config{Measure: Connections, Capacity: -1}, "load.capacity"},
		{Config{Measure: Probe, Capacity: 1}, "load.probe.kind"},
		{Config{Measure: CPU, Warning: 0.05}, "load.warning"},
		{Config{Measure: CPU, Warning: 0.9, Critical: 0.8}, "load.critical"},
		{Config{Measure: CPU, Interval: time.Millisecond}, "load.interval"},
		{Config{Measure: CPU, Interval: time.Hour}, "load.interval"},
		{Config{Measure: CPU, Cgroup: "web"}, "load.cgroup"},
		{Config{Measure: Average, Cgroup: "/web"}, "load.cgroup"},
		{Config{Measure: Average, Probe: probe.GaugeConfig{Kind: "exec"}}, "load.probe"},
	} {
		tt.c.Defaults()
		var keys []string
		for _, d := range tt.c.Check("load") {
			keys = append(keys, d.Key)
		}
		if got := strings.Join(keys, " "); got != tt.keys {
			t.Errorf("%+v: %q, want %q", tt.c, got, tt.keys)
		}
	}
}
