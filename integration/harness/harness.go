package harness

import (
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Headers is how much of a frame is made anew for every packet, in bytes: no frame may
// be shorter.
const Headers = 160

// Verdicts of XDP.
const (
	Drop = 1
	Pass = 2
	TX   = 3
)

// Traffic is what packets there are.
type Traffic struct {
	Frame       []byte
	Address     int    // offset of 4 bytes of the client's address that are not the same in all flows
	Port        int    // offset of the client's port
	AddressMask uint32 // the bits of them that differ: with n bits in the longer mask there
	PortMask    uint16 // are 2^n flows. In network order, as they are in the frame
}

// Flows is traffic of a number of flows, a power of two that is at most 2^32.
func (t Traffic) Flows(n uint64) Traffic {
	t.AddressMask, t.PortMask = uint32(n-1), uint16(n-1)
	return t
}

// give has a program make the traffic.
func (t Traffic) give(spec *ebpf.CollectionSpec) error {
	if len(t.Frame) < Headers {
		return fmt.Errorf("a frame of %d bytes, want %d at least", len(t.Frame), Headers)
	}
	traffic := bpfTraffic{
		Length:  uint32(len(t.Frame)),
		Address: uint32(t.Address), AddressMask: t.AddressMask, Port: uint32(t.Port), PortMask: uint32(t.PortMask),
	}
	for i := range traffic.Headers {
		traffic.Headers[i] = binary.NativeEndian.Uint64(t.Frame[8*i:])
	}
	return spec.Variables["given"].Set(traffic)
}

// Clients are those bytes of all flows in which they differ, of the address and the port.
func (t Traffic) Clients() iter.Seq2[[4]byte, [2]byte] {
	return func(yield func([4]byte, [2]byte) bool) {
		for flow := range uint64(max(t.AddressMask, uint32(t.PortMask))) + 1 {
			var address [4]byte
			var port [2]byte
			was := binary.NativeEndian.Uint32(t.Frame[t.Address:])
			binary.NativeEndian.PutUint32(address[:], was^uint32(flow)&t.AddressMask)
			binary.NativeEndian.PutUint16(port[:], binary.NativeEndian.Uint16(t.Frame[t.Port:])^uint16(flow)&t.PortMask)
			if !yield(address, port) {
				return
			}
		}
	}
}

// Subject is a program that is measured, with all maps that it has.
type Subject struct {
	program *ebpf.ProgramSpec
	maps    map[string]*ebpf.Map
}

// Loaded is a program of an object file with the maps of the same program in the kernel,
// as user space has filled them.
func Loaded(object, name string, running *ebpf.Program) (*Subject, error) {
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, err
	}
	info, err := running.Info()
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", name, err)
	}
	ids, _ := info.MapIDs()
	s := &Subject{spec.Programs[name], map[string]*ebpf.Map{}}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, fmt.Errorf("map %d of program %s: %w", id, name, err)
		}
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("map %d of program %s: %w", id, name, err)
		}
		s.maps[info.Name] = m
	}
	return s, nil
}

// Compiled is a program of an object file with maps of its own, but only those that it
// uses; what they have to begin with is written by fill.
func Compiled(object, name string, fill func(map[string]*ebpf.Map) error) (*Subject, error) {
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return nil, err
	}
	s := &Subject{spec.Programs[name], map[string]*ebpf.Map{}}
	for _, in := range s.program.Instructions {
		of := in.Reference()
		if !in.IsLoadFromMap() || s.maps[of] != nil {
			continue
		}
		if s.maps[of], err = ebpf.NewMap(spec.Maps[of]); err != nil {
			return nil, fmt.Errorf("map %s of program %s: %w", of, name, err)
		}
	}
	return s, fill(s.maps)
}

// Map is one of its maps, by name; nil if it has none of that name.
func (s *Subject) Map(name string) *ebpf.Map { return s.maps[name] }

// Program is it as a program of its own, which can be put on an interface.
func (s *Subject) Program() (*ebpf.Program, error) {
	code, err := s.code()
	if err != nil {
		return nil, err
	}
	of := s.program
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: of.Name, Type: of.Type, AttachType: of.AttachType, Flags: of.Flags, License: of.License,
		ByteOrder: of.ByteOrder, Instructions: code,
	})
}

// Close lets go of the maps.
func (s *Subject) Close() {
	for _, m := range s.maps {
		_ = m.Close()
	}
}

// code is the program as a function of another one.
func (s *Subject) code() (asm.Instructions, error) {
	out := append(asm.Instructions{}, s.program.Instructions...)
	for i := range out {
		of := out[i].Reference()
		if !out[i].IsLoadFromMap() || of == "" {
			continue
		}
		m := s.maps[of]
		if m == nil {
			return nil, fmt.Errorf("program %s: no map %s", s.program.Name, of)
		}
		if err := out[i].AssociateMap(m); err != nil {
			return nil, fmt.Errorf("program %s, map %s: %w", s.program.Name, of, err)
		}
	}
	out[0] = out[0].WithSymbol(subject)
	return out, nil
}

// subject is the function in whose place the program comes.
const subject = "subject"

// Harness runs a program.
type Harness struct {
	objects bpfObjects
	frame   []byte
}

// Load prepares runs of a subject for some traffic; without a subject the harness alone
// is run, which passes all packets.
func Load(s *Subject, t Traffic) (*Harness, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, err
	}
	if err := t.give(spec); err != nil {
		return nil, err
	}
	if s != nil {
		code, err := s.code()
		if err != nil {
			return nil, err
		}
		p := spec.Programs["harness"]
		p.Instructions = append(without(p.Instructions, subject), code...)
	}
	h := &Harness{frame: t.Frame}
	if err := spec.LoadAndAssign(&h.objects, nil); err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	return h, nil
}

// without is instructions that lack a function.
func without(all asm.Instructions, function string) (out asm.Instructions) {
	skip := false
	for _, in := range all {
		if s := in.Symbol(); s != "" {
			skip = s == function
		}
		if !skip {
			out = append(out, in)
		}
	}
	return out
}

// Run is the time for one of a number of packets, in whole ns. The program runs in the
// network namespace of the caller's thread.
func (h *Harness) Run(packets int) (time.Duration, error) {
	_, took, err := h.objects.Harness.Benchmark(h.frame, packets, nil)
	return took, err
}

// Verdicts counts what became of all packets so far, by verdict.
func (h *Harness) Verdicts() (counts [8]uint64, err error) {
	err = h.objects.Verdicts.Get(&counts)
	return counts, err
}

// Close lets go of the program.
func (h *Harness) Close() { _ = h.objects.Close() }
