package agent

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/razor-steering/razor/agent/segment"
	"github.com/razor-steering/razor/steering"
)

const (
	// LevelHeader has the level as a number in answers for levels.
	LevelHeader = "Razor-Level"
	// levelFresh is for how long a cache may take an answer for the level: as a second of
	// measurements has made it.
	levelFresh = time.Second
	// levelStale is for how long it may go on with it where the agent does not answer, which
	// may start again. Then it is to take that for critical.
	levelStale = 5 * time.Second
)

// Levels tells caches on this host what their content may cost:
//
//	GET /level2[?target=N]   404 from warning on, else 200
//	GET /level3[?target=N]   404 when the level is critical, else 200
//
// The target is a container; without one it is the host. One that there is not is 400. It
// is 503 as long as no agent runs that has Levels in its options, as one that starts knows
// no level yet. The zero value is ready, for any goroutine.
type Levels struct{ of atomic.Pointer[agent] }

// Register has a mux answer.
func (l *Levels) Register(mux *http.ServeMux) {
	for _, from := range []steering.Level{steering.LevelWarning, steering.LevelCritical} {
		mux.HandleFunc(fmt.Sprintf("GET /level%d", from), func(w http.ResponseWriter, r *http.Request) {
			a := l.of.Load()
			if a == nil {
				refuse(w, http.StatusServiceUnavailable, "starting")
				return
			}
			a.serveLevel(w, r, from)
		})
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, why, status)
}

func (a *agent) serveLevel(w http.ResponseWriter, r *http.Request, from steering.Level) {
	target, err := a.targetOf(r.URL.Query().Get("target"))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	level := a.levelNow(target)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(LevelHeader, strconv.Itoa(int(level)))
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%.0f, stale-while-revalidate=%[1]v, stale-if-error=%.0f", levelFresh.Seconds(), levelStale.Seconds()))
	if level >= from {
		w.WriteHeader(http.StatusNotFound)
	}
	fmt.Fprintln(w, level) // a client that went away is not our trouble
}

// targetOf reads the number of a target, "" for the host.
func (a *agent) targetOf(text string) (uint16, error) {
	if text == "" {
		return segment.Host, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	known := n == uint64(segment.Host) || slices.ContainsFunc(a.config.Containers, func(c ContainerConfig) bool { return c.Target == int(n) })
	if err != nil || !known {
		return 0, fmt.Errorf("target %.20q: not one of agent.containers; want one of them, or none for the host", text)
	}
	return uint16(n), nil
}

// levelNow is the level that a target reports: its own where its load is measured, else
// the host's, and normal where nothing is. It is safe for concurrent use.
func (a *agent) levelNow(target uint16) steering.Level {
	for _, of := range []uint16{target, segment.Host} {
		if m := a.monitors[of]; m != nil {
			return m.Leveled().Level
		}
	}
	return steering.LevelNormal
}
