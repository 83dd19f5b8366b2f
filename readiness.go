package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
)

// readyGrace is how long systemd is left to wait for a process that is not
// ready. After it the start counts as done, and /readyz and the status line say
// what is missing: to be killed by the start timeout would not bring it.
const readyGrace = 15 * time.Second

// A readiness is whether the process does its work, and a line that says more.
// It may be used by several goroutines.
type readiness struct {
	state   atomic.Pointer[readyState]
	changed chan struct{} // holds one token when there is a state that was not taken
}

type readyState struct {
	ready bool
	text  string
}

func newReadiness() *readiness {
	r := &readiness{changed: make(chan struct{}, 1)}
	r.state.Store(&readyState{false, "starting"})
	return r
}

// set says whether the process is ready, and why.
func (r *readiness) set(ready bool, text string) {
	next := readyState{ready, text}
	if *r.state.Swap(&next) == next {
		return
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// get is what was set last.
func (r *readiness) get() (ready bool, text string) {
	s := r.state.Load()
	return s.ready, s.text
}

// notifySystemd tells systemd of readiness, state and life until ctx ends, and
// then that the process stops. It does nothing where NOTIFY_SOCKET is not set.
func notifySystemd(ctx context.Context, r *readiness, log *slog.Logger) {
	s := systemd{log: log}
	if !s.tell("STATUS=starting") {
		return
	}
	defer func() {
		// Whoever starts again in the same process does not stop.
		if cause := context.Cause(ctx); !errors.Is(cause, gateway.ErrRestart) && !errors.Is(cause, agent.ErrRestart) {
			s.tell(daemon.SdNotifyStopping)
		}
	}()
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("watchdog not served", "err", err)
	}
	var ping <-chan time.Time
	if every > 0 {
		ticker := time.NewTicker(every / 2)
		defer ticker.Stop()
		ping = ticker.C
	}
	grace := time.NewTimer(readyGrace)
	defer grace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ping:
			s.tell(daemon.SdNotifyWatchdog)
		case <-grace.C:
			s.started()
		case <-r.changed:
			ready, text := r.get()
			s.tell("STATUS=" + text)
			if ready {
				s.started()
			}
		}
	}
}

// systemd is the service manager as the notifying goroutine knows it.
type systemd struct {
	log    *slog.Logger
	ready  bool // it knows that the start is done
	broken bool // it was not reached; said once
}

// started says that the start is done, once.
func (s *systemd) started() {
	if !s.ready {
		s.ready = s.tell(daemon.SdNotifyReady)
	}
}

// tell sends one state; false where there is no systemd or it was not reached.
func (s *systemd) tell(state string) bool {
	sent, err := daemon.SdNotify(false, state)
	if err != nil && !s.broken {
		s.broken = true
		s.log.Warn("systemd cannot be told", "err", err)
	}
	return sent
}
