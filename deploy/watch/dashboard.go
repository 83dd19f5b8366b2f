package watch

import (
	"errors"
	"fmt"
	"strings"
)

// Dashboard is one of Grafana's.
type Dashboard struct {
	Name        string // of the file, and in its address
	Title       string
	Description string
	Rows        []Row
}

// Row is panels below a heading.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel shows the values of some expressions.
type Panel struct {
	Title       string
	Description string // one line
	Kind        Kind
	Unit        string // one of Grafana's
	Width       int    // of 24
	Queries     []Query
	Stack       bool
	// Bad is the value from which on a stat is red; 0 is none.
	Bad float64
	// Empty is why there may be no data though all is well; "" where there has to be some.
	Empty string
}

// Query is an expression without the labels of targets, which are put in, and what its
// lines are called.
type Query struct {
	Expr   string
	Legend string
}

// Kind is a type of panel.
type Kind string

// The kinds.
const (
	Lines  Kind = "timeseries"
	Figure Kind = "stat"
	Table  Kind = "table"
	States Kind = "state-timeline"
)

const (
	rowHeight    = 1
	figureHeight = 4
	panelHeight  = 8
	gridWidth    = 24
	// targets are the labels of targets as the variables of a dashboard choose them.
	targets = `job=~"$job",site=~"$site",instance=~"$instance"`
)

// object is one of JSON.
type object map[string]any

// model is the dashboard as Grafana reads it.
func (d *Dashboard) model(c Catalog) (object, error) {
	var panels []object
	x, y, height := 0, 0, 0
	wrap := func() { x, y, height = 0, y+height, 0 }
	for _, row := range d.Rows {
		wrap()
		panels = append(panels, object{
			"id": len(panels) + 1, "type": "row", "title": row.Title, "collapsed": false, "panels": []object{},
			"gridPos": object{"x": 0, "y": y, "w": gridWidth, "h": rowHeight},
		})
		y += rowHeight
		for i := range row.Panels {
			p := &row.Panels[i]
			model, err := p.model(c)
			if err != nil {
				return nil, fmt.Errorf("panel %q: %w", p.Title, err)
			}
			if x+p.Width > gridWidth {
				wrap()
			}
			height = max(height, p.height())
			model["id"], model["gridPos"] = len(panels)+1, object{"x": x, "y": y, "w": p.Width, "h": p.height()}
			x += p.Width
			panels = append(panels, model)
		}
	}
	return object{
		"uid": "razor-" + d.Name, "title": "Razor: " + d.Title, "description": d.Description, "tags": []string{"razor"},
		"schemaVersion": 39, "version": 1, "editable": true, "graphTooltip": 1, "timezone": "", "refresh": "30s",
		"time":       object{"from": "now-3h", "to": "now"},
		"templating": object{"list": variables()},
		"links": []object{{
			"type": "dashboards", "tags": []string{"razor"}, "title": "Razor", "asDropdown": true, "includeVars": true, "keepTime": true,
		}},
		"annotations": object{"list": []object{{
			"name": "Restarts", "enable": true, "iconColor": "blue", "datasource": source(), "step": "60s",
			"expr": `changes(process_start_time_seconds{` + targets + `}[1m]) > 0`, "titleFormat": "{{job}} {{instance}} started",
		}}},
		"panels": panels,
	}, nil
}

func source() object { return object{"type": "prometheus", "uid": "${datasource}"} }

// variables choose the data source and the processes. Of processes without a site there
// is no such label: all sites have to match those too.
func variables() []object {
	choice := func(name, label, query, all string) object {
		v := object{
			"name": name, "label": label, "type": "query", "datasource": source(), "definition": query,
			"query": object{"query": query, "refId": "v"}, "refresh": 2, "sort": 1, "multi": true, "includeAll": true,
			"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}},
		}
		if all != "" {
			v["allValue"] = all
		}
		return v
	}
	return []object{
		{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": object{}},
		choice("job", "Job", `label_values(razor_build_info, job)`, ""),
		choice("site", "Site", `label_values(razor_build_info{job=~"$job"}, site)`, ".*"),
		choice("instance", "Instance", `label_values(razor_build_info{job=~"$job",site=~"$site"}, instance)`, ".*"),
	}
}

func (p *Panel) height() int {
	if p.Kind == Figure {
		return figureHeight
	}
	return panelHeight
}

func (p *Panel) model(c Catalog) (object, error) {
	if p.Title == "" || p.Description == "" || p.Width == 0 || len(p.Queries) == 0 {
		return nil, errors.New("wants title, description, width and queries")
	}
	var queries []object
	for i, q := range p.Queries {
		expr, err := c.scan(q.Expr, chosen)
		if err != nil {
			return nil, err
		}
		queries = append(queries, object{
			"refId": string(rune('A' + i)), "datasource": source(), "expr": expr, "legendFormat": q.Legend, "editorMode": "code",
			"instant": p.Kind == Table || p.Kind == Figure, "range": p.Kind == Lines || p.Kind == States, "format": p.format(),
		})
	}
	model := object{
		"type": string(p.Kind), "title": p.Title, "description": p.Description, "datasource": source(), "targets": queries,
		"fieldConfig": object{"defaults": p.field(), "overrides": []object{}}, "options": p.options(),
	}
	if p.Kind == Table {
		model["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": object{"Time": true, "__name__": true}}}}
	}
	return model, nil
}

// chosen is a selector for the processes that the variables choose.
func chosen(s selector) string {
	if s.metric == "ALERTS" {
		return s.String() // an alert need not have labels of a target
	}
	return s.metric + "{" + strings.Trim(s.matchers+","+targets, ",") + "}"
}

func (p *Panel) format() string {
	if p.Kind == Table {
		return "table"
	}
	return "time_series"
}

func (p *Panel) field() object {
	steps := []object{{"color": "green", "value": nil}}
	if p.Bad != 0 {
		steps = append(steps, object{"color": "red", "value": p.Bad})
	}
	f := object{"unit": p.Unit, "thresholds": object{"mode": "absolute", "steps": steps}, "color": object{"mode": "palette-classic"}}
	switch p.Kind {
	case Lines:
		custom := object{"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": false}
		if p.Stack {
			custom["stacking"], custom["fillOpacity"] = object{"mode": "normal", "group": "A"}, 30
		}
		f["custom"], f["min"] = custom, 0
	case States:
		f["custom"] = object{"lineWidth": 0, "fillOpacity": 80}
		f["mappings"] = []object{{"type": "value", "options": object{
			"0": object{"text": "no", "color": "red", "index": 0}, "1": object{"text": "yes", "color": "green", "index": 1},
		}}}
	case Figure:
		f["color"] = object{"mode": "thresholds"}
	}
	return f
}

func (p *Panel) options() object {
	switch p.Kind {
	case Lines:
		return object{"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}, "tooltip": object{"mode": "multi", "sort": "desc"}}
	case States:
		return object{"showValue": "never", "mergeValues": true, "legend": object{"displayMode": "list", "placement": "bottom", "showLegend": true}}
	case Figure:
		return object{"reduceOptions": object{"calcs": []string{"lastNotNull"}}, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
	}
	return object{"showHeader": true}
}
