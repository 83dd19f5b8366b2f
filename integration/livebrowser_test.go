package integration

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/integration/browser"
)

const liveOrigin = "http://[::1]:8055/"

// onScreen is a gateway's page, looked at on its own host.
type onScreen struct {
	*browser.Page

	t *testing.T
	d *deciders
}

// has waits until texts can be read in a part of the page.
func (s *onScreen) has(section string, texts ...string) {
	s.t.Helper()
	for _, text := range texts {
		s.Eventually(fmt.Sprintf("%s has %q", section, text),
			fmt.Sprintf(`document.querySelector('[data-section="%s"]').innerText.includes(%q)`, section, text), nil)
	}
}

// allServed holds that what the gateway serves to programs can be read on the page.
func (s *onScreen) allServed() {
	s.t.Helper()
	served := livePage(s.d.gateway)
	s.has("head", served.Name, "site west", served.Stage, served.Identity, "tables "+served.Plan, "decided here")
	for _, f := range served.Figures {
		s.has("figures", f.Title)
	}
	for _, service := range served.Services {
		s.has("services", service.Name, service.Reason)
		for _, v := range service.VIPs {
			s.has("services", v.VIP)
		}
		for _, b := range service.Backends {
			s.has("services", b.Name)
			if !b.Site {
				s.has("services", fmt.Sprint("weight ", b.Weight), "level "+b.Level)
			}
		}
		for _, to := range service.Decided {
			s.has("services", to.Site, to.Reason)
		}
	}
	for _, other := range served.Sites {
		s.has("sites", other.Name, other.Entries[0].SID)
	}
	for _, p := range served.Peers {
		s.has("peers", p.Name, p.State, p.Address)
	}
	for _, a := range served.Announcements {
		s.has("announcements", a.Prefix, a.Presence, a.Reason)
	}
	for _, e := range served.Events {
		s.has("events", e.Text, e.Reason)
	}
	if len(served.Figures) < 10 || len(served.Services) != 1 || len(served.Services[0].Decided) != 2 || len(served.Sites) != 1 || len(served.Peers) != 1 || len(served.Announcements) < 3 || len(served.Events) < 5 {
		s.t.Errorf("served: %+v", served)
	}
	s.sameEvents()
}

// sameEvents waits until the page has the events that are served, in their order.
func (s *onScreen) sameEvents() {
	s.t.Helper()
	s.Eventually("the page has the events of the gateway, in their order", `fetch("live.json").then((a) => a.json()).then(({events}) =>
		[...document.querySelectorAll(".events li")].map((e) => Date.parse(e.querySelector("time").dateTime) / 1000 + e.querySelector("div").firstChild.data).join()
		=== events.map((e) => Math.floor(Date.parse(e.time) / 1000) + e.text).join())`, nil)
}

// onAllScreens holds that the page can be read on each, and takes pictures.
func (s *onScreen) onAllScreens(state string) {
	s.t.Helper()
	grounds := map[bool]string{}
	for i := range 6 {
		screen := browser.Screen{Width: []int{360, 768, 1280}[i/2], Height: 800, Dark: i%2 == 1}
		s.Show(screen)
		for _, what := range slices.Concat(s.TooWide(), s.Faint()) {
			s.t.Errorf("%s, %v: %s", state, screen, what)
		}
		var ground string
		s.Eval(`getComputedStyle(document.body).backgroundColor`, &ground)
		grounds[screen.Dark] = ground
		s.Picture(filepath.Join(s.t.ArtifactDir(), fmt.Sprintf("gateway-%s-%v.png", state, screen)))
	}
	if grounds[false] == grounds[true] {
		s.t.Errorf("light and dark are %s", grounds[false])
	}
	s.Show(browser.Screen{Width: 360, Height: 800})
}

// The live page in a browser, on a phone and on screens: it has what the gateway serves,
// and what happens while it is looked at; it says when the gateway is away, and goes on when
// that is back. It asks nobody else for anything.
func TestLivePageInBrowser(t *testing.T) {
	t.Parallel()
	d := newDeciders(t)
	d.begin(20, "web1")
	b := browser.Start(t, d.gateway.node.Command)
	s := &onScreen{b.Open(liveOrigin, browser.Screen{Width: 360, Height: 800}), t, d}
	flowing := func() {
		d.goOn("while it is watched")
		_ = beginFlow(t, d.client, 20).conn.Close()
	}
	for _, key := range []string{"flows", "old", "taken", "packets", "sent"} {
		s.Eventually(key+" each second", fmt.Sprintf(`document.querySelector('.figures .spark[data-key="%s"]').dataset.value > 0`, key), flowing)
	}
	s.Eventually("flows and packets of a backend", `(([r, more]) => parseFloat(r.cells[2].innerText) > 0 && parseFloat(r.cells[3].innerText) > 0 && /[1-9]\S* taken.*[1-9]\S* packets\/s/.test(more.innerText))(document.querySelectorAll(".service tbody tr"))`, flowing)
	s.Eventually("sparks have lines", `[...document.querySelectorAll(".figures .spark")].every((e) => e.querySelectorAll("path").length === 2 && e.querySelector("path:not(.area)").getAttribute("d").split("L").length > 2)`, flowing)
	s.Eventually("a spark is not flat", `new Set(document.querySelector('.spark[data-key="packets"] path:not(.area)').getAttribute("d").match(/ [\d.]+/g)).size > 1`, flowing)
	s.allServed()
	s.onAllScreens("normal")

	s.Eval(`window.sameAsBefore = true`, nil)
	d.say(t, "web1", false)
	s.has("services", "site east")
	s.Eventually("what happened, and why", `window.sameAsBefore && [...document.querySelectorAll(".events li")].some((e) => /backend changed/.test(e.innerText) && /backend=web1/.test(e.innerText) && /down/.test(e.querySelector(".why").innerText))`, flowing)
	d.shares("web1 is down", elsewhere)
	s.allServed()
	s.onAllScreens("failover")

	d.gateway.Kill()
	s.Eventually("the page says that the gateway is away", `/No answer since \D*\d\d:\d\d:\d\d/.test(getComputedStyle(document.querySelector("main"), "::before").content)`, nil)
	s.Picture(filepath.Join(t.ArtifactDir(), "gateway-away.png"))
	d.gateway.start()
	s.Eventually("the page goes on", `window.sameAsBefore && !document.querySelector(".away") && /up since/.test(document.body.innerText)`, nil)
	d.gateway.awaitUp(1)
	s.has("peers", "established")
	s.sameEvents()

	for _, address := range s.Asked() {
		if !strings.HasPrefix(address, liveOrigin) {
			t.Errorf("it asks for %s", address)
		}
	}
	if len(s.Asked()) < 3 {
		t.Errorf("it asks for %v", s.Asked())
	}
	for _, e := range s.Errors() {
		t.Error(e)
	}
}
