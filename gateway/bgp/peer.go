package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/steering"
)

const (
	callTimeout = 3 * time.Second
	callGap     = 100 * time.Millisecond // between calls of the peer: each costs a process
	firstPause  = time.Second            // before the next session, after the second fault
	lastPause   = 2 * time.Minute        // it doubles up to this
	alarmPause  = 4 * time.Second
	goodTime    = time.Minute // of a session, after which faults are forgotten
	gateTime    = 30 * time.Second
)

// A peer keeps a session with one BGP neighbour.
type peer struct {
	config   PeerConfig
	as       uint32
	routerID netip.Addr
	command  []string // of the speaker
	routes   *routeList
	log      *slog.Logger
	metrics  *metrics

	inbound chan *net.TCPConn
	wake    chan struct{} // something that is waited for has changed

	openWait time.Duration // for the peer's OPEN and the KEEPALIVE behind it
	sendHold time.Duration // a peer that takes nothing for so long is gone

	mu       sync.Mutex
	address  netip.Addr // of the peer; the zero Addr while it is not known
	sessions []*session // in the order of their beginning, two while it is decided which stays
	began    bool       // there was an Established session in the life of this process
	gate     time.Time  // no calls before this, or before BFD is up
	gated    bool
	next     time.Time     // no calls before this either
	pause    time.Duration // that the next fault costs
	held     time.Time     // until when no session begins, whoever calls
	alarm    bool          // it is held off for longer than once in a while
	why      *end          // of the last session
	whyAt    time.Time
	said     string    // of what keeps a session from being established, so that it is said once
	stopping *end      // no more sessions; how they end
	called   time.Time // when it called last
	kept     time.Time // until when the peer keeps the routes of a session that ended
}

// run keeps a session until ctx ends. The session then ends as stopping says,
// without a word if nothing is said.
func (p *peer) run(ctx context.Context) error {
	var g errgroup.Group
	defer func() { _ = g.Wait() }()
	defer p.stop(&end{reason: endedByRestart, text: "stopped, routes kept"})
	calling := make(chan struct{}, 1)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Stop()
		if wait := p.untilCall(len(calling) > 0); wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case conn := <-p.inbound:
			p.take(ctx, &g, conn, false)
		case <-timer.C:
			calling <- struct{}{}
			g.Go(func() error {
				defer func() { <-calling; p.poke() }()
				p.call(ctx, &g)
				return nil
			})
		}
	}
}

// poke makes run look again.
func (p *peer) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// untilCall is how long to wait before calling the peer; negative for not at all.
func (p *peer) untilCall(calling bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if calling || p.config.Passive || len(p.sessions) > 0 || p.stopping != nil || !p.address.IsValid() {
		return -1
	}
	wait := max(0, time.Until(p.next), time.Until(p.held))
	if p.gated {
		wait = max(wait, time.Until(p.gate))
	}
	return wait
}

// call connects to the peer.
func (p *peer) call(ctx context.Context, g *errgroup.Group) {
	p.mu.Lock()
	to := netip.AddrPortFrom(p.address, uint16(p.config.Port))
	p.mu.Unlock()
	conn, err := p.dial(ctx, to)
	if err != nil {
		if ctx.Err() == nil {
			p.unreachable(err)
		}
		return
	}
	p.take(ctx, g, conn, true)
}

func (p *peer) dial(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	s, err := p.config.socket(to.Addr())
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: callTimeout, Control: s.control, KeepAlive: -1}
	if p.config.Local != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p.config.Local), 0))
	}
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// unreachable notes that the peer could not be called, and says so once.
func (p *peer) unreachable(err error) {
	text := plainError(err)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		text = "no answer"
		if p.config.Password != "" || p.config.PasswordFile != "" {
			text += ", as when the passwords differ"
		}
	}
	p.metrics.errors.WithLabelValues(p.config.Name, endedConnection).Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	retry := p.config.ConnectRetry
	p.next = time.Now().Add(jittered(retry))
	p.why, p.whyAt = &end{reason: endedConnection, text: text}, time.Now()
	if p.said != text {
		p.said = text
		p.log.Warn("peer cannot be reached", "address", p.address.String(), "err", text)
	}
}

// jittered is a pause with what keeps many from calling in step (RFC 4271 §10).
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/4+1) }

// take begins a session on a connection.
func (p *peer) take(ctx context.Context, g *errgroup.Group, conn *net.TCPConn, outbound bool) {
	s := newSession(p, conn, outbound)
	p.mu.Lock()
	// A call that took long is not needed where the peer's came first.
	late := outbound && slices.ContainsFunc(p.sessions, func(s *session) bool { return s.stateNow() != OpenSent })
	if p.stopping != nil || late {
		p.mu.Unlock()
		_ = conn.Close()
		return
	}
	// A second call of the peer means that it has given up the first.
	for _, old := range p.sessions {
		if !outbound && !old.outbound && old.stateNow() != Established {
			old.finish(&end{reason: endedByPeer, text: "the peer gave up and called again"})
		}
	}
	p.sessions = append(p.sessions, s)
	p.mu.Unlock()
	g.Go(func() error {
		p.over(s, s.run(ctx))
		return nil
	})
}

// age is for how long the session has been in its state.
func (s *session) age() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.since)
}

func (s *session) stateNow() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// openReceived decides between two connections (RFC 4271 §6.8): the one that the
// side with the higher identifier began stays. One that is established gives way
// only to a peer that restarted and still has our routes (RFC 4724 §5), which does
// not happen at once: else both have called at the same time.
func (p *peer) openReceived(s *session) *end {
	p.mu.Lock()
	defer p.mu.Unlock()
	collision := &end{
		reason: endedCollision, text: "two connections at once, the other stays",
		notify: &notification{code: codeCease, subcode: ceaseCollision},
	}
	o := s.openNow()
	for _, other := range p.sessions {
		if other == s {
			continue
		}
		switch {
		case other.stateNow() == Established:
			if s.outbound || other.age() < openTimeout || !o.restart.present || p.config.restartTime() == 0 {
				return collision
			}
			other.finish(&end{reason: endedByPeer, text: "the peer restarted"})
		case s.outbound == p.outranks(o):
			other.finish(collision)
		default:
			return collision
		}
	}
	return nil
}

// outranks tells whether our identifier is higher than the peer's; of equal ones
// the AS decides (RFC 6286 §2.3).
func (p *peer) outranks(o open) bool {
	if c := p.routerID.Compare(o.id); c != 0 {
		return c > 0
	}
	return p.as > o.as
}

// acceptable judges the peer's OPEN by what is configured.
func (p *peer) acceptable(o open) error {
	if o.id == p.routerID {
		p.metrics.errors.WithLabelValues(p.config.Name, sameID).Inc()
		p.log.Warn("peer has our router ID", "id", o.id.String(), "as", o.as)
	}
	if o.hold == 0 { // nobody would notice that the peer is gone
		return &notification{code: codeOpen, subcode: openBadHoldTime}
	}
	want := p.config.remoteAS()
	switch {
	case p.config.AS == internal:
		want = p.as
	case p.config.AS == external && o.as != p.as:
		want = o.as // any but ours
	}
	return o.check(want, open{as: p.as, id: p.routerID, families: families{true, true}})
}

// hint says what would mend the peer's OPEN, behind the words of RFC 4271.
func (p *peer) hint(n *notification, o open) string {
	want := p.config.AS
	if p.config.AS == internal {
		want = fmt.Sprint(p.as)
	}
	switch n.subcode {
	case openBadAS:
		return fmt.Sprintf(" (it is AS %d; want %s)", o.as, want)
	case openBadHoldTime:
		return " (hold time 0)"
	case openBadCapability:
		return " (no family in common; IPv4 over IPv6 takes extended next hop, RFC 8950, at the peer)"
	}
	return ""
}

// established notes that routes are being exchanged.
func (p *peer) established(s *session) {
	p.mu.Lock()
	p.began, p.said = true, ""
	p.mu.Unlock()
	p.metrics.sessions.WithLabelValues(p.config.Name).Inc()
	o := s.openNow()
	p.log.Info("peer is up", "address", addrOf(s.conn.RemoteAddr()).String(), "as", o.as, "id", o.id.String(), "next_hop", s.local().String())
	if o.families[steering.IPv4] && !s.takesIPv4(o) {
		p.log.Warn("peer takes no IPv4 routes over IPv6", "needs", "extended next hop (RFC 8950) at the peer")
	}
	p.routes.poke()
}

// over removes a session that has ended and decides when the next may begin.
func (p *peer) over(s *session, why *end) {
	p.metrics.errors.WithLabelValues(p.config.Name, why.reason).Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.poke()
	p.sessions = slices.DeleteFunc(p.sessions, func(x *session) bool { return x == s })
	was, now := s.stateNow(), time.Now()
	lived := now.Sub(s.since)
	if was == Established && lived > goodTime {
		p.pause = 0
	}
	if why.fault || why.reason == endedCrash {
		p.holdOff(now, why)
	}
	if was == Established && why.notify == nil && why.reason != endedNotified {
		p.kept = now.Add(p.config.restartTime())
	}
	if was != Established && len(p.sessions) > 0 { // the other goes on
		level := slog.LevelWarn
		if why.reason == endedCollision {
			level = slog.LevelDebug
		} else {
			p.why, p.whyAt = why, now
		}
		p.log.Log(context.Background(), level, "one of two connections ended", "was", string(was), "reason", why.text)
		return
	}
	p.why, p.whyAt, p.next = why, now, now
	if was != Established || lived < p.config.ConnectRetry {
		p.next = now.Add(jittered(p.config.ConnectRetry))
	}
	level := slog.LevelWarn
	switch {
	case why.reason == endedAdmin || why.reason == endedByRestart:
		level = slog.LevelInfo
	case was == Established:
	case p.said == why.text:
		level = slog.LevelDebug
	default:
		p.said = why.text
	}
	p.log.Log(context.Background(), level, "peer is down", "was", string(was), "for", lived.Round(time.Millisecond).String(), "reason", why.text)
	p.routes.poke()
}

// holdOff has the peer wait after a fault. Once is forgiven, who keeps doing it
// waits for longer each time.
func (p *peer) holdOff(now time.Time, why *end) {
	p.held, p.alarm = now.Add(p.pause), p.pause >= alarmPause
	if p.alarm {
		p.log.Error("peer is held off", "for", p.pause.String(), "reason", why.text)
	}
	p.pause = min(max(firstPause, 2*p.pause), lastPause)
}

// crashed notes that a speaker died, and what it said.
func (p *peer) crashed(said string) {
	p.metrics.crashes.WithLabelValues(p.config.Name).Inc()
	p.log.Error("speaker died, routes are kept by graceful restart", "said", said)
}

func (p *peer) malformed(what string) {
	p.metrics.malformed.WithLabelValues(p.config.Name).Inc()
	p.log.Debug("malformed update ignored", "reason", what)
}

func (p *peer) count(typ uint8, direction string) {
	p.metrics.messages.WithLabelValues(p.config.Name, typeNames[typ], direction).Inc()
}

// restarting tells whether the next OPEN says that we restarted: until there was
// a session in the life of this process (RFC 4724 §4.1).
func (p *peer) restarting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.began
}

// choose is the routes that this peer is told, sorted. Of one prefix a blackhole
// comes before what is announced otherwise.
func (p *peer) choose(all []Route) []Route {
	out := make([]Route, 0, len(all))
	for _, r := range all {
		if r.Blackhole && !p.config.Blackhole {
			continue
		}
		if med, ok := r.PeerMED[p.config.Name]; ok {
			r.MED = &med
		}
		p.adapt(&r)
		out = append(out, r)
	}
	sortRoutes(out)
	return slices.CompactFunc(out, func(a, b Route) bool { return a.Prefix == b.Prefix })
}

// lowerPrepend is how often our AS is put before a lowered route.
const lowerPrepend = 3

// adapt makes a route one for a peer of our AS, or of another. In our own nobody puts
// the AS into the path (RFC 4271 §5.1.2).
func (p *peer) adapt(r *Route) {
	switch {
	case p.internal():
		r.Prepend = 0
		if r.Lowered {
			r.LocalPref = new(uint32) // RFC 8326 §4
		}
	case r.Lowered:
		r.Prepend += lowerPrepend
	}
}

func (p *peer) internal() bool { return p.config.AS == internal || p.config.remoteAS() == p.as }

// bfd is told what BFD says of the path to the peer. Down ends the session at
// once, and calls wait for up; not for ever, as the peer may have no BFD.
func (p *peer) bfd(up bool) {
	p.mu.Lock()
	p.gated, p.gate = !up, time.Now().Add(gateTime)
	if up {
		p.next = time.Now()
	} else {
		for _, s := range p.sessions {
			s.finish(&end{reason: endedBFD, text: "BFD is down", notify: &notification{code: codeCease, subcode: ceaseBFDDown}})
		}
	}
	p.mu.Unlock()
	p.poke()
}

// moved is told the address of an unnumbered peer; the zero Addr when it is gone.
func (p *peer) moved(to netip.Addr) {
	p.mu.Lock()
	was := p.address
	p.address = to
	text := "the peer has another address"
	if !to.IsValid() {
		text = "the link is gone"
	}
	if was.IsValid() && was != to {
		for _, s := range p.sessions {
			s.finish(&end{reason: endedByPeer, text: text})
		}
	}
	p.next = time.Now()
	p.mu.Unlock()
	p.poke()
	p.routes.poke()
}

// stop ends the sessions in a way, and lets none begin; nil lets them again.
func (p *peer) stop(how *end) {
	p.mu.Lock()
	p.stopping = how
	for _, s := range p.sessions {
		if how != nil {
			s.finish(how)
		}
	}
	p.mu.Unlock()
	p.poke()
}

// shutdown is the end that tells the peer so (RFC 9003).
func shutdown(text string) *end {
	return &end{reason: endedAdmin, text: text, notify: cease(ceaseShutdown, text)}
}

// knows tells whether a call from an address is this peer's: on an unnumbered link
// anybody's, until it is known who the router there is.
func (p *peer) knows(from netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config.iface == "" {
		return from == p.address
	}
	// The zone of one is the number of the interface, of the other its name.
	same := !p.address.IsValid() || p.address.WithZone("") == from.WithZone("")
	return from.IsLinkLocalUnicast() && from.Zone() == p.config.iface && same
}

// accept takes a call of the peer.
func (p *peer) accept(conn *net.TCPConn) error {
	s, err := p.config.socket(addrOf(conn.RemoteAddr()))
	if err != nil {
		return err
	}
	if err := s.accepted(conn); err != nil {
		return err
	}
	p.mu.Lock()
	wait := time.Until(p.held)
	soon := time.Since(p.called) < callGap
	if wait <= 0 && !soon {
		p.called = time.Now()
	}
	p.mu.Unlock()
	switch {
	case wait > 0:
		return fmt.Errorf("held off for %s", wait.Round(time.Second))
	case soon:
		return errors.New("called again too soon")
	}
	select {
	case p.inbound <- conn:
		return nil
	default:
		return errors.New("too many calls at once")
	}
}
