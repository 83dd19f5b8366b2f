package upstreams

import "context"

// edit obeys the named keys at once.
func (s *session) edit(ctx context.Context, keys []string) error {
	changes, err := s.reread(ctx, keys)
	if err != nil {
		return err
	}
	s.publish(changes)
	for _, c := range changes {
		if c.id.kind == kindConfig && c.value == nil {
			s.publish(s.obeyed(s.model.strays()))
			break
		}
	}
	s.sync()
	return nil
}

// obeyed has a hold know of edits, so that it does not wait for what they removed.
func (s *session) obeyed(changes []change) []change {
	if s.hold != nil {
		for _, c := range changes {
			s.hold.edit(c)
		}
	}
	return changes
}

// reread reads the named keys again, each as a whole.
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
		if id.kind == kindForeign || id.kind == kindKnown {
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
	})
	if err != nil {
		return nil, err
	}
	return s.obeyed(changes), nil
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
// usable keeps its last good value, and so does an SOA that cannot be used.
func (s *session) keepGood(f found) *value {
	old := s.model.values[f.id]
	switch {
	case !f.exists || old == nil:
		return f.value
	case f.value == nil:
		return old
	case f.id.kind == kindConfig && f.value.config.badSOA && old.config.soa != nil:
		c := *f.value.config
		c.soa = old.config.soa
		c.fields["SOA"] = old.config.fields["SOA"]
		if kept := (&value{config: &c}); !kept.equal(old) {
			return kept
		}
		return old
	case f.value.equal(old):
		return old
	}
	return f.value
}
