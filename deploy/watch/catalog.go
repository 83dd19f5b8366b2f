package watch

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/razor-steering/razor/agent"
	"github.com/razor-steering/razor/gateway"
	"github.com/razor-steering/razor/razor"
	"github.com/razor-steering/razor/upstreams"
	"github.com/razor-steering/razor/upstreams/consul"
)

// Catalog is the labels of metrics by their names, as PromQL has them: a histogram is
// there as its buckets, sum and count.
type Catalog map[string][]string

// targetLabels are those that Prometheus gives to all series of a process. site is a
// label of the scrape configuration.
var targetLabels = []string{"job", "instance", "site"}

// Metrics is what all roles register, and what Prometheus has itself.
func Metrics() Catalog {
	c := Catalog{
		"up":               nil,
		"ALERTS":           {"alertname", "alertstate", "severity"},
		"razor_build_info": {"version", "go_version"}, // of main
	}
	for _, register := range []func(prometheus.Registerer){razor.Metrics, upstreams.Metrics, consul.Metrics, gateway.Metrics, agent.Metrics} {
		register(c)
	}
	c.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return c
}

// MustRegister implements prometheus.Registerer.
func (c Catalog) MustRegister(all ...prometheus.Collector) {
	for _, collector := range all {
		if err := c.Register(collector); err != nil {
			panic(err) // of the program: no input comes here
		}
	}
}

// Register implements prometheus.Registerer: it takes down what a collector describes.
func (c Catalog) Register(collector prometheus.Collector) error {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		collector.Describe(descriptions)
	}()
	var bad error
	for d := range descriptions {
		if err := c.add(d.String()); err != nil {
			bad = err
		}
	}
	return bad
}

// Unregister implements prometheus.Registerer.
func (c Catalog) Unregister(prometheus.Collector) bool { return false }

var (
	// A Desc tells its name and labels in words only.
	described  = regexp.MustCompile(`^Desc\{fqName: "([^"]+)",.* constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	constLabel = regexp.MustCompile(`(\w+)="`)
)

func (c Catalog) add(description string) error {
	found := described.FindStringSubmatch(description)
	if found == nil {
		return fmt.Errorf("unexpected description of a metric: %s", description)
	}
	var labels []string
	for _, l := range constLabel.FindAllStringSubmatch(found[2], -1) {
		labels = append(labels, l[1])
	}
	if found[3] != "" {
		labels = append(labels, strings.Split(found[3], ",")...)
	}
	name := found[1]
	for _, l := range labels {
		if slices.Contains(targetLabels, l) {
			return fmt.Errorf("%s has the label %s of its target: Prometheus renames it to exported_%[2]s", name, l)
		}
	}
	if !strings.HasSuffix(name, "_duration_seconds") { // which all histograms are called, and nothing else
		c[name] = labels
		return nil
	}
	c[name+"_sum"], c[name+"_count"] = labels, labels
	c[name+"_bucket"] = append([]string{"le"}, labels...)
	return nil
}
