package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

const (
	// sweepEvery is how often it is looked which pins are idle.
	sweepEvery = 10 * time.Second
	// sweepBatch is how many pins are read at once.
	sweepBatch = 4096

	pinIdle    = 600 // seconds (gateway/bpf/maps.h)
	pinClosing = 60
)

// Flow is a flow from the client's side.
type Flow struct {
	Client   netip.AddrPort
	VIP      netip.AddrPort
	Protocol uint8
}

// PinRefusal is why a flow was not pinned: an error, and the value of a label.
type PinRefusal string

// What is refused.
const (
	NotTCP     PinRefusal = "protocol" // nothing else is hunted for
	NotAVIP    PinRefusal = "vip"      // of no service
	NotItsHost PinRefusal = "backend"  // the owner is no backend of the service, or dead
	ManyOwners PinRefusal = "owners"   // too many backends of other sites have flows
)

// PinRefusals are all of them.
var PinRefusals = []PinRefusal{NotTCP, NotAVIP, NotItsHost, ManyOwners}

// Error says it to people.
func (r PinRefusal) Error() string {
	return map[PinRefusal]string{
		NotTCP: "not a flow of TCP", NotAVIP: "not to a VIP of a service", NotItsHost: "the owner is no backend of the service, and of no other site",
		ManyOwners: "too many backends of other sites have flows",
	}[r]
}

// pinned is what the keeper knows of pins.
type pinned struct {
	owners    map[uint16]bool // of other sites: likewise
	present   int             // as of the last sweep, and those made since
	made      uint64          // or made again
	displaced uint64          // made in a full map: another one was forgotten
	needless  uint64          // of flows that are where their row says
	expired   uint64
}

// Pin has the packets of a flow sent first to its owner, a backend that is known by its
// SID, whatever the row of its slot says. A flow whose row says so anyway needs no pin,
// and loses one that says something else. The error is a [PinRefusal], or the kernel's.
func (k *Keeper) Pin(f Flow, owner netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f.Protocol != unix.IPPROTO_TCP {
		return NotTCP
	}
	s := k.owning(f)
	if s == nil {
		return NotAVIP
	}
	r, err := k.owner(s, owner)
	if err != nil {
		return err
	}
	slot := steering.FlowSlot(steering.FlowHash(s.hashed.Key, f.hashed(s.hashed)))
	if s.table.Row(slot).Current() == r.index {
		k.pins.needless++
		return k.balancer.unpin(f.key())
	}
	isNew, err := k.balancer.pinTo(f.key(), bpfPin{Backend: uint32(r.index), Slot: slot, Used: uptime(), Service: uint16(s.number)})
	if err != nil {
		return err
	}
	k.pins.made++
	if isNew {
		if k.pins.present >= MaxPins {
			k.pins.displaced++
		} else {
			k.pins.present++
		}
	}
	k.mark(s, slot)
	return nil
}

// owner is the backend that has a flow of a service by a pin: one of the service's, or
// one of another site, which is looked for from then on.
func (k *Keeper) owner(s *kept, sid netip.Addr) (*reached, error) {
	r := k.backends[sid]
	switch {
	case r != nil && (s.members[r.index] || k.pins.owners[r.index]):
		return r, nil
	case !k.plan.elsewhere(sid):
		return nil, NotItsHost
	case len(k.pins.owners) >= MaxOwners:
		return nil, ManyOwners
	}
	index, err := k.known(sid, time.Now())
	if err != nil {
		return nil, err
	}
	if k.pins.owners == nil {
		k.pins.owners = map[uint16]bool{}
	}
	k.pins.owners[index] = true
	k.hops.Add(sid)
	return k.backends[sid], nil
}

// hashed is what counts for the slot of a flow of a service.
func (f Flow) hashed(s Service) steering.Flow {
	out := steering.Flow{Client: f.Client.Addr()}
	if !s.Fragments {
		out.SourcePort, out.DestinationPort, out.Protocol = f.Client.Port(), f.VIP.Port(), f.Protocol
	}
	return out
}

func (f Flow) key() bpfPinKey {
	k := bpfPinKey{ClientPort: bigEndian(f.Client.Port()), VipPort: bigEndian(f.VIP.Port()), Protocol: f.Protocol}
	k.Client.Bytes, k.Vip.Bytes = f.Client.Addr().As16(), f.VIP.Addr().As16()
	return k
}

// owning is the service of a flow, nil if there is none.
func (k *Keeper) owning(f Flow) *kept {
	number, ok := k.balancer.serviceOf(f.VIP, f.Protocol)
	if !ok {
		return nil
	}
	for _, s := range k.services {
		if s.number == number {
			return s
		}
	}
	return nil
}

// mark has the packets of a slot look for pins.
func (k *Keeper) mark(s *kept, slot uint32) {
	if s.marked == nil {
		s.marked = map[uint32]bool{}
	}
	s.marked[slot] = true
	k.store(s, s.table.Mark(nil, slot, true))
}

// sweep ends the pins that are idle and those of backends that are not a service's any
// more, and has the slots marked that have pins, and no others. Its work is bounded by
// the size of the map.
func (k *Keeper) sweep(now uint32) error {
	byNumber := map[uint16]*kept{}
	for _, s := range k.services {
		byNumber[uint16(s.number)] = s
	}
	seen := map[*kept]map[uint32]bool{}
	away, owners := map[uint16]bool{}, map[uint16]bool{}
	for sid, r := range k.backends {
		away[r.index] = k.plan.elsewhere(sid)
	}
	var gone []bpfPinKey
	present := 0
	err := k.balancer.eachPin(func(key bpfPinKey, p bpfPin) {
		s := byNumber[p.Service]
		idle := p.idle(now)
		owner := uint16(p.Backend)
		if s == nil || !s.members[owner] && !away[owner] || idle {
			if idle {
				k.pins.expired++
			}
			gone = append(gone, key)
			return
		}
		present++
		if away[owner] {
			owners[owner] = true
		}
		if seen[s] == nil {
			seen[s] = map[uint32]bool{}
		}
		seen[s][p.Slot] = true
	})
	if err != nil {
		return err // a mark too many costs a look-up, one too few a hunt
	}
	for _, key := range gone {
		err = errors.Join(err, k.balancer.unpin(key))
	}
	k.pins.present, k.pins.owners = present, owners
	for _, s := range k.services {
		for slot := range s.marked {
			if !seen[s][slot] {
				k.store(s, s.table.Mark(nil, slot, false))
			}
		}
		for slot := range seen[s] {
			k.store(s, s.table.Mark(nil, slot, true))
		}
		s.marked = seen[s]
	}
	return err
}

// sweepNow is sweep, whose error is for the log: nothing depends on it.
func (k *Keeper) sweepNow() {
	if err := k.sweep(uptime()); err != nil {
		k.log.Error("pins not swept", "err", err)
	}
}

// markedSlots are the slots of a table with marks.
func markedSlots(t *steering.Table) map[uint32]bool {
	out := map[uint32]bool{}
	for slot := range uint32(steering.TableSlots) {
		if t.Row(slot).Marked() {
			out[slot] = true
		}
	}
	return out
}

// idle tells whether no packet of the flow came for too long. The program's clock may
// be behind.
func (p bpfPin) idle(now uint32) bool {
	limit := int32(pinIdle)
	if p.Closing != 0 {
		limit = pinClosing
	}
	return int32(now-p.Used) > limit
}

// uptime is the clock of the program, in seconds.
func uptime() uint32 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail: the clock and the memory are there
	return uint32(t.Sec)
}

// pinTo stores a pin, and tells whether its flow had none.
func (b *Balancer) pinTo(key bpfPinKey, pin bpfPin) (isNew bool, err error) {
	err = b.objects.Pins.Update(key, pin, ebpf.UpdateNoExist)
	if isNew = err == nil; errors.Is(err, ebpf.ErrKeyExist) {
		err = b.objects.Pins.Put(key, pin)
	}
	if err != nil {
		return false, fmt.Errorf("pin: %w", err)
	}
	return isNew, nil
}

func (b *Balancer) unpin(key bpfPinKey) error {
	if err := b.objects.Pins.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove a pin: %w", err)
	}
	return nil
}

// eachPin calls f with every pin. One that comes or goes meanwhile may be among them.
func (b *Balancer) eachPin(f func(bpfPinKey, bpfPin)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]bpfPinKey, sweepBatch), make([]bpfPin, sweepBatch)
	for {
		n, err := b.objects.Pins.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read the pins: %w", err)
		}
		for i := range n {
			f(keys[i], values[i])
		}
		if err != nil {
			return nil // there are no more
		}
	}
}

// serviceOf is the number of the service that packets to an address are of, as the
// program finds it.
func (b *Balancer) serviceOf(to netip.AddrPort, protocol uint8) (int, bool) {
	a := to.Addr().Unmap()
	prefixes := []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	var found bpfPrefixKey
	if b.objects.Prefixes.Lookup(VIP{Prefix: prefixes[0]}.prefixKey(), &found) == nil {
		prefixes = append(prefixes, bpfVipKey{Address: found.Address, Length: uint8(found.Length)}.vip().Prefix)
	}
	for _, p := range prefixes {
		for _, v := range []VIP{{p, to.Port(), protocol}, {p, 0, protocol}, {p, 0, 0}} {
			if got, ok := b.keys[v.key()]; ok && got.Flags&vipAside == 0 {
				return int(got.Service), true
			}
		}
	}
	return 0, false
}
