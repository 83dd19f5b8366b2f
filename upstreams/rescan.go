package upstreams

import (
	"context"
	"errors"
	"slices"
	"time"
)

// errFlushed is a reading during which everything changed.
var errFlushed = errors.New("flushed while it was read")

// causeNone is the cause of the rescans that are done now and then.
const causeNone = "rescan"

// causePolled is that of a rescan of a server which names no changes.
const causePolled = "missing at the next reading"

// causeFlush is the cause of a rescan after Redis has said that all may have
// changed. What is missing then is lost, also where an edit named it just before.
const causeFlush = "flush or full resync"

// wholesale rescans, once more where the database is flushed or a zone made
// meanwhile.
func (s *session) wholesale(ctx context.Context, cause string) error {
	for {
		err := s.rescan(ctx, cause)
		switch {
		case errors.Is(err, errFlushed):
			cause = causeFlush
		case err == nil && s.newZone:
			cause = "new zone"
		default:
			return err
		}
	}
}

// tidy rescans without a cause: SWAPDB is not announced.
func (s *session) tidy(ctx context.Context) error {
	if err := s.tracker.barrier(ctx); err != nil {
		return err
	}
	if err := s.invalidated(ctx); err != nil { // edits first, that the scan finds no loss in them
		return err
	}
	return s.wholesale(ctx, causeNone)
}

// rescan reads everything. A loss that it finds and no edit explains is
// wholesale, and may be held.
func (s *session) rescan(ctx context.Context, cause string) error {
	start := time.Now()
	s.log.Debug("reading all lists", "cause", cause)
	var named []string // before the scan, and not yet looked at
	if s.tracker != nil {
		var flushed bool
		if named, flushed = s.tracker.take(); flushed {
			cause = causeFlush
		}
	}
	how := scanning{configured: s.model.configured, apex: s.model.isApex, use: s.keepGood}
	if cause == causeNone && s.tracker != nil {
		// Nothing has happened: edits need not wait for the end of this.
		how.between = func() error { return s.editsBetween(ctx, &named) }
	}
	got, err := s.reader.scan(ctx, how)
	if err != nil {
		return err
	}
	s.reportAll(got.defects)
	s.newZone = false
	if err := s.editsDuring(ctx, named, got, cause == causeFlush); err != nil {
		return err
	}
	if strays := s.obeyed(s.model.strays()); len(strays) > 0 {
		s.publish(strays)
	}
	newZone := s.newZone // the scan does not have all of it
	held := s.hold != nil
	var changes []change
	changes, s.hold = merge(s.hold, s.model.values, got.values, cause, time.Now(), s.model.snapshot.zones)
	s.publish(changes)
	s.newZone = newZone
	if s.hold != nil && !held {
		s.log.Error("mass loss in redis is not obeyed: hold", "cause", cause, "loss", s.hold.loss.String(),
			"ends", "when 90% are back and no more comes, or by: razor upstreams accept")
	}
	s.evaluate()
	s.sync()
	s.scanned, s.took = time.Now(), time.Since(start)
	s.metrics.rescan.Observe(s.took.Seconds())
	return nil
}

// editsBetween obeys what was edited since the last call, and keeps the names of
// the keys.
func (s *session) editsBetween(ctx context.Context, named *[]string) error {
	keys, flushed := s.tracker.take()
	if flushed {
		return errFlushed
	}
	if len(keys) == 0 {
		return nil
	}
	*named = append(*named, keys...)
	changes, err := s.reread(ctx, keys)
	if err != nil {
		return err
	}
	s.publish(s.obeyed(changes))
	return nil
}

// editsDuring obeys what was edited while a scan ran, or was named before and not
// yet looked at, and corrects the scan: a key that an operator removed is not
// lost. After a flush only what the scan still saw can have been removed by one.
func (s *session) editsDuring(ctx context.Context, named []string, got *scanned, flushed bool) error {
	if s.tracker == nil {
		return nil
	}
	if err := s.tracker.barrier(ctx); err != nil {
		return err
	}
	keys, again := s.tracker.take()
	if again {
		return errFlushed
	}
	changes, err := s.reread(ctx, append(named, keys...))
	if err != nil {
		return err
	}
	if flushed {
		changes = slices.DeleteFunc(changes, func(c change) bool { return c.value == nil && !got.exists[c.id] })
	}
	for _, c := range changes {
		if c.value != nil {
			s.newZone = s.newZone || c.id.kind == kindConfig && !got.exists[c.id]
			got.values[c.id] = c.value
		} else {
			delete(got.values, c.id)
		}
	}
	// A first snapshot has to be whole: it is made of the scan alone.
	if s.Snapshot() != nil {
		s.publish(s.obeyed(changes))
	}
	return nil
}

// evaluate ends the hold when enough is back, and no more is coming.
func (s *session) evaluate() {
	if s.hold != nil && s.hold.evaluate(time.Now()) {
		s.release("the lists are back")
	}
}

func (s *session) release(why string) {
	changes := s.hold.release(s.model.values)
	s.log.Info("hold ended", "why", why, "loss", s.hold.loss.String(), "held", time.Since(s.hold.since).Round(time.Second).String())
	s.hold = nil
	s.publish(changes)
	s.setHealth(func(*Health) {})
}

// accept ends the hold by the operator's will.
func (s *session) accept(ctx context.Context, reply chan<- error) error {
	if s.hold == nil {
		reply <- errors.New("nothing is on hold")
		return nil
	}
	err := s.wholesale(ctx, s.hold.cause) // what Redis has at this moment is accepted
	if err == nil && s.hold != nil {
		s.release("accepted by the operator")
	}
	s.sync()
	reply <- err
	return err
}
