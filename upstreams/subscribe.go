package upstreams

import "iter"

// Changed is closed as soon as Snapshot is another than since, at once if it
// already is; since is nil before the first. It costs nothing to wait for it, or
// to wait no longer.
func (f *Follower) Changed(since *Snapshot) <-chan struct{} {
	if since == nil {
		return f.first
	}
	return since.superseded
}

// UpstreamsSince visits every application whose endpoints are others than in an
// older snapshot, in wire form and no order: nil for one that is gone, all of them
// where old is nil. A META alone is no difference. The work grows with what
// differs, not with the lists.
func (s *Snapshot) UpstreamsSince(old *Snapshot) iter.Seq2[string, *Upstream] {
	if old == nil {
		return s.Upstreams()
	}
	return func(yield func(string, *Upstream) bool) {
		for app := range s.apps.touchedSince(old.apps) {
			u, was := s.Upstream(app), old.Upstream(app)
			if u == was || u != nil && u.sameList(was) {
				continue
			}
			if !yield(app, u) {
				return
			}
		}
	}
}
