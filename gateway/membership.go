package gateway

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// membersFile has, in the state directory, the backends that Consul and lists had last: a
// gateway that starts while Consul is away has them, and knows who is leaving.
const membersFile = "members.json"

// membership keeps the backends of the services that have them from Consul or from a list
// in Redis.
type membership struct {
	rounds

	log   *slog.Logger
	from  *consul.Members     // nil where no service is in Consul
	lists *upstreams.Follower // nil where no service is of a list
	saved *upstreams.Snapshot // what lists had at the start
	word  func(service string, sid netip.Addr) agentWord

	services map[string]*followed // what is in them is guarded
}

// followed is a service that Consul is asked for, or whose list is followed.
type followed struct {
	serviceMembers

	answer consul.Answer
	wire   string            // the name of the application of the list, in wire form
	heard  bool              // the lists were known in this process
	said   map[string]string // of what is left out, as it was logged
	saidOf string            // that is held
}

// newMembership is that of a configuration, nil where all services have their backends from
// the file. What a process before has kept in the state directory is there at once.
func newMembership(c *Config, lists *upstreams.Follower, log *slog.Logger) (m *membership, err error) {
	memberships := c.memberships()
	if len(memberships) == 0 {
		return nil, nil
	}
	m = &membership{log: log, services: map[string]*followed{}}
	m.rounds = newRounds(m, filepath.Join(c.StateDir, membersFile))
	block := netip.MustParsePrefix(c.Dataplane.SRBlock)
	for name, of := range memberships {
		f := &followed{serviceMembers: serviceMembers{upstream: of.upstream, site: c.Site, service: name, block: block, list: map[netip.Addr]member{}}}
		if of.consul != nil {
			f.config = *of.consul
			f.guard.Floor, _ = steering.ParseLimit(f.config.Floor) // as Check has seen it
			if m.from == nil {
				m.from, err = consul.NewMembers(c.Consul, "gateway.consul", log)
			}
		} else {
			m.lists, m.saved = lists, lists.Snapshot()
			f.wire, err = upstreams.WireName(of.upstream)
		}
		if err != nil {
			return nil, err
		}
		m.services[name] = f
	}
	m.load()
	return m, nil
}

// load reads what a process before has kept.
func (m *membership) load() {
	var saved map[string]map[netip.Addr]member
	err := readKept(m.file, &saved)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("the backends that consul or lists had before are not known", "err", err)
		return
	}
	for name, list := range saved {
		f := m.services[name]
		if f == nil {
			continue
		}
		f.list = list
		for _, is := range list {
			if f.upstream == "" && f.willed(is) {
				m.log.Warn("backends are those of another query until consul answers this one", "service", name, "were", is.Of, "want", f.query())
				break
			}
		}
	}
}

// kept is the backends of all services.
func (m *membership) kept() any {
	out := map[string]map[netip.Addr]member{}
	for name, f := range m.services {
		out[name] = f.list
	}
	return out
}

// in is a configuration with the backends that there are now. nil has none.
func (m *membership) in(c *Config) *Config {
	if m == nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := *c
	out.Services = slices.Clone(c.Services)
	for i := range out.Services {
		if f := m.services[out.Services[i].Name]; f != nil {
			out.Services[i].Backends = f.backends()
		}
	}
	return &out
}

// run follows Consul and the lists until ctx ends.
func (m *membership) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if m.from != nil {
		defer m.from.Close()
	}
	if m.lists != nil {
		g.Go(func() error { watchLists(ctx, m.lists, m.poke); return nil })
	}
	for _, f := range m.services {
		if f.upstream != "" {
			continue
		}
		q := consul.Query{Service: f.config.Service, Tag: f.config.Tag, Datacenters: f.config.Datacenters}
		g.Go(func() error {
			return m.from.Follow(ctx, q, func(a consul.Answer) {
				m.mu.Lock()
				f.answer = a
				m.mu.Unlock()
				m.poke()
			})
		})
	}
	g.Go(func() error { m.loop(ctx); return nil })
	return g.Wait()
}

// hear brings the lists up to date.
func (m *membership) hear(now time.Time) (changed bool, again time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.services {
		other, at := m.hearOf(f, now)
		changed, again = changed || other, soonest(again, at)
		m.say(f)
	}
	return changed, again
}

// hearOf brings the list of a service up to date. Before all have answered, or the lists were
// read, what was kept stays.
func (m *membership) hearOf(f *followed, now time.Time) (changed bool, again time.Time) {
	word := func(sid netip.Addr) agentWord { return m.word(f.service, sid) }
	if f.upstream == "" {
		if f.answer.At.IsZero() {
			return false, time.Time{}
		}
		return f.next(f.answer.Members, word, now)
	}
	snapshot := m.lists.Snapshot()
	if !f.heard {
		if snapshot == m.saved && len(f.list) > 0 && m.lists.Health().FromDisk {
			return false, now.Add(wordPause) // that may be older than what is kept here
		}
		if f.heard = !snapshot.Empty(); !f.heard { // an empty Redis may have lost what is kept here
			return false, time.Time{}
		}
	}
	var endpoints []upstreams.Endpoint
	if list := snapshot.Upstream(f.wire); list != nil {
		endpoints = list.Endpoints
	}
	return f.nextOf(endpoints, word, now)
}

func (m *membership) sayApplied(err error) {
	if err != nil {
		m.log.Error("backends of consul or lists are not applied, the plan stays as it is", "err", err)
		return
	}
	m.log.Info("backends of consul or lists are applied again")
}

func (m *membership) sayLost(err error) {
	m.log.Warn("the backends that consul or lists have are not kept over a restart", "err", err)
}

// say logs what is left out and held, once for each change.
func (m *membership) say(f *followed) {
	for id, why := range f.bad {
		switch {
		case f.said[id] == why:
		case f.upstream != "":
			m.log.Warn("endpoint left out, it cannot be a backend", "service", f.service, "list", f.key(), "member", id, "reason", why)
		default:
			m.log.Warn("instance in consul left out", "service", f.service, "instance", id, "reason", why)
		}
	}
	f.said = f.bad
	switch {
	case f.held != "" && f.saidOf == "":
		m.log.Error("backends that consul does not have, or calls critical, are held", "service", f.service, "why", f.held)
	case f.held == "" && f.saidOf != "":
		m.log.Info("consul is believed again", "service", f.service)
	}
	f.saidOf = f.held
}

// word is what is known here of the agent of a backend.
func (r *reports) word(service string, sid netip.Addr) agentWord {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.judged[service].findings
	is := of[sid]
	word := agentWord{spoke: r.told[sid] != nil, dead: is.Standing == steering.StandingDead, silent: is.Claimed == steering.StandingDead}
	for _, f := range of {
		disbelieved := f.Claimed == steering.StandingDead && f.Standing != steering.StandingDead && f.Reason != ""
		word.silent = word.silent && !disbelieved
	}
	return word
}
