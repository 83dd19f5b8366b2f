package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/razor-steering/razor/steering"
)

// supposition is what `razor what-if` is to change of a snapshot. Names are SITE or
// SITE/BACKEND; NAME=NUMBER has a number.
type supposition struct {
	fail, drain, capacity, load []string
}

// whatIfCommand is `razor what-if`.
func (c *cli) whatIfCommand() *cobra.Command {
	var file string
	var suppose supposition
	cmd := &cobra.Command{
		Use: "what-if", Short: "Show what would change in the plan", Long: whatIfLong, Example: whatIfExample,
		Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			s, of, err := c.snapshot(cmd, file)
			if err != nil {
				return err
			}
			before := steering.Decide(s)
			if err := suppose.apply(&s); err != nil {
				return err
			}
			after := steering.Decide(s)
			return errors.Join(writeDifference(c.stdout, before, after), c.leftOut(of, after))
		},
	}
	snapshotFlag(cmd, &file)
	flag := func(to *[]string, name, usage string) { cmd.Flags().StringArrayVar(to, name, nil, usage) }
	flag(&suppose.fail, "fail", "`name` of a site or SITE/BACKEND that goes down")
	flag(&suppose.drain, "drain", "`name` of a site or SITE/BACKEND that is drained")
	flag(&suppose.capacity, "capacity", "`name=number`: the capacity of a backend, or of another site, is another one")
	flag(&suppose.load, "load", "`name=number`: the load of a backend, or of another site, is another one")
	return cmd
}

// apply changes a snapshot.
func (u *supposition) apply(s *steering.Snapshot) error {
	if len(u.fail)+len(u.drain)+len(u.capacity)+len(u.load) == 0 {
		return errors.New("nothing to suppose: want --fail, --drain, --capacity or --load")
	}
	for _, name := range u.fail {
		err := change(s, name, func(b *steering.BackendSnapshot) { b.Health = steering.HealthDown }, func(o *steering.SiteSummary) { o.Healthy = false })
		if err != nil {
			return fmt.Errorf("--fail: %w", err)
		}
	}
	for _, name := range u.drain {
		if name == s.Site {
			s.Drained = true
			continue
		}
		err := change(s, name, func(b *steering.BackendSnapshot) { b.State = steering.AdminDrained }, func(o *steering.SiteSummary) { o.Drained = true })
		if err != nil {
			return fmt.Errorf("--drain: %w", err)
		}
	}
	for _, text := range u.capacity {
		err := changeAmount(s, text, func(b *steering.BackendSnapshot) *float64 { return &b.Capacity }, func(o *steering.SiteSummary) *float64 { return &o.Capacity })
		if err != nil {
			return fmt.Errorf("--capacity: %w", err)
		}
	}
	for _, text := range u.load {
		err := changeAmount(s, text, func(b *steering.BackendSnapshot) *float64 { return &b.Load }, func(o *steering.SiteSummary) *float64 { return &o.Load })
		if err != nil {
			return fmt.Errorf("--load: %w", err)
		}
	}
	return nil
}

// change does something to what has a name, in all services: a backend of this site,
// all of them, or another site.
func change(s *steering.Snapshot, name string, backend func(*steering.BackendSnapshot), site func(*steering.SiteSummary)) error {
	at, member, one := strings.Cut(name, "/")
	found := false
	var known []string
	for i := range s.Services {
		v := &s.Services[i]
		for j := range v.Backends {
			b := &v.Backends[j]
			if b.Site != "" && b.Site != s.Site {
				continue
			}
			known = append(known, s.Site+"/"+b.Name)
			if at == s.Site && (!one || b.Name == member) {
				backend(b)
				found = true
			}
		}
		for j := range v.Sites {
			known = append(known, v.Sites[j].Name)
			if at == v.Sites[j].Name && !one {
				site(&v.Sites[j])
				found = true
			}
		}
	}
	if !found {
		slices.Sort(known)
		return fmt.Errorf("%q is not in the snapshot, which has %s", name, strings.Join(append([]string{s.Site}, slices.Compact(known)...), ", "))
	}
	return nil
}

// changeAmount is change for NAME=NUMBER.
func changeAmount(s *steering.Snapshot, text string, backend func(*steering.BackendSnapshot) *float64, site func(*steering.SiteSummary) *float64) error {
	name, number, ok := strings.Cut(text, "=")
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(v >= 0) || math.IsInf(v, 0) {
		return fmt.Errorf("%q is not NAME=NUMBER, such as %s/BACKEND=1000", text, s.Site)
	}
	if name == s.Site {
		return fmt.Errorf("%q is this site, whose amounts are those of its backends: want %s/BACKEND=%s", name, s.Site, number)
	}
	return change(s, name, func(b *steering.BackendSnapshot) { *backend(b) = v }, func(o *steering.SiteSummary) { *site(o) = v })
}

// writeDifference writes who gets another share in a plan than in the one before.
func writeDifference(w io.Writer, before, after steering.Plan) error {
	changed := false
	for i, v := range after.Services {
		was := before.Services[i] // no supposition adds or removes a service
		had := map[getter]getter{}
		for _, g := range getters(was) {
			had[getter{what: g.what, name: g.name}] = g
		}
		table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		header := fmt.Sprintf("%s: %s\n", v.Name, v.Reason)
		if was.Reason != v.Reason {
			header = fmt.Sprintf("%s: %s; it was %s\n", v.Name, v.Reason, was.Reason)
		}
		for _, g := range append(getters(v), gone(had, v)...) {
			from := had[getter{what: g.what, name: g.name}].share
			if math.Abs(g.share-from) < 0.0005 {
				continue
			}
			if header != "" {
				fmt.Fprint(w, header)
				fmt.Fprintln(table, "\tNAME\tBEFORE\tAFTER\tREASON")
				header, changed = "", true
			}
			fmt.Fprintf(table, "%s\t%s\t%.1f%%\t%.1f%%\t%s\n", g.what, g.name, 100*from, 100*g.share, g.why)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if !changed {
		_, err := fmt.Fprintln(w, "nothing changes")
		return err
	}
	return nil
}

// gone is nowhere, with no share, if it had one and a plan has none for it.
func gone(had map[getter]getter, v steering.ServicePlan) []getter {
	if _, ok := had[getter{name: "nowhere"}]; ok && v.Nowhere == 0 {
		return []getter{{name: "nowhere", why: "some site has room"}}
	}
	return nil
}
