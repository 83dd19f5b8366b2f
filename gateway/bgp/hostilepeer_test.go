package bgp

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/bgp/hostile"
)

// every is all cases in the long run, and every nth in others.
func every(n int, list []hostile.Case) []hostile.Case {
	if os.Getenv("RAZOR_LONG") != "" {
		return list
	}
	var out []hostile.Case
	for i := 0; i < len(list); i += n {
		out = append(out, list[i])
	}
	return out
}

// victim is an announcer with the hostile peer, and how that connects: when the
// session before has ended. What it did in that is forgiven, as there are more cases
// than there is time for pauses.
func victim(t *testing.T) (*side, hostile.Connect) {
	t.Helper()
	s := byHand(t, PeerConfig{Hold: 3 * time.Second}, withRoutes(hosts(10)))
	p := s.peers["hand"]
	return s, func(ctx context.Context) (net.Conn, error) {
		for _, _, open := s.Sessions(); open > 0 && ctx.Err() == nil; _, _, open = s.Sessions() {
			time.Sleep(time.Millisecond)
		}
		p.mu.Lock()
		p.pause, p.held, p.called = 0, time.Time{}, time.Time{}
		p.mu.Unlock()
		return new(net.Dialer).DialContext(ctx, "tcp", (&net.TCPAddr{IP: net.IPv6loopback, Port: s.port}).String())
	}
}

// With every case that has to be outlived on one session, it stays.
func TestOutlived(t *testing.T) {
	t.Parallel()
	s, connect := victim(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var list []hostile.Case
	for _, c := range hostile.Cases() {
		if c.Survives && c.State == hostile.Established {
			list = append(list, c)
		}
	}
	culprits, err := hostile.Culprits(ctx, connect, list)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range culprits {
		t.Error(c.Name)
	}
	if got := s.metric(`peer_sessions_total{peer="hand"}`); got != 1 {
		t.Errorf("%v sessions", got)
	}
	if s.metric(`peer_malformed_updates_total{peer="hand"}`) == 0 {
		t.Error("nothing counted")
	}
	s.crashless(t)
}

// crashless checks that no speaker died.
func (s *side) crashless(t *testing.T) {
	t.Helper()
	if n := s.metric(`speaker_crashes_total{peer="hand"}`); n != 0 {
		t.Errorf("%v speakers died", n)
	}
}

// What may end a session ends no more than that.
func TestAssault(t *testing.T) {
	t.Parallel()
	s, connect := victim(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var list []hostile.Case
	for _, c := range hostile.Cases() {
		if !c.Survives && c.State == hostile.Established {
			list = append(list, c)
		}
	}
	if err := hostile.Assault(ctx, connect, every(100, list)); err != nil {
		t.Error(err)
	}
	s.crashless(t)
}

// What comes before a session is established does no harm either, and OPENs that
// are sound but for what is to be ignored lead to one.
func TestHostileOpens(t *testing.T) {
	t.Parallel()
	var list []hostile.Case
	for _, c := range hostile.Cases() {
		if c.State != hostile.Established {
			list = append(list, c)
		}
	}
	list = every(40, list)
	work := make(chan hostile.Case)
	var wg sync.WaitGroup
	for range 4 { // most wait
		s, connect := victim(t)
		wg.Go(func() {
			for c := range work {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				err := hostile.Play(ctx, connect, c)
				cancel()
				if _, ended := errors.AsType[*hostile.Ended](err); err != nil && (!ended || c.Survives) {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
			s.crashless(t)
		})
	}
	for _, c := range list {
		work <- c
	}
	close(work)
	wg.Wait()
	t.Logf("%d cases", len(list))
}
