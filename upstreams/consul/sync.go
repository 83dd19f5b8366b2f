// Package consul keeps upstream lists as the health of services in Consul is: the
// sync. A guard stands before every list, so that a mistake in Consul cannot take
// the service away that the list stands for.
package consul

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/upstreams"
)

// Sync keeps the upstream lists of its configuration.
type Sync struct {
	log     *slog.Logger
	client  *api.Client
	agent   *agent
	writer  *upstreams.Writer
	lock    *lock
	metrics *metrics
	keepers []*keeper
	https   bool
	asking  map[string]chan struct{} // by datacenter; has an element for each query that does not wait
}

// New makes a sync. Nothing is connected to before it is used. reg may be nil.
func New(cfg Config, redis upstreams.Config, log *slog.Logger, reg prometheus.Registerer) (*Sync, error) {
	client, agent, err := newClient(cfg.Consul, "sync.consul")
	if err != nil {
		return nil, err
	}
	if len(cfg.Lists) == 0 {
		return nil, upstreams.Defect{Key: "sync.lists", Reason: "missing", Want: "a list with app and service"}
	}
	s := &Sync{
		log: log, client: client, agent: agent, writer: upstreams.NewWriter(redis),
		https: strings.HasPrefix(cfg.Consul.Address, "https:"), asking: map[string]chan struct{}{},
	}
	s.lock = newLock(client, cfg.Lock, "", syncLock, log, s.awake)
	s.metrics = newMetrics(reg, s)
	for _, l := range cfg.Lists {
		s.keepers = append(s.keepers, newKeeper(l, s))
	}
	return s, nil
}

// Run keeps the lists until ctx ends. Of several syncs with one lock one is
// active; the others follow Consul too, so that they can take over at once.
// ready is told, ten times a second, whether the sync does what it is there for,
// and its state in one line.
func (s *Sync) Run(ctx context.Context, ready func(ok bool, state string)) error {
	defer s.writer.Close()
	defer s.agent.http.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.lock.run(ctx) })
	for _, k := range s.keepers {
		g.Go(func() error { k.run(ctx, s.lock); return nil })
	}
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.watchPrimary(ctx) })
	g.Go(func() error { return s.report(ctx, ready) })
	s.log.Info("syncing", "lists", len(s.keepers), "who", s.lock.who)
	err := g.Wait()
	s.log.Info("stopped")
	return err
}

// awake has every keeper look at its list.
func (s *Sync) awake() {
	for _, k := range s.keepers {
		k.awake()
	}
}

// watchPrimary has the lists looked at when the Redis primary is another one, or
// was started again: writes may be lost.
func (s *Sync) watchPrimary(ctx context.Context) error {
	tick := time.NewTicker(lookError)
	defer tick.Stop()
	for last := ""; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, active := s.lock.held(); !active {
			continue
		}
		id, err := s.writer.ReplicationID(ctx)
		if err != nil || id == last {
			continue
		}
		if last != "" {
			s.log.Warn("another redis primary, or started again: looking at all lists")
			s.awake()
		}
		last = id
	}
}

// follow keeps what Consul says of every list.
func (s *Sync) follow(ctx context.Context) error {
	if err := s.fits(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, k := range s.keepers {
		for i := range k.sources {
			g.Go(func() error { k.follow(ctx, i); return nil })
		}
	}
	return g.Wait()
}

func (s *Sync) report(ctx context.Context, ready func(bool, string)) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ready(s.state())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// state is ready as an active or a standby sync. Lists that are held or not kept
// are named: they need somebody, not another sync.
func (s *Sync) state() (ok bool, text string) {
	holder, heard := s.lock.state()
	if _, active := s.lock.held(); !active {
		switch {
		case !heard:
			return false, "not ready: no word from consul of the lock " + s.lock.key
		case holder == "":
			return false, "not ready: nobody holds the lock " + s.lock.key
		}
		return true, "ready, standby: " + holder + " keeps the lists"
	}
	var held, failing []string
	for _, k := range s.keepers {
		st, _ := k.seen()
		switch {
		case st.held != nil:
			held = append(held, k.cfg.App)
		case st.trouble != "":
			failing = append(failing, k.cfg.App)
		}
	}
	text = fmt.Sprintf("ready, active: %d lists", len(s.keepers))
	return true, text + some(", held: ", held) + some(", not kept: ", failing)
}

// some names a few.
func some(what string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	rest := ""
	if n := len(names) - 5; n > 0 {
		names, rest = names[:5], fmt.Sprintf(" and %d more", n)
	}
	return what + strings.Join(names, " ") + rest
}

// Accept lets what is held of some lists through. It tells the active sync, by
// their META in Redis, and waits until it has obeyed.
func (s *Sync) Accept(ctx context.Context, apps []string, said func(app string, h upstreams.Held)) error {
	for _, app := range apps {
		if !slices.ContainsFunc(s.keepers, func(k *keeper) bool { return sameName(k.cfg.App, app) }) {
			return fmt.Errorf("%s: no such list in the configuration (sync.lists)", app)
		}
	}
	for _, app := range apps {
		h, err := s.writer.AcceptHeld(ctx, app)
		if err != nil {
			return err
		}
		if err := s.obeyed(ctx, app); err != nil {
			return err
		}
		said(app, h)
	}
	return nil
}

func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}

// obeyed waits until the word of an operator is gone from META.
func (s *Sync) obeyed(ctx context.Context, app string) error {
	for deadline := time.Now().Add(5 * lookHeld); time.Now().Before(deadline); {
		list, err := s.writer.Published(ctx, app)
		if err != nil {
			return err
		}
		switch {
		case list.Meta.Accept == nil && list.Meta.Held == nil:
			return nil
		case list.Meta.Accept == nil:
			return fmt.Errorf("%s: consul has fewer endpoints now than when it was accepted (%d); look again", app, list.Meta.Held.Wanted)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: accepted, and no active sync has obeyed yet: one that starts will", app)
}
