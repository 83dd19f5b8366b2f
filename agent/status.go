package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/upstreams"
)

// Verbs on the control socket.
const (
	statusPath  = "/agent/status"
	drainPath   = "/agent/drain"
	undrainPath = "/agent/undrain"
)

// maxWhy bounds the reason that an operator gives.
const maxWhy = 128

// Status is what an agent tells gateways, and of what it is made.
type Status struct {
	Locator  string         `json:"locator"`
	Drained  string         `json:"drained,omitempty"` // why; "" if it is not
	Gateways []string       `json:"gateways"`          // that are told
	Interval float64        `json:"interval"`          // seconds between reports
	Failed   string         `json:"failed,omitempty"`  // why the last report was not sent
	Targets  []TargetStatus `json:"targets"`
	Probes   []ProbeStatus  `json:"probes"`

	Consul       []InstanceStatus `json:"consul,omitempty"`        // what is registered there
	ConsulFailed string           `json:"consul_failed,omitempty"` // why it does not have all that as it is
}

// TargetStatus is the load of the host, 0, or of a container.
type TargetStatus struct {
	Target   uint16  `json:"target"`
	Level    string  `json:"level"`
	Load     float64 `json:"load"`
	Capacity float64 `json:"capacity"` // 0 where the load is not measured
}

// ProbeStatus is the damped result of a probe.
type ProbeStatus struct {
	Name      string    `json:"name"`
	Target    uint16    `json:"target"`
	VIPs      []string  `json:"vips,omitempty"` // that it speaks of; all of the target's without
	Health    string    `json:"health"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
	HeldUntil time.Time `json:"held_until,omitzero"`
	Good      string    `json:"good,omitempty"` // the window: 6/8 ++-+++-+, the newest last
}

// DrainLive drains the agent that runs with a state directory.
func DrainLive(ctx context.Context, stateDir, why string) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, drainPath+"?why="+url.QueryEscape(why))
}

// UndrainLive ends that.
func UndrainLive(ctx context.Context, stateDir string) (string, error) {
	return upstreams.ControlCall(ctx, stateDir, http.MethodPost, undrainPath)
}

// StatusLive is what the running agent tells.
func StatusLive(ctx context.Context, stateDir string) (Status, error) {
	var s Status
	text, err := upstreams.ControlCall(ctx, stateDir, http.MethodGet, statusPath)
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// listenControl opens the control socket.
func (a *agent) listenControl(ctx context.Context) (net.Listener, error) {
	dir := a.config.StateDir
	l, err := upstreams.ListenControl(ctx, dir)
	if err == nil {
		return l, nil
	}
	want := "a directory that can be written"
	if errors.Is(err, upstreams.ErrRunning) {
		want = "a directory for each"
	}
	return nil, defect("state_dir", dir, err.Error(), want)
}

// verbs are what an operator may ask of the running agent.
func (a *agent) verbs() *http.ServeMux {
	mux := upstreams.ControlVerbs(nil)
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.status()) // a client that went away is not our trouble
	})
	mux.HandleFunc("POST "+drainPath, func(w http.ResponseWriter, r *http.Request) {
		if !a.heeded() {
			http.Error(w, "nobody would be told: agent.gateways is empty, and there is no agent.consul", http.StatusConflict)
			return
		}
		why := upstreams.Printable(r.URL.Query().Get("why"))
		why = cmp.Or(why[:min(len(why), maxWhy)], drainedByHand)
		a.wish(w, why, "drained: gateways are told to send no new flows, those that are here go on")
	})
	mux.HandleFunc("POST "+undrainPath, func(w http.ResponseWriter, _ *http.Request) {
		a.wish(w, "", "in service")
	})
	return mux
}

// wish takes an operator's word, and answers. An error of the state directory is added, as
// what was asked for is done all the same.
func (a *agent) wish(w http.ResponseWriter, why, text string) {
	err := a.admin.drain(why)
	a.poke()
	a.log.Info("drain", "why", why)
	if err != nil {
		a.log.Error("drain not kept over a restart", "err", err)
		text += "; not kept over a restart: " + err.Error()
	}
	fmt.Fprintln(w, text)
}

func (a *agent) status() Status {
	s := Status{
		Locator: a.domain.Locator.String(), Drained: a.admin.why(), Gateways: append([]string{}, a.config.Gateways...),
		Interval: a.config.ReportInterval.Seconds(), Probes: []ProbeStatus{},
	}
	if a.reporter != nil {
		s.Failed = a.reporter.Failed()
	}
	if s.Consul = a.instances(); a.registrar != nil {
		s.ConsulFailed = a.registrar.Failed()
	}
	for _, r := range a.reports() {
		s.Targets = append(s.Targets, TargetStatus{r.Target, r.Level.String(), r.Load, r.Capacity})
	}
	for i, p := range a.probes {
		now := p.Status()
		s.Probes = append(s.Probes, ProbeStatus{p.name, p.target, a.config.Probes[i].VIPs, now.Health.String(), now.Since, now.Reason, now.HeldUntil, now.Good})
	}
	return s
}

// Write writes the status for people.
func (s *Status) Write(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "%s: ", s.Locator)
	switch {
	case s.Drained != "":
		fmt.Fprintf(w, "draining: %s\n", s.Drained)
	default:
		fmt.Fprintln(w, "in service")
	}
	switch {
	case len(s.Gateways) == 0:
		fmt.Fprintln(w, "no gateway is told")
	case s.Failed != "":
		fmt.Fprintf(w, "gateways are not told: %s\n", s.Failed)
	default:
		fmt.Fprintf(w, "every %v told: %s\n", time.Duration(s.Interval*float64(time.Second)), strings.Join(s.Gateways, ", "))
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "\nTARGET\tLEVEL\tLOAD\tCAPACITY")
	for _, of := range s.Targets {
		load, capacity := "-", "-"
		if of.Capacity > 0 {
			load, capacity = fmt.Sprintf("%.4g", of.Load), fmt.Sprintf("%.4g", of.Capacity)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", targetWords(of.Target), of.Level, load, capacity)
	}
	if len(s.Probes) > 0 {
		fmt.Fprintln(t, "\nPROBE\tTARGET\tVIPS\tHEALTH\tFOR\tGOOD\tWHY")
	}
	for _, p := range s.Probes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%v\t%s\t%s\n", p.Name, targetWords(p.Target), cmp.Or(strings.Join(p.VIPs, " "), "all"), p.Health, now.Sub(p.Since).Round(100*time.Millisecond), cmp.Or(p.Good, "-"), p.why(now))
	}
	if len(s.Consul) > 0 {
		fmt.Fprintln(t, "\nCONSUL\tTARGET\tREGISTERED\tHEALTH\tWHY")
	}
	for _, r := range s.Consul {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.Service, targetWords(r.Target), map[bool]string{true: "yes", false: "no"}[r.Registered], r.Health, r.Why)
	}
	if s.ConsulFailed != "" {
		fmt.Fprintf(t, "\nconsul does not take it: %s\n", s.ConsulFailed)
	}
	return t.Flush()
}

func targetWords(target uint16) string {
	if target == 0 {
		return "host"
	}
	return fmt.Sprint("container ", target)
}

func (p *ProbeStatus) why(now time.Time) string {
	if p.HeldUntil.After(now) {
		return strings.TrimPrefix(p.Reason+"; held down for "+p.HeldUntil.Sub(now).Round(100*time.Millisecond).String(), "; ")
	}
	return p.Reason
}
