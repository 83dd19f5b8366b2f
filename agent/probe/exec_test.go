package probe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shell(script string, args ...string) []string {
	return append([]string{"/bin/sh", "-c", script, "probe"}, args...)
}

func TestExec(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("not a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		command []string
		runsOut bool
		want    string
	}{
		{"up", []string{"/bin/true"}, false, ""},
		{"down, and silent", []string{"/bin/false"}, false, "exit 1"},
		{"arguments", shell(`[ "$1" = "a b" ] && [ $# = 2 ]`, "a b", "$HOME"), false, ""},
		{"the first line", shell("echo; echo ' disk full '; echo more; exit 2"), false, "exit 2: disk full"},
		{"of stderr as well", shell("echo oops >&2; exit 3"), false, "exit 3: oops"},
		{"what it says when it is up does not matter", shell("echo all bad"), false, ""},
		{"no input, and nothing of our environment", shell(`! read x && [ -z "$HOME$USER$NOTIFY_SOCKET" ] && [ "$PWD" = / ] && [ -n "$PATH" ]`), false, ""},
		{"killed by itself", shell("kill -9 $$"), false, "signal: killed"},
		{"not there", []string{"/nonexistent/program"}, false, "start: no such file or directory"},
		{"not a program", []string{plain}, false, "start: permission denied"},
		{"too slow", shell("echo working; exec sleep 1000"), true, "timed out: working"},
		{"deaf", shell(`trap "" TERM INT HUP; echo no; while :; do sleep 1000; done`), true, "timed out: no"},
		{"writes for ever", shell("while :; do echo x; done"), false, "wrote more than 64 KiB: x"},
		{"writes one line for ever", shell("exec cat /dev/zero"), false, "wrote more than 64 KiB: " + strings.Repeat("\x00", maxReason+1)},
		{"writes for ever, whoever listens", shell(`trap "" PIPE; while :; do echo x; done 2>/dev/null`), true, "wrote more than 64 KiB: x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := Config{Kind: kindExec, Command: tt.command}
			if tt.runsOut {
				runsOut(t, cfg, tt.want)
				return
			}
			if got := measured(t, cfg); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// TestExecGroup: whatever a program starts ends with it, and what holds its output
// does not hold the probe.
func TestExecGroup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, script, want string
	}{
		{"at the timeout", `trap "" TERM; (trap "" TERM; sleep 1000) & echo $! >"$1"; echo begun; wait`, "timed out: begun"},
		{"left behind with the output", `sleep 1000 & echo $! >"$1"`, ""},
		{"left behind without", `sleep 1000 >/dev/null 2>&1 & echo $! >"$1"; exit 4`, "exit 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			cfg := Config{Kind: kindExec, Command: shell(tt.script, file)}
			runsOut(t, cfg, tt.want)
			pid, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the child has ended", func() bool { return ended(strings.TrimSpace(string(pid))) })
		})
	}
}

// ended tells whether a process is no more, or waits to be reaped by its parent.
func ended(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}
