package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// leveled is a backend whose agent has the load that it is told, and in front of whose
// content a server asks for the level.
type leveled struct {
	*hosts

	agent *announcer
	node  *netlab.Node
	load  string // the file with it
}

func newLeveled(t *testing.T) *leveled {
	t.Helper()
	l := &leveled{load: filepath.Join(t.TempDir(), "load")}
	writeFile(t, l.load, "10\n")
	l.hosts = newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{"web1": {
			"sr_block:", "load: {measure: probe, capacity: 100, interval: 50ms, probe: {kind: exec, command: [/bin/cat, " + l.load + "]}}\n  sr_block:",
		}}
	})
	l.agent = l.agents[0]
	l.ready(l.agent, 2)
	l.node = l.agent.node
	return l
}

// say is what the load is from now on.
func (l *leveled) say(figure string) {
	l.t.Helper()
	writeFile(l.t, l.load+".new", figure)
	if err := os.Rename(l.load+".new", l.load); err != nil {
		l.t.Fatal(err)
	}
}

// content is what is served now.
func (l *leveled) content() string { return page(l.agent, "http://[::1]:80/") }

func (l *leveled) shows(what, want string) {
	l.t.Helper()
	l.lab.Eventually(what, func() bool { return strings.HasPrefix(l.content(), want) })
}

// refused tells whether a client is to come again later.
func (l *leveled) refused() bool {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: l.node.Dial}}
	got, err := client.Get("http://[::1]:80/")
	if err != nil {
		return false
	}
	_ = got.Body.Close()
	return got.StatusCode == http.StatusServiceUnavailable && got.Header.Get("Retry-After") == "5"
}

// follows holds that the content follows the level, and goes on over a restart of the agent.
func (l *leveled) follows() {
	l.t.Helper()
	l.shows("all content at level 1", "full")
	l.say("85\n")
	l.shows("light content at level 2", "light")
	l.say("400\n")
	l.lab.Eventually("no content at level 3", l.refused)
	l.say("10\n")
	l.shows("all content again", "full")

	hangup := time.Now()
	l.agent.Signal(syscall.SIGHUP)
	for restarted := func() bool { return strings.Count(l.agent.Log(), `msg="endpoint attached"`) == 2 }; !restarted(); {
		if got, took := l.content(), time.Since(hangup); got != "full" && took < 2*time.Second { // it may be away for 5, less what a busy machine takes
			l.t.Fatalf("the agent starts again, after %v: %q", took, got)
		}
	}
	l.ready(l.agent, 2)
	l.shows("all content with the agent that started again", "full")
}

// ends holds that there is no content without an agent.
func (l *leveled) ends() {
	l.t.Helper()
	l.agent.Terminate()
	l.lab.Eventually("no content without an agent", l.refused)
	l.agent.start()
	l.shows("all content with an agent", "full")
}

// The example of nginx on a backend.
func TestLevelsNginx(t *testing.T) {
	t.Parallel()
	nginx := program(t, "nginx")
	l := newLeveled(t)
	dir := l.node.Dir
	for _, kind := range []string{"full", "light"} {
		if err := os.Mkdir(filepath.Join(dir, kind), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, kind, "index.html"), kind)
	}
	access := filepath.Join(dir, "asked")
	conf := "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += kind + "_temp_path " + filepath.Join(dir, kind) + ";\n"
	}
	// What the agent is asked goes by a server that counts it.
	conf += "log_format asked '$request_uri';\nserver { listen [::1]:8057; access_log " + access + " asked; location / { proxy_pass http://[::1]:8056; } }\n" +
		strings.NewReplacer("/var/cache", dir, "/srv/www", dir, "[::1]:8056", "[::1]:8057", "listen 80", "listen [::1]:80").Replace(levelsExample(t, "nginx.conf")) + "}\n"
	l.node.Start(nginx, "-c", writeFile(t, filepath.Join(dir, "levels.conf"), conf), "-p", dir, "-e", "stderr")
	l.follows()

	// Many requests are few questions.
	before, began := questions(t, access), time.Now()
	for range 200 {
		if got := l.content(); got != "full" {
			t.Fatalf("%q", got)
		}
	}
	if asked, most := questions(t, access)-before, int(time.Since(began)/time.Second)+2; asked > most {
		t.Errorf("the agent was asked %d times for 200 requests, want %d at most", asked, most)
	}
	l.ends()
}

// The example of Varnish on a backend, before an application that heeds the level. What
// Varnish has in its cache it serves at any level.
func TestLevelsVarnish(t *testing.T) {
	t.Parallel()
	varnishd := program(t, "varnishd")
	l := newLeveled(t)
	listener, err := l.node.Listen("tcp", "[::1]:8080")
	if err != nil {
		t.Fatal(err)
	}
	application := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if strings.HasPrefix(r.URL.Path, "/kept") {
			w.Header().Set("Cache-Control", "max-age=3600")
		}
		_, _ = io.WriteString(w, map[string]string{"1": "full", "2": "light"}[r.Header.Get("Razor-Level")])
	})}
	served := make(chan error, 1)
	go func() { served <- application.Serve(listener) }()
	t.Cleanup(func() {
		_ = application.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	vcl := writeFile(t, filepath.Join(l.node.Dir, "levels.vcl"), levelsExample(t, "varnish.vcl"))
	l.node.Start(varnishd, "-F", "-f", vcl, "-a", "[::1]:80", "-n", filepath.Join(l.node.Dir, "varnish"), "-j", "none", "-s", "default,16m")
	l.follows()

	kept := func(path string) string { return page(l.agent, "http://[::1]:80/kept/"+path) }
	if got := kept("1"); got != "full" {
		t.Errorf("%q", got)
	}
	l.say("400\n")
	l.lab.Eventually("no content at level 3", l.refused)
	if got := kept("1"); got != "full" {
		t.Errorf("what is in the cache is %q at level 3", got)
	}
	if got := kept("2"); got == "full" {
		t.Error("what is not in the cache is fetched at level 3")
	}
	l.say("10\n")
	l.shows("all content again", "full")
	l.ends()
}

func levelsExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../deploy/levels", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
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
