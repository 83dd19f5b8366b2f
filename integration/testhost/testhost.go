// Package testhost gives a test what needs root: a host of its own, and a BPF file
// system of its own. Both end with the test.
package testhost

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// NeedsRoot skips a test that is not run by root, unless RAZOR_TEST_REQUIRE is set.
func NeedsRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
		tb.Fatal("required here: root, for network namespaces and BPF")
	}
	tb.Skip("needs root, for network namespaces and BPF")
}

// Enter makes the test's thread a host of its own: a network namespace without
// interfaces, lo aside. What is to happen on that host is done by the test's own
// goroutine.
func Enter(t *testing.T) {
	t.Helper()
	NeedsRoot(t)
	runtime.LockOSThread() // and the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
}

// BPFFS is a directory, not made yet, on a BPF file system of the test's own.
func BPFFS(tb testing.TB) string {
	tb.Helper()
	NeedsRoot(tb)
	dir := tb.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		// A process that was started meanwhile may look at its copy of the mount for a
		// moment longer.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			tb.Error(err)
		}
	})
	return filepath.Join(dir, "razor")
}
