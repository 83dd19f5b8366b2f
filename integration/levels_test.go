package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The example of nginx on a backend: its content follows the level of the agent, is none
// where there is no agent, and goes on over a restart of the agent.
func TestLevelsNginx(t *testing.T) {
	t.Parallel()
	nginx := program(t, "nginx")
	file := filepath.Join(t.TempDir(), "load")
	say := func(figure string) {
		t.Helper()
		writeFile(t, file+".new", figure)
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	say("10\n")
	h := newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{"web1": {
			"sr_block:", "load: {measure: probe, capacity: 100, interval: 50ms, probe: {kind: exec, command: [/bin/cat, " + file + "]}}\n  sr_block:",
		}}
	})
	agent := h.agents[0]
	h.ready(agent, 2)
	b := agent.node
	for _, kind := range []string{"full", "light"} {
		if err := os.Mkdir(filepath.Join(b.Dir, kind), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(b.Dir, kind, "index.html"), kind)
	}
	text, err := os.ReadFile("../deploy/levels/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	access := filepath.Join(b.Dir, "asked")
	conf := "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + filepath.Join(b.Dir, kind) + ";\n"
	}
	// What the agent is asked goes by a server that counts it.
	conf += "log_format asked '$request_uri';\nserver { listen [::1]:8057; access_log " + access + " asked; location / { proxy_pass http://[::1]:8056; } }\n" +
		strings.NewReplacer("/var/cache", b.Dir, "/srv/www", b.Dir, "[::1]:8056", "[::1]:8057", "listen 80", "listen [::1]:80").Replace(string(text)) + "}\n"
	b.Start(nginx, "-c", writeFile(t, filepath.Join(b.Dir, "levels.conf"), conf), "-p", b.Dir, "-e", "stderr")

	get := func() string { return page(agent, "http://[::1]:80/") }
	shows := func(what, want string) {
		t.Helper()
		h.lab.Eventually(what, func() bool { return strings.HasPrefix(get(), want) })
	}
	refused := func() bool {
		client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: b.Dial}}
		got, err := client.Get("http://[::1]:80/")
		if err != nil {
			return false
		}
		_ = got.Body.Close()
		return got.StatusCode == http.StatusServiceUnavailable && got.Header.Get("Retry-After") == "5"
	}
	shows("all content at level 1", "full")
	say("85\n")
	shows("light content at level 2", "light")
	say("400\n")
	h.lab.Eventually("no content at level 3", refused)
	say("10\n")
	shows("all content again", "full")

	hangup := time.Now()
	agent.Signal(syscall.SIGHUP)
	for restarted := func() bool { return strings.Count(agent.Log(), `msg="endpoint attached"`) == 2 }; !restarted(); {
		if got, took := get(), time.Since(hangup); got != "full" && took < 2*time.Second { // it may be away for 5, less what a busy machine takes
			t.Fatalf("the agent starts again, after %v: %q", took, got)
		}
	}
	h.ready(agent, 2)
	shows("all content with the agent that started again", "full")

	// Many requests are few questions.
	before, began := questions(t, access), time.Now()
	for range 200 {
		if got := get(); got != "full" {
			t.Fatalf("%q", got)
		}
	}
	if asked, most := questions(t, access)-before, int(time.Since(began)/time.Second)+2; asked > most {
		t.Errorf("the agent was asked %d times for 200 requests, want %d at most", asked, most)
	}

	agent.Terminate()
	h.lab.Eventually("no content without an agent", refused)
	agent.start()
	shows("all content with an agent", "full")
}

// questions is how many lines a file has.
func questions(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(fmt.Errorf("what was asked: %w", err))
	}
	return strings.Count(string(text), "\n")
}
