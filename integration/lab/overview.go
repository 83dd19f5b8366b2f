package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/razor-steering/razor/gateway/live"
)

// overview is the top of the page of all gateways, with a line for each. It has the classes
// of theirs.
var overview = template.Must(template.New("").Parse(`<section>
<h2>All gateways</h2>
<table>
<thead><tr><th>gateway</th><th title="those of clients that come in here">new flows to</th><th class="right" title="new flows of TCP to VIPs that come in here, per second">new/s</th><th class="wide"></th><th class="right" title="flows to VIPs with another packet in a second">old/s</th><th class="wide"></th><th class="right wide" title="to VIPs, of new and old flows">packets/s</th><th class="right wide" title="new flows to other sites, per second">spilled</th><th class="right wide" title="packets from other sites, per second">entered</th><th class="right wide" title="packets of old flows, asked for here and at other sites, per second">misses</th><th class="right" title="that get new flows">backends</th></tr></thead>
<tbody>
{{range .}}<tr>
<td><span class="whole"><i class="dot {{.Tone}}"></i>{{.Name}}</span><small class="quiet">{{.Note}}</small></td>
<td>{{.To}}</td>
<td class="right">{{printf "%.1f" .New}}</td>
<td class="wide"><svg class="spark small" data-key="{{.Name}}/new" data-value="{{.New}}" viewBox="0 0 120 24" preserveAspectRatio="none" aria-hidden="true"></svg></td>
<td class="right">{{printf "%.0f" .Old}}</td>
<td class="wide"><svg class="spark small" data-key="{{.Name}}/old" data-value="{{.Old}}" viewBox="0 0 120 24" preserveAspectRatio="none" aria-hidden="true"></svg></td>
<td class="right wide">{{printf "%.0f" .Packets}}</td>
<td class="right wide">{{printf "%.0f" .Spilled}}</td>
<td class="right wide">{{printf "%.0f" .Entered}}</td>
<td class="right wide">{{printf "%.0f" .Misses}}</td>
<td class="right">{{if .Backends}}{{.Active}}/{{.Backends}}{{else}}<span class="quiet">–</span>{{end}}</td>
</tr>
{{end}}</tbody>
</table>
</section>`))

// glance is what the overview has of a gateway. Rates are per second.
type glance struct {
	Name, Note, Tone, To                        string
	New, Old, Packets, Spilled, Entered, Misses float64
	Active, Backends                            int
}

// overview streams the overview, once a second, as the script of the page takes it.
func (l *lab) overview(gateways []door) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			var html bytes.Buffer
			if err := overview.Execute(&html, glances(r.Context(), gateways)); err != nil {
				return
			}
			section, _ := json.Marshal(map[string]string{"id": "overview", "html": html.String()})
			if _, err := fmt.Fprintf(w, "event: section\ndata: %s\n\nevent: tick\ndata: %q\n\n", section, time.Now().Format(time.RFC3339Nano)); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-ticker.C:
			}
		}
	})
}

// glances asks all gateways at once.
func glances(ctx context.Context, gateways []door) []glance {
	out := make([]glance, len(gateways))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i, d := range gateways {
		all.Go(func() {
			out[i] = glance{Name: d.host.name, Note: d.host.site.Name + ", does not answer", Tone: "bad"}
			var of live.Document
			if ask(ctx, d, &of) == nil {
				out[i].read(d.host.site.Name, &of)
			}
		})
	}
	all.Wait()
	return out
}

func ask(ctx context.Context, d door, of *live.Document) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.address+"/live.json", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return json.NewDecoder(answer.Body).Decode(of)
}

// read takes what a gateway says.
func (g *glance) read(site string, d *live.Document) {
	g.Note, g.Tone = site, "good"
	switch {
	case d.Stage != "in service":
		g.Note, g.Tone = site+", "+d.Stage, "doubt"
	case d.Decides:
		g.Note += ", decides"
	}
	for _, f := range d.Figures {
		switch f.Key {
		case "flows":
			g.New = f.Value
		case "old":
			g.Old = f.Value
		case "packets":
			g.Packets = f.Value
		case "spilled":
			g.Spilled = f.Value
		case "entered":
			g.Entered = f.Value
		case "misses", "away":
			g.Misses += f.Value
		}
	}
	var to []string
	for i := range d.Services {
		s := &d.Services[i]
		for _, b := range s.Backends {
			if b.State == "active" && !b.Site {
				g.Active++
			}
			if !b.Site {
				g.Backends++
			}
		}
		for _, of := range s.Decided {
			if of.Share > 0 {
				to = append(to, fmt.Sprintf("%s %.0f %%", of.Site, 100*of.Share))
			}
		}
		if s.Nowhere > 0 {
			to = append(to, fmt.Sprintf("nowhere %.0f %%", 100*s.Nowhere))
		}
	}
	g.To = strings.Join(to, ", ")
}
