package balancer

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/steering"
)

const rowMark = 1 << 30

// flow is that of a packet with ports.
func (p *parsed) flow() Flow {
	return Flow{
		Client:   netip.AddrPortFrom(p.source, p.ports[0]),
		VIP:      netip.AddrPortFrom(p.destination, p.ports[1]),
		Protocol: p.protocol,
	}
}

// prefer is who has the flow of a packet by its pin, 0 for nobody. A SYN ends the pin,
// and another packet renews it.
func (m *model) prefer(f Flow, service int, hash uint64, flags byte) uint32 {
	if !m.marked(service, hash) {
		return 0
	}
	if flags&syn != 0 {
		delete(m.pins, f)
		return 0
	}
	if pin := m.alive(f, service); pin != nil {
		pin.Used = uptime()
		if flags&(fin|rst) != 0 {
			pin.Closing = 1
		}
	}
	return m.owner(f, service, hash)
}

// owner is who has a flow by its pin.
func (m *model) owner(f Flow, service int, hash uint64) uint32 {
	pin := m.alive(f, service)
	if pin == nil || !m.marked(service, hash) || !m.backends[pin.Backend].Found {
		return 0
	}
	return pin.Backend
}

func (m *model) marked(service int, hash uint64) bool {
	return m.rows[[2]uint32{uint32(service), steering.FlowSlot(hash)}]&rowMark != 0
}

// alive is the pin of a flow of a service unless it is idle.
func (m *model) alive(f Flow, service int) *bpfPin {
	pin := m.pins[f]
	if pin == nil || int(pin.Service) != service || f.Protocol != unix.IPPROTO_TCP {
		return nil
	}
	limit := int32(600)
	if pin.Closing != 0 {
		limit = 60
	}
	if int32(uptime()-pin.Used) > limit {
		return nil
	}
	return pin
}

// sendPinned sends a packet to the owner of its flow, with the row's behind.
func (m *model) sendPinned(frame []byte, p *parsed, hash uint64, owner, current, other uint32, counted ...string) verdict {
	m.hits++
	if m.backends[owner].Hop.Index == 0 {
		return drop(frame, append(counted, "no_neighbour")...)
	}
	list := [][16]byte{m.backend(owner).SID.As16()}
	for _, i := range []uint32{current, other} {
		if i != 0 && i != owner && m.backends[i].Hop.Index != 0 {
			list = append(list, m.backend(i).SID.As16())
		}
	}
	return m.encapsulate(frame, p, m.source(hash, 0), hash, list, m.backend(owner).Hop, counted...)
}

// flowOf is the flow that a frame is of, or that the error in it speaks of, and the
// service and hash that it has.
func (m *model) flowOf(frame []byte) (f Flow, service int, hash uint64, ok bool) {
	p := read(frame)
	if p == nil || p.malformed || p.fragment != 0 {
		return f, 0, 0, false
	}
	f = p.flow()
	if p.protocol == unix.IPPROTO_ICMP || p.protocol == unix.IPPROTO_ICMPV6 {
		header, at, size := 20, 16, 4 // where the address of the client is
		if p.family == 6 {
			header, at, size = 40, 24, 16
		}
		b := frame[p.l4+8:]
		if len(b) < header+8 {
			return f, 0, 0, false
		}
		client, _ := netip.AddrFromSlice(b[at : at+size])
		f.Client = netip.AddrPortFrom(client, binary.BigEndian.Uint16(b[header+2:]))
		f.VIP = netip.AddrPortFrom(p.destination, binary.BigEndian.Uint16(b[header:]))
		f.Protocol = unix.IPPROTO_TCP
	}
	a, ok := m.find(f.VIP.Addr(), f.VIP.Port(), f.Protocol, false)
	if !ok || f.Protocol != unix.IPPROTO_TCP {
		return f, 0, 0, false
	}
	return f, a.Service, m.hash(a.Service, f.Client.Addr(), f.Client.Port(), f.VIP.Port(), f.Protocol), true
}
