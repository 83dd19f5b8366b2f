package segment

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Endpoint is the loaded program with its maps. All methods are for any goroutine,
// but only one of them changes a target and its VIPs at a time.
type Endpoint struct {
	objects endpointObjects
}

// Load loads the program for packets of an interface. Nothing is its own until SetDomain
// and SetTarget say what is. The slots are the interface's (slots.h), where it finds the
// programs that are asked next; with nil it has slots of its own.
//
// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
func Load(slots *ebpf.Map) (*Endpoint, error) {
	spec, err := loadEndpoint()
	if err != nil {
		return nil, fmt.Errorf("read the endpoint's program: %w", err)
	}
	options := &ebpf.CollectionOptions{}
	if slots != nil {
		options.MapReplacements = map[string]*ebpf.Map{endpointMapSlots: slots}
	}
	e := &Endpoint{}
	if err := spec.LoadAndAssign(&e.objects, options); err != nil {
		return nil, fmt.Errorf("load the endpoint's program: %w", err)
	}
	return e, nil
}

// Program is the XDP program, which lives until Close and as long as it is attached.
func (e *Endpoint) Program() *ebpf.Program { return e.objects.Endpoint }

// Install puts the program into its slot, in place of one that is there. Packets for
// another SID of the same host find their way through it.
func (e *Endpoint) Install() error {
	if err := e.objects.Slots.Put(uint32(endpointSlotSLOT_ENDPOINT), e.objects.Endpoint); err != nil {
		return fmt.Errorf("install the endpoint's program in its slot: %w", err)
	}
	return nil
}

// Uninstall empties the slot.
func (e *Endpoint) Uninstall() error {
	if err := e.objects.Slots.Delete(uint32(endpointSlotSLOT_ENDPOINT)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("take the endpoint's program out of its slot: %w", err)
	}
	return nil
}

// Close lets go of program and maps. What is installed or attached stays in the kernel.
func (e *Endpoint) Close() error { return e.objects.Close() }
