package balancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

// State is what a backend is to do.
type State string

// States of a backend.
const (
	Active   State = "active"
	Draining State = "draining" // no new flows; it keeps those that it has
	Dead     State = "dead"     // its flows are lost: nothing is sent there
)

// Plan is what a balancer is to do: its services, by names that are unique.
type Plan struct {
	Sites      []PlannedSite // others, in the order in which a flow is looked for there
	MissBudget uint64        // packets a second that other sites are asked about
	Services   []PlannedService
	Decision   *steering.Plan // that it was made of, for mates; nil is none
}

// PlannedService is a service of a plan.
type PlannedService struct {
	Service
	VIPs     []VIP
	Backends []PlannedBackend
	Spills   steering.Spills // to sites of the plan; those of Service are the keeper's
	// Decided says that Spills are what other sites get also where nobody here takes new
	// flows, as long as there is a way to them. Else one of them gets all then.
	Decided bool
}

// PlannedBackend is a backend of a service. A backend that a plan has no longer is
// taken for dead.
type PlannedBackend struct {
	Name   string     // in logs
	SID    netip.Addr // hunt; what a backend is known by
	Weight uint32
	State  State
	// Gone is that nothing is sent there, as its host is gone: there is no way to it, whatever
	// the kernel says. Its flows wait, and are looked for elsewhere.
	Gone bool
	// ServerID is what the backend calls itself in connection IDs of QUIC, as bytes; ""
	// for that of its SID ([QUIC.Own]).
	ServerID string
}

// ageEvery is how often it is looked who is previous no longer.
const ageEvery = time.Minute

// Keeper keeps the tables of a balancer as plans want them. Its methods are for any
// goroutine.
type Keeper struct {
	log     *slog.Logger
	hops    *Hops
	changed func()

	mu       sync.Mutex
	balancer *Balancer
	plan     Plan
	ways     map[string]bool     // whether there is one to each other site
	away     map[netip.Addr]bool // entries of other sites' gateways that do not answer
	number   steering.PlanNumber // of what the tables are now
	news     chan struct{}       // closed when the number is another
	follows  bool                // tables are a mate's
	adopted  steering.PlanNumber // of its last copy
	awaited  string              // why no VIP is servable before a mate's copy
	decision *steering.Plan      // likewise; nil is none
	services map[string]*kept
	indices  *steering.Indices
	backends map[netip.Addr]*reached
	pins     pinned
	paths    struct{ heard, refused uint64 } // what routers said of them
}

// kept is a service that the balancer has.
type kept struct {
	number  int // of the table
	table   *steering.Table
	vips    map[VIP]int          // numbers of their counters
	marked  map[uint32]bool      // slots that may have pins
	hashed  Service              // as it hashes
	planned map[uint16]bool      // backends of the plan that are not dead
	members map[uint16]bool      // backends that may own flows: those, and what a mate's table has
	dead    []uint16             // backends that the plan calls dead
	serves  bool                 // some slot has a backend
	emptied bool                 // a mate's last copy has none
	whole   *steering.Assignment // of that copy, also with who is dead here; nil is none
	copied  *ServiceCopy         // that copy, but for its table; nil is none
}

// settle notes whom the table has, and whether it serves anybody.
func (s *kept) settle() {
	s.serves = *s.table.Assignment() != (steering.Assignment{})
	s.members = maps.Clone(s.planned)
	if s.members == nil {
		s.members = map[uint16]bool{}
	}
	for _, index := range s.table.Backends() {
		s.members[index] = true
	}
}

// reached is a backend that some table has.
type reached struct {
	index uint16
	name  string
	hop   Hop
	why   string  // the hop is not resolved
	found bool    // it was once: a new backend gets no flows before
	path  smaller // than the hop says
	gone  bool    // its host is, as the plan has it
}

// NewKeeper makes the keeper of a balancer. What an earlier process has put there goes
// on: its tables are read, never made anew.
// changed is called when Servable may say something else, with nothing locked.
func NewKeeper(b *Balancer, log *slog.Logger, now time.Time, changed func()) (*Keeper, error) {
	k := &Keeper{log: log, changed: changed, number: steering.PlanNumber{Term: uint64(now.UnixNano())}, news: make(chan struct{}), balancer: b, services: map[string]*kept{}, backends: map[netip.Addr]*reached{}}
	k.hops = NewHops(log, k.hopsChanged)
	return k, k.restore(now)
}

// Generic says that the balancer is behind the drivers of all its interfaces, and so can
// send into any. It is called before Run.
func (k *Keeper) Generic() { k.hops.Generic() }

// Run follows next hops and what routers say of paths, moves those who were previous for
// long enough to the histories, and ends idle pins, until ctx ends; in the network
// namespace of the calling goroutine. What was applied stays in the balancer.
func (k *Keeper) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.listenPaths(ctx) })
	g.Go(func() error { k.tick(ctx); return nil })
	err := k.hops.Run(ctx) // which is in the right namespace on this goroutine
	stop()
	return errors.Join(err, g.Wait())
}

// tick does what is due by the clock.
func (k *Keeper) tick(ctx context.Context) {
	age, sweep := time.NewTicker(ageEvery), time.NewTicker(sweepEvery)
	defer age.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-age.C:
			k.age(now)
		case now := <-sweep.C:
			k.mu.Lock()
			k.sweepNow()
			k.forgetPaths(now)
			k.mu.Unlock()
		}
	}
}

func (k *Keeper) age(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.follows { // the tables are a mate's
		k.release(now)
		return
	}
	changed := false
	for _, s := range k.services {
		stores := s.table.Age(nil, now)
		if len(stores) > 0 {
			changed = true
			k.store(s, stores)
			s.settle()
		}
	}
	k.release(now)
	if changed {
		k.next()
	}
}

// Apply makes a plan the one that is kept. One that contradicts itself or does not fit
// is refused whole.
func (k *Keeper) Apply(p Plan, now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.check(p); err != nil {
		return err
	}
	if err := k.admit(p, now); err != nil {
		return err
	}
	services, err := k.assignServices(p, now)
	if err != nil {
		return err
	}
	if err := k.applySites(p); err != nil {
		return err
	}
	for _, s := range p.Services {
		if err := k.balancer.SetService(services[s.Name].number, k.spilled(p, s)); err != nil {
			return err
		}
		if err := k.applyService(services[s.Name], s, now); err != nil {
			return err
		}
	}
	if err := k.balancer.SetServers(k.serversOf(p, services)); err != nil {
		return err
	}
	if err := k.balancer.SetVIPs(vipsOf(p, services)); err != nil {
		return err
	}
	k.retire(services, now)
	k.plan, k.services = p, services
	k.leaveOut(p)
	k.sweepNow() // before an index that pins have is another backend's
	k.release(now)
	k.next()
	k.follow()
	return nil
}

// applyService fills the table of a service.
func (k *Keeper) applyService(to *kept, s PlannedService, now time.Time) error {
	var serving []steering.Backend
	planned := map[uint16]bool{}
	var dead []uint16
	for _, b := range s.Backends {
		index := k.backends[b.SID].index
		switch b.State {
		case Dead:
			dead = append(dead, index)
			continue
		case Active:
			if !k.backends[b.SID].found {
				break
			}
			serving = append(serving, steering.Backend{Index: index, Key: b.SID.String(), Weight: b.Weight})
		}
		planned[index] = true
	}
	to.dead = slices.Clone(dead) // which keep their indices, being in the plan
	for _, index := range to.table.Backends() {
		if !planned[index] && !k.follows {
			dead = append(dead, index)
		}
	}
	next := to.table.Assignment()
	switch {
	case k.follows && to.emptied && !s.serves():
		next = new(steering.Assignment)
	case k.follows && to.whole != nil && *to.whole != (steering.Assignment{}):
		next = to.whole // who was dead has its slots again
	case !k.follows || *next == (steering.Assignment{}):
		var err error
		if next, err = steering.Maglev(next, serving); err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	stores, err := to.table.Apply(nil, next, dead, now)
	if err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	to.hashed, to.planned = s.Service, planned
	k.store(to, stores)
	to.settle()
	return nil
}

// leaveOut has nothing sent to whom all services of a plan that have it call gone, and to
// others as before.
func (k *Keeper) leaveOut(p Plan) {
	gone := map[netip.Addr]bool{}
	for _, s := range p.Services {
		for _, b := range s.Backends {
			if was, known := gone[b.SID]; b.State != Dead {
				gone[b.SID] = b.Gone && (was || !known)
			}
		}
	}
	for sid, r := range k.backends {
		if r.gone != gone[sid] {
			r.gone = gone[sid]
			k.setHop(sid, r)
		}
	}
}

func (k *Keeper) store(to *kept, stores []steering.Store) {
	for _, s := range stores {
		if s.History {
			k.balancer.SetHistory(to.number, int(s.Slot), s.Value)
		} else {
			k.balancer.SetRow(to.number, int(s.Slot), uint32(s.Value))
		}
	}
}

// retire empties the tables of services that are gone; no VIP leads there any more.
func (k *Keeper) retire(services map[string]*kept, now time.Time) {
	for name, s := range k.services {
		if services[name] == nil {
			k.store(s, steering.NewTable(now).All(nil))
			if err := k.balancer.SetService(s.number, Service{}); err != nil {
				k.log.Error("service not removed", "service", name, "err", err)
			}
		}
	}
}

// release frees the backends that no table and no plan has.
func (k *Keeper) release(now time.Time) {
	used := make([]bool, MaxBackends+1)
	for _, s := range k.services {
		for _, index := range s.table.Backends() {
			used[index] = true
		}
		if k.follows && s.whole != nil {
			for _, index := range s.whole {
				used[index] = true
			}
		}
	}
	for _, s := range k.plan.Services {
		for _, b := range s.Backends {
			used[k.backends[b.SID].index] = true
		}
	}
	for _, a := range k.plan.entries() {
		used[k.backends[a].index] = true
	}
	for sid, r := range k.backends {
		if used[r.index] || k.pins.owners[r.index] {
			continue
		}
		if err := k.balancer.SetBackend(int(r.index), Backend{}); err != nil {
			k.log.Error("backend not removed", "backend", r.name, "sid", sid, "err", err)
			continue
		}
		k.indices.Release(sid.String(), now)
		delete(k.backends, sid)
	}
}

// follow has the next hops of all backends looked for.
func (k *Keeper) follow() {
	sids := make([]netip.Addr, 0, len(k.backends))
	for sid := range k.backends {
		sids = append(sids, sid)
	}
	k.hops.Set(sids)
}

// hopsChanged gives the balancer the next hops that are others now.
func (k *Keeper) hopsChanged(changes []HopChange) {
	defer k.changed()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loseEntries(changes)
	joined, gained := false, false
	for _, c := range changes {
		r, ok := k.backends[c.Address]
		if !ok {
			continue
		}
		if c.Hop.Index == 0 {
			k.log.Warn("no way to a backend", "backend", r.name, "sid", c.Address, "reason", c.Reason)
		} else if r.hop.Index == 0 {
			k.log.Info("way to a backend", "backend", r.name, "sid", c.Address, "interface", c.Hop.Index, "mtu", c.Hop.MTU)
		}
		joined = joined || !r.found && c.Hop.Index != 0 && k.plan.has(c.Address)
		gained = gained || r.hop.Index == 0 && c.Hop.Index != 0 && slices.Contains(k.plan.entries(), c.Address)
		r.hop, r.why, r.found = c.Hop, c.Reason, r.found || c.Hop.Index != 0
		k.setHop(c.Address, r)
	}
	if gained {
		k.sitesChanged()
	}
	if !joined {
		return
	}
	defer k.next()
	for _, s := range k.plan.Services {
		if k.follows && k.services[s.Name].serves {
			continue // its table is the mate's to change
		}
		if err := k.applyService(k.services[s.Name], s, time.Now()); err != nil {
			k.log.Error("backends do not join", "service", s.Name, "err", err)
		}
	}
}
