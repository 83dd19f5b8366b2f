package gateway

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
	"github.com/razor-steering/razor/upstreams"
)

// Status is what a gateway does, and why.
type Status struct {
	Name          string                `json:"name"`
	Identity      string                `json:"identity"`
	AS            uint32                `json:"as"`
	RouterID      string                `json:"router_id"`
	Stage         string                `json:"stage"` // in service, leaving, drained
	Drained       string                `json:"drained,omitempty"`
	Since         time.Time             `json:"since,omitzero"` // of the stage
	Started       time.Time             `json:"started"`
	Peers         []PeerStatus          `json:"peers"`
	Announcements []*Announcement       `json:"announcements"`
	Blackholes    []HoleStatus          `json:"blackholes"`
	Probes        []ProbeStatus         `json:"probes"`
	Backends      []BackendStatus       `json:"backends,omitempty"`     // of the services that are balanced
	Membership    []MembershipStatus    `json:"membership,omitempty"`   // of services whose backends are from Consul or a list
	Decider       *ElectionStatus       `json:"decider,omitempty"`      // nil where no lock says who decides
	Disbelieved   []string              `json:"disbelieved,omitempty"`  // services whose agents are not believed everything, and why
	Sites         []balancer.SiteStatus `json:"sites,omitempty"`        // others
	ConsulSites   *ConsulSitesStatus    `json:"consul_sites,omitempty"` // nil where the file has them
	Decision      *DecisionStatus       `json:"decision,omitempty"`     // nil where nothing was decided
	Edge          *EdgeStatus           `json:"edge,omitempty"`         // nil where nameservers are told nothing
	Lists         *ListStatus           `json:"lists,omitempty"`        // nil where they are not followed
	Refused       []string              `json:"refused,omitempty"`      // members of lists that must not be announced, and why
	BindError     string                `json:"bind_error,omitempty"`
}

// PeerStatus is a peer and the path to it.
type PeerStatus struct {
	bgp.PeerStatus

	BFD *PathStatus `json:"bfd,omitempty"` // nil without
}

// HoleStatus is a blackhole that is announced.
type HoleStatus struct {
	Prefix string    `json:"prefix"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

// ProbeStatus is the damped result of a probe.
type ProbeStatus struct {
	Name      string    `json:"name"`
	Health    string    `json:"health"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
	HeldUntil time.Time `json:"held_until,omitzero"`
	LastAt    time.Time `json:"last_at,omitzero"`
	Took      float64   `json:"took"`           // seconds
	Good      string    `json:"good,omitempty"` // the window: 6/8 ++-+++-+, the newest last
}

// Status is the gateway now.
func (g *Gateway) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{
		Name: g.config.Name, Identity: g.identity.String(), AS: g.identity.AS, RouterID: g.identity.RouterID.String(),
		Stage: stageWords[g.drain.stage], Drained: g.drain.why(), Since: g.drain.since, Started: g.started,
		Peers: []PeerStatus{}, Announcements: append([]*Announcement{}, g.current.announcements...), Blackholes: []HoleStatus{}, Probes: []ProbeStatus{},
		Refused: g.refused, BindError: g.bindError, Edge: g.herald.status(),
	}
	if g.dataplane != nil {
		s.Backends, s.Sites = g.dataplane.reports.status(g.dataplane.Status(), time.Now()), g.dataplane.Sites()
		s.Disbelieved, s.Decision = g.dataplane.reports.disbelieved(), g.dataplane.decisionStatus()
		s.Membership, s.Decider = g.dataplane.members.status(time.Now()), g.dataplane.election.state()
		s.ConsulSites = g.dataplane.others.status(time.Now())
	}
	if g.lists != nil {
		h := g.lists.Health()
		s.Lists = listStatus(h)
	}
	for _, p := range g.announcer.Status() {
		s.Peers = append(s.Peers, PeerStatus{p, g.paths.status(p.Name)})
	}
	for _, p := range g.announcedHoles {
		h := g.holes[p]
		s.Blackholes = append(s.Blackholes, HoleStatus{p.String(), h.since, h.end(g.config.Blackhole.Longest)})
	}
	for _, name := range slices.Sorted(maps.Keys(g.probers)) {
		p := g.probers[name].Status()
		s.Probes = append(s.Probes, ProbeStatus{name, p.Health.String(), p.Since, p.Reason, p.HeldUntil, p.Last.At, p.Last.Took.Seconds(), p.Good})
	}
	return s
}

// Write writes the status for people.
func (s *Status) Write(w io.Writer, now time.Time) error {
	fmt.Fprintf(w, "%s: %s", s.Name, s.Stage)
	if s.Drained != "" {
		fmt.Fprintf(w, " since %s: %s", s.Since.UTC().Format(time.RFC3339), s.Drained)
	}
	fmt.Fprintf(w, "\n%s\n", s.Identity)
	if s.Edge != nil {
		fmt.Fprintln(w, s.Edge)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PEER\tADDRESS\tAS\tSTATE\tFOR\tIPv4\tIPv6\tBFD\tLAST ERROR")
	for _, p := range s.Peers {
		as := "-"
		if p.AS != 0 {
			as = fmt.Sprint(p.AS)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", p.Name, dash(p.Address), as, p.state(), ago(now, p.Since), p.ipv4(), p.Announced[steering.IPv6.String()], p.BFD.String(), p.lastError(now))
	}
	fmt.Fprintln(t, "\nPREFIX\tSET\tSTATE\tFOR\tWHY")
	for _, a := range s.Announcements {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Prefix, a.Set, a.Presence, ago(now, a.Since), a.Reason)
	}
	for _, b := range s.Blackholes {
		fmt.Fprintf(t, "%s\tblackhole\tannounced\t%s\tuntil %s\n", b.Prefix, ago(now, b.Since), b.Until.UTC().Format(time.RFC3339))
	}
	if len(s.Probes) > 0 {
		fmt.Fprintln(t, "\nPROBE\tHEALTH\tFOR\tTOOK\tGOOD\tWHY")
	}
	for _, p := range s.Probes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Health, ago(now, p.Since), time.Duration(p.Took*float64(time.Second)).Round(10*time.Microsecond), dash(p.Good), p.why(now))
	}
	if len(s.Backends) > 0 {
		fmt.Fprintln(t, "\nSERVICE\tBACKEND\tSTATE\tNEW FLOWS\tAGENT\tLOAD\tSID\tSERVER ID\tWHY")
	}
	for _, b := range s.Backends {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f %%\t%s\t%s\t%s\t%s\t%s\n", b.Service, b.Backend, b.State, 100*b.Share, b.agent(), b.load(), b.SID, b.Server, b.why())
	}
	if s.Decision != nil {
		s.Decision.write(t, now)
	}
	if len(s.Sites) > 0 {
		fmt.Fprintln(t, "\nSITE\tENTRY\tWHY NOT")
	}
	for _, site := range s.Sites {
		for _, g := range site.Gateways {
			fmt.Fprintf(t, "%s\t%s\t%s\n", site.Site, g.SID, g.Why)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, s.remarks())
	return err
}

// remarks are what is wrong beside.
func (s *Status) remarks() string {
	var b strings.Builder
	if s.Lists != nil && s.Lists.wrong() != "" {
		fmt.Fprintf(&b, "lists: %s\n", s.Lists.wrong())
	}
	if s.Edge != nil && s.Edge.Failure != "" {
		fmt.Fprintf(&b, "nameservers are not told how this edge is: %s\n", s.Edge.Failure)
	}
	if s.Decision != nil && s.Decision.Drained != "" {
		fmt.Fprintf(&b, "site %s is drained: %s\n", s.Decision.Site, s.Decision.Drained)
	}
	for _, r := range s.Disbelieved {
		fmt.Fprintf(&b, "agents: %s\n", r)
	}
	if s.Decider != nil {
		fmt.Fprintf(&b, "decider: %s\n", s.Decider)
	}
	for i := range s.Membership {
		if of := &s.Membership[i]; of.wrong() {
			fmt.Fprintf(&b, "%s: %s\n", of.where(), of)
		}
	}
	if s.ConsulSites != nil && s.ConsulSites.wrong() {
		fmt.Fprintf(&b, "other sites: %s\n", s.ConsulSites)
	}
	for _, r := range s.Refused {
		fmt.Fprintf(&b, "not announced: %s\n", r)
	}
	if s.BindError != "" {
		fmt.Fprintf(&b, "not bound: %s\n", s.BindError)
	}
	if b.Len() > 0 {
		return "\n" + b.String()
	}
	return ""
}

// ListStatus is how well the lists in Redis are known.
type ListStatus struct {
	Link  upstreams.Link `json:"link"`
	AsOf  time.Time      `json:"as_of,omitzero"` // when they were last known to be so; zero if never
	Stale bool           `json:"stale"`
	Hold  string         `json:"hold,omitempty"` // why a mass loss is not obeyed
}

func listStatus(h upstreams.Health) *ListStatus {
	return &ListStatus{Link: h.Link, AsOf: h.AsOf(), Stale: h.Stale, Hold: h.Hold}
}

// wrong is what an operator should know of the lists; "" if nothing.
func (s *ListStatus) wrong() string {
	switch {
	case s.Hold != "":
		return "on hold: " + s.Hold + "; razor upstreams accept ends it"
	case s.AsOf.IsZero():
		return "not known, redis was never read"
	case s.Link == upstreams.LinkDown:
		return "redis does not answer, going by those of " + s.AsOf.UTC().Format(time.RFC3339)
	case s.Stale:
		return "old, redis is behind its primary since " + s.AsOf.UTC().Format(time.RFC3339)
	}
	return ""
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// ago is how long something is so, in the two largest units.
func ago(now, since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	d := now.Sub(since)
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return d.Round(100 * time.Millisecond).String()
}

func (p *PeerStatus) state() string {
	if !p.HeldUntil.IsZero() {
		return "held off"
	}
	return string(p.State)
}

// ipv4 is the number of IPv4 prefixes, or why there are none.
func (p *PeerStatus) ipv4() string {
	if p.State == bgp.Established && !p.IPv4 {
		return "not taken"
	}
	return fmt.Sprint(p.Announced[steering.IPv4.String()])
}

func (p *PeerStatus) lastError(now time.Time) string {
	if p.LastError == "" {
		return "-"
	}
	return p.LastError + ", " + ago(now, p.ErrorAt) + " ago"
}

func (p *ProbeStatus) why(now time.Time) string {
	if p.HeldUntil.After(now) {
		return strings.TrimPrefix(p.Reason+"; held down for "+ago(p.HeldUntil, now), "; ")
	}
	return p.Reason
}
