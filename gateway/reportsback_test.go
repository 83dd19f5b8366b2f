package gateway

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Reports of all are lost for a while, and come back one after another: nobody is dead for a
// moment, as flows would be forgotten. Who does not come back is dead then.
func TestReportsComeBack(t *testing.T) {
	for name, config := range map[string]func(*testing.T) Config{
		"decided here": func(t *testing.T) Config { return ofSites(t) },
		"decided by a mate": func(t *testing.T) Config {
			c := ofSites(t)
			c.Dataplane.Follow = "[2001:db8:5e:2::1]:5206"
			return c
		},
		"no other site": balanced,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, c := t.TempDir(), config(t)
			c.Services[0].MinHealthy = new(0.25)
			synctest.Test(t, func(t *testing.T) {
				r := startReporting(t, dir, c)
				defer r.stop()
				r.live(10*time.Second, allOfWeb, "", true)
				r.live(time.Minute, "", "", true)
				r.live(reportInterval, "b2", "", true)
				if strings.Contains(r.said.String(), "to=dead") {
					t.Errorf("somebody is dead: %s", r.said.String())
				}
				r.live(reportInterval, "b2 c", "", true)
				if strings.Contains(r.said.String(), "to=dead") {
					t.Errorf("somebody is dead: %s", r.said.String())
				}
				r.live(2*time.Second, "b2 c", "", true)
				r.want("b1 does not come back", "b1:dead b2:active c:active")
				r.live(time.Second, allOfWeb, "", true)
				r.want("all are back", "b1:active b2:active c:active")
			})
		})
	}
}
