package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/razor-steering/razor/integration/browser"
)

// pair is two sites that start fast, the first with all that a page can have.
const pair = `Two sites.

-- topology --
sites:
  - {site: west, as: 4200000100, gateways: 2, backends: 2, capacity: 10, redis: primary}
  - {site: east, as: 4200000200, gateways: 1, backends: 1, capacity: 100}
cables: [west east]
clients:
  - {client: people, site: west, keep: 4, open: 20}
`

// One page has all gateways, and Prometheus every program.
func TestWatched(t *testing.T) {
	t.Parallel()
	topology, err := parse("pair.txtar", []byte(pair))
	if err != nil {
		t.Fatal(err)
	}
	razor := needed(t, topology)
	l, err := start(t.Context(), topology, razor, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer l.stop()
	page := ""
	for first := 20_000; page == ""; first += 10 { // others may have some
		if err := l.doors(first); err == nil {
			page = "http://" + l.together
		} else if first > 21_000 {
			t.Fatal(err)
		}
	}
	answer, err := http.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err != nil || strings.Count(string(text), "data-source=") != 4 || !strings.Contains(string(text), `data-section="events"`) || !strings.Contains(string(text), "EventSource") {
		t.Errorf("%v: %s", err, text)
	}
	_, source, _ := strings.Cut(string(text), `data-source="http`)
	source, _, _ = strings.Cut("http"+source, `"`)
	stream, err := http.Get(source)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Body.Close()
	if got := stream.Header.Get("Access-Control-Allow-Origin"); stream.StatusCode != http.StatusOK || page != got {
		t.Errorf("%s: %s, of pages of %q", source, stream.Status, got)
	}
	policy, origin := answer.Header.Get("Content-Security-Policy"), strings.TrimSuffix(source, "/live?html")
	if !strings.Contains(policy, "connect-src 'self' "+origin) {
		t.Errorf("%s is not in the policy %s", origin, policy)
	}
	own, _, err := pageOf(t.Context(), []door{{address: strings.TrimPrefix(origin, "http://")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range regexp.MustCompile(`data-section="[a-z]+"`).FindAllString(own, -1) {
		if n := strings.Count(string(text), section); n != 3 {
			t.Errorf("%d times %s, of 3 gateways", n, section)
		}
	}
	t.Run("in a browser", func(t *testing.T) { inBrowser(t, l, page, policy) })
	if _, err := exec.LookPath("prometheus"); err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			t.Fatal(err)
		}
		t.Skip("needs prometheus (Debian: prometheus)")
	}
	if err := l.watch(); err != nil {
		t.Fatal(err)
	}
	if err := l.run(strings.Fields("expect all watched programs")); err != nil {
		t.Error(err)
	}
}

// inBrowser looks at the page of all gateways while a backend and a gateway fail, and are
// mended. policy names those whom the page may ask.
func inBrowser(t *testing.T, l *lab, page, policy string) {
	p := browser.Start(t, exec.Command).Open(page+"/", browser.Screen{Width: 1280, Height: 800})
	// has waits until texts can be read in what the page has of a gateway.
	has := func(gateway string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			p.Eventually(gateway+" has "+text, fmt.Sprintf(`[...document.querySelectorAll("main")].some((m) => m.querySelector("h1")?.innerText === %q && m.innerText.includes(%q))`, gateway, text), nil)
		}
	}
	do := func(command string) {
		t.Helper()
		if err := l.run(strings.Fields(command)); err != nil {
			t.Fatal(err)
		}
	}
	look := func(state string) {
		t.Helper()
		for _, screen := range []browser.Screen{{Width: 360, Height: 800, Dark: true}, {Width: 768, Height: 1024}, {Width: 1280, Height: 800}} {
			p.Show(screen)
			for _, what := range slices.Concat(p.TooWide(), p.Faint()) {
				t.Errorf("%s, %v: %s", state, screen, what)
			}
			p.Picture(filepath.Join(t.ArtifactDir(), fmt.Sprintf("lab-%s-%v.png", state, screen)))
		}
	}
	has("west-gw1", "site west", "in service", "nameservers: up", "decided here", "west-1", "west-2", "normal", "announced", "peer is up")
	has("west-gw2", "decided by", "west-1")
	has("east-gw1", "site east", "east-1", vip4+"/32")
	p.Eventually("flows of each second at west", `[...document.querySelectorAll("main")].filter((m) => m.querySelector('.spark[data-key="flows"]')?.dataset.value > 0 && m.querySelector(".figures path:not(.area)")).length >= 2`, nil)
	glance := func(gateway, text string) {
		t.Helper()
		p.Eventually("at a glance "+gateway+" has "+text, fmt.Sprintf(`[...document.querySelectorAll('[data-section="overview"] tbody tr')].some((r) => r.innerText.startsWith(%q) && r.innerText.includes(%q))`, gateway, text), nil)
	}
	glance("west-gw1", "west 100 %")
	glance("west-gw1", "2/2")
	glance("west-gw2", "west 100 %")
	glance("east-gw1", "east, decides")
	look("normal")

	p.Eval(`window.sameAsBefore = true`, nil)
	do("fail service west-1 west-2")
	has("west-gw1", "site east", "backend=west-1")
	glance("west-gw1", "east 100 %")
	do("fail gateway east-gw1")
	p.Eventually("the page says that east-gw1 is away", `[...document.querySelectorAll("main.away")].some((m) => m.querySelector("h1").innerText === "east-gw1")`, nil)
	glance("east-gw1", "does not answer")
	look("failed")
	do("heal")
	p.Eventually("all are back", `window.sameAsBefore && !document.querySelector(".away")`, nil)
	has("west-gw1", "west-1")

	for _, address := range p.Asked() {
		if origin := strings.Join(strings.Split(address, "/")[:3], "/"); origin != page && !strings.Contains(policy, origin) {
			t.Errorf("it asks for %s", address)
		}
	}
	for _, e := range p.Errors() {
		t.Error(e)
	}
}
