package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// Verbs on the control socket.
const (
	statusPath  = "/gateway/status"
	drainPath   = "/gateway/drain"
	undrainPath = "/gateway/undrain"
	restartPath = "/gateway/restart"

	snapshotPath    = "/gateway/snapshot"
	drainSitePath   = "/gateway/site/drain"
	undrainSitePath = "/gateway/site/undrain"
)

// restartTimeout is how long a gateway that starts again may not answer.
const restartTimeout = 30 * time.Second

// maxWhy bounds the reason that an operator gives, which goes to the peers.
const maxWhy = 128

// DrainLive drains the gateway that runs with a state directory, and returns what
// it says when it is out of the way.
func DrainLive(ctx context.Context, stateDir, why string) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, drainPath+"?why="+url.QueryEscape(why))
}

// UndrainLive has it announce again.
func UndrainLive(ctx context.Context, stateDir string) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, undrainPath)
}

// RestartLive has it start again with the binary and the configuration that are
// there now, and waits until it answers. The peers keep the routes.
func RestartLive(ctx context.Context, stateDir string) (string, error) {
	before, err := StatusLive(ctx, stateDir)
	if err != nil {
		return "", err
	}
	if _, err := upstreams.ControlCall(ctx, stateDir, http.MethodPost, restartPath); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, restartTimeout)
	defer cancel()
	for {
		now, err := StatusLive(ctx, stateDir)
		if err == nil && !now.Started.Equal(before.Started) {
			return "restarted, routes kept", nil
		}
		select {
		case <-ctx.Done():
			return "", errors.New("it does not come back; see its log")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// StatusLive is what the running gateway does.
func StatusLive(ctx context.Context, stateDir string) (Status, error) {
	var s Status
	text, err := upstreams.ControlCall(ctx, stateDir, http.MethodGet, statusPath)
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

func (g *Gateway) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(g.Status()) // a client that went away is not our trouble
}

// whyOf is the reason that an operator gives.
func whyOf(r *http.Request) string {
	why := cmp.Or(upstreams.Printable(r.URL.Query().Get("why")), drainedByHand)
	return why[:min(len(why), maxWhy)]
}

// serveDrain answers when the gateway is out of the way.
func (g *Gateway) serveDrain(w http.ResponseWriter, r *http.Request) {
	why := whyOf(r)
	saved, err := g.drainByHand(r.Context(), why, func() bool { return g.drain.byHand == "" || g.drain.done() })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	g.mu.Lock()
	undrained := g.drain.byHand == ""
	g.mu.Unlock()
	if undrained {
		http.Error(w, "undrained meanwhile", http.StatusConflict)
		return
	}
	g.say(w, saved, "drained: nothing is announced, all sessions are closed")
}

func (g *Gateway) serveUndrain(w http.ResponseWriter, r *http.Request) {
	saved, err := g.drainByHand(r.Context(), "", func() bool { return true })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	g.mu.Lock()
	text := "in service"
	if why := g.drain.why(); why != "" {
		text = "still drained: " + why
	}
	g.mu.Unlock()
	g.say(w, saved, text)
}

func (g *Gateway) serveRestart(w http.ResponseWriter, _ *http.Request) {
	if _, _, err := g.readConfig(); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	const said = "restarting, routes kept\n"
	w.Header().Set("Content-Length", strconv.Itoa(len(said))) // so that it is whole when this process is another
	_, _ = io.WriteString(w, said)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	g.mu.Lock()
	g.restart = true
	g.mu.Unlock()
	g.poke()
}

// say answers; an error of the state directory is added, as what was asked for is
// done all the same.
func (g *Gateway) say(w http.ResponseWriter, err error, text string) {
	if err != nil {
		g.log.Error("drain not kept over a restart", "err", err)
		text += "; not kept over a restart: " + err.Error()
	}
	fmt.Fprintln(w, text)
}

// drainByHand takes an operator's word, none to end a drain, and waits until the loop
// has come to what ok tells. saved is why the word is not kept over a restart.
func (g *Gateway) drainByHand(ctx context.Context, why string, ok func() bool) (saved, err error) {
	g.keeping.Lock()
	g.mu.Lock()
	g.drain.byHand = why
	dir, stepped := g.config.StateDir, g.stepped
	g.mu.Unlock()
	g.poke()
	saved = g.drain.save(dir) // a slow disk keeps nobody else
	g.keeping.Unlock()
	for {
		select {
		case <-stepped:
		case <-ctx.Done():
			return saved, ctx.Err()
		}
		g.mu.Lock()
		done := ok()
		stepped = g.stepped
		g.mu.Unlock()
		if done {
			return saved, nil
		}
	}
}
