package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/gateway/live"
	"github.com/razor-steering/razor/steering"
)

// view is what the live page shows of a gateway. Its rates are of the time since it was
// asked before.
type view struct {
	gateway *Gateway
	at      time.Time
	was     balancer.Counted
}

// document is the gateway now. It is for one goroutine at a time.
func (v *view) document(now time.Time) live.Document {
	g := v.gateway
	s := g.Status()
	d := live.Document{
		Name: s.Name, Identity: s.Identity, Started: s.Started, Stage: s.Stage, Why: s.Drained,
		Services: []live.Service{}, Sites: []live.Site{}, Peers: []live.Peer{}, Announcements: []live.Announcement{}, Probes: []live.Probe{},
	}
	beside := s
	beside.Disbelieved = nil // which is said of each service
	if e := s.Decider; e != nil && e.Heard && (e.Decides || e.Holder != "") {
		beside.Decider = nil // which is no trouble
	}
	if text := strings.TrimSpace(beside.remarks()); text != "" {
		d.Remarks = strings.Split(text, "\n")
	}
	if s.Edge != nil {
		d.Edge = s.Edge.live()
	}
	for _, p := range s.Peers {
		d.Peers = append(d.Peers, p.live())
	}
	for _, a := range s.Announcements {
		d.Announcements = append(d.Announcements, live.Announcement{Prefix: a.Prefix.String(), Set: a.Set, Presence: a.Presence, Reason: a.Reason, Since: a.Since})
	}
	for _, b := range s.Blackholes {
		d.Announcements = append(d.Announcements, live.Announcement{
			Prefix: b.Prefix, Set: "blackhole", Presence: "announced", Reason: "until " + b.Until.UTC().Format(time.RFC3339), Since: b.Since,
		})
	}
	for _, p := range s.Probes {
		d.Probes = append(d.Probes, live.Probe{Name: p.Name, Health: p.Health, Since: p.Since, Reason: p.why(now), Good: p.Good})
	}
	if g.dataplane != nil {
		v.traffic(&d, &s, now)
	}
	return d
}

func (s *EdgeStatus) live() *live.Edge {
	if s.Health == "" || s.Written.IsZero() {
		return &live.Edge{Health: "not told yet"}
	}
	return &live.Edge{Health: string(s.Health), Reason: s.Reason, Since: s.Since}
}

func (p *PeerStatus) live() live.Peer {
	out := live.Peer{
		Name: p.Name, Address: p.Address, AS: p.AS, State: p.state(), Up: p.State == bgp.Established, Since: p.Since, Announced: p.Announced,
		LastError: p.LastError, ErrorAt: p.ErrorAt,
	}
	if p.BFD != nil {
		out.BFD = p.BFD.String()
	}
	return out
}

// traffic adds what is of the dataplane.
func (v *view) traffic(d *live.Document, s *Status, now time.Time) {
	p := v.gateway.dataplane
	v.gateway.mu.Lock()
	d.Follows, d.Mates = v.gateway.config.Dataplane.Follow, v.gateway.config.Dataplane.Mates
	v.gateway.mu.Unlock()
	if d.Decides = d.Follows == ""; s.Decider != nil {
		d.Decides, d.Follows = s.Decider.Decides, s.Decider.Holder
	}
	counted := p.Counted()
	rates := rates{now: counted, was: v.was, seconds: now.Sub(v.at).Seconds()}
	v.was, v.at = counted, now
	number, _ := p.Number()
	d.Plan = fmt.Sprintf("%d.%d", number.Term, number.Sequence)
	for _, b := range s.Backends {
		i := slices.IndexFunc(d.Services, func(s live.Service) bool { return s.Name == b.Service })
		if i < 0 {
			i = len(d.Services)
			d.Services = append(d.Services, live.Service{Name: b.Service, VIPs: rates.vips(b.Service)})
		}
		d.Services[i].Backends = append(d.Services[i].Backends, b.live(&rates))
	}
	for _, name := range slices.Sorted(maps.Keys(counted.VIPs)) {
		if !slices.ContainsFunc(d.Services, func(s live.Service) bool { return s.Name == name }) {
			d.Services = append(d.Services, live.Service{Name: name, VIPs: rates.vips(name), Doubt: "it has no backend"})
		}
	}
	if s.Decision != nil {
		d.Site, d.Plan = s.Decision.Site, s.Decision.Plan
	}
	for i := range d.Services {
		decided(&d.Services[i], s.Decision)
		for _, why := range s.Disbelieved {
			if of, found := strings.CutPrefix(why, "service "+d.Services[i].Name+": "); found {
				d.Services[i].Doubt = of
			}
		}
	}
	for _, site := range s.Sites {
		out := live.Site{Name: site.Site}
		for _, g := range site.Gateways {
			sid, _ := netip.ParseAddr(g.SID)
			out.Entries = append(out.Entries, live.Entry{Traffic: rates.backend(sid), SID: g.SID, Why: g.Why})
		}
		for _, sid := range counted.Pinned[site.Site] {
			out.Pinned.Add(rates.backend(sid))
		}
		d.Sites = append(d.Sites, out)
	}
	toSites(d)
	d.Figures = rates.figures(d)
}

// toSites adds what goes to other sites where a service has them beside its backends.
func toSites(d *live.Document) {
	for i := range d.Services {
		for j := range d.Services[i].Backends {
			b := &d.Services[i].Backends[j]
			if at := slices.IndexFunc(d.Sites, func(s live.Site) bool { return b.Site && b.Name == "site "+s.Name }); at >= 0 {
				b.Traffic = d.Sites[at].All()
			}
		}
	}
}

// decided adds what was decided of a service.
func decided(service *live.Service, d *DecisionStatus) {
	if d == nil {
		return
	}
	for _, s := range d.Services {
		if s.Service != service.Name {
			continue
		}
		service.Reason, service.Nowhere = s.Reason, s.Nowhere
		for _, to := range slices.Concat([]steering.SiteShare{s.Here}, s.Sites) {
			service.Decided = append(service.Decided, live.Share{Site: to.Site, Share: to.Share, Room: to.Room, Reason: to.Reason})
		}
	}
}

// live is a backend, or another site.
func (b *BackendStatus) live(r *rates) live.Backend {
	out := live.Backend{Name: b.Backend, SID: b.SID, Site: b.SID == "", State: string(b.State), Weight: b.Weight, Share: b.Share, Load: -1, Why: b.why()}
	if sid, err := netip.ParseAddr(b.SID); err == nil {
		out.Traffic = r.backend(sid)
	}
	if b.Agent == nil {
		return out
	}
	out.Health, out.Level = b.agent(), b.Agent.Level
	if out.Health == out.State {
		out.Health = "" // said already
	}
	if b.Agent.Silent { // what it said is old
		out.Level = ""
		return out
	}
	out.Taken, out.Guests = b.Agent.Accepted+b.Agent.Guests, b.Agent.Guests
	if b.Agent.Capacity > 0 {
		out.Load = b.Agent.Load / b.Agent.Capacity
	}
	return out
}

// rates are the differences of two counts.
type rates struct {
	now, was balancer.Counted
	seconds  float64
}

// per is how fast a counter counts. One that was not there before, or began anew, is not
// known.
func (r *rates) per(now, was uint64) float64 {
	if r.was.Reasons == nil || now < was || r.seconds <= 0 {
		return 0
	}
	return float64(now-was) / r.seconds
}

func (r *rates) reason(name string) float64 {
	return r.per(r.now.Reasons[name].Packets, r.was.Reasons[name].Packets)
}

func (r *rates) backend(sid netip.Addr) live.Traffic {
	was, known := r.was.Backends[sid]
	if !known {
		return live.Traffic{}
	}
	return r.traffic(r.now.Backends[sid], was)
}

func (r *rates) traffic(now, was balancer.Traffic) live.Traffic {
	return live.Traffic{New: r.per(now.NewFlows, was.NewFlows), Old: r.per(now.OldFlows, was.OldFlows), Packets: r.per(now.Packets, was.Packets)}
}

func (r *rates) vips(service string) []live.VIP {
	var out []live.VIP
	for _, v := range r.now.VIPs[service] {
		i := slices.IndexFunc(r.was.VIPs[service], func(was balancer.VIPCount) bool { return was.VIP == v.VIP })
		of := live.VIP{VIP: v.VIP.String()}
		if i >= 0 {
			was := r.was.VIPs[service][i]
			of.Traffic, of.Bits = r.traffic(v.Traffic, was.Traffic), 8*r.per(v.Bytes, was.Bytes)
		}
		out = append(out, of)
	}
	return out
}

// dropped is how many packets are dropped, and the reason that most of them have.
func (r *rates) dropped() (all float64, most string) {
	var top float64
	for name, c := range r.now.Reasons {
		if !c.Dropped {
			continue
		}
		rate := r.reason(name)
		if all += rate; rate > top {
			top, most = rate, name
		}
	}
	return all, most
}

// figures are where flows and packets go.
func (r *rates) figures(d *live.Document) []live.Figure {
	var all, elsewhere live.Traffic
	var bits, taken, guests float64
	seen := map[string]bool{}
	for _, s := range d.Services {
		for _, b := range s.Backends {
			if !seen[b.SID] { // it may have several services
				taken, guests = taken+b.Taken, guests+b.Guests
			}
			seen[b.SID] = true
		}
		for _, v := range s.VIPs {
			all.Add(v.Traffic)
			bits += v.Bits
		}
	}
	for i := range d.Sites {
		elsewhere.Add(d.Sites[i].All())
	}
	beside := func(text string, n float64) string {
		if len(d.Sites) > 0 {
			text += fmt.Sprintf(", %.0f to other sites", n)
		}
		return text
	}
	old := "with packets"
	if r.now.Sample > 1 {
		old = fmt.Sprintf("1 of %d looked at", r.now.Sample)
	}
	dropped, most := r.dropped()
	out := []live.Figure{
		{Key: "flows", Title: "New flows", Value: all.New, Unit: "/s", Note: beside("of TCP", elsewhere.New)},
		{Key: "old", Title: "Old flows", Value: all.Old, Unit: "/s", Note: beside(old, elsewhere.Old)},
		{Key: "taken", Title: "Taken", Value: taken, Unit: "/s", Note: fmt.Sprintf("new flows here, %.0f of other sites", guests)},
		{Key: "packets", Title: "Packets", Value: all.Packets, Unit: "/s", Note: "to VIPs, of all flows"},
		{Key: "bits", Title: "Bits", Value: bits, Unit: "bit/s", Note: "to VIPs"},
		{Key: "sent", Title: "Sent", Note: "to backends here", Value: r.reason("sent") + r.reason("icmp_error"), Unit: "/s"},
		{Key: "misses", Title: "Misses", Value: r.reason("miss"), Unit: "/s", Note: "old flows, asked for here"},
		{Key: "pins", Title: "Pinned flows", Value: float64(r.now.Pins), Note: fmt.Sprintf("%.0f told in a second", r.per(r.now.Told, r.was.Told))},
	}
	if len(d.Sites) > 0 {
		out = append(out, live.Figure{Key: "spilled", Title: "Spilled", Note: "new flows to other sites", Value: r.reason("spilled"), Unit: "/s"},
			live.Figure{Key: "away", Title: "Away", Note: "old flows, asked for there", Value: r.reason("away"), Unit: "/s"},
			live.Figure{Key: "entered", Title: "Entered", Value: r.reason("entered"), Unit: "/s", Note: "from other sites"})
	}
	return append(out, live.Figure{Key: "dropped", Title: "Dropped", Value: dropped, Unit: "/s", Note: most})
}
