package balancer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/razor-steering/razor/steering"
)

// Host is what the program knows of the gateway that it runs on.
type Host struct {
	Locator netip.Prefix // of its SIDs: a /64
	Block   netip.Prefix // of all locators of the SR domain: a /64 at most
}

// SID functions of ours (gateway/bpf/include/srv6.h).
const (
	behaviourHunt   = 0x5201
	behaviourFinal  = 0x5202
	behaviourEntry  = 0x5203
	behaviourMiss   = 0x5204
	behaviourSource = 0x5205
	behaviourReturn = 0x5206
)

// SetHost tells the program where it is. Until then it takes no VIP's packets.
func (b *Balancer) SetHost(h Host) error {
	switch {
	case !h.Locator.IsValid() || !h.Locator.Addr().Is6() || h.Locator.Bits() != 64:
		return fmt.Errorf("locator %s: want an IPv6 /64", h.Locator)
	case !h.Block.IsValid() || !h.Block.Addr().Is6() || h.Block.Bits() > 64 || h.Block.Bits() == 0:
		return fmt.Errorf("block %s: want an IPv6 prefix of 1 to 64 bits", h.Block)
	case !h.Block.Contains(h.Locator.Addr()):
		return fmt.Errorf("locator %s is not in block %s", h.Locator, h.Block)
	}
	var mask [8]byte
	binary.BigEndian.PutUint64(mask[:], ^uint64(0)<<(64-h.Block.Bits()))
	b.host.Domain.Locator = half(h.Locator.Masked().Addr())
	b.host.Domain.Block = half(h.Block.Masked().Addr())
	b.host.Domain.BlockMask = binary.NativeEndian.Uint64(mask[:])
	b.host.Source.Address.Bytes = sid(h.Locator, behaviourSource)
	b.setHost()
	return nil
}

// setHost stores what the program knows of the host, but for the words that are of who
// traces and of what flows are looked at. The mask of the block is last: without it no packet is taken.
func (b *Balancer) setHost() {
	h := b.settings.at(0)
	h.Source, h.Domain.Locator, h.Domain.Block = b.host.Source, b.host.Domain.Locator, b.host.Domain.Block
	atomic.StoreUint32(&h.Lookups, b.host.Lookups)
	atomic.StoreUint32(&h.Sites, b.host.Sites)
	atomic.StoreUint32(&h.Patient, b.host.Patient)
	atomic.StoreUint64(&h.Domain.BlockMask, b.host.Domain.BlockMask)
}

// half is the first half of an address as it is on the wire.
func half(a netip.Addr) uint64 {
	bytes := a.As16()
	return binary.NativeEndian.Uint64(bytes[:8])
}

// Hunt is the SID at which a target of a host with a locator, 0 is the host itself,
// takes the packets that are its own.
func Hunt(locator netip.Prefix, target uint16) netip.Addr {
	a := sid(locator, behaviourHunt)
	binary.BigEndian.PutUint16(a[10:], target)
	return netip.AddrFrom16(a)
}

func sid(locator netip.Prefix, behaviour uint16) [16]byte {
	a := locator.Masked().Addr().As16()
	binary.BigEndian.PutUint16(a[8:], behaviour)
	return a
}

// MaxServiceName is how long the name of a service may be, in bytes.
const MaxServiceName = 44

// Service is how the flows of its VIPs are told apart.
type Service struct {
	Name      string           // for the next process, 1 to MaxServiceName bytes
	Key       steering.FlowKey // the same at all sites, for ever
	Fragments bool             // hash by the client alone, so that fragments are taken
	Spills    []Spill          // at most MaxSpills
	QUIC      QUIC             // what connection IDs tell
}

// SetService says how a service hashes; a zero one removes it. A number is below
// Options.Services.
func (b *Balancer) SetService(number int, s Service) error {
	if len(s.Name) > MaxServiceName {
		return fmt.Errorf("service %s: the name has %d bytes, want at most %d", s.Name, len(s.Name), MaxServiceName)
	}
	if err := s.QUIC.check(); err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	v := bpfService{Key: s.Key, Rotation: s.QUIC.Rotation, ServerId: uint8(s.QUIC.ServerID)}
	for i := range s.Name {
		v.Name[i] = int8(s.Name[i])
	}
	if s.Fragments {
		v.Flags |= serviceFragments
	}
	if s.QUIC.ServerID > 0 {
		v.Flags |= serviceQUIC
	}
	if err := v.setSpills(s.Spills); err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	if err := b.objects.Services.Put(uint32(number), v); err != nil {
		return fmt.Errorf("service %d: %w", number, err)
	}
	return nil
}

// Backend is a backend as the program reaches it.
type Backend struct {
	SID netip.Addr // of the function hunt, argument 0
	Hop Hop
	// Found is that there was a way to it once: the packets of its flows wait for it.
	Found bool
}

// SetBackend puts a backend at an index, 1 to [MaxBackends]; a zero one removes it.
func (b *Balancer) SetBackend(index int, backend Backend) error {
	if index < 1 || index > MaxBackends {
		return fmt.Errorf("backend %d: want 1 to %d", index, MaxBackends)
	}
	var v bpfBackend
	if backend != (Backend{}) {
		if !backend.SID.Is6() || backend.SID.Is4In6() {
			return fmt.Errorf("backend %d: SID %s is not an IPv6 address", index, backend.SID)
		}
		v.Sid.Address.Bytes = backend.SID.As16()
		v.Hop = bpfHop{
			Destination: backend.Hop.Destination, Source: backend.Hop.Source,
			Ifindex: uint32(backend.Hop.Index), Vlan: backend.Hop.VLAN, Mtu: backend.Hop.MTU,
		}
	}
	if backend.Found {
		v.Found = 1
	}
	if err := b.objects.Backends.Put(uint32(index), v); err != nil {
		return fmt.Errorf("backend %d: %w", index, err)
	}
	return nil
}

// SetRow stores the row of a slot of a service at once for all packets.
func (b *Balancer) SetRow(service, slot int, row uint32) {
	atomic.StoreUint32(&b.tables.at(service).Rows[slot], row)
}

// Row is the row of a slot of a service.
func (b *Balancer) Row(service, slot int) uint32 {
	return atomic.LoadUint32(&b.tables.at(service).Rows[slot])
}

// SetHistory stores who left the row of a slot: 16 bits each, newest lowest.
func (b *Balancer) SetHistory(service, slot int, former uint64) {
	atomic.StoreUint64(&b.histories.at(service).Former[slot], former)
}

// History is who left the row of a slot.
func (b *Balancer) History(service, slot int) uint64 {
	return atomic.LoadUint64(&b.histories.at(service).Former[slot])
}
