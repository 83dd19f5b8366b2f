package bfd

import (
	"net/netip"
	"time"
)

// Status is a session at a moment.
type Status struct {
	Peer   netip.Addr
	Local  netip.Addr // not valid where the routing table decides
	State  State
	Since  time.Time
	Remote State // what the peer says of itself

	Diagnostic       Diagnostic
	RemoteDiagnostic Diagnostic
	LastFailure      Diagnostic // why the session failed last
	Failures         uint64     // how often it did

	LocalDiscriminator  uint32
	RemoteDiscriminator uint32 // 0 while the peer is not heard
	TransmitInterval    time.Duration
	ReceiveInterval     time.Duration // in which the peer sends; 0 while it is not heard
	DetectionTime       time.Duration

	Transitions    [len(stateWords)]uint64 // by state
	Received, Sent uint64                  // packets
	SendErrors     uint64
}

func (w *worker) status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, c := w.session, &w.counters
	out := Status{
		Peer: w.peer, Local: w.local, State: s.state, Since: c.since, Remote: s.peer.state,
		Diagnostic: s.diag, RemoteDiagnostic: s.peer.diag, LastFailure: c.lastFailure, Failures: c.failures,
		LocalDiscriminator: s.my, RemoteDiscriminator: s.peer.my,
		TransmitInterval: s.every, DetectionTime: s.detection(),
		Transitions: c.transitions, Received: c.received, Sent: c.sent, SendErrors: c.sendErrors,
	}
	if s.peer.my != 0 {
		out.ReceiveInterval = max(s.rx.inForce, s.peer.every)
	}
	return out
}
