package upstreams

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

const (
	saveShare = 20              // a save is followed by so many times its length without one
	saveRetry = 5 * time.Second // after one that failed
)

// saver writes snapshots to disk on a goroutine of its own: a slow or full disk
// holds nobody up.
type saver struct {
	dir     string
	log     *slog.Logger
	metrics *metrics
	work    chan map[keyID]*value
	done    chan struct{}

	busy   atomic.Bool
	failed atomic.Bool  // the last save failed: what it should have written is unsaved
	next   atomic.Int64 // no save before, in nanoseconds since start
	start  time.Time
	said   bool // that saving fails; of the goroutine
}

func newSaver(dir string, log *slog.Logger, m *metrics) *saver {
	s := &saver{dir: dir, log: log, metrics: m, work: make(chan map[keyID]*value, 1), done: make(chan struct{}), start: time.Now()}
	go func() {
		defer close(s.done)
		if dir != "" {
			s.tidy()
		}
		for values := range s.work {
			s.save(values)
			s.busy.Store(false)
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
	if int64(time.Since(s.start)) < s.next.Load() || s.busy.Swap(true) {
		return false
	}
	s.work <- maps.Clone(values)
	return true
}

// stop finishes, and writes values if they are not yet on disk.
func (s *saver) stop(unsaved bool, values map[keyID]*value) {
	close(s.work)
	<-s.done
	if (unsaved || s.failed.Load()) && s.dir != "" {
		s.save(values)
	}
}

// tidy removes what a save left behind that was killed.
func (s *saver) tidy() {
	left, _ := filepath.Glob(filepath.Join(s.dir, SnapshotFile+".*[0-9]"))
	for _, file := range left {
		_ = os.Remove(file)
	}
}

func (s *saver) save(values map[keyID]*value) {
	begin := time.Now()
	err := save(s.dir, values)
	took := time.Since(begin)
	s.metrics.save.Observe(took.Seconds())
	pause := max(saveAfter, saveShare*took)
	if err != nil {
		pause = max(saveRetry, pause)
		s.metrics.saveErrors.Inc()
		if !s.said {
			s.log.Error("last good snapshot cannot be written, serving goes on", "err", err)
		}
	} else if s.said {
		s.log.Info("last good snapshot is written again")
	}
	s.said = err != nil
	s.failed.Store(s.said)
	s.next.Store(int64(time.Since(s.start) + pause))
}
