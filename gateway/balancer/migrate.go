package balancer

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Maps are pinned in a directory that tells what they are like. A program that is used
// to others gets new ones, which are filled from the old ones before it sees a packet:
// types are those that the kernel has of each map (BTF), fields are copied by their
// names. It is the same from an older program to a newer one and back.

// next is where maps are pinned while they are filled.
const next = "balancer-next"

// earlier are the directories of maps in one of pins, the newest first.
func earlier(pins string) ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(pins, "balancer-[0-9]*"))
	if err != nil {
		return nil, err
	}
	since := map[string]int64{}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		since[dir] = info.ModTime().UnixNano()
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(since[b], since[a]) })
	return dirs, nil
}

// migrate makes the maps, filled with what those in another directory have. When it
// fails, all is as it was.
func (b *Balancer) migrate(from string) error {
	dir := filepath.Join(filepath.Dir(b.dir), next)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := b.create(dir)
	if err == nil {
		err = b.copyFrom(from)
	}
	if err == nil {
		err = os.Rename(dir, b.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("the maps pinned in %s stay as they are: %w", from, err), os.RemoveAll(dir))
	}
	return nil
}

// fleeting are the maps of a trace, and of the flows of a second. A trace is not for the
// next program, which ends it with the first packet, as it has no lease.
var fleeting = []string{bpfMapCpuTraces, bpfMapRecords, bpfMapTraces, bpfMapSeen}

// copyFrom fills the maps.
func (b *Balancer) copyFrom(dir string) error {
	maps := b.shared()
	for _, name := range fleeting {
		delete(maps, name)
	}
	var all []copying
	defer func() {
		for _, c := range all {
			_ = c.from.Close()
		}
	}()
	for name, to := range maps {
		c, err := newCopying(filepath.Join(dir, name), to, b.spec.Maps[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is new
		}
		if errors.Is(err, ebpf.ErrNotSupported) && form(to.Type()) == perCPU {
			continue // counters of a program that did not tell their names
		}
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.run(); err != nil {
			return fmt.Errorf("map %s: %w", filepath.Base(c.path), err)
		}
	}
	return nil
}

// copying is what is to be copied from a pinned map.
type copying struct {
	path       string
	from, to   *ebpf.Map
	key, value conversion
	numbers    map[uint32]uint32 // of keys that have names
}

// newCopying looks how a map can be copied.
func newCopying(path string, to *ebpf.Map, spec *ebpf.MapSpec) (c copying, err error) {
	c = copying{path: path, to: to}
	if c.from, err = ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
		return c, err
	}
	if err := c.look(spec); err != nil {
		return c, errors.Join(err, c.from.Close())
	}
	return c, nil
}

func (c *copying) look(spec *ebpf.MapSpec) error {
	if form(c.from.Type()) != form(c.to.Type()) {
		return fmt.Errorf("it was of type %v and is of type %v", c.from.Type(), c.to.Type())
	}
	if form(c.to.Type()) == passing {
		return nil
	}
	types, err := typesOf(c.from)
	if err != nil {
		return err
	}
	if c.key, err = conversionOf(spec.Key, types); err != nil {
		return err
	}
	if c.value, err = conversionOf(spec.Value, types); err != nil {
		return err
	}
	return c.name(spec.Value, types)
}

// typesOf are the types that the kernel has of a map.
func typesOf(m *ebpf.Map) (*btf.Spec, error) {
	handle, err := m.Handle()
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	return handle.Spec(nil)
}

// conversionOf is from what a map's types say that a type was.
func conversionOf(is btf.Type, types *btf.Spec) (conversion, error) {
	all, err := types.AnyTypesByName(is.TypeName())
	if err != nil {
		return conversion{}, fmt.Errorf("%s: %w", is.TypeName(), err)
	}
	for _, was := range all {
		if reflect.TypeOf(was) == reflect.TypeOf(is) {
			return newConversion(is, was)
		}
	}
	return conversion{}, fmt.Errorf("it had no %v", is)
}

// name notes the numbers of keys that have names, which may have others now.
func (c *copying) name(value btf.Type, types *btf.Spec) error {
	now := namesIn(value)
	if now == nil {
		return nil
	}
	var was *btf.Enum
	if err := types.TypeByName(now.Name, &was); err != nil {
		return err
	}
	c.numbers = map[uint32]uint32{}
	for _, v := range was.Values {
		for _, w := range now.Values {
			if v.Name == w.Name {
				c.numbers[uint32(v.Value)] = uint32(w.Value)
			}
		}
	}
	return nil
}

// namesIn are the names of a map's keys: an empty array of them is in its value.
func namesIn(value btf.Type) *btf.Enum {
	s, ok := value.(*btf.Struct)
	if !ok {
		return nil
	}
	for _, m := range s.Members {
		if a, ok := m.Type.(*btf.Array); ok && a.Nelems == 0 {
			if names, ok := a.Type.(*btf.Enum); ok {
				return names
			}
		}
	}
	return nil
}

// How a map is read.
const (
	passing = iota // nothing in it is for the next program
	arrays
	hashes
	perCPU
)

func form(t ebpf.MapType) int {
	switch t {
	case ebpf.Array:
		return arrays
	case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
		return hashes
	case ebpf.PerCPUArray:
		return perCPU
	}
	return passing
}

func (c *copying) run() error {
	switch form(c.from.Type()) {
	case arrays:
		return c.each(func(i uint32) error { return c.put(i, i) })
	case hashes:
		return c.hash()
	case perCPU:
		return c.each(c.counter)
	}
	return nil
}

// each calls f with all indices of an array.
func (c *copying) each(f func(i uint32) error) error {
	for i := range c.from.MaxEntries() {
		if err := f(i); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}

// put copies one value, unless it is 0 as that of an array is anyway.
func (c *copying) put(from, to any) error {
	value, err := c.from.LookupBytes(from)
	if err != nil || value == nil || form(c.from.Type()) == arrays && zero(value) {
		return err
	}
	if value, err = c.value.convert(value); err != nil {
		return err
	}
	return c.to.Put(to, value)
}

// hash copies what is there at some moment of the copying. The old program, which goes
// on, may take something away: then the kernel begins again.
func (c *copying) hash() error {
	done := map[string]bool{}
	key, err := c.from.NextKeyBytes(nil)
	for range 4 * c.from.MaxEntries() {
		if err != nil || key == nil {
			return err
		}
		if !done[string(key)] {
			done[string(key)] = true
			now, err := c.key.convert(key)
			if err != nil {
				return err
			}
			if err := c.put(key, now); err != nil {
				return err
			}
		}
		key, err = c.from.NextKeyBytes(key)
	}
	return errors.New("it changes too fast to be read")
}

// counter copies the values of all CPUs.
func (c *copying) counter(i uint32) error {
	to := i
	if c.numbers != nil {
		var ok bool
		if to, ok = c.numbers[i]; !ok {
			return nil
		}
	}
	var values [][]byte
	if err := c.from.Lookup(i, &values); err != nil {
		return err
	}
	seen := false
	for cpu, v := range values {
		seen = seen || !zero(v)
		var err error
		if values[cpu], err = c.value.convert(v); err != nil {
			return err
		}
	}
	if !seen {
		return nil
	}
	return c.to.Put(to, values)
}

// servicesIn is one more than the highest number of a service that pinned maps have.
func servicesIn(dir string) (int, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpfMapServices), &ebpf.LoadPinOptions{ReadOnly: true})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer m.Close()
	n := 0
	for i := range m.MaxEntries() {
		value, err := m.LookupBytes(i)
		if err != nil {
			return 0, err
		}
		if !zero(value) {
			n = int(i) + 1
		}
	}
	return n, nil
}
