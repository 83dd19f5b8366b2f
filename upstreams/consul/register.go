package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

// Registration is an instance of a service as it is to be in Consul.
type Registration struct {
	Service string // its name
	ID      string // of the instance, unique at the agent of Consul
	Address netip.Addr
	Tags    []string
	Meta    map[string]string
	Health  Health
	Why     string // of the health, for people
	Absent  bool   // it is not to be there now
}

// Health is what a check says of an instance.
type Health string

// The healths. An instance with a warning is as good as one that passes.
const (
	Passing  Health = api.HealthPassing
	Warning  Health = api.HealthWarning
	Critical Health = api.HealthCritical
)

// Registrar keeps instances registered at an agent of Consul, each with a check that ends
// when nothing is heard of it for a TTL. An agent that is away, or forgets them, has them
// again as soon as it is back. Its methods but Run and Leave, which are called one after
// the other, are for any goroutine.
type Registrar struct {
	client *api.Client
	http   *http.Client
	prefix string // of the IDs of all instances that are its own
	ttl    time.Duration
	say    func() []Registration
	log    *slog.Logger
	wake   chan struct{}
	errs   atomic.Uint64
	said   bool // that Consul fails
	swept  bool // what was not to be there at the start is not

	mu     sync.Mutex
	known  map[string]Registration // at the agent, by ID
	failed error                   // of the last round; nil where it was whole
}

// NewRegistrar makes a registrar of what say says at each time, of a section with a key.
// All IDs have the prefix, and no others at that agent: what it has beside them is of an
// earlier configuration. Nothing is connected to before Run.
func NewRegistrar(cfg AgentConfig, key, prefix string, ttl time.Duration, say func() []Registration, log *slog.Logger) (*Registrar, error) {
	client, agent, err := newClient(cfg, key)
	if err != nil {
		return nil, err
	}
	return &Registrar{client: client, http: agent.http, prefix: prefix, ttl: ttl, say: say, log: log, wake: make(chan struct{}, 1), known: map[string]Registration{}}, nil
}

// Poke has Consul told at once. It does not wait.
func (r *Registrar) Poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Failed is why Consul does not have all as it is to be, "" if it has.
func (r *Registrar) Failed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return ""
	}
	return r.failed.Error()
}

// Registered tells whether Consul has an instance, as far as is known.
func (r *Registrar) Registered(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.known[id]
	return ok
}

// Failures is how many rounds failed.
func (r *Registrar) Failures() uint64 { return r.errs.Load() }

// Run keeps the instances registered until ctx ends. What is registered then stays so
// until its TTL has passed, or Leave is called.
func (r *Registrar) Run(ctx context.Context) {
	defer r.http.CloseIdleConnections()
	retry := retryFirst
	for {
		pause := r.ttl / 3
		if err := r.round(ctx); ctx.Err() == nil {
			r.settle(err)
			if err != nil {
				pause = min(retry, pause)
				retry = min(2*retry, retryLast)
			} else {
				retry = retryFirst
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-r.wake:
		}
	}
}

// settle notes how a round went, in the log once for each time that Consul fails.
func (r *Registrar) settle(err error) {
	r.mu.Lock()
	r.failed = err
	r.mu.Unlock()
	switch {
	case err != nil:
		r.errs.Add(1)
		if !r.said {
			r.log.Warn("consul does not take what is registered, trying again", "err", err)
		}
	case r.said:
		r.log.Info("consul takes what is registered again")
	}
	r.said = err != nil
}

// round makes Consul's agent have what it is to have. One instance that fails keeps no
// other away.
func (r *Registrar) round(ctx context.Context) error {
	all := r.say()
	if !r.swept {
		if err := r.sweep(ctx, all); err != nil {
			return err
		}
	}
	var errs []error
	for _, next := range all {
		if ctx.Err() != nil {
			break
		}
		if err := r.bring(ctx, next); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", next.ID, err))
		}
	}
	return errors.Join(errs...)
}

// sweep takes away what an earlier process has left and is not to be there now.
func (r *Registrar) sweep(ctx context.Context, all []Registration) error {
	ctx, cancel := request(ctx)
	defer cancel()
	there, err := r.client.Agent().ServicesWithFilterOpts("", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	for id, s := range there {
		wanted := slices.ContainsFunc(all, func(is Registration) bool { return is.ID == id && !is.Absent })
		if wanted || !strings.HasPrefix(id, r.prefix) {
			continue
		}
		if err := r.deregister(ctx, id); err != nil {
			return err
		}
		r.log.Info("deregistered from consul", "service", s.Service, "instance", id, "why", "left by an earlier process")
	}
	r.swept = true
	return nil
}

// request is a context for a request, which may end for a moment after ctx did.
func request(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := answered(ctx)
	ctx, stop := context.WithTimeout(ctx, requestTimeout)
	return ctx, func() { stop(); cancel() }
}

// bring has one instance be as it is to be.
func (r *Registrar) bring(ctx context.Context, next Registration) error {
	ctx, cancel := request(ctx)
	defer cancel()
	r.mu.Lock()
	was, known := r.known[next.ID]
	r.mu.Unlock()
	switch {
	case next.Absent && !known:
		return nil
	case next.Absent:
		if err := r.deregister(ctx, next.ID); err != nil {
			return err
		}
		r.log.Info("deregistered from consul", "service", next.Service, "instance", next.ID, "why", next.Why)
		r.note(next)
		return nil
	case known && was.same(&next):
		if err := r.update(ctx, next); !unknownCheck(err) {
			if err == nil {
				r.note(next)
			}
			return err
		}
		r.log.Warn("consul has forgotten an instance, registering it again", "service", next.Service, "instance", next.ID)
	}
	if err := r.register(ctx, next); err != nil {
		return err
	}
	if !known {
		r.log.Info("registered in consul", "service", next.Service, "instance", next.ID, "health", string(next.Health), "why", next.Why)
	}
	r.note(next)
	return r.update(ctx, next) // for its words, which a registration has not
}

// same tells whether two registrations differ in nothing but health.
func (r *Registration) same(as *Registration) bool {
	return r.Service == as.Service && r.Address == as.Address && slices.Equal(r.Tags, as.Tags) && maps.Equal(r.Meta, as.Meta)
}

// note keeps what Consul has now.
func (r *Registrar) note(is Registration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if is.Absent {
		delete(r.known, is.ID)
		return
	}
	r.known[is.ID] = is
}

func (r *Registrar) register(ctx context.Context, is Registration) error {
	return r.client.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: is.ID, Name: is.Service, Address: is.Address.String(), Tags: is.Tags, Meta: is.Meta,
		Check: &api.AgentServiceCheck{
			CheckID: checkOf(is.ID), Name: "razor agent", TTL: r.ttl.String(), Status: string(is.Health), Notes: "Health as razor agent tells gateways",
		},
	}, (&api.ServiceRegisterOpts{ReplaceExistingChecks: true}).WithContext(ctx))
}

func checkOf(id string) string { return "service:" + id }

func (r *Registrar) update(ctx context.Context, is Registration) error {
	return r.client.Agent().UpdateTTLOpts(checkOf(is.ID), is.Why, string(is.Health), (&api.QueryOptions{}).WithContext(ctx))
}

// deregister takes an instance away; one that is not there is away.
func (r *Registrar) deregister(ctx context.Context, id string) error {
	err := r.client.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
	if e, ok := errors.AsType[api.StatusError](err); ok && e.Code == http.StatusNotFound {
		return nil
	}
	return err
}

// unknownCheck tells whether an error is that Consul's agent does not have the check, as
// after it was started again without its data. Versions differ in the status.
func unknownCheck(err error) bool {
	e, ok := errors.AsType[api.StatusError](err)
	return ok && (e.Code == http.StatusNotFound || e.Code == http.StatusInternalServerError)
}

// Leave deregisters everything, once Run has returned.
func (r *Registrar) Leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	defer r.http.CloseIdleConnections()
	var errs []error
	for _, is := range r.say() { // also one whose registration got no answer
		if err := r.deregister(ctx, is.ID); err != nil {
			errs = append(errs, fmt.Errorf("%s stays in consul until its check ends: %w", is.ID, err))
		}
	}
	return errors.Join(errs...)
}
