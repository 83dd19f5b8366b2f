package razor

import (
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/razor-steering/razor/upstreams"
)

// Ready is told, ten times a second, whether the server answers from lists, and
// its state in one line.
type Ready func(ok bool, state string)

// server is a nameserver in being.
type server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	lists   lists
	geo     *geo
	export  *export
}

// lists is where answers come from.
type lists interface {
	Snapshot() *upstreams.Snapshot
}

// Run is the authoritative nameserver: it answers from the lists in Redis until
// ctx ends. What hinders the start, such as a port in use, is an
// upstreams.Defect that names the setting.
func Run(ctx context.Context, cfg Config, redis upstreams.Config, log *slog.Logger, reg prometheus.Registerer, ready Ready) error {
	s := &server{cfg: cfg, log: log, metrics: newMetrics(reg)}
	if cfg.GeoIP != "" {
		var err error
		if s.geo, err = openGeo(cfg.GeoIP); err != nil {
			return upstreams.Defect{Key: "dns.geoip", Member: cfg.GeoIP, Reason: err.Error(), Want: "a readable MaxMind Country or City database"}
		}
	}
	if cfg.Export != "" {
		host, _ := os.Hostname() // without a name as good as any
		s.export = newExport(cfg, host)
	}
	sockets, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer sockets.close()
	// First, as it tells whether the state directory is ours to write to.
	socket, err := s.openControl(ctx)
	if err != nil {
		return err
	}
	if socket != nil {
		defer socket.Close()
	}
	follower, err := upstreams.NewFollower(redis, upstreams.Options{Zones: cfg.RedisZones(), StateDir: cfg.StateDir, Health: upstreams.HealthRules(cfg.Health)}, log, reg)
	if err != nil {
		return err
	}
	s.lists = follower
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return follower.Run(ctx) })
	if socket != nil {
		g.Go(func() error { return upstreams.ServeControl(ctx, socket, upstreams.ControlVerbs(follower)) })
	}
	g.Go(func() error { return s.report(ctx, follower, ready) })
	if s.geo != nil {
		g.Go(func() error { return s.geo.watch(ctx, log) })
	}
	for _, c := range sockets.udp {
		g.Go(func() error { return s.serveUDP(ctx, c) })
	}
	tcp := newTCPServer(s)
	for _, l := range sockets.tcp {
		g.Go(func() error { return tcp.serve(ctx, l) })
	}
	log.Info("answering", "listen", cfg.Listen, "zones", cfg.Zones, "export", cfg.Export, "workers", len(sockets.udp))
	err = g.Wait()
	log.Info("stopped")
	return err
}

// openControl opens the control socket. Without it answers go on: nil.
func (s *server) openControl(ctx context.Context) (net.Listener, error) {
	l, err := upstreams.ListenControl(ctx, s.cfg.StateDir)
	if errors.Is(err, upstreams.ErrRunning) {
		return nil, upstreams.Defect{Key: "dns.state_dir", Member: s.cfg.StateDir, Reason: err.Error(), Want: "a directory of its own for each server"}
	}
	if err != nil {
		s.log.Error("no control socket, razor upstreams accept cannot reach this server", "err", err)
		return nil, nil
	}
	return l, nil
}

// report tells ready how the lists are.
func (s *server) report(ctx context.Context, f *upstreams.Follower, ready Ready) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ready(state(f.Health(), s.export != nil, time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// state is ready as long as there is something to answer for, a zone or, where they
// are exported, an upstream list, be it from an old snapshot: taking a server out
// for a fault that all share would take all out.
func state(h upstreams.Health, export bool, now time.Time) (ok bool, text string) {
	away := "redis does not answer"
	if h.Refused != "" {
		away = "redis refuses: " + h.Refused
	}
	ago := strconv.Itoa(int(now.Sub(h.AsOf()).Seconds())) + " s ago"
	loaded := h.Loaded || export && h.Upstreams
	switch {
	case !loaded && h.Link == upstreams.LinkDown:
		return false, "not ready: " + away + " and there is no snapshot on disk"
	case !loaded:
		return false, "not ready: no zone in redis (a CONFIG with an SOA)"
	case h.Hold != "":
		text = "ready, on hold: " + h.Hold + "; razor upstreams accept ends it"
	case h.Replica.Role == "slave" && !h.Replica.LinkUp && h.Replica.Heard.IsZero():
		text = "ready, the redis replica has lost its primary, when is not known: serving its lists"
	case h.Replica.Role == "slave" && !h.Replica.LinkUp:
		text = "ready, the redis replica has lost its primary: serving the lists of " + ago
	case h.Link != upstreams.LinkDown:
		text = "ready"
	case h.FromDisk:
		text = "ready, " + away + ": serving the snapshot from disk"
	default:
		text = "ready, " + away + ": serving the snapshot of " + ago
	}
	if h.Stale {
		text += "; stale: as of " + ago
	}
	return true, text
}

// newAnswerer seeds a worker of its own from the system's randomness.
func (s *server) newAnswerer() *answerer {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails (crypto/rand)
	return newAnswerer(s, seed)
}

// handle is answer with the time it took, and a net under the faults of the
// program: one message must not take the server with it.
func (a *answerer) handle(msg []byte, source netip.Addr, via transport) (out []byte) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			a.server.metrics.panics.Inc()
			a.server.log.Error("fault in handling a message", "panic", p, "message", upstreams.Printable(string(msg)), "stack", string(debug.Stack()))
			out = nil
		}
		a.counters.observe(via, start)
	}()
	return a.answer(msg, source, via)
}

// sockets are what the server listens on: a UDP socket for each core and
// address, a TCP listener for each address.
type sockets struct {
	udp []*udpSocket
	tcp []*net.TCPListener
}

func (s *sockets) close() {
	for _, c := range s.udp {
		_ = c.conn.Close()
	}
	for _, l := range s.tcp {
		_ = l.Close()
	}
}

// listen opens all sockets or none.
func listen(ctx context.Context, addrs []string) (*sockets, error) {
	s := &sockets{}
	for i, text := range addrs {
		if err := s.add(ctx, text); err != nil {
			s.close()
			return nil, listenDefect(i, text, err)
		}
	}
	return s, nil
}

// add opens TCP first: that socket is not shared, so a second server on the port
// is found out, which the shared UDP sockets would let in.
func (s *sockets) add(ctx context.Context, text string) error {
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return err
	}
	l, err := listenTCP(ctx, addr)
	if err != nil {
		return err
	}
	s.tcp = append(s.tcp, l)
	for range runtime.GOMAXPROCS(0) {
		c, err := listenUDP(ctx, addr)
		if err != nil {
			return err
		}
		s.udp = append(s.udp, c)
	}
	return nil
}

func listenDefect(i int, text string, err error) upstreams.Defect {
	return upstreams.BindDefect("dns."+index("listen", i), text, err)
}

// CheckListen opens and closes what a server would listen on, and lists what
// cannot be had.
func CheckListen(ctx context.Context, cfg Config) []upstreams.Defect {
	var out []upstreams.Defect
	for i, text := range cfg.Listen {
		s := &sockets{}
		if err := s.add(ctx, text); err != nil {
			out = append(out, listenDefect(i, text, err))
		}
		s.close()
	}
	return out
}

func index(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
