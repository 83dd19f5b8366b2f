package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/steering/wire"
)

const (
	// unreadPause is until it is looked again whether reports are unread.
	unreadPause = 10 * time.Millisecond
	// unreadLong are so many looks at which some were that it is no coincidence: they come
	// faster than they are read.
	unreadLong = 300
	// startGrace is how long agents have to speak to a gateway that has just started, as
	// the way to it may not be there yet.
	startGrace = 10 * time.Second
	// applyPause is until a plan that could not be applied is tried again.
	applyPause = time.Second
)

// Reasons of refusals beside those of wire.
const (
	refusedBackend   = "backend"   // of none in the plan
	refusedOvertaken = "overtaken" // a later one was here before
)

// reports has what agents say of the backends of the plan, and keeps the plan that is
// applied as [steering.Judge] makes it of that and of the one that is configured, or, where
// this gateway decides for its site, [steering.Decide].
type reports struct {
	log     *slog.Logger
	file    string // what is known of agents, over a restart; "" is nowhere
	apply   func(balancer.Plan, time.Time) error
	changed func()      // other things are applied now
	unread  func() bool // there may be reports that were not taken yet
	deaf    func() bool // no report can come, as there is no way to this gateway
	// elsewhere tells whether another site takes flows that nobody here does.
	elsewhere func() bool
	sites     func() time.Time          // when another site was heard last; zero for never
	setAway   func(map[netip.Addr]bool) // no packets are to be sent to these gateways of other sites, by their entries
	decider   *decider                  // nil where a gateway never decides
	wake      chan struct{}
	refused   *prometheus.CounterVec

	applying sync.Mutex // held from a judgement until it is applied

	tellingAway sync.Mutex // held while setAway is called

	mu           sync.Mutex
	plan         configured
	told         map[netip.Addr]*told // by SID
	hosts        map[wire.Locator]*asked
	siteGateways map[wire.Locator]*siteGateway
	answers      map[string]bool // other sites of which a gateway has answered
	awayMoved    bool            // others of them are away than setAway has
	judged       judged
	hearing
	unsaved bool
	moved   bool // what was decided is not saved yet
	lost    bool // the last save failed
	late    int  // looks at which there were reports that were not read yet, one after the other
}

// configured is a plan as the configuration has it.
type configured struct {
	balancer.Plan
	minHealthy map[string]float64  // by service
	backends   map[netip.Addr]bool // by SID
	decisions  *decisions          // nil: agents are judged alone
}

// configured is what the balancer is to do as far as agents have nothing to say.
func (c *Config) configured(flowKey []byte) configured {
	out := configured{c.balance(flowKey), map[string]float64{}, map[netip.Addr]bool{}, c.decisions()}
	for i := range c.Services {
		s := &c.Services[i]
		out.minHealthy[s.Name] = c.minHealthy(s)
		if c.decides() && len(c.Sites) == 0 { // nobody else has the flows of those who are dead
			out.minHealthy[s.Name] = max(keepLast, c.minHealthy(s))
		}
		for j := range s.Backends {
			if sid, ok := s.Backends[j].sid(); ok {
				out.backends[sid] = true
			}
		}
	}
	return out
}

// told is what an agent said last of a target.
type told struct {
	Report   wire.Report
	at       time.Time
	sequence uint64
	seen     time.Time     // when it was heard, and not believed as its clock differs
	ahead    time.Duration // its clock was then, or at
}

// judged are judgements by service.
type judged map[string]judgedService

type judgedService struct {
	findings map[netip.Addr]steering.Finding // by SID
	failOpen string
	weights  map[netip.Addr]uint32 // nil: as configured
	spills   steering.Spills       // where there are weights
	decided  bool                  // that spills are what they are
	silence
}

// silence is what is made of that of a service's agents.
type silence struct {
	doubted  bool      // too few speak
	believed time.Time // since when it is again, after that; zero for ever
}

// next is what follows, as of a time until which it is known who was silent.
func (s silence) next(doubted bool, quiet time.Time) silence {
	switch {
	case doubted:
		s.believed = time.Time{}
	case s.doubted:
		s.believed = quiet
	}
	s.doubted = doubted
	return s
}

func newReports(log *slog.Logger, apply func(balancer.Plan, time.Time) error, changed func()) *reports {
	r := &reports{
		log: log, apply: apply, changed: changed, unread: func() bool { return false }, deaf: func() bool { return false }, elsewhere: func() bool { return false },
		sites: func() time.Time { return time.Time{} }, setAway: func(map[netip.Addr]bool) {}, wake: make(chan struct{}, 1),
		told: map[netip.Addr]*told{}, hosts: map[wire.Locator]*asked{}, siteGateways: map[wire.Locator]*siteGateway{}, answers: map[string]bool{}, judged: judged{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "razor_gateway_report_refusals_total",
			Help: "Reports of agents, and targets in them, that were not believed, by reason.",
		}, []string{"reason"}),
	}
	for n := range wire.Refusals {
		r.refused.WithLabelValues(n.Label())
	}
	r.refused.WithLabelValues(refusedBackend)
	r.refused.WithLabelValues(refusedOvertaken)
	return r
}

// configure makes a plan the one that is configured, and applies what it is with what
// agents say. Where that cannot be, all is as before.
func (r *reports) configure(next configured, now time.Time) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.Lock()
	findings, made := r.judge(&next, now)
	r.mu.Unlock()
	if err := r.apply(findings.plan(next.Plan, made), now); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan = next
	maps.DeleteFunc(r.told, func(sid netip.Addr, _ *told) bool { return !next.backends[sid] })
	r.settle(findings)
	r.decided(made)
	r.poke()
	return nil
}

// take has the reports of a message believed, and tells the reasons why others are not.
// It is for [Pins].
func (r *reports) take(m wire.Message, now time.Time) error {
	all, err := m.Reports()
	if err != nil {
		return err
	}
	locator := netip.PrefixFrom(m.Sender.Address(), 64)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hear(now)
	if a := r.hosts[m.Sender]; a != nil {
		a.Spoke()
	}
	for _, report := range all {
		sid := balancer.Hunt(locator, report.Target)
		was := r.told[sid]
		switch {
		case !r.plan.backends[sid]:
			r.refuse(refusedBackend)
			continue
		case was != nil && m.Sequence < was.sequence && now.Sub(was.at) < wire.Window:
			r.refuse(refusedOvertaken) // later than that its clock was set back
			was.seen = now
			continue
		}
		is := &told{Report: report, at: now, sequence: m.Sequence, ahead: m.Sent.Sub(now)}
		r.told[sid] = is
		r.unsaved = r.unsaved || was == nil
		if was == nil || was.news(&report, now) || is.silentAt().Before(r.due) {
			r.poke()
		}
	}
	return nil
}

// mistimed notes that the agent of a host is there, though what it says is not believed.
func (r *reports) mistimed(m wire.Message, now time.Time) {
	locator := netip.PrefixFrom(m.Sender.Address(), 64)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hear(now)
	for sid, t := range r.told {
		if !locator.Contains(sid) {
			continue
		}
		silent := !now.Before(t.silentAt())
		t.seen, t.ahead = now, m.Sent.Sub(now)
		if silent {
			r.poke()
		}
	}
}

// news tells whether a report says something else that counts, or ends that what was said
// before is too old.
func (t *told) news(next *wire.Report, now time.Time) bool {
	return t.Report.Draining != next.Draining || !slices.Equal(t.Report.Services, next.Services) || !now.Before(t.of(nil).OldAt())
}

func (t *told) silentAt() time.Time { return t.of(nil).SilentAt() }

// of is what was said of a target for a service with VIPs.
func (t *told) of(vips []balancer.VIP) *steering.Told {
	out := &steering.Told{At: t.at, Seen: t.seen, Interval: t.Report.Interval, Health: steering.HealthUp, Draining: t.Report.Draining}
	for _, s := range t.Report.Services {
		if slices.ContainsFunc(vips, func(v balancer.VIP) bool { return speaksOf(&s, v) }) {
			out.Health = worse(out.Health, s.Health)
		}
	}
	return out
}

// speaksOf tells whether a health is of a VIP.
func speaksOf(s *wire.ServiceHealth, v balancer.VIP) bool {
	return (s.VIP == netip.IPv6Unspecified() || v.Prefix.Contains(s.VIP)) && (s.Port == 0 || v.Port == 0 || s.Port == v.Port) &&
		(s.Protocol == 0 || v.Protocol == 0 || s.Protocol == v.Protocol)
}

// worse is the worse of two healths: up, unknown, down.
func worse(a, b steering.Health) steering.Health {
	for _, h := range []steering.Health{steering.HealthDown, steering.HealthUnknown} {
		if a == h || b == h {
			return h
		}
	}
	return steering.HealthUp
}

func (r *reports) refuse(reason string) { r.refused.WithLabelValues(reason).Inc() }

func (r *reports) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run applies what agents say, and that they say nothing, until ctx ends. A slow disk does
// not keep it.
func (r *reports) run(ctx context.Context) {
	r.begin(time.Now())
	saves := make(chan struct{}, 1)
	var saver sync.WaitGroup
	saver.Go(func() {
		for range saves {
			r.save()
		}
	})
	defer func() {
		close(saves)
		saver.Wait()
		if r.decider != nil {
			r.decider.save(time.Now())
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := r.round()
		select {
		case saves <- struct{}{}:
		default:
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.wake:
		}
	}
}

// begin gives the agents that a process before has heard, and that were not silent then,
// time to speak: those whose clock is behind are not believed before it is what ours is now.
func (r *reports) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.told {
		if t.sequence == 0 && !t.at.IsZero() {
			t.at = now.Add(max(0, startGrace+max(0, -t.ahead)-t.silentAt().Sub(t.at)))
		}
	}
}

// round judges anew, applies what is another, and says when to come back; zero if
// nothing is to be waited for.
func (r *reports) round() time.Time {
	r.applying.Lock()
	defer r.applying.Unlock()
	unread, deaf, now := r.unread(), r.deaf(), time.Now()
	r.mu.Lock()
	next := r.listen(now, unread, deaf)
	r.look(unread)
	findings, made := r.judge(&r.plan, now)
	plan := r.plan.Plan
	same := findings.same(r.judged) && !r.decider.turns(made)
	next = soonest(next, r.undecided)
	if made != nil {
		next = soonest(next, now.Add(decideEvery))
	}
	if same {
		r.decided(made)
	}
	r.mu.Unlock()
	if same {
		return next
	}
	if err := r.apply(findings.plan(plan, made), now); err != nil {
		r.log.Error("what agents say is not applied", "err", err)
		return now.Add(applyPause)
	}
	r.mu.Lock()
	r.settle(findings)
	r.decided(made)
	r.mu.Unlock()
	r.changed()
	return next
}

// look notes whether there are reports that were not read yet, and says it when it does not
// end.
func (r *reports) look(unread bool) {
	was := r.late
	if r.late++; !unread {
		r.late = 0
	}
	switch {
	case was == unreadLong-1 && unread:
		r.log.Error(flooded)
	case was >= unreadLong && !unread:
		r.log.Info("reports are read as they come again")
	}
}

// flooded is what it means for as long as it does not end.
const flooded = "reports come faster than they are read: nobody is taken for silent"

// decided has a plan that was made be the one in force; nil is none.
func (r *reports) decided(made *decision) {
	if made != nil && r.decider.settle(made) {
		r.moved = true
	}
}

// judge says what the backends of a plan are to do, and the plan of the site that says so;
// nil where this gateway does not decide.
func (r *reports) judge(plan *configured, now time.Time) (judged, *decision) {
	out, silences := judged{}, map[string]silence{}
	decides := plan.decisions != nil && r.decider.leads()
	var inputs []input
	r.undecided = time.Time{}
	for _, s := range plan.Services {
		was := r.judged[s.Name]
		backends, said := make([]steering.Judged, len(s.Backends)), make([]*told, len(s.Backends))
		for i, b := range s.Backends {
			backends[i] = steering.Judged{Configured: steering.Standing(b.State), Weight: b.Weight, Was: was.findings[b.SID].Claimed}
			if t := r.told[b.SID]; t != nil {
				backends[i].Told, said[i] = t.of(s.VIPs), t
				backends[i].Told.Gone = r.gone(b.SID)
			}
		}
		is := was.next(steering.Doubts(backends, plan.minHealthy[s.Name], r.quiet), r.quiet)
		silences[s.Name] = is
		for i := range backends {
			backends[i].Believed = is.believed
			r.awaits(&backends[i], now)
		}
		if decides {
			inputs = append(inputs, input{service: s, claims: steering.Claims(backends, plan.minHealthy[s.Name], r.quiet), told: said})
			continue
		}
		j := steering.Judge(backends, plan.minHealthy[s.Name], r.elsewhere(), r.quiet)
		of := judgedService{findings: map[netip.Addr]steering.Finding{}, failOpen: j.FailOpen, silence: is}
		for i, b := range s.Backends {
			of.findings[b.SID] = j.Findings[i]
		}
		out[s.Name] = of
	}
	if !decides {
		return out, nil
	}
	made, out := r.decider.decide(plan.decisions, plan.Sites, inputs, now)
	for name, of := range out {
		of.silence = silences[name]
		out[name] = of
	}
	return out, made
}

// plan is a configured plan in which backends do what was found.
func (j judged) plan(p balancer.Plan, made *decision) balancer.Plan {
	if made != nil {
		p.Decision = &made.plan
	}
	p.Services = slices.Clone(p.Services)
	for i := range p.Services {
		s := &p.Services[i]
		of := j[s.Name]
		s.Backends = slices.Clone(s.Backends)
		for k := range s.Backends {
			b := &s.Backends[k]
			found := of.findings[b.SID]
			b.State, b.Gone = balancer.State(found.Standing), found.Gone
			if of.weights != nil {
				b.Weight = of.weights[b.SID]
			}
		}
		if of.weights != nil {
			s.Spills, s.Decided = of.spills, of.decided
		}
	}
	return p
}

func (j judged) same(as judged) bool {
	return maps.EqualFunc(j, as, func(a, b judgedService) bool {
		return a.failOpen == b.failOpen && maps.Equal(a.findings, b.findings) && maps.Equal(a.weights, b.weights) &&
			slices.Equal(a.spills, b.spills) && a.decided == b.decided && a.silence == b.silence
	})
}

// settle makes findings those that are applied, and logs what is another.
func (r *reports) settle(now judged) {
	for _, s := range r.plan.Services {
		was, is := r.judged[s.Name], now[s.Name]
		switch {
		case is.failOpen != "" && is.failOpen != was.failOpen:
			r.log.Warn("agents are not believed", "service", s.Name, "reason", is.failOpen)
		case is.failOpen == "" && was.failOpen != "":
			r.log.Info("agents are believed again", "service", s.Name)
		}
		for _, b := range s.Backends {
			from, known := was.findings[b.SID]
			to := is.findings[b.SID]
			if to == from || !known && to.Reason == "" {
				continue
			}
			level := slog.LevelInfo
			if to.Claimed != steering.StandingActive {
				level = slog.LevelWarn
			}
			r.log.Log(context.Background(), level, "backend changed", "service", s.Name, "backend", b.Name, "sid", b.SID.String(),
				"from", string(from.Standing), "to", string(to.Standing), "reason", cmp.Or(to.Reason, "as configured"))
		}
	}
	r.judged, r.unsaved = now, true
}
