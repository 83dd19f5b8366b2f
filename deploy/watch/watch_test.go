package watch

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The files are what would be generated now, and no others are there.
func TestFilesAreGenerated(t *testing.T) {
	t.Parallel()
	want, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range want {
		got, err := os.ReadFile("../" + name)
		if err != nil || string(got) != string(content) {
			t.Errorf("deploy/%s is not up to date (%v): go generate ./deploy/...", name, err)
		}
	}
	for _, pattern := range []string{"dashboards/*.json", "alerts/*.yaml"} {
		there, err := filepath.Glob("../" + pattern)
		if err != nil || len(there) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range there {
			if want[strings.TrimPrefix(file, "../")] == nil {
				t.Errorf("%s is nobody's any more", file)
			}
		}
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	c := Metrics()
	for _, test := range []struct{ name, expr, want, err string }{
		{"plain", `razor_dns_tcp_connections`, `razor_dns_tcp_connections{T}`, ""},
		{"matchers", `rate(razor_gateway_packets_total{result="sent"}[$__rate_interval]) > 0`, `rate(razor_gateway_packets_total{result="sent",T}[$__rate_interval]) > 0`, ""},
		{
			"histogram", `histogram_quantile(0.9, sum by (le, site) (rate(razor_dns_query_duration_seconds_bucket[5m])))`,
			`histogram_quantile(0.9, sum by (le, site) (rate(razor_dns_query_duration_seconds_bucket{T}[5m])))`, "",
		},
		{"label of a single probe", `razor_probe_up{probe="dns"}`, `razor_probe_up{probe="dns",T}`, ""},
		{"braces in a string", `razor_probe_up{probe=~"a{2}, b"}`, `razor_probe_up{probe=~"a{2}, b",T}`, ""},
		{"no such metric", `sum(razor_dns_answers_total)`, "", `razor_dns_answers_total in "sum(razor_dns_answers_total)": no role has such a metric, and it is no known function`},
		{"histogram by its name", `razor_dns_query_duration_seconds`, "", `razor_dns_query_duration_seconds in "razor_dns_query_duration_seconds": no role has such a metric, and it is no known function`},
		{"no such label", `razor_dns_queries_total{code="NXDOMAIN"}`, "", `razor_dns_queries_total{code="NXDOMAIN"}: the metric has no label code, but zone, type, rcode, transport`},
		{"bad matcher", `razor_dns_queries_total{rcode NXDOMAIN}`, "", `razor_dns_queries_total{rcode NXDOMAIN}: cannot be read from "rcode NXDOMAIN" on`},
		{"open brace", `razor_dns_queries_total{rcode="NXDOMAIN"`, "", `"razor_dns_queries_total{rcode=\"NXDOMAIN\"": no }`},
		{"no such label in a grouping", `sum by (peer) (razor_dns_tcp_connections)`, "", `peer in "sum by (peer) (razor_dns_tcp_connections)": no metric in it has such a label`},
	} {
		got, err := c.scan(test.expr, func(s selector) string { return s.metric + "{" + strings.Trim(s.matchers+",T", ",") + "}" })
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != test.want || said != test.err {
			t.Errorf("%s: got %s, %s\nwant %s, %s", test.name, got, said, test.want, test.err)
		}
	}
}

// A metric has no label of its target, which Prometheus would rename.
func TestLabelsOfTargets(t *testing.T) {
	t.Parallel()
	err := Catalog{}.Register(prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "razor_x", Help: "x."}, []string{"service", "site"}))
	if err == nil || err.Error() != "razor_x has the label site of its target: Prometheus renames it to exported_site" {
		t.Error(err)
	}
}

// Every metric of a role is shown by a panel or watched by a rule, or it says here why not.
func TestNoMetricIsForgotten(t *testing.T) {
	t.Parallel()
	c := Metrics()
	used := map[string]bool{}
	note := func(expr string) {
		if _, err := c.scan(expr, func(s selector) string { used[s.metric] = true; return "" }); err != nil {
			t.Error(err)
		}
	}
	for _, d := range Dashboards() {
		for _, row := range d.Rows {
			for _, p := range row.Panels {
				for _, q := range p.Queries {
					note(q.Expr)
				}
			}
		}
	}
	for _, group := range Alerts() {
		for _, a := range group {
			note(a.Expr)
		}
	}
	unused := map[string]string{
		"razor_gateway_decision_timestamp_seconds":   "plans are made when something changes",
		"razor_gateway_plan_term":                    "the plan is in the status",
		"razor_agent_consul_failures_total":          "what is not registered is shown",
		"razor_gateway_plan_sequence":                "likewise",
		"razor_upstreams_zones":                      "the names tell as much",
		"razor_upstreams_replica_lag_seconds":        "the age of the lists has it in it",
		"razor_gateway_peer_prefixes":                "nothing is imported",
		"razor_gateway_peer_sessions_total":          "the ends are shown",
		"razor_gateway_unknown_calls_total":          "noise of the net",
		"razor_gateway_bfd_received_packets_total":   "the state is shown",
		"razor_gateway_bfd_sent_packets_total":       "the state is shown",
		"razor_gateway_backend_bytes_total":          "the packets are shown",
		"razor_gateway_old_flows_sample":             "on the live page, where it is not 1",
		"razor_probe_results_total":                  "the damped health is shown",
		"razor_agent_segment_events_lost_total":      "told again a second later",
		"razor_sync_publish_duration_seconds_bucket": "milliseconds beside Consul's own",
	}
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if !strings.HasPrefix(name, "razor_") || strings.HasSuffix(name, "_duration_seconds_sum") || strings.HasSuffix(name, "_duration_seconds_count") {
			continue // sum and count of a histogram go with its buckets
		}
		if !used[name] && unused[name] == "" && !used[strings.TrimSuffix(name, "_bucket")+"_sum"] {
			t.Errorf("%s is in no panel and no rule", name)
		}
		if used[name] && unused[name] != "" {
			t.Errorf("%s is used after all", name)
		}
	}
}

// promtool runs the tool of Prometheus. The test is skipped where there is none, unless
// RAZOR_TEST_REQUIRE is set.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil {
		if os.Getenv("RAZOR_TEST_REQUIRE") != "" {
			t.Fatal("promtool is required here:", err)
		}
		t.Skip("needs promtool (Debian: prometheus)")
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %v: %v\n%s", args, err, out)
	}
}

// Prometheus takes the rules, and each fires when it is to, says what it is to say, and
// is quiet otherwise.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for name, group := range Alerts() {
		file, err := filepath.Abs("../alerts/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			promtool(t, "check", "rules", file)
			var b strings.Builder
			fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 1m\ntests:\n", file)
			for i := range group {
				a := &group[i]
				writeTest(t, &b, a, a.Fires, true)
				writeTest(t, &b, a, a.Quiet, false)
			}
			tests := filepath.Join(t.TempDir(), "tests.yaml")
			if err := os.WriteFile(tests, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			promtool(t, "test", "rules", tests)
		})
	}
}

// writeTest writes what promtool is to try: whether an alert fires with some series, ten
// minutes after it had to.
func writeTest(t *testing.T, b *strings.Builder, a *Alert, series map[string]string, fires bool) {
	t.Helper()
	held, err := time.ParseDuration(strings.Replace(a.For, "1d", "24h", 1))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(b, "  - name: %s\n    interval: 1m\n    input_series:\n", a.Name)
	for _, s := range slices.Sorted(maps.Keys(series)) {
		fmt.Fprintf(b, "      - {series: %s, values: %q}\n", strconv.Quote(s), series[s])
	}
	fmt.Fprintf(b, "    alert_rule_test:\n      - eval_time: %dm\n        alertname: %s\n", int(held.Minutes())+10, a.Name)
	if !fires {
		b.WriteString("        exp_alerts: []\n")
		return
	}
	fmt.Fprintf(b, "        exp_alerts:\n          - exp_labels: {severity: %s", a.Severity)
	for _, l := range slices.Sorted(maps.Keys(a.Labels)) {
		fmt.Fprintf(b, ", %s: %q", l, a.Labels[l])
	}
	fmt.Fprintf(b, "}\n            exp_annotations: {summary: %s, description: %s}\n", strconv.Quote(expand(t, a, a.Summary)), strconv.Quote(expand(t, a, a.Description)))
}

var label = regexp.MustCompile(`\{\{ \$labels\.(\w+) \}\}`)

// expand is a text with the labels of the alert that fires.
func expand(t *testing.T, a *Alert, text string) string {
	t.Helper()
	return label.ReplaceAllStringFunc(text, func(of string) string {
		name := label.FindStringSubmatch(of)[1]
		if a.Labels[name] == "" {
			t.Errorf("%s: its alerts have no label %s", a.Name, name)
		}
		return a.Labels[name]
	})
}
