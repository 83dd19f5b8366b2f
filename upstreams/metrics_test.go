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
}

func TestSeries(t *testing.T) {
	t.Parallel()
	lists := []string{"razor_upstreams_endpoints", "razor_upstreams_members", "razor_upstreams_names", "razor_upstreams_pools_emptied", "razor_upstreams_routes_drained", "razor_upstreams_zones"}
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
		{"at a replica", Health{Link: LinkTracking, Replica: Replica{Role: "slave"}}, false, []string{"razor_upstreams_replica_lag_seconds", "razor_upstreams_replica_link_up"}},
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
		Replica: Replica{Role: "slave", LinkUp: true, LastData: 3 * time.Second},
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
# HELP razor_upstreams_replica_lag_seconds Time since the Redis replica heard its primary.
# TYPE razor_upstreams_replica_lag_seconds gauge
razor_upstreams_replica_lag_seconds 3
# HELP razor_upstreams_replica_link_up Whether the Redis replica's link to its primary is up.
# TYPE razor_upstreams_replica_link_up gauge
razor_upstreams_replica_link_up 1
# HELP razor_upstreams_zones Zones in the snapshot.
# TYPE razor_upstreams_zones gauge
razor_upstreams_zones 2
`
	if got := exposed(t, reg, metricHold, metricLink, metricMembers, metricNames, metricEmptied, metricRejected, metricReplicaLag, metricReplicaLink, metricZones); got != want {
		t.Errorf("%s\n%s", got, textDiff(got, want))
	}
	if age := exposed(t, reg, metricAge); !strings.Contains(age, metricAge+" 360") {
		t.Errorf("%s", age)
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

func TestParseInfo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       replicationInfo
	}{
		{"primary", "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_replid:abc\r\nmaster_replid2:000\r\n", replicationInfo{replid: "abc", replica: Replica{Role: "master"}}},
		{"replica", "role:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:7\r\nmaster_replid:d\r\n", replicationInfo{"d", Replica{"slave", true, 7 * time.Second}, "[::1]:6379"}},
		{"replica without its primary", "role:slave\nmaster_link_status:down\nmaster_last_io_seconds_ago:-1\n", replicationInfo{replica: Replica{Role: "slave"}}},
		{"nothing", "", replicationInfo{}},
		{"rubbish", "role\nmaster_last_io_seconds_ago:x\n:::\n", replicationInfo{}},
	} {
		if got := parseInfo(tt.text); got != tt.want {
			t.Errorf("%s: %+v; want %+v", tt.name, got, tt.want)
		}
	}
}
