package segment

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A lock ends when it is given back, also while a program is started, which has a copy of
// the file then.
func TestUnlockWithACopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d, err := locked(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := locked(dir); !errors.Is(err, ErrRunning) {
		t.Errorf("locked twice: %v", err)
	}
	held, err := unix.FcntlInt(d.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(held) })
	if err := unlock(d); err != nil {
		t.Fatal(err)
	}
	if d, err = locked(dir); err != nil {
		t.Fatal(err)
	}
	if err := unlock(d); err != nil {
		t.Error(err)
	}
}
