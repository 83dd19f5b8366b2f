package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

const (
	lookEvery = time.Minute     // at a list that nothing happens to: somebody may have edited it
	lookHeld  = 2 * time.Second // for an operator's word
	lookError = time.Second
)

// keeper keeps one list.
type keeper struct {
	cfg     ListConfig
	who     string
	log     *slog.Logger
	writer  *upstreams.Writer
	metrics *metrics
	sources []*source
	wake    chan struct{} // has an element when there is something to do

	mu      sync.Mutex
	answers []answer // by source
	failing []error  // by source, nil where it answers
	state   state

	// The rest belongs to the goroutine that steps.
	guard     steering.Guard
	term      uint64      // of the lock in which the list was taken over; 0 before
	asked     []time.Time // by source, when the answer came that was too old, and asked anew
	epoch     uint64      // that this keeper writes
	notBefore time.Time   // after the list was found to have another keeper
	saw       time.Time   // when the answer came that was looked at last
	said      trouble     // that was logged last
	saidIn    []string    // what Consul has and cannot be used, as it was logged
}

// trouble is a kind of reason why a list is not kept.
type trouble string

const (
	troubleNone   trouble = ""
	troubleOwner  trouble = "owner"
	troubleKeeper trouble = "keeper"
	troubleRedis  trouble = "redis"
)

// state is what others may see of a keeper.
type state struct {
	endpoints, wants int
	held             *upstreams.Held
	trouble          string // why the list is not kept, "" when it is
}

func newKeeper(cfg ListConfig, s *Sync) *keeper {
	k := &keeper{cfg: cfg, who: s.lock.who, log: s.log.With("app", cfg.App), writer: s.writer, metrics: s.metrics, wake: make(chan struct{}, 1)}
	// Both were checked with the configuration.
	k.guard.Floor, _ = steering.ParseLimit(cfg.Floor)
	k.guard.Churn, _ = steering.ParseLimit(cfg.Churn)
	datacenters := cfg.Datacenters
	if len(datacenters) == 0 {
		datacenters = []string{""}
	}
	for _, dc := range datacenters {
		if s.asking[dc] == nil {
			s.asking[dc] = make(chan struct{}, askAtOnce)
		}
		k.sources = append(k.sources, &source{agent: s.agent, service: cfg.Service, tag: cfg.Tag, datacenter: dc, read: endpoints(cfg.Address), asking: s.asking[dc]})
	}
	k.answers, k.failing = make([]answer, len(k.sources)), make([]error, len(k.sources))
	k.asked = make([]time.Time, len(k.sources))
	return k
}

// awake has the keeper look at its list.
func (k *keeper) awake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// follow keeps the answer of source i.
func (k *keeper) follow(ctx context.Context, i int) {
	src := k.sources[i]
	k.sources[i].follow(ctx, func(a answer) {
		k.mu.Lock()
		was := k.failing[i]
		k.answers[i], k.failing[i] = a, nil
		k.mu.Unlock()
		if was != nil {
			k.log.Info("consul answers again", "service", src.String())
		}
		k.awake()
	}, func(err error) {
		k.metrics.consulErrors.Inc()
		k.mu.Lock()
		was := k.failing[i]
		k.failing[i] = err
		k.mu.Unlock()
		if was == nil {
			k.log.Warn("consul does not answer, the list stays as it is", "service", src.String(), "err", err)
		}
	})
}

// run keeps the list as long as the lock is ours.
func (k *keeper) run(ctx context.Context, l *lock) {
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		again := lookEvery
		switch t, ok := l.held(); {
		case !ok:
			k.set(state{})
		case time.Now().Before(k.notBefore):
			again = time.Until(k.notBefore)
		default:
			again = k.step(ctx, t)
		}
		timer.Reset(again)
	}
}

// view is what Consul says, once every source has answered after a time: else a
// datacenter that is away would look like one without endpoints, and what another
// sync has seen go would come back.
func (k *keeper) view(after time.Time) (w wanted, since time.Time, err error) {
	k.mu.Lock()
	answers := slices.Clone(k.answers)
	for i, a := range answers {
		if !a.at.After(after) {
			err = errors.Join(err, fmt.Errorf("no answer yet for %v", k.sources[i]))
		}
		if since.Before(a.at) {
			since = a.at
		}
	}
	k.mu.Unlock()
	if err != nil {
		return wanted{}, since, err
	}
	return want(answers), since, nil
}

// askAgain has the sources asked anew whose answer is of before a time, once for
// each such answer: one may still come when others were asked already.
func (k *keeper) askAgain(before time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, a := range k.answers {
		if !a.at.IsZero() && !a.at.After(before) && !a.at.Equal(k.asked[i]) {
			k.asked[i] = a.at
			k.sources[i].again()
		}
	}
}

// step brings the list nearer to what Consul says, and tells when to look again.
func (k *keeper) step(ctx context.Context, t term) time.Duration {
	after := time.Time{}
	if k.term != t.number {
		after = t.since
		k.askAgain(after)
	}
	w, since, err := k.view(after)
	if err != nil {
		return lookEvery // the answer will wake us
	}
	k.sayLeft(w.left)
	list, err := k.look(ctx, t.number)
	if err != nil {
		return k.fail(ctx, err)
	}
	p, accepted := k.plan(list, w)
	if err := k.publish(ctx, list.Meta, w, p, accepted); err != nil {
		return k.fail(ctx, err)
	}
	k.term = t.number
	if len(p.steps) > 0 && since.After(k.saw) {
		k.metrics.latency.Observe(time.Since(since).Seconds())
	}
	k.saw = since
	switch {
	case p.verdict.Again > 0:
		return min(p.verdict.Again, lookHeld)
	case len(p.held) > 0:
		return lookHeld
	}
	return lookEvery
}

// look reads the list, which must be ours to write to.
func (k *keeper) look(ctx context.Context, term uint64) (*upstreams.Published, error) {
	list, err := k.writer.Published(ctx, k.cfg.App)
	if err == nil {
		err = k.owned(list)
	}
	if err == nil {
		err = k.takeOver(list, term)
	}
	return list, err
}

// errNotOurs is a list that the sync must not touch.
var errNotOurs = errors.New("not a list of the sync")

// owned tells whether the list may be written to: Consul's, or nobody's and empty.
func (k *keeper) owned(list *upstreams.Published) error {
	switch {
	case list.Meta.Source == upstreams.SourceConsul:
		return nil
	case list.Meta.Source == upstreams.SourceOperator:
		return fmt.Errorf("%w: META says that an operator owns it", errNotOurs)
	case len(list.Endpoints)+len(list.Unusable) > 0 || list.HasMeta:
		return fmt.Errorf("%w: it has no META that says whose it is; HSET %s:UPSTREAMS:META source consul hands it over", errNotOurs, k.cfg.App)
	}
	return nil
}

// takeOver makes sure that META is as this keeper left it. The first look in a
// term takes the list over, with all that the last keeper knew.
func (k *keeper) takeOver(list *upstreams.Published, term uint64) error {
	m, now := list.Meta, time.Now()
	serving := 0
	for _, e := range list.Endpoints {
		if serves(e.Endpoint) {
			serving++
		}
	}
	if k.term == term {
		if m.Epoch != k.epoch || m.Keeper != k.who {
			return &upstreams.FencedError{App: k.cfg.App, Want: upstreams.Meta{Source: m.Source, Keeper: k.who, Epoch: k.epoch}, Got: m}
		}
		k.guard.Serves(now, serving)
		return nil
	}
	at := m.Updated
	if at.IsZero() || at.After(now) {
		at = now
	}
	k.guard.Restore(at, m.Baseline, m.Taken, serving, m.Held != nil && m.Held.Reason != steering.HoldChurn.String())
	k.epoch = m.Epoch + 1
	return nil
}

// plan is what to do now. An operator's word lets everything through that is held,
// as long as Consul has not lost more than the operator was told.
func (k *keeper) plan(list *upstreams.Published, w wanted) (p plan, accepted bool) {
	now := time.Now()
	if list.Meta.Accept != nil && list.Meta.Held != nil {
		p = newPlan(list, w, nil, now)
		if p.wants >= *list.Meta.Accept {
			return p, true
		}
		k.log.Warn("accepted too late, consul has even fewer now", "accepted", *list.Meta.Accept, "consul", p.wants)
	}
	return newPlan(list, w, &k.guard, now), false
}

// publish makes the plan true, in transactions of a bounded size, and writes down
// with the last of them what has to be known of it.
func (k *keeper) publish(ctx context.Context, was upstreams.Meta, w wanted, p plan, accepted bool) error {
	meta := k.meta(was, w, p, accepted)
	if len(p.steps) == 0 && !accepted && meta.Epoch == was.Epoch && meta.Keeper == was.Keeper && heldText(meta) == heldText(was) && was.Accept == nil {
		k.made(p, meta, was, accepted)
		return nil
	}
	steps := p.steps
	for len(steps) > upstreams.PublishMost {
		part := was
		part.Source, part.Keeper, part.Epoch, part.Updated = meta.Source, meta.Keeper, meta.Epoch, time.Now()
		part.Baseline = max(part.Baseline, p.verdict.Baseline)
		if err := k.publishPart(ctx, was, steps[:upstreams.PublishMost], part); err != nil {
			return err
		}
		was, steps = part, steps[upstreams.PublishMost:]
	}
	if err := k.publishPart(ctx, was, steps, meta); err != nil {
		return err
	}
	k.made(p, meta, was, accepted)
	return nil
}

// publishPart makes one transaction, and accounts for it at once. One of which it
// is not known whether it was made counts as made.
func (k *keeper) publishPart(ctx context.Context, was upstreams.Meta, steps []step, meta upstreams.Meta) error {
	taken := 0
	for _, s := range steps {
		if s.counts {
			taken++
		}
	}
	now := time.Now()
	meta.Taken = k.guard.Taken(now) + taken
	err := k.writer.Publish(ctx, k.cfg.App, was, edits(steps), meta)
	if _, perhaps := errors.AsType[*upstreams.UncertainError](err); err != nil && !perhaps {
		return err
	}
	k.guard.Took(now, taken)
	k.audit(steps, meta.Index, err)
	return err
}

// meta is what META says after the plan.
func (k *keeper) meta(was upstreams.Meta, w wanted, p plan, accepted bool) upstreams.Meta {
	m := upstreams.Meta{
		Source: upstreams.SourceConsul, Index: w.index, Updated: time.Now(), Keeper: k.who, Epoch: k.epoch,
		Baseline: max(p.verdict.Baseline, p.after),
	}
	if accepted {
		m.Baseline = p.after
	}
	if p.verdict.Hold != steering.HoldNone {
		m.Held = &upstreams.Held{Reason: p.verdict.Hold.String(), Wanted: p.wants, Since: m.Updated}
		if was.Held != nil && was.Held.Reason == m.Held.Reason {
			m.Held.Since = was.Held.Since
		}
	}
	return m
}

func heldText(m upstreams.Meta) string {
	if m.Held == nil {
		return ""
	}
	return m.Held.String()
}

// made notes what was done: for the guard, in the log and for those who look.
func (k *keeper) made(p plan, meta, was upstreams.Meta, accepted bool) {
	now := time.Now()
	if accepted {
		k.guard.Accepted(now, p.after)
		k.log.Warn("held changes accepted by an operator", "endpoints", p.after)
	} else {
		k.guard.Serves(now, p.after)
	}
	switch {
	case meta.Held != nil && was.Held != nil && was.Held.Reason == meta.Held.Reason: // said
	case p.verdict.Hold == steering.HoldChurn:
		k.log.Warn("list changes more than its churn limit, the rest follows", "consul", p.wants, "endpoints", p.after, "held", len(p.held), "per_minute", k.cfg.Churn)
	case meta.Held != nil:
		k.log.Error("list held: consul takes out more than its floor lets through", "reason", meta.Held.Reason, "consul", p.wants,
			"endpoints", p.after, "held", len(p.held), "floor", p.verdict.Floor, "baseline", p.verdict.Baseline, "accept_with", "razor sync --accept "+k.cfg.App)
	case was.Held != nil:
		k.log.Info("list no longer held", "endpoints", p.after)
	}
	if k.said != troubleNone {
		k.log.Info("list kept again")
	}
	k.said = troubleNone
	k.set(state{endpoints: p.after, wants: p.wants, held: meta.Held})
}

// audit writes a line for every change: who, what, why. failed is why it is not
// known whether it was made, nil when it was.
func (k *keeper) audit(steps []step, index uint64, failed error) {
	log := k.log.With("who", k.who, "consul_index", index)
	if failed != nil {
		log = log.With("perhaps", failed)
	}
	for _, s := range steps {
		action := actionChange
		switch {
		case s.old == "":
			action = actionAdd
			log.Info("endpoint added", "endpoint", s.new, "why", s.why)
		case s.new == "":
			action = actionRemove
			log.Info("endpoint removed", "endpoint", s.old, "why", s.why)
		default:
			log.Info("endpoint changed", "endpoint", s.new, "was", s.old, "why", s.why)
		}
		k.metrics.changes.WithLabelValues(action).Inc()
	}
}

// fail notes why the list is not kept, in the log once for each kind.
func (k *keeper) fail(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return lookEvery
	}
	kind, again := troubleRedis, lookError
	_, fenced := errors.AsType[*upstreams.FencedError](err)
	switch {
	case errors.Is(err, errNotOurs):
		kind, again = troubleOwner, lookEvery
	case fenced:
		// If the lock is still ours when its lease could have run out, then this
		// was an old writer's last word, or a Redis that lost a write.
		kind, again = troubleKeeper, beatTTL
		k.term, k.notBefore = 0, time.Now().Add(beatTTL)
		k.log.Error("list has another keeper", "err", err)
	default:
		k.metrics.writeErrors.Inc()
	}
	if kind != k.said && !fenced {
		k.log.Warn("list not kept", "err", err)
	}
	k.said = kind
	if kind == troubleOwner { // what it was to us is over
		k.set(state{trouble: err.Error()})
		return again
	}
	k.mu.Lock()
	k.state.trouble = err.Error()
	k.mu.Unlock()
	return again
}

// sayLeft logs what Consul has and cannot be used, when it is another than before.
func (k *keeper) sayLeft(left []string) {
	if slices.Equal(left, k.saidIn) {
		return
	}
	for _, text := range left {
		if !slices.Contains(k.saidIn, text) {
			k.log.Warn("instance in consul cannot be used as it is", "instance", text)
		}
	}
	k.saidIn = left
}

func (k *keeper) set(s state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
}

// seen is the state and when the slowest source answered last; zero before all did.
func (k *keeper) seen() (s state, oldest time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, oldest = k.state, k.answers[0].at
	for i, a := range k.answers {
		if a.at.Before(oldest) {
			oldest = a.at
		}
		switch {
		case s.trouble != "":
		case k.failing[i] != nil:
			s.trouble = k.failing[i].Error()
		case a.at.IsZero():
			s.trouble = "no answer yet from consul"
		}
	}
	return s, oldest
}
