package live

import (
	"fmt"
	"log/slog"
	"math"
	"time"
)

// sample is a gateway with a bit of everything, at a moment of its life.
func sample(now time.Time) Document {
	t := float64(now.UnixMilli()) / 1000
	wave := func(mean, period float64) float64 {
		return math.Round(mean * (1 + 0.3*math.Sin(2*math.Pi*t/period) + 0.05*math.Sin(t*17)))
	}
	to := func(fresh, period float64) Traffic {
		return Traffic{New: wave(fresh, period), Old: wave(30*fresh, 2*period), Packets: wave(90*fresh, period)}
	}
	d := Document{
		Name: "edge1.west.example.net", Site: "west", Identity: "AS 4200000101, router ID 192.0.2.1, locator 2001:db8:5e:1::/64",
		Started: now.Add(-26 * time.Hour), Stage: "in service", Plan: "1795284000.42", Decides: true, Mates: []string{"[2001:db8:5e:2::1]:5206"},
		Edge:    &Edge{Health: "draining", Reason: "drained by an operator: new kernel", Since: now.Add(-3 * time.Minute)},
		Remarks: []string{"lists: redis does not answer, going by those of 2026-11-21T18:02:11Z"},
		Figures: []Figure{
			{Key: "flows", Title: "New flows", Value: wave(2_050, 33), Unit: "/s", Note: "of TCP, 611 to other sites"},
			{Key: "old", Title: "Old flows", Value: wave(64_300, 33), Unit: "/s", Note: "1 of 8 looked at, 9400 to other sites"},
			{Key: "taken", Title: "Taken", Value: wave(1_440, 33), Unit: "/s", Note: "new flows here, 210 of other sites"},
			{Key: "packets", Title: "Packets", Value: wave(182_300, 40), Unit: "/s", Note: "to VIPs, of all flows"},
			{Key: "bits", Title: "Bits", Value: wave(1.31e9, 40), Unit: "bit/s", Note: "to VIPs"},
			{Key: "sent", Title: "Sent", Note: "to backends here", Value: wave(171_200, 40), Unit: "/s"},
			{Key: "misses", Title: "Misses", Value: wave(41, 11), Unit: "/s", Note: "first backend had it not"},
			{Key: "pins", Title: "Pinned flows", Value: wave(1_204, 60), Note: "3 told in a second"},
			{Key: "spilled", Title: "Spilled", Note: "new flows to other sites", Value: wave(311, 25), Unit: "/s"},
			{Key: "away", Title: "Away", Note: "misses to other sites", Value: wave(2, 5), Unit: "/s"},
			{Key: "entered", Title: "Entered", Value: wave(1_280, 50), Unit: "/s", Note: "from other sites"},
			{Key: "dropped", Title: "Dropped", Value: wave(7, 9), Unit: "/s", Note: "malformed"},
		},
		Sites: []Site{
			{Name: "east", Entries: []Entry{{SID: "2001:db8:5e:e001:5203::", Traffic: to(300, 25)}, {SID: "2001:db8:5e:e002:5203::", Traffic: to(310, 25)}}, Pinned: Traffic{Old: wave(40, 25), Packets: wave(170, 25)}},
			{Name: "north", Entries: []Entry{{SID: "2001:db8:5e:f001:5203::", Why: "no way to it"}}},
		},
		Peers: []Peer{
			{Name: "tor1", Address: "fe80::60c6:5fff:fe9b:7f30%eth0", AS: 4200000000, State: "established", Up: true, Since: now.Add(-26 * time.Hour), Announced: map[string]int{"IPv4": 12, "IPv6": 13}, BFD: "up, 150ms"},
			{Name: "tor2", Address: "2001:db8:2::1", AS: 4200000000, State: "idle", Since: now.Add(-95 * time.Second), Announced: map[string]int{}, BFD: "down", LastError: "connection refused", ErrorAt: now.Add(-2 * time.Second)},
		},
		Announcements: []Announcement{
			{Prefix: "192.0.2.53/32", Set: "dns", Presence: "announced", Reason: "probe dns is up", Since: now.Add(-26 * time.Hour)},
			{Prefix: "2001:db8:feed::53/128", Set: "dns", Presence: "announced", Reason: "probe dns is up", Since: now.Add(-26 * time.Hour)},
			{Prefix: "198.51.100.0/24", Set: "web", Presence: "lowered", Reason: "probe web is down: connection refused; not withdrawn before 18:12:20, as nobody knows of other announcers", Since: now.Add(-20 * time.Second)},
			{Prefix: "203.0.113.7/32", Set: "blackhole", Presence: "announced", Reason: "until 2026-11-21T20:00:00Z", Since: now.Add(-3 * time.Minute)},
			{Prefix: "2001:db8:5e:1::/64", Set: "node", Presence: "withdrawn", Reason: "drained", Since: now.Add(-3 * time.Minute)},
		},
		Probes: []Probe{{Name: "dns", Health: "up", Since: now.Add(-26 * time.Hour), Good: "7/8 +++-++++"}, {Name: "web", Health: "down", Since: now.Add(-20 * time.Second), Reason: "connection refused; held down for 12s"}},
	}
	web := Service{Name: "web", VIPs: []VIP{{to(1350, 40), "198.51.100.1:443/tcp", wave(0.9e9, 40)}, {to(700, 30), "[2001:db8:ffff::1]:443/tcp", wave(0.41e9, 30)}}}
	for i := range 6 {
		b := Backend{
			Name: fmt.Sprint("web", i+1), SID: fmt.Sprintf("2001:db8:5e:10%d:5201::", i+1), State: "active", Health: "up", Level: "normal", Weight: 100,
			Load: 0.4 + 0.1*float64(i), Share: 0.15, Traffic: to(410, 30+float64(i)*7), Taken: wave(400, 30+float64(i)*5),
		}
		switch i {
		case 3:
			b.State, b.Health, b.Share, b.Why = "draining", "", 0, "drained by an operator: new kernel"
		case 4:
			b.Level = "warning"
		case 5:
			b.State, b.Health, b.Share, b.Traffic, b.Taken, b.Load, b.Why = "dead", "silent", 0, Traffic{}, 0, -1, "silent for 3 intervals"
		}
		web.Backends = append(web.Backends, b)
	}
	web.Backends = append(web.Backends, Backend{Name: "site east", Site: true, State: "active", Share: 0.4, Load: -1, Traffic: to(610, 25)})
	mail := Service{Name: "mail", VIPs: []VIP{{to(3, 20), "198.51.100.25:25/tcp", wave(2.1e6, 20)}}, Doubt: "1 of 3 active backends are up: health is not believed"}
	for i := range 3 {
		mail.Backends = append(mail.Backends, Backend{Name: fmt.Sprint("mx", i+1), SID: fmt.Sprintf("2001:db8:5e:20%d:5201::", i+1), State: "active", Health: []string{"up", "down", "down"}[i], Weight: 1, Load: -1, Share: 1.0 / 3, Traffic: to(1, 20)})
	}
	web.Decided = []Share{{"west", 0.6, 0.62, "90 % of its capacity"}, {"east", 0.4, 0.9, "the nearest with room"}, {"north", 0, 0, "no way to it"}}
	web.Reason = "the load here is above the limit"
	d.Services = []Service{web, mail}
	return d
}

// sampleEvents are those of the sample, by way of a log.
func sampleEvents(e *Events) {
	log := slog.New(e.Handler(slog.DiscardHandler))
	log.Info("identity", "is", "AS 4200000101, router ID 192.0.2.1")
	log.Info("peer is up", "peer", "tor1", "address", "fe80::60c6:5fff:fe9b:7f30%eth0", "as", 4200000000)
	log.Debug("nobody is told of this")
	log.Info("announced", "prefix", "192.0.2.53/32", "set", "dns", "why", "probe dns is up")
	log.Warn("backend changed", "service", "web", "backend", "web4", "sid", "2001:db8:5e:104:5201::", "from", "active", "to", "draining", "reason", "drained by an operator: new kernel")
	log.Warn("backend changed", "service", "web", "backend", "web6", "from", "active", "to", "dead", "reason", "silent for 3 intervals")
	log.Error("configuration not reloaded, going on with the old one", "err", `gateway.yaml:12: gateway.services[0].name: "<i>web</i>": used twice`)
	log.With("probe", "web").Warn("health changed", "from", "up", "to", "down", "reason", "connection refused")
}
