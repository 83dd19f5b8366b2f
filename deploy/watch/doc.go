// Package watch is what operators look at: dashboards for Grafana and alert rules for
// Prometheus, made of the metrics that the roles register. An expression that names a
// metric or a label that no role has is an error, so that the files cannot drift from
// the code. No role imports it.
package watch

//go:generate go run ../generate ..

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Files are the generated files by their names below deploy/.
func Files() (map[string][]byte, error) {
	c := Metrics()
	out := map[string][]byte{}
	for _, d := range Dashboards() {
		model, err := d.model(c)
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", d.Name, err)
		}
		text, err := json.MarshalIndent(model, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("dashboard %s: %w", d.Name, err)
		}
		out["dashboards/"+d.Name+".json"] = append(text, '\n')
	}
	groups := Alerts()
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		text, err := rules(c, name, groups[name])
		if err != nil {
			return nil, fmt.Errorf("alerts %s: %w", name, err)
		}
		out["alerts/"+name+".yaml"] = text
	}
	return out, nil
}
