package upstreams

import (
	"context"
	"errors"
	"time"
)

// session is one connection to Redis, from connecting to its loss.
type session struct {
	*Follower
	reader  *reader
	tracker *tracker // nil where the server cannot track
	saver   *saver
	blind   bool          // it was said that INFO is denied
	reached bool          // the lists were read
	scanned time.Time     // when all was read last
	took    time.Duration // how long that took
}

func (s *session) run(ctx context.Context) error {
	client, err := newClient(s.cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	s.reader = newReader(client)
	s.tracker, err = track(ctx, s.cfg)
	link := LinkTracking
	switch {
	case errors.Is(err, errNoTracking):
		link = LinkPolling
		s.log.Warn("redis does not name changes, all lists are read again and again", "err", err, "needs", "Redis 6, and +client|tracking in the account's ACL")
	case err != nil:
		return err
	default:
		defer s.tracker.close()
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	// A gap in what we saw of this server ends with a rescan.
	if err := s.wholesale(ctx, "redis link was down"); err != nil {
		return err
	}
	s.reached = true
	s.setHealth(func(h *Health) { h.Link, h.Refused = link, "" })
	snap := s.Snapshot()
	s.log.Info("following redis", "address", s.cfg.Address, "link", string(link), "zones", snap.ZoneCount(), "names", snap.NameCount, "members", snap.MemberCount)
	if link == LinkPolling {
		return s.poll(ctx)
	}
	return s.follow(ctx)
}

// follow obeys the tracking connection.
func (s *session) follow(ctx context.Context) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	rescan := time.NewTicker(s.opt.Rescan)
	defer rescan.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.tracker.done:
			return s.tracker.failure()
		case <-s.tracker.wake:
			err = s.invalidated(ctx)
		case <-ping.C:
			err = s.alive(ctx)
		case <-rescan.C:
			err = s.tidy(ctx)
		case reply := <-s.accepts:
			err = s.accept(ctx, reply)
		}
		if err != nil {
			return err
		}
	}
}

// poll reads everything again and again.
func (s *session) poll(ctx context.Context) error {
	wait := rescanPolling
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case reply := <-s.accepts:
			err = s.accept(ctx, reply)
		case <-time.After(wait):
			s.expire()
			start := time.Now()
			if err = s.watch(ctx); err == nil {
				err = s.wholesale(ctx, causePolled)
			}
			// Large lists shall not keep the server busy.
			wait = min(max(rescanPolling, 10*time.Since(start)), rescanPollingMax)
		}
		if err != nil {
			return err
		}
		s.sync()
	}
}

// alive checks the link once a second.
func (s *session) alive(ctx context.Context) error {
	if s.tracker.silence() > silenceLimit {
		return errors.New("redis does not answer")
	}
	if err := s.tracker.ping(); err != nil {
		return err
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	if s.hold != nil && time.Since(s.scanned) > max(rescanHeld, rescanShare*s.took) {
		return s.tidy(ctx) // what came back by SWAPDB was not named
	}
	s.evaluate()
	s.expire()
	s.sync()
	return nil
}

// sync notes that the snapshot is what Redis says, which it is not during a hold,
// and has it saved.
func (s *session) sync() {
	s.setHealth(func(h *Health) {
		if s.hold == nil {
			h.InSync, h.FromDisk = time.Now(), false
		}
	})
	s.unsaved = s.saver.failed.Swap(false) || s.unsaved
	if s.unsaved && s.saver.offer(s.model.values) {
		s.unsaved = false
	}
}

// invalidated handles what the tracking connection named.
func (s *session) invalidated(ctx context.Context) error {
	start := time.Now()
	keys, flushed := s.tracker.take()
	if flushed {
		return s.wholesale(ctx, causeFlush)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.edit(ctx, keys); err != nil {
		return err
	}
	s.metrics.edit.Observe(time.Since(start).Seconds())
	if s.newZone {
		return s.wholesale(ctx, "new zone")
	}
	return nil
}
