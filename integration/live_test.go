package integration

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	livepage "github.com/razor-steering/razor/gateway/live"
)

// livePage is what a gateway serves for those who watch it; zero while it does not.
func livePage(a *announcer) (d livepage.Document) {
	_ = json.Unmarshal([]byte(page(a, "http://[::1]:8055/live.json")), &d)
	return d
}

// The live page has what a gateway does with flows, and what happened with its reason.
func TestLivePage(t *testing.T) {
	t.Parallel()
	r := newReporters(t)
	r.begin(20, "web1", "web2")
	r.lab.Eventually("the page has the packets of flows", func() bool {
		r.goOn("while it is watched")
		d := livePage(r.gateway)
		return len(d.Services) == 1 && len(d.Services[0].VIPs) == 2 && len(d.Services[0].Backends) == 2 &&
			d.Services[0].VIPs[0].Packets > 0 && d.Services[0].Backends[0].Packets > 0 && d.Services[0].Backends[1].Packets > 0 &&
			slices.ContainsFunc(d.Figures, func(f livepage.Figure) bool { return f.Key == "sent" && f.Value > 0 })
	})
	d := livePage(r.gateway)
	b := d.Services[0].Backends[0]
	if b.Name != "web1" || b.State != "active" || b.Health != "up" || b.Level != "normal" || b.Load < 0 || b.Load > 0.1 || b.Weight != 1 || b.Share < 0.4 || b.Share > 0.6 {
		t.Errorf("backend %+v", b)
	}
	if len(d.Peers) != 1 || !d.Peers[0].Up || d.Peers[0].Announced["IPv6"] != 2 || d.Stage != "in service" || d.Plan == "" {
		t.Errorf("peers %+v, stage %s, plan %s", d.Peers, d.Stage, d.Plan)
	}
	if len(d.Announcements) != 3 || d.Announcements[0].Presence != "announced" {
		t.Errorf("announcements %+v", d.Announcements)
	}
	opened := 20
	r.lab.Eventually("the page has new flows", func() bool {
		r.flows = append(r.flows, beginFlow(t, r.client, opened))
		opened++
		return slices.ContainsFunc(livePage(r.gateway).Figures, func(f livepage.Figure) bool { return f.Key == "flows" && f.Value > 0 })
	})
	r.well(0, false)
	r.lab.Eventually("the page says that a backend is down, and why", func() bool {
		d := livePage(r.gateway)
		return len(d.Events) > 0 && strings.Contains(d.Services[0].Backends[0].Why, "down") && slices.ContainsFunc(d.Events, func(e livepage.Event) bool {
			return e.Text == "backend changed" && strings.Contains(e.Reason, "down") && slices.Contains(e.Attributes, livepage.Attribute{Key: "backend", Value: "web1"})
		})
	})
	if !slices.ContainsFunc(livePage(r.gateway).Events, func(e livepage.Event) bool { return e.Text == "peer is up" }) {
		t.Error("no event of the peer")
	}
	if text := page(r.gateway, "http://[::1]:8055/"); !strings.Contains(text, "<i class=\"dot doubt\"></i>") || !strings.Contains(text, "web1") {
		t.Errorf("the page is %s", text)
	}
	if text := page(r.gateway, "http://[::1]:8055/readyz"); text == "" {
		t.Error("there is nothing else any more")
	}
}
