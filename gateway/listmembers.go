package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/upstreams"
)

// key is that of the list in Redis.
func (m *serviceMembers) key() string { return m.upstream + ":UPSTREAMS" }

// nextOf is next for a list of endpoints in Redis.
func (m *serviceMembers) nextOf(endpoints []upstreams.Endpoint, word func(netip.Addr) agentWord, now time.Time) (changed bool, again time.Time) {
	specs, bad := m.listed(endpoints)
	return m.settle(specs, bad, word, now)
}

// listed reads a list. Of two endpoints for one backend the first counts.
func (m *serviceMembers) listed(endpoints []upstreams.Endpoint) (map[netip.Addr]*spec, map[string]string) {
	out, bad := map[netip.Addr]*spec{}, map[string]string{}
	for _, e := range endpoints {
		if m.site != "" && e.Site != "" && e.Site != m.site {
			continue // another site's
		}
		sid, is, err := m.endpoint(e)
		if was := out[sid]; err == nil && was != nil {
			err = fmt.Errorf("its SID %v is that of %s too", sid, was.ID)
		}
		if err != nil {
			bad[e.Addr.String()] = err.Error()
			continue
		}
		out[sid] = &spec{member: is}
	}
	return out, bad
}

// endpoint takes an endpoint for a backend: its locator is the /64 of the address, its
// target that in the endpoint's SID, the host itself without one.
func (m *serviceMembers) endpoint(e upstreams.Endpoint) (sid netip.Addr, is member, err error) {
	address := e.Addr.Addr()
	if !address.Is6() {
		return sid, is, errors.New("an IPv4 address: want an IPv6 one inside of gateway.dataplane.sr_block")
	}
	if !m.block.Contains(address) {
		return sid, is, fmt.Errorf("outside of gateway.dataplane.sr_block, %v", m.block)
	}
	locator := netip.PrefixFrom(address, 64).Masked()
	sid = balancer.Hunt(locator, 0)
	name, target := address.String(), 0
	if e.SID.IsValid() {
		bytes := e.SID.As16()
		target = int(binary.BigEndian.Uint16(bytes[10:]))
		if said := balancer.Hunt(locator, uint16(target)); said != e.SID {
			return sid, is, fmt.Errorf("sid %v: want %v, or that of a container of this host", e.SID, sid)
		}
		sid = e.SID
	}
	if target > 0 {
		name += "/" + strconv.Itoa(target)
	}
	return sid, member{ID: e.Addr.String(), Name: name, Locator: locator.String(), Target: target, Weight: int(e.Weight)}, nil
}
