package upstreams

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// series are the names of all series in the registry, with their labels, and
// histograms by their name alone.
func series(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "{" + l.GetName() + "=" + l.GetValue() + "}"
			}
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// always are the series of every follower.
var always = []string{
	"razor_upstreams_edit_duration_seconds",
	"razor_upstreams_hold",
	"razor_upstreams_link_up{link=polling}",
	"razor_upstreams_link_up{link=tracking}",
	"razor_upstreams_rejected",
	"razor_upstreams_rescan_duration_seconds",
	"razor_upstreams_save_duration_seconds",
	"razor_upstreams_save_errors_total",
	"razor_upstreams_stale",
}

func TestSeries(t *testing.T) {
	t.Parallel()
	lists := []string{"razor_upstreams_edges{health=down}", "razor_upstreams_edges{health=draining}", "razor_upstreams_edges{health=unknown}", "razor_upstreams_edges{health=up}", "razor_upstreams_endpoints", "razor_upstreams_members", "razor_upstreams_names", "razor_upstreams_pools_emptied", "razor_upstreams_routes_below_floor", "razor_upstreams_routes_drained", "razor_upstreams_zones"}
	for _, tt := range []struct {
		name    string
		health  Health
		lists   bool
		further []string
	}{
		{"before the first snapshot", Health{Link: LinkDown}, false, nil},
		{"from disk", Health{Link: LinkDown, FromDisk: true}, true, lists},
		{"in sync", Health{Link: LinkTracking, InSync: time.Now()}, true, append([]string{"razor_upstreams_snapshot_age_seconds"}, lists...)},
		{"at a primary", Health{Link: LinkTracking, Replica: Replica{Role: "master"}}, false, nil},
		{"at a replica", Health{Link: LinkTracking, Replica: Replica{Role: "slave", Heard: time.Now()}}, false, []string{"razor_upstreams_replica_lag_seconds", "razor_upstreams_replica_link_up"}},
		{"at a replica that does not know when it heard its primary", Health{Link: LinkTracking, Replica: Replica{Role: "slave"}}, false, []string{"razor_upstreams_replica_link_up"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewPedanticRegistry()
			f, err := NewFollower(Config{}, Options{}, quiet(), reg)
			if err != nil {
				t.Fatal(err)
			}
			f.health.Store(&tt.health)
			if tt.lists {
				f.snapshot.Store(&Snapshot{})
			}
			want := slices.Concat(always, tt.further)
			slices.Sort(want)
			if got := series(t, reg); !slices.Equal(got, want) {
				t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestSeriesValues(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	f, err := NewFollower(Config{}, Options{}, quiet(), reg)
	if err != nil {
		t.Fatal(err)
	}
	f.health.Store(&Health{
		Link: LinkPolling, Hold: "flush", InSync: time.Now().Add(-time.Hour),
		Replica: Replica{Role: "slave", LinkUp: true, Heard: time.Now().Add(-2 * time.Hour)},
	})
	f.snapshot.Store(&Snapshot{zones: map[string]*Zone{"a": {}, "b": {}}, NameCount: 3, MemberCount: 4, Emptied: 5})
	f.report("r:A", []Defect{{Key: "r:A", Member: "x"}, {Key: "r:A", Member: "y"}})
	f.report("r:AAAA", []Defect{{Key: "r:AAAA"}})
	want := `
# HELP razor_upstreams_hold 1 while a mass loss in Redis is not obeyed.
# TYPE razor_upstreams_hold gauge
razor_upstreams_hold 1
# HELP razor_upstreams_link_up Whether Redis answers, by the way in which changes are followed.
# TYPE razor_upstreams_link_up gauge
razor_upstreams_link_up{link="polling"} 1
razor_upstreams_link_up{link="tracking"} 0
# HELP razor_upstreams_members Pool members in the snapshot.
# TYPE razor_upstreams_members gauge
razor_upstreams_members 4
# HELP razor_upstreams_names Names in the snapshot.
# TYPE razor_upstreams_names gauge
razor_upstreams_names 3
# HELP razor_upstreams_pools_emptied Pools of which skip list and blackhole leave nothing.
# TYPE razor_upstreams_pools_emptied gauge
razor_upstreams_pools_emptied 5
# HELP razor_upstreams_rejected Keys, members and fields in Redis that cannot be used and are left out.
# TYPE razor_upstreams_rejected gauge
razor_upstreams_rejected 3
# HELP razor_upstreams_replica_link_up Whether the Redis replica's link to its primary is up.
# TYPE razor_upstreams_replica_link_up gauge
razor_upstreams_replica_link_up 1
# HELP razor_upstreams_stale 1 while the lists are older than redis.stale_after: Redis does not answer, does not hear its primary, or has lost them (a hold).
# TYPE razor_upstreams_stale gauge
razor_upstreams_stale 1
# HELP razor_upstreams_zones Zones in the snapshot.
# TYPE razor_upstreams_zones gauge
razor_upstreams_zones 2
`
	if got := exposed(t, reg, metricHold, metricLink, metricMembers, metricNames, metricEmptied, metricRejected, metricReplicaLink, metricStale, metricZones); got != want {
		t.Errorf("%s\n%s", got, textDiff(got, want))
	}
	if age := exposed(t, reg, metricAge); !strings.Contains(age, metricAge+" 360") {
		t.Errorf("%s", age)
	}
	if lag := exposed(t, reg, metricReplicaLag); !strings.Contains(lag, metricReplicaLag+" 720") {
		t.Errorf("%s", lag)
	}
	f.reportAll(map[string][]Defect{"r:AAAA": {{Key: "r:AAAA"}}})
	if got := exposed(t, reg, metricRejected); !strings.HasSuffix(got, metricRejected+" 1\n") {
		t.Errorf("%s", got)
	}
}

// exposed is what a scrape has of some metrics.
func exposed(t *testing.T, reg *prometheus.Registry, names ...string) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteByte('\n')
	for _, f := range families {
		if slices.Contains(names, f.GetName()) {
			if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String()
}

// The time since the primary was heard grows through a loss of the link and a
// restart of the replica, and ends when the primary is heard.
func TestReplicaState(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	const slave, lost = "role:slave\r\nmaster_replid:d\r\n", "master_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n"
	for _, tt := range []struct {
		name, text string
		before     time.Time
		replid     string
		want       Replica
	}{
		{"primary", "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:abc\r\nmaster_replid2:000\r\n", time.Time{}, "abc", Replica{"master", false, now}},
		{"promoted", "role:master\r\nmaster_replid:abc\r\n", ago(90), "abc", Replica{"master", false, now}},
		{"replica", slave + "master_host:::1\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:7\r\n", ago(90), "d", Replica{"slave", true, ago(7)}},
		{"replica that hears", slave + "master_link_status:up\r\nmaster_last_io_seconds_ago:0\r\n", ago(1), "d", Replica{"slave", true, now}},
		{"link down at the first look", slave + lost + "master_link_down_since_seconds:7\r\n", time.Time{}, "d", Replica{"slave", false, ago(7)}},
		{"link seen to be down", slave + lost + "master_link_down_since_seconds:0\r\n", ago(60), "d", Replica{"slave", false, ago(60)}},
		{"link down for longer than heard of", slave + lost + "master_link_down_since_seconds:90\r\n", ago(60), "d", Replica{"slave", false, ago(90)}},
		{"restarted without its primary", slave + lost + "master_link_down_since_seconds:-1\r\n", ago(60), "d", Replica{"slave", false, ago(60)}},
		{"restarted, at the first look", slave + lost + "master_link_down_since_seconds:-1\r\n", time.Time{}, "d", Replica{"slave", false, time.Time{}}},
		{"nothing", "", time.Time{}, "", Replica{"", false, now}},
		{"rubbish", "role\nmaster_last_io_seconds_ago:x\n:::\n", time.Time{}, "", Replica{"", false, now}},
	} {
		info := parseInfo(tt.text)
		if got := info.replica(tt.before, now); got != tt.want || info.replid != tt.replid {
			t.Errorf("%s: %+v, %q; want %+v, %q", tt.name, got, info.replid, tt.want, tt.replid)
		}
	}
}

// The lists are as old as the older of two: when Redis was in sync, and when it
// heard its primary.
func TestStale(t *testing.T) {
	t.Parallel()
	now := time.Now()
	old := now.Add(-time.Minute)
	for _, tt := range []struct {
		name   string
		health Health
		asOf   time.Time
		stale  bool
	}{
		{"nothing yet", Health{}, time.Time{}, false},
		{"a replica without lists", Health{Replica: Replica{Role: "slave", Heard: old}}, time.Time{}, false},
		{"in sync with a server that tells nothing", Health{InSync: now}, now, false},
		{"in sync with a primary", Health{InSync: now, Replica: Replica{Role: "master", Heard: now}}, now, false},
		{"redis does not answer", Health{InSync: old, Replica: Replica{Heard: now}}, old, true},
		{"the primary is not heard", Health{InSync: now, Replica: Replica{Role: "slave", Heard: old}}, old, true},
	} {
		f, err := NewFollower(Config{StaleAfter: 50 * time.Second}, Options{}, quiet(), nil)
		if err != nil {
			t.Fatal(err)
		}
		f.health.Store(&tt.health)
		if h := f.Health(); h.Stale != tt.stale || !h.AsOf().Equal(tt.asOf) {
			t.Errorf("%s: stale %t, as of %v; want %t, %v", tt.name, h.Stale, h.AsOf(), tt.stale, tt.asOf)
		}
	}
}
