package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/gateway/live"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// ErrRestart is that the gateway is to be started again, by the same process with
// the binary and the configuration that are there then. The peers keep the routes.
var ErrRestart = errors.New("restart, routes kept")

const (
	// startWait is for how long the first results of probes are waited for before
	// the sessions begin: what a peer kept over a restart goes when it hears that
	// all routes were sent.
	startWait = 10 * time.Second
	byeWait   = 2 * time.Second // for sessions to end
	// oneWish is how long signals to end are one: some senders tell the process and its group.
	oneWish = time.Second
	// repair is how often what somebody else took from loopback is put back.
	repair = 10 * time.Second
)

// Options are what a gateway has beside its configuration.
type Options struct {
	Redis   upstreams.Config
	Zones   []string // of the lists
	Speaker []string // command of a BGP speaker
	// Reload reads the configuration again, and tells whether what the process has
	// beside it is another, so that it has to start again; nil where nothing changes.
	Reload func() (next Config, beside bool, err error)
	Read   ReadYAML // as the configuration is read
	// Signals are wishes: SIGHUP to reload, SIGUSR2 to restart, a second SIGTERM or SIGINT
	// to wait for nobody when leaving.
	Signals <-chan os.Signal
	Sites   Sites           // may be nil
	Changed <-chan struct{} // each is that they say something else
	// Handle has a page served for those who watch; nil where there are none.
	Handle func(pattern string, h http.Handler)
}

// Gateway announces what the configuration says, as long as it may be announced.
type Gateway struct {
	opt      Options
	log      *slog.Logger
	registry prometheus.Registerer
	metrics  *metrics
	identity Identity
	ready    func(ok bool, text string)

	announcer *bgp.Announcer
	paths     *paths
	lists     *upstreams.Follower // nil without
	herald    *herald             // nil where nameservers are told nothing
	dataplane *dataplane          // nil without
	page      *live.Page
	wake      chan struct{} // something that plan depends on has changed
	away      atomic.Bool   // what is announced is withdrawn, by a drain
	started   time.Time

	stopped time.Time // when the first signal to end came; of the loop

	keeping sync.Mutex // held while an operator's word is written

	mu             sync.Mutex // of what verbs and the loop share
	config         Config
	probers        map[string]*runningProbe
	drain          drain
	restart        bool
	current        plan
	holes          holes
	beyond         int           // blackholes that are too many
	stepped        chan struct{} // closed after the next step of the loop
	announced      []bgp.Route   // as the announcer was told last
	bound          []netip.Prefix
	boundAt        time.Time
	bindError      string
	announcedHoles []netip.Prefix
	begun          bool // the sessions were let begin
	resumed        bool // what was announced before is known, and goes on
	unbound        map[netip.Prefix]string
	release        map[netip.Prefix]time.Time // since when what is bound is no longer announced
	refused        []string
}

// Run announces until ctx ends, and then drains: it says that it leaves (RFC 8326),
// waits for the network, withdraws, waits, and closes the sessions. ready is told
// the state as it changes.
func Run(ctx context.Context, cfg Config, opt Options, log *slog.Logger, reg prometheus.Registerer, ready func(bool, string)) error {
	events := &live.Events{}
	log = slog.New(events.Handler(log.Handler()))
	g, err := newGateway(cfg, opt, log, reg, ready)
	if err != nil {
		return err
	}
	control, err := upstreams.ListenControl(ctx, cfg.StateDir)
	if err != nil {
		return controlDefect(cfg.StateDir, err)
	}
	g.page = live.New(events, (&view{gateway: g}).document)
	return g.run(ctx, control)
}

func controlDefect(dir string, err error) error {
	d := upstreams.Defect{Key: "gateway.state_dir", Member: dir, Reason: err.Error(), Want: "a directory that can be written"}
	if errors.Is(err, upstreams.ErrRunning) {
		d.Want = "a directory for each"
	}
	return d
}

func newGateway(cfg Config, opt Options, log *slog.Logger, reg prometheus.Registerer, ready func(bool, string)) (*Gateway, error) {
	identity, err := cfg.Identity()
	if err != nil {
		return nil, err
	}
	if err := join(cfg.CheckFiles()); err != nil {
		return nil, err
	}
	log.Info("identity", "is", identity.String())
	g := &Gateway{
		opt: opt, log: log, registry: reg, identity: identity, ready: ready, config: cfg, started: time.Now(),
		wake: make(chan struct{}, 1), probers: map[string]*runningProbe{}, drain: drain{config: cfg.Drain},
		stepped: make(chan struct{}), holes: holes{}, release: map[netip.Prefix]time.Time{},
	}
	g.metrics = newMetrics(g)
	reg.MustRegister(g.metrics)
	if err := g.drain.load(cfg.StateDir); err != nil {
		return nil, upstreams.Defect{Key: "gateway.state_dir", Member: cfg.StateDir, Reason: err.Error(), Want: "a directory that can be read"}
	}
	g.announcer = bgp.New(cfg.BGP, bgp.Identity{AS: identity.AS, RouterID: identity.RouterID}, opt.Speaker, log, reg)
	before := takeHandover(cfg.StateDir, time.Now())
	if before == nil {
		before = &handover{}
	} else {
		g.resume(before)
		g.resumed = true
	}
	g.paths = newPaths(cfg.BGP.AllPeers(), before.BFD, g.announcer, log, reg)
	if cfg.Lists {
		if g.lists, err = upstreams.NewFollower(opt.Redis, upstreams.Options{Zones: opt.Zones, StateDir: cfg.StateDir}, log, reg); err != nil {
			return nil, err
		}
	}
	if cfg.Health.Report {
		g.herald = newHerald(&cfg, opt.Redis, log, g.poke)
	}
	return g, nil
}

// run owns all that goes on, until the gateway is drained or to be restarted.
func (g *Gateway) run(ctx context.Context, control net.Listener) error {
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	// Before anything is bound: another gateway, whose addresses those are, has it.
	if err := g.announcer.Listen(inner); err != nil {
		_ = control.Close()
		return err
	}
	if err := g.openDataplane(); err != nil {
		_ = control.Close()
		return err
	}
	if g.dataplane != nil {
		for _, d := range g.dataplane.with(&g.config).CheckFabric() {
			g.log.Warn("the network is not as it should be", "of", d.Member, "what", d.Reason, "want", d.Want)
		}
		defer func() { _ = g.dataplane.close() }()
		g.registry.MustRegister(g.dataplane)
	}
	group, inner := errgroup.WithContext(inner)
	if g.dataplane != nil {
		g.dataplane.reports.deaf, g.dataplane.drained = g.unreachable, g.away.Load
		g.dataplane.run(inner, group)
	}
	group.Go(func() error { return upstreams.ServeControl(inner, control, g.verbs()) })
	if g.opt.Handle != nil {
		g.page.Register(g.opt.Handle)
		group.Go(func() error { g.page.Run(inner); return nil })
	}
	if g.lists != nil {
		group.Go(func() error { return g.lists.Run(inner) })
		group.Go(func() error { watchLists(inner, g.lists, g.poke); return nil })
	}
	if g.herald != nil {
		group.Go(func() error { g.herald.run(inner); return nil })
	}
	group.Go(func() error { return g.paths.run(inner) }) // at once: after a restart the peers wait for it
	group.Go(func() error { g.watchPeers(inner); return nil })
	defer context.AfterFunc(ctx, func() { g.leave("the gateway stops") })()
	group.Go(func() error {
		defer stop()
		return g.loop(inner, group)
	})
	return group.Wait()
}

// openDataplane takes off the host what the configuration does not have any more, and has
// on it what it has. Where its pins are is noted once they are this gateway's, and once
// nothing else has to be remembered.
func (g *Gateway) openDataplane() (err error) {
	former := removeFormer(&g.config, g.log)
	if former != nil {
		g.log.Error("a former dataplane is still there", "err", former)
	}
	if !g.config.Dataplane.used() {
		return nil
	}
	if g.dataplane, err = openDataplane(&g.config, g.identity.Node, g.lists, g.opt.Read, g.log, g.poke); err != nil || former != nil {
		return err
	}
	if err := notePins(g.config.StateDir, g.config.Dataplane.Pins); err != nil {
		g.log.Error("the next gateway does not know of the dataplane, should its configuration have none", "err", err)
	}
	return nil
}

func (g *Gateway) poke() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// loop makes a plan whenever something has changed, and carries it out. It ends
// when the gateway has left, or is to be restarted.
func (g *Gateway) loop(ctx context.Context, group *errgroup.Group) error {
	g.mu.Lock()
	g.syncProbes(ctx, group)
	g.takeOver()
	g.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next := g.step(ctx, group)
		if done, err := g.finished(ctx, group); done {
			return err
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-g.wake:
		case <-g.opt.Changed:
		case s := <-g.opt.Signals:
			g.signal(ctx, group, s)
		}
	}
}

// signal obeys one. The first to end is that of the context of Run; a second one ends
// the waiting for resolvers and the network; a third one ends the process.
func (g *Gateway) signal(ctx context.Context, group *errgroup.Group, s os.Signal) {
	if s != syscall.SIGTERM && s != os.Interrupt {
		g.reload(ctx, group, s == syscall.SIGUSR2)
		return
	}
	switch now := time.Now(); {
	case g.stopped.IsZero():
		g.stopped = now
	case now.Sub(g.stopped) >= oneWish:
		g.mu.Lock()
		g.drain.hurry = true
		g.mu.Unlock()
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	}
}

// step plans anew, carries the plan out, and says when to come back; zero if
// nothing is to be waited for.
func (g *Gateway) step(ctx context.Context, group *errgroup.Group) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() { close(g.stepped); g.stepped = make(chan struct{}) }()
	now := time.Now()
	state, why := g.listState()
	g.drain.byList = why
	g.askResolvers(now, state)
	stage := g.drain.stage
	begin, end, next := g.drain.step(now, g.announcer.Alone())
	if g.away.Store(g.drain.stage == steering.OutOfTheWay); stage == steering.OutOfTheWay && !g.away.Load() && g.dataplane != nil {
		g.dataplane.meetAgain(ctx, group)
	}
	if g.drain.stage != stage {
		g.log.Info("drain", "stage", stageWords[g.drain.stage], "why", g.drain.why())
	}
	if begin {
		g.announcer.Resume()
	}
	g.carryOut(now)
	p := g.current
	if end {
		g.log.Info("closing all sessions", "why", g.drain.why())
		g.announcer.Shutdown(g.drain.why())
	}
	next = soonest(next, g.judgeEdge(now), p.until, g.holes.next(now, g.config.Blackhole.Longest))
	if g.begun && len(g.bound) > 0 {
		next = soonest(next, g.boundAt.Add(repair))
	}
	for _, since := range g.release {
		next = soonest(next, since.Add(g.config.Drain.Settle))
	}
	if !g.begun {
		next = soonest(next, g.begin(ctx, group, now))
	}
	g.sayReady()
	return next
}

func soonest(times ...time.Time) time.Time {
	var out time.Time
	for _, t := range times {
		if !t.IsZero() && (out.IsZero() || t.Before(out)) {
			out = t
		}
	}
	return out
}

// begin lets the sessions begin as soon as every probe has had its first result, and
// the lists are known: before, a peer that kept our routes would lose them.
func (g *Gateway) begin(ctx context.Context, group *errgroup.Group, now time.Time) time.Time {
	waiting := g.unknownProbes()
	if g.lists != nil && g.lists.Snapshot() == nil {
		waiting = append(waiting, "the lists")
	}
	if deadline := g.started.Add(startWait); len(waiting) > 0 && !g.resumed && now.Before(deadline) {
		return deadline
	} else if !g.resumed && len(waiting) > 0 {
		g.log.Warn("sessions begin, although not all is known", "missing", strings.Join(waiting, ", "))
	}
	g.begun = true
	group.Go(func() error { return g.announcer.Run(ctx) })
	g.poke() // what is bound and should not be
	return time.Time{}
}

// facts are what a plan depends on now.
func (g *Gateway) facts(now time.Time) facts {
	f := facts{
		now: now, stage: g.drain.anycast(now), own: g.drain.stage, node: g.identity.Node, health: map[string]steering.Damped{},
		sites: g.opt.Sites, unbound: g.unbound, was: map[netip.Prefix]*Announcement{},
	}
	if g.dataplane != nil {
		f.dataplane = g.dataplane
	}
	for name, p := range g.probers {
		f.health[name] = p.Status().Damped
	}
	for _, a := range g.current.announcements {
		f.was[a.Prefix] = a
	}
	if g.lists != nil {
		f.pool = g.pool()
		f.holes, f.refused = g.blackholes(now)
		if f.own == steering.OutOfTheWay {
			f.holes = nil
		}
	}
	return f
}

var stageWords = map[steering.Stage]string{
	steering.InService: "in service", steering.Leaving: "leaving", steering.OutOfTheWay: "drained",
}

// sayReady tells what the process does.
func (g *Gateway) sayReady() {
	peers, up, _ := g.announcer.Sessions()
	n := 0
	for _, a := range g.current.announcements {
		if a.presence != steering.Withdrawn {
			n++
		}
	}
	text := fmt.Sprintf("%d of %d peers up, %d of %d prefixes announced", up, peers, n, len(g.current.announcements))
	if why := g.drain.why(); why != "" {
		text += ", " + stageWords[g.drain.stage] + ": " + why
	}
	if g.lists != nil {
		if wrong := listStatus(g.lists.Health()).wrong(); wrong != "" {
			text += "; lists: " + wrong
		}
	}
	g.ready(g.begun && up > 0 && g.drain.stage == steering.InService, text)
}

// watchPeers wakes the loop when sessions come and go.
func (g *Gateway) watchPeers(ctx context.Context) {
	for {
		changed := g.announcer.Changed()
		g.paths.sync()
		g.poke()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// verbs are what an operator may ask of the running gateway.
func (g *Gateway) verbs() *http.ServeMux {
	mux := upstreams.ControlVerbs(g.lists)
	mux.HandleFunc("GET "+statusPath, g.serveStatus)
	mux.HandleFunc("POST "+drainPath, g.serveDrain)
	mux.HandleFunc("POST "+undrainPath, g.serveUndrain)
	mux.HandleFunc("POST "+restartPath, g.serveRestart)
	mux.HandleFunc("GET "+snapshotPath, g.serveSnapshot)
	mux.HandleFunc("POST "+drainSitePath, g.serveDrainSite)
	mux.HandleFunc("POST "+undrainSitePath, g.serveUndrainSite)
	return mux
}
