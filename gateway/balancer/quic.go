package balancer

import (
	"fmt"
	"net/netip"
)

// Limits of draft-ietf-quic-load-balancers-21.
const (
	MaxRotation = 6  // of connection IDs; 7 says that an ID names no server
	MaxServerID = 15 // bytes
)

// maxServers are the server IDs that there may be (gateway/bpf/maps.h).
const maxServers = 65536

// QUIC is where the connection IDs of a service name its backends: in the bytes behind
// the first one, whose upper three bits are the rotation. The zero one is nowhere.
type QUIC struct {
	Rotation uint8 // 0 to [MaxRotation]
	ServerID int   // its length in bytes, 1 to [MaxServerID]; 0 for none
}

func (q QUIC) check() error {
	if q.Rotation > MaxRotation || q.ServerID < 0 || q.ServerID > MaxServerID {
		return fmt.Errorf("config rotation %d and server ID of %d bytes, want 0 to %d and 1 to %d", q.Rotation, q.ServerID, MaxRotation, MaxServerID)
	}
	return nil
}

// Own is the server ID of a backend that is not given another one, as bytes: the last ones
// of its locator and target, the same on all gateways.
func (q QUIC) Own(sid netip.Addr) string {
	a := sid.As16()
	whole := append(make([]byte, MaxServerID), a[:8]...)
	whole = append(whole, a[10:12]...)
	return string(whole[len(whole)-q.ServerID:])
}

// Server is a backend of a service as it calls itself in connection IDs.
type Server struct {
	Service int // below Options.Services
	ID      string
}

// SetServers says which backends connection IDs name, by the indices of those.
func (b *Balancer) SetServers(servers map[Server]int) error {
	if len(servers) > maxServers {
		return fmt.Errorf("%d server IDs, want at most %d", len(servers), maxServers)
	}
	next := make(map[bpfServerKey]uint32, len(servers))
	for s, index := range servers {
		k := bpfServerKey{Service: uint32(s.Service)}
		if copy(k.Id[:MaxServerID], s.ID) < len(s.ID) {
			return fmt.Errorf("server ID %x: %d bytes, want at most %d", s.ID, len(s.ID), MaxServerID)
		}
		next[k] = uint32(index)
	}
	if err := replace(b.objects.Servers, b.servers, next); err != nil {
		return fmt.Errorf("server IDs: %w", err)
	}
	b.servers = next
	return nil
}

// checkServers refuses server IDs that are not of the length that the service says, or of
// two backends.
func (s *PlannedService) checkServers() error {
	if err := s.QUIC.check(); err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	of := map[string]string{}
	for _, b := range s.Backends {
		if s.QUIC.ServerID == 0 {
			continue
		}
		id := s.QUIC.id(b)
		if len(id) != s.QUIC.ServerID {
			return fmt.Errorf("service %s: backend %s: server ID %x has %d bytes, want %d", s.Name, b.Name, id, len(id), s.QUIC.ServerID)
		}
		if other, ok := of[id]; ok {
			return fmt.Errorf("service %s: backends %s and %s have the server ID %x", s.Name, other, b.Name, id)
		}
		of[id] = b.Name
	}
	return nil
}

// id is the server ID of a backend.
func (q QUIC) id(b PlannedBackend) string {
	if b.ServerID != "" {
		return b.ServerID
	}
	return q.Own(b.SID)
}

// serversOf is whom the connection IDs of a plan's services name: who has flows.
func (k *Keeper) serversOf(p Plan, services map[string]*kept) map[Server]int {
	servers := map[Server]int{}
	for _, s := range p.Services {
		for _, b := range s.Backends {
			if s.QUIC.ServerID > 0 && b.State != Dead {
				servers[Server{services[s.Name].number, s.QUIC.id(b)}] = int(k.backends[b.SID].index)
			}
		}
	}
	return servers
}
