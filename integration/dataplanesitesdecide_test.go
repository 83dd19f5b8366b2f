package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/integration/testhost"
)

// deciders are two sites, each with a gateway that decides and a backend that reports.
// Clients' packets come in at west, whose gateway has a mate.
type deciders struct {
	*hosts

	mate *announcer
	east *announcer
	dir  string // of files that say which backends are well, by their names
}

const announced = `    - {set: web, prefixes: [198.51.100.1, "2001:db8:ffff::1"]}` + "\n"

func newDeciders(t *testing.T) *deciders {
	t.Helper()
	d := &deciders{dir: t.TempDir()}
	for _, name := range []string{"web1", "web2"} {
		d.say(t, name, true)
	}
	d.hosts, d.east = newSiteHosts(t, func(h *hosts) {
		h.edit["gateway"] = []string{"    sr_block:", `    tables_listen: "[2001:db8:5e:1::1]:5206"` + "\n    sr_block:"}
		h.edit["east"] = []string{announced, ""}
		for name, gateways := range map[string]string{
			"web1": fmt.Sprintf("\"%v\", \"%v\"", nodePrefix(1), nodePrefix(4)), "web2": fmt.Sprintf("\"%v\"", nodePrefix(101)),
		} {
			h.edit[name] = []string{"interfaces: [eth0]\n  sr_block:", fmt.Sprintf(`interfaces: [eth0]
  gateways: [%s]
  report_interval: 1s
  load: {measure: connections, capacity: %d}
  probes:
    - probe: {name: web, kind: exec, command: [/usr/bin/test, -e, %s], interval: 100ms, timeout: 10s, lease: 30s, rise: 1, fall: 1, hold_down: 1ms}
  sr_block:`, gateways, map[string]int{"web1": 100, "web2": 1000}[name], filepath.Join(d.dir, name))}
		}
	})
	d.edit["mate"] = append([]string{"    sr_block:", `    follow: "[2001:db8:5e:1::1]:5206"` + "\n    sr_block:"}, d.edit["gateway"][2:]...)
	d.mate = d.process(d.host("mate", 5, 4), "gateway", "gateway.yaml")
	d.ready(d.agents[0], 2)
	d.ready(d.agents[1], 102)
	d.until([]string{"swp1", "swp5"}, vip4, vip6)
	for port, number := range map[string]int{"swp1": 1, "swp2": 2, "swp3": 101, "swp4": 102, "swp5": 4} {
		d.until([]string{port}, nodePrefix(number).String())
	}
	d.shares("at first", atHome)
	for _, g := range []*announcer{d.gateway, d.east} {
		d.lab.Eventually(g.node.Name+" hears the other site", func() bool {
			return strings.Contains(g.metrics(), "razor_gateway_site_age_seconds{")
		})
	}
	return d
}

// say has the probe of a backend pass, or fail.
func (d *deciders) say(t *testing.T, name string, well bool) {
	t.Helper()
	file := filepath.Join(d.dir, name)
	err := os.Remove(file)
	if well {
		err = os.WriteFile(file, nil, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// decided is what west decided last, as far as it did.
func (d *deciders) decided() gateway.DecidedService {
	if s := d.gateway.status().Decision; s != nil && len(s.Services) == 1 && len(s.Services[0].Sites) == 1 {
		return s.Services[0]
	}
	return gateway.DecidedService{}
}

// shares waits until those of west's clients are as they should be.
func (d *deciders) shares(when string, ok func(here, there float64) bool) {
	d.t.Helper()
	var s gateway.DecidedService
	d.lab.Eventually("shares "+when, func() bool {
		s = d.decided()
		return s.Service != "" && ok(s.Here.Share, s.Sites[0].Share)
	})
	d.lab.Eventually("the mate does the same "+when, func() bool {
		m := d.mate.status()
		return m.Decision != nil && m.Decision.Mate != "" && m.Decision.Services[0].Here.Share == s.Here.Share
	})
	d.t.Logf("%s: %s; west %v, %s; east %v, %s", when, s.Reason, s.Here.Share, s.Here.Reason, s.Sites[0].Share, s.Sites[0].Reason)
}

func atHome(here, there float64) bool    { return here == 1 && there == 0 }
func elsewhere(here, there float64) bool { return here == 0 && there == 1 }

// All backends of a site go down: new flows are at the other one, old ones stay, and all
// live on when new ones are at home again. So it is with a drain, over a restart.
func TestSitesDecide(t *testing.T) {
	t.Parallel()
	d := newDeciders(t)
	d.begin(40, "web1")

	d.say(t, "web1", false)
	d.shares("web1 is down", elsewhere)
	d.begin(20, "web2")
	d.goOn("web1 is down")
	d.gateway.Kill()
	d.gateway.start()
	d.gateway.awaitUp(1)
	d.shares("west's gateway runs again", elsewhere)
	d.begin(20, "web2")
	d.goOn("west's gateway runs again")
	d.say(t, "web1", true)
	d.shares("web1 is up", atHome)
	d.begin(20, "web1")
	d.goOn("web1 is up")

	said, err := d.gateway.razor("drain", "site", "--reason", "power")
	if err != nil || !strings.Contains(said, "site west is drained\nservice web: east 100.0 %: drained: all new flows go elsewhere\n") {
		t.Errorf("drain: %s, %v", said, err)
	}
	d.shares("west is drained", elsewhere)
	d.begin(20, "web2")
	d.goOn("west is drained")
	said, err = d.gateway.razor("plan")
	if err != nil || !strings.Contains(said, "of site west, ") || !strings.Contains(said, "web: drained: all new flows go elsewhere") {
		t.Errorf("plan: %s, %v", said, err)
	}
	if said, err := d.gateway.razor("what-if", "--fail", "east"); err != nil || !strings.Contains(said, "nowhere") {
		t.Errorf("what-if: %s, %v", said, err)
	}
	if said, err := d.gateway.razor("status"); err != nil || !strings.Contains(said, "site west is drained: power\n") {
		t.Errorf("status: %s, %v", said, err)
	}
	d.lab.Eventually("east knows that west is drained", func() bool {
		s := d.east.status().Decision
		return s != nil && strings.Contains(fmt.Sprint(s.Services), "drained")
	})
	if said, err := d.gateway.razor("undrain", "site"); err != nil || !strings.Contains(said, "site west takes new flows again\n") {
		t.Errorf("undrain: %s, %v", said, err)
	}
	d.shares("undrained", atHome)
	d.begin(20, "web1")
	if said, err := d.mate.razor("drain", "site"); err == nil || !strings.Contains(said, "another gateway decides for site west: ask that at [2001:db8:5e:1::1]:5206") {
		t.Errorf("drain at the mate: %s, %v", said, err)
	}
	if said, err := d.east.razor("drain", "site"); err != nil || !strings.Contains(said, "site east is drained\n") {
		t.Errorf("drain east: %s, %v", said, err)
	}
	d.lab.Eventually("west knows that east is drained", func() bool {
		said, err := d.gateway.razor("drain", "site")
		return err != nil && strings.Contains(said, "service web: 100.0 % of the new flows would have nowhere to go; --force drains all the same")
	})
	d.begin(20, "web1")
	d.goOn(atTheEnd)
	if n := d.gateway.counter("razor_gateway_decisions_total"); n < 5 {
		t.Errorf("%d decisions", n)
	}
	d.east.Terminate()
	d.mate.Terminate()
	d.stop()
}

// More flows than a site has room for: it keeps as many as its limit allows, the others are
// elsewhere, and come back when they are fewer.
func TestSitesDecideByLoad(t *testing.T) {
	t.Parallel()
	testhost.NeedsRoot(t)
	d := newDeciders(t)
	var open []*liveFlow
	atWest := func() (n int) {
		for _, f := range open {
			if f.by == "web1\n" {
				n++
			}
		}
		return n
	}
	// keep has so many flows open, the oldest ends when a new one begins, until it is ok.
	keep := func(flows int, what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(4 * time.Minute); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d of %d flows at west, %+v", what, atWest(), len(open), d.decided())
			}
			for range 10 {
				open = append(open, beginFlow(t, d.client, len(open)))
				for len(open) > flows {
					_ = open[0].conn.Close()
					open = open[1:]
				}
			}
		}
	}
	keep(60, "below the limit", func() bool { return len(open) == 60 && atWest() == 60 })
	const flows = 150 // of 100 that west has room for, of which it may use 90
	var counts []int  // at west, of late: while four times as many began as are open
	keep(flows, "spill", func() bool {
		counts = append(counts, atWest())
		counts = counts[max(0, len(counts)-60):]
		sum := 0
		for _, n := range counts {
			sum += n
		}
		mean := float64(sum) / 60
		return len(counts) == 60 && d.decided().Here.Share < 0.9 && mean > 75 && mean < 105
	})
	said, err := gateway.SnapshotLive(t.Context(), d.east.stateDir())
	if err != nil || said.Services[0].Guests == 0 || said.Services[0].Arriving != 0 {
		t.Errorf("east: %+v, %v; want guests alone", said.Services, err)
	}
	keep(40, "at home again", func() bool { return d.decided().Here.Share == 1 && atWest() == len(open) })
	if !strings.Contains(d.gateway.Log(), `msg="shares of new flows" service=web`) {
		t.Error("the log has no word of it")
	}
}
