package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A backend at its limit lets new flows go on to the other one, and keeps its own, also
// while its agent is started again, until its load falls.
func TestDataplaneUnderLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "load")
	say := func(figure string) {
		if err := os.WriteFile(file+".new", []byte(figure), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	say("10\n")
	h := newHosts(t, func(h *hosts) {
		h.edit = map[string][]string{"web1": {
			"sr_block:", "load: {measure: probe, capacity: 200, interval: 50ms, probe: {kind: exec, command: [/bin/cat, " + file + "]}}\n  sr_block:",
		}}
	})
	h.await()
	h.begin(40, "web1", "web2")
	agent := h.agents[0]
	loaded := func(level string) {
		t.Helper()
		h.lab.Eventually("web1 is at "+level, func() bool { return strings.HasSuffix(get(agent, "/readyz"), "; load: "+level+"\n") })
	}

	say("180\n")
	loaded("warning")
	h.goOn("web1 is under load")
	h.begin(40, "web2")
	if !regexp.MustCompile(`level=WARN msg="level changed" target=0 from=normal to=warning reason="load 0\.[89]\d*, warning from 0\.8"`).MatchString(agent.Log()) {
		t.Error("the change was not told of")
	}
	for _, want := range []string{`razor_agent_load_level{target="0"} 2`, `razor_agent_load_failures_total{target="0"} 0`} {
		if got := get(agent, "/metrics"); !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in %s", want, got)
		}
	}

	agent.Kill()
	h.begin(20, "web2")
	agent.start()
	loaded("warning")
	if n := strings.Count(agent.Log(), "level changed"); n != 1 {
		t.Errorf("%d changes of the level: it was forgotten", n)
	}
	h.begin(20, "web2")
	h.goOn("the agent was killed")

	say("1000\n")
	loaded("critical")
	say("10\n")
	h.ready(agent, 2)
	h.goOn("web1 is at rest")
	h.begin(40, "web1", "web2")
}
