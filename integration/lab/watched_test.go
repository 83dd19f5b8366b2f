package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// One page has all gateways, and Prometheus every program.
func TestWatched(t *testing.T) {
	t.Parallel()
	topology, err := parse("small.txtar", []byte(small))
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
	if err != nil || strings.Count(string(text), "data-source=") != 1 || !strings.Contains(string(text), `data-section="events"`) || !strings.Contains(string(text), "EventSource") {
		t.Errorf("%v: %s", err, text)
	}
	_, source, _ := strings.Cut(string(text), `data-source="`)
	source, _, _ = strings.Cut(source, `"`)
	stream, err := http.Get(source)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if got := stream.Header.Get("Access-Control-Allow-Origin"); stream.StatusCode != http.StatusOK || page != got {
		t.Errorf("%s: %s, of pages of %q", source, stream.Status, got)
	}
	policy, origin := answer.Header.Get("Content-Security-Policy"), strings.TrimSuffix(source, "/live?html")
	if !strings.Contains(policy, "connect-src "+origin) {
		t.Errorf("%s is not in the policy %s", origin, policy)
	}
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
