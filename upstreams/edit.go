package upstreams

import (
	"context"
	"errors"
	"slices"
)

// edit obeys the named keys at once.
func (s *session) edit(ctx context.Context, keys []string) error {
	changes, err := s.reread(ctx, keys)
	if errors.Is(err, errFlushed) {
		return s.wholesale(ctx, causeFlush)
	}
	if err != nil {
		return err
	}
	s.publish(s.obeyed(changes))
	for _, c := range changes {
		if c.id.kind == kindConfig && c.value == nil {
			s.publish(s.obeyed(s.model.strays()))
			break
		}
	}
	s.sync()
	return nil
}

// obeyed are the edits of some changes, which a hold is told of: it does not wait
// for what they removed. A key that was not in Redis since the loss is removed by
// nobody: it was named for what happened before.
func (s *session) obeyed(changes []change) []change {
	if s.hold == nil {
		return changes
	}
	var out []change
	for _, c := range changes {
		if c.value == nil && s.hold.present[c.id] == nil {
			continue
		}
		s.hold.edit(c)
		out = append(out, change{c.id, s.hold.serve(c.id, c.value, s.model.values[c.id])})
	}
	return out
}

// reread reads the named keys again, each as a whole. A key that is gone may have
// gone with all others: errFlushed tells that this was announced meanwhile.
func (s *session) reread(ctx context.Context, keys []string) ([]change, error) {
	var ids []keyID
	seen := map[keyID]bool{}
	for _, key := range keys {
		id, defect := parseKey(key)
		if defect == nil && (id.kind == kindForeign || id.kind == kindSticky) {
			id, defect = inZone(key, s.model.isApex)
		}
		if defect != nil {
			if err := s.checkSlip(ctx, key, *defect); err != nil {
				return nil, err
			}
		}
		if id.kind == kindForeign {
			continue
		}
		s.reader.note(id, key)
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	var changes []change
	err := s.reader.read(ctx, ids, func(f found) {
		for _, key := range f.tried {
			if key != f.key {
				s.report(key, nil) // another spelling is used now
			}
		}
		s.report(f.key, f.defects)
		changes = append(changes, change{f.id, s.keepGood(f)})
	}, nil)
	if err != nil || !slices.ContainsFunc(changes, func(c change) bool { return c.value == nil }) {
		return changes, err
	}
	if err := s.tracker.barrier(ctx); err != nil {
		return nil, err
	}
	if s.tracker.flushPending() {
		return nil, errFlushed
	}
	return changes, nil
}

// checkSlip reports a key that only looks like one of ours, as long as it is there.
func (s *session) checkSlip(ctx context.Context, key string, d Defect) error {
	n, err := s.reader.client.Exists(ctx, key).Result()
	if err != nil {
		return err
	}
	if n == 0 {
		s.report(key, nil)
	} else {
		s.report(key, []Defect{d})
	}
	return nil
}

// keepGood is the value to serve of a key: a key that is there and has nothing
// usable keeps its last good value, and so does a field of a CONFIG.
func (f *Follower) keepGood(got found) *value {
	old := f.model.values[got.id]
	v := got.value
	switch {
	case !got.exists || old == nil:
		return v
	case v == nil:
		return old
	case v.config != nil:
		if kept := v.config.keeping(old.config, v.config.bad...); kept != v.config {
			v = &value{config: kept}
		}
	}
	if v.equal(old) {
		return old
	}
	return v
}
