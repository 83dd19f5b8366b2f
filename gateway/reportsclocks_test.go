package gateway

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering/wire"
)

// An agent whose clock is far away is not believed, and yet there: its backend gets no new
// flows, and is not dead until nothing comes any more. So is one whose clock is behind, to a
// gateway that has just started.
func TestReportsClocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t, dir)
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		pass := func(d time.Duration) { r.pass(d, all) }
		pass(time.Second)
		// An agent that starts again when its clock was set back seals what it seems to have
		// sealed before.
		for _, ahead := range []time.Duration{5 * time.Second, 0} {
			delete(r.sealers, wire.LocatorOf(web["b1"].SID))
			r.ahead["b1"] = ahead
			pass(time.Second)
		}
		r.want("set back by what is believed", "b1:draining b2:active c:active")
		pass(30 * time.Second)
		r.want("set back", "b1:draining b2:active c:active")
		pass(10 * time.Second)
		r.want("set back for long", "b1:active b2:active c:active")

		for _, ahead := range []time.Duration{5 * time.Second, 29 * time.Second, -29 * time.Second} {
			r.ahead["b1"] = ahead
			pass(2 * time.Second)
			r.want("within the window", "b1:active b2:active c:active")
		}
		if got := r.clock(t, "b1"); got != -29 {
			t.Errorf("the clock is %v s ahead", got)
		}
		for _, ahead := range []time.Duration{40 * time.Second, -40 * time.Second} {
			r.ahead["b1"] = ahead
			pass(2 * time.Second)
			r.want("beyond", "b1:draining b2:active c:active")
			status := r.status([]balancer.BackendStatus{{Service: "web", SID: web["b1"].SID.String(), State: balancer.Draining}}, time.Now())[0]
			if want := fmt.Sprintf("clock %+.0f s", ahead.Seconds()); status.agent() != want || status.Reason != "its agent is not believed: its clock is wrong, or was set back" {
				t.Errorf("agent %q, want %q; %s", status.agent(), want, status.Reason)
			}
			r.ahead["b1"] = 0
			pass(reportInterval)
			r.want("within it again", "b1:active b2:active c:active")
		}
		r.ahead["b1"] = time.Hour
		pass(2 * time.Second)
		r.want("an hour", "b1:draining b2:active c:active")
		delete(all, "b1")
		pass(time.Second)
		r.want("silent", "b1:dead b2:active c:active")
		all["b1"] = nil
		pass(time.Second)
		r.want("there again", "b1:draining b2:active c:active")
		r.ahead["b1"] = -20 * time.Second
		pass(time.Second)
		r.want("all is well", "b1:active b2:active c:active")
		r.stop()

		ahead := r.ahead
		r = newReporting(t, dir)
		r.ahead = ahead
		for range 25 { // it is given the time until it is believed
			pass(time.Second)
			r.want("it starts", "b1:active b2:active c:active")
		}
		r.stop()
	})
}

// An agent whose clock is behind is not believed by a gateway that has just started, and
// is not taken for silent for that.
func TestReportsOverRestartWithClocks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		all := map[string]func(*wire.Report){"b1": nil, "b2": nil, "c": nil}
		for range 2 {
			r := newReporting(t, dir)
			r.config.Services[0].MinHealthy = new(0.25)
			r.reconfigure()
			r.ahead = map[string]time.Duration{"b1": -20 * time.Second}
			for range 25 {
				r.pass(time.Second, all)
				r.want("it starts", "b1:active b2:active c:active")
			}
			r.stop()
		}
		r := newReporting(t, dir)
		defer r.stop()
		r.config.Services[0].MinHealthy = new(0.25)
		r.reconfigure()
		delete(all, "b1")
		r.pass(31*time.Second, all)
		r.want("it does not come", "b1:dead b2:active c:active")
	})
}
