package gateway

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/gateway/bgp"
)

const (
	// handoverGap is for how long the peers bear silence at a restart, and
	// handoverWait for how long their consent is waited for.
	handoverGap  = 3 * time.Second
	handoverWait = 2 * time.Second
)

// paths watches the paths to the peers by BFD, and tells the announcer.
type paths struct {
	announcer *bgp.Announcer
	speaker   *bfd.Speaker // nil where no peer has BFD
	log       *slog.Logger
	resume    []bfd.Resume // of the process before

	mu     sync.Mutex
	config map[string]bgp.PeerConfig // peers with BFD, by name
	names  map[netip.Addr]string     // by address
	addrs  map[string]netip.Addr     // and back
}

func newPaths(peers []bgp.PeerConfig, resume []bfd.Resume, a *bgp.Announcer, log *slog.Logger, reg prometheus.Registerer) *paths {
	p := &paths{
		announcer: a, log: log, resume: resume, config: map[string]bgp.PeerConfig{},
		names: map[netip.Addr]string{}, addrs: map[string]netip.Addr{},
	}
	for _, c := range peers {
		if c.BFD != nil {
			p.config[c.Name] = c
		}
	}
	if len(p.config) > 0 {
		p.speaker = bfd.New(bfd.Options{Changed: p.changed}, log, reg)
	}
	return p
}

// run keeps the sessions until ctx ends.
func (p *paths) run(ctx context.Context) error {
	if p.speaker == nil {
		return nil
	}
	p.sync()
	return p.speaker.Run(ctx)
}

// sync has a session for every peer whose address is known.
func (p *paths) sync() {
	if p.speaker == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, c := range p.config {
		was, now := p.addrs[name], p.announcer.Address(name)
		if was == now {
			continue
		}
		if was.IsValid() {
			p.speaker.Remove(was)
			delete(p.names, was)
			delete(p.addrs, name)
		}
		if !now.IsValid() {
			continue
		}
		p.names[now], p.addrs[name] = name, now
		local, _ := netip.ParseAddr(c.Local)
		session := bfd.Config{Peer: now, Local: local, Interval: c.BFD.Interval, Multiplier: c.BFD.Multiplier, Resume: p.resumed(now)}
		if err := p.speaker.Add(session); err != nil {
			p.log.Error("no BFD with a peer", "peer", name, "err", err)
		}
	}
}

// resumed is the session that the last process had with a peer, once; nil without
// one.
func (p *paths) resumed(peer netip.Addr) *bfd.Resume {
	for i, r := range p.resume {
		if r.Peer == peer {
			p.resume = slices.Delete(p.resume, i, i+1)
			return &r
		}
	}
	return nil
}

// changed tells the announcer what a session has become.
func (p *paths) changed(c bfd.Change) {
	p.mu.Lock()
	name, ok := p.names[c.Peer]
	p.mu.Unlock()
	if !ok {
		return
	}
	switch {
	case c.Failed():
		p.announcer.BFD(name, false)
	case c.State == bfd.Up:
		p.announcer.BFD(name, true)
	}
}

// handover leaves the sessions that are up to the process that follows.
func (p *paths) handover() []bfd.Resume {
	if p.speaker == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), handoverWait)
	defer cancel()
	return p.speaker.Handover(ctx, handoverGap)
}

// PathStatus is the BFD session of a peer.
type PathStatus struct {
	State         string    `json:"state"`
	Since         time.Time `json:"since"`
	Detection     float64   `json:"detection"` // seconds; 0 while the peer is not heard
	Failures      uint64    `json:"failures"`
	LastFailure   string    `json:"last_failure,omitempty"`
	Transmit      float64   `json:"transmit"` // seconds between packets
	Receive       float64   `json:"receive"`
	Discriminator uint32    `json:"discriminator"`
}

// String is the session in a word, with the detection time where it is up.
func (s *PathStatus) String() string {
	switch {
	case s == nil:
		return "-"
	case s.Detection == 0:
		return s.State
	}
	return s.State + " " + time.Duration(s.Detection*float64(time.Second)).Round(time.Millisecond).String()
}

// status is the session of a peer; nil without one.
func (p *paths) status(name string) *PathStatus {
	if p.speaker == nil {
		return nil
	}
	p.mu.Lock()
	addr := p.addrs[name]
	p.mu.Unlock()
	for _, s := range p.speaker.Sessions() {
		if s.Peer != addr {
			continue
		}
		out := &PathStatus{
			State: s.State.String(), Since: s.Since, Detection: s.DetectionTime.Seconds(), Failures: s.Failures,
			Transmit: s.TransmitInterval.Seconds(), Receive: s.ReceiveInterval.Seconds(), Discriminator: s.LocalDiscriminator,
		}
		if s.Failures > 0 {
			out.LastFailure = s.LastFailure.String()
		}
		return out
	}
	return nil
}
