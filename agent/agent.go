package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/reply"
	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/gateway/bpf/root"
	"github.com/razor-steering/razor/steering/wire"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// ErrRestart is that the agent is to be started again, by the same process with the
// binary and the configuration that are there then. The endpoint goes on meanwhile.
var ErrRestart = errors.New("restart, the endpoint goes on")

// repair is how often what somebody else took from the host is put back.
const repair = 2 * time.Second

// Options are what an agent has beside its configuration.
type Options struct {
	Signals <-chan os.Signal // each is a wish to start again
	Check   func() error     // says what is wrong with the configuration that is there now
	Levels  *Levels          // learns of the agent; nil where nobody may ask
}

// agent is the endpoint on the interfaces of a host.
type agent struct {
	config    Config
	log       *slog.Logger
	ready     func(ok bool, text string)
	domain    segment.Domain
	endpoint  *segment.Endpoint
	replies   *reply.Replies
	sends     int                  // the largest packet that targets may send; 0 is any
	by        []netip.Prefix       // gateways that answers go by
	on        map[string]*attached // by interface
	wrong     []string             // now
	trouble   string               // that was said last
	pinner    *Pinner              // nil without keys
	reporter  *Reporter            // nil where no gateway is told
	registrar *consul.Registrar    // nil where nothing is registered
	probes    []probing
	admin     admin
	accepted  accepted

	containers map[uint16]container // by target, as they were set
	monitors   map[uint16]*load.Monitor
	levels     map[uint16]segment.Level // that monitors told, by target
}

// attached is an interface as it was when the endpoint was put on it.
type attached struct {
	root  *root.Root
	index int
}

// Run has the endpoint on the interfaces and the VIPs on loopback until ctx ends, and
// then takes them off, after a drain where the configuration has one. It takes over what
// an earlier process left. When it ends with another error all goes on without it. ready
// is told the state as it changes.
func Run(ctx context.Context, cfg Config, opt Options, log *slog.Logger, reg prometheus.Registerer, ready func(bool, string)) error {
	a := newAgent(cfg, log, ready)
	if err := a.open(); err != nil {
		return errors.Join(err, a.close())
	}
	control, err := a.listenControl(ctx)
	if err != nil {
		return errors.Join(err, a.close())
	}
	reg.MustRegister(a.endpoint, a.replies, monitors(a.monitors))
	if opt.Levels != nil {
		opt.Levels.of.Store(a)
		defer opt.Levels.of.Store(nil)
	}
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	changes := a.watch(inner, group)
	a.tell(inner, group, reg)
	if err := a.report(inner, group, reg); err != nil {
		group.Go(func() error { return err })
	}
	a.register(inner, group, reg)
	group.Go(func() error { return upstreams.ServeControl(inner, control, a.verbs()) })
	group.Go(func() error { return a.loop(inner, opt, changes) })
	group.Go(func() error { a.untilDrained(ctx, inner); stop(); return nil })
	err = group.Wait()
	if err == nil {
		a.deregister()
		a.leave(3 * wire.MinInterval)
		err = a.remove()
	} else { // the endpoint goes on, and another agent is to come
		a.leave(restartSilence)
	}
	return errors.Join(err, a.close())
}

// untilDrained waits until ctx ends, and then for what the configuration has for gateways
// to send new flows elsewhere; until inner ends at the longest.
func (a *agent) untilDrained(ctx, inner context.Context) {
	select {
	case <-ctx.Done():
	case <-inner.Done():
		return
	}
	if !a.heeded() || a.config.DrainOnStop == 0 {
		return
	}
	a.log.Info("drain", "why", "the agent stops", "for", a.config.DrainOnStop)
	a.admin.leave("the agent stops")
	a.poke()
	select {
	case <-time.After(a.config.DrainOnStop):
	case <-inner.Done():
	}
}

// heeded tells whether somebody learns that this host is drained.
func (a *agent) heeded() bool { return a.reporter != nil || a.registrar != nil }

// leave tells gateways for how long this agent may be silent.
func (a *agent) leave(silence time.Duration) {
	if a.reporter != nil {
		a.reporter.Leave(silence)
	}
}

func newAgent(cfg Config, log *slog.Logger, ready func(bool, string)) *agent {
	a := &agent{
		config: cfg, log: log, ready: ready, on: map[string]*attached{}, containers: map[uint16]container{},
		monitors: map[uint16]*load.Monitor{}, levels: map[uint16]segment.Level{},
	}
	a.accepted.read = a.readAccepted
	return a
}

// open takes over or makes all that there is. Nothing is touched before it is clear
// that it can be done.
func (a *agent) open() error {
	if err := a.config.able(); err != nil {
		return err
	}
	host, err := addresses()
	if err != nil {
		return err
	}
	if a.domain, err = a.config.domain(host); err != nil {
		return err
	}
	devices := map[string]*net.Interface{}
	for i, name := range a.config.Interfaces {
		if devices[name], err = net.InterfaceByName(name); err != nil {
			return defect(fmt.Sprintf("interfaces[%d]", i), name, "no such interface", "one of this host")
		}
	}
	a.endpoint, err = segment.Load(segment.Options{Pins: a.config.Pins})
	if errors.Is(err, segment.ErrRunning) {
		return defect("pins", a.config.Pins, "another agent runs with it", "the other one stopped, or a directory for each")
	}
	if err != nil {
		return err
	}
	if a.replies, err = reply.Load(reply.Options{Pins: a.config.Pins}); err != nil {
		return err
	}
	if err := a.fill(); err != nil {
		return err
	}
	if a.pinner, err = a.config.pinner(a.domain.Locator); err != nil {
		return err
	}
	if err := a.admin.load(a.config.StateDir); err != nil {
		return defect("state_dir", a.config.StateDir, err.Error(), "a directory that can be read")
	}
	if a.reporter, err = a.newReporter(); err != nil {
		return err
	}
	if a.registrar, err = a.newRegistrar(); err != nil {
		return err
	}
	trouble := append(a.bind(), a.contain()...)
	for _, name := range a.config.Interfaces {
		if err := a.join(devices[name]); err != nil {
			return err
		}
	}
	if err := a.leaveOthers(); err != nil {
		return err
	}
	for _, d := range a.config.CheckHost() {
		a.log.Warn("the host is not as it should be", "setting", d.Key, "of", d.Member, "what", d.Reason, "want", d.Want)
	}
	a.wrong = trouble
	a.say()
	return nil
}

// fill tells the endpoint what is its own.
func (a *agent) fill() error {
	if err := a.endpoint.SetDomain(a.domain); err != nil {
		return err
	}
	if err := a.endpoint.SetVIPs(segment.Host, a.config.parsedVIPs()); err != nil {
		return err
	}
	if err := a.monitor(); err != nil {
		return err
	}
	a.sends = a.config.sends()
	if err := a.endpoint.SetGateways(a.config.siteGateways()); err != nil {
		return err
	}
	return errors.Join(a.replies.SetVIPs(a.config.allVIPs()), a.setReplies(), a.setHost(), a.forget())
}

// bind has the VIPs on loopback, or, where it is not to have them, none of an earlier
// configuration; it returns what is wrong.
func (a *agent) bind() []string {
	vips := a.config.parsedVIPs()
	if !*a.config.Bind {
		vips = nil
	}
	if err := bind(vips); err != nil {
		return strings.Split(err.Error(), "\n")
	}
	return nil
}

// join puts the endpoint on an interface.
func (a *agent) join(device *net.Interface) error {
	r, err := root.Open(a.config.Pins, device)
	if err != nil {
		return err
	}
	if err := a.joinReplies(device); err != nil { // first, as the endpoint brings what is answered
		return errors.Join(err, r.Close())
	}
	if err := a.endpoint.Join(r, device.Name); err != nil {
		return errors.Join(err, r.Close())
	}
	if was := a.on[device.Name]; was != nil {
		_ = was.root.Close()
	}
	a.on[device.Name] = &attached{r, device.Index}
	a.log.Info("endpoint attached", "interface", device.Name, "mode", r.Mode(), "locator", a.domain.Locator.String())
	return nil
}

// leaveOthers takes the endpoint off interfaces that an earlier configuration had.
func (a *agent) leaveOthers() error {
	joined, err := a.endpoint.Joined()
	if err != nil {
		return err
	}
	for _, name := range joined {
		if slices.Contains(a.config.Interfaces, name) {
			continue
		}
		var r *root.Root
		if device, err := net.InterfaceByName(name); err == nil {
			if r, err = root.Open(a.config.Pins, device); err != nil {
				return err
			}
		}
		err := a.endpoint.Leave(r, name)
		if r != nil {
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			return err
		}
		a.log.Info("endpoint taken off", "interface", name)
	}
	return a.leaveReplies(a.config.Interfaces)
}

// loop puts back what somebody took away, and has levels in the endpoint as they change,
// until ctx ends or the agent is to be started again.
func (a *agent) loop(ctx context.Context, opt Options, changes <-chan change) error {
	ticker := time.NewTicker(repair)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			a.wrong = slices.Concat(a.bind(), a.contain(), a.attachAgain())
			if err := a.setReplies(); err != nil {
				a.wrong = append(a.wrong, err.Error())
			}
			a.say()
		case c := <-changes:
			a.change(c)
		case <-opt.Signals:
			if a.admin.leaves() {
				continue // the process is to end, and not to start again
			}
			if err := opt.Check(); err != nil {
				a.log.Error("not started again: the configuration has a mistake", "err", err)
				continue
			}
			a.log.Info("starting again, the endpoint goes on")
			return ErrRestart
		}
	}
}

// attachAgain puts the endpoint on interfaces that were made anew; it returns what is
// wrong.
func (a *agent) attachAgain() []string {
	var wrong []string
	for _, name := range a.config.Interfaces {
		device, err := net.InterfaceByName(name)
		if err != nil {
			wrong = append(wrong, name+": no such interface")
			continue
		}
		if a.on[name].index == device.Index {
			continue
		}
		if err := a.join(device); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

// say tells of the state, and of what is wrong, once.
func (a *agent) say() {
	text := strings.Join(a.wrong, "; ")
	if text != a.trouble {
		if text != "" {
			a.log.Error("the endpoint is not whole", "what", text)
		} else {
			a.log.Info("the endpoint is whole again")
		}
		a.trouble = text
	}
	if text == "" {
		text = fmt.Sprintf("%d VIPs, locator %v, on %s", len(a.config.VIPs), a.domain.Locator, strings.Join(a.config.Interfaces, ", ")) + a.loaded()
	}
	a.ready(a.trouble == "", text)
}

// remove takes everything off the host: first what brings packets, last the lock that
// keeps another agent away.
func (a *agent) remove() error {
	var err error
	for name, on := range a.on {
		err = errors.Join(err, a.endpoint.Leave(on.root, name))
	}
	err = errors.Join(err, a.leaveReplies(nil), a.replies.Unpin(), bind(nil), a.endpoint.Unpin())
	a.log.Info("endpoint taken off", "interface", strings.Join(a.config.Interfaces, ", "))
	return err
}

// close lets go of the endpoint, which goes on if it is still there.
func (a *agent) close() error {
	var err error
	for _, on := range a.on {
		err = errors.Join(err, on.root.Close())
	}
	if a.pinner != nil {
		_ = a.pinner.Close() // a second time, where it ran
	}
	if a.reporter != nil {
		err = errors.Join(err, a.reporter.Close())
	}
	if a.replies != nil {
		err = errors.Join(err, a.replies.Close())
	}
	if a.endpoint != nil {
		err = errors.Join(err, a.endpoint.Close())
	}
	return err
}

// Running tells whether an agent with the configuration's pins runs on this host.
func (c *Config) Running() bool { return segment.Running(c.Pins) }
