package balancer

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Limits of the maps (gateway/bpf/maps.h).
const (
	MaxVIPs     = 1024
	MaxServices = 256
	MaxBackends = 32767 // indices are 1 to this one; 0 is no backend
	Slots       = 65537 // of a service's table
)

// verifierLines of what the verifier said are told, the last ones.
const verifierLines = 10

// Options of a [Balancer].
type Options struct {
	// Services that there may be, 1 to [MaxServices]: each costs 768 KiB.
	Services int
	// Slots is the map of an interface's programs, nil for none beside this one.
	Slots *ebpf.Map
}

// Balancer is the loaded program with its maps. Its methods may not be called
// concurrently: there is one writer.
type Balancer struct {
	objects   bpfObjects
	tables    *array[bpfTable]
	histories *array[bpfHistories]
	services  int
	host      bpfHost
	keys      map[bpfVipKey]bpfVip
	prefixes  map[bpfPrefixKey]bpfPrefixKey
}

// Load loads the program and its maps, all empty: it passes every packet on.
func Load(o Options) (*Balancer, error) {
	if o.Services < 1 || o.Services > MaxServices {
		return nil, fmt.Errorf("balancer: %d services, want 1 to %d", o.Services, MaxServices)
	}
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	for _, name := range []string{bpfMapTables, bpfMapHistories, bpfMapServices} {
		spec.Maps[name].MaxEntries = uint32(o.Services)
	}
	var replace ebpf.CollectionOptions
	if o.Slots != nil {
		replace.MapReplacements = map[string]*ebpf.Map{bpfMapSlots: o.Slots}
	}
	b := &Balancer{services: o.Services}
	if err := spec.LoadAndAssign(&b.objects, &replace); err != nil {
		return nil, fmt.Errorf("balancer: %w", explained(err))
	}
	if err := b.open(); err != nil {
		return nil, fmt.Errorf("balancer: %w", errors.Join(err, b.Close()))
	}
	return b, nil
}

// explained adds the end of what the verifier said.
func explained(err error) error {
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		return fmt.Errorf("the kernel does not take the program: %*v", -verifierLines, v)
	}
	return err
}

// open maps the tables and joins the program to those of its rare steps.
func (b *Balancer) open() (err error) {
	if b.tables, err = newArray[bpfTable](b.objects.Tables); err != nil {
		return err
	}
	if b.histories, err = newArray[bpfHistories](b.objects.Histories); err != nil {
		return err
	}
	for step, program := range []*ebpf.Program{b.objects.BalancerMiss, b.objects.BalancerIcmp, b.objects.BalancerToobig} {
		if err := b.objects.Steps.Put(uint32(step), program); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// Program is what belongs into the balancer's slot of an interface.
func (b *Balancer) Program() *ebpf.Program { return b.objects.Balancer }

// Close frees the program and the maps, unless somebody else has them too.
func (b *Balancer) Close() error {
	return errors.Join(b.tables.close(), b.histories.close(), b.objects.Close())
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
