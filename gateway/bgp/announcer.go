package bgp

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/upstreams"
)

// Announcer keeps the sessions with all peers and tells each of them the routes.
type Announcer struct {
	as       uint32
	routerID netip.Addr
	config   Config
	command  []string
	log      *slog.Logger
	metrics  *metrics
	routes   *routeList
	peers    map[string]*peer // by name
	listener *net.TCPListener
}

// Identity is who this gateway is to its peers.
type Identity struct {
	AS       uint32
	RouterID netip.Addr
}

// New makes an announcer of a configuration that was checked. command starts a
// speaker: a process that calls Speak.
func New(cfg Config, id Identity, command []string, log *slog.Logger, reg prometheus.Registerer) *Announcer {
	a := &Announcer{
		as: id.AS, routerID: id.RouterID, config: cfg, command: command, log: log, metrics: newMetrics(),
		routes: newRouteList(), peers: map[string]*peer{},
	}
	for _, c := range cfg.AllPeers() {
		p := &peer{
			config: c, as: id.AS, routerID: id.RouterID, command: command, routes: a.routes,
			log: log.With("peer", c.Name), metrics: a.metrics,
			inbound: make(chan *net.TCPConn, 1), wake: make(chan struct{}, 1),
			openWait: openTimeout, sendHold: max(sendHold, 2*c.Hold),
		}
		if c.iface == "" {
			p.address, _ = ParsePeer(c.Address)
		}
		a.peers[c.Name] = p
	}
	a.metrics.announcer = a
	reg.MustRegister(a.metrics)
	return a
}

// Listen opens the port before Run does, until ctx ends. Who calls waits for Run.
func (a *Announcer) Listen(ctx context.Context) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	l, err := listen(ctx, a.config.Port, keys...)
	if d, ok := errors.AsType[upstreams.Defect](err); ok {
		return d
	}
	if err != nil {
		return upstreams.BindDefect("gateway.bgp.port", strconv.Itoa(a.config.Port), err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	a.listener = l
	return nil
}

// Run keeps the sessions until ctx ends. They then end without a word, so that
// the peers keep the routes for the restart; Shutdown before it says goodbye.
func (a *Announcer) Run(ctx context.Context) error {
	if a.listener == nil {
		if err := a.Listen(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	l := a.listener
	context.AfterFunc(ctx, func() { _ = l.Close() })
	g.Go(func() error { return a.answer(ctx, l) })
	for _, p := range a.peers {
		g.Go(func() error { return p.run(ctx) })
		if p.config.iface != "" {
			g.Go(func() error { p.discover(ctx); return nil })
		}
	}
	return g.Wait()
}

// CheckListen is what would keep an announcer from its port.
func (c *Config) CheckListen(ctx context.Context) []upstreams.Defect {
	l, err := listen(ctx, c.Port)
	if err != nil {
		return []upstreams.Defect{upstreams.BindDefect("gateway.bgp.port", strconv.Itoa(c.Port), err)}
	}
	_ = l.Close()
	return nil
}

// keys are the sockets of the peers that have a password.
func (a *Announcer) keys() ([]socket, error) {
	var out []socket
	for _, p := range a.peers {
		if p.config.Password == "" && p.config.PasswordFile == "" {
			continue
		}
		s, err := p.config.socket(p.address)
		if err != nil {
			return nil, passwordDefect(p.config.Name, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func passwordDefect(peer string, err error) upstreams.Defect {
	return upstreams.Defect{Key: "gateway.bgp.peers", Member: peer, Reason: err.Error(), Want: "a password that the kernel takes"}
}

// answer gives every call to the peer that it comes from. Nobody else has an
// answer.
func (a *Announcer) answer(ctx context.Context, l *net.TCPListener) error {
	for {
		conn, err := l.AcceptTCP()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			a.log.Warn("call not taken", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		from := addrOf(conn.RemoteAddr())
		p := a.caller(from)
		if p == nil {
			a.metrics.strangers.Inc()
			_ = conn.Close()
			continue
		}
		if err := p.accept(conn); err != nil {
			a.metrics.errors.WithLabelValues(p.config.Name, endedConnection).Inc()
			p.log.Debug("call refused", "err", err)
			_ = conn.Close()
		}
	}
}

func (a *Announcer) caller(from netip.Addr) *peer {
	for _, p := range a.peers {
		if p.knows(from) {
			return p
		}
	}
	return nil
}

// Announce makes routes what the peers are told, and withdraws all else.
func (a *Announcer) Announce(routes []Route) { a.routes.set(routes) }

// BFD says whether the path to a peer works, as BFD sees it. A path that is down
// takes the session with it at once, and the next one begins when it is up.
func (a *Announcer) BFD(name string, up bool) {
	if p := a.peers[name]; p != nil {
		p.bfd(up)
	}
}

// Address is where a peer is; the zero Addr while that is not known.
func (a *Announcer) Address(name string) netip.Addr {
	p := a.peers[name]
	if p == nil {
		return netip.Addr{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.address
}

// Shutdown ends all sessions with a Cease that says why, and begins no more.
func (a *Announcer) Shutdown(why string) {
	for _, p := range a.peers {
		p.stop(shutdown(why))
	}
}

// Resume begins sessions again after Shutdown.
func (a *Announcer) Resume() {
	for _, p := range a.peers {
		p.stop(nil)
	}
}

// Sessions is how many peers there are, and with how many a session is
// established, or not yet wholly ended.
func (a *Announcer) Sessions() (peers, up, open int) {
	for _, p := range a.peers {
		p.mu.Lock()
		open += len(p.sessions)
		for _, s := range p.sessions {
			if s.stateNow() == Established {
				up++
				break
			}
		}
		p.mu.Unlock()
	}
	return len(a.peers), up, open
}

// Kept says that the peers may have our routes from before this process.
func (a *Announcer) Kept() {
	for _, p := range a.peers {
		p.mu.Lock()
		p.kept = time.Now().Add(p.config.restartTime())
		p.mu.Unlock()
	}
}

// Alone tells whether no peer has our routes: there is no session, and none that
// ended so that the peer keeps them.
func (a *Announcer) Alone() bool {
	for _, p := range a.peers {
		p.mu.Lock()
		has := time.Now().Before(p.kept) || slices.ContainsFunc(p.sessions, func(s *session) bool { return s.stateNow() == Established })
		p.mu.Unlock()
		if has {
			return false
		}
	}
	return true
}

// Changed is closed when a session comes or goes, or other routes are to be
// announced.
func (a *Announcer) Changed() <-chan struct{} {
	_, changed := a.routes.get()
	return changed
}

// PeerStatus is what is known of one peer.
type PeerStatus struct {
	Name      string         `json:"name"`
	Address   string         `json:"address,omitempty"` // empty while it is not known
	AS        uint32         `json:"as,omitempty"`      // of the peer
	ID        string         `json:"router_id,omitempty"`
	State     State          `json:"state"`
	Since     time.Time      `json:"since"`
	NextHop   string         `json:"next_hop,omitempty"` // of what is announced
	Hold      float64        `json:"hold,omitempty"`     // seconds, as agreed
	Restart   bool           `json:"graceful_restart"`   // the peer keeps our routes
	IPv4      bool           `json:"ipv4"`               // it takes them
	Announced map[string]int `json:"announced"`          // prefixes by family, as the wire has it
	Received  int            `json:"received"`           // prefixes, none of which is imported
	LastError string         `json:"last_error,omitempty"`
	ErrorAt   time.Time      `json:"last_error_at,omitzero"`
	HeldUntil time.Time      `json:"held_until,omitzero"` // after faults of the peer
}

// Status is all peers, by name.
func (a *Announcer) Status() []PeerStatus {
	var out []PeerStatus
	for _, name := range slices.Sorted(maps.Keys(a.peers)) {
		out = append(out, a.peers[name].status())
	}
	return out
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := PeerStatus{Name: p.config.Name, State: Connecting, Since: p.whyAt, Announced: map[string]int{}}
	if p.address.IsValid() {
		out.Address = p.address.String()
	}
	if p.stopping != nil || !p.address.IsValid() {
		out.State = Idle
	}
	if p.why != nil {
		out.LastError, out.ErrorAt = p.why.text, p.whyAt
	}
	if p.alarm && time.Now().Before(p.held) {
		out.State, out.HeldUntil = Idle, p.held
	}
	if s := p.foremost(); s != nil {
		s.describe(&out)
	}
	return out
}

// foremost is the session that has come furthest; nil without any.
func (p *peer) foremost() *session {
	var out *session
	for _, s := range p.sessions {
		if out == nil || out.stateNow() != Established {
			out = s
		}
	}
	return out
}

func (s *session) describe(out *PeerStatus) {
	sent, received := s.counts()
	s.mu.Lock()
	defer s.mu.Unlock()
	out.State, out.Since, out.Hold = s.state, s.since, s.hold.Seconds()
	out.Address, out.NextHop = addrOf(s.conn.RemoteAddr()).String(), s.local().String()
	if s.state != OpenSent {
		out.AS, out.ID = s.open.as, s.open.id.String()
		out.Restart, out.IPv4 = s.open.restart.present, s.takesIPv4(s.open)
	}
	for family, n := range sent {
		out.Announced[family.String()] = n
	}
	for _, n := range received {
		out.Received += n
	}
}

// A routeList is what is to be announced; whoever waits for a change is woken.
type routeList struct {
	mu      sync.Mutex
	routes  []Route
	changed chan struct{}
}

func newRouteList() *routeList { return &routeList{changed: make(chan struct{})} }

func (l *routeList) get() ([]Route, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routes, l.changed
}

func (l *routeList) set(routes []Route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routes = routes
	close(l.changed)
	l.changed = make(chan struct{})
}

// poke wakes those who wait, although the routes are as they were.
func (l *routeList) poke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
}
