package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/razor-steering/razor/steering"
)

// Domain is the SR domain as a host sees it (RFC 8754 §5).
type Domain struct {
	Locator netip.Prefix // of this host: a /64
	Block   netip.Prefix // of all locators: a /64 or shorter
}

// Level is how loaded a target is. From Warning on it lets new connections go on to the
// next backend in their list.
type Level = steering.Level

// The levels of load.
const (
	Normal   = steering.LevelNormal
	Warning  = steering.LevelWarning
	Critical = steering.LevelCritical
)

// Host is the number of the target that is the host itself.
const Host = uint16(0)

// MaxTargets is how many targets a host has at most, itself among them.
const MaxTargets = 1024

// current is BPF_F_CURRENT_NETNS.
const current = int32(-1)

// Target is the host, or one of its containers. For the host only the level and the
// packet count.
type Target struct {
	Level     Level
	Packet    int              // largest that it may send, in bytes of IP, which clients' SYNs tell it; 0 is any
	NetNS     int              // id of the container's namespace, as the host numbers it
	Interface int              // index of the host's end of its veth
	Source    net.HardwareAddr // of the host's end
	MAC       net.HardwareAddr // of the container's end
}

func (d Domain) entry() (endpointDomain, error) {
	switch {
	case !d.Locator.IsValid() || !d.Locator.Addr().Is6() || d.Locator.Bits() != 64:
		return endpointDomain{}, fmt.Errorf("locator %v: want an IPv6 /64", d.Locator)
	case !d.Block.IsValid() || !d.Block.Addr().Is6() || d.Block.Bits() < 1 || d.Block.Bits() > 64:
		return endpointDomain{}, fmt.Errorf("SR block %v: want an IPv6 prefix of 1 to 64 bits", d.Block)
	case !d.Block.Contains(d.Locator.Addr()):
		return endpointDomain{}, fmt.Errorf("locator %v: not in the SR block %v", d.Locator, d.Block)
	}
	mask := binary.BigEndian.AppendUint64(nil, math.MaxUint64<<(64-d.Block.Bits()))
	locator, block := d.Locator.Masked().Addr().As16(), d.Block.Masked().Addr().As16()
	if locator[0]|locator[1] == 0 {
		return endpointDomain{}, fmt.Errorf("locator %v: not an address of a network", d.Locator)
	}
	return endpointDomain{
		Locator:   binary.NativeEndian.Uint64(locator[:]),
		Block:     binary.NativeEndian.Uint64(block[:]),
		BlockMask: binary.NativeEndian.Uint64(mask),
	}, nil
}

func (t Target) entry(number uint16) (endpointTarget, error) {
	e := endpointTarget{Netns: current, Present: 1, Level: uint8(t.Level), Packet: uint16(t.Packet)}
	if number >= MaxTargets {
		return e, fmt.Errorf("target %d: the last is %d", number, MaxTargets-1)
	}
	if t.Level < Normal || t.Level > Critical {
		return e, fmt.Errorf("target %d: level %d: want %d to %d", number, t.Level, Normal, Critical)
	}
	if t.Packet < 0 || t.Packet > math.MaxUint16 {
		return e, fmt.Errorf("target %d: packets of %d bytes: not a size", number, t.Packet)
	}
	if number == Host {
		return e, nil
	}
	switch {
	case t.NetNS < 0 || t.NetNS > math.MaxInt32:
		return e, fmt.Errorf("target %d: namespace id %d: the host gave it none", number, t.NetNS)
	case t.Interface < 1 || t.Interface > math.MaxInt32:
		return e, fmt.Errorf("target %d: interface %d: not an index", number, t.Interface)
	}
	e.Netns, e.Ifindex = int32(t.NetNS), uint32(t.Interface)
	for name, mac := range map[string]struct {
		from net.HardwareAddr
		to   *[6]byte
	}{"source": {t.Source, &e.Source}, "destination": {t.MAC, &e.Destination}} {
		if len(mac.from) != 6 || mac.from[0]&1 != 0 || bytes.Equal(mac.from, make([]byte, 6)) {
			return e, fmt.Errorf("target %d: %s address %q: want that of an Ethernet device", number, name, mac.from)
		}
		copy(mac.to[:], mac.from)
	}
	return e, nil
}

// SetDomain says which SIDs are the host's, and whom it takes packets from.
func (e *Endpoint) SetDomain(d Domain) error {
	entry, err := d.entry()
	if err != nil {
		return err
	}
	if err := e.objects.Domains.Put(uint32(0), entry); err != nil {
		return fmt.Errorf("set the SR domain: %w", err)
	}
	return nil
}

// SetTarget has the host answer to the SIDs of a target. A container that takes the
// place of another one is to be removed before, as its VIPs are others.
func (e *Endpoint) SetTarget(number uint16, t Target) error {
	entry, err := t.entry(number)
	if err != nil {
		return err
	}
	if err := e.objects.Targets.Put(uint32(number), entry); err != nil {
		return fmt.Errorf("set target %d: %w", number, err)
	}
	return nil
}

// SetLevel changes the level of a target that was set.
func (e *Endpoint) SetLevel(number uint16, level Level) error {
	if level < Normal || level > Critical {
		return fmt.Errorf("target %d: level %d: want %d to %d", number, level, Normal, Critical)
	}
	var entry endpointTarget
	if err := e.objects.Targets.Lookup(uint32(number), &entry); err != nil {
		return fmt.Errorf("target %d: %w", number, err)
	}
	if entry.Present == 0 {
		return fmt.Errorf("target %d: not set", number)
	}
	entry.Level = uint8(level)
	if err := e.objects.Targets.Put(uint32(number), entry); err != nil {
		return fmt.Errorf("set the level of target %d: %w", number, err)
	}
	return nil
}

// Level is that of a target, also as an earlier process set it; Normal for one that is
// not set.
func (e *Endpoint) Level(number uint16) (Level, error) {
	var entry endpointTarget
	if err := e.objects.Targets.Lookup(uint32(number), &entry); err != nil {
		return Normal, fmt.Errorf("target %d: %w", number, err)
	}
	return min(max(Level(entry.Level), Normal), Critical), nil
}

// RemoveTarget ends SetTarget, SetVIPs and Receive: packets to its SIDs are dropped.
func (e *Endpoint) RemoveTarget(number uint16) error {
	if number >= MaxTargets {
		return fmt.Errorf("target %d: the last is %d", number, MaxTargets-1)
	}
	if err := e.objects.Targets.Put(uint32(number), endpointTarget{}); err != nil {
		return fmt.Errorf("remove target %d: %w", number, err)
	}
	return errors.Join(e.SetVIPs(number, nil), e.release(number))
}

// SetVIPs says which addresses a target ends flows of, in place of those before. What is
// inside of a packet and to no VIP is dropped. IPv4 may be written as ::ffff:192.0.2.1.
func (e *Endpoint) SetVIPs(number uint16, vips []netip.Addr) error {
	if number >= MaxTargets {
		return fmt.Errorf("target %d: the last is %d", number, MaxTargets-1)
	}
	want := map[endpointVipKey]bool{}
	for _, a := range vips {
		if !a.Unmap().IsGlobalUnicast() || a.Zone() != "" {
			return fmt.Errorf("target %d: VIP %v: not an address that clients reach", number, a)
		}
		key := endpointVipKey{Target: uint32(number)}
		key.Address.Bytes = a.As16()
		want[key] = true
	}
	var (
		key    endpointVipKey
		is     uint8
		gone   []endpointVipKey
		stored = e.objects.Vips.Iterate()
	)
	for stored.Next(&key, &is) {
		if key.Target == uint32(number) && !want[key] {
			gone = append(gone, key)
		}
	}
	if err := stored.Err(); err != nil {
		return fmt.Errorf("read VIPs: %w", err)
	}
	for _, key := range gone {
		if err := e.objects.Vips.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("target %d: remove a VIP: %w", number, err)
		}
	}
	for key := range want {
		if err := e.objects.Vips.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("target %d: VIP %v: %w", number, netip.AddrFrom16(key.Address.Bytes).Unmap(), err)
		}
	}
	return nil
}
