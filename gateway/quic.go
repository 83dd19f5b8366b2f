package gateway

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/razor-steering/razor/gateway/balancer"
)

// QUICConfig is `quic:` of a service: where connection IDs name its backends.
type QUICConfig struct {
	Rotation       int `yaml:"rotation"`         // of the IDs that do
	ServerIDLength int `yaml:"server_id_length"` // in bytes
}

// defaultServerIDLength has two bytes of a locator, and the target.
const defaultServerIDLength = 4

// quic names what is wrong with the server IDs of a service.
func (d *defects) quic(key string, s *ServiceConfig) {
	if s.QUIC != nil {
		d.number(key+".quic.rotation", s.QUIC.Rotation, 0, balancer.MaxRotation)
		d.number(key+".quic.server_id_length", s.QUIC.ServerIDLength, 1, balancer.MaxServerID)
	}
	length, of := s.QUIC.plan().ServerID, map[string]string{}
	for i := range s.Backends {
		b, key := &s.Backends[i], key+".backends["+strconv.Itoa(i)+"].server_id"
		if length == 0 {
			if s.QUIC == nil && b.ServerID != "" {
				d.add(key, b.ServerID, "the service has no quic", "quic: {} of the service, or no server_id")
			}
			continue
		}
		id, err := hex.DecodeString(b.ServerID)
		if err != nil || len(id) > 0 && len(id) != length {
			d.add(key, b.ServerID, "not a server ID", fmt.Sprintf("%d hexadecimal digits", 2*length))
			continue
		}
		if sid, ok := b.sid(); len(id) == 0 && ok {
			id = []byte(s.QUIC.plan().Own(sid))
		}
		if other, twice := of[string(id)]; twice && len(id) > 0 {
			d.add(key, hex.EncodeToString(id), "also that of backend "+other, "each server ID once: another one here, or a greater server_id_length")
		}
		of[string(id)] = b.Name
	}
}

// plan is what the balancer has to know of QUIC.
func (c *QUICConfig) plan() balancer.QUIC {
	if c == nil || c.ServerIDLength < 1 || c.ServerIDLength > balancer.MaxServerID {
		return balancer.QUIC{}
	}
	return balancer.QUIC{Rotation: uint8(c.Rotation), ServerID: c.ServerIDLength}
}

// serverID is the name of a backend in connection IDs, as bytes; "" is that of its SID.
func (b *BackendConfig) serverID() string {
	id, _ := hex.DecodeString(b.ServerID) // as Check has seen it
	return string(id)
}
