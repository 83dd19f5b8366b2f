// Package root lets several XDP programs share an interface: a small root program,
// pinned with its slots, calls the first one that is there, and each calls the next
// one for what is not its own (gateway/bpf/include/slots.h).
//
// Whoever comes first installs it, the last one removes it. Processes may come and go
// in between: what is pinned goes on. It is a leaf that the gateway, the agent and
// the nameserver share.
package root

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 bpf ../root.c -- -g -O2 -Wall -Wextra -Werror -mcpu=v3 -I/usr/include/x86_64-linux-gnu

// DefaultPins is where roots are pinned unless somebody says otherwise.
const DefaultPins = "/sys/fs/bpf/razor"

// Slot is a program's place in the order of an interface.
type Slot uint32

// Slots in their order (enum slot).
const (
	Endpoint Slot = iota
	Balancer
	DNS
	slots
)

// Root is the root program of an interface.
type Root struct {
	dir   string
	index int // of the interface
	slots *ebpf.Map
	link  link.Link
	mode  string
}

// PinName is the name of an interface as a part of a pin: a BPF file system takes no
// dots, as those of VLANs have, and no interface has a colon.
func PinName(device string) string { return strings.ReplaceAll(device, ".", ":") }

// DeviceName ends PinName.
func DeviceName(pin string) string { return strings.ReplaceAll(pin, ":", ".") }

// Open installs the root program on an interface of this network namespace, or joins
// the one that is pinned there. pins is a directory on a BPF file system.
func Open(pins string, device *net.Interface) (*Root, error) {
	r := &Root{dir: filepath.Join(pins, PinName(device.Name)), index: device.Index}
	if err := r.locked(r.open); err != nil {
		return nil, fmt.Errorf("root program of %s: %w", device.Name, errors.Join(err, r.Close()))
	}
	return r, nil
}

// locked keeps other processes from the interface meanwhile.
func (r *Root) locked(f func() error) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(r.dir, &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: r.dir, Err: err}
	}
	if s.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", r.dir)
	}
	d, err := os.Open(filepath.Dir(r.dir))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return &fs.PathError{Op: "lock", Path: d.Name(), Err: err}
	}
	return f()
}

func (r *Root) pin(name string) string { return filepath.Join(r.dir, name) }

// open joins what is pinned, and makes what is not. Slots that this process has stay.
func (r *Root) open() error {
	spec, err := loadBpf()
	if err != nil {
		return err
	}
	if r.slots == nil {
		r.slots, err = ebpf.LoadPinnedMap(r.pin("slots"), nil)
		if errors.Is(err, fs.ErrNotExist) {
			r.slots, err = ebpf.NewMap(spec.Maps[bpfMapSlots])
		}
		if err != nil {
			return fmt.Errorf("slots: %w", err)
		}
	}
	if !r.slots.IsPinned() {
		if err := r.slots.Pin(r.pin("slots")); err != nil {
			return fmt.Errorf("slots: %w", err)
		}
	}
	var objects bpfPrograms
	replace := map[string]*ebpf.Map{bpfMapSlots: r.slots}
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return err
	}
	defer objects.Close()
	if err := r.attach(objects.Root); err != nil {
		return err
	}
	r.mode, err = mode(r.index)
	return err
}

// attach puts the program in the place of an older root's, at once for all packets, or
// on the interface. A driver without XDP gets it behind its buffers (generic).
func (r *Root) attach(p *ebpf.Program) (err error) {
	if r.link, err = link.LoadPinnedLink(r.pin("link"), nil); err == nil {
		if info, err := r.link.Info(); err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == r.index {
			return r.link.Update(p)
		}
		// The interface is gone, and another one has its name.
		if err := errors.Join(r.link.Unpin(), r.link.Close()); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link: %w", err)
	}
	r.link, err = link.AttachXDP(link.XDPOptions{Program: p, Interface: r.index, Flags: link.XDPDriverMode})
	if err != nil {
		var generic error
		r.link, generic = link.AttachXDP(link.XDPOptions{Program: p, Interface: r.index, Flags: link.XDPGenericMode})
		if generic != nil {
			return errors.Join(err, generic)
		}
	}
	return r.link.Pin(r.pin("link"))
}

func mode(index int) (string, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", err
	}
	x := l.Attrs().Xdp
	switch {
	case x == nil || !x.Attached:
		return "", errors.New("it is not attached")
	case x.AttachMode == nl.XDP_ATTACHED_DRV:
		return Native, nil
	}
	return Generic, nil
}

// How a program is attached.
const (
	Native  = "native"  // in the driver
	Generic = "generic" // behind it
)

// Mode is how the program is attached: [Native] or [Generic].
func (r *Root) Mode() string { return r.mode }

// Slots is the map that a program calls the next one by.
func (r *Root) Slots() *ebpf.Map { return r.slots }

// Put gives a slot to a program, at once for all packets. The program stays when this
// process ends. It was loaded with the map of Slots.
func (r *Root) Put(s Slot, p *ebpf.Program) error {
	err := r.locked(func() error {
		if _, err := os.Stat(r.pin("link")); errors.Is(err, fs.ErrNotExist) {
			if err := r.again(); err != nil {
				return err
			}
		}
		return r.slots.Put(uint32(s), p)
	})
	if err != nil {
		return fmt.Errorf("slot %d of %s: %w", s, r.dir, err)
	}
	return nil
}

// again installs what the last of the others has removed since Open.
func (r *Root) again() error {
	slots, err := r.slots.Clone() // which is not pinned
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	r.slots = slots
	return r.open()
}

// Leave empties a slot. The last one that leaves takes the root program off.
func (r *Root) Leave(s Slot) error {
	if err := r.locked(func() error { return r.leave(s) }); err != nil {
		return fmt.Errorf("slot %d of %s: %w", s, r.dir, err)
	}
	return nil
}

// LeavePinned empties a slot of an interface that may be gone, as Leave does. What is not
// there is nothing to do.
func LeavePinned(pins, device string, s Slot) error {
	r := &Root{dir: filepath.Join(pins, PinName(device))}
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := r.locked(func() (err error) {
		if r.slots, err = ebpf.LoadPinnedMap(r.pin("slots"), nil); errors.Is(err, fs.ErrNotExist) {
			return r.remove()
		} else if err != nil {
			return err
		}
		return r.leave(s)
	})
	if err = errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("slot %d of %s: %w", s, r.dir, err)
	}
	return nil
}

func (r *Root) leave(s Slot) error {
	if err := r.slots.Delete(uint32(s)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	for other := range slots {
		var id uint32
		if r.slots.Lookup(uint32(other), &id) == nil {
			return nil
		}
	}
	return r.remove()
}

// remove takes the program off the interface: it is gone with the last of its link.
func (r *Root) remove() error {
	l, err := link.LoadPinnedLink(r.pin("link"), nil)
	if err == nil {
		err = errors.Join(l.Detach(), l.Close())
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	return os.RemoveAll(r.dir)
}

// Close frees what this process holds; what is pinned goes on.
func (r *Root) Close() error {
	var err error
	if r.link != nil {
		err = r.link.Close()
	}
	if r.slots != nil {
		err = errors.Join(err, r.slots.Close())
	}
	return err
}
