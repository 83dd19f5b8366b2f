package balancer

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/razor-steering/razor/steering"
)

// Copy is the tables of a keeper, for a mate.
type Copy struct {
	// Plan is the number of what the tables are: its term is when the process that
	// decided began, its sequence counts its changes.
	Plan     steering.PlanNumber `json:"plan"`
	Services []ServiceCopy       `json:"services"`
	// Decision is what the mate's plan was made of, for who decides after it; nil is none.
	Decision *steering.Plan `json:"decision,omitempty"`
}

// ServiceCopy is the table of a service, and what other sites get of its new flows.
type ServiceCopy struct {
	Name     string                `json:"name"`
	Table    []byte                `json:"table"`    // steering.Table.MarshalBinary
	Backends map[uint16]netip.Addr `json:"backends"` // SIDs by the indices in the table
	Spills   steering.Spills       `json:"spills"`
	Decided  bool                  `json:"decided"` // as in PlannedService
	Serves   bool                  `json:"serves"`  // somebody takes new flows
}

// MostCopied is how many bytes of JSON a copy has at most that as many services as there
// may be here fit into.
func (k *Keeper) MostCopied() int64 {
	const (
		table   = (steering.TableCopySize + 2) / 3 * 4                            // in base64
		backend = len(`"32767":"2001:0db8:0000:0000:0000:0000:0000:0001",`) + 400 // in the decision
		names   = 6*MaxServiceName + 1000                                         // of the service, escaped, and of all else
	)
	return int64(k.balancer.services) * int64(table+MaxBackends*backend+names)
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

// ErrNoTables is that a service has no slot with a backend, as at a start: mates are
// better off with what they have.
var ErrNoTables = errors.New("not all services have a table yet")

// Copy is the tables as they are, of who follows with what it copied. The error may be [ErrNoTables].
func (k *Keeper) Copy() (Copy, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.plan.Services {
		if !k.services[s.Name].serves && s.serves() {
			return Copy{}, ErrNoTables
		}
	}
	c := Copy{Plan: k.number, Decision: k.plan.Decision}
	if k.follows {
		c.Decision = k.decision
	}
	planned := map[string]PlannedService{}
	for _, s := range k.plan.Services {
		planned[s.Name] = s
	}
	sids := map[uint16]netip.Addr{}
	for sid, r := range k.backends {
		sids[r.index] = sid
	}
	for name, s := range k.services {
		table, err := s.table.MarshalBinary()
		if err != nil {
			return c, fmt.Errorf("table of service %s: %w", name, err)
		}
		p := planned[name]
		one := ServiceCopy{Name: name, Table: table, Backends: map[uint16]netip.Addr{}, Spills: p.Spills, Decided: p.Decided, Serves: p.serves()}
		if k.follows && s.copied != nil {
			one.Spills, one.Decided, one.Serves = s.copied.Spills, s.copied.Decided, s.copied.Serves
		}
		for _, index := range s.table.Backends() {
			one.Backends[index] = sids[index]
		}
		c.Services = append(c.Services, one)
	}
	return c, nil
}

// Follow has the tables be those of a mate, which [Keeper.Adopt] brings: of the own
// plan only dead backends are obeyed from then on, which have their slots again when they
// are dead no longer, and services that have no table. Until
// there is a copy, other sites get what was decided here last.
func (k *Keeper) Follow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.follows {
		return
	}
	k.follows, k.decision = true, nil
	for _, s := range k.plan.Services {
		own := k.services[s.Name]
		own.emptied, own.whole = !own.serves, own.table.Assignment()
		own.copied = &ServiceCopy{Name: s.Name, Spills: s.Spills, Decided: s.Decided, Serves: s.serves()}
	}
}

// GoOn has other sites get what an earlier process decided of services, until there is a
// copy, or this one decides.
func (k *Keeper) GoOn(before []ServiceCopy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range before {
		if own := k.services[s.Name]; own != nil {
			own.copied = &s
		}
	}
}

// Await has no VIP servable, and why, until a mate's copy is adopted; "" ends that at once.
func (k *Keeper) Await(why string) {
	defer k.changed()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.awaited = why
}

// Awaits tells whether a mate's copy is awaited.
func (k *Keeper) Awaits() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.awaited != ""
}

// Decide ends Follow: what is applied from then on decides the tables, which go on as they
// are. Until then other sites get what was copied. Its plans are after all that were copied.
func (k *Keeper) Decide(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.follows {
		return
	}
	k.follows = false
	k.plan.Services, k.plan.Decision = slices.Clone(k.plan.Services), k.decision
	for i := range k.plan.Services {
		s := &k.plan.Services[i]
		if c := k.services[s.Name].copied; c != nil {
			s.Spills, s.Decided = c.Spills, c.Decided
		}
	}
	k.number = steering.PlanNumber{Term: max(uint64(now.UnixNano()), k.number.Term+1, k.adopted.Term+1)}
	k.trust()
	k.next()
}

// HasTables tells whether some service has a slot with a backend, also of old flows alone.
func (k *Keeper) HasTables() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.services {
		if s.serves || len(s.table.Backends()) > 0 {
			return true
		}
	}
	return false
}

// Adopt makes the tables those of a mate's copy, with the services that both have. One
// that the copy leaves without a backend stays as it is as long as the own plan has some
// for new flows. An older copy of the same process than
// the one before is refused. Who decides has it that there is a way to those who are
// current there, as there is for the mate: it does not give their slots away before it
// has looked.
func (k *Keeper) Adopt(c Copy, now time.Time) error {
	defer k.changed()
	k.mu.Lock()
	defer k.mu.Unlock()
	tables, emptied := map[*kept]*steering.Table{}, map[*kept]bool{}
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
		emptied[own] = *table.Assignment() == (steering.Assignment{})
		if emptied[own] && own.serves && k.serves(s.Name) {
			continue
		}
		tables[own] = table
	}
	// A decider that started again has another term, and its clock may be behind: what
	// it says now is fresh all the same, as who asked made sure.
	again := c.Plan.Term != k.adopted.Term
	if !again && c.Plan.Compare(k.adopted) <= 0 {
		return fmt.Errorf("plan %v is not after plan %v", c.Plan, k.adopted)
	}
	for own, empty := range emptied {
		own.emptied = empty
	}
	for own, table := range tables {
		if err := k.adoptTable(own, table, again && k.adopted.Term != 0, now); err != nil {
			return err
		}
	}
	if !k.follows {
		k.trust()
	}
	k.adopted, k.decision, k.awaited = c.Plan, c.Decision, ""
	if k.follows {
		k.adoptSpills(c)
	}
	k.release(now)
	k.follow()
	k.next()
	return nil
}

// adoptSpills has services spill as a mate does.
func (k *Keeper) adoptSpills(c Copy) {
	for _, s := range c.Services {
		if own := k.services[s.Name]; own != nil {
			s.Table, s.Backends = nil, nil
			own.copied = &s
		}
	}
	k.sitesChanged()
}

// Adopted is the number of the last copy that was adopted; the zero one of none.
func (k *Keeper) Adopted() steering.PlanNumber {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.adopted
}

// Decision is what the plan of the mate that decides was made of, as of the last copy; nil
// if none had it.
func (k *Keeper) Decision() *steering.Plan {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.decision
}

// serves tells whether the own plan has a backend for new flows of a service.
func (k *Keeper) serves(name string) bool {
	return slices.ContainsFunc(k.plan.Services, func(s PlannedService) bool { return s.Name == name && s.serves() })
}

// trust takes those who are current in a table for found.
func (k *Keeper) trust() {
	current := map[uint16]bool{}
	for _, s := range k.services {
		for _, index := range s.table.Assignment() {
			current[index] = true
		}
	}
	for _, r := range k.backends {
		r.found = r.found || current[r.index]
	}
}

// adoptTable makes a service's table a copy, but for who is dead here: that does not get
// a packet in between. What a decider that started again does not know any more is kept:
// who had the flows before.
func (k *Keeper) adoptTable(own *kept, table *steering.Table, again bool, now time.Time) error {
	stores, err := own.become(table, again, now)
	if err != nil {
		return err
	}
	k.store(own, stores)
	own.settle()
	return nil
}

// become are the stores that make a service's table a copy.
func (s *kept) become(table *steering.Table, again bool, now time.Time) ([]steering.Store, error) {
	s.whole = table.Assignment()
	if again {
		return s.table.Apply(nil, s.whole, s.dead, now)
	}
	if _, err := table.Apply(nil, s.whole, s.dead, now); err != nil {
		return nil, err
	}
	return s.table.Become(nil, table, now), nil
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
