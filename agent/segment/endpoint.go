package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/bpf/root"
)

// Options of an [Endpoint].
type Options struct {
	// Pins is a directory on a BPF file system for maps and programs, so that they
	// outlive the process and the next one takes them over; "" for none. One Endpoint
	// at a time has them.
	Pins string
}

// ErrRunning is that another process has the pins.
var ErrRunning = errors.New("another one is running")

// Endpoint is the loaded program with its maps. All methods are for any goroutine,
// but only one of them changes a target and its VIPs, or an interface, at a time.
type Endpoint struct {
	spec    *ebpf.CollectionSpec
	dir     string   // of the pins, "" without
	lock    *os.File // of the directory
	objects endpointObjects
	joined  map[string]*endpointObjects // by interface

	receivers map[uint16]link.Link // of this process, by target

	scrape sync.RWMutex // whoever reads counters for others may do so after Close
	closed bool
}

const (
	// layout is that of the maps (agent/bpf/maps.h): others are not taken over.
	layout = 1
	// programPin begins the names of pinned programs; the rest is the interface.
	programPin = "program-"
)

// Load loads the program and its maps. Nothing is its own until SetDomain and SetTarget
// say what is, or an earlier process has, whose maps are pinned. The error is ErrRunning
// where that one has not ended.
//
// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func Load(o Options) (*Endpoint, error) {
	e := &Endpoint{joined: map[string]*endpointObjects{}, receivers: map[uint16]link.Link{}}
	if err := e.load(o); err != nil {
		return nil, fmt.Errorf("load the endpoint's program: %w", errors.Join(err, e.Close()))
	}
	return e, nil
}

func (e *Endpoint) load(o Options) (err error) {
	if e.spec, err = loadEndpoint(); err != nil {
		return err
	}
	if o.Pins != "" {
		if err := e.pin(o.Pins); err != nil {
			return err
		}
	}
	return e.spec.LoadAndAssign(&e.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: e.dir}})
}

// pin has the maps pinned that the programs of all interfaces share, in a directory
// that tells what they are like.
func (e *Endpoint) pin(pins string) (err error) {
	e.dir = pinned(pins)
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	var s unix.Statfs_t
	if err := unix.Statfs(e.dir, &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: e.dir, Err: err}
	}
	if s.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)", pins)
	}
	if e.lock, err = locked(e.dir); err != nil {
		return err
	}
	for name, m := range e.spec.Maps {
		if name != endpointMapSlots && !strings.HasPrefix(name, ".") { // a section of the file
			m.Pinning = ebpf.PinByName
		}
	}
	return nil
}

func pinned(pins string) string { return filepath.Join(pins, fmt.Sprintf("endpoint-%d", layout)) }

// lockPatience is for how long a lock may outlive a process that was killed: what it started
// a program from has a copy of it until that runs.
const lockPatience = 100 * time.Millisecond

// locked opens a directory that no other process has locked; unlock ends it.
func locked(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 20) {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
	}
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = ErrRunning
	case err != nil:
		err = &fs.PathError{Op: "lock", Path: dir, Err: err}
	default:
		return d, nil
	}
	_ = d.Close()
	return nil, err
}

// unlock ends a lock, also where a program that is being started has a copy of it.
func unlock(d *os.File) error {
	return errors.Join(unix.Flock(int(d.Fd()), unix.LOCK_UN), d.Close())
}

// Running tells whether a process has the pins of that directory.
func Running(pins string) bool {
	d, err := locked(pinned(pins))
	if err == nil {
		_ = unlock(d)
	}
	return errors.Is(err, ErrRunning)
}

// Program is the XDP program for a run without an interface. It lives until Close and as
// long as it is attached.
func (e *Endpoint) Program() *ebpf.Program { return e.objects.Endpoint }

// Join puts the program into its slot of an interface, at once for all packets, in the
// place of an earlier process's. It stays there when this process ends.
func (e *Endpoint) Join(r *root.Root, device string) error {
	o, err := e.join(r, device)
	if err != nil {
		return fmt.Errorf("endpoint on %s: %w", device, err)
	}
	if was := e.joined[device]; was != nil {
		_ = was.Close()
	}
	e.joined[device] = o
	return nil
}

func (e *Endpoint) join(r *root.Root, device string) (*endpointObjects, error) {
	spec := e.spec.Copy()
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	o, shared := new(endpointObjects), &e.objects
	replace := map[string]*ebpf.Map{
		endpointMapSlots: r.Slots(), endpointMapAcceptedBy: shared.AcceptedBy, endpointMapDomains: shared.Domains, endpointMapEvents: shared.Events,
		endpointMapHandledBy: shared.HandledBy, endpointMapHeard: shared.Heard, endpointMapReasons: shared.Reasons, endpointMapTargets: shared.Targets,
		endpointMapTold: shared.Told, endpointMapVips: shared.Vips,
	}
	if err := spec.LoadAndAssign(o, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return nil, err
	}
	err := r.Put(root.Endpoint, o.Endpoint)
	if err == nil && e.dir != "" {
		// It tells the next process which interfaces have one.
		pin := filepath.Join(e.dir, programPin+root.PinName(device))
		if err = os.Remove(pin); err == nil || errors.Is(err, fs.ErrNotExist) {
			err = o.Endpoint.Pin(pin)
		}
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// Joined are the interfaces that this process and earlier ones, which did not leave
// them, have put the program on.
func (e *Endpoint) Joined() ([]string, error) {
	if e.dir == "" {
		return nil, nil
	}
	pins, err := filepath.Glob(filepath.Join(e.dir, programPin+"*"))
	for i := range pins {
		pins[i] = root.DeviceName(strings.TrimPrefix(filepath.Base(pins[i]), programPin))
	}
	return pins, err
}

// Leave takes the program off an interface. Without a root the interface is gone.
func (e *Endpoint) Leave(r *root.Root, device string) (err error) {
	if r != nil {
		err = r.Leave(root.Endpoint)
	}
	if o := e.joined[device]; o != nil {
		err = errors.Join(err, o.Close())
		delete(e.joined, device)
	}
	if e.dir != "" {
		if e := os.Remove(filepath.Join(e.dir, programPin+root.PinName(device))); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Unpin ends what there is for the next process. Interfaces were left before.
func (e *Endpoint) Unpin() error {
	if e.dir == "" {
		return nil
	}
	return os.RemoveAll(e.dir)
}

// Close lets go of program and maps. What is pinned, or on an interface, goes on.
func (e *Endpoint) Close() error {
	e.scrape.Lock()
	defer e.scrape.Unlock()
	e.closed = true
	err := e.objects.Close()
	for _, o := range e.joined {
		err = errors.Join(err, o.Close())
	}
	for _, l := range e.receivers {
		err = errors.Join(err, l.Close())
	}
	if e.lock != nil {
		err = errors.Join(err, unlock(e.lock))
	}
	return err
}
