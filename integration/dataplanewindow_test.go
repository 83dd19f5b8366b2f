package integration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/integration/netlab"
)

// unsteady is a web server on a host, which answers badly some of every eight times, and how
// often it was asked.
func unsteady(t *testing.T, node *netlab.Node, at string) (bad, asked *atomic.Int64) {
	t.Helper()
	bad, asked = new(atomic.Int64), new(atomic.Int64)
	l, err := node.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1) - 1; n*3%8 < bad.Load() { // 3 spreads them
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-ended })
	return bad, asked
}

// A service that answers badly now and then keeps its backend active, by the window of its
// probe; one that does so more often drains it.
func TestReportsWindow(t *testing.T) {
	t.Parallel()
	r := newReporters(t)
	web1 := r.agents[0]
	bad, asked := unsteady(t, web1.node, "[::1]:8088")
	web1.rewrite(fmt.Sprintf("kind: exec, command: [/usr/bin/test, -e, %s]", filepath.Join(r.dir, "web1")), `kind: http, target: "[::1]:8088"`)
	web1.rewrite("rise: 1, fall: 1", "window: 8, threshold: 6")
	changes := func(to string) int { return strings.Count(web1.Log(), `to=`+to+` reason=`) }
	ups := changes("up")
	web1.Signal(syscall.SIGHUP)
	r.lab.Eventually("the new probe knows", func() bool { return changes("up") == ups+1 })
	r.ready(web1, 2)
	r.heard(0, "up", "active")
	if !strings.Contains(web1.Log(), `from=unknown to=up reason="6/8 passed"`) {
		t.Errorf("one that passes is enough: %s", web1.Log())
	}

	bad.Store(2)
	n := asked.Load()
	r.lab.Eventually("2 of 8 are bad", func() bool {
		if b := r.backend(0); b.State != "active" || b.Agent.Health != "up" {
			t.Fatalf("%+v", b)
		}
		return asked.Load() > n+24
	})
	r.lab.Eventually("razor agent status shows the window", func() bool {
		said, err := web1.razor("agent", "status")
		return err == nil && strings.Contains(said, "  6/8 ")
	})
	if changes("up") != ups+1 || changes("down") != 0 {
		t.Errorf("2 of 8 are bad: %s", web1.Log())
	}
	r.begin(40, "web1", "web2")

	bad.Store(3)
	r.heard(0, "down", "draining")
	if !strings.Contains(web1.Log(), `from=up to=down reason="5/8 passed: status 503 instead of 200"`) {
		t.Errorf("3 of 8 are bad: %s", web1.Log())
	}
	r.begin(20, "web2")
	r.goOn("web1 is down")
	bad.Store(0)
	r.heard(0, "up", "active")
	r.begin(40, "web1", "web2")
	r.goOn("web1 is up")
	r.stop()
}
