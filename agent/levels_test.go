package agent

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/razor-steering/razor/agent/load"
	"github.com/razor-steering/razor/agent/segment"
)

// Each level is 404 from itself on, for the host and for containers with a load of their
// own or without.
func TestServeLevels(t *testing.T) {
	t.Parallel()
	a := newAgent(Config{Containers: []ContainerConfig{{Target: 1}, {Target: 2}}}, slog.New(slog.DiscardHandler), nil)
	mux := http.NewServeMux()
	var levels Levels
	levels.Register(mux)
	ask := func(path string) *http.Response {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Result()
	}
	holds := func(path string, status int, level string) {
		t.Helper()
		got := ask(path)
		if got.StatusCode != status || got.Header.Get(LevelHeader) != level {
			t.Errorf("%s: %d with level %s, want %d with %s", path, got.StatusCode, got.Header.Get(LevelHeader), status, level)
		}
	}
	measured := func(number uint16, level segment.Level) {
		a.monitors[number] = load.New(load.Config{Measure: load.Average, Capacity: 1, Interval: time.Second}, level, nil, nil)
	}
	holds("/level2", 503, "") // no agent
	levels.of.Store(a)
	holds("/level2", 200, "1") // nothing is measured
	holds("/level3", 200, "1")
	measured(1, segment.Critical)
	holds("/level2", 200, "1")
	holds("/level2?target=1", 404, "3")
	holds("/level3?target=1", 404, "3")
	holds("/level3?target=2", 200, "1")
	measured(segment.Host, segment.Warning)
	holds("/level2", 404, "2")
	holds("/level3?target=0", 200, "2")
	holds("/level2?target=2", 404, "2")
	holds("/level3?target=2", 200, "2")
	for _, path := range []string{"/level2?target=3", "/level3?target=-1", "/level3?target=x", "/level3?target=65537"} {
		holds(path, 400, "")
	}
	if got := ask("/level3").Header.Get("Cache-Control"); got != "max-age=1, stale-while-revalidate=1, stale-if-error=5" {
		t.Error("caches are told ", got)
	}
}
