package integration

import (
	"io"
	"testing"
	"time"
)

// hostIs waits until both gateways of west know so of web1's host, and have it in a state.
func (d *deciders) hostIs(is, state string) {
	d.t.Helper()
	for _, g := range []*announcer{d.gateway, d.mate} {
		d.lab.Eventually(g.node.Name+": the host of web1 "+is, func() bool {
			for _, b := range g.status().Backends {
				if b.Backend == "web1" && b.Agent != nil {
					return b.Agent.Host == is && string(b.State) == state
				}
			}
			return false
		})
	}
}

// No packet passes between a site and all its backends, without a word of any router. Flows
// that begin at the other site meanwhile get their packets there, and those that were here go
// on when the way is back, as nothing was forgotten; also over a restart of the gateway.
func TestSitesGone(t *testing.T) {
	t.Parallel()
	d := newDeciders(t)
	d.begin(40, "web1")
	d.hostIs("answers", "active")

	d.tor.Run("nft", "add table inet cut { chain forward { type filter hook forward priority 0; oifname swp2 drop; iifname swp2 drop; }; }")
	d.hostIs("gone", "draining")
	d.shares("web1 is gone", elsewhere)
	old := d.flows[:4]
	for _, f := range old {
		_ = f.conn.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := io.WriteString(f.conn, "who\n"); err != nil {
			t.Fatal(err)
		}
	}
	d.begin(20, "web2")
	d.gateway.Kill()
	d.gateway.start()
	d.gateway.awaitUp(1)
	d.hostIs("gone", "draining")
	d.begin(20, "web2")

	d.tor.Run("nft", "delete table inet cut")
	d.hostIs("answers", "active")
	for i, f := range old {
		if by, err := f.reader.ReadString('\n'); err != nil || by != f.by {
			t.Errorf("flow %d of %q, which spoke while it was gone, is of %q, %v", i, f.by, by, err)
		}
	}
	d.goOn("web1 is back")
}
