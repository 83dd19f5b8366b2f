package reply

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/bpf/root"
)

// ErrOld is that the kernel has no tcx.
var ErrOld = errors.New("no tcx here; want Linux 6.6")

// Options of [Replies].
type Options struct {
	// Pins is a directory on a BPF file system for maps and links, so that they outlive
	// the process and the next one takes them over; "" for none. One process at a time
	// has them.
	Pins string
}

// Replies is the loaded program with its maps. One goroutine at a time uses it, but
// counters are for any.
type Replies struct {
	dir     string // of the pins, "" without
	objects replyObjects
	links   map[string]link.Link // by interface
	setting replySetting

	scrape sync.RWMutex // whoever reads counters for others may do so after Close
	closed bool
}

const (
	// layout is that of the maps (agent/bpf/reply.h): others are not taken over.
	layout = 2
	// linkPin begins the names of pinned links; the rest is the interface.
	linkPin = "link-"
)

// Load loads the program and its maps, or takes those over that an earlier process has
// pinned. It touches nothing before Join.
//
// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func Load(o Options) (*Replies, error) {
	r := &Replies{links: map[string]link.Link{}}
	if err := r.load(o); err != nil {
		return nil, fmt.Errorf("load the program of the replies: %w", errors.Join(err, r.Close()))
	}
	return r, nil
}

func (r *Replies) load(o Options) error {
	spec, err := loadReply()
	if err != nil {
		return err
	}
	if o.Pins != "" {
		r.dir = filepath.Join(o.Pins, fmt.Sprintf("reply-%d", layout))
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return err
		}
		for name, m := range spec.Maps {
			if !strings.HasPrefix(name, ".") { // a section of the file
				m.Pinning = ebpf.PinByName
			}
		}
	}
	if err := spec.LoadAndAssign(&r.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: r.dir}}); err != nil {
		return err
	}
	return r.objects.Settings.Lookup(uint32(0), &r.setting)
}

// Program is the program for a run without an interface. It lives until Close and as
// long as it is attached.
func (r *Replies) Program() *ebpf.Program { return r.objects.Reply }

// Join puts the program on the way out of an interface of the calling thread's network
// namespace, at once for all packets, in the place of an earlier process's. It stays
// there when this process ends, if it is pinned. The error is ErrOld where the kernel
// cannot.
func (r *Replies) Join(device *net.Interface) error {
	l, err := r.join(device)
	if err != nil {
		return fmt.Errorf("replies on %s: %w", device.Name, err)
	}
	if was := r.links[device.Name]; was != nil {
		_ = was.Close()
	}
	r.links[device.Name] = l
	return nil
}

func (r *Replies) join(device *net.Interface) (link.Link, error) {
	if l, err := r.pinned(device); l != nil || err != nil {
		return l, err
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: r.objects.Reply, Attach: ebpf.AttachTCXEgress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, ErrOld
	}
	if err == nil && r.dir != "" {
		if err = errors.Join(l.Pin(r.pin(device.Name)), r.leaveOlder(device.Name)); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, err
}

// leaveOlder takes programs with other maps off an interface.
func (r *Replies) leaveOlder(device string) error {
	all, err := r.layouts()
	for _, dir := range all {
		if dir == r.dir {
			continue
		}
		if e := os.Remove(filepath.Join(dir, linkPin+root.PinName(device))); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// layouts are the directories of pins, of this program's maps and of other ones.
func (r *Replies) layouts() ([]string, error) {
	return filepath.Glob(filepath.Join(filepath.Dir(r.dir), "reply-[0-9]*"))
}

// pinned is the link of an earlier process to the interface, with this program; nil
// without one. That of an interface which is gone is removed.
func (r *Replies) pinned(device *net.Interface) (link.Link, error) {
	if r.dir == "" {
		return nil, nil
	}
	l, err := link.LoadPinnedLink(r.pin(device.Name), nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	info, err := l.Info()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if to := info.TCX(); to != nil && int(to.Ifindex) == device.Index {
		if err = l.Update(r.objects.Reply); err == nil {
			return l, nil
		}
		return nil, errors.Join(err, l.Close())
	}
	return nil, errors.Join(l.Close(), os.Remove(r.pin(device.Name)))
}

func (r *Replies) pin(device string) string {
	return filepath.Join(r.dir, linkPin+root.PinName(device))
}

// Joined are the interfaces that this process and earlier ones, which did not leave
// them, have put the program on.
func (r *Replies) Joined() ([]string, error) {
	if r.dir == "" {
		return nil, nil
	}
	pins, err := filepath.Glob(filepath.Join(r.dir, linkPin+"*"))
	for i := range pins {
		pins[i] = root.DeviceName(strings.TrimPrefix(filepath.Base(pins[i]), linkPin))
	}
	return pins, err
}

// Leave takes the program off an interface, which may be gone.
func (r *Replies) Leave(device string) (err error) {
	if r.dir != "" {
		if err = os.Remove(r.pin(device)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if l := r.links[device]; l != nil {
		err = errors.Join(err, l.Close())
		delete(r.links, device)
	}
	return err
}

// Unpin ends what there is for the next process. Interfaces were left before.
func (r *Replies) Unpin() error {
	if r.dir == "" {
		return nil
	}
	all, err := r.layouts()
	for _, dir := range all {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// Close lets go of program and maps. What is pinned goes on.
func (r *Replies) Close() error {
	r.scrape.Lock()
	defer r.scrape.Unlock()
	r.closed = true
	err := r.objects.Close()
	for _, l := range r.links {
		err = errors.Join(err, l.Close())
	}
	return err
}

// Able tells whether the kernel has tcx.
func Able() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 6)
}
