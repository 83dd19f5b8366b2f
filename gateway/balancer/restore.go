package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/razor-steering/razor/steering"
)

// restore reads what the balancer's maps have: services with their tables, the
// numbers of VIPs, and the indices of backends.
func (k *Keeper) restore(now time.Time) error {
	if err := k.restoreBackends(now); err != nil {
		return fmt.Errorf("backends of an earlier process: %w", err)
	}
	byNumber := map[int]*kept{}
	for number := range k.balancer.services {
		var v bpfService
		if err := k.balancer.objects.Services.Lookup(uint32(number), &v); err != nil {
			return fmt.Errorf("service %d: %w", number, err)
		}
		name := nameOf(v)
		if name == "" {
			continue
		}
		s := &kept{number: number, vips: map[VIP]int{}}
		rows, histories := k.balancer.tables.at(number).Rows[:], k.balancer.histories.at(number).Former[:]
		table, fixes, err := steering.LoadTable(nil, rows, histories, now)
		if err != nil {
			return fmt.Errorf("table of service %s: %w", name, err)
		}
		s.table, s.marked = table, markedSlots(table)
		k.store(s, fixes)
		s.settle()
		k.services[name], byNumber[number] = s, s
	}
	k.trust()
	for key, v := range k.balancer.keys {
		if s := byNumber[int(v.Service)]; s != nil && v.Flags&vipAside == 0 {
			s.vips[key.vip()] = int(v.Number)
		}
	}
	return nil
}

func (k *Keeper) restoreBackends(now time.Time) error {
	used := map[string]uint16{}
	for index := uint32(1); index <= MaxBackends; index++ {
		var v bpfBackend
		err := k.balancer.objects.Backends.Lookup(index, &v)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if v == (bpfBackend{}) {
			continue
		}
		sid := netip.AddrFrom16(v.Sid.Address.Bytes)
		used[sid.String()] = uint16(index)
		k.backends[sid] = &reached{index: uint16(index), name: sid.String(), found: v.Found != 0 || v.Hop.Ifindex != 0, hop: Hop{
			Destination: v.Hop.Destination, Source: v.Hop.Source, Index: int(v.Hop.Ifindex), VLAN: v.Hop.Vlan, MTU: v.Hop.Mtu,
		}}
	}
	var err error
	k.indices, err = steering.RestoreIndices(used, now)
	return err
}

func nameOf(v bpfService) string {
	var b []byte
	for _, c := range v.Name {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

// vip is the VIP of a key.
func (k bpfVipKey) vip() VIP {
	a, bits := netip.AddrFrom16(k.Address.Bytes), int(k.Length)
	if a.Is4In6() {
		a, bits = a.Unmap(), bits-96
	}
	return VIP{Prefix: netip.PrefixFrom(a, bits), Port: bigEndian(k.Port), Protocol: k.Protocol}
}
