package balancer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/razor-steering/razor/gateway/bpf/root"
)

// stepsPin begins the names of the pins that an interface with the balancer has; the rest
// is the interface.
const stepsPin = "steps-"

// joinedIn are the interfaces that pins tell of.
func joinedIn(pins string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(pins, "balancer-[0-9]*", stepsPin+"*"))
	var names []string
	for _, file := range files {
		names = append(names, root.DeviceName(strings.TrimPrefix(filepath.Base(file), stepsPin)))
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// leaveIn takes the balancer that pins tell of off an interface, which may be gone.
func leaveIn(pins, device string) error {
	err := root.LeavePinned(pins, device, root.Balancer)
	files, e := filepath.Glob(filepath.Join(pins, "balancer-[0-9]*", stepsPin+root.PinName(device)))
	err = errors.Join(err, e)
	for _, file := range files {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// pins is the directory of all pins, "" without.
func (b *Balancer) pins() string {
	if b.dir == "" {
		return ""
	}
	return filepath.Dir(b.dir)
}

// leave takes the balancer off an interface, which may be gone.
func (b *Balancer) leave(device string) error {
	err := leaveIn(b.pins(), device)
	if o := b.joined[device]; o != nil {
		err = errors.Join(err, o.Close())
		delete(b.joined, device)
	}
	return err
}

// LeaveOthers takes the balancer off the interfaces that an earlier process had put it on
// and that are not among these, and returns them.
func (b *Balancer) LeaveOthers(devices []string) (left []string, err error) {
	for _, name := range b.before {
		if !slices.Contains(devices, name) {
			left, err = append(left, name), errors.Join(err, b.leave(name))
		}
	}
	return left, err
}

// RemoveOthers removes the pins of balancers with other maps, of another number of
// services or another version, once this one is on all interfaces.
func (b *Balancer) RemoveOthers() error {
	if b.dir == "" {
		return nil
	}
	others, err := earlier(b.pins())
	for _, dir := range others {
		if dir != b.dir {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// Undo takes the balancer off those interfaces that no earlier process had put it on.
// On the others it goes on as it is. Without any its pins are removed.
func (b *Balancer) Undo(devices []string) error {
	if b.dir == "" {
		return nil
	}
	var err error
	for _, name := range devices {
		if !slices.Contains(b.before, name) {
			err = errors.Join(err, b.leave(name))
		}
	}
	if len(b.before) > 0 {
		return err
	}
	return errors.Join(err, removeIn(b.pins()))
}

// Remove takes the balancer off all interfaces, and its pins away.
func (b *Balancer) Remove() error {
	if b.dir == "" {
		return nil
	}
	return removeIn(b.pins())
}

// RemovePinned takes a balancer that pins tell of off all interfaces, and the pins away.
// The error is [ErrRunning] where a process has them. Without any there is nothing to do.
func RemovePinned(pins string) error {
	if _, err := os.Stat(pins); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := lock(pins)
	if err != nil {
		return err
	}
	return errors.Join(removeIn(pins), l.Close())
}

// removeIn removes all of a balancer that this process has locked.
func removeIn(pins string) error {
	devices, err := joinedIn(pins)
	for _, name := range devices {
		err = errors.Join(err, leaveIn(pins, name))
	}
	dirs, e := earlier(pins)
	err = errors.Join(err, e)
	for _, dir := range dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return errors.Join(err, os.RemoveAll(filepath.Join(pins, lockName)))
}
