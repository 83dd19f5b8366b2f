package watch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Alert is a rule of Prometheus.
type Alert struct {
	Name        string
	Expr        string
	For         string // how long the expression has to hold
	Severity    Severity
	Summary     string // names what it is about, by {{ $labels.x }}
	Description string // what to look at
	// Fires are series with which the alert fires, and Quiet those with which it does
	// not, as promtool has them, one a minute for half an hour; Labels are those of the
	// alert that fires, beside its severity.
	Fires, Quiet map[string]string
	Labels       map[string]string
	// Unseen is why there may be no such series while all is well; "" where there are.
	Unseen string
}

// Severity says who is to be told.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // somebody now: clients notice, or are about to
	Warning  Severity = "warning"  // somebody today: what is left takes it
	Info     Severity = "info"     // nobody is told; it explains others
)

// rules is a file with the group of rules of a name.
func rules(c Catalog, name string, alerts []Alert) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated from deploy/watch: go generate ./deploy/... makes it again.\ngroups:\n  - name: razor-%s\n    rules:\n", name)
	for i := range alerts {
		a := &alerts[i]
		if err := a.check(c); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
		fmt.Fprintf(&b, "      - alert: %s\n        expr: %s\n        for: %s\n        labels:\n          severity: %s\n", a.Name, strconv.Quote(a.Expr), a.For, a.Severity)
		fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          description: %s\n", strconv.Quote(a.Summary), strconv.Quote(a.Description))
	}
	return []byte(b.String()), nil
}

func (a *Alert) check(c Catalog) error {
	if _, err := c.scan(a.Expr, selector.String); err != nil {
		return err
	}
	for series := range a.Fires {
		if _, err := c.scan(series, selector.String); err != nil {
			return err
		}
	}
	switch {
	case a.For == "" || a.Summary == "" || a.Description == "":
		return errors.New("wants for, summary and description")
	case !slices.Contains([]Severity{Critical, Warning, Info}, a.Severity):
		return fmt.Errorf("severity %q", a.Severity)
	case len(a.Fires) == 0 || len(a.Quiet) == 0:
		return errors.New("wants series with which it fires, and others with which it does not")
	}
	return nil
}
