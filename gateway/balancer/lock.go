package balancer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning is that another process has the pins.
var ErrRunning = errors.New("another gateway runs with these pins")

// lockName is the directory among the pins that whoever has them locks: that of the pins
// itself is locked by whoever changes the programs of an interface.
const lockName = "balancer-lock"

// lockPatience is for how long a lock may outlive a process that was killed: what it started
// a program from has a copy of it until that runs.
const lockPatience = 100 * time.Millisecond

// lock gives the pins to this process, for as long as the file is open.
func lock(pins string) (*os.File, error) {
	dir := filepath.Join(pins, lockName)
	for end := time.Now().Add(lockPatience); ; {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if s.Type != unix.BPF_FS_MAGIC {
			return nil, fmt.Errorf("%s is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", pins)
		}
		d, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil && is(d, dir) {
			return d, nil
		}
		_ = d.Close()
		switch {
		case errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end):
			time.Sleep(lockPatience / 20)
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("%w (%s)", ErrRunning, pins)
		case err != nil:
			return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
		}
		// Else who had it before has removed it meanwhile.
	}
}

// is tells whether a file that is open still has that name.
func is(f *os.File, name string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(name)
	return err == nil && os.SameFile(open, named)
}

// unlock ends a lock, also where a program that is being started has a copy of it.
func unlock(d *os.File) error {
	return errors.Join(unix.Flock(int(d.Fd()), unix.LOCK_UN), d.Close())
}
