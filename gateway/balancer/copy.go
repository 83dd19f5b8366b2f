package balancer

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Copy is the tables of a keeper, for a mate.
type Copy struct {
	// Plan is the number of what the tables are: its term is when the process that
	// decided began, its sequence counts its changes.
	Plan     steering.PlanNumber `json:"plan"`
	Services []ServiceCopy       `json:"services"`
}

// ServiceCopy is the table of a service.
type ServiceCopy struct {
	Name     string                `json:"name"`
	Table    []byte                `json:"table"`    // steering.Table.MarshalBinary
	Backends map[uint16]netip.Addr `json:"backends"` // SIDs by the indices in the table
}

// next tells mates that the tables are others now.
func (k *Keeper) next() {
	k.number.Sequence++
	close(k.news)
	k.news = make(chan struct{})
}

// Number is the number of what the tables are, and a channel that is closed when they
// are others.
func (k *Keeper) Number() (steering.PlanNumber, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.number, k.news
}

// Copy is the tables as they are.
func (k *Keeper) Copy() (Copy, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := Copy{Plan: k.number}
	sids := map[uint16]netip.Addr{}
	for sid, r := range k.backends {
		sids[r.index] = sid
	}
	for name, s := range k.services {
		table, err := s.table.MarshalBinary()
		if err != nil {
			return c, fmt.Errorf("table of service %s: %w", name, err)
		}
		one := ServiceCopy{Name: name, Table: table, Backends: map[uint16]netip.Addr{}}
		for _, index := range s.table.Backends() {
			one.Backends[index] = sids[index]
		}
		c.Services = append(c.Services, one)
	}
	return c, nil
}

// Follow has the tables be those of a mate, which [Keeper.Adopt] brings: of the own
// plan only dead backends are obeyed from then on, and services that have no table.
func (k *Keeper) Follow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.follows = true
}

// Adopt makes the tables those of a mate's copy, with the services that both have. An
// older copy than the one before is refused.
func (k *Keeper) Adopt(c Copy, now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	tables := map[*kept]*steering.Table{}
	for _, s := range c.Services {
		own := k.services[s.Name]
		if own == nil {
			continue
		}
		table, err := steering.UnmarshalTable(s.Table, now)
		if err != nil {
			return fmt.Errorf("table of service %s: %w", s.Name, err)
		}
		here := map[uint16]uint16{}
		for index, sid := range s.Backends {
			if here[index], err = k.known(sid, now); err != nil {
				return fmt.Errorf("table of service %s: %w", s.Name, err)
			}
		}
		if err := table.Renumber(here); err != nil {
			return fmt.Errorf("table of service %s: %w", s.Name, err)
		}
		tables[own] = table
	}
	if err := k.adopted.Advance(c.Plan); err != nil {
		return err
	}
	for own, table := range tables {
		k.store(own, own.table.Become(nil, table, now))
	}
	k.release(now)
	k.follow()
	return nil
}

// known is the index of a backend, which it gets if it has none.
func (k *Keeper) known(sid netip.Addr, now time.Time) (uint16, error) {
	if r, ok := k.backends[sid]; ok {
		return r.index, nil
	}
	if !sid.Is6() || sid.Is4In6() {
		return 0, fmt.Errorf("SID %s is not an IPv6 address", sid)
	}
	index, err := k.indices.Get(sid.String(), now)
	if err != nil {
		return 0, fmt.Errorf("backend %s: %w", sid, err)
	}
	if err := k.balancer.SetBackend(int(index), Backend{SID: sid}); err != nil {
		return 0, err
	}
	k.backends[sid] = &reached{index: index, name: sid.String(), why: "not looked up yet"}
	return index, nil
}
