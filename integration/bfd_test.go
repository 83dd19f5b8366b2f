package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/integration/netlab"
)

// Our BFD speaker on a gateway, and a router with FRR's or BIRD's:
//
//	tor swp1 ──── eth0 gw
//
// Three sessions over the one link: IPv4, IPv6 and between link-local addresses.

// router is a router under test that speaks BFD.
type router interface {
	// sessions are the states of its BFD sessions, "up" where it is so, by peer.
	sessions() map[netip.Addr]string
	kill()
	restart()
}

type frrRouter struct{ frr *netlab.FRR }

func (r frrRouter) kill()    { r.frr.Kill("bfdd") }
func (r frrRouter) restart() { r.frr.Restart() }

func (r frrRouter) sessions() map[netip.Addr]string {
	var peers []struct{ Peer, Status string }
	r.frr.JSON("show bfd peers json", &peers)
	out := map[netip.Addr]string{}
	for _, p := range peers {
		if a, err := netip.ParseAddr(p.Peer); err == nil {
			out[a] = p.Status
		}
	}
	return out
}

type birdRouter struct{ bird *netlab.BIRD }

func (r birdRouter) kill()    { r.bird.Kill() }
func (r birdRouter) restart() { r.bird.Restart() }

func (r birdRouter) sessions() map[netip.Addr]string {
	out := map[netip.Addr]string{}
	for line := range strings.Lines(r.bird.Birdc("show bfd sessions")) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		if a, err := netip.ParseAddr(f[0]); err == nil {
			out[a] = strings.ToLower(f[2])
		}
	}
	return out
}

// cable is the link of the gateway, and the peers of both ends in the same order.
type cable struct {
	lab     *netlab.Lab
	tor, gw *netlab.Node
	link    *netlab.Link
	tors    []netip.Addr // as the gateway names them
	gws     []netip.Addr // without a zone
}

func newCable(t *testing.T) *cable {
	t.Helper()
	lab := netlab.New(t)
	c := &cable{lab: lab, tor: lab.Node("tor"), gw: lab.Node("gw")}
	c.link = lab.Link(c.tor, "swp1", c.gw, "eth0", "192.0.2.0/31", "2001:db8:0:1::1/64")
	c.tors = append(c.link.A.Addrs, c.link.A.Local.WithZone("eth0"))
	c.gws = append(c.link.B.Addrs, c.link.B.Local.WithZone(""))
	return c
}

func (c *cable) start(interval time.Duration) *bfdProcess {
	var sessions []bfd.Config
	for _, a := range c.tors {
		sessions = append(sessions, bfd.Config{Peer: a, Interval: interval, Multiplier: 3})
	}
	return startBFD(c.lab, c.gw, sessions...)
}

func (c *cable) startFRR(interval time.Duration) router {
	var b strings.Builder
	fmt.Fprintf(&b, "bfd\n profile fast\n  transmit-interval %[1]d\n  receive-interval %[1]d\n exit\n", interval.Milliseconds())
	for _, a := range c.gws {
		peer := a.String()
		if a.IsLinkLocalUnicast() {
			peer += " local-address " + c.link.A.Local.WithZone("").String() + " interface swp1"
		}
		fmt.Fprintf(&b, " peer %s\n  profile fast\n exit\n", peer)
	}
	return frrRouter{c.tor.StartFRR(b.String() + "exit\n")}
}

func (c *cable) startBIRD(interval time.Duration) router {
	var b strings.Builder
	fmt.Fprintf(&b, "log stderr all;\nrouter id 192.0.2.1;\nprotocol device { }\nprotocol bfd {\n interface \"swp1\" { interval %d ms; idle tx interval 1 s; multiplier 3; };\n", interval.Milliseconds())
	for _, a := range c.gws {
		if a.IsLinkLocalUnicast() {
			fmt.Fprintf(&b, " neighbor %v%%swp1;\n", a)
		} else {
			fmt.Fprintf(&b, " neighbor %v dev \"swp1\";\n", a)
		}
	}
	return birdRouter{c.tor.StartBIRD(b.String() + "}\n")}
}

// up waits until both ends have all sessions up at the interval.
func (c *cable) up(p *bfdProcess, r router, interval time.Duration) {
	c.lab.Eventually("all sessions", func() bool {
		for _, a := range c.tors {
			s := p.session(a)
			if s.State != bfd.Up || s.TransmitInterval != interval || s.DetectionTime != 3*interval {
				return false
			}
		}
		return c.routerSees(r, func(state string) bool { return state == "up" })
	})
}

func (c *cable) routerSees(r router, ok func(state string) bool) bool {
	all := r.sessions()
	for _, a := range c.gws {
		if state, found := all[a]; !found || !ok(state) {
			return false
		}
	}
	return true
}

// failed waits until each session has failed since a moment, and says whether that
// was for a reason. A machine that halts a process for longer than the detection
// time makes another one of it.
func (c *cable) failed(t *testing.T, p *bfdProcess, since time.Time, reason bfd.Diagnostic) bool {
	t.Helper()
	same := true
	for _, a := range c.tors {
		c.lab.Eventually(fmt.Sprint("the failure of ", a), func() bool {
			for _, change := range p.changes() {
				if change.Peer == a && change.At.After(since) && change.Failed() {
					t.Logf("%v after %v: %v", a, change.At.Sub(since), change.Diagnostic)
					same = same && change.Diagnostic == reason
					return true
				}
			}
			return false
		})
	}
	return same
}

func TestBFD(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		start func(*cable, time.Duration) router
	}{{"FRR", (*cable).startFRR}, {"BIRD", (*cable).startBIRD}} {
		for _, interval := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s %v", tt.name, interval), func(t *testing.T) {
				t.Parallel()
				c := newCable(t)
				r := tt.start(c, interval)
				p := c.start(interval)
				c.up(p, r, interval)
				c.weNotice(t, p, r, interval)
				c.theyNotice(t, p, r, interval)
			})
		}
	}
}

// weNotice is what a router can suffer. The reason is that of the fault in one of
// a few attempts.
func (c *cable) weNotice(t *testing.T, p *bfdProcess, r router, interval time.Duration) {
	t.Helper()
	for _, f := range []struct {
		name        string
		fault, heal func()
		reason      bfd.Diagnostic
	}{
		{"we hear nothing", func() { c.link.DropTo(c.gw, netlab.BFD) }, c.link.Heal, bfd.DiagExpired},
		{"the router hears nothing", func() { c.link.DropTo(c.tor, netlab.BFD) }, c.link.Heal, bfd.DiagSignaled},
		{"the link is silent", func() { c.link.Drop() }, c.link.Heal, bfd.DiagExpired},
		{"the router's daemon is killed", r.kill, r.restart, bfd.DiagExpired},
	} {
		for attempt := 1; ; attempt++ {
			t.Log(f.name)
			since := time.Now()
			f.fault()
			good := c.failed(t, p, since, f.reason)
			f.heal()
			c.up(p, r, interval)
			if good {
				break
			}
			if attempt == 5 {
				t.Fatalf("never by the reason %v", f.reason)
			}
		}
	}
}

// theyNotice is what we can suffer.
func (c *cable) theyNotice(t *testing.T, p *bfdProcess, r router, interval time.Duration) {
	t.Helper()
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		since := time.Now()
		p.Signal(s)
		c.lab.Eventually("the router to notice", func() bool {
			return c.routerSees(r, func(state string) bool { return state != "up" })
		})
		t.Logf("%v: the router knows after %v", s, time.Since(since))
		<-p.Ended
		p.restart()
		c.up(p, r, interval)
	}
}
