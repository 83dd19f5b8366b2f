package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// SnapshotLive is what the gateway that runs with a state directory decided by last: the
// plan in force is what [steering.Decide] makes of it.
func SnapshotLive(ctx context.Context, stateDir string) (steering.Snapshot, error) {
	var s steering.Snapshot
	text, err := upstreams.ControlCall(ctx, stateDir, http.MethodGet, snapshotPath)
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// DrainSiteLive has the gateway that runs with a state directory send the new flows of its
// site to others.
// force also drains one whose new flows would have nowhere to go.
func DrainSiteLive(ctx context.Context, stateDir, why string, force bool) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, fmt.Sprintf("%s?why=%s&force=%t", drainSitePath, url.QueryEscape(why), force))
}

// UndrainSiteLive ends that.
func UndrainSiteLive(ctx context.Context, stateDir string) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, undrainSitePath)
}

// decides is why this gateway does not decide for its site, nil if it does.
func (g *Gateway) decides() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.dataplane == nil:
		return errors.New("there is no dataplane (gateway.dataplane.interfaces)")
	case g.config.Site == "":
		return errors.New("this gateway decides nothing, as it does not know its site (gateway.site)")
	case g.dataplane.decider == nil:
		return fmt.Errorf("another gateway decides for site %s: ask that at %s (gateway.dataplane.follow)", g.config.Site, g.config.Dataplane.Follow)
	case !g.dataplane.decider.leads():
		return fmt.Errorf("%s (gateway.dataplane.consul_lock)", g.dataplane.election.state())
	}
	return nil
}

func (g *Gateway) serveSnapshot(w http.ResponseWriter, _ *http.Request) {
	err := g.decides()
	var s *steering.Snapshot
	if err == nil {
		if s, _ = g.dataplane.decider.state(); s == nil {
			err = errors.New("nothing was decided yet")
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // a client that went away is not our trouble
}

func (g *Gateway) serveDrainSite(w http.ResponseWriter, r *http.Request) {
	err := g.decides()
	if err == nil && r.URL.Query().Get("force") != "true" {
		if stranded := g.dataplane.decider.stranded(); stranded != nil {
			err = errors.New(strings.Join(stranded, "; ") + "; --force drains all the same")
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	g.drainSite(w, whyOf(r))
}

func (g *Gateway) serveUndrainSite(w http.ResponseWriter, _ *http.Request) {
	if err := g.decides(); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	g.drainSite(w, "")
}

// drainSite takes an operator's word about the site, and says what follows from it.
func (g *Gateway) drainSite(w http.ResponseWriter, why string) {
	p := g.dataplane
	saved := p.decider.drain(why)
	p.reports.round()
	p.reports.poke() // to have it saved
	g.log.Info("site", "drained", why != "", "why", why)
	_, plan := p.decider.state()
	if plan == nil || plan.Drained != (why != "") {
		http.Error(w, "no plan that says so is in force: the log has why", http.StatusConflict)
		return
	}
	text := "site " + plan.Site + " takes new flows again"
	if why != "" {
		text = "site " + plan.Site + " is drained"
	}
	for i := range plan.Services {
		s := &plan.Services[i]
		text += fmt.Sprintf("\nservice %s: %s: %s", s.Name, inWords(shares(s)), s.Reason)
	}
	g.say(w, saved, text)
}
