package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/razor-steering/razor/gateway/bfd"
	"github.com/razor-steering/razor/integration/netlab"
)

// What becomes of a BGP session that is bound to a BFD session with us. BIRD is the
// gateway's BGP speaker, without BFD of its own.

const speakerBIRD = `
log stderr all;
router id 192.0.2.2;
protocol device { }
protocol static { ipv6; route 2001:db8:ffff::1/128 blackhole; }
protocol bgp tor {
  local as 4200000001;
  neighbor 2001:db8:0:1::1 as 4200000000;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv6 { import none; export all; };
}
`

const boundFRR = `
router bgp 4200000000
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor 2001:db8:0:1::2 remote-as external
 neighbor 2001:db8:0:1::2 timers connect 1
 neighbor 2001:db8:0:1::2 bfd
 neighbor 2001:db8:0:1::2 bfd profile fast
 address-family ipv6 unicast
  neighbor 2001:db8:0:1::2 activate
 exit-address-family
exit
bfd
 profile fast
  transmit-interval 300
  receive-interval 300
 exit
exit
`

const boundBIRD = `
log stderr all;
router id 192.0.2.1;
protocol device { }
protocol bfd { interface "swp1" { interval 300 ms; multiplier 3; }; }
protocol bgp edge {
  debug { events };
  local as 4200000000;
  neighbor 2001:db8:0:1::2 as 4200000001;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  bfd on;
  ipv6 { import all; export none; };
}
`

// calm is an interval that a busy machine keeps to: three times of it decide.
const calm = 300 * time.Millisecond

// bound is a router whose BGP session follows its BFD session.
type bound interface {
	router
	// established tells one session of BGP from the next; "" while there is none.
	established() string
}

type boundToFRR struct{ frrRouter }

func (r boundToFRR) established() string {
	var peers map[string]struct {
		BgpState           string
		ConnectionsDropped int
	}
	r.frr.JSON("show bgp neighbors 2001:db8:0:1::2 json", &peers)
	for _, p := range peers {
		if p.BgpState == "Established" {
			return fmt.Sprint("after ", p.ConnectionsDropped, " dropped")
		}
	}
	return ""
}

type boundToBIRD struct{ birdRouter }

func (r boundToBIRD) established() string {
	if !strings.Contains(r.bird.Birdc("show protocols edge"), "Established") {
		return ""
	}
	return fmt.Sprint("for the ", strings.Count(r.bird.Log(), "BGP session established"), ". time")
}

// bounds are the routers, with a gateway that is their peer by BGP and BFD.
func bounds(t *testing.T, test func(t *testing.T, c *cable, p *bfdProcess, r bound)) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		start func(n *netlab.Node) bound
	}{
		{"FRR", func(n *netlab.Node) bound { return boundToFRR{frrRouter{n.StartFRR(boundFRR)}} }},
		{"BIRD", func(n *netlab.Node) bound { return boundToBIRD{birdRouter{n.StartBIRD(boundBIRD)}} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCable(t)
			c.tors, c.gws = c.tors[1:2], c.gws[1:2] // the IPv6 addresses
			p := c.start(calm)
			c.gw.StartBIRD(speakerBIRD)
			r := tt.start(c.tor)
			c.lab.Eventually("bgp", func() bool { return r.established() != "" })
			c.up(p, r, calm)
			test(t, c, p, r)
		})
	}
}

// TestBFDEndsBGP: BGP is bound to BFD indeed.
func TestBFDEndsBGP(t *testing.T) {
	bounds(t, func(t *testing.T, c *cable, p *bfdProcess, r bound) {
		before := r.established()
		p.Kill()
		c.lab.Eventually("bgp to end", func() bool { return r.established() != before })
	})
}

// TestBFDAdminDown: the router hears that we are down by will, and BFD that is off
// does not keep BGP from being established (RFC 5882 §4.1). FRR 8.4 and BIRD 2.0.12
// end it once all the same, which §4.2 advises against: who restarts has to hand
// over.
func TestBFDAdminDown(t *testing.T) {
	bounds(t, func(t *testing.T, c *cable, p *bfdProcess, r bound) {
		before := r.established()
		p.adminDown()
		c.lab.Eventually("the router to hear of it", func() bool {
			return c.routerSees(r, func(state string) bool { return state != "up" })
		})
		c.lab.Eventually("bgp without bfd", func() bool { return r.established() != "" })
		t.Logf("bgp %q, was %q", r.established(), before)
		if got := p.session(c.tors[0]).State; got != bfd.AdminDown {
			t.Errorf("we are %v", got)
		}
	})
}

// TestBFDHandover: a gateway that is replaced loses neither BFD nor BGP.
func TestBFDHandover(t *testing.T) {
	bounds(t, func(t *testing.T, c *cable, p *bfdProcess, r bound) {
		before, changes, old := r.established(), len(p.changes()), p.session(c.tors[0])
		for range 3 {
			p.handOver()
			time.Sleep(2 * time.Second) // far beyond the detection time of before
			p.restart()
			c.up(p, r, calm)
		}
		if got := r.established(); got != before {
			t.Errorf("bgp: %q, was %q", got, before)
		}
		for _, change := range p.changes()[changes:] {
			if change.State != bfd.Up {
				t.Errorf("%+v", change)
			}
		}
		if now := p.session(c.tors[0]); now.LocalDiscriminator != old.LocalDiscriminator || now.RemoteDiscriminator != old.RemoteDiscriminator {
			t.Errorf("discriminators of %+v, were those of %+v", now, old)
		}
	})
}
