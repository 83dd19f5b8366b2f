package gateway

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/razor-steering/razor/gateway/balancer"
	"github.com/razor-steering/razor/steering/wire"
)

// live lets time pass in which agents report, east is heard each second unless it is not to
// be, and hosts answer echoes, by the names of backends.
func (r *reporting) live(d time.Duration, agents, hosts string, east bool) {
	r.t.Helper()
	answers := map[wire.Locator]bool{}
	for name := range strings.FieldsSeq(hosts) {
		answers[wire.LocatorOf(web[name].SID)] = true
		if site := sitesOf[name]; site != "" {
			answers[wire.LocatorOf(netip.MustParseAddr(site))] = true
		}
	}
	began := time.Now()
	for n := 0; time.Since(began) < d; n++ {
		for name := range strings.FieldsSeq(agents) {
			r.tell(name, nil)
		}
		if east && n%5 == 0 {
			r.well("east")
		}
		due, _ := r.toAsk(time.Now(), r.cut.Load(), r.behind.Load())
		time.Sleep(time.Millisecond)
		for _, host := range due {
			if answers[host] {
				r.answered(host, time.Now())
			}
		}
		time.Sleep(reportInterval - time.Millisecond)
	}
}

// left holds who is left out of what is applied to names.
func (r *reporting) left(when, names string) {
	r.t.Helper()
	s, _ := r.service()
	var got []string
	for _, b := range s.Backends {
		if b.Gone {
			got = append(got, b.Name)
		}
	}
	if out := strings.Join(got, " "); out != names {
		r.t.Errorf("%s: gone are %q, want %q\n%s", when, out, names, r.said.String())
	}
}

const (
	allOfWeb  = "b1 b2 c"
	noneOfWeb = ""
)

// All hosts lose their power: they drain, and nothing is sent to them, until they answer or
// their agents speak, also after a restart of the gateway meanwhile.
func TestGone(t *testing.T) {
	deciding(t, nil, func(t *testing.T, r *reporting) {
		r.live(10*time.Second, allOfWeb, allOfWeb, true)
		r.left("all is well", "")
		r.live(5*time.Second, noneOfWeb, noneOfWeb, true)
		r.want("all have lost their power", "b1:draining b2:draining c:draining")
		r.left("all have lost their power", allOfWeb)
		r.spills("all have lost their power", "east:100")
		const said = `reason="its agent is silent for more than 600ms, and its host does not answer"`
		if !strings.Contains(r.said.String(), said) {
			t.Errorf("said %s", r.said.String())
		}
		status := r.status([]balancer.BackendStatus{{Service: "web", SID: web["b1"].SID.String()}}, time.Now())[0]
		if status.Agent == nil || !status.Agent.Silent || status.Agent.Host != hostGone {
			t.Errorf("status %+v", status.Agent)
		}

		r = r.again()
		r.want("the gateway starts again", "b1:draining b2:draining c:draining")
		r.left("the gateway starts again", allOfWeb)
		r.live(5*time.Second, noneOfWeb, "b1", true)
		r.left("one answers, and its agent does not run", "b2 c")
		r.want("one answers, and its agent does not run", "b1:draining b2:draining c:draining")
		r.live(5*time.Second, noneOfWeb, noneOfWeb, true)
		r.left("it has no power again", allOfWeb)
		r.live(time.Second, "b1 b2 c", noneOfWeb, true)
		r.left("agents speak", "")
		r.want("agents speak", "b1:active b2:active c:active")
	})
}

// Agents are silent, and their hosts work: nobody is left out.
func TestNotGone(t *testing.T) {
	for name, between := range map[string]func(r *reporting){
		"reports are lost, and hosts answer": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, allOfWeb, true)
			r.live(time.Minute, noneOfWeb, allOfWeb, true)
		},
		"echoes never pass": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, noneOfWeb, true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, true)
		},
		"echoes pass no longer, and then no reports": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, allOfWeb, true)
			r.live(30*time.Second, allOfWeb, noneOfWeb, true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, true)
		},
		"hosts answer when their agents are silent alone": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, noneOfWeb, true)
			r.live(time.Second, noneOfWeb, noneOfWeb, true)
			r.live(10*time.Second, noneOfWeb, allOfWeb, true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, true)
		},
		"nobody else is heard": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, allOfWeb, true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, false)
		},
		"the gateway was deaf a moment ago": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, allOfWeb, true)
			r.cut.Store(true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, true)
			r.cut.Store(false)
			r.live(9*time.Second, noneOfWeb, noneOfWeb, true)
		},
		"answers are not read yet": func(r *reporting) {
			r.live(10*time.Second, allOfWeb, allOfWeb, true)
			r.behind.Store(true)
			r.live(time.Minute, noneOfWeb, noneOfWeb, true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			deciding(t, nil, func(_ *testing.T, r *reporting) {
				between(r)
				r.left(name, "")
				if s, _ := r.service(); s.Backends[0].State == balancer.Dead {
					r.t.Errorf("%s: b1 is dead", name)
				}
			})
		})
	}
}

// Fewer than are to be left speak, and the others are gone: those that are there have the new
// flows, and not those whose hosts are gone.
func TestGoneButOne(t *testing.T) {
	deciding(t, func(c *Config) { c.Services[0].MinHealthy = new(0.5) }, func(_ *testing.T, r *reporting) {
		r.live(10*time.Second, allOfWeb, allOfWeb, true)
		r.live(10*time.Second, "b1", "b1", true)
		r.want("one is left", "b1:active b2:draining c:draining")
		r.left("one is left", "b2 c")
		r.live(10*time.Second, "b1", "b1 b2", true)
		r.left("b2 answers", "")
		r.want("b2 answers, and it is not believed that it is down", "b1:active b2:active c:active")
	})
}

// A gateway that does not decide leaves the same ones out. No other site tells it anything, but
// one answers.
func TestGoneAtAMate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := ofSites(t)
	config.Services[0].Spill, config.Dataplane.Follow = nil, "[2001:db8:5e:2::1]:5206"
	synctest.Test(t, func(t *testing.T) {
		r := startReporting(t, dir, config)
		defer r.stop()
		r.live(10*time.Second, allOfWeb, allOfWeb, false)
		r.live(10*time.Second, noneOfWeb, noneOfWeb, false)
		r.left("nobody is heard", "")
		r.live(5*time.Second, noneOfWeb, "east", false)
		r.left("all are gone", allOfWeb)
		r.want("all are gone", "b1:draining b2:draining c:draining")
		r.live(time.Second, "b1", "b1", false)
		r.want("one speaks", "b1:active b2:dead c:dead")
	})
}

// A host is asked as often as its agent should report while that is silent, and else from time
// to time; no more than some at once.
func TestEchoesAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, r *reporting) {
		count := func(d time.Duration, agents string) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				for name := range strings.FieldsSeq(agents) {
					r.tell(name, nil)
				}
				hosts, next := r.toAsk(time.Now(), false, false)
				n += len(hosts)
				if next.After(time.Now().Add(echoLook)) || next.Before(time.Now()) {
					t.Fatalf("to be looked again at %v from now", time.Until(next))
				}
			}
			return n
		}
		if n := count(10*time.Second, noneOfWeb); n != 0 {
			t.Errorf("%d requests to hosts whose agents never spoke", n)
		}
		if n := count(time.Minute, allOfWeb); n < 22 || n > 26 {
			t.Errorf("%d requests to two hosts in a minute", n)
		}
		r.live(2*time.Second, noneOfWeb, noneOfWeb, false)
		if n := count(10*time.Second, noneOfWeb); n < 78 || n > 102 {
			t.Errorf("%d requests to two hosts in ten seconds of silence", n)
		}
		r.mu.Lock()
		for n := range 2 * mostEchoes {
			a := netip.MustParseAddr("2001:db8:5e:1000:5201::").As16()
			a[6], a[7] = 0x10+byte(n>>8), byte(n)
			r.told[netip.AddrFrom16(a)] = &told{Report: wire.Report{Interval: time.Minute}, at: time.Now()}
		}
		r.mu.Unlock()
		r.toAsk(time.Now(), false, false)
		time.Sleep(2 * echoEvery)
		for _, want := range []int{mostEchoes, mostEchoes, 2} {
			if hosts, _ := r.toAsk(time.Now(), false, false); len(hosts) != want {
				t.Errorf("%d are asked at once, want %d", len(hosts), want)
			}
		}
	})
}

// Hosts answer as kernels do, and what is no answer to this gateway is nothing.
func TestEchoes(t *testing.T) {
	t.Parallel()
	ownHost(t)
	locator, host := netip.MustParsePrefix("2001:db8:5e:1::/64"), wire.LocatorOf(web["b1"].SID)
	for _, l := range []wire.Locator{wire.LocatorOf(locator.Addr()), host} {
		if err := own(l.Address()); err != nil {
			t.Fatal(err)
		}
	}
	r := newReports(logger(&strings.Builder{}), nil, nil)
	r.hosts[host] = &asked{every: reportInterval}
	r.told[web["b1"].SID] = &told{Report: wire.Report{Interval: time.Minute}, at: time.Now()}
	e, err := listenEchoes(locator, r)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.run(ctx) }()
	defer func() { cancel(); <-ended }()
	eventually(t, e, "razor_gateway_echoes_total", echoAnswered, 1)
	known := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.hosts[host].Known
	}
	for deadline := time.Now().Add(10 * time.Second); !known(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the answer is not known")
		}
	}
	other, err := listenEchoes(locator, r)
	if err != nil {
		t.Fatal(err)
	}
	defer other.conn.Close()
	if err := other.ask(host, 1); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 256)
	n, from := 0, net.Addr(nil)
	for own := false; !own; { // others come here too
		_ = other.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, from, err = other.conn.ReadFrom(buffer); err != nil {
			t.Fatal(err)
		}
		var l wire.Locator
		if l, own = other.answer(buffer[:n], from); own && l != host {
			t.Errorf("an answer of %v", l)
		}
	}
	if _, ok := e.answer(buffer[:n], from); ok {
		t.Error("an answer to somebody else is taken")
	}
	for i := range n {
		if _, ok := other.answer(buffer[:i], from); ok {
			t.Errorf("the first %d bytes are an answer", i)
		}
	}
	lo, err := loopback()
	if err != nil {
		t.Fatal(err)
	}
	route := lo.route(netip.PrefixFrom(host.Address(), 128))
	route.Protocol = unix.RTPROT_STATIC
	if err := netlink.RouteDel(route); err != nil {
		t.Fatal(err)
	}
	if err := e.ask(host, 2); err == nil {
		t.Error("a request without a way is sent")
	}
}

// What is known of hosts outlives the process.
func TestEchoesOverRestart(t *testing.T) {
	deciding(t, nil, func(_ *testing.T, r *reporting) {
		r.live(10*time.Second, allOfWeb, allOfWeb, true)
		r = r.again()
		r.live(time.Minute, noneOfWeb, noneOfWeb, true)
		r.left("they lost their power while the gateway was away", allOfWeb)
	})
}
