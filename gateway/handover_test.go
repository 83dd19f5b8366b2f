package gateway

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/razor-steering/razor/gateway/bgp"
	"github.com/razor-steering/razor/steering"
)

// TestResume checks that a gateway which starts again goes on with what it announced,
// and that one which was drained does not say goodbye anew: that would announce.
func TestResume(t *testing.T) {
	t.Parallel()
	vip := netip.MustParsePrefix("192.0.2.1/32")
	for _, tt := range []struct {
		what      string
		announced map[netip.Prefix]presence
		alone     bool
		stage     steering.Stage // after the first step of a drain
	}{
		{"announced", map[netip.Prefix]presence{vip: {"vips", steering.Announced, time.Unix(1, 0)}}, false, steering.Leaving},
		{"drained", nil, true, steering.OutOfTheWay},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			h := &handover{At: time.Now(), Announced: tt.announced}
			if err := h.leave(dir); err != nil {
				t.Fatal(err)
			}
			taken := takeHandover(dir, time.Now())
			if taken == nil || takeHandover(dir, time.Now()) != nil {
				t.Fatal("not there, or there twice")
			}
			cfg := bgp.Config{Peers: []bgp.PeerConfig{{Address: "2001:db8::1"}}}
			cfg.Defaults()
			g := &Gateway{holes: holes{}, announcer: bgp.New(cfg, bgp.Identity{}, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())}
			g.resume(taken)
			if got := g.announcer.Alone(); got != tt.alone || len(g.current.announcements) != len(tt.announced) {
				t.Errorf("alone: %t, %d announcements", got, len(g.current.announcements))
			}
			d := drain{config: DrainConfig{Converge: time.Minute, Settle: time.Second}, byHand: "by hand"}
			if d.step(time.Now(), g.announcer.Alone()); d.stage != tt.stage {
				t.Errorf("stage %v, want %v", d.stage, tt.stage)
			}
		})
	}
}
