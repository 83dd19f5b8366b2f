package balancer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/steering"
)

// Limits of the maps (gateway/bpf/maps.h).
const (
	MaxVIPs     = 1024
	MaxServices = 256
	MaxPins     = 65536
	MaxBackends = 32767               // indices are 1 to this one; 0 is no backend
	Slots       = steering.TableSlots // of a service's table
)

// verifierLines of what the verifier said are told, the last ones.
const verifierLines = 10

// Options of a [Balancer].
type Options struct {
	// Services that there may be, 1 to [MaxServices]: each costs 768 KiB.
	Services int
	// Pins is a directory on a BPF file system for the maps, so that they outlive the
	// process and the next one takes them over; "" for none.
	Pins string
}

// Balancer is the loaded program with its maps. Its methods may not be called
// concurrently: there is one writer.
type Balancer struct {
	spec      *ebpf.CollectionSpec
	dir       string   // of the pinned maps, "" without
	lock      *os.File // of the pins
	before    []string // interfaces that an earlier process had put it on
	objects   bpfObjects
	joined    map[string]*bpfObjects // by interface
	tables    *array[bpfTable]
	histories *array[bpfHistories]
	settings  *array[bpfHost]
	services  int
	host      bpfHost
	keys      map[bpfVipKey]bpfVip
	prefixes  map[bpfPrefixKey]bpfPrefixKey
	servers   map[bpfServerKey]uint32
}

// own are the maps of a program alone; all others are shared by the programs of all
// interfaces and of one process after another.
var own = []string{bpfMapSlots, bpfMapSteps, bpfMapScratch}

// Load loads the program and its maps. They are empty, and pass every packet on, or
// those that an earlier process has pinned: where they are others than this program's,
// they are copied, and those stay until [Balancer.RemoveOthers]. There are more services
// than the options say where the pinned maps have more. The error is [ErrRunning] where
// another process has the pins.
func Load(o Options) (*Balancer, error) {
	if o.Services < 1 || o.Services > MaxServices {
		return nil, fmt.Errorf("balancer: %d services, want 1 to %d", o.Services, MaxServices)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	b, err := load(o, spec, layout)
	if err == nil {
		err = b.open()
	}
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", errors.Join(err, b.Close()))
	}
	return b, nil
}

// layout is that of the maps (gateway/bpf/maps.h): others are not taken over, but copied.
const layout = 10

// load loads a program whose maps have a layout.
func load(o Options, spec *ebpf.CollectionSpec, layout int) (*Balancer, error) {
	b := &Balancer{spec: spec, services: o.Services, joined: map[string]*bpfObjects{}}
	if o.Pins == "" {
		return b, b.create("")
	}
	var err error
	if b.lock, err = lock(o.Pins); err != nil {
		return b, err
	}
	if err := os.RemoveAll(filepath.Join(o.Pins, next)); err != nil { // of one that was killed
		return b, err
	}
	place := func() string { return filepath.Join(o.Pins, fmt.Sprintf("balancer-%d-%d", layout, b.services)) }
	b.dir = place()
	if b.before, err = joinedIn(o.Pins); err != nil {
		return b, err
	}
	others, err := earlier(o.Pins)
	if err != nil || len(others) == 0 || slices.Contains(others, b.dir) {
		return b, errors.Join(err, b.create(b.dir))
	}
	used, err := servicesIn(others[0])
	if err != nil {
		return b, fmt.Errorf("the services pinned in %s: %w", others[0], err)
	}
	b.services = max(b.services, used)
	if b.dir = place(); slices.Contains(others, b.dir) {
		return b, b.create(b.dir)
	}
	return b, b.migrate(others[0])
}

// create loads the program, with the maps that are pinned in a directory, or new ones.
func (b *Balancer) create(dir string) error {
	for _, name := range []string{bpfMapTables, bpfMapHistories, bpfMapServices} {
		b.spec.Maps[name].MaxEntries = uint32(b.services)
	}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for name, m := range b.spec.Maps {
			if !slices.Contains(own, name) {
				m.Pinning = ebpf.PinByName
			}
		}
	}
	return explained(b.spec.LoadAndAssign(&b.objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}}))
}

// explained adds the end of what the verifier said.
func explained(err error) error {
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		return fmt.Errorf("the kernel does not take the program: %*v", -verifierLines, v)
	}
	return err
}

// open maps the tables, and reads what of the maps is kept here as well.
func (b *Balancer) open() (err error) {
	if b.tables, err = newArray[bpfTable](b.objects.Tables); err != nil {
		return err
	}
	if b.histories, err = newArray[bpfHistories](b.objects.Histories); err != nil {
		return err
	}
	if b.settings, err = newArray[bpfHost](b.objects.Settings); err != nil {
		return err
	}
	b.host = *b.settings.at(0)
	if b.keys, err = all[bpfVipKey, bpfVip](b.objects.Vips); err != nil {
		return err
	}
	if b.prefixes, err = all[bpfPrefixKey, bpfPrefixKey](b.objects.Prefixes); err != nil {
		return err
	}
	if b.servers, err = all[bpfServerKey, uint32](b.objects.Servers); err != nil {
		return err
	}
	return b.objects.link()
}

// all is what a map has.
func all[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	out := map[K]V{}
	var k K
	var v V
	i := m.Iterate()
	for i.Next(&k, &v) {
		out[k] = v
	}
	if err := i.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", m, err)
	}
	return out, nil
}

// link joins the program to those of its rare steps.
func (o *bpfObjects) link() error {
	for step, program := range []*ebpf.Program{o.BalancerOpen, o.BalancerMiss, o.BalancerIcmp, o.BalancerToobig, o.BalancerPinned, o.BalancerSpilled, o.BalancerEntry, o.BalancerQuic, o.BalancerLost, o.BalancerList, o.BalancerPath, o.BalancerReturn, o.BalancerTraced} {
		if err := o.Steps.Put(uint32(step), program); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// Program is the balancer for a run without an interface.
func (b *Balancer) Program() *ebpf.Program { return b.objects.Balancer }

// Join puts the balancer into its slot of an interface, at once for all packets, in
// the place of an earlier process's. It stays there when this process ends, and so needs
// Options.Pins.
func (b *Balancer) Join(r *root.Root, device string) error {
	if b.dir == "" {
		return fmt.Errorf("balancer on %s: it has no pins", device)
	}
	replace := b.shared()
	replace[bpfMapSlots] = r.Slots()
	spec := b.spec.Copy()
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	o := new(bpfObjects)
	if err := spec.LoadAndAssign(o, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return fmt.Errorf("balancer on %s: %w", device, explained(err))
	}
	if err := errors.Join(o.link(), b.put(r, device, o)); err != nil {
		return fmt.Errorf("balancer on %s: %w", device, errors.Join(err, o.Close()))
	}
	if was := b.joined[device]; was != nil {
		_ = was.Close()
	}
	b.joined[device] = o
	return nil
}

// put pins the steps of a program and puts it on the interface. The kernel empties the
// map of the steps when it is neither open nor pinned: it is pinned before the program
// sees a packet, and the one before goes afterwards.
func (b *Balancer) put(r *root.Root, device string, o *bpfObjects) error {
	pin := filepath.Join(b.dir, stepsPin+root.PinName(device))
	next := filepath.Join(b.dir, "next-"+root.PinName(device))
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := o.Steps.Pin(next); err != nil {
		return err
	}
	if err := r.Put(root.Balancer, o.Balancer); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return os.Rename(next, pin)
}

// shared are the maps of all programs, by name: all that are not [own].
func (b *Balancer) shared() map[string]*ebpf.Map {
	out := map[string]*ebpf.Map{}
	maps := reflect.ValueOf(b.objects.bpfMaps)
	for i := range maps.NumField() {
		if name := maps.Type().Field(i).Tag.Get("ebpf"); !slices.Contains(own, name) {
			out[name] = maps.Field(i).Interface().(*ebpf.Map)
		}
	}
	return out
}

// Close frees what this process has of the program and the maps.
func (b *Balancer) Close() error {
	err := errors.Join(b.tables.close(), b.histories.close(), b.settings.close(), b.objects.Close())
	for _, o := range b.joined {
		err = errors.Join(err, o.Close())
	}
	if b.lock != nil {
		err = errors.Join(err, unlock(b.lock))
	}
	return err
}

// array is a BPF array whose values are written in place.
type array[T any] struct {
	memory []byte
	stride int
}

func newArray[T any](m *ebpf.Map) (*array[T], error) {
	stride := (int(m.ValueSize()) + 7) &^ 7
	page := unix.Getpagesize()
	length := (int(m.MaxEntries())*stride + page - 1) &^ (page - 1)
	memory, err := unix.Mmap(m.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", m, err)
	}
	return &array[T]{memory, stride}, nil
}

// at is the value of an index that there is.
func (a *array[T]) at(i int) *T {
	return (*T)(unsafe.Pointer(&a.memory[i*a.stride]))
}

func (a *array[T]) close() error {
	if a == nil {
		return nil
	}
	return unix.Munmap(a.memory)
}
