package upstreams

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"
)

// saver writes snapshots to disk on a goroutine of its own: a slow or full disk
// holds nobody up.
type saver struct {
	dir     string
	log     *slog.Logger
	metrics *metrics
	work    chan map[keyID]*value
	done    chan struct{}
	next    time.Time // not before
	failing bool
}

func newSaver(dir string, log *slog.Logger, m *metrics) *saver {
	s := &saver{dir: dir, log: log, metrics: m, work: make(chan map[keyID]*value), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if dir != "" {
			s.tidy()
		}
		for values := range s.work {
			s.save(values)
		}
	}()
	return s
}

// offer hands values over for saving unless the last ones are still being
// written or were so a moment ago. It tells whether they were taken.
func (s *saver) offer(values map[keyID]*value) bool {
	if s.dir == "" {
		return true
	}
	if time.Now().Before(s.next) {
		return false
	}
	select {
	case s.work <- maps.Clone(values):
		s.next = time.Now().Add(saveAfter)
		return true
	default:
		return false
	}
}

// stop finishes, and writes values if they are not yet on disk.
func (s *saver) stop(unsaved bool, values map[keyID]*value) {
	close(s.work)
	<-s.done
	if unsaved && s.dir != "" {
		s.save(values)
	}
}

// tidy removes what a save left behind that was killed.
func (s *saver) tidy() {
	left, _ := filepath.Glob(filepath.Join(s.dir, SnapshotFile+".*"))
	for _, file := range left {
		_ = os.Remove(file)
	}
}

func (s *saver) save(values map[keyID]*value) {
	start := time.Now()
	err := save(s.dir, values)
	s.metrics.save.Observe(time.Since(start).Seconds())
	if err != nil {
		s.metrics.saveErrors.Inc()
		if !s.failing {
			s.log.Error("last good snapshot cannot be written, serving goes on", "err", err)
		}
	} else if s.failing {
		s.log.Info("last good snapshot is written again")
	}
	s.failing = err != nil
}
