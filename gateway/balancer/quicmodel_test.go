package balancer

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// named is the backend that the connection ID in a packet names, 0 for none.
func (m *model) named(p *parsed, service int) uint32 {
	q := m.services[service].QUIC
	b := p.l3bytes[min(p.l4-p.l3, len(p.l3bytes)):]
	if q.ServerID == 0 || p.protocol != unix.IPPROTO_UDP || p.fragment != 0 || len(b) < 8+22 {
		return 0
	}
	b = b[8:]
	id := b[1:]
	if b[0]&0x80 != 0 {
		version, kind := binary.BigEndian.Uint32(b[1:]), b[0]>>4&3
		begins := map[uint32][]byte{1: {0, 1}, 0x6b3343cf: {1, 2}}[version] // Initial, 0-RTT
		if slices.Contains(begins, kind) || int(b[5]) < 1+q.ServerID+4 {
			return 0
		}
		id = b[6:]
	}
	i := uint32(m.servers[Server{service, string(id[1 : 1+q.ServerID])}])
	if id[0]>>5 != q.Rotation || m.backends[i].Hop.Index == 0 {
		return 0
	}
	return i
}
