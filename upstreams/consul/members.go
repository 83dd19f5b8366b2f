package consul

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Member is an instance of a service with what whoever registered it says of it.
type Member struct {
	ID     string // node and service ID, with the datacenter
	Node   string
	Health Health
	Why    string // the health in words, with the check that says so
	Meta   map[string]string
}

// Maintenance is the health of an instance that somebody wants out.
const Maintenance Health = "maintenance"

// Query says whose instances are asked for.
type Query struct {
	Service     string
	Tag         string   // only those that have it; "" is all
	Datacenters []string // the agent's own when empty
}

// Members follows instances of services. Its methods are for any goroutine.
type Members struct {
	agent *agent
	log   *slog.Logger
	fails atomic.Uint64
}

// NewMembers asks the agent of a section with a key. Nothing is connected to before it is
// used.
func NewMembers(cfg AgentConfig, key string, log *slog.Logger) (*Members, error) {
	_, agent, err := newClient(cfg, key)
	if err != nil {
		return nil, err
	}
	return &Members{agent: agent, log: log}, nil
}

// Failures is how many queries were not answered.
func (m *Members) Failures() uint64 { return m.fails.Load() }

// Answer is what Consul says of a query.
type Answer struct {
	Members []Member  // in the order of their IDs
	At      time.Time // when the oldest part of it came
	Err     error     // why there is nothing new; the rest is as before then
}

// Follow tells every answer to a query, and that there is none, until ctx ends; never two
// at once. The first one with members has those of all datacenters: one that is away looks
// like one without instances.
func (m *Members) Follow(ctx context.Context, q Query, told func(Answer)) error {
	datacenters := q.Datacenters
	if len(datacenters) == 0 {
		datacenters = []string{""}
	}
	var mu sync.Mutex
	answers, failing := make([]answer, len(datacenters)), make([]error, len(datacenters))
	g, ctx := errgroup.WithContext(ctx)
	for i, dc := range datacenters {
		s := &source{agent: m.agent, service: q.Service, tag: q.Tag, datacenter: dc, read: (*entry).member, asking: make(chan struct{}, 1)}
		g.Go(func() error {
			s.follow(ctx, func(a answer) {
				mu.Lock()
				defer mu.Unlock()
				if failing[i] != nil {
					m.log.Info("consul answers again", "service", s.String())
				}
				answers[i], failing[i] = a, nil
				told(merge(answers, failing))
			}, func(err error) {
				m.fails.Add(1)
				mu.Lock()
				defer mu.Unlock()
				if failing[i] == nil {
					m.log.Warn("consul does not answer, backends stay as they are", "service", s.String(), "err", err)
				}
				failing[i] = err
				told(merge(answers, failing))
			})
			return nil
		})
	}
	return g.Wait()
}

// Close ends the connections.
func (m *Members) Close() { m.agent.http.CloseIdleConnections() }

// merge is what all datacenters said last.
func merge(answers []answer, failing []error) Answer {
	out := Answer{At: answers[0].at}
	for i, a := range answers {
		if failing[i] != nil {
			out.Err = failing[i]
		}
		if a.at.Before(out.At) {
			out.At = a.at
		}
		for _, is := range a.instances {
			out.Members = append(out.Members, *is.member)
		}
	}
	slices.SortFunc(out.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// health is the status for others.
func (s status) health() Health {
	switch s {
	case passing:
		return Passing
	case warning:
		return Warning
	case maintenance:
		return Maintenance
	}
	return Critical
}

// member is the entry as a member, which needs no address.
func (e *entry) member() parsed {
	status, why := e.status()
	id := e.Node.Datacenter + "/" + e.Node.Node + "/" + e.Service.ID
	return parsed{usable: true, instance: instance{member: &Member{ID: id, Node: e.Node.Node, Health: status.health(), Why: why, Meta: e.Service.Meta}}}
}
