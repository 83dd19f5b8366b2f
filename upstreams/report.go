package upstreams

import "slices"

// maxReports bounds the log lines about one key.
const maxReports = 20

// report logs the defects of a key when they have changed.
func (f *Follower) report(key string, defects []Defect) {
	old := f.defects[key]
	if len(defects) == 0 {
		delete(f.defects, key)
	} else if !slices.Equal(old, defects) {
		f.defects[key] = defects
		told := make(map[Defect]bool, len(old))
		for _, d := range old {
			told[d] = true
		}
		n := 0
		for _, d := range defects {
			if told[d] {
				continue
			}
			if n++; n > maxReports {
				f.log.Warn("more is left out of this key", "key", Printable(key), "defects", len(defects))
				break
			}
			f.log.Warn("left out", "key", Printable(d.Key), "member", Printable(d.Member), "reason", Printable(d.Reason), "want", d.Want)
		}
	}
	f.metrics.rejected.Add(float64(len(defects) - len(old)))
}

// reportAll reports what a scan found, and forgets what it did not find.
func (f *Follower) reportAll(defects map[string][]Defect) {
	for key := range f.defects {
		if defects[key] == nil {
			f.report(key, nil)
		}
	}
	for key, d := range defects {
		f.report(key, d)
	}
}
